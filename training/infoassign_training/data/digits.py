"""The embedded data: 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

HELD_OUT = 450
"""Images kept from pretraining and from fitting the evaluations: a quarter."""


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, 1, H, W), float32 in [0, 1], and their true classes (N,), int64."""

    images: Tensor
    classes: Tensor


def digits() -> tuple[LabelledImages, LabelledImages]:
    """Return the training images (1347) and the held-out ones (450), always split alike.

    Pretraining must see nothing but the images of the first.
    """
    raw = load_digits()
    images = torch.from_numpy(raw.images).to(torch.float32).unsqueeze(1) / 16
    classes = torch.from_numpy(raw.target).to(torch.int64)
    train, held_out = train_test_split(range(len(images)), test_size=HELD_OUT, random_state=0, stratify=classes)
    return LabelledImages(images[train], classes[train]), LabelledImages(images[held_out], classes[held_out])
