"""How the labels came about, epoch by epoch: against the true classes, the labels before, and the network (SeLa)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from infoassign_training.figures.style import BLUE, ORANGE, by_epoch, clean, legend, title

AGAINST = {
    "the true classes": {"pseudo_label_nmi": "NMI", "pseudo_label_purity": "share in their label's commonest class"},
    "the labels before": {"pseudo_label_nmi_before": "NMI", "pseudo_label_change": "share with another label"},
    "the network's predictions": {"agreement": "given the label to be learnt"},
}
"""What labels are compared with, and the numbers of the log that say so, with their names."""


@dataclass(frozen=True)
class Course:
    """Numbers of the log by their names, each as epochs and values."""

    curves: dict[str, tuple[list[int], list[float]]]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: {"epochs": epochs, "values": values} for name, (epochs, values) in self.curves.items()}


def course(records: Sequence[dict[str, Any]]) -> Course:
    """Return what the lines of a log say of the labels; an epoch that made none is left out.

    Raises
    ------
    ValueError
        If no line compares labels.

    Examples
    --------
    >>> lines = [{"epoch": 1, "pseudo_label_nmi": 0.5}, {"epoch": 2}, {"epoch": 3, "pseudo_label_nmi": 0.75}]
    >>> course(lines).to_dict()
    {'pseudo_label_nmi': {'epochs': [1, 3], 'values': [0.5, 0.75]}}
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for name in (name for names in AGAINST.values() for name in names):
        having = [record for record in records if name in record]
        if having:
            curves[name] = [record["epoch"] for record in having], [record[name] for record in having]
    if not any(name.startswith("pseudo_label") for name in curves):
        raise ValueError("the log compares no labels: the method makes none in training, or it is an older run")
    return Course(curves)


def draw(found: Course) -> Figure:
    """Draw a panel for all that labels are compared with."""
    panels = {words: names for words, names in AGAINST.items() if names.keys() & found.curves.keys()}
    figure = Figure(figsize=(3.9 * len(panels), 3.6), layout="constrained")
    for axes, (words, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for (name, said), color in zip(names.items(), (BLUE, ORANGE), strict=False):
            if name in found.curves:
                epochs, values = found.curves[name]
                axes.plot(epochs, values, color=color, label=said, marker="." if len(epochs) < 30 else None)
        axes.set_ylim(0, 1.25)  # room for the legend
        axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        by_epoch(axes)
        axes.set_ylabel("NMI, share of the images" if len(names) > 1 else "share of the views")
        title(axes, f"Labels and {words}")
        legend(axes, "upper left")
        clean(axes)
    return figure
