"""Objects in images: what detectors are trained on, and scored by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from infoassign_training.dense.c4 import C4
from infoassign_training.dense.detections import detections
from infoassign_training.dense.fast_rcnn import FastRCNN
from infoassign_training.dense.scenes import MeasuredScenes, SceneViews, digest
from infoassign_training.dense.settings import Detector, RegionDetector
from infoassign_training.models.pretrained import Pretrained


@dataclass(frozen=True, eq=False)
class Objects:
    """A :class:`~infoassign_training.dense.challenge.Challenge` for Mask R-CNN C4, or for Fast R-CNN.

    Fast R-CNN is shown where to look: its scenes have regions that were proposed.
    """

    train: MeasuredScenes
    test: MeasuredScenes
    chosen: Detector | RegionDetector

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

    def model(self, pretrained: Pretrained) -> C4 | FastRCNN:
        """Return a detector around the encoder."""
        encoder, classes, scale = pretrained.encoder, len(self.train.names), (pretrained.mean, pretrained.std)
        if isinstance(self.chosen, RegionDetector):
            return FastRCNN(encoder, classes, self.chosen, *scale)
        return C4(encoder, classes, self.chosen, *scale)

    def views(self, seed: int) -> SceneViews:
        """Return scenes at random sizes, half of them mirrored."""
        return SceneViews(self.train, self.chosen, seed)

    def found(self, model: nn.Module, rows: Sequence[int], *, workers: int = 0) -> Iterator[dict[str, Any]]:
        """Yield what is found in some of the images."""
        assert isinstance(model, C4 | FastRCNN)
        for row, one, size in detections(model, self.test, *self.chosen.tested, rows, workers=workers):
            yield from self.test.written(row, one, size)

    def scores(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """Score boxes, and masks if there are any."""
        masks = isinstance(self.chosen, Detector) and self.chosen.masks
        return self.test.measured(found, ["box", "mask"] if masks else ["box"])
