"""COCO's images, with boxes and outlines of what is in them."""

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from infoassign_training.data.decoding import decoded
from infoassign_training.data.images import ImagesError
from infoassign_training.dense.detections import as_coco, coco_scores
from infoassign_training.dense.scenes import Scene, digest

LAYOUT = (
    "WHERE/annotations/instances_train2017.json and WHERE/annotations/instances_val2017.json, and the images in"
    " WHERE/train2017/ and WHERE/val2017/"
)
"""What is expected of a folder."""


class Records(Sequence[Any]):
    """Entries as bytes in one array, which worker processes share; objects of Python would be copied when used.

    Examples
    --------
    >>> records = Records([{"id": 3}, [1, 2]])
    >>> len(records), records[1]
    (2, [1, 2])
    """

    def __init__(self, entries: Iterable[Any]) -> None:
        parts = [pickle.dumps(entry, pickle.HIGHEST_PROTOCOL) for entry in entries]
        self._ends = np.cumsum([0, *map(len, parts)])
        self._bytes = np.frombuffer(b"".join(parts), dtype=np.uint8)

    @property
    def digest(self) -> str:
        """A hash of them."""
        return digest(self._bytes.tobytes())

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        return pickle.loads(self._bytes[self._ends[index] : self._ends[index + 1]].data)


class Entry(NamedTuple):
    """What the file says of an image, as far as it is used."""

    number: int
    name: str
    size: tuple[int, int]
    """Width and height."""
    boxes: list[list[float]]
    """Left, top, width, height of every object; groups that are outlined as one are left out."""
    labels: list[int]
    """Their classes, from 1."""
    outlines: list[Any] | None
    """Their polygons or run lengths, if masks are asked for."""


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
    images: Records
    """An :class:`Entry` each, in the order of their numbers."""
    metric: str = "box-ap"

    @property
    def digest(self) -> str:
        """A hash of the images' names and of what is in them."""
        return digest(*self.names, self.images.digest)

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, index: int) -> Scene:
        """Return an image with its objects; boxes are cut off at the image's edges."""
        entry: Entry = self.images[index]
        path = self.folder / entry.name
        try:
            image = decoded(path.read_bytes(), str(path))
        except OSError as error:
            raise ImagesError(f"{path} cannot be read: {error.strerror or error}") from error
        if image.size != entry.size:
            raise ImagesError(f"{path} has {image.size} pixels, and {self.annotations} is about {entry.size}")
        boxes = np.array(entry.boxes, dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return Scene(
            image,
            boxes.clip(0, np.tile(image.size, 2)),
            np.array(entry.labels, dtype=np.int64),
            None if entry.outlines is None else tuple(entry.outlines),
        )

    def written(self, row: int, found: dict[str, Tensor], size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return what was found in an image as it is scored."""
        entry: Entry = self.images[row]
        return as_coco(entry.number, self.categories, found, size)

    def measured(self, results: list[dict[str, Any]], kinds: Sequence[str]) -> dict[str, float]:
        """Score what was found in all images, by pycocotools; ``box-ap`` and so on."""
        return coco_scores(self.annotations, results, kinds)


def open_coco(where: Path, part: str, *, training: bool, masks: bool = True) -> Coco:
    """Open a part of COCO 2017; images are read as they are asked for.

    Parameters
    ----------
    where
        The folder with annotations/, train2017/ and val2017/.
    part
        ``train`` or ``val``.
    training
        Leave out images without objects, of which a detector is told nothing; as detectron2 does.
    masks
        Whether outlines are kept; objects that have none of any use are then left out, as by detectron2.

    Raises
    ------
    ImagesError
        If it does not lie there, or the file is no list of instances.
    """
    annotations = where / "annotations" / f"instances_{part}2017.json"
    folder = where / f"{part}2017"
    try:
        tree = json.loads(annotations.read_bytes())
        named = sorted((int(entry["id"]), str(entry["name"])) for entry in tree["categories"])
        numbers = {category: number for number, (category, _) in enumerate(named, start=1)}
        images = {int(entry["id"]): entry for entry in tree["images"]}
        objects: dict[int, list[dict[str, Any]]] = {number: [] for number in images}
        for entry in tree["annotations"]:
            if entry["category_id"] not in numbers:
                raise ImagesError(f"{annotations} has an object of category {entry['category_id']}, which it lacks")
            if not entry.get("iscrowd", 0) and _visible(entry["bbox"], images[entry["image_id"]]):
                objects[entry["image_id"]].append(entry)
        entries = [_entry(images[number], objects[number], numbers, masks=masks) for number in sorted(images)]
    except OSError as error:
        raise ImagesError(f"{annotations} cannot be read: {error.strerror or error}; expected {LAYOUT}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImagesError(f"{annotations} is no list of instances as COCO writes it: {error!r}") from error
    if not folder.is_dir():
        raise ImagesError(f"there is no folder {folder}; expected {LAYOUT}")
    if training:
        entries = [entry for entry in entries if entry.labels]
    if not entries:
        raise ImagesError(f"{annotations} lists no image{' with an object' if training else ''}")
    names, categories = tuple(name for _, name in named), tuple(category for category, _ in named)
    return Coco(folder, annotations, names, categories, Records(entries))


def _visible(box: Sequence[float], image: Mapping[str, Any]) -> bool:
    """Say whether something of a box lies in its image."""
    left, top, width, height = box
    across = min(left + width, image["width"]) - max(left, 0)
    down = min(top + height, image["height"]) - max(top, 0)
    return bool(min(across, down) > 1e-5)


def _entry(
    image: Mapping[str, Any], objects: list[dict[str, Any]], numbers: Mapping[int, int], *, masks: bool
) -> Entry:
    """Keep what is used of an image."""
    outlines = None
    if masks:
        found = [(one, usable(one.get("segmentation"))) for one in objects]
        objects = [one for one, outline in found if outline]
        outlines = [outline for _, outline in found if outline]
    return Entry(
        number=image["id"],
        name=image["file_name"],
        size=(image["width"], image["height"]),
        boxes=[one["bbox"] for one in objects],
        labels=[numbers[one["category_id"]] for one in objects],
        outlines=outlines,
    )


def usable(outline: Any) -> Any:
    """Return run lengths as they are, and of polygons those with three corners or more; None if there are none.

    Examples
    --------
    >>> usable([[0, 0, 4, 0, 4, 4], [1, 1, 2, 2]]), usable([]), usable(None)
    ([[0, 0, 4, 0, 4, 4]], None, None)
    """
    if isinstance(outline, dict):
        return outline
    return [polygon for polygon in outline or [] if len(polygon) >= 6 and len(polygon) % 2 == 0] or None
