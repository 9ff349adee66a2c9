"""Typed settings of a pretraining run: frozen, checked when made, saved beside the results.

Every field is read by the program; what a recipe does not set has the value shown here. The strings
under the fields are the help of the command line.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from math import isfinite
from typing import Any


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random distortions of small grey images; 0 everywhere, and a scale of 1, give back the image."""

    rotation: float = 15.0
    """Largest rotation, in degrees."""
    scale: float = 1.25
    """Largest factor of zoom, in or out; 1 for none."""
    aspect: float = 0.25
    """Largest stretch of width against height, as a logarithm."""
    shear: float = 0.3
    """Largest horizontal shear."""
    shift: float = 0.2
    """Largest shift, in half image widths."""
    elastic: float = 0.08
    """Standard deviation of the elastic field, in half image widths, at a 4 x 4 grid of knots."""
    gamma: float = 0.4
    """Largest change of gamma, as a logarithm."""
    blur: float = 0.3
    """Probability of a 3 x 3 blur."""
    gain: float = 0.3
    """Largest relative change of brightness."""
    noise: float = 0.08
    """Standard deviation of the pixel noise; pixels lie in [0, 1]."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _require(
                isfinite(value) and value >= 0,
                f"augmentation.{name} must be finite and not negative; got {value}",
            )
        _require(self.scale >= 1, f"augmentation.scale must be at least 1; got {self.scale}")
        _require(self.blur <= 1, f"augmentation.blur is a probability; got {self.blur}")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A small residual network and its projector."""

    widths: tuple[int, ...] = (16, 32, 64)
    """Channels of the residual stages; every stage after the first halves the image."""
    features: int = 128
    """Length of the representation that is evaluated."""
    projector_hidden: int = 256
    """Width of the projector's hidden layer."""
    projection: int = 64
    """Length of the projection that is compared with the prototypes."""

    def __post_init__(self) -> None:
        _require(len(self.widths) > 0, "model.widths must name at least one stage")
        sizes = (*self.widths, self.features, self.projector_hidden, self.projection)
        _require(min(sizes) >= 1, f"model sizes must be positive; got {sizes}")


@dataclass(frozen=True, kw_only=True)
class Mira:
    """MIRA: swapped prediction of information-maximising labels (eq. 1 to 8)."""

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
    """Momentum of the teacher's moving average at the first step; it follows a cosine to 1."""
    freeze_prototypes_epochs: int = 1
    """Epochs at the start in which the prototypes do not learn."""
    tolerance: float = 1e-5
    """Certified mean total variation that the labels may be from the optimal ones."""

    def __post_init__(self) -> None:
        _require(self.prototypes >= 2, f"mira.prototypes must be at least 2; got {self.prototypes}")
        for name in ("student_temperature", "teacher_temperature"):
            value = getattr(self, name)
            _require(isfinite(value) and value > 0, f"mira.{name} must be positive and finite; got {value}")
        for name in ("beta_start", "beta_end"):
            _require(0 <= getattr(self, name) < 1, f"mira.{name} must be in [0, 1); got {getattr(self, name)}")
        _require(
            0 <= self.teacher_momentum <= 1,
            f"mira.teacher_momentum must be in [0, 1]; got {self.teacher_momentum}",
        )
        _require(0 < self.tolerance < 1, f"mira.tolerance must be between 0 and 1; got {self.tolerance}")
        _require(self.freeze_prototypes_epochs >= 0, "mira.freeze_prototypes_epochs must not be negative")

    @property
    def target_sharpness(self) -> float:
        """``tau_s / (tau_t (1 - beta))`` at the end of training: how much sharper the targets are than the student.

        At 1 or below nothing pulls the student away from predicting all prototypes alike.
        """
        return self.student_temperature / (self.teacher_temperature * (1 - self.beta_end))


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """SGD with linear warm-up and a cosine to zero, per step."""

    learning_rate: float = 0.3
    """Base rate; the rate used is this times batch size / 256."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty on all parameters."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises linearly from 0."""

    def __post_init__(self) -> None:
        _require(
            isfinite(self.learning_rate) and self.learning_rate > 0,
            f"optimizer.learning_rate must be positive and finite; got {self.learning_rate}",
        )
        _require(0 <= self.momentum < 1, f"optimizer.momentum must be in [0, 1); got {self.momentum}")
        _require(
            isfinite(self.weight_decay) and self.weight_decay >= 0,
            f"optimizer.weight_decay must be finite and not negative; got {self.weight_decay}",
        )
        _require(0 <= self.warmup < 1, f"optimizer.warmup must be in [0, 1); got {self.warmup}")


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Everything that decides the outcome of a run, besides the versions of the libraries."""

    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step, each seen in two views; the last, smaller batch of an epoch is dropped."""
    seed: int = 0
    """Seed of the initial weights, the order of the images and the views."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    model: Model = field(default_factory=Model)
    mira: Mira = field(default_factory=Mira)
    optimizer: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1; got {self.epochs}")
        _require(
            self.batch_size >= 2,
            f"batch_size must be at least 2 (batch normalisation); got {self.batch_size}",
        )
        _require(0 <= self.seed < 2**31, f"seed must be in [0, 2**31); got {self.seed}")

    def flat(self) -> dict[str, Any]:
        """Return every setting by its name on the command line.

        Examples
        --------
        >>> Pretraining(epochs=3).flat()["epochs"], Pretraining().flat()["mira.beta-start"]
        (3, 0.75)
        """
        return _flat(asdict(self))

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "Pretraining":
        """Make settings from what :func:`dataclasses.asdict` gave, also by way of JSON.

        Raises
        ------
        ValueError
            If a name is unknown or a value is out of its range; what is missing takes its default.

        Examples
        --------
        >>> Pretraining.from_dict({"epochs": 3, "mira": {"beta_end": 0.9}}).mira.beta_end
        0.9
        """
        settings: Pretraining = _build(cls(), tree, "")
        return settings


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix + key.replace("_", "-")
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _build(default: Any, tree: Mapping[str, Any], prefix: str) -> Any:
    names = {item.name for item in fields(default)}
    unknown = sorted(tree.keys() - names)
    _require(not unknown, f"unknown settings: {', '.join(prefix + name for name in unknown)}")
    values = {}
    for name, value in tree.items():
        current = getattr(default, name)
        if is_dataclass(current):
            value = _build(current, value, f"{prefix}{name}.")
        values[name] = tuple(value) if isinstance(value, list) else value
    return type(default)(**values)
