"""Where images come from: frozen, checked when made, without torch.

Examples
--------
>>> named("folder:pictures", Torchvision(class_list="hundred.txt"))
Folder(class_list='hundred.txt', imbalance='full', imbalance_seed=0, root='pictures', labelled=False)
>>> Synthetic(count=0)
Traceback (most recent call last):
    ...
ValueError: data.count must be at least 1; got 0
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from infoassign_training.checks import require


@dataclass(frozen=True, kw_only=True)
class Digits:
    """scikit-learn's 8 x 8 digits, which need no files."""

    kind: ClassVar[str] = "digits"


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Noise, to try out a recipe and to measure throughput without a disk."""

    kind: ClassVar[str] = "synthetic"
    count: int = 100_000
    """Number of images."""
    size: int = 256
    """Their height and width."""

    def __post_init__(self) -> None:
        require(self.count >= 1, f"data.count must be at least 1; got {self.count}")
        require(self.size >= 1, f"data.size must be at least 1; got {self.size}")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which images of a source take part."""

    class_list: str = ""
    """File with WordNet numbers, one a line: only these classes take part (ImageNet-100). Empty for all."""
    imbalance: Literal["full", "light", "heavy"] = "full"
    """CIFAR-10 whole, with half of one class removed, or with 10 %, 20 %, ... of the classes (SeLa, table 8)."""
    imbalance_seed: int = 0
    """Decides which images are removed."""

    def __post_init__(self) -> None:
        require(self.imbalance in ("full", "light", "heavy"), f"no such data.imbalance: {self.imbalance!r}")
        require(
            0 <= self.imbalance_seed < 2**31, f"data.imbalance_seed must be in [0, 2**31); got {self.imbalance_seed}"
        )
        require(
            self.imbalance != "full" or self.imbalance_seed == 0,
            "data.imbalance_seed is of no use without data.imbalance",
        )


@dataclass(frozen=True, kw_only=True)
class Torchvision(Chosen):
    """A data set that torchvision reads."""

    kind: ClassVar[str] = "torchvision"
    name: Literal["imagenet", "cifar10", "cifar100", "svhn", "stl10"] = "imagenet"
    """Which."""
    root: str = ""
    """Folder with what its archive unpacks to; of ImageNet, the one with train/ and val/."""
    split: str = "train"
    """train, or another split that the set has."""
    download: bool = False
    """Get what is missing (not ImageNet, which needs an account)."""


@dataclass(frozen=True, kw_only=True)
class Folder(Chosen):
    """Any folder of image files."""

    kind: ClassVar[str] = "folder"
    root: str = ""
    """The folder; images may be nested in it."""
    labelled: bool = False
    """Whether every folder in it holds the images of one class."""


@dataclass(frozen=True, kw_only=True)
class Packed(Chosen):
    """What ``infoassign pack``, or Hugging Face's ``save_to_disk``, wrote."""

    kind: ClassVar[str] = "packed"
    root: str = ""
    """The folder."""


@dataclass(frozen=True, kw_only=True)
class Hub(Chosen):
    """A data set of the Hugging Face hub, downloaded once to its cache."""

    kind: ClassVar[str] = "hub"
    root: str = ""
    """Its name, such as uoft-cs/cifar10."""
    split: str = "train"
    """Which part of it."""
    revision: str = ""
    """The commit to use; without it the images may change as the data set is edited."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The training images of a data set that encoders are evaluated on, or those of them that are labelled."""

    kind: ClassVar[str] = "evaluated"
    name: str = "digits"
    """Which set, one of those that ``infoassign evaluate`` knows."""
    root: str = ""
    """Where it is."""
    labelled: float = 1.0
    """Share of every class, drawn by the seed."""
    labelled_list: str = ""
    """File with the names of the images in place of a share, one a line."""
    class_list: str = ""
    """File with WordNet numbers, one a line: only these classes take part. Empty for all."""
    validation: bool = False
    """Whether the set's validation images are among them, after the others."""
    seed: int = 0
    """Of the draw, and of a split that the set leaves to chance."""
    sha256: str = ""
    """Of which images these are, and of their classes: what tells other images in the same place apart."""


Source: TypeAlias = Digits | Synthetic | Torchvision | Folder | Packed | Hub | Evaluated
"""Those of some source."""
KINDS: Mapping[str, type[Source]] = {
    kind.kind: kind for kind in (Digits, Synthetic, Torchvision, Folder, Packed, Hub, Evaluated)
}
"""All of them by name."""
NAMED = ("imagenet", "cifar10", "cifar100", "svhn", "stl10")
"""Torchvision's, which may be named in place of a kind."""


def of_digits(chosen: Source) -> bool:
    """Say whether the images are scikit-learn's digits.

    Parameters
    ----------
    chosen
        Where images come from.

    Examples
    --------
    >>> of_digits(Digits()), of_digits(Evaluated(name="digits")), of_digits(Hub(root="uoft-cs/cifar10"))
    (True, True, False)
    """
    return isinstance(chosen, Digits) or (isinstance(chosen, Evaluated) and chosen.name == Digits.kind)


def named(words: str, default: Source) -> Source:
    """Read how a person names a source: ``WHERE``, ``KIND:WHERE``, or ``KIND`` where no place is needed.

    Parameters
    ----------
    words
        KIND is one of `KINDS` or of `NAMED`. A folder alone is where the images of `default` lie, either as files or as
        ``infoassign pack`` wrote them.
    default
        What the recipe has; which images of it take part is kept.

    Raises
    ------
    ValueError
        If there is no such kind, or it needs no place or another one.

    Examples
    --------
    >>> source = named("/data/imagenet", Torchvision(name="imagenet", class_list="hundred.txt"))
    >>> source.name, source.root, source.class_list
    ('imagenet', '/data/imagenet', 'hundred.txt')
    >>> named("folder:pictures", source).class_list, named("cifar10:/data", Torchvision()).name
    ('hundred.txt', 'cifar10')
    """
    kind, colon, where = words.partition(":")
    known = kind in NAMED or (kind in KINDS and kind != Evaluated.kind)
    made: Any = default
    if known:
        made = _like(Torchvision if kind in NAMED else KINDS[kind], default)
    elif (Path(words) / "dataset_info.json").is_file():
        made = _like(Packed, default)
    place = where if known else words
    require(known or not colon or Path(words).exists(), _expected(words))
    require(hasattr(made, "root") == bool(place), _expected(words))
    changes = {"name": kind} if kind in NAMED else {}
    source: Source = replace(made, **changes, root=place) if place else made
    return source


def _expected(words: str) -> str:
    places = ", ".join(f"{kind}:WHERE" for kind in (*NAMED, "folder", "packed", "hub"))
    return f"expected a folder, or {places}, digits or synthetic; got {words!r}"


def _like(kind: type[Source], default: Source) -> Source:
    """Make settings of a kind with what `default` says about which images take part."""
    both = issubclass(kind, Chosen) and isinstance(default, Chosen)
    return kind(**{item.name: getattr(default, item.name) for item in fields(Chosen) if both})
