"""Runs on some of the digits, as the tests of training make them."""

from dataclasses import replace

import torch

from infoassign_training.config import Pretraining
from infoassign_training.data.digits import LabelledImages, digits
from infoassign_training.engine import pretrain
from infoassign_training.engine.feed import DigitFeed
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run
from infoassign_training.methods import build
from infoassign_training.methods.method import Method
from infoassign_training.methods.settings import Mira, Settings
from infoassign_training.models.settings import Projector, SmallResNet

SMALL = Pretraining(
    epochs=2,
    encoder=SmallResNet(widths=(4, 8), features=16),
    projector=Projector(hidden=(16,), projection=8),
    method=Mira(prototypes=12),
    device="cpu",
)
"""A run of seconds."""


def with_method(settings: Pretraining, method: Settings) -> Pretraining:
    """Change the method, and leave the projector out where it has no use for one."""
    return replace(settings, method=method, projector=settings.projector if method.projects else None)


def some(number: int) -> LabelledImages:
    """Return the first training images."""
    images = digits()[0]
    return LabelledImages(images.images[:number], images.classes[:number])


def built(settings: Pretraining, images: LabelledImages) -> Method:
    """Make the method with its initial weights."""
    return build.build(settings, images=len(images.images), classes=10)


def feed(settings: Pretraining, images: LabelledImages) -> DigitFeed:
    """Feed one process on the CPU."""
    return DigitFeed(images, settings, Place(), torch.device("cpu"))


def train(settings: Pretraining, images: LabelledImages, run: Run, *, tensorboard: bool = False) -> Method:
    """Train from initial weights, or from the run's checkpoint."""
    method = built(settings, images)
    return pretrain.train(method, settings, feed(settings, images), run, Place(), tensorboard=tensorboard)
