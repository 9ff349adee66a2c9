"""Objects in images: what detectors are trained on, and scored by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from infoassign_training.dense.c4 import C4
from infoassign_training.dense.detections import detections
from infoassign_training.dense.fast_rcnn import FastRCNN
from infoassign_training.dense.proposals import Proposed
from infoassign_training.dense.scenes import MeasuredScenes, SceneViews, digest
from infoassign_training.dense.settings import Detector, RegionDetector
from infoassign_training.models.pretrained import Pretrained


@dataclass(frozen=True, eq=False)
class Objects:
    """A :class:`~infoassign_training.dense.challenge.Challenge` for Mask R-CNN C4."""

    train: MeasuredScenes
    test: MeasuredScenes
    chosen: Detector

    @property
    def metric(self) -> str:
        """The score that counts."""
        return self.test.metric

    @property
    def counts(self) -> dict[str, int]:
        """How many images and classes there are."""
        return {"train": len(self.train), "test": len(self.test), "classes": len(self.train.names)}

    @property
    def digest(self) -> str:
        """A hash of the images' names and of what is in them."""
        return digest(self.train.digest, self.test.digest)

    def check(self) -> None:
        """Read an image of either part."""
        for scenes in (self.train, self.test):
            scenes.scene(0)

    def model(self, pretrained: Pretrained) -> C4:
        """Return a detector around the encoder."""
        return C4(pretrained.encoder, len(self.train.names), self.chosen, pretrained.mean, pretrained.std)

    def views(self, seed: int) -> SceneViews:
        """Return scenes at random sizes, half of them mirrored."""
        return SceneViews(self.train, self.chosen, seed)

    def found(self, model: nn.Module, rows: Sequence[int], *, workers: int = 0) -> Iterator[dict[str, Any]]:
        """Yield what is found in some of the images."""
        assert isinstance(model, C4)
        side, longest = self.chosen.test_side, self.chosen.long_side
        for row, one, size in detections(model, self.test, side, longest, rows, workers=workers):
            yield from self.test.written(row, one, size)

    def scores(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """Score boxes, and masks if there are any."""
        return self.test.measured(found, ["box", "mask"] if self.chosen.masks else ["box"])


@dataclass(frozen=True, eq=False)
class ProposedObjects:
    """A :class:`~infoassign_training.dense.challenge.Challenge` for Fast R-CNN, which is shown where to look."""

    train: Proposed
    test: Proposed
    chosen: RegionDetector
    metric: str = "box-ap50"

    @property
    def counts(self) -> dict[str, int]:
        """How many images and classes there are."""
        return {"train": len(self.train), "test": len(self.test), "classes": len(self.train.names)}

    @property
    def digest(self) -> str:
        """A hash of the images' names, of what is in them, and of what is proposed."""
        return digest(self.train.digest, self.test.digest)

    def check(self) -> None:
        """Read an image of either part, and its proposals."""
        for scenes in (self.train, self.test):
            scenes.scene(0)

    def model(self, pretrained: Pretrained) -> FastRCNN:
        """Return a detector around the encoder."""
        return FastRCNN(pretrained.encoder, len(self.train.names), self.chosen, pretrained.mean, pretrained.std)

    def views(self, seed: int) -> SceneViews:
        """Return scenes at random sizes, half of them mirrored, with their proposals."""
        return SceneViews(self.train, self.chosen, seed)

    def found(self, model: nn.Module, rows: Sequence[int], *, workers: int = 0) -> Iterator[dict[str, Any]]:
        """Yield what is found in some of the images, in the regions proposed for them."""
        assert isinstance(model, FastRCNN)
        side, longest = self.chosen.test_side, self.chosen.test_long_side
        for row, one, size in detections(model, self.test, side, longest, rows, workers=workers):
            yield from self.test.written(row, one, size)

    def scores(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """Score boxes."""
        return self.test.measured(found)
