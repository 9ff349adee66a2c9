"""The loop that trains on images of any sizes, on a model small enough to check by hand."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

from infoassign_training.dense.challenge import Target, View
from infoassign_training.dense.loop import CHECKPOINT, LOG, refresh, train
from infoassign_training.dense.settings import Schedule
from infoassign_training.engine import checkpoint
from infoassign_training.engine.pretrain import StoppedError, TrainingError
from infoassign_training.engine.ranks import Place

PLAN = Schedule(iterations=6, batch_size=4, rated_for=4, learning_rate=0.1, warmup=0, drops=(4,))


class Numbers:
    """Images of one colour, which is what there is to learn."""

    def __getitem__(self, place: int) -> View:
        value = int(np.random.default_rng(place).integers(256))
        return torch.full((3, 2 + place % 3, 4), value, dtype=torch.uint8), {"value": torch.tensor(value / 255)}


class Line(nn.Module):
    """A line through the mean colour; the loss is a mean over images."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1).double()

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        means = torch.stack([image.double().mean(dim=(1, 2)) / 255 for image in images])
        wanted = torch.stack([target["value"] for target in targets]).double()
        return {"loss_square": ((self.line(means)[:, 0] - wanted) ** 2).mean()}


def line() -> Line:
    torch.manual_seed(0)
    return Line()


def test_a_step_is_gradient_descent(tmp_path: Path) -> None:
    """Against the same by hand, in NumPy: momentum, decay, a rate that drops."""
    model = line()
    weights = np.concatenate([value.detach().numpy().ravel() for value in model.parameters()])
    velocity = np.zeros(4)
    for step in range(PLAN.iterations):
        colours = np.array([float(Numbers()[step * 4 + row][1]["value"]) for row in range(4)])
        inputs = np.column_stack([colours, colours, colours, np.ones(4)])
        gradient = inputs.T @ (2 / 4 * (inputs @ weights - colours)) + PLAN.weight_decay * weights
        velocity = PLAN.momentum * velocity + gradient
        weights = weights - (0.1 if step < 4 else 0.01) * velocity
    train(model, Numbers(), PLAN, 0, tmp_path, Place(), quiet=True)
    found = np.concatenate([value.detach().numpy().ravel() for value in model.parameters()])
    assert found == pytest.approx(weights, abs=1e-7)


def test_images_one_after_the_other_or_all_at_once(tmp_path: Path) -> None:
    whole, parts = line(), line()
    for name, model, at_once in (("whole", whole, 0), ("parts", parts, 3)):
        train(model, Numbers(), replace(PLAN, at_once=at_once), 0, tmp_path / name, Place(), quiet=True)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def test_it_goes_on_where_it_stopped_and_the_log_has_every_step_once(tmp_path: Path) -> None:
    whole, half, rest = line(), line(), line()
    plan = replace(PLAN, iterations=40)
    train(whole, Numbers(), plan, 0, tmp_path / "whole", Place(), quiet=True)
    train(half, Numbers(), replace(plan, iterations=20), 0, tmp_path / "parts", Place(), quiet=True)
    log = tmp_path / "parts" / LOG
    log.write_text(log.read_text() + json.dumps({"step": 40, "loss": 7}) + '\n{"step": 20, "lo')  # of a killed process
    train(rest, Numbers(), plan, 0, tmp_path / "parts", Place(), quiet=True)
    assert torch.equal(whole.line.weight, rest.line.weight)
    assert log.read_text() == (tmp_path / "whole" / LOG).read_text()


class Asking(Numbers):
    """The system asks to stop while an image is read."""

    def __getitem__(self, place: int) -> View:
        if place == 9:
            signal.raise_signal(signal.SIGTERM)
        return super().__getitem__(place)


def test_a_checkpoint_is_not_replaced_by_one_of_no_use(tmp_path: Path) -> None:
    train(line(), Numbers(), replace(PLAN, iterations=1), 0, tmp_path, Place(), quiet=True)
    kept = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match="no longer finite after step 3"):
        train(line(), Asking(), replace(PLAN, learning_rate=1e200), 0, tmp_path, Place(), quiet=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == kept


def test_it_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="stopped after step 3 of 6"):
        train(line(), Asking(), PLAN, 0, tmp_path, Place(), quiet=True)
    state = checkpoint.load(tmp_path / CHECKPOINT)
    assert state is not None
    assert state.step == 3


class Normal(Line):
    """With statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        shown = [self.norm(image[None].float())[0] for image in images]
        return {"loss": super().forward(shown, targets)["loss_square"]}


def test_statistics_are_taken_anew_or_stay(tmp_path: Path) -> None:
    model = Normal()
    before = model.norm.running_mean.clone() + 3
    model.norm.running_mean += 3
    assert list(refresh(model, Numbers(), PLAN, 0, Place())) == []
    assert torch.equal(model.norm.running_mean, before)
    assert list(refresh(model, Numbers(), replace(PLAN, refreshed=2), 0, Place())) == [1, 2]
    first = PLAN.iterations * PLAN.batch_size
    colours = [float(Numbers()[first + row][0].float().mean()) for row in range(8)]
    assert model.norm.running_mean.numpy() == pytest.approx(np.full(3, np.mean(colours)), rel=1e-5)
    assert model.norm.momentum == 0.1


def of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for at_once in (0, 1):
        model = line()
        train(model, Numbers(), replace(PLAN, at_once=at_once), 0, Path(folder) / str(at_once), Place(rank, 2, rank))
        if rank == 0:
            torch.save(model.state_dict(), Path(folder) / f"{at_once}.pt")
    dist.destroy_process_group()


@pytest.mark.deep
def test_two_processes_and_parts_of_a_step_are_one_and_the_whole(tmp_path: Path) -> None:
    multiprocessing.spawn(of_two, (str(tmp_path),), nprocs=2)
    model = line()
    train(model, Numbers(), PLAN, 0, tmp_path / "one", Place(), quiet=True)
    for at_once in (0, 1):
        found = torch.load(tmp_path / f"{at_once}.pt")
        assert all(torch.allclose(found[name], value, rtol=0, atol=1e-12) for name, value in model.state_dict().items())


SCRIPT = """
import sys, time
from dataclasses import replace
from pathlib import Path
from test_dense_loop import PLAN, Numbers, line
from infoassign_training.dense.loop import train
from infoassign_training.engine.pretrain import StoppedError
from infoassign_training.engine.ranks import Place

class Slow(Numbers):
    def __getitem__(self, place):
        time.sleep(0.02)
        return super().__getitem__(place)

try:
    train(line(), Slow(), replace(PLAN, iterations=10_000), 0, Path(sys.argv[1]), Place(), workers=2, quiet=True)
except StoppedError as error:
    print(error)
"""


@pytest.mark.deep
def test_workers_are_not_ended_by_what_asks_the_group_to_stop(tmp_path: Path) -> None:
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": here},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / LOG).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    assert "it goes on with --resume" in said, errors
    assert checkpoint.load(tmp_path / CHECKPOINT) is not None
