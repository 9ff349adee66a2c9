"""The benchmark beside other libraries runs, as far as it does without them."""

import json
import re
import subprocess
import sys
from pathlib import Path

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


def test_the_table_of_methods_has_medians_and_ranges() -> None:
    digits = pytest.importorskip("digits", reason="training is an extra")
    runs = [
        {
            "recipe": "digits-mira",
            "seed": seed,
            "seconds": 40.0 + seed,
            "used": 60 + seed,
            "labels": 64,
            "features": {"knn": 0.99 + seed / 1000, "linear": 0.99, "kmeans_nmi": 0.95, "kmeans_ari": 0.9},
            "pixels": {"knn": 0.978, "linear": 0.969, "kmeans_nmi": 0.743, "kmeans_ari": 0.649},
        }
        for seed in range(3)
    ]
    lines = digits.table(runs).splitlines()
    assert lines[2] == "| mira | 0.991 (0.990 to 0.992) | 0.990 | 0.950 | 0.900 | 61 of 64 | 41 |"
    assert lines[3].startswith("| raw pixels | 0.978 | 0.969 | 0.743 | 0.649 |")
    assert list(digits.missing(runs, ["digits-mira", "digits-swav"], 4)) == [
        ("digits-swav", 0),
        ("digits-swav", 1),
        ("digits-swav", 2),
        ("digits-mira", 3),
        ("digits-swav", 3),
    ]
