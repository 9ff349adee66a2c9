"""What a detector finds, and how good it is by COCO's measure."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infoassign_training.dense.c4 import C4, pasted
from infoassign_training.dense.challenge import View
from infoassign_training.dense.fast_rcnn import FastRCNN
from infoassign_training.dense.loop import one_by_one
from infoassign_training.dense.scenes import Scenes, shown

MEASURES = {"ap": 0, "ap50": 1, "ap75": 2, "ap-small": 3, "ap-medium": 4, "ap-large": 5}
"""Where pycocotools has them: the mean over overlaps of .5 to .95, those of .5 and .75, and by the objects' size."""
KINDS = {"box": "bbox", "mask": "segm"}
"""What is compared, and what pycocotools calls it."""


@dataclass(frozen=True, eq=False)
class _Tested:
    """Images as they are tested, by row; they are sent to worker processes."""

    scenes: Scenes
    side: int
    longest: int

    def __getitem__(self, row: int) -> tuple[int, View, tuple[int, int]]:
        # Outlines are not drawn: nobody looks at what is there.
        scene = replace(self.scenes.scene(row), outlines=None)
        return row, shown(scene, self.side, self.longest), (scene.image.height, scene.image.width)


@torch.no_grad()
def detections(
    model: C4 | FastRCNN, scenes: Scenes, side: int, longest: int, rows: Sequence[int], *, workers: int = 0
) -> Iterator[tuple[int, dict[str, Tensor], tuple[int, int]]]:
    """Look at scenes one by one, their shorter sides brought to `side` unless the longer gets too long.

    Yields
    ------
    int
        The row.
    dict
        Boxes (n, 4) in pixels of the image as it is stored, labels and scores (n,), and perhaps masks (n, 1, M, M).
    tuple
        Height and width of the stored image.
    """
    model.eval()
    device = model.mean.device
    for row, (image, target), (height, width) in one_by_one(_Tested(scenes, side, longest), rows, workers, device):
        # Of the target a detector sees the regions that were proposed, if it makes none itself.
        (found,) = model([image.to(device)], [{name: value.to(device) for name, value in target.items()}])
        scale = torch.tensor([width / image.shape[2], height / image.shape[1]]).repeat(2)
        found = {name: value.cpu() for name, value in found.items()}
        yield row, {**found, "boxes": found["boxes"] * scale}, (height, width)


def as_coco(
    image: int, categories: Sequence[int], found: dict[str, Tensor], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Write what was found in an image as COCO's results are written; masks as run lengths.

    Parameters
    ----------
    image
        The image's number in the file.
    categories
        Those of the classes, from the first.
    found, size
        As :func:`detections` yields them.
    """
    from pycocotools import mask as runs

    boxes = found["boxes"].double()
    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    written: list[dict[str, Any]] = [
        {
            "image_id": image,
            "category_id": categories[int(label) - 1],
            "bbox": box,
            "score": float(score),
        }
        for box, label, score in zip(sides, found["labels"], found["scores"], strict=True)
    ]
    for number, one in enumerate(written if "masks" in found else []):
        # One at a time: a hundred masks of a large image are a lot of memory.
        (mask,) = pasted(found["masks"][number, None], found["boxes"][number, None], *size)
        encoded = runs.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        one["segmentation"] = {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    return written


def coco_scores(annotations: Path, results: list[dict[str, Any]], kinds: Sequence[str]) -> dict[str, float]:
    """Compare results with what is there, by pycocotools.

    Parameters
    ----------
    annotations
        The file with what is there; all of its images count.
    results
        As :func:`as_coco` writes them.
    kinds
        Of ``box`` and ``mask`` those that are compared.

    Returns
    -------
    dict
        By kind and measure, as in ``box-ap``; shares. Where no object is of a size, that measure is left out.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not results:
        return {f"{kind}-{measure}": 0.0 for kind in kinds for measure in ("ap", "ap50", "ap75")}
    scores: dict[str, float] = {}
    with _quiet():
        truth = COCO(os.fspath(annotations))
        for kind in kinds:
            # Without masks, or pycocotools would take their areas for those of the boxes.
            given = [{k: v for k, v in one.items() if kind == "mask" or k != "segmentation"} for one in results]
            if kind == "mask":
                given = [{k: v for k, v in one.items() if k != "bbox"} for one in given]
            measured = COCOeval(truth, truth.loadRes(given), KINDS[kind])
            measured.evaluate()
            measured.accumulate()
            measured.summarize()
            stats = {f"{kind}-{name}": float(measured.stats[place]) for name, place in MEASURES.items()}
            scores |= {name: value for name, value in stats.items() if value >= 0}
    return scores


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what pycocotools says to itself."""
    with redirect_stdout(StringIO()):
        yield
