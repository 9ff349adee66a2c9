"""What there is to learn and to be scored on; the seam between training and what is trained."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from torch import Tensor, nn

from infoassign_training.models.pretrained import Pretrained

Target: TypeAlias = dict[str, Tensor]
"""What there is in an image, by name."""
View: TypeAlias = tuple[Tensor, Target]
"""An image as it is shown, (3, H, W), uint8, and what there is in it."""


class Views(Protocol):
    """What training is shown at every place of an endless order; it is sent to worker processes.

    Everything depends on seed and place alone, so that a run that was cut off goes on with the same images.
    """

    def __getitem__(self, place: int) -> View: ...


class Challenge(Protocol):
    """Images to train on, images to be scored on, and the score."""

    @property
    def counts(self) -> dict[str, int]:
        """How many images are trained on (``train``) and scored on (``test``), and of how many ``classes``."""

    @property
    def metric(self) -> str:
        """The score that counts."""

    @property
    def digest(self) -> str:
        """A hash of which images these are and of what is known of them, not of their pixels."""

    def check(self) -> None:
        """Read an image of either part, before hours are spent on them.

        Raises
        ------
        ImagesError
            If that cannot be done; the message says what is wrong.
        """

    def model(self, pretrained: Pretrained) -> nn.Module:
        """Return the model, its new weights drawn by torch's generator.

        In training mode it takes images and targets, a list each, and returns losses by name.

        Raises
        ------
        ValueError
            If it cannot be made of this encoder.
        """

    def views(self, seed: int) -> Views:
        """Return what training is shown."""

    def found(self, model: nn.Module, rows: Sequence[int], *, workers: int) -> Iterator[dict[str, Any]]:
        """Yield what a model says of some of the images to be scored on, in words of JSON.

        With `workers`, so many further processes read the images.
        """

    def scores(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """Score what was said of all of them."""
