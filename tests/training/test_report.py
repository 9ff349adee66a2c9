"""The run folder and the report at the end of a run."""

import base64
import json
import re
import shutil
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infoassign_training import pipeline
from infoassign_training.config import Pretraining
from infoassign_training.engine.checkpoint import KEPT
from infoassign_training.engine.run import FIGURES, LOCK, Run, RunError, open_run
from infoassign_training.figures.plots import cluster_grid, learning_curves, marginal_bars


class Page(HTMLParser):
    """Gathers text and images, and checks that tags close in order."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, Any]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(finished_run: Any) -> Page:
    page = Page()
    page.feed((finished_run.folder / "report.html").read_text(encoding="utf-8"))
    return page


def test_the_folder_holds_what_the_documentation_says(finished_run: Any) -> None:
    names = {path.name for path in finished_run.folder.iterdir()}
    assert names - {LOCK} == {
        "settings.json",
        "log.jsonl",
        "checkpoint.pt",
        *KEPT,
        "metrics.json",
        "report.html",
        *(f"{name}.png" for name in FIGURES),
    }


def test_metrics_are_what_the_pipeline_returned(finished_run: Any) -> None:
    assert json.loads((finished_run.folder / "metrics.json").read_text()) == finished_run.scores
    assert finished_run.scores.keys() == {"features", "pixels"}


def test_the_page_is_well_formed_and_needs_no_other_file(page: Page, finished_run: Any) -> None:
    assert page.open == []
    source = (finished_run.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', source)
    assert len(page.images) == len(FIGURES)
    for image, name in zip(page.images, ("metrics", "curves", "marginal", "clusters"), strict=True):
        assert image["alt"]
        embedded = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        assert embedded == (finished_run.folder / f"{name}.png").read_bytes()
        assert embedded.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", embedded[16:24])
        assert width >= 600
        assert height >= 300


def test_the_page_shows_the_numbers_and_the_settings(page: Page, finished_run: Any) -> None:
    for scores in finished_run.scores.values():
        for value in scores.values():
            assert f"{value:.4f}" in page.text
    assert "--method.beta-start" in page.text
    assert "--encoder.widths" in page.text


def test_the_report_can_be_made_again(finished_run: Any) -> None:
    before = (finished_run.folder / "report.html").read_text(encoding="utf-8")
    assert pipeline.report(finished_run.folder) == finished_run.scores
    assert (finished_run.folder / "report.html").read_text(encoding="utf-8") == before


def test_a_run_that_stayed_on_the_plateau_says_so(finished_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_run.folder, folder)
    stuck = [record | {"loss_over_log_k": 0.995} for record in Run(folder).records()]
    Run(folder).log.write_text("".join(json.dumps(record) + "\n" for record in stuck))
    pipeline.report(folder)
    assert "still ln K" in (folder / "report.html").read_text(encoding="utf-8")
    assert "still ln K" not in (finished_run.folder / "report.html").read_text(encoding="utf-8")
    Run(folder).log.unlink()
    with pytest.raises(RunError, match=r"log\.jsonl is missing or empty"):
        pipeline.report(folder)


def test_an_unfinished_run_has_no_report(tmp_path: Path, small: Pretraining) -> None:
    with pytest.raises(RunError, match="holds no run"):
        pipeline.report(tmp_path)
    with open_run(tmp_path / "run", "small", small) as run:
        pass
    with pytest.raises(RunError, match="is trained for 0 of 20 steps; finish it with --resume"):
        pipeline.report(run.folder)


def test_curves_of_a_single_epoch_are_visible(finished_run: Any) -> None:
    figure = learning_curves(Run(finished_run.folder).records()[:1], 12)
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines if len(line.get_xdata()) == 1)


def line(epoch: int, **numbers: float) -> dict[str, float]:
    return {"epoch": epoch, "step": 10 * epoch, "seconds": 1.0, "loss": 2.0, "learning_rate": 0.1} | numbers


def panels(records: list[dict[str, float]], labels: int | None) -> dict[str, list[str]]:
    """Return the titles of what is drawn, with the labels of the curves."""
    shown = [axes for axes in learning_curves(records, labels).axes if axes.get_visible()]
    assert all(axes.lines for axes in shown)
    return {axes.get_title(loc="left"): [entry.get_label() for entry in axes.get_lines()] for axes in shown}


def test_curves_show_what_is_watched(finished_run: Any) -> None:
    found = panels(Run(finished_run.folder).records(), 12)
    assert list(found) == [
        "Loss / ln K",
        "Information of the labels (nats)",
        "Clusters in use, of 12",
        "Labels of the images",
        "Share of the images",
        "Effective rank of the features",
        "Learning rate and beta",
    ]
    assert len(found["Information of the labels (nats)"]) == 3
    assert found["Share of the images"] == ["views given the label to be learnt"]


def test_curves_of_methods_without_labels_and_of_earlier_logs() -> None:
    watched = [line(epoch, variance=1.0, covariance=2.0, feature_rank=3.0, output_std=0.5) for epoch in (1, 2)]
    found = panels(watched, None)
    assert list(found) == ["Loss", "Parts of the loss, weighted", "Effective rank of the features", "Learning rate"]
    assert found["Parts of the loss, weighted"] == ["variance", "covariance"]
    sparse = [line(1, knn=0.5), line(2)]
    assert list(panels(sparse, None)) == ["Loss", "Share of the images", "Learning rate"]
    assert list(panels([line(1), line(2)], None)) == ["Loss", "Learning rate"]
    # Labels of the whole data set, in some epochs only, without their entropies.
    early = [line(1, loss_over_log_k=1.0, mutual_information=1.0, clusters_used=5, perplexity=4.0)]
    early += [line(2, loss_over_log_k=0.9), line(3, loss_over_log_k=0.9)]
    assert list(panels(early, 12)) == [
        "Loss / ln K",
        "Information of the labels (nats)",
        "Clusters in use, of 12",
        "Learning rate",
    ]


def test_the_grid_is_sorted_by_size_and_frames_strangers() -> None:
    labels = np.array([5] * 3 + [2] * 6)
    classes = np.array([1, 1, 0] + [7] * 6)
    figure = cluster_grid(np.zeros((9, 8, 8), np.float32), classes, labels, np.linspace(0, 1, 9, dtype=np.float32))
    captions = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert captions == ["#2  n=6\n“7” 100%", "#5  n=3\n“1” 67%"]
    frames = [patch for axes in figure.axes for patch in axes.patches]
    assert len(frames) == 9
    strange = [frame for frame in frames if frame.get_linewidth() > 1]
    # The stranger is the likeliest of label 5, so the first of the second row.
    assert [frame.get_xy() for frame in strange] == [(0.5, 10.5)]


def test_an_empty_cluster_has_no_bar_height() -> None:
    axes = marginal_bars(np.array([0.0, 0.75, 0.25])).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [75, 25, 0]
