"""From what a person names to a folder of labels."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

import infoassign as ia
from infoassign.files import write_npy
from infoassign_training.errors import UserError
from infoassign_training.folders import appearing
from infoassign_training.labelling import folder, tables
from infoassign_training.labelling.labels import Made, Scores, at_potential, solved
from infoassign_training.labelling.options import FEW, Options, problem_of, require_consistent, shares_of
from infoassign_training.labelling.problem import Metric, Problem
from infoassign_training.labelling.scoring import scores_of


@dataclass(frozen=True)
class Source:
    """Scores, and what there is to say of them."""

    scores: Scores
    problem: Problem
    """What is solved where no options say otherwise."""
    said: dict[str, Any]
    """For the certificate."""
    names: Iterable[str] | None = None
    """Where the images come from."""
    prototypes: NDArray[Any] | None = None
    """That features were scored for."""


def label(words: str, options: Options) -> dict[str, Any]:
    """Label what is named, and write everything to a folder.

    Parameters
    ----------
    words
        A file of scores or features; with a checkpoint, images as :func:`infoassign_training.data.settings.named`
        reads them.
    options
        The rest.

    Returns
    -------
    dict
        The certificate, as it is in the folder.

    Raises
    ------
    UserError
        If options, files, images or the folder do not allow it; nothing has been written then.
    ValueError
        If scores are not finite, or do not fit a potential.
    OSError
        If the disk is full.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> np.save(folder / "scores.npy", np.eye(4))
    >>> certificate = label(str(folder / "scores.npy"), Options(out=folder / "labels"))
    >>> certificate["status"], certificate["error_bound"] <= 1e-4
    ('converged', True)
    >>> np.load(folder / "labels" / "labels.npy")
    array([[0, 1, 2, 3]])
    """
    require_consistent(options)
    out = options.out.expanduser()
    read = [Path(words), *filter(None, (options.prototypes, options.like, options.checkpoint)), Path(options.prior)]
    folder.require_free(out, overwrite=options.overwrite, read=[path.expanduser() for path in read])
    began = time.perf_counter()
    with appearing(out) as whole, TemporaryDirectory(dir=out.resolve().parent, prefix=f".{out.name}.") as scratch:
        source = _source(words, options, Path(scratch) / "scores.npy")
        made, how = _made(source, options)
        said = {
            "made": how,
            "rows": len(made.labels),
            "labels": len(made.potential),
            **made.said,
            **source.said,
            "seconds": round(time.perf_counter() - began, 3),
            "infoassign": ia.__version__,
        }
        folder.write(whole, made, said, soft=options.soft, names=source.names, prototypes=source.prototypes)
    return said


def _made(source: Source, options: Options) -> tuple[Made, str]:
    """Make the labels; return them, and how that was done in words."""
    scores, problem = source.scores, source.problem
    labels = scores.like.shape[-1]
    if options.argmax:
        temperature = options.temperature or problem.temperature
        return at_potential(scores, np.zeros(labels), 1.0, temperature), "argmax"
    if options.like is not None:
        before, potential, _ = folder.read(options.like.expanduser())
        _require_alike(before, source.said, options.like)
        weights = before["problem"]
        made = at_potential(scores, potential, float(weights["epsilon"]), float(weights["temperature"]))
        kept = {name: before[name] for name in KEPT if name in before}
        known = tables.fingerprint(options.like.expanduser() / folder.POTENTIAL)
        made.said["earlier"] = kept | {"potential": known}
        return made, f"potential of {options.like}"
    if options.clusters is None:
        problem = problem_of(options, problem, labels)
    made = solved(
        scores,
        problem,
        tol=options.tol,
        max_sweeps=options.max_sweeps,
        balanced=options.balanced,
        bounds=options.bounds == "always" or (options.bounds == "auto" and scores.rows * labels <= FEW),
    )
    return made, "solved"


KEPT = ("made", "rows", "status", "advice", "error_bound", "marginal_error", "tol", "problem", "input", "model")
"""What a certificate by an earlier potential repeats of the earlier one."""


def _require_alike(before: dict[str, Any], now: dict[str, Any], like: Path) -> None:
    """Say so if the potential is of scores of another kind, or by another model."""
    kinds = [said["input"]["kind"] for said in (before, now)]
    if kinds[0] != kinds[1]:
        raise UserError(f"{like} was made of {kinds[0]}, and these are {kinds[1]}; its potential is not theirs")
    models = [
        {name: value for name, value in said.get("model", {}).items() if name != "path"} for said in (before, now)
    ]
    if models[0] != models[1]:
        named = before.get("model", {}).get("path", "none")
        raise UserError(f"{like} was made by another model, {named}; its potential is not this one's")


def _source(words: str, options: Options, scores: Path) -> Source:
    if options.checkpoint is not None:
        return _images(words, options.checkpoint.expanduser(), options, scores)
    path = Path(words).expanduser()
    if path.is_dir() or not path.exists():
        kind = "is a folder" if path.is_dir() else "is not there"
        raise UserError(f"{words} {kind}; give a file .npy or .safetensors, or for images --checkpoint RUN, too")
    table = tables.open_table(path, options.tensor)
    known = tables.fingerprint(path) | ({"tensor": options.tensor} if options.tensor else {})
    earlier: tuple[NDArray[Any], Metric] | None = None
    if options.like is not None:
        said, _, prototypes = folder.read(options.like.expanduser())
        if prototypes is not None:
            earlier = prototypes, said["metric"]
    if options.prototypes is None and options.clusters is None and earlier is None:
        return Source(ia.StreamedScores(table), Problem(), {"input": {"kind": "scores", **known}})
    tables.require_finite(table, path, directions=options.metric == "cosine")
    said = {"input": {"kind": "features", **known}}
    if options.clusters is not None:
        return _clustered(table, options.clusters, options, said)
    if earlier is not None:
        prototypes, metric = earlier
    else:
        assert options.prototypes is not None
        file = options.prototypes.expanduser()
        opened = tables.open_table(file, advice="give a file with the prototypes alone, not with")
        tables.require_finite(opened, file)
        prototypes, metric = np.asarray(opened[0 : opened.shape[0], :]), options.metric or "product"
    return Source(scores_of(table, prototypes, metric), Problem(), said | {"metric": metric}, prototypes=prototypes)


def _clustered(table: Any, clusters: int, options: Options, said: dict[str, Any]) -> Source:
    """Find prototypes on as many rows as fit, by the estimator; the problem of all rows is the estimator's."""
    from infoassign.estimator import InfoAssign

    rows = tables.some_rows(table, options.sample, options.seed)
    if clusters > len(rows):
        raise UserError(f"--clusters {clusters} is more than the {len(rows)} rows that they are found among")
    metric: Any = options.metric or "euclidean"
    epsilon = 0.1 if options.epsilon is None else options.epsilon
    beta = 2 / 3 if options.beta is None else options.beta
    method = options.method or "mira"
    if method == "sinkhorn" and options.beta is not None:
        raise UserError("--beta is for --method mira; how soft the labels of sinkhorn are is --epsilon")
    prior = shares_of(options.prior, clusters)
    model = InfoAssign(
        clusters,
        method=method,
        epsilon=epsilon,
        beta=beta,
        prior=prior,
        metric=metric,
        random_state=options.seed,
    ).fit(rows)
    # Unit vectors are apart by two less twice the cosine.
    temperature = model.scale_**2 / (2 if metric == "cosine" else 1)
    strength = float("inf") if method == "sinkhorn" else epsilon * beta / (1 - beta)
    problem = Problem(method=method, epsilon=epsilon, strength=strength, temperature=temperature, prior=prior)
    centers = model.cluster_centers_
    found = {"metric": metric, "clusters": {"rows": len(rows), "seed": options.seed, "objective": model.objective_}}
    return Source(scores_of(table, centers, metric), problem, said | found, prototypes=centers)


def _images(words: str, checkpoint: Path, options: Options, file: Path) -> Source:
    """Score images by a model; the scores are in a file as long as they are worked on."""
    from infoassign_training.data.build import images_of
    from infoassign_training.data.settings import Digits, Folder, named
    from infoassign_training.engine import ranks
    from infoassign_training.labelling import models
    from infoassign_training.methods.finished import open_model

    model = open_model(checkpoint)
    try:
        chosen = named(words, Folder())
    except ValueError as error:
        raise UserError(str(error)) from error
    on_digits = isinstance(model.settings.data, Digits)
    if on_digits != isinstance(chosen, Digits):
        raise UserError(
            f"the model of {checkpoint} {'takes the digits alone: label digits' if on_digits else 'takes no digits'}"
        )
    source = images_of(chosen)
    labels = model.method.labels
    assert labels is not None
    said = {
        "input": {"kind": "images", "words": words, "images": len(source)},
        "model": {
            "recipe": model.recipe,
            "method": model.settings.method.kind,
            "steps": model.steps,
            **tables.fingerprint(model.path),
        },
    }
    problem = models.problem_of(model.settings.method)
    # What cannot be done is said before all images are looked at.
    if options.like is not None:
        _require_alike(folder.read(options.like.expanduser())[0], said, options.like)
    elif not options.argmax:
        problem_of(options, problem, labels)
    with ranks.joined(options.device) as (_, device):
        parts = models.logits(model, source, device, options.batch_size, options.workers)
        write_npy(file, parts, (len(source), labels), np.float32)
    names = (source.origin(index) for index in range(len(source)))
    scores = ia.StreamedScores(np.load(file, mmap_mode="r"))
    return Source(scores, problem, said, names)
