"""The benchmark beside other libraries runs, as far as it does without them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "benchmarks" / "peers.py"


def test_measures_and_writes_what_the_documentation_shows(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--small", "--only", "infoassign", "--rounds", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "measured" / "peers.json").read_text())
    assert set(found["problems"]) == {"mira-256", "mira-64", "swav", "swav-3"}
    for problem in found["problems"].values():
        for line in problem["lines"]:
            # The reference works in single precision, and says that it does not reach everything.
            assert line["reached"] or "reference" in line["name"], line
            assert all(seconds > 0 for seconds in line["seconds"])
    assert (tmp_path / "measured" / "peers.md").read_text() in done.stdout
    assert (tmp_path / "images" / "peers.png").stat().st_size > 10_000


def test_its_environment_has_the_versions_that_the_project_is_tested_with() -> None:
    pins = re.compile(r'"([a-z-]+)==([^"]+)"')
    ours = dict(pins.findall((ROOT / "pyproject.toml").read_text()))
    script = dict(pins.findall(SCRIPT.read_text()))
    shared = set(ours) & set(script)
    assert {"numpy", "torch", "numba"} <= shared
    assert {name: script[name] for name in shared} == {name: ours[name] for name in shared}


def result(seed: int, **found: object) -> dict[str, object]:
    """What a run of MIRA's recipe leaves."""
    return {"recipe": "digits-mira", "changes": {}, "images": "full", "seed": seed, **found}


def test_the_table_of_methods_has_medians_and_ranges() -> None:
    digits = pytest.importorskip("digits", reason="training is an extra")
    studies = digits.STUDIES
    runs = [
        result(
            seed,
            seconds=40.0 + seed,
            used=60 + seed,
            labels=64,
            scores={"knn": 0.99 + seed / 1000, "linear": 0.99, "kmeans_nmi": 0.95, "kmeans_ari": 0.9},
        )
        for seed in range(3)
    ]
    raw = {"knn": 0.978, "linear": 0.969, "kmeans_nmi": 0.743, "kmeans_ari": 0.649}
    lines = digits.table(studies["methods"], runs, raw, 3, None).splitlines()
    assert lines[2] == "| mira | 0.991 (0.990 to 0.992) | 0.990 | 0.950 | 0.900 | 61 of 64 | 41 |"
    assert lines[3] == "| raw pixels | 0.978 | 0.969 | 0.743 | 0.649 |  |  |"
    # One that failed is no run, and is not made again.
    runs[2] = result(2, failed="training diverged")
    assert "| mira (2 of 3 runs) | 0.990 (0.990 to 0.991) |" in digits.table(studies["methods"], runs, raw, 3, None)
    todo = list(digits.missing(runs, [row for study in studies.values() for row in study.rows], 4, None))
    assert [each["seed"] for each in todo if each["recipe"] == "digits-mira" and not each["changes"]] == [3]
    # A run that is in several tables is made once.
    assert len({digits.key(each) for each in todo}) == len(todo)


def test_the_table_of_clusterings_has_medians_and_ranges() -> None:
    clustering = pytest.importorskip("clustering", reason="training is an extra")
    runs = [{"seed": seed, "nmi": 0.9 + seed / 100, "ari": 0.8, "seconds": 1.0 + seed} for seed in range(3)]
    found = [{"features": "pixels", "classes": "balanced", "method": "mira", "runs": runs}]
    lines = clustering.table(found, "Here.").splitlines()
    assert lines[0] == "Here."
    assert lines[4] == "| pixels | balanced | mira | 0.910 (0.900 to 0.920) | 0.800 (0.800 to 0.800) | 2.00 |"
    kept = json.loads((ROOT / "docs" / "measured" / "clustering.json").read_text())
    shown = (ROOT / "docs" / "measured" / "clustering.md").read_text()
    assert clustering.table(kept["lines"], kept["about"]) == shown
    # A tail holds no row twice, and of the rarest class a tenth of the commonest.
    classes = np.repeat(np.arange(10), 100)
    rows = clustering.tail(classes, 0)
    assert len(set(rows.tolist())) == len(rows)
    assert sorted(np.bincount(classes[rows]))[::9] == [10, 100]


def test_every_run_of_the_studies_has_settings_that_can_be_made() -> None:
    digits = pytest.importorskip("digits", reason="training is an extra")
    rows = [row for study in digits.STUDIES.values() for row in study.rows]
    made = [digits.changed(row.recipe, row.changes, 1) for row in rows]
    assert len({(row.images, str(settings)) for row, settings in zip(rows, made, strict=True)}) == len(
        {digits.key(digits.of(row, 1, None)) for row in rows}
    )
    assert {(settings.batch_size, settings.method.kind) for settings in made} >= {(16, "mira"), (256, "swav")}
    # No row changes a setting to what it is: it would not be known for the recipe's own run.
    for row in rows:
        for name in row.changes:
            assert digits.changed(row.recipe, {name: row.changes[name]}, 0) != digits.changed(row.recipe, {}, 0)


def test_recipes_say_what_was_measured() -> None:
    digits = pytest.importorskip("digits", reason="training is an extra")
    kept = json.loads((ROOT / "docs" / "measured" / "digits.json").read_text())
    known = {digits.key(run): run["scores"] for run in kept["runs"] if "scores" in run}
    for row in digits.STUDIES["methods"].rows:
        runs = [known[digits.key(digits.of(row, seed, None))] for seed in range(3)]
        medians = [f"{median(scores[name] for scores in runs):.3f}".removeprefix("0") for name in digits.SCORES]
        said = re.findall(r"\.\d{3}", digits.RECIPES[row.recipe].measured)
        raw = [f"{kept['pixels'][name]:.3f}".removeprefix("0") for name in digits.SCORES]
        assert said == medians + raw, row.recipe


@pytest.mark.deep
def test_the_digits_are_trained_on_evaluated_and_gone_on_with(tmp_path: Path) -> None:
    pytest.importorskip("infoassign_training.recipes", reason="training is an extra")
    pytest.importorskip("sklearn", reason="training is an extra")
    script = ROOT / "tests" / "benchmarks" / "digits.py"
    command = [sys.executable, str(script), "--seeds", "1", "--epochs", "1", "--out", str(tmp_path)]
    command += ["--only", "imbalance", "--rows", "heavy: deepcluster"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "digits.json").read_text())
    (made,) = found["runs"]
    assert (made["recipe"], made["images"], made["seed"]) == ("digits-deepcluster", "heavy", 0)
    assert 0.1 < made["scores"]["knn"] <= 1
    assert 1 <= made["used"] <= made["labels"] == 64
    written = (tmp_path / "digits-imbalance.md").read_text()
    assert f"| {made['scores']['knn']:.3f} | {made['scores']['linear']:.3f} |" in written
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "digits.json").read_text()) == found
