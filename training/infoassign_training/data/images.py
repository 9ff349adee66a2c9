"""What a source of images is: item i is the same image on every pass, in every process, on every machine."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from infoassign_training.errors import UserError


class ImagesError(UserError):
    """Images cannot be read where they were said to be, or are not laid out as expected."""


class Images(Protocol):
    """Images by number, and what is known of them.

    Sources are sent to worker processes, so they can be pickled.
    """

    @property
    def classes(self) -> NDArray[np.int64] | None:
        """The class of every image, shape (N,); None if not all are known."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, by number; empty if there are none."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> PIL.Image.Image | Tensor:
        """Return an image in RGB: PIL's, or a tensor (3, H, W) of uint8.

        Raises
        ------
        ImagesError
            If it cannot be decoded; the message says which it is.
        """

    def origin(self, index: int) -> str:
        """Where an image comes from, for lists and messages: of a file, its path inside the folder."""


@runtime_checkable
class EncodedImages(Images, Protocol):
    """Images that lie on disk in a compressed format."""

    def encoded(self, index: int) -> bytes:
        """Return the bytes of an image as they are stored, undecoded."""


@runtime_checkable
class TaggedImages(Images, Protocol):
    """Images of which each may have any number of classes: `classes` is None, and `names` are those of `presence`."""

    @property
    def presence(self) -> NDArray[np.int8]:
        """Which image has which class, shape (N, classes): 1 has it, 0 has it not, -1 has it in ways not counted."""


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images held in memory; see :class:`Images`.

    Examples
    --------
    >>> images = ArrayImages("black", np.zeros((5, 3, 8, 8), dtype=np.uint8))
    >>> len(images), images.image(0).shape, images.origin(4)
    (5, torch.Size([3, 8, 8]), 'black[4]')
    """

    title: str
    """For their names."""
    pixels: NDArray[np.uint8]
    """Shape (N, 3, H, W)."""
    classes: NDArray[np.int64] | None = None
    """Shape (N,); None if they are not known."""
    names: tuple[str, ...] = ()
    """Of the classes."""

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> Tensor:
        """Return an image as (3, H, W), uint8, a copy of its own."""
        return torch.from_numpy(self.pixels[index].copy())

    def origin(self, index: int) -> str:
        """Return the title and the number."""
        return f"{self.title}[{index}]"
