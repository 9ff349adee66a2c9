"""COCO's images, with boxes and outlines of what is in them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from infoassign_training.data.decoding import decoded
from infoassign_training.data.images import ImagesError
from infoassign_training.dense.detections import as_coco, coco_scores
from infoassign_training.dense.scenes import Scene

LAYOUT = (
    "WHERE/annotations/instances_train2017.json and WHERE/annotations/instances_val2017.json, and the images in"
    " WHERE/train2017/ and WHERE/val2017/"
)
"""What is expected of a folder."""


@dataclass(frozen=True, eq=False)
class Coco:
    """The images of a part of COCO; see :class:`~infoassign_training.dense.scenes.Scenes`."""

    folder: Path
    """Where the image files are."""
    annotations: Path
    """The file that says what is in them."""
    names: tuple[str, ...]
    """The classes, in the order of their numbers in the file."""
    categories: tuple[int, ...]
    """Those numbers, which have gaps."""
    images: tuple[dict[str, Any], ...]
    """The file's entries, in the order of their numbers."""
    objects: tuple[tuple[dict[str, Any], ...], ...]
    """Of every image the entries of its objects; without groups that are outlined as one."""

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, index: int) -> Scene:
        """Return an image with its objects; boxes are cut off at the image's edges."""
        path = self.folder / self.images[index]["file_name"]
        try:
            image = decoded(path.read_bytes(), str(path))
        except OSError as error:
            raise ImagesError(f"{path} cannot be read: {error.strerror or error}") from error
        objects = self.objects[index]
        boxes = np.array([entry["bbox"] for entry in objects], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes = boxes.clip(0, np.tile(image.size, 2))
        seen = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1) > 1e-5)
        numbers = {category: number for number, category in enumerate(self.categories, start=1)}
        labels = np.array([numbers[entry["category_id"]] for entry in objects], dtype=np.int64)
        outlines = tuple(objects[row]["segmentation"] for row in seen)
        return Scene(image, boxes[seen], labels[seen], outlines)

    def written(self, row: int, found: dict[str, Tensor], size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return what was found in an image as it is scored."""
        return as_coco(self.images[row]["id"], self.categories, found, size)

    def measured(self, results: list[dict[str, Any]], kinds: Sequence[str]) -> dict[str, float]:
        """Score what was found in all images, by pycocotools; ``box-ap`` and so on."""
        return coco_scores(self.annotations, results, kinds)


def open_coco(where: Path, part: str, *, training: bool) -> Coco:
    """Open a part of COCO 2017; images are read as they are asked for.

    Parameters
    ----------
    where
        The folder with annotations/, train2017/ and val2017/.
    part
        ``train`` or ``val``.
    training
        Leave out images without objects, of which a detector is told nothing; as detectron2 does.

    Raises
    ------
    ImagesError
        If it does not lie there, or the file is no list of instances.
    """
    annotations = where / "annotations" / f"instances_{part}2017.json"
    folder = where / f"{part}2017"
    try:
        tree = json.loads(annotations.read_bytes())
        named = sorted((entry["id"], entry["name"]) for entry in tree["categories"])
        known = {number for number, _ in named}
        images = sorted(tree["images"], key=lambda entry: int(entry["id"]))
        of_image: dict[int, list[dict[str, Any]]] = {entry["id"]: [] for entry in images}
        for entry in tree["annotations"]:
            if not entry.get("iscrowd", 0):
                of_image[entry["image_id"]].append(entry)
            if entry["category_id"] not in known:
                raise ImagesError(f"{annotations} has an object of category {entry['category_id']}, which it lacks")
    except OSError as error:
        raise ImagesError(f"{annotations} cannot be read: {error.strerror or error}; expected {LAYOUT}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImagesError(f"{annotations} is no list of instances as COCO writes it: {error!r}") from error
    if not folder.is_dir():
        raise ImagesError(f"there is no folder {folder}; expected {LAYOUT}")
    if training:
        images = [entry for entry in images if of_image[entry["id"]]]
    if not images:
        raise ImagesError(f"{annotations} lists no image{' with an object' if training else ''}")
    return Coco(
        folder=folder,
        annotations=annotations,
        names=tuple(name for _, name in named),
        categories=tuple(number for number, _ in named),
        images=tuple(images),
        objects=tuple(tuple(of_image[entry["id"]]) for entry in images),
    )
