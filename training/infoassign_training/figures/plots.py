"""The report's pictures; each function returns a matplotlib figure and touches no file."""

from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

BLUE, ORANGE, GREY = "#2f5d9b", "#d9822b", "#9aa3ad"


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


NOT_DRAWN = {"epoch", "step", "seconds", "loss", "loss_over_log_k"}


def learning_curves(records: Sequence[dict[str, Any]], labels: int | None) -> Figure:
    """Loss, information and clusters in use, or the parts of the loss, and schedules, epoch by epoch.

    Parameters
    ----------
    records
        Lines of the log, one an epoch; none if nothing was trained.
    labels
        How many labels the method makes, if any.
    """
    figure = Figure(figsize=(10, 6), layout="constrained")
    if not records:
        figure.text(0.5, 0.5, "Initial weights: nothing was trained.", ha="center", color="#5b6570")
        return figure
    epochs = [record["epoch"] for record in records]
    marker = "o" if len(epochs) == 1 else None
    panels = figure.subplots(2, 2, sharex=True)

    def curve(axes: Axes, key: str, title: str, color: str | None = BLUE, label: str | None = None) -> None:
        # Whole-data-set methods make labels in some epochs only.
        values = [record.get(key, np.nan) for record in records]
        axes.plot(epochs, values, color=color, label=label, marker="." if np.isnan(values).any() else marker)
        axes.set_title(title, loc="left", fontsize=11)

    known = {key for record in records for key in record}
    loss, information, clusters, schedules = panels.flat
    if labels is None:
        curve(loss, "loss", "Loss")
    else:
        curve(loss, "loss_over_log_k", "Loss / ln K")
        loss.axhline(1, color=GREY, linestyle="--", linewidth=1)
        loss.annotate("ln K: all labels predicted alike", (epochs[-1], 1), ha="right", va="top", color="#5b6570",
                      xytext=(0, -3), textcoords="offset points", fontsize=9)  # fmt: skip
    if "mutual_information" in known:
        curve(information, "mutual_information", "Mutual information of the labels (nats)")
        information.set_ylim(bottom=0)
        curve(clusters, "clusters_used", f"Clusters in use, of {labels}", label="likeliest label of some image")
        curve(clusters, "perplexity", clusters.get_title(loc="left"), ORANGE, label="perplexity of the marginal")
        clusters.set_ylim(0, (labels or 1) * 1.05)
        clusters.legend(frameon=False, fontsize=9, loc="lower right")
    else:
        others = NOT_DRAWN | {"learning_rate"}
        parts = [key for key in records[-1] if key not in others and not key.startswith("share_")]
        parts = parts if len(parts) > 1 else []  # one alone is the loss
        for key, color in zip(parts, (BLUE, ORANGE, GREY), strict=False):
            curve(information, key, "Parts of the loss, weighted", color, label=key.replace("_", " "))
        if parts and all(record[key] > 0 for record in records for key in parts):
            information.set_yscale("log")
        if parts:
            information.legend(frameon=False, fontsize=9)
        information.set_visible(bool(parts))
        clusters.set_visible(False)
    curve(schedules, "learning_rate", "Learning rate", label="learning rate")
    if "beta" in known:
        curve(schedules, "beta", "Learning rate and beta", ORANGE, label="beta")
    schedules.set_ylim(bottom=0)
    schedules.legend(frameon=False, fontsize=9, loc="center right")
    for axes in panels.flat:
        _clean(axes)
    for axes in panels[1]:
        axes.set_xlabel("epoch")
    return figure


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
    _clean(axes)
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
    _clean(axes)
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
