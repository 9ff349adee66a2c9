"""Random views of images: each depends on (seed, epoch, number of the image, number of the view) and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
from PIL.ImageFilter import GaussianBlur
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from infoassign_training import timing
from infoassign_training.data.augmentations import MultiCrop, View
from infoassign_training.data.batched_colours import Draw
from infoassign_training.data.images import Images

Pipeline = Callable[[Tensor], Tensor]
"""(3, H, W) to (3, S, S), both uint8, with randomness of torch's global generator."""
SHARPNESS = 2
"""What :class:`~infoassign_training.data.augmentations.SelaRetraining` sharpens by; 1 would leave an image as it is."""


class Views(Dataset[tuple[list[Tensor], int]]):
    """The views of a source's images.

    An item is asked for by epoch and number, so that worker processes need not be told when an epoch ends.

    Parameters
    ----------
    source
        The images.
    augmentation
        How views are drawn.
    seed
        From 0 to 2**31 - 1.
    colours
        Where they are changed: here, or on the device by
        :func:`~infoassign_training.data.batched_colours.coloured`. The views are then no more than crops, and after the
        last of them comes what is to be done to each, drawn from the same numbers, (views, 11).

    Examples
    --------
    >>> from infoassign_training.data.augmentations import Dino
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> views = Views(SyntheticImages(10, size=64), Dino(global_size=32, local_views=2, local_size=16), seed=0)
    >>> crops, index = views[0, 7]
    >>> [tuple(crop.shape) for crop in crops], crops[0].dtype, index
    ([(3, 32, 32), (3, 32, 32), (3, 16, 16), (3, 16, 16)], torch.uint8, 7)
    """

    def __init__(
        self,
        source: Images,
        augmentation: MultiCrop,
        seed: int,
        colours: Literal["worker", "device"] = "worker",
    ) -> None:
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed must be in [0, 2**31); got {seed}")
        self.source = source
        self.augmentation = augmentation
        self.seed = seed
        on_device = colours == "device"
        self._pipelines = [cropping(view) if on_device else pipeline(view) for view in augmentation.views]
        self._draws = [Draw(view) for view in augmentation.views] if on_device else []

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> tuple[list[Tensor], int]:
        """Return the views of one image in one epoch, (3, S, S), uint8, and its number.

        They are uint8 as in the papers' code before it normalises; :func:`normalised` does that, best on the device, to
        which a quarter of the bytes then go.
        """
        epoch, index = key
        image = self.source.image(index)
        pixels = v2.functional.pil_to_tensor(image) if isinstance(image, PIL.Image.Image) else image
        views, drawn = [], []
        # In a worker process this counts for nobody: there it is only waited for.
        with timing.part(timing.AUGMENTATION), _kept_random_state():
            for number, draw in enumerate(self._pipelines):
                torch.default_generator.manual_seed(seed_of(self.seed, epoch, index, number))
                views.append(draw(pixels))
                if self._draws:
                    drawn.append(self._draws[number]())
        return [*views, torch.stack(drawn)] if drawn else views, index


def seed_of(*numbers: int) -> int:
    """Hash numbers below 2**32 to a seed of 64 bits (torch's generator on the CPU reads the lower 32).

    Examples
    --------
    >>> seed_of(0, 0, 1) == seed_of(0, 1, 0)
    False
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """Give torch's global generator, which torchvision draws from, back as it was.

    As `torch.random.fork_rng`, in a tenth of the time, and without a word to CUDA.
    """
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def _crop(view: View) -> list[Any]:
    mode = v2.InterpolationMode(view.interpolation)
    if view.resized:
        crop = [v2.Resize(view.resized, mode, antialias=True), v2.RandomCrop(view.size)]
    else:
        crop = [v2.RandomResizedCrop(view.size, view.scale, view.aspect, interpolation=mode, antialias=True)]
    return [*crop, v2.RandomHorizontalFlip(view.flip)]


def cropping(view: View) -> Pipeline:
    """Make the first transforms of :func:`pipeline`, the crop and the flip."""
    composed: Pipeline = v2.Compose(_crop(view))
    return composed


def pipeline(view: View) -> Pipeline:
    """Make the transforms that draw a view.

    The crop is torchvision's on tensors, the colours and the blur are PIL's: of what torchvision offers the fastest
    for each, and for the blur what the code of DINO, MIRA and VICReg uses.
    """
    grey = [v2.RandomGrayscale(view.grey)] if view.grey > 0 else []
    steps = [*_crop(view), v2.ToPILImage()]
    if view.grey_first:
        steps += grey
    if view.jitter > 0:
        colours = v2.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
        steps.append(v2.RandomApply([colours], p=view.jitter))
    if not view.grey_first:
        steps += grey
    if view.blur > 0:
        steps.append(v2.RandomApply([_Blur(view.sigma)], p=view.blur))
    if view.solarise > 0:
        steps.append(v2.RandomSolarize(128, p=view.solarise))
    if view.enhance > 0:
        kinds = (v2.RandomEqualize, v2.RandomAutocontrast, partial(v2.RandomAdjustSharpness, SHARPNESS))
        steps.append(v2.RandomChoice([kind(p=view.enhance) for kind in kinds]))
    composed: Pipeline = v2.Compose([*steps, v2.PILToTensor()])
    return composed


@dataclass(frozen=True)
class _Blur:
    """PIL's Gaussian blur (three passes of a box) with a random standard deviation.

    torchvision's convolves with a square kernel: 50 times as long at 224 pixels with SwAV's 23 x 23.
    """

    sigma: tuple[float, float]

    def __call__(self, image: PIL.Image.Image) -> PIL.Image.Image:
        return image.filter(GaussianBlur(float(torch.empty(()).uniform_(*self.sigma))))


def normalised(crops: Tensor, augmentation: MultiCrop) -> Tensor:
    """Bring views to the scale that networks are trained at.

    Parameters
    ----------
    crops
        Shape (..., 3, S, S), uint8 or floating point in [0, 1], on any device.
    augmentation
        Has the mean and the standard deviation.

    Returns
    -------
    Tensor
        Float32: ``(crops - mean) / std`` by channel, of bytes ``(crops / 255 - mean) / std``.
    """
    top = 1 if crops.is_floating_point() else 255
    # One multiplication and one addition by channel.
    std = torch.tensor(augmentation.std, device=crops.device).view(3, 1, 1)
    mean = torch.tensor(augmentation.mean, device=crops.device).view(3, 1, 1)
    return crops * (1 / (top * std)) - mean / std
