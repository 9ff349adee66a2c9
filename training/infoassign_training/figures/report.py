"""The report of a run: one page that needs no other file, and its pictures beside it."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from infoassign.files import replacing, write_text
from infoassign_training.data.digits import LabelledImages
from infoassign_training.engine.pretrain import alarm
from infoassign_training.engine.run import Run
from infoassign_training.figures.plots import cluster_grid, learning_curves, marginal_bars, metrics_bars
from infoassign_training.methods.mira import Mira

PROTOCOLS = {
    "knn": "kNN accuracy",
    "linear": "linear probe accuracy",
    "kmeans_nmi": "k-means NMI",
    "kmeans_ari": "k-means ARI",
}
"""Keys of the scores, in the order of the table, and what to call them."""


def write_report(run: Run, *, method: Mira, train: LabelledImages, scores: dict[str, dict[str, float]]) -> Path:
    """Draw the pictures, write them and the page, and return where the page lies.

    Parameters
    ----------
    run
        The run folder, with its settings and log.
    method
        The trained method, which labels the training images.
    train
        The training images; their classes serve to frame and to count, never to train.
    scores
        What the evaluations returned, by representation and protocol.
    """
    started, records = run.read(), run.records()
    prototypes = started.settings.mira.prototypes
    assignment = method.label(train.images)
    plan: NDArray[np.float32] = assignment.plan.numpy()
    labels: NDArray[np.int64] = assignment.labels.numpy()
    classes: NDArray[np.int64] = train.classes.numpy()
    figures = {
        "curves": learning_curves(records, prototypes),
        "metrics": metrics_bars(scores, PROTOCOLS),
        "clusters": cluster_grid(train.images.squeeze(1).numpy(), classes, labels, plan.max(axis=1)),
        "marginal": marginal_bars(assignment.marginal.numpy()),
    }
    pictures = {name: _save(figure, run.figure(name)) for name, figure in figures.items()}
    environment = Environment(
        loader=PackageLoader("infoassign_training", "figures"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        recipe=started.recipe,
        settings=started.settings.flat(),
        versions=started.versions,
        protocols=PROTOCOLS,
        scores=scores,
        last=records[-1],
        seconds=sum(record["seconds"] for record in records),
        images=len(train.images),
        prototypes=prototypes,
        assignment=assignment,
        used=len(np.unique(labels)),
        nmi=normalized_mutual_info_score(classes, labels),
        ari=adjusted_rand_score(classes, labels),
        purity=_purity(classes, labels),
        alarm=alarm(records[-1], started.settings),
        pictures=pictures,
    )
    write_text(run.report, page)
    return run.report


def _purity(classes: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Share of the images that are of their pseudo-label's commonest class."""
    return sum(int(np.bincount(classes[labels == label]).max()) for label in np.unique(labels)) / len(labels)


def _save(figure: Figure, path: Path) -> str:
    """Write a figure as PNG and return it as the address of an embedded image."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    with replacing(path) as file:
        file.write(buffer.getvalue())
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()
