"""Scores of images by the model of a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import Distortions
from infoassign_training.data.digits import digits
from infoassign_training.data.evaluation_views import centred, in_order, shorter_side
from infoassign_training.data.images import Images
from infoassign_training.data.views import normalised
from infoassign_training.engine import checkpoint
from infoassign_training.engine.run import Run
from infoassign_training.errors import UserError
from infoassign_training.labelling.problem import Problem
from infoassign_training.methods import settings as methods
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


def problem_of(settings: methods.Settings) -> Problem:
    """Return the problem by which a method labels, in the units of its own; others have MIRA's of their logits.

    Examples
    --------
    >>> problem_of(methods.Swav(temperature=0.1, epsilon=0.05))
    Problem(method='sinkhorn', epsilon=0.5, strength=inf, temperature=0.1, prior=None)
    """
    match settings:
        case methods.Mira(beta_end=beta, teacher_temperature=temperature):
            return Problem(epsilon=1 - beta, strength=beta, temperature=temperature)
        case methods.Swav(epsilon=epsilon, temperature=temperature):
            exact = float("inf")
            return Problem(method="sinkhorn", epsilon=epsilon / temperature, strength=exact, temperature=temperature)
        case methods.Sela(sharpness=sharpness):
            return Problem(method="sinkhorn", epsilon=1 / sharpness, strength=float("inf"))
    return Problem()


def batches(model: Model, source: Images | None, batch_size: int, workers: int) -> Iterator[Tensor]:
    """Yield images as the encoder takes them; without a source the digits, as they are."""
    augmentation = model.settings.augmentation
    if isinstance(augmentation, Distortions):
        yield from digits()[0].images.split(batch_size)
        return
    assert source is not None
    look = centred(augmentation.global_size, shorter_side(augmentation.global_size))
    for images, _ in in_order(source, look, range(len(source)), batch_size=batch_size, workers=workers):
        yield normalised(images, augmentation)


def logits(model: Model, images: Iterator[Tensor], count: int, device: torch.device) -> Iterator[NDArray[Any]]:
    """Yield the scores of images, some at a time, float32, (b, K)."""
    method = model.method.to(device)
    with tqdm(desc="score", unit="image", total=count) as bar:
        for batch in images:
            found = method.logits(batch.to(device))[0]
            bar.update(len(batch))
            yield found.float().cpu().numpy()
