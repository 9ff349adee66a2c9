"""The papers' figures: their numbers, their pictures, and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import infoassign as ia
from infoassign.steps import plain, quasi_newton
from infoassign_training.cli import run
from infoassign_training.figures import convergence
from infoassign_training.figures.convergence import Compared, Convergence
from infoassign_training.figures.saving import save

RANDOM = np.random.default_rng(0)
COSINES = np.tanh(RANDOM.normal(size=(96, 6)))
SHORT = Convergence(batch_size=64, batches=3, updates=30)


@pytest.fixture(scope="module")
def compared() -> Compared:
    """Both methods on a few small batches."""
    return convergence.compare(COSINES, SHORT)


@pytest.mark.parametrize("updates", [1, 4])
def test_paths_are_those_of_the_library(updates: int) -> None:
    def last(epsilon: float, strength: float, step: Any) -> Any:
        return convergence.potentials(COSINES, epsilon, strength, step, updates)[-1]

    fixed: dict[str, Any] = {"tol": 0, "acceleration": None}
    mira = ia.mira(COSINES, beta=0.5, max_sweeps=updates + 1, **fixed)
    assert np.allclose(last(0.5, 0.5, plain), mira.potential, atol=1e-12)
    swav = ia.sinkhorn(COSINES, epsilon=0.1, start="columns", max_sweeps=updates, **fixed)
    assert np.allclose(last(0.1, np.inf, plain), swav.potential, atol=1e-12)
    fast = ia.sinkhorn(COSINES, epsilon=0.1, tol=0, max_sweeps=updates + 1)
    assert np.allclose(last(0.1, np.inf, quasi_newton), fast.potential, atol=1e-12)


def test_errors_start_at_the_softmax_and_vanish(compared: Compared) -> None:
    assert compared.converged == 1
    assert [curve.name for curve in compared.curves] == [
        f"{method}, {kind}" for method in ("MIRA", "Sinkhorn") for kind in ("plain", "accelerated")
    ]
    for curve in compared.curves:
        assert len(curve.sse) == SHORT.updates + 1
        assert curve.sse[0] > 1e3 * curve.sse[-1]
    for slow, fast in (compared.curves[:2], compared.curves[2:]):
        assert slow.sse[0] == fast.sse[0]
        assert fast.sse[-1] < 1e-18
    # The modulus of eq. 7 is beta or better.
    rate = compared.curves[0].rate
    assert rate is not None
    assert rate <= SHORT.beta


def test_one_batch_of_all_rows_is_the_difference_to_the_solution() -> None:
    whole = Convergence(batch_size=96, batches=1, updates=30, beta=0.8, temperature=0.3)
    found = convergence.compare(COSINES, whole).curves[0]
    exact = ia.mira(COSINES, beta=0.8, temperature=0.3, tol=1e-12).plan
    third = ia.mira(COSINES, beta=0.8, temperature=0.3, tol=0, max_sweeps=4, acceleration=None).plan
    assert found.sse[3] == pytest.approx(((third - exact) ** 2).sum(), rel=1e-6)
    assert found.total_variation[3] == pytest.approx(np.abs(third - exact).sum() / 192, rel=1e-6)
    assert found.changed[3] == np.mean(third.argmax(axis=1) != exact.argmax(axis=1))


def test_who_is_faster_is_said(compared: Compared) -> None:
    said = json.loads(json.dumps(compared.to_dict()))
    assert said["mira_converges_faster"] is compared.faster is True
    assert said["curves"][0]["after"].keys() == {"1", "3", "10", "30"}
    assert said["curves"][0]["updates_to_sse"]["1e-06"] < 30


def test_few_rows_and_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least batch_size = 512 rows"):
        convergence.compare(COSINES, Convergence())
    with pytest.raises(ValueError, match=r"beta must be in \(0, 1\)"):
        Convergence(beta=1.0)


def test_pictures_have_labelled_axes(compared: Compared) -> None:
    for axes in convergence.draw(compared).axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert len(axes.lines) == 4


def test_the_same_figure_gives_the_same_bytes(compared: Compared, tmp_path: Path) -> None:
    first, second = (save(tmp_path / name, "same", convergence.draw(compared), {}) for name in "ab")
    assert [path.name for path in first] == ["same.png", "same.svg", "same.json"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_scores_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "scores.npy", tmp_path / "drawn"
    np.save(file, COSINES)
    words = ["figures", "convergence", "--scores", str(file), "--batch-size", "64", "--batches", "2"]
    assert run(words) == 1
    assert "say with --out" in capsys.readouterr().err
    assert run([*words, "--out", str(out), "--epsilon", "0.1"]) == 0
    assert {path.name for path in out.iterdir()} == {f"convergence.{ending}" for ending in ("png", "svg", "json")}
    assert json.loads((out / "convergence.json").read_text())["settings"]["epsilon"] == 0.1
    assert str(out / "convergence.svg") in capsys.readouterr().out


def test_wrong_words_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["figures"]) == 0
    assert "convergence" in capsys.readouterr().out
    for words, said in (
        (["convergance"], "did you mean 'convergence'?"),
        (["convergence"], "--run RUN, or for convergence --scores FILE.npy"),
        (["convergence", "--run", str(tmp_path)], "holds no run"),
    ):
        assert run(["figures", *words]) == 1
        assert said in capsys.readouterr().err
