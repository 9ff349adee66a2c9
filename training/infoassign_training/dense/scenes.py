"""Images with objects in them, and how a detector is shown them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from infoassign_training.dense.challenge import View
from infoassign_training.dense.settings import Detector, RegionDetector


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and what is in it."""

    image: PIL.Image.Image
    """In RGB."""
    boxes: NDArray[np.float64]
    """Left, top, right, bottom in pixels, shape (n, 4), all of positive size and inside the image."""
    labels: NDArray[np.int64]
    """Classes, shape (n,), from 1."""
    outlines: tuple[Any, ...] | None = None
    """Of every object its polygons or run lengths, as COCO writes them; None where nobody asks for masks."""


class Scenes(Protocol):
    """Scenes by number; they are sent to worker processes, so they can be pickled."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes; the first is number 1."""

    def __len__(self) -> int: ...

    def scene(self, index: int) -> Scene:
        """Return a scene.

        Raises
        ------
        ImagesError
            If its image cannot be decoded; the message says which it is.
        """


def size_of(width: int, height: int, side: int, longest: int) -> tuple[int, int]:
    """Return width and height of an image whose shorter side is brought to `side`, unless the longer is too long then.

    Examples
    --------
    >>> size_of(640, 480, 800, 1333), size_of(480, 1000, 800, 1333)
    ((1067, 800), (640, 1333))
    """
    scale = min(side / min(width, height), longest / max(width, height))
    return int(width * scale + 0.5), int(height * scale + 0.5)


def shown(scene: Scene, side: int, longest: int, *, mirrored: bool = False) -> View:
    """Bring a scene to a size, and mirror it.

    Returns
    -------
    image
        Shape (3, H, W), uint8.
    target
        Its objects, in pixels of that image, with masks if they have outlines.
    """
    width, height = size_of(*scene.image.size, side, longest)
    pixels = np.asarray(scene.image.resize((width, height), PIL.Image.Resampling.BILINEAR))
    scale = np.array([width / scene.image.width, height / scene.image.height])
    boxes = scene.boxes * np.tile(scale, 2)
    masks = None if scene.outlines is None else bitmaps(scene.outlines, height, width, scale)
    if mirrored:
        pixels = pixels[:, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        masks = None if masks is None else masks[:, :, ::-1]
    target = {"boxes": torch.from_numpy(boxes.astype(np.float32)), "labels": torch.from_numpy(scene.labels)}
    if masks is not None:
        target["masks"] = torch.from_numpy(masks.copy())
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous(), target


def bitmaps(outlines: Sequence[Any], height: int, width: int, scale: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Draw objects, (n, height, width), 1 inside and 0 outside.

    Polygons are scaled before they are drawn, run lengths after.
    """
    from pycocotools import mask as runs

    drawn = []
    for outline in outlines:
        if isinstance(outline, dict):
            counts = outline["counts"]
            encoded = runs.frPyObjects(outline, *outline["size"]) if isinstance(counts, list) else outline
            whole = PIL.Image.fromarray(runs.decode(encoded))
            drawn.append(np.asarray(whole.resize((width, height), PIL.Image.Resampling.NEAREST)))
        else:
            scaled = [(np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in outline]
            drawn.append(runs.decode(runs.merge(runs.frPyObjects(scaled, height, width))))
    return np.stack(drawn) if drawn else np.zeros((0, height, width), dtype=np.uint8)


class MeasuredScenes(Scenes, Protocol):
    """Scenes that detections can be compared with."""

    @property
    def metric(self) -> str:
        """The score that counts."""

    @property
    def digest(self) -> str:
        """A hash of which images these are and of what is known of them."""

    def written(self, row: int, found: dict[str, Tensor], size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return what was found in an image of some height and width, in words of JSON."""

    def measured(self, results: list[dict[str, Any]], kinds: Sequence[str]) -> dict[str, float]:
        """Score what was found in all images, of ``box`` and ``mask`` what is asked for; what counts first."""


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 of some parts, in hexadecimal.

    Examples
    --------
    >>> digest("a", b"b") == digest("a", "b") != digest("ab")
    True
    """
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part.encode(errors="surrogateescape") if isinstance(part, str) else part).digest())
    return found.hexdigest()


@dataclass(frozen=True, eq=False)
class SceneViews:
    """Scenes at random sizes, half of them mirrored; see :class:`~infoassign_training.dense.challenge.Views`.

    Of the endless order each pass goes over all scenes.
    """

    scenes: Scenes
    chosen: Detector | RegionDetector
    seed: int

    def __getitem__(self, place: int) -> View:
        number, row = divmod(place, len(self.scenes))
        draws = np.random.default_rng((self.seed, 1, place))
        side = self.chosen.short_sides[draws.integers(len(self.chosen.short_sides))]
        scene = self.scenes.scene(int(order(self.seed, number, len(self.scenes))[row]))
        return shown(scene, side, self.chosen.long_side, mirrored=bool(draws.integers(2)))


@lru_cache(maxsize=2)
def order(seed: int, number: int, count: int) -> NDArray[np.int64]:
    """Return the order of a pass; kept, since every view asks for it."""
    return np.random.default_rng((seed, 0, number)).permutation(count)
