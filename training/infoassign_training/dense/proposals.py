"""Regions that may hold an object, found by selective search beforehand, as Fast R-CNN was released with.

Uijlings et al. (2013) made them, Girshick (2015) shared them: ``selective_search_data/voc_2007_{trainval,test}.mat``,
each with the names of its images and, for every image, its boxes (n, 4) as top, left, bottom, right, in pixels
counted from 1, the last one included.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from infoassign_training.data.images import ImagesError
from infoassign_training.data.listed_files import matlab_file
from infoassign_training.dense.scenes import Scene, digest
from infoassign_training.dense.voc import Voc, open_voc

FOLDER = "selective_search_data"
"""Where the files lie, beside VOCdevkit/."""
LAYOUT = f"WHERE/{FOLDER}/voc_2007_trainval.mat and voc_2007_test.mat, as released with Fast R-CNN"
"""What is expected of it."""


@dataclass(frozen=True, eq=False)
class Proposed:
    """Images of VOC with proposals; see :class:`~infoassign_training.dense.scenes.MeasuredScenes`."""

    voc: Voc
    proposals: tuple[NDArray[np.float32], ...]
    """Of every image, (n, 4), as :func:`read_proposals` returns them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes; the first is number 1."""
        return self.voc.names

    @property
    def metric(self) -> str:
        """The score that counts."""
        return self.voc.metric

    @property
    def digest(self) -> str:
        """A hash of the images' names, of what is in them, and of what is proposed."""
        return digest(self.voc.digest, *(boxes.tobytes() for boxes in self.proposals))

    def __len__(self) -> int:
        return len(self.voc)

    def scene(self, index: int) -> Scene:
        """Return an image with its objects, and after them its proposals as boxes of class 0.

        Difficult objects are left out, as in py-faster-rcnn; proposals are cut off at the image's edges.

        Raises
        ------
        ImagesError
            If the image cannot be read, or its proposals reach beyond it, so that they are another image's.
        """
        scene = self.voc.scene(index)
        _, _, difficult = self.voc.objects(index)
        size = np.tile(scene.image.size, 2)
        proposals = self.proposals[index].astype(np.float64)
        # A pixel beyond is rounding, more is another image.
        if (proposals > size + 1).any():
            name = self.voc.images[index][1]
            raise ImagesError(f"proposals of {name} reach beyond its {size[0]} x {size[1]} pixels; expected {LAYOUT}")
        boxes = np.concatenate([scene.boxes[~difficult], proposals.clip(0, size)])
        labels = np.concatenate([scene.labels[~difficult], np.zeros(len(proposals), dtype=np.int64)])
        return Scene(scene.image, boxes, labels)

    def written(self, row: int, found: dict[str, Tensor], size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return what was found in an image as it is scored."""
        return self.voc.written(row, found, size)

    def measured(self, results: list[dict[str, Any]], kinds: Sequence[str] = ("box",)) -> dict[str, float]:
        """Score boxes that were found, as VOC does."""
        return self.voc.measured(results, kinds)


def read_proposals(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read a file of proposals.

    Returns
    -------
    dict
        By name of the image, boxes (n, 4) as left, top, right, bottom, in pixels: where the first begins and where the
        last ends.

    Raises
    ------
    ImagesError
        If it cannot be read, or holds something else.
    """
    names, tables = matlab_file(path, "images", "boxes")
    if len(names) != len(tables):
        raise ImagesError(f"{path} names {len(names)} images and has boxes of {len(tables)}")
    found = {}
    for name, table in zip(names, tables, strict=True):
        boxes = np.atleast_2d(table) if np.size(table) else np.zeros((0, 4))
        if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "uif":
            raise ImagesError(f"{path}: expected boxes (n, 4) of image {name}; got {boxes.dtype} {boxes.shape}")
        top, left, bottom, right = boxes.astype(np.float32).T
        # Written so that NaN is refused, too.
        if not bool(((left >= 1) & (top >= 1) & (right >= left) & (bottom >= top) & np.isfinite(right + bottom)).all()):
            raise ImagesError(f"{path}: image {name} has boxes that are not top, left, bottom, right, counted from 1")
        # Some files have the image's own name, some with its folder and ending.
        found[PurePosixPath(str(name).strip()).stem] = np.stack([left - 1, top - 1, right, bottom], axis=1)
    return found


def open_proposed(where: Path, part: str, *, training: bool) -> Proposed:
    """Open a part of VOC2007 with its proposals.

    Parameters
    ----------
    where
        The folder with VOCdevkit/ and selective_search_data/.
    part
        ``trainval`` or ``test``.
    training
        Leave out images with no object but difficult ones, of which no region is background either; as
        py-faster-rcnn does.

    Raises
    ------
    ImagesError
        If something does not lie there, or an image has no entry in the file of proposals.
    """
    voc = open_voc(where, ("VOC2007", part))
    path = where / FOLDER / f"voc_2007_{part}.mat"
    if not path.is_file():
        raise ImagesError(f"there is no file {path}; expected {LAYOUT}")
    proposals = read_proposals(path)
    missing = [name for _, name in voc.images if name not in proposals]
    if missing:
        raise ImagesError(
            f"{path} has no proposals for {missing[0]} and {len(missing) - 1} more of the {len(voc)} images of {part};"
            f" expected {LAYOUT}"
        )
    if training:
        kept = [image for row, image in enumerate(voc.images) if not voc.objects(row)[2].all()]
        if not kept:
            raise ImagesError(f"no image of VOC2007's {part} has an object that is not difficult")
        voc = replace(voc, images=tuple(kept))
    return Proposed(voc, tuple(proposals[name] for _, name in voc.images))
