"""What digits.py runs: the table of all methods, and what of the papers' studies can be done on digits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infoassign_training.recipes import RECIPES

Changes = Mapping[str, Any]
"""Settings by their names on the command line."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Runs that differ in the seed alone."""

    name: str
    recipe: str
    changes: Changes = field(default_factory=dict)
    images: str = "full"
    """Training images: full, or light or heavy imbalance."""
    published: str = ""
    """What the paper reached, on other data."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A table."""

    rows: tuple[Row, ...]
    published: str = ""
    """What the papers' numbers are; empty if there are none."""
    timed: bool = False
    """Whether to show seconds."""


def row(name: str, recipe: str, published: str = "", images: str = "full", **changes: Any) -> Row:
    """Make a row; what changes nothing is left out, so that the recipe's own run is made once for all tables."""
    recipe = f"digits-{recipe}"
    same = RECIPES[recipe].settings.flat()
    names = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    kept = {key: value for key, value in names.items() if same[key] != value}
    return Row(name=name, recipe=recipe, changes=kept, images=images, published=published)


METHODS = Study(
    rows=tuple(row(name[7:], name[7:]) for name in RECIPES if name.startswith("digits-")),
    timed=True,
)


def batches(labels: int, *sizes: int) -> Study:
    """Make the rows of both methods at some batch sizes."""
    return Study(
        rows=tuple(
            row(f"{name}, batch {size}", recipe, batch_size=size, method__prototypes=labels)
            for size in sizes
            for name, recipe in (("MIRA", "mira"), ("SwAV", "swav"))
        )
    )


LOSS = Study(
    rows=(
        row("DE + OE", "imsvd", "65.4", method__invariance_weight=0.0),
        row("OE + TI", "imsvd", "64.1", method__diagonal_weight=0.0),
        row("DE + OE + TIC", "imsvd", "68.3", method__invariance="cross-entropy"),
        row("DE + OE + TI", "imsvd", "69.4"),
    ),
    published="IMSVD's table VIII, ImageNet",
)

SEGMENT = Study(
    rows=tuple(
        row(f"{256 // size} segments of {size}", "music", published, method__segment_size=size)
        for size, published in ((4, ""), (8, "88.5"), (16, "88.6"), (32, "89.2, 67.8"), (64, "88.6, 69.1"))
    ),
    published="MUSIC's tables 11, CIFAR-10, and 9, ImageNet",
)

PUBLISHED = {
    "full": ("92.1, 90.2", "64.7, 77.5", "72.9, 79.8"),
    "light": ("92.0, 90.4", "64.2, 77.0", "71.7, 79.5"),
    "heavy": ("86.7, 86.8", "60.7, 75.2", "67.6, 77.2"),
}
IMBALANCE = Study(
    rows=tuple(
        row(f"{images}: {recipe}", recipe, published, images)
        for images, found in PUBLISHED.items()
        for recipe, published in zip(("supervised", "deepcluster", "sela"), found, strict=True)
    ),
    published="SeLa's table 8, CIFAR-10: kNN, linear",
)

RELABELLINGS = Study(
    rows=tuple(
        row(f"M = {count}", "sela", published, method__relabellings=count)
        for count, published in ((1, ""), (5, ""), (10, ""), (20, ""), (40, ""), (80, "44.7"), (160, "44.6"))
    ),
    published="SeLa's table 1, ImageNet, conv4",
)

STUDIES = {
    "methods": METHODS,
    "loss": LOSS,
    "segment": SEGMENT,
    "imbalance": IMBALANCE,
    "relabellings": RELABELLINGS,
    "batch": batches(64, 16, 32, 64, 128, 256),
    "batch-256": batches(256, 16, 32, 64, 128),
}
