"""The report's pictures; each function returns a matplotlib figure and touches no file."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from math import log
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from infoassign_training.figures.style import BLUE, GREY, ORANGE, by_epoch, clean, legend, title

WATCHED = {"agreement": "views given the label to be learnt", "knn": "neighbours of the same class"}
"""Shares of the images, by their name in the log."""
COMPARED = {
    "pseudo_label_nmi": "NMI with the true classes",
    "pseudo_label_nmi_before": "NMI with the labels before",
    "pseudo_label_change": "share of the images with another label",
}
"""What labels are like beside others, by its name in the log."""
LOSSES = {"loss", "loss_over_log_k"}
OTHERS = {"epoch", "step", "seconds", "learning_rate", "feature_rank", "output_std"}
"""What a line of the log of a method without labels has besides the parts of the loss."""


def learning_curves(records: Sequence[dict[str, Any]], labels: int | None) -> Figure:
    """Draw what the log has of loss, labels, features and schedules, epoch by epoch.

    Parameters
    ----------
    records
        Lines of the log, one an epoch; none if nothing was trained.
    labels
        How many labels the method makes, if any.
    """
    if not records:
        figure = Figure(figsize=(10, 6), layout="constrained")
        figure.text(0.5, 0.5, "Initial weights: nothing was trained.", ha="center", color="#5b6570")
        return figure
    known = {key for record in records for key in record}
    panels: list[Panel] = [partial(_loss, labels=labels)]
    if "mutual_information" in known:
        panels += [_information, partial(_clusters, labels=labels or 1)]
    elif parts := _parts(records[-1]):
        panels.append(partial(_loss_parts, parts=parts))
    panels += [partial(_shares, words="Labels of the images", names=COMPARED)] * bool(known & COMPARED.keys())
    panels += [partial(_shares, words="Share of the images", names=WATCHED)] * bool(known & WATCHED.keys())
    panels += [_features] * ("feature_rank" in known)
    panels.append(_schedules)
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(10, 3 * rows), layout="constrained")
    places = figure.subplots(rows, 2, sharex=True, squeeze=False).flat
    for panel, axes in zip_longest(panels, places):
        if panel is None:
            axes.set_visible(False)
            continue
        panel(axes, records)
        clean(axes)
    for axes in places[len(panels) - 2 : len(panels)]:
        by_epoch(axes)
        axes.tick_params(labelbottom=True)
    return figure


Panel = Callable[[Axes, Sequence[dict[str, Any]]], None]


def _curve(
    axes: Axes, records: Sequence[dict[str, Any]], key: str, color: str | None = BLUE, label: str | None = None
) -> None:
    # Some values are of some epochs only: labels of the whole data set, neighbours.
    points = [(record["epoch"], record[key]) for record in records if key in record]
    sparse = len(points) < len(records) - 1  # the first has none before it to be compared with
    axes.plot(
        *zip(*points, strict=True),
        color=color,
        label=label,
        marker="." if sparse else "o" if len(points) == 1 else None,
    )


def _loss(axes: Axes, records: Sequence[dict[str, Any]], labels: int | None) -> None:
    if labels is None:
        _curve(axes, records, "loss")
        title(axes, "Loss")
        return
    _curve(axes, records, "loss_over_log_k")
    title(axes, "Loss / ln K")
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1)
    axes.annotate("ln K: all labels predicted alike", (records[-1]["epoch"], 1), ha="right", va="top", color="#5b6570",
                  xytext=(0, -3), textcoords="offset points", fontsize=9)  # fmt: skip


def _information(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    """Draw the information, and the two entropies that it is the difference of."""
    _curve(axes, records, "mutual_information", label="mutual information")
    if any("marginal_entropy" in record for record in records):
        _curve(axes, records, "marginal_entropy", ORANGE, "entropy of the marginal")
        _curve(axes, records, "conditional_entropy", GREY, "entropy of an image's label")
        legend(axes)
    title(axes, "Information of the labels (nats)")
    axes.set_ylim(bottom=0)


def _clusters(axes: Axes, records: Sequence[dict[str, Any]], labels: int) -> None:
    _curve(axes, records, "clusters_used", label="likeliest label of some image")
    _curve(axes, records, "perplexity", ORANGE, "perplexity of the marginal")
    title(axes, f"Clusters in use, of {labels}")
    axes.set_ylim(0, labels * 1.05)
    legend(axes, "lower right")


def _parts(record: dict[str, Any]) -> list[str]:
    """Return the names of the parts of the loss; one alone is the loss."""
    others = LOSSES | OTHERS | WATCHED.keys()
    parts = [key for key in record if key not in others and not key.startswith("share_")]
    return parts if len(parts) > 1 else []


def _loss_parts(axes: Axes, records: Sequence[dict[str, Any]], parts: Sequence[str]) -> None:
    for key, color in zip(parts, (BLUE, ORANGE, GREY), strict=False):
        _curve(axes, records, key, color, key.replace("_", " "))
    title(axes, "Parts of the loss, weighted")
    if all(record[key] > 0 for record in records for key in parts):
        axes.set_yscale("log")
    legend(axes)


def _shares(axes: Axes, records: Sequence[dict[str, Any]], words: str, names: dict[str, str]) -> None:
    for (key, label), color in zip(names.items(), (BLUE, ORANGE, GREY), strict=False):
        if any(key in record for record in records):
            _curve(axes, records, key, color, label)
    title(axes, words)
    axes.set_ylim(0, 1.05)
    legend(axes, "lower right")


def _features(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    _curve(axes, records, "feature_rank")
    title(axes, "Effective rank of the features")
    axes.set_ylim(bottom=0)


def _schedules(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    _curve(axes, records, "learning_rate", label="learning rate")
    title(axes, "Learning rate")
    if "beta" in records[-1]:
        _curve(axes, records, "beta", ORANGE, "beta")
        title(axes, "Learning rate and beta")
    axes.set_ylim(bottom=0)
    legend(axes, "center right")


def metrics_bars(scores: dict[str, dict[str, float]], names: dict[str, str]) -> Figure:
    """Every protocol on the features beside the same on raw pixels."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(names))
    for offset, (subject, color) in zip((-0.2, 0.2), (("features", BLUE), ("pixels", GREY)), strict=True):
        bars = axes.bar(positions + offset, [scores[subject][key] for key in names], 0.38, color=color, label=subject)
        axes.bar_label(bars, fmt="%.3f", fontsize=9, padding=2)
    axes.set_xticks(positions, list(names.values()))
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.legend(frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.12))
    clean(axes)
    return figure


def marginal_bars(marginal: NDArray[np.float64]) -> Figure:
    """Share of every cluster, largest first, beside the even share."""
    shares = np.sort(marginal)[::-1]
    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(1, len(shares) + 1), shares * 100, width=0.85, color=BLUE)
    axes.axhline(100 / len(shares), color=ORANGE, linewidth=1.2, label="even share")
    axes.set_xlim(0.3, len(shares) + 0.7)
    axes.set_xlabel("cluster, largest first")
    axes.set_ylabel("share of the images (%)")
    entropy = -float(np.sum(shares * np.log(np.maximum(shares, 1e-300))))
    axes.set_title(f"Entropy {entropy:.2f} of at most ln {len(shares)} = {log(len(shares)):.2f} nats",
                   loc="left", fontsize=11)  # fmt: skip
    axes.legend(frameon=False)
    clean(axes)
    return figure


def cluster_grid(
    images: NDArray[np.float32],
    classes: NDArray[np.int64],
    labels: NDArray[np.int64],
    confidence: NDArray[np.float32],
    *,
    shown: int = 10,
) -> Figure:
    """The likeliest images of every pseudo-label, one label a row, largest first.

    Images (N, S, S) in [0, 1], true classes (N,), pseudo-labels (N,), and the probability (N,) each image has of its
    own pseudo-label. An image that is not of its row's commonest class is framed.
    """
    clusters, sizes = np.unique(labels, return_counts=True)
    clusters = clusters[np.argsort(-sizes, kind="stable")]
    size = images.shape[-1]
    pitch = size + 2
    blocks = 2 if len(clusters) > 8 else 1
    rows = -(-len(clusters) // blocks)
    figure = Figure(figsize=(5.2 * blocks, 0.4 * rows + 0.2), layout="constrained")
    for block, axes in enumerate(figure.subplots(1, blocks, squeeze=False)[0]):
        sheet = np.zeros((rows * pitch, shown * pitch))
        for row, cluster in enumerate(clusters[block * rows : (block + 1) * rows]):
            members = np.flatnonzero(labels == cluster)
            commonest = int(np.bincount(classes[members]).argmax())
            purity = float(np.mean(classes[members] == commonest))
            caption = f"#{cluster}  n={len(members)}\n“{commonest}” {purity:.0%}"
            axes.text(-2, (row + 0.5) * pitch, caption, fontsize=7.5, ha="right", va="center")
            likeliest = members[np.argsort(-confidence[members], kind="stable")][:shown]
            for column, member in enumerate(likeliest):
                top, left = row * pitch + 1, column * pitch + 1
                sheet[top : top + size, left : left + size] = images[member]
                strange = classes[member] != commonest
                color, width = (ORANGE, 1.8) if strange else ("#d5d9de", 0.6)
                axes.add_patch(
                    Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor=color, linewidth=width)
                )
        axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
        axes.axis("off")
    return figure
