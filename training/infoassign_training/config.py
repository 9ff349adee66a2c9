"""Typed settings of a pretraining run: frozen, checked when made, saved beside the results.

Every field is read by the program; what a recipe does not set has the value shown here. The strings
under the fields are the help of the command line.

Examples
--------
>>> settings = Pretraining(epochs=3, optimizer=Optimizer(learning_rate=0.1))
>>> settings.method.kind, settings.image_size
('mira', 8)
>>> Pretraining.from_dict(settings.to_dict()) == settings
True
>>> Optimizer(momentum=1.5)
Traceback (most recent call last):
    ...
ValueError: optimizer.momentum must be in [0, 1); got 1.5
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Annotated, Any, Literal

import tyro

from infoassign_training.checks import require
from infoassign_training.data import augmentations
from infoassign_training.data import settings as sources
from infoassign_training.methods import settings as methods
from infoassign_training.models import settings as models


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
    """Epochs at which the rate is divided by `drop_by`, instead of the warm-up and the cosine."""
    drop_by: float = 10.0
    """What it is divided by there."""

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
        require(isfinite(self.drop_by) and self.drop_by > 0, f"optimizer.drop_by must be positive; got {self.drop_by}")
        shaped = self.warmup_start or self.final
        require(not (self.drops and shaped), "optimizer.warmup_start and final are of no use with optimizer.drops")


Union: Any = tyro.conf.AvoidSubcommands
"""Marks settings whose kind is the recipe's; the command line changes what is in them."""
KINDS: Mapping[str, Mapping[str, type[Any]]] = {
    "data": sources.KINDS,
    "augmentation": augmentations.KINDS,
    "encoder": models.KINDS,
    "method": methods.KINDS,
}
"""What may stand for these settings, by name."""
FREE = frozenset(
    {
        "data.root",
        "data.download",
        "method.checkpoint",
        "method.labels",
        "device",
        "workers",
        "compile",
        "checkpoint-minutes",
        "knn-every",
    }
)
"""Settings, by their name on the command line, that decide where a run takes place, or what is looked at meanwhile, and
not what comes out of it."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Everything that decides the outcome of a run, besides the versions of the libraries."""

    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step, over all processes; the last, smaller batch of an epoch is dropped."""
    seed: int = 0
    """Seed of the initial weights, the order of the images and the views."""
    data: Annotated[sources.Source, Union] = field(default_factory=sources.Digits)
    """Where images come from."""
    augmentation: Annotated[augmentations.Augmentation, Union] = field(default_factory=augmentations.Distortions)
    """How views are drawn from them."""
    encoder: Annotated[models.Encoder, Union] = field(default_factory=models.SmallResNet)
    """The network that is kept."""
    projector: Annotated[models.Projector | None, Union] = field(default_factory=models.Projector)
    """What stands on it in training; None for methods without."""
    method: methods.Settings = field(default_factory=methods.Mira)
    """What is done with the views."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """How weights follow gradients."""
    accumulate: int = 1
    """Pieces in which each process's part of a batch goes through the network; labels and loss are of the whole."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the networks' products; labels and losses are made in float32."""
    compile: bool = False
    """Compile the networks with torch.compile, which takes minutes and makes steps faster."""
    checkpoint_minutes: float = 15.0
    """Time from one checkpoint within an epoch to the next; there is one at the end of every epoch in any case."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto for CUDA where there is a device."""
    workers: int = 0
    """Further processes, for each that trains, that load images and draw views; what comes out is the same."""
    knn_every: int = 0
    """Epochs from one look at whether training images near each other are of one class to the next; 0 for none."""
    colours: Literal["worker", "device"] = "worker"
    """Where views are coloured and blurred: image by image by PIL, or by batches where the network is."""

    def __post_init__(self) -> None:
        require(self.epochs >= 0, f"epochs must not be negative (0 leaves the initial weights); got {self.epochs}")
        require(
            self.batch_size >= 2,
            f"batch_size must be at least 2 (batch normalisation); got {self.batch_size}",
        )
        require(0 <= self.seed < 2**31, f"seed must be in [0, 2**31); got {self.seed}")
        require(self.accumulate >= 1, f"accumulate must be at least 1; got {self.accumulate}")
        require(
            self.precision in ("float32", "bfloat16", "float16"),
            f"precision must be float32, bfloat16 or float16; got {self.precision!r}",
        )
        require(self.checkpoint_minutes > 0, f"checkpoint_minutes must be positive; got {self.checkpoint_minutes}")
        require(self.workers >= 0, f"workers must not be negative; got {self.workers}")
        require(self.knn_every >= 0, f"knn_every must not be negative (0 for never); got {self.knn_every}")
        require(self.device in ("auto", "cpu", "cuda"), f"device must be auto, cpu or cuda; got {self.device!r}")
        require(self.colours in ("worker", "device"), f"colours must be worker or device; got {self.colours!r}")
        kind = self.method.kind
        require(
            self.method.projects == (self.projector is not None),
            f"method {kind} {'needs a' if self.method.projects else 'has no'} projector",
        )
        if isinstance(self.method, methods.Music | methods.Imsvd) and self.projector is not None:
            size = self.method.segment_size if isinstance(self.method, methods.Music) else self.method.units
            require(
                self.projector.projection % size == 0,
                f"projector.projection {self.projector.projection} does not divide into segments of {size}",
            )
        small = isinstance(self.encoder, models.SmallResNet)
        if isinstance(self.augmentation, augmentations.Distortions):
            fits = small and sources.of_digits(self.data)
            require(fits, "the augmentation distortions is for data digits and encoder small-resnet")
            require(self.workers == 0, "workers are of no use with the digits' distortions")
            require(self.colours == "worker", "colours device is of no use with the digits' distortions")
            return
        require(
            self.colours == "worker" or self.augmentation.enhance == 0,
            "colours device cannot enhance: take colours worker, or augmentation.enhance 0",
        )
        require(not small, "encoder small-resnet needs the augmentation distortions")
        found, local = self.augmentation.global_views, self.augmentation.local_views
        require(
            found == self.method.views,
            f"method {kind} takes augmentation.global_views {self.method.views}; got {found}",
        )
        require(
            self.method.local_views or not local, f"method {kind} has no use for augmentation.local_views; got {local}"
        )

    @property
    def image_size(self) -> int:
        """Height and width of the (global) views."""
        return 8 if isinstance(self.augmentation, augmentations.Distortions) else self.augmentation.global_size

    def flat(self) -> dict[str, Any]:
        """Return every setting by its name on the command line, and the kinds that a recipe chose.

        Examples
        --------
        >>> flat = Pretraining(epochs=3).flat()
        >>> flat["epochs"], flat["method.kind"], flat["method.beta-start"]
        (3, 'mira', 0.75)
        """
        return _flat(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes, made of what JSON has."""
        tree = asdict(self)
        for name in KINDS:
            tree[name] = {"kind": getattr(self, name).kind} | tree[name]
        return tree

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
        settings: Pretraining = _build(cls, tree, "")
        return settings


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix + key.replace("_", "-")
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _build(kind: type[Any], tree: Mapping[str, Any], prefix: str) -> Any:
    names = {item.name for item in fields(kind)}
    unknown = sorted(tree.keys() - names)
    require(not unknown, f"unknown settings: {', '.join(prefix + name for name in unknown)}")
    values = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            inner = {key: item for key, item in value.items() if name not in KINDS or key != "kind"}
            value = _build(_kind_of(name, value), inner, f"{prefix}{name}.")
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def _kind_of(name: str, tree: Mapping[str, Any]) -> type[Any]:
    """Return the class of the settings of a section."""
    if name not in KINDS:
        return {"projector": models.Projector, "optimizer": Optimizer}[name]
    default: str = getattr(Pretraining(), name).kind
    kind = tree.get("kind", default)
    require(kind in KINDS[name], f"{name}.kind must be one of {', '.join(KINDS[name])}; got {kind!r}")
    return KINDS[name][kind]
