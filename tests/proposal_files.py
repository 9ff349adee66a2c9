"""Selective search's proposals, made up, in files as Fast R-CNN was released with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from infoassign_training.data.listed_files import lines_of


def write_proposals(root: Path, part: str, boxes: Mapping[str, NDArray[Any]]) -> Path:
    """Write boxes (n, 4) by image, as top, left, bottom, right counted from 1: a cell 1 x N, and one N x 1 of names."""
    tables, names = np.empty((1, len(boxes)), dtype=object), np.empty((len(boxes), 1), dtype=object)
    for place, (name, table) in enumerate(boxes.items()):
        tables[0, place], names[place, 0] = table, name
    path = root / "selective_search_data" / f"voc_2007_{part}.mat"
    path.parent.mkdir(exist_ok=True)
    scipy.io.savemat(path, {"boxes": tables, "images": names}, do_compression=True)
    return path


def propose(root: Path) -> Path:
    """Write proposals for the images of ``coco_files.write_voc``: around their rectangle, and anywhere."""
    random = np.random.default_rng(0)
    for part in ("trainval", "test"):
        names = lines_of(root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / f"{part}.txt")
        boxes = {}
        for name in names:
            near = np.array([11, 21, 50, 70]) + random.integers(-6, 7, (40, 4))
            top, left = random.integers(1, 70, 40), random.integers(1, 90, 40)
            far = np.stack([top, left, random.integers(top, 81), random.integers(left, 101)], axis=1)
            boxes[name] = np.concatenate([near, far]).astype(np.float64)
        write_proposals(root, part, boxes)
    return root
