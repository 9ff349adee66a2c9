"""The stopwatch: what is whose time, and what is said about it."""

import time
from pathlib import Path

import digit_runs
import pytest
import torch
from digit_runs import some

from infoassign_training import timing
from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import Dino
from infoassign_training.data.settings import Synthetic
from infoassign_training.engine.feed import feed_of
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import open_run
from infoassign_training.models.settings import ResNet
from infoassign_training.timing import PARTS, Stopwatch, bottleneck, over_epochs, part, running, timed

CPU = torch.device("cpu")


class Clock:
    """A clock that a test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_an_inner_part_is_not_the_outer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watch = Stopwatch(CPU)
    clock.now += 1
    with watch("assignment"):
        clock.now += 2
        with watch("communication"):
            clock.now += 4
        clock.now += 8
    clock.now += 16
    assert watch.seconds() == {"other": 17, "assignment": 10, "communication": 4}
    assert watch.shares()["assignment"] == pytest.approx(10 / 31)
    watch.restart()
    assert watch.shares() == {}


def test_an_error_closes_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watch = Stopwatch(CPU)
    with pytest.raises(RuntimeError), watch("compute"):
        raise RuntimeError
    clock.now += 1
    assert watch.seconds() == {"other": 1, "compute": 0}


def test_parts_reach_the_running_stopwatch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def late() -> "list[int]":
        clock.now += 1
        return [1, 2]

    with part("compute"):
        clock.now += 1
    with running(CPU) as watch:
        items = []
        for item in timed("data", (found for found in late())):
            clock.now += 4
            items.append(item)
        with part("compute"):
            clock.now += 2
    assert items == [1, 2]
    # The list was made where the generator was, before the first item was waited for.
    assert watch.seconds() == {"data": 0, "other": 9, "compute": 2}


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"data": 0.4, "compute": 0.6}, ("data, 40 %", "--workers", "infoassign pack")),
        ({"assignment": 0.2, "compute": 0.8}, ("assignment, 20 %", "solver")),
        ({"augmentation": 0.5, "assignment": 0.2, "compute": 0.3}, ("augmentation, 50 %", "--workers")),
        ({"communication": 0.3, "compute": 0.7}, ("communication, 30 %", "rank")),
        ({"data": 0.2, "assignment": 0.1, "compute": 0.7}, ("compute, 70 %",)),
    ],
)
def test_the_bottleneck_is_named_with_advice(shares: dict[str, float], words: tuple[str, ...]) -> None:
    said = bottleneck(shares)
    assert said.startswith("Bottleneck: ")
    for word in words:
        assert word in said


def test_the_log_has_the_shares(tmp_path: Path, small: Pretraining) -> None:
    with open_run(tmp_path, "small", small) as run:
        digit_runs.train(small, some(300), run)
    for record in run.records():
        shares = {name: record[f"share_{name}"] for name in set(PARTS) - {"communication"}}
        assert sum(shares.values()) == pytest.approx(1)
        assert all(share > 0 for share in shares.values())
        assert shares["compute"] > shares["data"]
    assert sum(over_epochs(run.records()).values()) == pytest.approx(1)


@pytest.mark.parametrize(("workers", "drawn_here"), [(0, True), pytest.param(1, False, marks=pytest.mark.deep)])
def test_workers_views_are_waited_for_and_ones_own_are_drawn(workers: int, drawn_here: bool) -> None:
    views = Dino(global_size=64, local_views=0)
    settings = Pretraining(
        batch_size=16,
        data=Synthetic(count=64, size=96),
        augmentation=views,
        encoder=ResNet(),
        device="cpu",
        workers=workers,
    )
    feed = feed_of(settings, Place(), CPU)
    with running(CPU) as watch:
        for _ in timed(timing.DATA, feed.epoch(0)):
            pass
    shares = watch.shares()
    assert (shares["augmentation"] > shares["data"]) == drawn_here


class Event:
    """A CUDA event on a stream that is behind, as a test says."""

    now, passed = 0.0, 0.0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing
        self.time = 0.0

    def record(self) -> None:
        self.time = Event.now

    def query(self) -> bool:
        return self.time <= Event.passed

    def synchronize(self) -> None:
        Event.passed = max(Event.passed, self.time)

    def elapsed_time(self, later: "Event") -> float:
        assert self.query()
        assert later.query(), "read before the device has passed"
        return 1000 * (later.time - self.time)


@pytest.mark.parametrize("pending", [1, 2, 100])
def test_on_cuda_events_are_read_when_the_device_has_passed(pending: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(timing, "PENDING", pending)
    Event.now = Event.passed = 0.0
    watch = Stopwatch(torch.device("cuda"))
    for _ in range(3):
        with watch("compute"):
            Event.now += 2
            with watch("communication"):
                Event.now += 1
            Event.passed = Event.now - 2.5  # the device is behind
        Event.now += 4
    assert watch.seconds() == {"compute": 6, "communication": 3, "other": 12}
    Event.now += 1
    assert watch.seconds()["other"] == 13
