"""The embedded data: 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from infoassign_training.data.images import ArrayImages

HELD_OUT = 450
"""Images kept from pretraining and from fitting the evaluations: a quarter."""


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, 1, H, W), float32 in [0, 1], and their true classes (N,), int64.

    Examples
    --------
    >>> LabelledImages(torch.zeros(2, 1, 8, 8), torch.tensor([3, 1])).classes
    tensor([3, 1])
    """

    images: Tensor
    """The images."""
    classes: Tensor
    """Which digit each is."""


def digits() -> tuple[LabelledImages, LabelledImages]:
    """Return the training images (1347) and the held-out ones (450), always split alike.

    Pretraining must see nothing but the images of the first.

    Examples
    --------
    >>> train, held_out = digits()
    >>> train.images.shape, held_out.classes.shape
    (torch.Size([1347, 1, 8, 8]), torch.Size([450]))
    """
    raw = load_digits()
    images = torch.from_numpy(raw.images).to(torch.float32).unsqueeze(1) / 16
    classes = torch.from_numpy(raw.target).to(torch.int64)
    train, held_out = train_test_split(range(len(images)), test_size=HELD_OUT, random_state=0, stratify=classes)
    return LabelledImages(images[train], classes[train]), LabelledImages(images[held_out], classes[held_out])


def digit_images(images: LabelledImages) -> ArrayImages:
    """Return them as a source of images: grey in RGB, (3, 8, 8), uint8, the 17 levels spread over 0 to 255.

    Parameters
    ----------
    images
        Grey ones of 8 x 8.

    Examples
    --------
    >>> held_out = digit_images(digits()[1])
    >>> len(held_out), held_out.image(0).shape, held_out.names[:3]
    (450, torch.Size([3, 8, 8]), ('0', '1', '2'))
    """
    pixels = (images.images * 255).round().to(torch.uint8).repeat(1, 3, 1, 1)
    names = tuple(str(digit) for digit in range(10))
    return ArrayImages("digits", pixels.numpy(), images.classes.numpy().astype(np.int64), names)


def grey(pixels: Tensor) -> Tensor:
    """Turn what :func:`digit_images` made of digits back: (..., 3, H, W), uint8, to (..., 1, H, W), float32 in [0, 1].

    Examples
    --------
    >>> train, _ = digits()
    >>> bool((grey(digit_images(train).image(5)) == train.images[5]).all())
    True
    """
    return (pixels[..., :1, :, :].float() * (16 / 255)).round() / 16
