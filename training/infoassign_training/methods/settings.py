"""What every method can be told: frozen, checked when made; no torch here, so that the command line's help is quick.

Examples
--------
>>> Mira(beta_start=0.9, beta_end=0.9).kind, sorted(KINDS)[:3]
('mira', ['barlow-twins', 'deepcluster', 'imsvd'])
>>> Swav(epsilon=0.0)
Traceback (most recent call last):
    ...
ValueError: method.epsilon must be positive and finite; got 0.0
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from infoassign_training.checks import require, require_not_negative, require_positive

if TYPE_CHECKING:
    from infoassign_training.methods.method import Method, Parts


class Settings(ABC):
    """What a method can be told, and what it has to be given; subclasses are frozen dataclasses with a kind.

    A subclass is known by its kind from when it is defined on, wherever that is.
    """

    kind: ClassVar[str]
    """Name of the method."""
    views: ClassVar[int] = 2
    """Random global views of every image in a step."""
    local_views: ClassVar[bool] = False
    """Whether local views may be added to them."""
    projects: ClassVar[bool] = True
    """Whether it compares projections; otherwise there is no projector."""
    supervised: ClassVar[bool] = False
    """Whether it looks at the true classes."""

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            KINDS[cls.kind] = cls

    @property
    def advice(self) -> str:
        """What to do if the labels stay without information, or the network collapses."""
        return ""

    @abstractmethod
    def method(self, parts: "Parts") -> "Method":
        """Put the method, with its initial weights, around the networks; torch is imported here and not before."""


KINDS: dict[str, type[Settings]] = {}
"""All of them by the name of the method."""


@dataclass(frozen=True, kw_only=True)
class Mira(Settings):
    """MIRA: swapped prediction of information-maximising labels (eq. 1 to 8)."""

    kind: ClassVar[str] = "mira"
    local_views: ClassVar[bool] = True
    prototypes: int = 64
    """Number of labels K."""
    student_temperature: float = 0.1
    """tau_s, divides the student's logits."""
    teacher_temperature: float = 0.225
    """tau_t, divides the teacher's logits before the assignment."""
    beta_start: float = 0.75
    """Weight of the mutual information at the first step."""
    beta_end: float = 2 / 3
    """The same at the last step; it follows a cosine in between."""
    teacher_momentum: float = 0.95
    """Momentum of the teacher's moving average at the first step; it follows a cosine to 1. 0 for no average."""
    freeze_prototypes_epochs: int = 1
    """Epochs at the start in which the prototypes do not learn."""
    tolerance: float = 1e-5
    """Certified mean total variation that the labels may be from the optimal ones; 0 for a number of steps instead."""
    iterations: int = 0
    """Steps of the fixed point, as in the paper (30), with a tolerance of 0."""

    def __post_init__(self) -> None:
        require(self.prototypes >= 2, f"method.prototypes must be at least 2; got {self.prototypes}")
        require_positive(self, "method", "student_temperature", "teacher_temperature")
        for name in ("beta_start", "beta_end"):
            require(0 <= getattr(self, name) < 1, f"method.{name} must be in [0, 1); got {getattr(self, name)}")
        require(
            0 <= self.teacher_momentum <= 1, f"method.teacher_momentum must be in [0, 1]; got {self.teacher_momentum}"
        )
        require(0 <= self.tolerance < 1, f"method.tolerance must be in [0, 1); got {self.tolerance}")
        require_not_negative(self, "method", "iterations")
        require(
            (self.tolerance > 0) != (self.iterations > 0),
            "labels are made to method.tolerance or in method.iterations steps, and the other is 0;"
            f" got {self.tolerance} and {self.iterations}",
        )
        require_not_negative(self, "method", "freeze_prototypes_epochs")

    @property
    def target_sharpness(self) -> float:
        """``tau_s / (tau_t (1 - beta))`` at the end of training: how much sharper the targets are than the student.

        At 1 or below nothing pulls the student away from predicting all prototypes alike.
        """
        return self.student_temperature / (self.teacher_temperature * (1 - self.beta_end))

    @property
    def advice(self) -> str:
        """What to do if the labels stay without information."""
        return (
            f"The targets are {self.target_sharpness:.2g} times as sharp as the student, tau_s / (tau_t (1 - beta));"
            " raise method.beta-start and method.beta-end to make them sharper (0.9 is a good start), or take smaller"
            " batches."
        )

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import mira

        return mira.Mira(parts.encoder, parts.projector, parts.projection, self)


@dataclass(frozen=True, kw_only=True)
class Swav(Settings):
    """SwAV: swapped prediction of labels by optimal transport under equipartition, a few half steps of Sinkhorn."""

    kind: ClassVar[str] = "swav"
    local_views: ClassVar[bool] = True
    prototypes: int = 64
    """Number of labels K."""
    temperature: float = 0.1
    """Divides the logits of the prediction."""
    epsilon: float = 0.05
    """Weight of the entropy of the labels."""
    iterations: int = 3
    """Of Sinkhorn-Knopp, columns first, as in the released code."""
    queue: int = 0
    """Projections of earlier batches, in each view, that are labelled with the batch; 0 for none."""
    queue_from_epoch: int = 15
    """Epochs before the queue is used."""
    freeze_prototypes_epochs: int = 1
    """Epochs at the start in which the prototypes do not learn."""

    def __post_init__(self) -> None:
        require(self.prototypes >= 2, f"method.prototypes must be at least 2; got {self.prototypes}")
        require_positive(self, "method", "temperature", "epsilon", "iterations")
        require_not_negative(self, "method", "queue", "queue_from_epoch", "freeze_prototypes_epochs")

    @property
    def advice(self) -> str:
        """What to do if the labels stay without information."""
        return "Lower method.epsilon to make the labels sharper, or take larger batches or a queue."

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import swav

        return swav.Swav(parts.encoder, parts.projector, parts.projection, self)


@dataclass(frozen=True, kw_only=True)
class Sela(Settings):
    """SeLa: labels of the whole data set by optimal transport under equipartition, now and then; heads learn them."""

    kind: ClassVar[str] = "sela"
    views: ClassVar[int] = 1
    projects: ClassVar[bool] = False
    heads: tuple[int, ...] = (64,)
    """Number of labels K of every head."""
    sharpness: float = 25.0
    """lambda: 1 / epsilon, on log-probabilities (eq. 7)."""
    relabellings: int = 80
    """M: how often all images are labelled anew, ever more rarely; 0 to learn random labels in even shares."""
    label_views: int = 1
    """Views over which log-probabilities are averaged for the labels (sec. 3.4)."""
    tolerance: float = 1e-3
    """Sum over the labels of how far their shares may be from even."""

    def __post_init__(self) -> None:
        require(
            len(self.heads) > 0 and min(self.heads) >= 2,
            f"method.heads must be numbers of labels, at least 2 each; got {self.heads}",
        )
        require_positive(self, "method", "sharpness", "label_views", "tolerance")
        require_not_negative(self, "method", "relabellings")

    @property
    def advice(self) -> str:
        """What to do if the labels stay without information."""
        return "Raise method.sharpness to make the labels sharper, or method.relabellings."

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import sela

        return sela.Sela(parts.encoder, parts.features, parts.images, self)


@dataclass(frozen=True, kw_only=True)
class Transfer(Settings):
    """Label transfer: a new network learns the labels that another has found (SeLa, sec. 4.3 and 4.6)."""

    kind: ClassVar[str] = "transfer"
    views: ClassVar[int] = 1
    projects: ClassVar[bool] = False
    labels: str = ""
    """File labels.npy of a run: the labels of all images, int64, of shape (T, N) for T heads."""
    heads: tuple[int, ...] = (64,)
    """Number of labels K of every head, as in the run that found them."""
    rotation: bool = False
    """Learn also by how many quarter turns images were turned (RotNet; table 9); a step takes four times as long."""

    def __post_init__(self) -> None:
        require(
            len(self.heads) > 0 and min(self.heads) >= 2,
            f"method.heads must be numbers of labels, at least 2 each; got {self.heads}",
        )

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import transfer

        return transfer.Transfer(parts.encoder, parts.features, parts.images, self)


@dataclass(frozen=True, kw_only=True)
class DeepCluster(Settings):
    """DeepCluster: k-means labels of all images, anew every few epochs; a new head learns them (SeLa, table 8)."""

    kind: ClassVar[str] = "deepcluster"
    views: ClassVar[int] = 1
    projects: ClassVar[bool] = False
    clusters: int = 64
    """Number of labels K."""
    every_epochs: int = 1
    """Epochs from one clustering to the next."""

    def __post_init__(self) -> None:
        require(self.clusters >= 2, f"method.clusters must be at least 2; got {self.clusters}")
        require_positive(self, "method", "every_epochs")

    @property
    def advice(self) -> str:
        """What to do if the labels stay without information."""
        return "Change method.clusters, or cluster less often (method.every-epochs)."

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import deepcluster

        return deepcluster.DeepCluster(parts.encoder, parts.features, parts.images, self)


@dataclass(frozen=True, kw_only=True)
class JointEntropies(Settings):
    """What MUSIC and IMSVD have in common: the terms of their loss, by the names of the library's arguments.

    The rows of their ablation (MUSIC's table 8, IMSVD's table VIII): DE + OE has `invariance_weight` 0, OE + TI has
    `diagonal_weight` 0, DE + OE + TIC has the `invariance` "cross-entropy", and DE + OE + TI is the default.
    """

    diagonal_weight: float = 1.0
    """Weight of the diagonal entropy, DE; 0 leaves it out."""
    off_diagonal_weight: float = 1.0
    """Weight of the off-diagonal entropy, OE; 0 leaves it out."""
    invariance_weight: float = 1.0
    """Weight of the transform invariance; 0 leaves it out."""
    invariance: Literal["inner-product", "cross-entropy"] = "inner-product"
    """By the inner product of the views' codes, TI, or the cross-entropy of the first with the second, TIC."""
    temperature: float = 1.0
    """Divides the embeddings before the softmax."""

    def __post_init__(self) -> None:
        require_not_negative(self, "method", "diagonal_weight", "off_diagonal_weight", "invariance_weight")
        require(
            self.diagonal_weight + self.off_diagonal_weight + self.invariance_weight > 0,
            "method.diagonal_weight, off_diagonal_weight and invariance_weight must not all be 0",
        )
        require(
            self.invariance in ("inner-product", "cross-entropy"),
            f"method.invariance must be inner-product or cross-entropy; got {self.invariance!r}",
        )
        require_positive(self, "method", "temperature")

    @property
    def advice(self) -> str:
        """What to do if the network collapses."""
        return (
            "Entropies keep the images apart: raise method.diagonal-weight and method.off-diagonal-weight against"
            " method.invariance-weight, or lower method.temperature."
        )


@dataclass(frozen=True, kw_only=True)
class Music(JointEntropies):
    """MUSIC: joint entropies of softmax segments of a given size."""

    kind: ClassVar[str] = "music"
    segment_size: int = 16
    """Units of a segment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.segment_size >= 2, f"method.segment_size must be at least 2; got {self.segment_size}")

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import music

        return music.Music(parts.encoder, parts.projector, self)


@dataclass(frozen=True, kw_only=True)
class Imsvd(JointEntropies):
    """IMSVD: joint entropies of softmax segments against invariance."""

    kind: ClassVar[str] = "imsvd"
    units: int = 16
    """Units of a segment."""
    entropy_weight: float = 1.0
    """lambda, weight of both entropies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.units >= 2, f"method.units must be at least 2; got {self.units}")
        require_not_negative(self, "method", "entropy_weight")
        require(
            self.entropy_weight + self.invariance_weight > 0,
            "method.entropy_weight and invariance_weight must not both be 0",
        )

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import imsvd

        return imsvd.Imsvd(parts.encoder, parts.projector, self)


@dataclass(frozen=True, kw_only=True)
class BarlowTwins(Settings):
    """Barlow Twins: the cross-correlation of two views is to be the identity."""

    kind: ClassVar[str] = "barlow-twins"
    off_diagonal: float = 0.0051
    """lambda, weight of what is off the diagonal."""

    def __post_init__(self) -> None:
        require_positive(self, "method", "off_diagonal")

    @property
    def advice(self) -> str:
        """What to do if the network collapses."""
        return "Change method.off-diagonal, or take larger batches, whose correlations are less noise."

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import barlow_twins

        return barlow_twins.BarlowTwins(parts.encoder, parts.projector, self)


@dataclass(frozen=True, kw_only=True)
class Vicreg(Settings):
    """VICReg: invariance of two views, variance and covariance of each."""

    kind: ClassVar[str] = "vicreg"
    invariance: float = 25.0
    """Weight of the mean squared distance of the views."""
    variance: float = 25.0
    """Weight of what standard deviations lack of 1."""
    covariance: float = 1.0
    """Weight of the squared covariances."""

    def __post_init__(self) -> None:
        require_not_negative(self, "method", "invariance", "variance", "covariance")

    @property
    def advice(self) -> str:
        """What to do if the network collapses."""
        return "Variance keeps the images apart: raise method.variance against method.invariance."

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import vicreg

        return vicreg.Vicreg(parts.encoder, parts.projector, self)


@dataclass(frozen=True, kw_only=True)
class Supervised(Settings):
    """A classifier of the true classes: the baseline that is allowed to see them."""

    kind: ClassVar[str] = "supervised"
    supervised: ClassVar[bool] = True
    views: ClassVar[int] = 1
    projects: ClassVar[bool] = False

    def method(self, parts: "Parts") -> "Method":
        """Put the method around the networks."""
        from infoassign_training.methods import supervised

        return supervised.Supervised(parts.encoder, parts.features, parts.classes)
