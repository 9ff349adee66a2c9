"""The benchmark beside other libraries runs, as far as it does without them."""

import json
import re
import subprocess
import sys
from pathlib import Path

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
