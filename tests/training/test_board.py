"""The log for TensorBoard: what its own reader finds."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import digit_runs
import pytest

from infoassign_training import pipeline
from infoassign_training.cli import run as command
from infoassign_training.config import Pretraining
from infoassign_training.engine.run import Run, open_run


def events(run: Run) -> dict[str, dict[int, float]]:
    """Return every curve, by epoch, and make sure that no epoch is there twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run.tensorboard))
    found.Reload()
    curves = {name: found.Scalars(name) for name in found.Tags()["scalars"]}
    assert all(len({event.step for event in curve}) == len(curve) for curve in curves.values())
    return {name: {event.step: event.value for event in curve} for name, curve in curves.items()}


def expected(run: Run) -> dict[str, dict[int, Any]]:
    curves: dict[str, dict[int, Any]] = {}
    for record in run.records():
        for name in record.keys() - {"epoch"}:
            curves.setdefault(name, {})[record["epoch"]] = pytest.approx(record[name], rel=1e-6)
    return curves


def test_every_number_of_the_log_is_a_curve(tmp_path: Path, small: Pretraining) -> None:
    pytest.importorskip("tensorboard")
    pipeline.pretrain("small", replace(small, knn_every=2), tmp_path, tensorboard=True)
    found = events(Run(tmp_path))
    assert found == expected(Run(tmp_path))
    assert found["knn"].keys() == {2}
    assert found["loss"].keys() == {1, 2}


def test_a_resumed_run_has_every_epoch_once_and_overwrite_deletes(tmp_path: Path, small: Pretraining) -> None:
    """Also those from before the option was given; and what else lies in the folder stays."""
    pytest.importorskip("tensorboard")
    images = digit_runs.some(300)
    with open_run(tmp_path, "small", small) as run:
        digit_runs.train(small, images, run)
    for epochs in (3, 4):
        digit_runs.train(replace(small, epochs=epochs), images, run, tensorboard=True)
        found = events(run)
        assert found["loss"].keys() == set(range(1, epochs + 1))
        assert found == expected(run)
    (run.tensorboard / "mine.txt").write_text("mine")
    with open_run(tmp_path, "small", small, overwrite=True):
        assert [path.name for path in run.tensorboard.iterdir()] == ["mine.txt"]
    (run.tensorboard / "mine.txt").unlink()
    with open_run(tmp_path, "small", small, overwrite=True):
        assert not run.tensorboard.exists()


def test_without_the_package_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    out = tmp_path / "run"
    assert command(["pretrain", "digits-mira", "--out", str(out), "--epochs", "1", "--tensorboard"]) == 1
    assert "`pip install tensorboard`" in capsys.readouterr().err
    assert not out.exists()
