"""The benchmarks by name, and how each must lie on disk; without torch, for the command line's help."""

from collections.abc import Mapping

TRANSFER = (
    "aircraft",
    "caltech101",
    "cars",
    "cifar10",
    "cifar100",
    "dtd",
    "flowers",
    "food101",
    "pets",
    "sun397",
    "voc2007",
)
"""The eleven that encoders are transferred to (Kornblith et al., 2019; Ericsson et al., 2021; MIRA's table 5)."""
SETS: Mapping[str, str] = {
    "digits": "no place: scikit-learn's digits need no files",
    "folder": "WHERE/train/CLASS/*.jpg and WHERE/val/CLASS/*.jpg or WHERE/test/CLASS/*.jpg",
    "packed": "WHERE/train and WHERE/val or WHERE/test, each written by infoassign pack",
    "imagenet": "WHERE/train/n01440764/*.JPEG and WHERE/val/n01440764/*.JPEG",
    "svhn": "WHERE/train_32x32.mat and WHERE/test_32x32.mat",
    "stl10": "WHERE/stl10_binary/",
    "cifar10": "WHERE/cifar-10-batches-py/",
    "cifar100": "WHERE/cifar-100-python/",
}
"""What ``NAME:WHERE`` expects; where a layout begins with a folder of the set's own, WHERE may be that folder, too."""
