"""A run from its first step to its report."""

import json
from pathlib import Path

from infoassign.files import write_text
from infoassign_training.config import Pretraining
from infoassign_training.data.digits import digits
from infoassign_training.engine import checkpoint
from infoassign_training.engine.pretrain import build, train
from infoassign_training.engine.run import Run, RunError, open_run
from infoassign_training.evaluation.suite import Scores, evaluate
from infoassign_training.figures.report import write_report
from infoassign_training.methods.method import Method


def pretrain(
    recipe: str, settings: Pretraining, folder: Path, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Scores]:
    """Train on the digits' training images, evaluate on the held-out ones, and write everything to a folder.

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

    Returns
    -------
    dict
        The scores by representation (features, pixels) and protocol.

    Raises
    ------
    UserError
        If the folder, the settings or the checkpoint do not allow it, or training diverges.
    """
    images = digits()[0]
    # Whatever cannot be trained is refused before the folder is touched.
    method = build(settings, images)
    with open_run(folder, recipe, settings, resume=resume, overwrite=overwrite) as run:
        return _finish(run, train(method, settings, images, run))


def report(folder: Path) -> dict[str, Scores]:
    """Evaluate the model of a run again and write its report anew; see :func:`pretrain`.

    Raises
    ------
    UserError
        If the folder holds no run that was trained to its end.
    """
    run = Run(folder)
    settings = run.read().settings
    method = build(settings, digits()[0])
    with run.locked():
        state = checkpoint.load(run.checkpoint)
        if settings.epochs and (state is None or state.epochs < settings.epochs):
            done = 0 if state is None else state.epochs
            raise RunError(f"{folder} is trained for {done} of {settings.epochs} epochs; finish it with --resume")
        if settings.epochs and not run.records():
            raise RunError(f"{run.log} is missing or empty; without it there are no learning curves to draw")
        if state is not None:
            state.restore_method(method)
        return _finish(run, method)


def _finish(run: Run, method: Method) -> dict[str, Scores]:
    train_images, held_out = digits()
    scores = evaluate(method.encoder, train_images, held_out)
    write_text(run.metrics, json.dumps(scores, indent=2) + "\n")
    write_report(run, method=method, train=train_images, scores=scores)
    return scores
