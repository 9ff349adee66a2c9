"""The report of a run: one page that needs no other file, and its pictures beside it."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.preprocessing import normalize

import infoassign as ia
from infoassign.files import replacing, write_text
from infoassign_training.config import Pretraining
from infoassign_training.data.digits import LabelledImages
from infoassign_training.engine import alarms
from infoassign_training.engine.run import Run
from infoassign_training.evaluation.suite import encoded
from infoassign_training.figures.options import FIGURES
from infoassign_training.figures.plots import cluster_grid, learning_curves, marginal_bars, metrics_bars
from infoassign_training.methods.method import Method

PROTOCOLS = {
    "knn": "kNN accuracy",
    "linear": "linear probe accuracy",
    "kmeans_nmi": "k-means NMI",
    "kmeans_ari": "k-means ARI",
}
"""Keys of the scores, in the order of the table, and what to call them."""


@dataclass(frozen=True)
class Clusters:
    """What the training images fell into."""

    classes: NDArray[np.int64]
    """True classes, shape (N,)."""
    labels: NDArray[np.int64]
    """Shape (N,)."""
    confidence: NDArray[np.float32]
    """How much each image is of its own label, shape (N,)."""
    shares: NDArray[np.float64]
    """Share of the images of every label, shape (K,)."""
    assignment: ia.Assignment | None
    """How the labels were made; None for k-means on the features."""

    @property
    def used(self) -> int:
        """How many labels some image has."""
        return len(np.unique(self.labels))

    @property
    def nmi(self) -> float:
        """Normalised mutual information of labels and classes."""
        return float(normalized_mutual_info_score(self.classes, self.labels))

    @property
    def ari(self) -> float:
        """Adjusted Rand index of labels and classes."""
        return float(adjusted_rand_score(self.classes, self.labels))

    @property
    def purity(self) -> float:
        """Share of the images that are of their label's commonest class."""
        commonest = (np.bincount(self.classes[self.labels == label]).max() for label in np.unique(self.labels))
        return float(sum(commonest) / len(self.labels))


def clusters_of(method: Method, train: LabelledImages) -> Clusters:
    """Label the training images as the finished model does; without labels of its own, by k-means on its features."""
    classes = train.classes.numpy()
    assignment = method.label(train.images)
    if assignment is not None:
        plan: NDArray[np.float32] = assignment.plan.numpy()
        labels: NDArray[np.int64] = assignment.labels.numpy()
        return Clusters(classes, labels, plan.max(axis=1), assignment.marginal.numpy(), assignment)
    features = normalize(encoded(method.encoder, train.images))
    number = len(np.unique(classes))
    means = KMeans(number, n_init=20, random_state=0).fit(features)
    nearness = (features * normalize(means.cluster_centers_)[means.labels_]).sum(axis=1)
    shares = np.bincount(means.labels_, minlength=number) / len(classes)
    return Clusters(classes, means.labels_, nearness, shares, None)


def write_report(
    run: Run, *, method: Method, train: LabelledImages | None, scores: dict[str, dict[str, float]]
) -> Path:
    """Draw the pictures, write them and the page, and return where the page lies.

    Parameters
    ----------
    run
        The run folder, with its settings and log.
    method
        The trained method, which labels the training images.
    train
        The training images, if they are few enough to be shown; their classes serve to frame and to count, never to
        train.
    scores
        What the evaluations returned, by representation and protocol; empty if there were none.
    """
    started, records = run.read(), run.records()
    figures = {"curves": learning_curves(records, method.labels)}
    if scores:
        figures["metrics"] = metrics_bars(scores, PROTOCOLS)
    found = None if train is None else clusters_of(method, train)
    if train is not None and found is not None:
        pixels = train.images.squeeze(1).numpy()
        figures["clusters"] = cluster_grid(pixels, found.classes, found.labels, found.confidence)
        figures["marginal"] = marginal_bars(found.shares)
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
        last=records[-1] if records else None,
        seconds=sum(record["seconds"] for record in records),
        clusters=found,
        supervised=started.settings.method.supervised,
        alarms=_alarms(records, started.settings),
        pictures=pictures,
        drawn=_drawn(run),
    )
    write_text(run.report, page)
    return run.report


def _alarms(records: list[dict[str, Any]], settings: Pretraining) -> list[str]:
    """Return what there is to warn of at the end of a run."""
    if not records:
        return []
    return [*alarms.beforehand(settings), *alarms.alarms(records[-1], settings).values()]


def _drawn(run: Run) -> list[tuple[str, str]]:
    """Return what ``infoassign figures`` has drawn of a run: what each shows, and the picture."""
    known = ((words, run.figures / f"{name}.png") for name, words in FIGURES.items())
    return [(words, _embedded(path.read_bytes())) for words, path in known if path.is_file()]


def _embedded(png: bytes) -> str:
    """Return a picture as the address of an embedded image."""
    return "data:image/png;base64," + b64encode(png).decode()


def _save(figure: Figure, path: Path) -> str:
    """Write a figure as PNG and return it as the address of an embedded image."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    with replacing(path) as file:
        file.write(buffer.getvalue())
    return _embedded(buffer.getvalue())
