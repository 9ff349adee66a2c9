"""The method of a run, with the weights that it has learnt."""

from dataclasses import dataclass
from pathlib import Path

from infoassign_training.config import Pretraining
from infoassign_training.engine import checkpoint
from infoassign_training.engine.run import Run
from infoassign_training.errors import UserError
from infoassign_training.methods.build import build
from infoassign_training.methods.method import Method


@dataclass(frozen=True)
class Model:
    """What a run has learnt."""

    path: Path
    """The checkpoint."""
    recipe: str
    settings: Pretraining
    method: Method
    """In evaluation mode, on the CPU."""
    steps: int
    """That it was trained for."""


def open_model(where: Path) -> Model:
    """Open the model of a run that makes labels.

    Parameters
    ----------
    where
        The run's folder, or a checkpoint in it.

    Raises
    ------
    UserError
        If there is none, or its method makes no labels.
    """
    model = restored(where)
    if model.method.labels is None:
        raise UserError(
            f"{where} was trained by {model.settings.method.kind}, which makes no labels; label its features"
            " (FILE --clusters K), or take a run of mira, swav, sela, deepcluster or transfer"
        )
    return model


def restored(where: Path) -> Model:
    """Open the model of a run of any method.

    Parameters
    ----------
    where
        The run's folder, or a checkpoint in it.

    Raises
    ------
    UserError
        If there is none.
    """
    path = where if where.is_file() else Run(where).checkpoint
    started = Run(path.parent).read()
    state = checkpoint.load(path)
    if state is None:
        raise UserError(f"there is no checkpoint {path}; give a run's folder, or a checkpoint in one")
    # How many images and classes the run had is known from what it kept.
    targets, head = state.method.get("targets"), state.method.get("head.weight")
    classes = len(head) if started.settings.method.supervised and head is not None else 0
    method = build(started.settings, images=1 if targets is None else targets.shape[1], classes=classes)
    state.restore_method(method)
    return Model(path, started.recipe, started.settings, method.eval(), state.step)
