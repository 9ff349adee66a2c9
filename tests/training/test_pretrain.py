"""The training loop: what it learns from, what it keeps, how it stops."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import digit_runs
import pytest
import torch
from digit_runs import built, feed, some

from infoassign_training.config import Optimizer, Pretraining
from infoassign_training.data.digits import LabelledImages, digits
from infoassign_training.engine import checkpoint
from infoassign_training.engine import feed as feeds
from infoassign_training.engine.divergence import DivergenceError, dump
from infoassign_training.engine.feed import DigitFeed, feed_of
from infoassign_training.engine.pretrain import TrainingError
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run, open_run
from infoassign_training.methods.mira import Mira
from infoassign_training.methods.settings import Mira as Settings
from infoassign_training.models.settings import SmallResNet


def train(settings: Pretraining, images: LabelledImages, run: Run) -> Mira:
    """Train from initial weights, or from the run's checkpoint."""
    method = digit_runs.train(settings, images, run)
    assert isinstance(method, Mira)
    return method


def new_run(folder: Path, settings: Pretraining) -> Run:
    with open_run(folder, "small", settings) as run:
        return run


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return some(300)


def without_seconds(run: Run) -> list[dict[str, float]]:
    """Return the log without what differs from run to run."""
    return [
        {key: value for key, value in record.items() if key != "seconds" and not key.startswith("share_")}
        for record in run.records()
    ]


def test_every_epoch_leaves_a_line_and_a_checkpoint(tmp_path: Path, small: Pretraining, images: LabelledImages) -> None:
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
        assert record["solver_error_bound"] <= small.method.tolerance
        assert record["solver_converged"] == 1
        entropies = record["marginal_entropy"] - record["conditional_entropy"]
        assert record["mutual_information"] == pytest.approx(entropies)
        assert 0 <= record["agreement"] <= 1
        assert 1 <= record["feature_rank"] <= 16
        assert 0 < record["output_std"] <= 1
    state = checkpoint.load(run.checkpoint)
    assert state is not None
    assert state.step == 4


def test_training_lowers_the_loss(tmp_path: Path, small: Pretraining) -> None:
    settings = replace(small, epochs=8, method=Settings(prototypes=12, beta_start=0.9, beta_end=0.9))
    run = new_run(tmp_path, settings)
    train(settings, digits()[0], run)
    losses = [record["loss"] for record in run.records()]
    assert losses[-1] < 0.8 * losses[0]


def test_prototypes_are_frozen_at_first_and_learn_afterwards(
    tmp_path: Path, small: Pretraining, images: LabelledImages
) -> None:
    method = built(small, images)
    assert isinstance(method, Mira)
    initial = method.prototypes.weight
    settings = replace(small, epochs=1)
    frozen = train(settings, images, new_run(tmp_path / "frozen", settings))
    settings = replace(settings, method=replace(small.method, freeze_prototypes_epochs=0))
    free = train(settings, images, new_run(tmp_path / "free", settings))
    assert torch.equal(frozen.prototypes.weight, initial)
    assert not torch.equal(free.prototypes.weight, initial)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, small: Pretraining, images: LabelledImages) -> None:
    settings = replace(small, epochs=1)
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        seeded = replace(settings, seed=seed)
        weights.append(train(seeded, images, new_run(tmp_path / name, seeded)).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_killed_and_resumed_ends_like_one_that_was_not(
    tmp_path: Path, small: Pretraining, images: LabelledImages
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
        "import digit_runs\n"
        "from infoassign_training.engine import pretrain\n"
        "from infoassign_training.engine.run import Run\n"
        "step, calls = pretrain.backward, []\n"
        "def fatal(*arguments, **named):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 6: os.kill(os.getpid(), 9)\n"
        "    return step(*arguments, **named)\n"
        "pretrain.backward = fatal\n"
        "run = Run(pathlib.Path(sys.argv[1]))\n"
        "digit_runs.train(run.read().settings, digit_runs.some(300), run)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(run.folder)]
    killed = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert killed.returncode == -9
    assert [record["epoch"] for record in run.records()] == [1, 2]
    # What a kill between the line and the checkpoint of the third epoch would leave.
    with run.log.open("a") as log:
        log.write(json.dumps({"epoch": 3, "loss": 0.0}) + "\n")
    resumed = train(settings, images, run)
    expected, found = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert without_seconds(run) == without_seconds(whole_run)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, small: Pretraining, images: LabelledImages) -> None:
    run = new_run(tmp_path, small)
    train(small, images, run)
    before = run.checkpoint.read_bytes(), run.log.read_bytes()
    train(small, images, run)
    assert (run.checkpoint.read_bytes(), run.log.read_bytes()) == before


def test_the_teacher_follows_the_student(tmp_path: Path, small: Pretraining, images: LabelledImages) -> None:
    initial = built(small, images).get_submodule("teacher").state_dict()
    trained = train(small, images, new_run(tmp_path, small))
    student = torch.nn.Sequential(trained.encoder, trained.projector)
    for name, parameter in trained.teacher.named_parameters():
        assert not torch.equal(parameter, initial[name])
        assert not torch.equal(parameter, student.get_parameter(name))


def test_weight_decay_is_used(tmp_path: Path, small: Pretraining, images: LabelledImages) -> None:
    def norm(decay: float) -> float:
        settings = replace(small, epochs=1, optimizer=Optimizer(weight_decay=decay))
        trained = train(settings, images, new_run(tmp_path / str(decay), settings))
        return float(sum(p.detach().square().sum() for p in trained.encoder.parameters()))

    assert norm(1.0) < 0.8 * norm(0.0)


def test_every_epoch_and_every_view_is_drawn_anew(
    tmp_path: Path, small: Pretraining, images: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = feeds.random_view

    def spy(batch: torch.Tensor, *arguments: Any) -> torch.Tensor:
        view = original(batch, *arguments)
        drawn.append((batch, view))
        return view

    monkeypatch.setattr(feeds, "random_view", spy)
    train(small, images, new_run(tmp_path, small))
    assert len(drawn) == 8  # two epochs of two steps of two views
    for (batch, view), (same_batch, other_view) in zip(drawn[::2], drawn[1::2], strict=True):
        assert torch.equal(batch, same_batch)
        assert not torch.allclose(view, other_view)
    first_epoch, second_epoch = drawn[0][0], drawn[4][0]
    assert not torch.equal(first_epoch, second_epoch)
    seen = torch.cat([drawn[0][0], drawn[2][0]]).flatten(1)
    assert len(torch.unique(seen, dim=0)) == 256  # no image twice in an epoch


def test_divergence_stops_with_the_last_checkpoint_kept(
    tmp_path: Path, small: Pretraining, images: LabelledImages
) -> None:
    run = new_run(tmp_path, small)
    train(small, images, run)
    kept = run.checkpoint.read_bytes()
    longer = replace(small, epochs=9, optimizer=Optimizer(learning_rate=1e30, warmup=0))
    with pytest.raises(TrainingError, match=r"in epoch 3: .*after step 4 is kept.*lower optimizer.learning-rate"):
        train(longer, images, run)
    assert run.checkpoint.read_bytes() == kept


def test_divergence_leaves_the_batch(tmp_path: Path, small: Pretraining, images: LabelledImages) -> None:
    """The very one of the step, readable without running code."""
    run = new_run(tmp_path, small)
    train(small, images, run)
    longer = replace(small, epochs=9, optimizer=Optimizer(learning_rate=1e30, warmup=0))
    with pytest.raises(TrainingError, match=rf"is kept; the batch is in {run.diverged()}\. Start anew"):
        train(longer, images, run)
    dumped = torch.load(run.diverged(), weights_only=True)
    assert dumped.keys() == {"message", "step", "rows", "views"}
    assert "nan" in dumped["message"]
    assert dumped["step"] in (4, 5)
    expected = list(feed(longer, images).epoch(2))[dumped["step"] - 4]
    assert torch.equal(dumped["rows"], expected.rows)
    assert len(dumped["views"]) == 2
    for found, view in zip(dumped["views"], expected.views, strict=True):
        assert torch.equal(found, view)


def test_every_rank_keeps_its_part_of_the_batch_until_the_run_is_overwritten(
    tmp_path: Path, small: Pretraining, images: LabelledImages
) -> None:
    run = new_run(tmp_path, small)
    for rank in range(2):
        parts = DigitFeed(images, small, Place(rank, 2), torch.device("cpu"))
        (batch, *_) = parts.epoch(0)
        error = DivergenceError("the loss became nan", batch, 7)
        assert dump(error, run, Place(rank, 2)) == f"the batch is in {tmp_path / f'diverged-{rank}.pt'}"
        dumped = torch.load(run.diverged(rank), weights_only=True)
        assert (dumped["message"], dumped["step"]) == ("the loss became nan", 7)
        assert torch.equal(dumped["rows"], batch.rows)
    (tmp_path / "diverged-notes.pt").write_text("mine")
    with open_run(tmp_path, "small", small, overwrite=True):
        assert [path.name for path in tmp_path.glob("diverged*")] == ["diverged-notes.pt"]


def test_divergence_is_told_even_if_the_batch_cannot_be_kept(
    tmp_path: Path, small: Pretraining, images: LabelledImages
) -> None:
    run = new_run(tmp_path, small)
    run.diverged().mkdir()
    wild = replace(small, optimizer=Optimizer(learning_rate=1e30, warmup=0))
    with pytest.raises(TrainingError, match=r"diverged in epoch 1: .*the batch could not be written .*diverged\.pt"):
        train(wild, images, run)


def test_divergence_in_the_first_epoch_says_that_nothing_is_kept(
    tmp_path: Path, small: Pretraining, images: LabelledImages
) -> None:
    """In the only step of the epoch, so that no later forward pass could notice."""
    settings = replace(small, epochs=1, batch_size=300, optimizer=Optimizer(learning_rate=1e38, warmup=0))
    run = new_run(tmp_path, settings)
    with pytest.raises(TrainingError, match=r"in epoch 1: its last step left weights .* there is no checkpoint yet"):
        train(settings, images, run)
    assert not run.checkpoint.exists()


def test_what_cannot_be_trained_is_refused(small: Pretraining, images: LabelledImages) -> None:
    with pytest.raises(ValueError, match="batch_size 301 is larger than the 300 images"):
        feed(replace(small, batch_size=301), images)
    with pytest.raises(ValueError, match=r"5 stages of encoder\.widths need"):
        built(replace(small, encoder=SmallResNet(widths=(4,) * 5)), images)
    with pytest.raises(ValueError, match=r"batch_size 100 is that of all 3 .*; take 99 or 102"):
        feed_of(replace(small, batch_size=100), Place(0, 3), torch.device("cpu"))


def test_training_that_learns_nothing_warns(
    tmp_path: Path, small: Pretraining, capsys: pytest.CaptureFixture[str]
) -> None:
    """Targets softer than the student cannot pull it away from labelling all images alike."""
    soft = replace(small, epochs=11, method=Settings(prototypes=64, beta_start=0.1, beta_end=0.1))
    run = new_run(tmp_path, soft)
    train(soft, digits()[0], run)
    printed = capsys.readouterr().err
    assert printed.count("warning: ") == 1
    assert "warning: after 10 epochs the labels carry" in printed


def test_too_many_prototypes_are_told_before_the_first_step(
    tmp_path: Path, small: Pretraining, images: LabelledImages, capsys: pytest.CaptureFixture[str]
) -> None:
    many = replace(small, epochs=1, method=Settings(prototypes=200))
    train(many, images, new_run(tmp_path, many))
    printed = capsys.readouterr().err
    assert "warning: a batch of 128 images cannot fill 200 prototypes" in printed
    assert printed.index("warning") < printed.index("loss=")
