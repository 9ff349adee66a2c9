"""What every protocol can be told: frozen, checked when made; no torch here, so that help is quick.

Examples
--------
>>> Knn(neighbours=(20, 200)).temperature
0.07
>>> Logistic(seed=-1)
Traceback (most recent call last):
    ...
ValueError: seed must be in [0, 2**31); got -1
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Literal, TypeAlias

from infoassign_training.checks import require, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What all protocols share: how images are shown to the encoder when nothing is drawn at random."""

    seed: int = 0
    """Of everything that is drawn: subsets, splits, initial weights, views."""
    resize: float = 0.0
    """Shorter side that an image is brought to before its centre is cut out, in units of what is cut out; 0 for 8/7
    (256 for 224), and for 1 where less than 64 is cut out."""
    crop: int = 0
    """Height and width of what is cut out; 0 for what the encoder was trained at."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Of the resizing."""
    mean: tuple[float, ...] = ()
    """Subtracted from the channels, which lie in [0, 1]; without it what a run of ours was trained with, and of others'
    weights ImageNet's."""
    std: tuple[float, ...] = ()
    """Divides the channels after that; the same without it."""
    class_list: str = ""
    """File with WordNet numbers, one a line: only these classes of ImageNet take part (ImageNet-100)."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**31, f"seed must be in [0, 2**31); got {self.seed}")
        require_not_negative(self, "protocol", "crop")
        for name in ("mean", "std"):
            value = getattr(self, name)
            require(len(value) in (0, 3), f"protocol.{name} must be three numbers, red, green and blue; got {value}")
            require(all(map(isfinite, value)), f"protocol.{name} must be finite; got {value}")
        require(all(value > 0 for value in self.std), f"protocol.std must be positive; got {self.std}")
        require(self.resize == 0 or self.resize >= 1, f"protocol.resize must be 0 or at least 1; got {self.resize}")


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Which of the training images have a class that may be looked at."""

    labelled: float = 1.0
    """Share of every class, drawn by the seed; 0.01 and 0.1 are usual."""
    labelled_list: str = ""
    """File with the names of the images, one a line, in place of a share: SimCLR's lists for ImageNet."""

    def require_subset(self) -> None:
        """Raise ValueError unless the share and the list make sense.

        Raises
        ------
        ValueError
            Naming what is wrong.

        Examples
        --------
        >>> Subset(labelled=2.0).require_subset()
        Traceback (most recent call last):
            ...
        ValueError: protocol.labelled must be in (0, 1]; got 2.0
        """
        require(0 < self.labelled <= 1, f"protocol.labelled must be in (0, 1]; got {self.labelled}")
        require(
            not self.labelled_list or self.labelled == 1,
            "protocol.labelled is of no use with protocol.labelled-list",
        )


@dataclass(frozen=True, kw_only=True)
class Knn(Subset, Chosen):
    """Vote of the nearest training images by cosine, each weighted by exp(cosine / temperature)."""

    kind: ClassVar[str] = "knn"
    neighbours: tuple[int, ...] = (20,)
    """How many vote; each number gives a result of its own."""
    temperature: float = 0.07
    """Divides the cosine; called sigma by SeLa."""
    components: int = 0
    """Principal components of the training images' features that are kept; 0 for the features themselves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_subset()
        require(
            len(self.neighbours) > 0
            and min(self.neighbours) >= 1
            and len(set(self.neighbours)) == len(self.neighbours),
            f"protocol.neighbours must be positive, and none twice; got {self.neighbours}",
        )
        require_positive(self, "protocol", "temperature")
        require_not_negative(self, "protocol", "components")


@dataclass(frozen=True, kw_only=True)
class Trained(Chosen):
    """What protocols share that train by SGD."""

    epochs: int = 100
    """Passes over the labelled images."""
    batch_size: int = 256
    """Images per step, over all processes."""
    weight_decay: float = 0.0
    """L2 penalty."""
    momentum: float = 0.9
    """Of SGD."""
    drops: tuple[int, ...] = ()
    """Epochs at which the rate is divided by `drop_by`, in place of a cosine to 0."""
    drop_by: float = 10.0
    """What it is divided by."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Range of a training crop's share of the image's area."""
    crops: Literal["resized", "square", "plain"] = "resized"
    """Training crops: of any size and shape, resized; of any size, square, resized; or of the network's size, from the
    image at `resize`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.epochs >= 1, f"protocol.epochs must be at least 1; got {self.epochs}")
        require(self.batch_size >= 2, f"protocol.batch_size must be at least 2; got {self.batch_size}")
        require_not_negative(self, "protocol", "weight_decay")
        require(0 <= self.momentum < 1, f"protocol.momentum must be in [0, 1); got {self.momentum}")
        require(self.drop_by > 1, f"protocol.drop_by must be above 1; got {self.drop_by}")
        rising = list(self.drops) == sorted({drop for drop in self.drops if drop > 0})
        require(rising, f"protocol.drops must be rising epochs; got {self.drops}")


@dataclass(frozen=True, kw_only=True)
class Linear(Trained):
    """Linear classifiers on frozen features, trained by SGD on random crops and mirrored images.

    For each of several learning rates there are two: one is trained without a part of the training images, on which
    the rate is chosen; the other, on all of them, is scored, once and with the chosen rate alone. All are trained at
    once, on the same features, so that a choice costs next to nothing and the test images have no say in it.
    """

    kind: ClassVar[str] = "linear"
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    """To choose from; the rate that is used is this times batch size / 256."""
    held_out: float = 0.01
    """Share of the training images that the choice is made on, where a set has no validation images; there is no
    choice, and no part held out, with one rate."""
    layers: bool = False
    """Probe every convolution of an AlexNet, max-pooled to at most 9600 values, in place of the features."""
    ten_crops: bool = False
    """Score test images by the mean over ten crops, corners and centre and their mirror images, as well."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.learning_rates) > 0 and min(self.learning_rates) > 0,
            f"protocol.learning_rates must be positive; got {self.learning_rates}",
        )
        require(
            len(set(self.learning_rates)) == len(self.learning_rates),
            f"protocol.learning_rates has one twice: {self.learning_rates}",
        )
        require(0 < self.held_out < 1, f"protocol.held_out must be in (0, 1); got {self.held_out}")
        require(not self.ten_crops or self.resize != 1, "protocol.ten_crops is of no use with protocol.resize 1")


@dataclass(frozen=True, kw_only=True)
class FineTune(Subset, Trained):
    """Encoder and a linear classifier trained together on few labelled images."""

    kind: ClassVar[str] = "fine-tune"
    epochs: int = 20
    encoder_rate: float = 0.02
    """Learning rate of the encoder, for a batch of 256."""
    head_rate: float = 0.1
    """That of the classifier."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_subset()
        require_positive(self, "protocol", "encoder_rate", "head_rate")


@dataclass(frozen=True, kw_only=True)
class MultiLabel(Trained):
    """Encoder and a linear classifier trained together on images with several classes, by binary cross-entropies.

    As DeepCluster's ``eval_voc_classif.py`` does it on VOC07's trainval, which SeLa followed "with frozen BatchNorm"
    (its README). That counts iterations of 16 images, 80,000 with a rate halved every 5000. An epoch of 5011 images has
    313 whole batches, so that here it is 256 epochs, halved every 16: 80,128 steps, halved every 5008.
    """

    kind: ClassVar[str] = "multi-label"
    epochs: int = 256
    batch_size: int = 16
    weight_decay: float = 1e-6
    drops: tuple[int, ...] = tuple(range(16, 256, 16))
    drop_by: float = 2.0
    scale: tuple[float, float] = (0.1, 0.5)
    crops: Literal["resized", "square", "plain"] = "square"
    learning_rate: float = 0.048
    """For a batch of 256: .003 for 16."""
    tuned: Literal["fc6-8", "all"] = "all"
    """What learns: the linear layers of an AlexNet alone, or all layers. Statistics of batch normalisation stay."""
    clip: float = 10.0
    """Length that the gradient, of all weights together, is cut down to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "protocol", "learning_rate", "clip")
        require(self.tuned in ("fc6-8", "all"), f"protocol.tuned must be fc6-8 or all; got {self.tuned!r}")
        require(self.resize != 1, "protocol.resize 1 leaves no room for the ten crops that test images are scored by")


@dataclass(frozen=True, kw_only=True)
class Logistic(Chosen):
    """Multinomial logistic regression on frozen features by L-BFGS, its penalty chosen on validation images.

    The final fit is on training and validation images together. Images with several classes have a logistic regression
    for every class.
    """

    kind: ClassVar[str] = "logistic"
    strengths: tuple[float, ...] = tuple(10 ** (-6 + index / 4) for index in range(45))
    """Penalties C to choose from, scikit-learn's: the larger, the weaker."""
    held_out: float = 0.2
    """Share of every class of the training images that stands in for validation images where a set has none."""
    max_iterations: int = 5000
    """Of L-BFGS, for each penalty."""
    precision: Literal["float64", "float32"] = "float64"
    """Of the regression."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.strengths) > 0 and min(self.strengths) > 0,
            f"protocol.strengths must be positive; got {self.strengths}",
        )
        require(0 < self.held_out < 1, f"protocol.held_out must be in (0, 1); got {self.held_out}")
        require_positive(self, "protocol", "max_iterations")


@dataclass(frozen=True, kw_only=True)
class Svm(Chosen):
    """A linear support vector machine for every class, on frozen L2-normalised features."""

    kind: ClassVar[str] = "svm"
    strengths: tuple[float, ...] = tuple(2.0**power for power in range(-19, -3)) + tuple(
        10.0**power for power in range(-7, -1)
    )
    """Penalties C to choose from, class by class."""
    folds: int = 3
    """Of the cross-validation on the training images that chooses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.strengths) > 0 and min(self.strengths) > 0,
            f"protocol.strengths must be positive; got {self.strengths}",
        )
        require(self.folds >= 2, f"protocol.folds must be at least 2; got {self.folds}")


@dataclass(frozen=True, kw_only=True)
class Clusters(Chosen):
    """Whether clusters of the test images are their classes.

    The labels of a model that makes some, each image's likeliest; of several heads one that is drawn by the seed. Or
    k-means clusters, fitted to the L2-normalised features of the training images, as many as there are classes.
    """

    kind: ClassVar[str] = "clusters"
    of: Literal["labels", "k-means"] = "labels"
    """Whose clusters."""
    fitted_to: int = 100_000
    """Training images, at most, that k-means is fitted to, drawn by the seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "protocol", "fitted_to")


Settings: TypeAlias = Knn | Linear | FineTune | MultiLabel | Logistic | Svm | Clusters
"""Those of some protocol."""
KINDS: Mapping[str, type[Settings]] = {
    kind.kind: kind for kind in (Knn, Linear, FineTune, MultiLabel, Logistic, Svm, Clusters)
}
"""All of them by name."""
