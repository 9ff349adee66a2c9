"""What segments of units hold: their joint distribution, how hard they are, and their images (IMSVD, fig. 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import infoassign as ia
from infoassign_training.figures.style import BLUE, GREY, ORANGE, clean, legend, title

SHOWN = 400
"""Units of the joint distribution that are drawn, as in the papers."""
VECTOR = 800
"""Units of an embedding that are drawn, as in the papers."""
LEVELS = (0.9, 0.99)
PUBLISHED = {0.9: 0.9118, 0.99: 0.8125}
"""Shares of the segments with a probability above these levels, on ImageNet (IMSVD, sec. V-B3)."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Joint:
    """The joint distribution of the units of two views, and how far it is from the ideal."""

    size: int
    """Units of a segment, D."""
    images: int
    matrix: Floats
    """The upper left part, (S, S)."""
    diagonal: Floats
    """Of the blocks of a segment with itself, (sum D,); ideally 1 / D each."""
    outside: float
    """Mass in such a block off its diagonal, mean over segments; ideally 0."""
    information: float
    """Mutual information of two different segments, in nats, mean over the pairs drawn; ideally 0."""

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "units_of_a_segment": self.size,
            "images": self.images,
            "diagonal": {
                "ideal": 1 / self.size,
                "mean": float(self.diagonal.mean()),
                "least": float(self.diagonal.min()),
                "largest": float(self.diagonal.max()),
            },
            "mass_off_the_diagonal_of_a_segment": self.outside,
            "information_between_segments_nats": self.information,
            "most_information_nats": log(self.size),
            "shown": self.matrix.astype(np.float64).round(6).tolist(),
        }


def joint(first: Floats, second: Floats, size: int) -> Joint:
    """Return the joint distribution of the soft codes (N, sum D) of two views; D is `size`.

    Examples
    --------
    >>> codes = np.eye(2)[[[0, 0], [0, 1], [1, 0], [1, 1]]].reshape(4, 4)
    >>> found = joint(codes, codes, 2)
    >>> found.diagonal.tolist(), found.outside, found.information
    ([0.5, 0.5, 0.5, 0.5], 0.0, 0.0)
    """
    shown = min(SHOWN, first.shape[1]) // size * size or size
    matrix: Floats = ia.joint_distribution(first[:, :shown], second[:, :shown])
    diagonal: Floats = (first * second).mean(axis=0)
    count = shown // size
    blocks = matrix.reshape(count, size, count, size).swapaxes(1, 2)
    rows, columns = np.nonzero(~np.eye(count, dtype=bool))
    others = blocks[rows, columns]
    information = float(np.mean([_information(block) for block in others])) if len(others) else 0.0
    return Joint(size, len(first), matrix, diagonal, 1 - float(diagonal.sum()) * size / first.shape[1], information)


def _information(block: Floats) -> float:
    independent = block.sum(axis=1, keepdims=True) * block.sum(axis=0, keepdims=True)
    there = block > 0
    return max(float(np.sum(block[there] * np.log(block[there] / independent[there]))), 0.0)


def draw_joint(found: Joint) -> Figure:
    """Draw the upper left part of the matrix, with the borders of the segments."""
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    units = len(found.matrix)
    picture = axes.imshow(found.matrix, cmap="viridis", vmin=0, vmax=1 / found.size, interpolation="nearest",
                          extent=(0, units, units, 0))  # fmt: skip
    if units // found.size <= 24:
        for border in range(found.size, units, found.size):
            axes.axhline(border, color="white", linewidth=0.4)
            axes.axvline(border, color="white", linewidth=0.4)
    bar = figure.colorbar(picture, ax=axes, extend="max", shrink=0.85)
    bar.set_label(f"joint probability (ideal diagonal: 1/{found.size} = {1 / found.size:.3g})")
    axes.set_xlabel("unit of the second view")
    axes.set_ylabel("unit of the first view")
    title(axes, f"{units // found.size} segments of {found.size} units, {found.images} images")
    return figure


@dataclass(frozen=True)
class Hardness:
    """The largest probability of every segment of every image."""

    edges: Floats
    share: Floats
    """Of the segments, in every bin."""
    above: dict[float, float]
    """Share of the segments above a level."""
    agree: float
    """Share of the segments with the same likeliest unit in both views."""

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "above": {str(level): share for level, share in self.above.items()},
            "published_on_imagenet": {str(level): share for level, share in PUBLISHED.items()},
            "same_unit_in_both_views": self.agree,
            "edges": self.edges.tolist(),
            "share": self.share.tolist(),
        }


def hardness(first: Floats, second: Floats, size: int, *, bins: int = 50) -> Hardness:
    """Return how near the segments (N, sum D) of two views are to one-hot; the shares are of both views.

    Examples
    --------
    >>> found = hardness(np.array([[1.0, 0.0, 0.5, 0.5]]), np.array([[0.95, 0.05, 0.2, 0.8]]), 2)
    >>> found.above, found.agree
    ({0.9: 0.5, 0.99: 0.25}, 0.5)
    """
    views = [view.reshape(len(view), -1, size) for view in (first, second)]
    largest = np.stack([view.max(axis=2) for view in views])
    agree = float(np.mean(views[0].argmax(axis=2) == views[1].argmax(axis=2)))
    counts, edges = np.histogram(largest, bins=bins, range=(0, 1))
    return Hardness(edges, counts / largest.size, {level: float(np.mean(largest > level)) for level in LEVELS}, agree)


def draw_hardness(found: Hardness) -> Figure:
    """Draw the distribution of the largest probabilities, with the shares above the papers' levels."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.stairs(100 * found.share, found.edges, fill=True, color=BLUE)
    for level, color in zip(LEVELS, (ORANGE, GREY), strict=True):
        words = f"{100 * found.above[level]:.2f} % above {level} (ImageNet, published: {100 * PUBLISHED[level]:.2f} %)"
        axes.axvline(level, color=color, linewidth=1.2, label=words)
    axes.set_xlim(0, 1)
    axes.set_xlabel("largest probability of a segment")
    axes.set_ylabel("share of the segments (%)")
    title(axes, f"The likeliest unit is the same in both views for {found.agree:.1%} of the segments")
    legend(axes)
    clean(axes)
    return figure


def draw_vectors(pictures: Sequence[Floats], first: Floats, second: Floats, size: int) -> Figure:
    """Draw two views (n, S, S, 3) of some images and, one above the other, their soft codes (n, sum D)."""
    figure = Figure(figsize=(11, 1.5 * len(first) + 0.4), layout="constrained")
    units = np.arange(min(VECTOR, first.shape[1]))
    places = figure.subplots(len(first), 3, sharex="col", squeeze=False, width_ratios=(1, 1, 7))
    for column, (words, color) in enumerate((("first view", BLUE), ("second view", ORANGE))):
        for axes, picture in zip(places[:, column], pictures[column], strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set(color=color, linewidth=2)
        places[-1, column].set_xlabel(words)
    panels = places[:, 2]
    for axes, one, other in zip(panels, first, second, strict=True):
        axes.vlines(units + 0.5, 0, one[units], color=BLUE, linewidth=1.2, label="first view")
        axes.vlines(units + 0.5, 0, -other[units], color=ORANGE, linewidth=1.2, label="second view, downwards")
        axes.axhline(0, color=GREY, linewidth=0.6)
        if len(units) // size <= 24:
            for border in range(size, len(units), size):
                axes.axvline(border, color="#e4e7eb", linewidth=0.8, zorder=0)
        axes.set_ylim(-1.05, 1.05)
        axes.set_yticks([-1, 0, 1], ["1", "0", "1"])
        axes.set_ylabel("probability")
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlim(0, len(units))
    panels[-1].set_xlabel(f"unit (lines between segments of {size})")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


@dataclass(frozen=True)
class Units:
    """Some units of a segment, and the images that are most of them."""

    units: tuple[int, ...]
    """Numbers among all units."""
    size: int
    rows: NDArray[np.int64]
    """The images (u, n) of every unit, likeliest first."""
    probability: Floats
    """Those images' probabilities of the unit, (u, n)."""
    shares: Floats
    """Mean probability of the units, (u,); ideally 1 / D."""

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "units": list(self.units),
            "units_of_a_segment": self.size,
            "images": self.rows.tolist(),
            "probability": self.probability.tolist(),
            "share": self.shares.tolist(),
        }


def samples(codes: Floats, size: int, *, segments: Sequence[int], units: int = 8, number: int = 10) -> Units:
    """Return the images that are most of the first units of some segments, by soft codes (N, sum D).

    Raises
    ------
    ValueError
        If there are not so many segments.

    Examples
    --------
    >>> samples(np.array([[0.1, 0.9], [0.8, 0.2]]), 2, segments=[0], number=1).rows.tolist()
    [[1], [0]]
    """
    count = codes.shape[1] // size
    if not all(0 <= segment < count for segment in segments):
        raise ValueError(f"segments are numbered from 0 to {count - 1}; got {list(segments)}")
    chosen = tuple(segment * size + unit for segment in segments for unit in range(min(units, size)))
    of = codes[:, chosen].T
    rows = np.argsort(-of, axis=1, kind="stable")[:, :number]
    return Units(chosen, size, rows, np.take_along_axis(of, rows, axis=1), of.mean(axis=1))


def draw_samples(found: Units, pictures: NDArray[np.float32]) -> Figure:
    """Draw the images (u, n, S, S, 3) of every unit, a unit a row."""
    number, shown = found.rows.shape
    figure = Figure(figsize=(0.55 * shown + 2.2, 0.6 * number + 0.5), layout="constrained")
    for row, line in enumerate(figure.subplots(number, shown, squeeze=False)):
        for column, axes in enumerate(line):
            axes.imshow(pictures[row, column], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        segment, unit = divmod(found.units[row], found.size)
        line[0].set_ylabel(f"segment {segment}, unit {unit}\n{found.shares[row]:.1%} of all", rotation=0, ha="right",
                           va="center", fontsize=8)  # fmt: skip
    figure.suptitle("The likeliest images of every unit, likeliest first", fontsize=11)
    return figure
