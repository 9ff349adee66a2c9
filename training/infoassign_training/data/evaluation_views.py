"""How images are looked at in evaluations: without chance, in the order of their source."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import PIL.Image
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from infoassign_training.data.images import Images
from infoassign_training.data.loader import deaf, in_one_line

Look: TypeAlias = Callable[[PIL.Image.Image | Tensor], Tensor]
"""An image in RGB, PIL's or (3, H, W) of uint8, to (3, S, S) or (looks, 3, S, S) of uint8; can be pickled."""

SMALL = 64
"""Images smaller than this are looked at whole: there is no margin to cut off."""


def centred(size: int, resize: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR) -> Look:
    """Return the usual look: the shorter side is scaled to `resize`, and the centre of `size` cut out.

    As torchvision's presets do it; 224 of 256 is ImageNet's. The protocol of the transfer sets (Ericsson et al., 2021)
    is 224 of 224, bicubic.

    Parameters
    ----------
    size
        Height and width S of what is cut out.
    resize
        What the shorter side is scaled to.
    interpolation
        Of the scaling, which is antialiased.

    Returns
    -------
    Look
        From an image to (3, S, S), uint8.

    Raises
    ------
    ValueError
        If `size` is not from 1 to `resize`.

    Examples
    --------
    >>> centred(4, 6)(torch.zeros(3, 12, 30, dtype=torch.uint8)).shape
    torch.Size([3, 4, 4])
    """
    _require_within(size, resize)
    return partial(_centred, size=size, resize=resize, interpolation=interpolation)


def ten_crops(size: int, resize: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR) -> Look:
    """Return ten looks of an image, (10, 3, S, S): four corners and the centre, and those of its mirror image.

    Parameters
    ----------
    size
        Height and width S of what is cut out.
    resize
        What the shorter side is scaled to.
    interpolation
        Of the scaling, which is antialiased.

    Raises
    ------
    ValueError
        If `size` is not from 1 to `resize`.

    Examples
    --------
    >>> ten_crops(4, 6)(torch.zeros(3, 12, 30, dtype=torch.uint8)).shape
    torch.Size([10, 3, 4, 4])
    """
    _require_within(size, resize)
    return partial(_ten_crops, size=size, resize=resize, interpolation=interpolation)


def shorter_side(size: int, ratio: float = 0.0) -> int:
    """Return what the shorter side of an image is brought to before `size` is cut out.

    Parameters
    ----------
    size
        Height and width of what is cut out.
    ratio
        Of the two; 0 for the usual one, 8/7, and for 1 where `size` is below `SMALL`.

    Examples
    --------
    >>> shorter_side(224), shorter_side(32), shorter_side(224, 1.0)
    (256, 32, 224)
    """
    return round(size * (ratio or (1 if size < SMALL else 8 / 7)))


@dataclass(frozen=True, eq=False)
class Looks(Dataset[tuple[Tensor, int]]):
    """What `transform` makes of the images of `source`: item i is that of image i, and i.

    Examples
    --------
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> look, index = Looks(SyntheticImages(10, size=8), centred(4, 6))[3]
    >>> look.shape, index
    (torch.Size([3, 4, 4]), 3)
    """

    source: Images
    """The images."""
    transform: Look
    """What is made of each."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.source.image(index)), index


def in_order(
    source: Images,
    transform: Look,
    rows: range,
    *,
    batch_size: int,
    workers: int = 0,
    pin_memory: bool = False,
    context: str | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what a look makes of some images, in the order of `rows`, the last batch being what is left.

    What comes out does not depend on the number of workers, and nothing is drawn from torch's global generator.

    Parameters
    ----------
    source, transform
        The images, and what is made of each.
    rows
        Which of them, by number; a rank takes its own.
    batch_size
        Images a batch.
    workers
        Processes; 0 to do the work in this one, as it is needed.
    pin_memory
        Whether batches are put where a CUDA device can fetch them by itself.
    context
        How processes start: fork, forkserver or spawn; None for Python's default.

    Raises
    ------
    ImagesError
        If an image cannot be decoded; the message names it.

    Yields
    ------
    Tensor
        Looks, (B, 3, S, S) or (B, looks, 3, S, S), uint8.
    Tensor
        The images' numbers, shape (B,), int64.

    Examples
    --------
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> for looks, rows in in_order(SyntheticImages(10, size=8), centred(4, 4), range(3, 8), batch_size=3):
    ...     print(tuple(looks.shape), rows.tolist())
    (3, 3, 4, 4) [3, 4, 5]
    (2, 3, 4, 4) [6, 7]
    """
    loader = DataLoader(
        Looks(source, transform),
        batch_size=batch_size,
        sampler=rows,
        num_workers=workers,
        pin_memory=pin_memory,
        multiprocessing_context=context if workers else None,
        generator=Generator(),  # for seeds of the workers, which they do not use
        worker_init_fn=deaf,
    )
    yield from in_one_line(loader)


def _centred(image: PIL.Image.Image | Tensor, *, size: int, resize: int, interpolation: InterpolationMode) -> Tensor:
    scaled = transforms.resize(image, [resize], interpolation, antialias=True)
    return _pixels(transforms.center_crop(scaled, [size]))


def _ten_crops(image: PIL.Image.Image | Tensor, *, size: int, resize: int, interpolation: InterpolationMode) -> Tensor:
    scaled = transforms.resize(image, [resize], interpolation, antialias=True)
    return torch.stack([_pixels(crop) for crop in transforms.ten_crop(scaled, [size])])


def _pixels(image: PIL.Image.Image | Tensor) -> Tensor:
    pixels: Tensor = image if isinstance(image, Tensor) else transforms.pil_to_tensor(image)
    return pixels


def _require_within(size: int, resize: int) -> None:
    if not 1 <= size <= resize:
        raise ValueError(f"size must be from 1 to resize; got {size} of {resize}")
