"""What can be run by name: one module per source, a function per run.

Examples
--------
>>> recipe = RECIPES["mira-cifar10"]
>>> recipe.settings.method.kind, recipe.settings.batch_size
('mira', 512)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infoassign_training.config import Pretraining


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run with all its settings, and what is known of it."""

    name: str
    """That of the command line."""
    summary: str
    """One line: what it trains, on what."""
    source: str
    """Where the settings come from: paper and table, or what was tried here."""
    hardware: str
    """What it is meant for."""
    hours: str
    """How long that takes, and who says so."""
    published: str
    """What the paper reached; empty where there is no paper."""
    measured: str = ""
    """What we reached, and how that was measured; empty if it was not run."""
    settings: Pretraining
    """What is done."""


def _gather() -> Mapping[str, Recipe]:
    from infoassign_training.recipes import baselines, digits, imsvd, mira, music, sela

    return MappingProxyType(
        {recipe.name: recipe for module in (digits, mira, sela, music, imsvd, baselines) for recipe in module.recipes()}
    )


RECIPES: Mapping[str, Recipe] = _gather()
"""All recipes, by name."""
