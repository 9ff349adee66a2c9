"""PASCAL VOC's images, with boxes of what is in them, and the score of the challenge of 2007."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from infoassign_training.data.decoding import decoded
from infoassign_training.data.images import ImagesError
from infoassign_training.data.listed_files import lines_of
from infoassign_training.data.voc import CLASSES
from infoassign_training.dense.detections import as_coco
from infoassign_training.dense.scenes import Scene, digest
from infoassign_training.evaluation.metrics import RECALLS

LAYOUT = (
    "WHERE/VOCdevkit/VOC2007/ and WHERE/VOCdevkit/VOC2012/, each with JPEGImages/, Annotations/ and"
    " ImageSets/Main/{trainval,test}.txt (of 2012 trainval.txt alone)"
)
"""What is expected of a folder."""
OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Least overlaps at which a box is right; ``ap`` is the mean over all, as by detectron2."""


@dataclass(frozen=True, eq=False)
class Voc:
    """Images of one or more years; see :class:`~infoassign_training.dense.scenes.Scenes`."""

    images: tuple[tuple[Path, str], ...]
    """Of every image the folder of its year, and its name."""
    names: tuple[str, ...] = CLASSES
    metric: str = "box-ap50"

    @property
    def digest(self) -> str:
        """A hash of the images' names and of what is in them."""
        return digest(
            *(part for folder, name in self.images for part in (name, _annotation(folder, name).read_bytes()))
        )

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, index: int) -> Scene:
        """Return an image with its objects, those that are difficult to see included; as detectron2 does."""
        folder, name = self.images[index]
        path = folder / "JPEGImages" / f"{name}.jpg"
        try:
            image = decoded(path.read_bytes(), str(path))
        except OSError as error:
            raise ImagesError(f"{path} cannot be read: {error.strerror or error}") from error
        boxes, labels, _ = self.objects(index)
        return Scene(image, boxes, labels)

    def objects(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return boxes (n, 4), classes (n,) from 1, and which objects are difficult, (n,).

        The file counts pixels from 1 and names the first and the last; we say where the first begins and the last ends.
        """
        folder, name = self.images[index]
        path = _annotation(folder, name)
        boxes, labels, difficult = [], [], []
        try:
            for entry in ElementTree.parse(path).getroot().iter("object"):
                box = [float(entry.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
                boxes.append([box[0] - 1, box[1] - 1, box[2], box[3]])
                labels.append(1 + CLASSES.index(entry.findtext("name", "")))
                difficult.append(entry.findtext("difficult", "0").strip() == "1")
        except (OSError, ValueError, ElementTree.ParseError) as error:
            raise ImagesError(f"{path} cannot be read as VOC writes it: {error}") from error
        return np.array(boxes).reshape(-1, 4), np.array(labels, dtype=np.int64), np.array(difficult, dtype=np.bool_)

    def written(self, row: int, found: dict[str, Tensor], size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return what was found in an image as it is scored."""
        return as_coco(row, range(1, len(CLASSES) + 1), found, size)

    def measured(self, results: list[dict[str, Any]], kinds: Sequence[str] = ("box",)) -> dict[str, float]:
        """Score boxes that were found: the mean average precision over the classes that there are.

        Precisions are read off at eleven recalls, as in 2007. A box is right if of all boxes of its class it overlaps
        most with one that no better box has found; difficult objects do not count, neither found nor missed. Detectron2
        rounds scores to three digits and boxes to one before; here they stay as they are.
        """
        if kinds != ["box"] and tuple(kinds) != ("box",):
            raise ValueError(f"VOC's boxes alone are scored here; got {', '.join(kinds)}")
        truth = [self.objects(row) for row in range(len(self))]
        found: dict[int, list[dict[str, Any]]] = {}
        for one in sorted(results, key=lambda one: -float(one["score"])):
            found.setdefault(one["category_id"], []).append(one)
        scores = np.zeros((len(OVERLAPS), 0))
        for label in range(1, len(CLASSES) + 1):
            objects = {
                row: (boxes[labels == label], difficult[labels == label])
                for row, (boxes, labels, difficult) in enumerate(truth)
                if (labels == label).any()
            }
            if any(not difficult.all() for _, difficult in objects.values()):
                of_class = [average_precision(found.get(label, []), objects, overlap) for overlap in OVERLAPS]
                scores = np.column_stack([scores, of_class])
        if not scores.size:
            raise ImagesError("no object is there to be found")
        means = scores.mean(axis=1)
        return {"box-ap50": float(means[0]), "box-ap": float(means.mean()), "box-ap75": float(means[5])}


def average_precision(
    found: Sequence[Mapping[str, Any]],
    objects: Mapping[int, tuple[NDArray[np.float64], NDArray[np.bool_]]],
    overlap: float,
) -> float:
    """Return the mean precision of a class at eleven recalls.

    Parameters
    ----------
    found
        Detections of the class, best first, each with ``image_id`` and ``bbox``: left, top, width, height.
    objects
        Of every image that has some their boxes (n, 4), and which are difficult, (n,); not all are.
    overlap
        Least share of the boxes' union that they must have in common.
    """
    taken = {row: np.zeros(len(boxes), dtype=bool) for row, (boxes, _) in objects.items()}
    right = []
    for one in found:
        row = one["image_id"]
        if row not in objects:
            right.append(False)
            continue
        boxes, difficult = objects[row]
        overlaps = _overlaps(np.array(one["bbox"], dtype=np.float64), boxes)
        best = int(overlaps.argmax())
        if overlaps[best] > overlap and difficult[best]:
            continue
        right.append(bool(overlaps[best] > overlap and not taken[row][best]))
        taken[row][best] |= right[-1]
    number = sum(int((~difficult).sum()) for _, difficult in objects.values())
    hits = np.cumsum(right)
    recalls, precisions = hits / number, hits / np.arange(1, len(right) + 1)
    # A recall of 3 of 10 is reached, whatever the last bit of .3.
    return float(np.mean([max(precisions[recalls >= recall - 1e-12], default=0.0) for recall in RECALLS]))


def _overlaps(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of left, top, width, height with boxes (n, 4)."""
    right, bottom = box[:2] + box[2:]
    width = np.minimum(right, boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    height = np.minimum(bottom, boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    common = width.clip(0) * height.clip(0)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    found: NDArray[np.float64] = common / (box[2] * box[3] + areas - common)
    return found


def open_voc(where: Path, *parts: tuple[str, str]) -> Voc:
    """Open parts of VOC, each a year and a list, as in ``("VOC2007", "trainval")``; images are read as asked for.

    Raises
    ------
    ImagesError
        If one does not lie there; the message says what is expected.
    """
    images = []
    for year, part in parts:
        folder = next((f for f in (where / "VOCdevkit" / year, where / year) if f.is_dir()), where / "VOCdevkit" / year)
        try:
            names = lines_of(folder / "ImageSets" / "Main" / f"{part}.txt")
            for needed in ("Annotations", "JPEGImages"):
                if not (folder / needed).is_dir():
                    raise ImagesError(f"there is no folder {folder / needed}")
        except ImagesError as error:
            raise ImagesError(f"{error}; expected {LAYOUT}") from error
        images += [(folder, name) for name in names]
    voc = Voc(tuple(images))
    for row, (folder, name) in enumerate(images):
        # All of them, before hours are spent on the first.
        if not (path := folder / "JPEGImages" / f"{name}.jpg").is_file():
            raise ImagesError(f"there is no file {path}; expected {LAYOUT}")
        voc.objects(row)
    return voc


def _annotation(folder: Path, name: str) -> Path:
    return folder / "Annotations" / f"{name}.xml"
