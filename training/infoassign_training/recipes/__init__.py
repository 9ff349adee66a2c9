"""What can be run by name: one module per source, a function per run."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infoassign_training.config import Pretraining


@dataclass(frozen=True)
class Recipe:
    """A run that is known to work."""

    name: str
    summary: str
    """One line: what it trains, on what."""
    needs: str
    """Hardware and time, as measured."""
    expected: str
    """What it reached, and how that was measured."""
    settings: Pretraining


def _gather() -> Mapping[str, Recipe]:
    from infoassign_training.recipes import digits

    return MappingProxyType({recipe.name: recipe for recipe in (digits.digits_mira(), *digits.others())})


RECIPES: Mapping[str, Recipe] = _gather()
"""All recipes, by name."""
