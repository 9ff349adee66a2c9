"""Images made up on the spot, to measure throughput without a disk."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class SyntheticImages:
    """Noise of shape (3, `size`, `size`), uint8, that depends on `seed` and the image's number alone.

    Examples
    --------
    >>> images = SyntheticImages(1000, size=32)
    >>> images.image(7).shape, bool((images.image(7) == images.image(8)).all())
    (torch.Size([3, 32, 32]), False)
    """

    count: int
    size: int
    number_of_classes: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "size", "number_of_classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")

    @property
    def classes(self) -> NDArray[np.int64]:
        """The classes in turn, shape (N,)."""
        return np.arange(self.count, dtype=np.int64) % self.number_of_classes

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers of the classes."""
        return tuple(map(str, range(self.number_of_classes)))

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Tensor:
        """Return an image as (3, size, size), uint8."""
        if not 0 <= index < self.count:
            raise IndexError(f"there are {self.count} images; got index {index}")
        noise = np.random.default_rng((self.seed, index)).integers(0, 256, (3, self.size, self.size), dtype=np.uint8)
        return torch.from_numpy(noise)

    def origin(self, index: int) -> str:
        """Return what it is and its number."""
        return f"synthetic[{index}]"
