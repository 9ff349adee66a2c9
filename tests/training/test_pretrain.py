"""The training loop: what it learns from, what it keeps, how it stops."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from infoassign_training.config import Mira, Optimizer, Pretraining
from infoassign_training.data.digits import digits
from infoassign_training.engine import checkpoint
from infoassign_training.engine.pretrain import TrainingError, build, plateau_alarm, train
from infoassign_training.engine.run import Run, open_run


def new_run(folder: Path, settings: Pretraining) -> Run:
    return open_run(folder, "small", settings, resume=False, overwrite=False)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return digits()[0].images[:300]


def without_seconds(run: Run) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in run.records()]


def test_every_epoch_leaves_a_line_and_a_checkpoint(tmp_path: Path, small: Pretraining, images: torch.Tensor) -> None:
    run = new_run(tmp_path, small)
    method = train(small, images, run)
    assert not method.training
    records = run.records()
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["step"] for record in records] == [2, 4]  # 300 images, batches of 128
    for record in records:
        assert record["loss_over_log_k"] == pytest.approx(record["loss"] / torch.log(torch.tensor(12.0)).item())
        assert 0 <= record["mutual_information"] <= torch.log(torch.tensor(12.0)).item()
        assert 1 <= record["clusters_used"] <= 12
        assert record["solver_error_bound"] <= small.mira.tolerance
        assert record["solver_converged"] == 1
    state = checkpoint.load(run.checkpoint)
    assert state is not None
    assert state.epochs == 2


def test_training_lowers_the_loss(tmp_path: Path, small: Pretraining) -> None:
    settings = replace(small, epochs=8, mira=Mira(prototypes=12, beta_start=0.9, beta_end=0.9))
    run = new_run(tmp_path, settings)
    train(settings, digits()[0].images, run)
    losses = [record["loss"] for record in run.records()]
    assert losses[-1] < 0.8 * losses[0]


def test_prototypes_are_frozen_at_first_and_learn_afterwards(
    tmp_path: Path, small: Pretraining, images: torch.Tensor
) -> None:
    initial = build(small, 8).prototypes.weight
    settings = replace(small, epochs=1)
    frozen = train(settings, images, new_run(tmp_path / "frozen", settings))
    settings = replace(settings, mira=replace(small.mira, freeze_prototypes_epochs=0))
    free = train(settings, images, new_run(tmp_path / "free", settings))
    assert torch.equal(frozen.prototypes.weight, initial)
    assert not torch.equal(free.prototypes.weight, initial)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, small: Pretraining, images: torch.Tensor) -> None:
    settings = replace(small, epochs=1)
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        seeded = replace(settings, seed=seed)
        weights.append(train(seeded, images, new_run(tmp_path / name, seeded)).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_killed_and_resumed_ends_like_one_that_was_not(
    tmp_path: Path, small: Pretraining, images: torch.Tensor
) -> None:
    """SIGKILL in the middle of the third epoch, after its predecessors' checkpoints; then to the bit."""
    settings = replace(small, epochs=4)
    whole_run = new_run(tmp_path / "whole", settings)
    whole = train(settings, images, whole_run)
    run = new_run(tmp_path / "killed", settings)
    script = (
        "import os, sys, json, torch, pathlib\n"
        "torch.set_num_threads(1)\n"
        "from infoassign_training.config import Pretraining\n"
        "from infoassign_training.data.digits import digits\n"
        "from infoassign_training.engine import pretrain\n"
        "from infoassign_training.engine.run import Run\n"
        "step = pretrain._finite_step\n"
        "def fatal(method, views, beta, epoch, index):\n"
        "    if index == 5: os.kill(os.getpid(), 9)\n"
        "    return step(method, views, beta, epoch, index)\n"
        "pretrain._finite_step = fatal\n"
        "run = Run(pathlib.Path(sys.argv[1]))\n"
        "pretrain.train(run.read().settings, digits()[0].images[:300], run)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(run.folder)], check=False, capture_output=True)
    assert killed.returncode == -9
    assert [record["epoch"] for record in run.records()] == [1, 2]
    # What a kill between the line and the checkpoint of the third epoch would leave.
    with run.log.open("a") as log:
        log.write(json.dumps({"epoch": 3, "loss": 0.0}) + "\n")
    resumed = train(settings, images, run)
    expected, found = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert without_seconds(run) == without_seconds(whole_run)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, small: Pretraining, images: torch.Tensor) -> None:
    run = new_run(tmp_path, small)
    train(small, images, run)
    before = run.checkpoint.read_bytes(), run.log.read_bytes()
    train(small, images, run)
    assert (run.checkpoint.read_bytes(), run.log.read_bytes()) == before


def test_divergence_stops_with_the_last_checkpoint_kept(
    tmp_path: Path, small: Pretraining, images: torch.Tensor
) -> None:
    run = new_run(tmp_path, small)
    train(small, images, run)
    kept = run.checkpoint.read_bytes()
    longer = replace(small, epochs=9, optimizer=Optimizer(learning_rate=1e30, warmup=0))
    with pytest.raises(
        TrainingError, match=r"in epoch 3, step \d+.*epoch before is kept.*Lower optimizer.learning_rate"
    ):
        train(longer, images, run)
    assert run.checkpoint.read_bytes() == kept


def test_a_batch_larger_than_the_data_is_an_error(tmp_path: Path, small: Pretraining, images: torch.Tensor) -> None:
    settings = replace(small, batch_size=301)
    with pytest.raises(TrainingError, match="batch_size 301 is larger than the 300 training images"):
        train(settings, images, new_run(tmp_path, settings))


def test_several_processes_are_refused(
    tmp_path: Path, small: Pretraining, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="--nproc-per-node 1"):
        train(small, images, new_run(tmp_path, small))


def test_the_plateau_sets_off_an_alarm_with_the_sharpness_in_it(small: Pretraining) -> None:
    stuck = plateau_alarm({"epoch": 30, "loss_over_log_k": 0.999}, small)
    assert stuck is not None
    assert "1.3 times as sharp" in stuck
    assert plateau_alarm({"epoch": 30, "loss_over_log_k": 0.9}, small) is None


def test_training_that_does_not_leave_the_plateau_warns(
    tmp_path: Path, small: Pretraining, images: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    """Targets softer than the student cannot pull it away from the uniform prediction."""
    soft = replace(small, epochs=10, mira=Mira(prototypes=12, beta_start=0.1, beta_end=0.1))
    train(soft, images, new_run(tmp_path, soft))
    assert "warning: after 3 epochs the loss is still ln K" in capsys.readouterr().err
