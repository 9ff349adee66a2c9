"""When a run folder may be written, and that nothing is lost otherwise."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infoassign_training.config import Pretraining
from infoassign_training.engine.run import LOCK, Run, RunError, open_run
from infoassign_training.methods.settings import Mira


def opened(folder: Path, settings: Pretraining, **how: bool) -> Run:
    """Open a run and leave it at once."""
    with open_run(folder, "small", settings, **how) as run:
        return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


def test_a_new_folder_is_made_and_says_what_runs(tmp_path: Path, small: Pretraining) -> None:
    run = opened(tmp_path / "deep" / "run", small)
    started = run.read()
    assert (started.recipe, started.settings) == ("small", small)
    assert {"infoassign", "torch", "python"} <= started.versions.keys()


def test_a_run_is_neither_overwritten_nor_resumed_unasked(tmp_path: Path, small: Pretraining) -> None:
    opened(tmp_path, small)
    before = contents(tmp_path)
    with pytest.raises(RunError, match="already holds a run; continue it with --resume, or delete it with --overwrite"):
        opened(tmp_path, small)
    assert contents(tmp_path) == before


def test_overwrite_deletes_what_a_run_writes_and_nothing_else(tmp_path: Path, small: Pretraining) -> None:
    run = opened(tmp_path, small)
    for path in (run.checkpoint, run.log, run.metrics, run.report, run.figure("curves")):
        path.write_text("old")
    for name in ("notes.txt", "my-figure.png"):
        (tmp_path / name).write_text("mine")
    opened(tmp_path, small, overwrite=True)
    assert contents(tmp_path).keys() == {"settings.json", "notes.txt", "my-figure.png"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_elses_files_are_left_alone(tmp_path: Path, small: Pretraining, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="holds files that are not a run's"):
        opened(tmp_path, small, overwrite=overwrite)
    assert contents(tmp_path) == {"thesis.tex": b"x"}


def test_a_file_is_not_a_folder(tmp_path: Path, small: Pretraining) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(RunError, match="is a file; --out must name a folder"):
        opened(tmp_path / "out", small)


def test_resume_needs_a_run_with_the_same_settings(tmp_path: Path, small: Pretraining) -> None:
    with pytest.raises(RunError, match="holds no run to resume"):
        opened(tmp_path / "run", small, resume=True)
    assert not (tmp_path / "run").exists()
    opened(tmp_path, small)
    before = contents(tmp_path)
    other = replace(small, epochs=9, method=Mira(prototypes=12, beta_end=0.8))
    with pytest.raises(RunError, match=r"other settings: epochs was 2, now 9; method\.beta-end was 0\.66\d+, now 0\.8"):
        opened(tmp_path, other, resume=True)
    assert opened(tmp_path, small, resume=True).folder == tmp_path
    assert contents(tmp_path) == before


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_two_processes_do_not_work_in_one_folder(tmp_path: Path, small: Pretraining, how: str) -> None:
    """The lock is the system's: it goes when its process is killed."""
    opened(tmp_path, small)
    script = (
        "import sys, time, pathlib\n"
        "from infoassign_training.engine.run import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).locked():\n"
        "    print('locked', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        before = contents(tmp_path)
        with pytest.raises(RunError, match="another process is at work in"):
            opened(tmp_path, small, **{how: True})
        assert contents(tmp_path) == before
        other.kill()
    opened(tmp_path, small, **{how: True})


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path, small: Pretraining) -> None:
    with pytest.raises(RunError, match="exclude each other"):
        opened(tmp_path, small, resume=True, overwrite=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"recipe": "x", "settings": {"epoch": 1}, "versions": {}}'])
def test_damaged_settings_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(RunError, match=r"settings\.json is damaged or from another version"):
        Run(tmp_path).read()


def test_a_cut_off_line_of_the_log_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert [record["epoch"] for record in Run(tmp_path).records()] == [1, 2]


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"epoch": 1}\n\x00\xff garbage\n')
    with pytest.raises(RunError, match=r"log\.jsonl is damaged"):
        Run(tmp_path).records()


def test_hidden_files_do_not_make_a_folder_somebodys(tmp_path: Path, small: Pretraining) -> None:
    (tmp_path / ".DS_Store").write_text("")
    assert opened(tmp_path, small).settings.exists()
