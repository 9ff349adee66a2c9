"""The command line as a newcomer meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import infoassign
from infoassign_training import __main__, pipeline
from infoassign_training.cli import run
from infoassign_training.config import Pretraining
from infoassign_training.recipes import RECIPES

SMALL = ["--epochs", "1", "--encoder.widths", "4", "8", "--encoder.features", "8", "--method.prototypes", "12"]


def outcome(*command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command line of this interpreter; torchrun leaves its temporary files in the folder."""
    environment = os.environ | {"TMPDIR": str(folder)}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def test_pretrain_trains_evaluates_and_says_where_the_report_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "first"
    assert run(["pretrain", "digits-mira", "--out", str(out), *SMALL]) == 0
    printed = capsys.readouterr()
    assert f"Report: {out / 'report.html'}" in printed.out
    assert "knn" in printed.out
    assert "pixels" in printed.out
    assert "Bottleneck: " in printed.out
    for shown in ("train", "loss=", "loss/lnK=", "MI=", "clusters="):
        assert shown in printed.err
    saved = json.loads((out / "settings.json").read_text())
    assert saved["settings"]["epochs"] == 1
    assert (out / "report.html").exists()
    # The same once more: refused, and nothing touched.
    before = (out / "report.html").stat().st_mtime_ns
    assert run(["pretrain", "digits-mira", "--out", str(out), *SMALL]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert (out / "report.html").stat().st_mtime_ns == before


def test_python_m_and_torchrun_are_the_same_program(tmp_path: Path) -> None:
    listed = outcome("-m", "infoassign_training", "recipes", folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "digits-mira" in listed.stdout
    out = tmp_path / "run"
    torchrun = ["-W", "ignore", "-m", "torch.distributed.run", "-m", "infoassign_training"]
    trained = outcome(*torchrun, "pretrain", "digits-mira", "--out", str(out), *SMALL, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert (out / "report.html").exists()


def test_resuming_takes_the_settings_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was said at the start need not be said again, and must not be contradicted."""
    out = str(tmp_path / "run")
    assert run(["pretrain", "digits-mira", "--out", out, *SMALL]) == 0
    assert run(["pretrain", "digits-mira", "--out", out, "--resume"]) == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]["epochs"] == 1
    capsys.readouterr()
    assert run(["pretrain", "digits-mira", "--out", out, "--resume", "--epochs", "7"]) == 1
    assert "started with other settings: epochs was 1, now 7" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--batch-size", "5000"], ["--encoder.widths", "4", "4", "4", "4", "4"]])
def test_what_cannot_be_trained_touches_no_folder(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Least of all the finished run that --overwrite was going to replace."""
    out = tmp_path / "run"
    assert run(["pretrain", "digits-mira", "--out", str(out), *wrong]) == 1
    assert not out.exists()
    assert run(["pretrain", "digits-mira", "--out", str(out), *SMALL]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(["pretrain", "digits-mira", "--out", str(out), "--overwrite", *wrong]) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert capsys.readouterr().err.splitlines()[-1].startswith("infoassign: ")


def test_the_recipe_may_stand_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pretrain", "--out", str(tmp_path / "x"), "--batch-size", "5000", "digits-mira"]) == 1
    assert "batch_size 5000 is larger" in capsys.readouterr().err


def test_a_folder_named_like_a_recipe_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["pretrain", "--out", "digits-mira", "digits-swav", "--batch-size", "5000"]) == 1
    assert capsys.readouterr().err.startswith("digits-swav: 100 epochs, to digits-mira")


def test_nothing_to_measure_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["throughput", "mira-cifar10", "--steps", "0", "--warmup", "0"]) == 1
    assert "steps must be at least 1; got 0" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"infoassign {infoassign.__version__}\n"


def test_recipes_are_listed_found_by_a_part_of_their_name_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes"]) == 0
    everything = capsys.readouterr().out
    assert all(name in everything for name in RECIPES)
    for word in ("1 CPU core", "1 to 2 minutes", "kNN .99"):
        assert word in everything
    assert run(["recipes", "digits-s"]) == 0
    some = capsys.readouterr().out
    assert "digits-sela" in some
    assert "digits-mira" not in some
    assert run(["recipes", "digits-mira"]) == 0
    one = capsys.readouterr().out
    for word in ("hardware", "published", "measured", "infoassign pretrain digits-mira", "method.beta-start"):
        assert word in one
    assert run(["recipes", "digists"]) == 1
    assert "no recipe has 'digists' in its name; did you mean 'digits-" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "nearest"), [("digits-mirra", "digits-mira"), ("mira", "digits-mira"), ("IMSVD", "digits-imsvd")]
)
def test_an_unknown_recipe_names_the_nearest(
    name: str, nearest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", name, "--out", str(tmp_path / "x")]) == 1
    assert f"no recipe is called {name!r}; did you mean '{nearest}" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain"], "RECIPE"),
        (["pretrain", "digits-mira"], "--out"),
        (["pretrain", "digits-mira", "--out", "x", "--epoch", "3"], "--epochs"),
        (["pretrain", "digits-mira", "--out", "x", "--epochs", "many"], "many"),
        (["pretrain", "digits-mira", "--out", "x", "--method.beta-end", "1"], "must be in [0, 1); got 1"),
        (["pretrian", "digits-mira"], "pretrian"),
        (["throughput"], "RECIPE"),
        (["throughput", "digits-mira", "--step", "3"], "--steps"),
        (["estimate", "digits-mira"], "--gpus"),
        ([], "pretrain"),
    ],
)
def test_wrong_words_are_explained_before_anything_is_written(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert message in " ".join((printed.out + printed.err).split())
    assert list(tmp_path.iterdir()) == []


def test_help_teaches_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["pretrain", "digits-mira", "--help"])
    printed = capsys.readouterr().out
    for name in Pretraining().flat():
        kind = name.endswith(".kind") and name != "optimizer.kind"  # the recipe's
        section, _, last = name.rpartition(".")
        shown = f"--{name}" in printed or f"--{section}.no-{last}" in printed  # what is on can be put off
        assert shown != kind
    assert "--data" in printed


def test_report_of_no_run_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "pretrain", interrupted)
    assert run(["pretrain", "digits-mira", "--out", str(tmp_path / "x")]) == 130
    assert "--resume" in capsys.readouterr().err


def test_what_cannot_go_on_is_only_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "report", interrupted)
    assert run(["report", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "infoassign: interrupted\n"


def test_an_unwritable_place_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["pretrain", "digits-mira", "--out", str(tmp_path / "file" / "run"), *SMALL]) == 1
    assert "file/run" in capsys.readouterr().err


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(__main__, "REQUIRED", ("torch", "a_package_that_is_not_there"))
    assert __main__.main() == 1
    assert capsys.readouterr().err == (
        "infoassign: the command line needs a_package_that_is_not_there;"
        " install it with: pip install 'infoassign[training]'\n"
    )


@pytest.mark.parametrize("command", ["pretrain", "throughput", "estimate"])
def test_help_does_not_wait_for_torch(command: str, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom infoassign_training.cli import run\n"
        f"try: run(['{command}', 'digits-mira', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    finished = outcome("-c", script, folder=tmp_path)
    assert finished.stdout.splitlines()[-1] == "False"
