"""A run from its first step to its report."""

import json
from contextlib import ExitStack
from pathlib import Path

import torch

from infoassign.files import write_text
from infoassign_training.config import Pretraining
from infoassign_training.data.digits import LabelledImages, digits
from infoassign_training.data.settings import Digits
from infoassign_training.engine import checkpoint, ranks
from infoassign_training.engine.board import require_tensorboard
from infoassign_training.engine.feed import Feed, feed_of
from infoassign_training.engine.pretrain import TrainingError, train
from infoassign_training.engine.run import Run, RunError, open_run
from infoassign_training.evaluation.suite import Scores, evaluate
from infoassign_training.figures.report import write_report
from infoassign_training.methods.build import build
from infoassign_training.methods.labels import write_labels
from infoassign_training.methods.method import Method


def pretrain(
    recipe: str,
    settings: Pretraining,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
) -> dict[str, Scores]:
    """Train, and write everything to a folder; on the digits, evaluate on the held-out ones, too.

    Under torchrun every process calls this.

    Parameters
    ----------
    recipe
        The name under which the run is saved.
    settings
        What to do.
    folder
        Where to; made if it is not there.
    resume, overwrite
        What to do if the folder holds a run: continue it, or delete it. Without either that is an error.
    tensorboard
        Whether to write the log for TensorBoard, too.

    Returns
    -------
    dict
        The scores by representation (features, pixels) and protocol; empty but for the digits.

    Raises
    ------
    UserError
        If the folder, the settings, the images or the checkpoint do not allow it, or training diverges.
    TrainingError
        One of these: the settings do not fit the images, or training diverges.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp()) / "untrained"
    >>> scores = pretrain("untrained", Pretraining(epochs=0), folder)  # of epochs 0: the initial weights
    >>> sorted(scores), sorted(scores["features"])
    (['features', 'pixels'], ['kmeans_ari', 'kmeans_nmi', 'knn', 'linear'])
    >>> (folder / "report.html").is_file()
    True
    """
    try:
        with ExitStack() as kept:
            with ranks.joined(settings.device) as (place, device):
                # Whatever cannot be trained is refused before the folder is touched.
                if tensorboard:
                    require_tensorboard()
                feed = feed_of(settings, place, device)
                # A state has what a method prepares.
                begun = resume and Run(folder).checkpoint.exists()
                method = _method(settings, feed, device, prepare=not begun)
                if place.rank:
                    ranks.wait()
                    train(method, settings, feed, Run(folder), place)
                    return {}
                run = kept.enter_context(open_run(folder, recipe, settings, resume=resume, overwrite=overwrite))
                ranks.wait()
                train(method, settings, feed, run, place, tensorboard=tensorboard)
            # The other ranks are gone.
            return _finish(run, settings, method.cpu())
    except ValueError as error:
        raise TrainingError(str(error)) from error


def report(folder: Path) -> dict[str, Scores]:
    """Write the report of a run anew, and on the digits evaluate its model again; see :func:`pretrain`.

    Parameters
    ----------
    folder
        That of the run.

    Returns
    -------
    dict
        The scores, as :func:`pretrain` returns them.

    Raises
    ------
    UserError
        If the folder holds no run that was trained to its end.
    RunError
        One of these, which says what to do.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp()) / "untrained"
    >>> scores = pretrain("untrained", Pretraining(epochs=0), folder)
    >>> report(folder) == scores
    True
    """
    run = Run(folder)
    settings = run.read().settings
    with run.locked():
        state = checkpoint.load(run.checkpoint)
        cpu = torch.device("cpu")
        feed = feed_of(settings, ranks.Place(), cpu)
        done, total = 0 if state is None else state.step, settings.epochs * feed.steps_per_epoch
        if done < total:
            raise RunError(f"{folder} is trained for {done} of {total} steps; finish it with --resume")
        if settings.epochs and not run.records():
            raise RunError(f"{run.log} is missing or empty; without it there are no learning curves to draw")
        method = _method(settings, feed, cpu, prepare=state is None)
        if state is not None:
            state.restore_method(method)
        return _finish(run, settings, method)


def _method(settings: Pretraining, feed: Feed, device: torch.device, *, prepare: bool) -> Method:
    method = build(settings, images=feed.images, classes=feed.classes)
    if prepare:
        method.prepare()
    return method.to(device)


def _finish(run: Run, settings: Pretraining, method: Method) -> dict[str, Scores]:
    scores: dict[str, Scores] = {}
    train_images: LabelledImages | None = None
    kept = method.pseudo_labels()
    if kept is not None and settings.epochs:
        write_labels(run.labels, kept.numpy())
    if isinstance(settings.data, Digits):
        train_images, held_out = digits()
        scores = evaluate(method.encoder, train_images, held_out)
        write_text(run.metrics, json.dumps(scores, indent=2) + "\n")
    write_report(run, method=method, train=train_images, scores=scores)
    return scores
