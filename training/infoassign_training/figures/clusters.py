"""What true classes clusters hold: their entropies, and images with frames in the colours of their classes (SeLa)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import entropy
from sklearn.metrics import normalized_mutual_info_score

from infoassign_training.figures.style import BLUE, ORANGE, clean, title

CLUSTERS, IMAGES = 8, 9
"""Clusters that are shown, and images of each, as in SeLa's figures."""
LEAST = IMAGES
"""Images of a cluster that is shown: of few, any entropy is low by chance."""
GOLDEN = 0.6180339887498949
"""Steps of this size along a circle stay apart for longest."""


@dataclass(frozen=True)
class Entropies:
    """How mixed the classes of every cluster are."""

    clusters: NDArray[np.int64]
    """Those that have an image, (C,)."""
    sizes: NDArray[np.int64]
    """Their images, (C,)."""
    entropy: NDArray[np.float64]
    """Of the true classes in each, in nats, (C,)."""
    overall: float
    """Of the true classes of all images, in nats: what clusters by chance would have, were they large."""
    nmi: float
    """Normalised mutual information of clusters and classes."""

    @property
    def mean(self) -> float:
        """The conditional entropy of the class given the cluster, in nats."""
        return float(np.average(self.entropy, weights=self.sizes))

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "clusters": self.clusters.tolist(),
            "sizes": self.sizes.tolist(),
            "entropy_nats": self.entropy.tolist(),
            "mean_entropy_nats": self.mean,
            "entropy_of_the_classes_nats": self.overall,
            "nmi": self.nmi,
        }


def entropies(labels: NDArray[np.int64], classes: NDArray[np.int64]) -> Entropies:
    """Return the entropy of the true classes (N,) in every cluster of labels (N,).

    Examples
    --------
    >>> found = entropies(np.array([3, 3, 5, 5]), np.array([0, 0, 0, 1]))
    >>> found.clusters.tolist(), (found.entropy / np.log(2)).round(6).tolist()
    ([3, 5], [0.0, 1.0])
    """
    clusters, sizes = np.unique(labels, return_counts=True)
    counts = (np.bincount(classes[labels == cluster]) for cluster in clusters)
    mixed = np.array([entropy(count) for count in counts])
    nmi = float(normalized_mutual_info_score(classes, labels))
    return Entropies(clusters, sizes, mixed, float(entropy(np.bincount(classes))), nmi)


def draw_entropies(found: Entropies) -> Figure:
    """Draw how many clusters have which entropy, and the entropies by the size of the cluster."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    top = max(found.overall, float(found.entropy.max())) * 1.05 or 1.0
    left.hist(found.entropy, bins=30, range=(0, top), color=BLUE)
    left.set_ylabel("clusters")
    title(left, f"{len(found.clusters)} clusters; NMI with the classes {found.nmi:.3f}")
    right.plot(found.entropy, found.sizes, ".", color=BLUE)
    right.set_ylabel("images of the cluster")
    right.set_ylim(0, 1.1 * int(found.sizes.max()))
    for axes in (left, right):
        axes.axvline(found.mean, color=ORANGE, linewidth=1.2, label=f"mean over images: {found.mean:.2f}")
        axes.axvline(found.overall, color=ORANGE, linewidth=1.2, linestyle="--",
                     label=f"all images: {found.overall:.2f}")  # fmt: skip
        axes.set_xlim(-0.02 * top, top)
        axes.set_xlabel("entropy of the true classes in a cluster (nats)")
        clean(axes)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


@dataclass(frozen=True)
class Chosen:
    """Some clusters and images of theirs."""

    clusters: NDArray[np.int64]
    sizes: NDArray[np.int64]
    entropy: NDArray[np.float64]
    rows: NDArray[np.int64]
    """Which images, (c, n)."""
    classes: NDArray[np.int64]
    """Their true classes, (c, n)."""

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "clusters": self.clusters.tolist(),
            "sizes": self.sizes.tolist(),
            "entropy_nats": self.entropy.tolist(),
            "images": self.rows.tolist(),
            "classes": self.classes.tolist(),
        }


def choose(
    labels: NDArray[np.int64], classes: NDArray[np.int64], *, lowest: bool, seed: int, number: int = CLUSTERS
) -> Chosen:
    """Choose clusters of the lowest entropy or at random, and random images of each; small ones are left out.

    Raises
    ------
    ValueError
        If no cluster has enough images.

    Examples
    --------
    >>> labels, classes = np.repeat([0, 1], 10), np.repeat([0, 1, 1, 1], 5)
    >>> choose(labels, classes, lowest=True, seed=0, number=1).clusters.tolist()
    [1]
    """
    found, random = entropies(labels, classes), np.random.default_rng(seed)
    large = np.flatnonzero(found.sizes >= LEAST)
    if not len(large):
        raise ValueError(f"no cluster has {LEAST} images; there is nothing to show")
    order = np.argsort(found.entropy[large], kind="stable") if lowest else random.permutation(len(large))
    places = large[order[:number]]
    rows = np.stack(
        [random.choice(np.flatnonzero(labels == cluster), IMAGES, replace=False) for cluster in found.clusters[places]]
    )
    return Chosen(found.clusters[places], found.sizes[places], found.entropy[places], rows, classes[rows])


def draw_chosen(found: Chosen, pictures: NDArray[np.float32], names: tuple[str, ...], words: str) -> Figure:
    """Draw the images (c, n, S, S, 3) of every cluster as a square, framed in the colours of their classes.

    Classes of the most images shown are named in the legend.
    """
    across = min(4, len(found.clusters))
    side = int(np.ceil(np.sqrt(found.rows.shape[1])))
    down = -(-len(found.clusters) // across)
    figure = Figure(figsize=(max(2.3 * across, 5), 2.45 * down + 0.9), layout="constrained")
    places = figure.subplots(down, across, squeeze=False).flat
    shown, counts = np.unique(found.classes, return_counts=True)
    colours = {one: colour_of(one, len(names)) for one in shown.tolist()}
    for axes in places:
        axes.axis("off")
    for cluster, axes in enumerate(places[: len(found.clusters)]):
        _square(axes, pictures[cluster], [colours[one] for one in found.classes[cluster].tolist()], side)
        axes.set_title(f"#{found.clusters[cluster]}: {found.entropy[cluster]:.2f} nats, n={found.sizes[cluster]}",
                       fontsize=9)  # fmt: skip
    named = shown[np.argsort(-counts, kind="stable")][:12]
    handles = [axes.plot([], [], "s", color=colours[one], label=names[one])[0] for one in np.sort(named).tolist()]
    figure.legend(handles=handles, loc="outside lower center", ncols=12, frameon=False, fontsize=9, title="class",
                  columnspacing=1.0, handletextpad=0.1)  # fmt: skip
    figure.suptitle(words, fontsize=11)
    return figure


def colour_of(number: int, count: int) -> tuple[float, ...]:
    """Return the colour of a class, the same in every figure; of many classes some look alike.

    Examples
    --------
    >>> len({colour_of(number, 200) for number in range(200)})
    200
    """
    if count <= 20:
        return tuple(colormaps["tab10" if count <= 10 else "tab20"](number))
    return tuple(hsv_to_rgb((number * GOLDEN % 1, 0.9, 0.9)))


def _square(axes: Axes, images: NDArray[np.float32], colours: list[Any], side: int) -> None:
    size = images.shape[1]
    border = max(size // 12, 1)
    pitch = size + 3 * border
    sheet = np.ones((side * pitch, side * pitch, 3), dtype=np.float32)
    for place, (image, colour) in enumerate(zip(images, colours, strict=True)):
        top, left = (pitch * number + border // 2 for number in divmod(place, side))
        sheet[top : top + size + 2 * border, left : left + size + 2 * border] = colour[:3]
        sheet[top + border : top + border + size, left + border : left + border + size] = image
    axes.imshow(sheet, interpolation="nearest")
