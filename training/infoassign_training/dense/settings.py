"""How models are made and trained: frozen, checked when made; no torch here, so that help is quick."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import ClassVar, Literal

from infoassign_training.checks import require, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps and learning rates of SGD."""

    iterations: int = 90_000
    """Steps."""
    batch_size: int = 16
    """Images per step, over all processes."""
    learning_rate: float = 0.02
    """After the warm-up, for a batch of `rated_for`: it is multiplied by batch size / rated for."""
    rated_for: int = 16
    """Images per step that the rate is for."""
    at_once: int = 0
    """Images of a step that a process computes at once; 0 for all of its part. With fewer, gradients are added up and
    need less memory, but trained normalisation sees no more than these at a time."""
    warmup: int = 1000
    """Steps over which the rate rises linearly."""
    warmup_start: float = 0.001
    """Share of the rate that it begins with."""
    drops: tuple[int, ...] = (60_000, 80_000)
    """Steps at which the rate is divided by `drop_by`."""
    drop_by: float = 10.0
    """What it is divided by."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty, biases included; scales and shifts of normalisation have none."""
    refreshed: int = 0
    """Batches on which the statistics of trained normalisation are taken anew in the end; 200 in MoCo's code."""

    def __post_init__(self) -> None:
        require_positive(self, "schedule", "iterations", "batch_size", "learning_rate", "rated_for")
        require_not_negative(self, "schedule", "at_once", "warmup", "warmup_start", "weight_decay", "refreshed")
        require(self.warmup_start <= 1, f"schedule.warmup-start must be at most 1; got {self.warmup_start}")
        require(0 <= self.momentum < 1, f"schedule.momentum must be in [0, 1); got {self.momentum}")
        require(self.drop_by > 1, f"schedule.drop-by must be above 1; got {self.drop_by}")
        rising = list(self.drops) == sorted({drop for drop in self.drops if drop > 0})
        require(rising, f"schedule.drops must be rising steps; got {self.drops}")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0.

        Examples
        --------
        >>> schedule = Schedule()
        >>> [round(schedule.rate(step), 6) for step in (0, 500, 1000, 59_999, 60_000, 80_000)]
        [2e-05, 0.01001, 0.02, 0.02, 0.002, 0.0002]
        """
        peak = self.learning_rate * self.batch_size / self.rated_for
        if step < self.warmup:
            done = step / self.warmup
            peak *= self.warmup_start * (1 - done) + done
        return peak / self.drop_by ** bisect_right(self.drops, step)

    def require_shared(self, processes: int) -> None:
        """Raise ValueError unless a batch can be shared out."""
        whole = self.batch_size % processes == 0
        require(whole, f"schedule.batch-size must be a multiple of the {processes} processes; got {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Mask R-CNN C4, or Faster R-CNN C4 without masks; as it stands, fine-tuned as by MoCo's code.

    The papers name detectron2 alone and do not say how normalisation is treated. MoCo trains it, over all processes:
    features learned without labels can be distributed otherwise than those that detectron2's settings were chosen for
    (He et al., 2020, sec. 4.2).
    """

    kind: ClassVar[str] = "c4"
    masks: bool = True
    """Whether masks are learned, too."""
    normalisation: Literal["trained", "frozen"] = "trained"
    """Trained with the rest, over the images of all processes, and once more after the last stage, as by MoCo's code;
    or frozen, as in detectron2's own settings."""
    frozen_stages: int = 0
    """How many of stem and stages, from the first, stay as they are; 2 in detectron2's own settings, 0 in MoCo's."""
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """Lengths of the shorter side that training draws from."""
    test_side: int = 800
    """That of an image that is tested."""
    long_side: int = 1333
    """Longest that the longer side may become."""
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Square roots of the anchors' areas; each has the shapes 1:2, 1:1 and 2:1."""
    regions: int = 512
    """Regions of each image that the heads are trained on."""

    def __post_init__(self) -> None:
        require(0 <= self.frozen_stages <= 4, f"model.frozen-stages must be in [0, 4]; got {self.frozen_stages}")
        sides = (*self.short_sides, self.test_side)
        require(bool(self.short_sides) and min(sides) >= 16, f"sides of images must be at least 16; got {sides}")
        require(self.long_side >= max(sides), f"model.long-side must be at least {max(sides)}; got {self.long_side}")
        require(bool(self.anchors) and min(self.anchors) >= 1, f"anchors must be positive; got {self.anchors}")
        require_positive(self, "model", "regions")

    @property
    def tested(self) -> tuple[int, int]:
        """The shorter side of an image that is tested, and the longest that its longer side may become."""
        return self.test_side, self.long_side


@dataclass(frozen=True, kw_only=True)
class RegionDetector:
    """Fast R-CNN on given regions; as it stands, as released, but that all layers are trained."""

    kind: ClassVar[str] = "fast-rcnn"
    frozen_layers: int = 0
    """How many convolutions, from the first, stay as they are; 1 in the released settings for CaffeNet."""
    short_sides: tuple[int, ...] = (600,)
    """Lengths of the shorter side that training draws from; 480, 576, 688, 864, 1200 in the released settings for
    several scales."""
    long_side: int = 1000
    """Longest that the longer side may become; 2000 in those for several scales."""
    test_side: int = 600
    """The shorter side of an image that is tested."""
    test_long_side: int = 1000
    """The longest that its longer side may become."""
    regions: int = 64
    """Regions of each image that are trained on."""

    def __post_init__(self) -> None:
        require(0 <= self.frozen_layers <= 5, f"model.frozen-layers must be in [0, 5]; got {self.frozen_layers}")
        sides = (*self.short_sides, self.test_side)
        require(bool(self.short_sides) and min(sides) >= 32, f"sides of images must be at least 32; got {sides}")
        longest = max(self.short_sides)
        require(self.long_side >= longest, f"model.long-side must be at least {longest}; got {self.long_side}")
        allowed = self.test_long_side >= self.test_side
        require(allowed, f"model.test-long-side must be at least {self.test_side}; got {self.test_long_side}")
        require_positive(self, "model", "regions")

    @property
    def tested(self) -> tuple[int, int]:
        """The shorter side of an image that is tested, and the longest that its longer side may become."""
        return self.test_side, self.test_long_side


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A fully convolutional network with a stride of 32; as it stands, as by the code of the Colorization paper.

    SeLa's code (README) names that one for its table 7.
    """

    kind: ClassVar[str] = "fcn"
    annotations: Literal["sbd", "voc"] = "sbd"
    """Whose training images: those of the Semantic Boundaries Dataset, 8498 images of VOC, or the 1464 of VOC2012
    itself. Images that are trained on are never scored."""
    test_list: str = "val"
    """The list in VOC2012/ImageSets/Segmentation/ whose images are scored. That code scores VOC2011's validation
    images without SBD's, 736; put the list seg11valid.txt of the authors of FCN there to have just these."""
    normalisation: Literal["frozen", "trained"] = "frozen"
    """As it is in the encoder, which is the same as to absorb it; or trained with the rest, on the images of a step."""
    mirrored: bool = False
    """Whether half of the images that are trained on are mirrored; the code does not."""

    def __post_init__(self) -> None:
        require(bool(self.test_list.strip()), "model.test-list must name a list, such as val")


@dataclass(frozen=True, kw_only=True)
class Dense:
    """All that training depends on beside the encoder and the images."""

    model: Detector | RegionDetector | Segmenter = Detector()
    schedule: Schedule = Schedule()
    seed: int = 0
    """Of new weights, order and views of the images, and the regions that are trained on."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**31, f"seed must be in [0, 2**31); got {self.seed}")
