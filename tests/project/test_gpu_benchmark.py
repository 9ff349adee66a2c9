"""The benchmark for GPUs runs where there is none, as far as it can, so that it does not fail where there is one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crashing_parts
import gpu
import gpu_parts
import gpu_report
import numpy as np
import pytest
import torch

import infoassign as ia

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "benchmarks" / "gpu.py"
CPU = torch.device("cpu")


def run(*arguments: str, hidden: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script as from a bare checkout: by the path alone, without what is installed for the project."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "backends", "training")),
    }
    environment["CUDA_VISIBLE_DEVICES"] = ""
    code = f"""
import sys, runpy
for name in {hidden.split()!r}:
    sys.modules[name] = None
sys.argv = {["gpu.py", *arguments]!r}
sys.path.insert(0, {str(SCRIPT.parent)!r})
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
    command = [sys.executable, "-c", code] if hidden else [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


def test_help_needs_nothing_but_python() -> None:
    done = run("--help", hidden="torch numpy scipy array_api_compat infoassign")
    assert done.returncode == 0, done.stderr
    assert "PYTHONPATH=.:backends:training python tests/benchmarks/gpu.py" in done.stdout


def test_without_a_device_it_says_so_and_writes_nothing() -> None:
    before = sorted((ROOT / "docs" / "measured").iterdir())
    done = run()
    assert done.returncode == 2
    assert "nothing is measured, and nothing is written" in done.stderr
    assert not done.stdout
    assert sorted((ROOT / "docs" / "measured").iterdir()) == before


def test_it_says_what_to_do_without_the_one_dependency(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "array_api_compat" else name)
    assert gpu.main([]) == 2
    said = capsys.readouterr().err
    assert "pip download --no-deps array-api-compat" in said
    assert "torch cannot" not in said


def test_options(tmp_path: Path, capsys: Any) -> None:
    assert gpu.options_from([]).out == ROOT / "docs" / "measured"
    assert gpu.options_from(["--only", "mira"]).out is None
    assert gpu.options_from(["--quick", "--out", str(tmp_path)]).dry == "small sizes"
    for wrong in (["--device", "cpu"], ["--quick", "--out", str(ROOT / "docs" / "measured")], ["--only", "nothing"]):
        with pytest.raises(SystemExit):
            gpu.options_from(wrong)
    assert "does not belong into the documentation" in capsys.readouterr().err


@pytest.mark.deep
def test_a_dry_run_walks_through_all_of_it(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["parts"]) == list(gpu.PARTS)
    assert found["dry run"] == "on a CPU"
    for part in found["parts"].values():
        assert part["lines"], part
        assert not part["errors"]
        assert not part["said"]
        assert all(seconds > 0 for line in part["lines"] for seconds in line["seconds"])
    errors = {line["what"]: line["error"] for line in found["parts"]["mira"]["lines"]}
    assert max(errors.values()) < 1e-5
    for line in found["parts"]["swav"]["lines"]:
        assert line["error"] < 1e-6
    for line in found["parts"]["sela"]["lines"]:
        assert line["error"] <= line["certified error"] <= 1e-3
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("**Dry run")
    assert "**met**" not in text
    assert text in done.stdout


@pytest.mark.deep
def test_a_dry_run_of_the_shapes(tmp_path: Path) -> None:
    """In Triton's interpreter, some minutes."""
    done = run("--device", "cpu", "--quick", "--tune", "--minutes", "30", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (part,) = json.loads((tmp_path / "gpu.json").read_text())["parts"].values()
    assert {line["what"].partition(",")[0] for line in part["lines"]} == {"whole_rows", "products"}


def test_a_part_that_crashes_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "work", crashing_parts.work)
    monkeypatch.setattr(gpu, "PART_SECONDS", {"hangs": 3.0})
    runs = gpu.Runs("cpu", True, time.monotonic() + 100)
    names = ["good", "breaks", "better", "dies", "fine", "hangs", "last"]
    found = dict(runs.one_after_the_other(names))
    assert list(found) == names
    assert [name for name, part in found.items() if part["errors"]] == ["dies", "hangs"]
    assert found["dies"]["errors"] == ["its process ended with status 3"]
    assert "no answer" in found["hangs"]["errors"][0]
    assert runs._ceilings == dict.fromkeys(["good", "breaks", "better", "fine", "last"], "cpu")


def test_without_time_nothing_begins() -> None:
    found = dict(gpu.Runs("cpu", True, time.monotonic()).one_after_the_other(["mira", "swav"]))
    assert all("no time" in part["errors"][0] for part in found.values())


def test_a_line_that_fails_costs_no_other(capsys: Any) -> None:
    found = gpu_parts.Found(CPU, gpu_parts.QUICK, {})

    def fail() -> None:
        raise RuntimeError("no kernel image")

    assert found.measure("one", fail, size="", dtype="") is None
    assert found.measure("two", lambda: 3, size="", dtype="", error=lambda x: x, notes=lambda x, _: {"x": x}) > 0
    assert [line.get("failed") for line in found.lines] == ["RuntimeError", None]
    assert found.lines[1]["error"] == found.lines[1]["x"] == 3
    assert "no kernel image" in found.errors[0]
    assert "no kernel image" in capsys.readouterr().out


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def half(found: gpu_parts.Found) -> None:
        found.measure("a half", lambda: None, size="", dtype="")
        raise MemoryError("the other half")

    monkeypatch.setitem(gpu_parts.MEASURES, "mira", ("Half", half))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("interrupted")
def test_what_was_found_before_an_error_is_kept() -> None:
    found = gpu_parts.measured("mira", "cpu", True, {})
    assert [line["what"] for line in found["lines"]] == ["a half"]
    assert found["errors"] == ["mira: MemoryError: the other half"]
    assert not found["broken"]
    json.dumps(found)


def test_verdicts() -> None:
    cases = [
        (gpu_report.at_least("", 10.0, 10), "met"),
        (gpu_report.at_least("", 9.9, 10), "missed"),
        (gpu_report.at_most("", 1.5, 1.5), "met"),
        (gpu_report.at_most("", 1.6, 1.5), "missed"),
        (gpu_report.at_most("", None, 1.5), "not measured"),
        (gpu_report.at_most("", float("nan"), 1.5), "not measured"),
    ]
    assert [target.verdict for target, _ in cases] == [verdict for _, verdict in cases]
    assert gpu_report.quotient(1.0, None) is gpu_report.quotient(None, 1.0) is gpu_report.quotient(1.0, 0.0) is None


def test_tables(tmp_path: Path) -> None:
    lines = [{"what": "one", "seconds": [0.001, 0.003, 0.002], "error": 1e-7}, {"what": "a | b", "failed": "Error"}]
    text = gpu_report.table(lines).splitlines()
    assert text[0] == "|  | ms, median (least to most) | error | failed |"
    assert text[2:] == ["| one | 2 (1 to 3) | 1e-07 |  |", "| a / b |  |  | Error |"]
    part = {**gpu.nothing("Part", "it broke"), "lines": lines, "targets": [list(gpu_report.at_least("fast", 12.0, 10))]}
    found = {"dry run": "", "machine": {"card": "none"}, "parts": {"mira": part}}
    gpu_report.write(tmp_path / "new", found)
    text = (tmp_path / "new" / "gpu.md").read_text()
    assert "| fast | at least 10 | 12 | **met** |" in text
    assert "**Error**: it broke" in text
    assert json.loads((tmp_path / "new" / "gpu.json").read_text()) == json.loads(json.dumps(found))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["gpu.json", "gpu.md"]


def test_the_transcriptions_are_right() -> None:
    found = gpu_parts.Found(CPU, gpu_parts.QUICK, {})
    scores = gpu_parts.scores_of(found, 64, torch.float32)
    assert float(scores.abs().max()) <= 1 + 1e-6
    np.testing.assert_allclose(gpu_parts.swav_listing(scores), ia.sinkhorn(scores, **gpu_parts.SWAV).plan, atol=1e-6)
    plan = gpu_parts.eq7(scores.double(), gpu_parts.UPDATES)
    assert gpu_parts.total_variation(gpu_parts.solved(scores.double(), **gpu_parts.FIXED).plan, plan) < 1e-12
    assert gpu_parts.total_variation(plan, gpu_parts.exactly(scores, CPU)) < 1e-5
    potential = torch.randn(scores.shape[1], dtype=torch.float64)
    masses = ia.assign(scores, epsilon=0.1, start=potential, tol=0, max_sweeps=1).marginal * 64
    # A start is shifted by a constant, which masses do not know of.
    expected = gpu_parts.log_masses(lambda some: scores[some], 64, potential, 0.1).exp()
    torch.testing.assert_close(masses, expected, atol=1e-6, rtol=1e-6)


def test_the_listing_of_joint_entropies_is_right() -> None:
    z = torch.randn(2, 9, 240, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q1, q2 = (view.view(9, -1, 80).softmax(dim=2).flatten(1) for view in z)
    owner = gpu_parts.segments_of(240, CPU)
    apart = (owner[:, None] != owner).double()
    value, slope = gpu_parts.off_diagonal_exactly(q1, q2)
    for loss in (lambda a, b: gpu_parts.off_diagonal_listing(a, b, apart), gpu_parts.off_diagonal):
        found = gpu_parts.with_gradients(loss, q1, q2)
        torch.testing.assert_close(found[0], value)
        torch.testing.assert_close(found[1], slope)
    ours = gpu_parts.with_gradients(lambda a, b: ia.imsvd_loss(a, b, units=80), *z)
    for one, other in zip(ours, gpu_parts.with_gradients(gpu_parts.products, *z), strict=True):
        torch.testing.assert_close(one, other)
