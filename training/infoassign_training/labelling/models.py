"""Scores of images by the model of a run."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray

from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import Distortions
from infoassign_training.data.digits import grey
from infoassign_training.data.evaluation_views import centred, shorter_side
from infoassign_training.data.images import Images
from infoassign_training.data.views import normalised
from infoassign_training.engine.ranks import Place
from infoassign_training.evaluation.features import Looking, chunks
from infoassign_training.labelling.problem import Problem
from infoassign_training.methods import settings as methods
from infoassign_training.methods.finished import Model


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


def logits(model: Model, source: Images, device: torch.device, batch_size: int, workers: int) -> Iterator[NDArray[Any]]:
    """Yield the scores of images, some at a time, float32, (b, K); they are shown as they are evaluated."""
    method, looking = model.method.to(device), looking_of(model.settings, device, batch_size, workers)
    for _, images in chunks(source, looking, "images"):
        yield method.logits(images)[0].float().cpu().numpy()


def looking_of(settings: Pretraining, device: torch.device, batch_size: int, workers: int = 0) -> Looking:
    """Return how images are shown to the encoder of a run: whole, or their centre."""
    augmentation, size = settings.augmentation, settings.image_size
    return Looking(
        transform=centred(size, shorter_side(size)),
        scaled=grey if isinstance(augmentation, Distortions) else partial(normalised, augmentation=augmentation),
        place=Place(),
        device=device,
        batch_size=batch_size,
        workers=workers,
    )
