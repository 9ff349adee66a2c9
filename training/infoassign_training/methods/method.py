"""What all methods have in common: views of a batch in, a loss out.

Examples
--------
>>> now = Moment(step=15, steps=40, steps_per_epoch=10)
>>> now.epoch, now.progress
(1, 0.375)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

import infoassign as ia


@dataclass(frozen=True)
class Moment:
    """Where in training a step is."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    steps_per_epoch: int
    """Steps of an epoch."""

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def progress(self) -> float:
        """The share of the steps that are done."""
        return self.step / self.steps


@dataclass(frozen=True)
class Parts:
    """What a method is put around."""

    encoder: nn.Module
    """Images (B, C, H, W) in, features (B, `features`) out."""
    projector: nn.Module
    """Features in, projections (B, `projection`) out; the identity for methods that do not project."""
    features: int
    """Their length."""
    projection: int
    """Their length."""
    images: int
    """How many there are in the training data."""
    classes: int
    """How many there are in the training data; 0 if they are not known."""


@dataclass(frozen=True)
class Batch:
    """Images of a step."""

    views: list[Tensor]
    """Each of shape (B, C, H, W)."""
    rows: Tensor
    """Which images they are of, shape (B,), int64."""
    classes: Tensor
    """The true classes, shape (B,), int64, or of tagged images which they have, (B, C), int8 (see
    :class:`~infoassign_training.data.images.TaggedImages`); only methods that are supervised may look at them."""


@dataclass(frozen=True)
class Step:
    """What one step of a method yields."""

    loss: Tensor
    """Shape (), differentiable."""
    assignments: tuple[ia.Assignment, ...] = ()
    """The labels that were made for it: of its first view first, and in each the images of the batch first."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """Parts of the loss, of shape (), to be logged as means."""
    watched: Mapping[str, Tensor] = field(default_factory=dict)
    """What is no part of the loss, of shape (), to be logged as means, too."""
    schedules: Mapping[str, float] = field(default_factory=dict)
    """What changes with the step, to be logged as it is."""


def agreement(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of images whose likeliest label is the one to be learnt, shape ().

    What methods that learn labels have watched as ``agreement``: whoever makes the labels, a teacher, the same network
    from another view, or a clustering, and for the supervised baseline the classes.

    Parameters
    ----------
    logits
        What is predicted, shape (B, K).
    labels
        What is to be learnt, shape (B,), int64.

    Examples
    --------
    >>> import torch
    >>> agreement(torch.tensor([[1.0, 0.0], [2.0, 3.0], [5.0, 4.0]]), torch.tensor([0, 1, 1]))
    tensor(0.6667)
    """
    return (logits.detach().argmax(dim=1) == labels).float().mean()


Pass = Callable[[int], Iterator[tuple[Tensor, list[Tensor]]]]
"""Goes once over this rank's part of all images, with so many random views; yields which they are and the views."""


class Method(nn.Module, ABC):
    """An encoder in training, and what stands behind it."""

    encoder: nn.Module
    """Images (B, C, H, W) in, features (B, F) out: what is evaluated."""
    labels: int | None = None
    """How many labels there are, if the method makes any."""

    def prepare(self) -> None:
        """Read what it needs before the first step; called before anything is written.

        A run that goes on from a checkpoint does not call it: what it reads is part of the state.

        Raises
        ------
        ValueError
            If that is not there or does not fit; the message says what to do.
        """
        return

    def rate_factor(self, name: str) -> float:
        """Say what the learning rate is multiplied by for a parameter, by its name in the method."""
        return 1.0

    def before(self, now: Moment, images: Pass) -> tuple[ia.Assignment, ...]:
        """Do what is due before a step; return the labels that were made for all images."""
        return ()

    def forward(self, batch: Batch, now: Moment) -> Step:
        """Return the loss of a batch."""
        return self.loss(self.outputs(batch.views), self.constants(batch.views), batch, now)

    @abstractmethod
    def outputs(self, views: list[Tensor]) -> list[Tensor]:
        """Pass views through the network that learns; the loss is a function of what comes out.

        Parameters
        ----------
        views
            Of a batch, or of a piece of it, each of shape (B, C, H, W).

        Returns
        -------
        list of Tensor
            Each of shape (B, ...): what pieces of a batch give can be put together again.
        """

    def constants(self, views: list[Tensor]) -> list[Tensor]:
        """Pass views through networks that do not learn; each output has shape (B, ...) and no gradient."""
        return []

    @abstractmethod
    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the loss of a whole batch, from what :meth:`outputs` and :meth:`constants` gave."""

    def after_backward(self, now: Moment) -> None:
        """Change gradients before they are used."""
        return

    def finish(self, images: Pass) -> tuple[ia.Assignment, ...]:
        """Do what is due after the last step; return the labels that were made for all images."""
        return ()

    def pseudo_labels(self) -> Tensor | None:
        """Return the labels of all training images, shape (T, N), int64, by each of T heads; None if none are kept."""
        return None

    def logits(self, images: Tensor) -> list[Tensor]:
        """Score images (B, C, H, W) for the labels of every head, (B, K_t) each, in evaluation mode; none without.

        Not divided by a temperature.
        """
        return []

    def label(self, images: Tensor) -> ia.Assignment | None:
        """Label images (B, C, H, W) as the finished model does, in evaluation mode; None if it makes no labels."""
        return None
