"""What all pictures have in common: colours, axes, titles and legends."""

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREY = "#2f5d9b", "#d9822b", "#9aa3ad"


def clean(axes: Axes) -> None:
    """Leave two spines and light horizontal lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def by_epoch(axes: Axes) -> None:
    """Let the lower axis count epochs, of which there are no halves."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def title(axes: Axes, words: str) -> None:
    """Put a title above the left end."""
    axes.set_title(words, loc="left", fontsize=11)


def legend(
    axes: Axes, place: Literal["best", "lower right", "center right", "upper left", "upper right"] = "best"
) -> None:
    """Add a legend without a frame."""
    axes.legend(frameon=False, fontsize=9, loc=place)
