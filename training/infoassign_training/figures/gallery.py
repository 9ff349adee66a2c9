"""From the name of a figure to its files."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from infoassign_training.engine import ranks
from infoassign_training.engine.run import Run
from infoassign_training.errors import UserError
from infoassign_training.figures import clusters, convergence, course, filters, gradcam, segments
from infoassign_training.figures.options import Options
from infoassign_training.figures.saving import save
from infoassign_training.figures.subject import Subject, UnfitError
from infoassign_training.labelling.tables import open_table
from infoassign_training.methods.settings import Mira, Sela, Settings, Swav

Made: TypeAlias = tuple[Figure, dict[str, Any]]
"""A figure and the numbers in it."""


def draw(names: Sequence[str], options: Options) -> Iterator[Path | UnfitError]:
    """Make figures one after the other.

    Parameters
    ----------
    names
        Of `FIGURES`.
    options
        What they are of, where to write them, and how they are made.

    Yields
    ------
    Path
        Every file that was written.
    UnfitError
        Why a figure cannot be made of this run; the others go on.

    Raises
    ------
    UserError
        If a figure cannot be made of scores alone, or what it is made of is not there.
    """
    subject, folder = None, options.out
    with ranks.joined(options.device) as (_, device):
        if options.run is not None:
            where = options.run.expanduser()
            subject = Subject(where, most=options.images, device=device, data=options.data)
            folder = folder or Run(where if where.is_dir() else where.parent).figures
        if folder is None:
            raise UserError("say with --out where the figures are to be written")
        for name in names:
            try:
                figure, numbers = _figure(name, options, subject)
            except (UnfitError, ValueError) as error:
                yield UnfitError(f"{name}: {error}")
                continue
            yield from save(folder.expanduser(), name, figure, numbers)


def _figure(name: str, options: Options, subject: Subject | None) -> Made:
    if name == "convergence":
        return _convergence(options, subject)
    if subject is None:
        raise UserError(f"{name} is a figure of a run; name it with --run RUN (--scores is for convergence)")
    return MAKERS[name](subject, options)


def _convergence(options: Options, subject: Subject | None) -> Made:
    scores: NDArray[Any]
    if options.scores is not None:
        path = options.scores.expanduser()
        table = open_table(path)
        scores, known = np.asarray(table[0 : table.shape[0], :]), (2 / 3, 0.225, 0.05)
    else:
        assert subject is not None
        scores, known = subject.logits, published(subject.model.settings.method)
    given = (options.beta, options.temperature, options.epsilon)
    beta, temperature, epsilon = (of if said is None else said for said, of in zip(given, known, strict=True))
    settings = convergence.Convergence(
        beta=beta,
        temperature=temperature,
        epsilon=epsilon,
        batch_size=options.batch_size,
        batches=options.batches,
        updates=options.updates,
        seed=options.seed,
    )
    found = convergence.compare(scores, settings)
    return convergence.draw(found), found.to_dict()


def published(settings: Settings) -> tuple[float, float, float]:
    """Return beta and temperature of MIRA and Sinkhorn's epsilon for a method: its own, and for the rest the papers'.

    Examples
    --------
    >>> published(Swav(epsilon=0.03))[1:]
    (0.225, 0.03)
    """
    match settings:
        case Mira(beta_end=beta, teacher_temperature=temperature):
            return beta, temperature, 0.05
        case Swav(epsilon=epsilon):
            return 2 / 3, 0.225, epsilon
        case Sela(sharpness=sharpness):  # logits, not cosines
            return 2 / 3, 1.0, 1 / sharpness
    return 2 / 3, 1.0, 1 / 3


def _joint(subject: Subject, options: Options) -> Made:
    size = subject.segment_size
    found = segments.joint(*subject.two_views.codes, size)
    return segments.draw_joint(found), found.to_dict()


def _hardness(subject: Subject, options: Options) -> Made:
    size = subject.segment_size
    found = segments.hardness(*subject.two_views.codes, size)
    return segments.draw_hardness(found), found.to_dict()


def _two_views(subject: Subject, options: Options) -> Made:
    size = subject.segment_size
    pictures = subject.two_views.pictures
    first, second = (codes[: len(pictures[0]), : segments.VECTOR] for codes in subject.two_views.codes)
    figure = segments.draw_vectors(pictures, first, second, size)
    return figure, {"first": first.tolist(), "second": second.tolist()}


def _samples(subject: Subject, options: Options) -> Made:
    size = subject.segment_size
    found = segments.samples(subject.codes, size, segments=options.segments)
    pictures = np.stack([subject.pictures(rows) for rows in found.rows])
    return segments.draw_samples(found, pictures), found.to_dict()


def _grad_cam(subject: Subject, options: Options) -> Made:
    codes, unit = subject.codes, options.unit
    if not 0 <= unit < codes.shape[1]:
        raise UserError(f"--unit must be from 0 to {codes.shape[1] - 1}; got {unit}")
    rows = np.argsort(-codes[:, unit], kind="stable")[:8]
    images, network = subject.inputs(rows), subject.network
    name, layer = gradcam.layer_of(network[0], images, options.layer)
    heat = gradcam.heat(network, layer, images, unit)
    found = gradcam.Maps(unit, name, rows, codes[rows, unit], heat)
    return gradcam.draw(found, subject.pictures(rows, 224)), found.to_dict()


def _course(subject: Subject, options: Options) -> Made:
    found = course.course(Run(subject.model.path.parent).records())
    return course.draw(found), found.to_dict()


def _entropies(subject: Subject, options: Options) -> Made:
    found = clusters.entropies(subject.clusters, subject.classes)
    return clusters.draw_entropies(found), found.to_dict()


def _clusters(subject: Subject, options: Options, *, lowest: bool) -> Made:
    found = clusters.choose(subject.clusters, subject.classes, lowest=lowest, seed=options.seed)
    pictures = np.stack([subject.pictures(rows) for rows in found.rows])
    words = f"{'Clusters of the lowest entropy' if lowest else 'Random clusters'}, random images of each"
    return clusters.draw_chosen(found, pictures, subject.images.names, words), found.to_dict()


def _filters(subject: Subject, options: Options) -> Made:
    found = filters.first(subject.model.method.encoder)
    return filters.draw(found), found.to_dict()


MAKERS: dict[str, Callable[[Subject, Options], Made]] = {
    "joint-distribution": _joint,
    "one-hot": _hardness,
    "two-views": _two_views,
    "unit-samples": _samples,
    "grad-cam": _grad_cam,
    "course": _course,
    "cluster-entropy": _entropies,
    "pure-clusters": partial(_clusters, lowest=True),
    "random-clusters": partial(_clusters, lowest=False),
    "filters": _filters,
}
"""By name; each makes its figure of a run."""
