"""PASCAL VOC 2007, whose images have any number of its twenty classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infoassign_training.data.folder import FolderImages
from infoassign_training.data.images import ImagesError
from infoassign_training.data.listed_files import lines_of, listed_paths, pairs_of, place_of
from infoassign_training.data.splits import Splits

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_TAGS = {1: 1, -1: 0, 0: -1}
"""What we write for what the lists have: 1 for present, -1 for absent, 0 for difficult."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TaggedFolderImages(FolderImages):
    """Image files with any number of classes; see :class:`~infoassign_training.data.images.TaggedImages`."""

    presence: NDArray[np.int8]


def voc2007(where: Path) -> Splits:
    """Open the train, val and test images: ``VOCdevkit/VOC2007/``, into which both archives unpack.

    Raises
    ------
    ImagesError
        If it is not whole.
    """
    folder = place_of(where, "VOCdevkit/VOC2007", "VOC2007")
    return Splits(_part(folder, "train"), _part(folder, "test"), _part(folder, "val"))


def _part(folder: Path, split: str) -> TaggedFolderImages:
    lists = folder / "ImageSets" / "Main"
    images = lines_of(lists / f"{split}.txt")
    presence = np.stack([_tags(lists / f"{name}_{split}.txt", images) for name in CLASSES], axis=1)
    root = folder / "JPEGImages"
    paths = listed_paths(root, [f"{image}.jpg" for image in images])
    return TaggedFolderImages(root, paths, None, CLASSES, presence=presence)


def _tags(path: Path, images: list[str]) -> NDArray[np.int8]:
    """Read which images have a class, shape (N,)."""
    pairs = pairs_of(path)
    if [image for image, _ in pairs] != images:
        raise ImagesError(f"{path} does not list the {len(images)} images of {path.stem.rpartition('_')[2]}.txt")
    strange = sorted({tag for _, tag in pairs} - _TAGS.keys())
    if strange:
        raise ImagesError(f"{path}: expected 1, 0 or -1 for every image; got {strange[0]}")
    return np.array([_TAGS[tag] for _, tag in pairs], dtype=np.int8)
