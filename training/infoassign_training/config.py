"""Typed settings of a pretraining run: frozen, checked when made, saved beside the results.

Every field is read by the program; what a recipe does not set has the value shown here. The strings
under the fields are the help of the command line.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from math import isfinite
from typing import Annotated, Any, Literal

import tyro

from infoassign_training.methods import settings as methods
from infoassign_training.methods.settings import require


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
            require(
                isfinite(value) and value >= 0,
                f"augmentation.{name} must be finite and not negative; got {value}",
            )
        require(self.scale >= 1, f"augmentation.scale must be at least 1; got {self.scale}")
        require(self.blur <= 1, f"augmentation.blur is a probability; got {self.blur}")


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
    """Length of the projection, which methods compare with prototypes, or that of another view."""

    def __post_init__(self) -> None:
        require(len(self.widths) > 0, "model.widths must name at least one stage")
        sizes = (*self.widths, self.features, self.projector_hidden, self.projection)
        require(min(sizes) >= 1, f"model sizes must be positive; got {sizes}")


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How weights follow gradients: linear warm-up, then a cosine, or drops at given epochs."""

    kind: Literal["sgd", "lars"] = "sgd"
    """SGD, or LARS for large batches, in the papers' form."""
    learning_rate: float = 0.3
    """Base rate; the rate used is this times batch size / 256."""
    momentum: float = 0.9
    """Momentum of either."""
    weight_decay: float = 1e-4
    """L2 penalty."""
    decay_weights_only: bool = False
    """Do not decay biases and normalisation; so it is in LARS in any case."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises linearly."""
    warmup_start: float = 0.0
    """Rate that the warm-up starts from."""
    final: float = 0.0
    """Rate that the cosine ends at."""
    drops: tuple[int, ...] = ()
    """Epochs at which the rate is divided by 10, instead of the warm-up and the cosine."""

    def __post_init__(self) -> None:
        require(self.kind in ("sgd", "lars"), f"optimizer.kind must be sgd or lars; got {self.kind!r}")
        require(
            isfinite(self.learning_rate) and self.learning_rate > 0,
            f"optimizer.learning_rate must be positive and finite; got {self.learning_rate}",
        )
        require(0 <= self.momentum < 1, f"optimizer.momentum must be in [0, 1); got {self.momentum}")
        for name in ("weight_decay", "warmup_start", "final"):
            value = getattr(self, name)
            require(isfinite(value) and value >= 0, f"optimizer.{name} must be finite and not negative; got {value}")
        require(0 <= self.warmup < 1, f"optimizer.warmup must be in [0, 1); got {self.warmup}")
        require(
            list(self.drops) == sorted({drop for drop in self.drops if drop > 0}),
            f"optimizer.drops must be rising epochs; got {self.drops}",
        )
        shaped = self.warmup_start or self.final
        require(not (self.drops and shaped), "optimizer.warmup_start and final are of no use with optimizer.drops")


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
    method: Annotated[methods.Settings, tyro.conf.AvoidSubcommands] = field(default_factory=methods.Mira)
    """What is done with the views."""
    optimizer: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self) -> None:
        require(self.epochs >= 0, f"epochs must not be negative (0 leaves the initial weights); got {self.epochs}")
        require(
            self.batch_size >= 2,
            f"batch_size must be at least 2 (batch normalisation); got {self.batch_size}",
        )
        require(0 <= self.seed < 2**31, f"seed must be in [0, 2**31); got {self.seed}")

    def flat(self) -> dict[str, Any]:
        """Return every setting by its name on the command line.

        Examples
        --------
        >>> Pretraining(epochs=3).flat()["epochs"], Pretraining().flat()["method.beta-start"]
        (3, 0.75)
        """
        return _flat(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes, made of what JSON has."""
        return asdict(self) | {"method": {"kind": self.method.kind} | asdict(self.method)}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "Pretraining":
        """Make settings from what :meth:`to_dict` gave, also by way of JSON.

        Raises
        ------
        ValueError
            If a name is unknown or a value is out of its range; what is missing takes its default.

        Examples
        --------
        >>> Pretraining.from_dict({"epochs": 3, "method": {"kind": "mira", "beta_end": 0.9}}).method.beta_end
        0.9
        """
        method = dict(tree.get("method", {}))
        kind = method.pop("kind", cls().method.kind)
        require(kind in methods.KINDS, f"method.kind must be one of {', '.join(methods.KINDS)}; got {kind!r}")
        settings: Pretraining = _build(cls(method=methods.KINDS[kind]()), {**tree, "method": method}, "")
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
    require(not unknown, f"unknown settings: {', '.join(prefix + name for name in unknown)}")
    values = {}
    for name, value in tree.items():
        current = getattr(default, name)
        if is_dataclass(current):
            value = _build(current, value, f"{prefix}{name}.")
        values[name] = tuple(value) if isinstance(value, list) else value
    return type(default)(**values)
