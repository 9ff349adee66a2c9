"""However a run is stopped, it ends as if it had not been."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from digit_runs import SMALL, some, train, with_method

from infoassign_training.config import Pretraining
from infoassign_training.engine import checkpoint, pretrain
from infoassign_training.engine.pretrain import StoppedError
from infoassign_training.engine.run import Run, open_run
from infoassign_training.methods import settings
from infoassign_training.models.settings import Projector

EVERY_STEP = 1e-9
"""Minutes."""
CHOSEN: dict[str, settings.Settings] = {
    kind: make() for kind, make in settings.KINDS.items() if make.__module__ == settings.__name__ and kind != "transfer"
} | {
    "mira": settings.Mira(prototypes=12),
    "swav": settings.Swav(queue=96, queue_from_epoch=1),
    "sela": settings.Sela(heads=(12, 5), relabellings=4, label_views=2),
    "deepcluster": settings.DeepCluster(clusters=12),
}
FAST = ("swav", "sela", "deepcluster")
"""Methods with most that could be forgotten."""
METHODS = [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.deep) for kind in CHOSEN]


def wanted(kind: str, **changes: Any) -> Pretraining:
    """Three epochs of three steps."""
    small = replace(SMALL, epochs=3, batch_size=64, projector=Projector(hidden=(16,), projection=32))
    return replace(with_method(small, CHOSEN[kind]), **changes)


def started(chosen: Pretraining, folder: Path) -> Run:
    with open_run(folder, "small", chosen) as run:
        return run


def trained(chosen: Pretraining, run: Run) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Train from where the run is; return weights and log."""
    method = train(chosen, some(200), run)
    return method.state_dict(), [
        {key: value for key, value in record.items() if key != "seconds" and not key.startswith("share_")}
        for record in run.records()
    ]


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return one[1] == other[1] and all(torch.equal(one[0][key], other[0][key]) for key in one[0])


def at_call(number: int, original: Callable[..., Any], do: Callable[[], None]) -> Callable[..., Any]:
    """Do something before one of the calls."""
    calls: list[None] = []

    def called(*arguments: Any, **named: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            do()
        return original(*arguments, **named)

    return called


def power_cut() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("minutes", [EVERY_STEP, 60.0], ids=["saved", "not saved"])
@pytest.mark.parametrize("kind", METHODS)
def test_cut_off_within_an_epoch(kind: str, minutes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, buffers and every number of the log; from a checkpoint of the step before, or of the epoch before."""
    whole = trained(wanted(kind), started(wanted(kind), tmp_path / "whole"))
    chosen = wanted(kind, checkpoint_minutes=minutes)
    run = started(chosen, tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "backward", at_call(6, pretrain.backward, power_cut))
        with pytest.raises(KeyboardInterrupt):
            trained(chosen, run)
    state = checkpoint.load(run.checkpoint)
    assert state is not None
    assert state.step == (5 if minutes == EVERY_STEP else 3)
    assert same(trained(chosen, run), whole)


def test_cut_off_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = wanted("swav", checkpoint_minutes=EVERY_STEP)
    whole = trained(chosen, started(chosen, tmp_path / "whole"))
    run = started(chosen, tmp_path / "cut")
    for _ in range(8):
        with monkeypatch.context() as patch:
            patch.setattr(pretrain, "backward", at_call(2, pretrain.backward, power_cut))
            with pytest.raises(KeyboardInterrupt):
                trained(chosen, run)
    assert same(trained(chosen, run), whole)


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_cut_off_while_a_checkpoint_is_written(
    ending: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = wanted("sela", checkpoint_minutes=EVERY_STEP)
    whole = trained(chosen, started(chosen, tmp_path / "whole"))
    run = started(chosen, tmp_path / "cut")
    original = checkpoint.replacing
    opened: list[Path] = []

    @contextmanager
    def cut_off(path: Path) -> Iterator[Any]:
        """The fifth is cut off in its middle."""
        opened.append(path)
        with original(path) as file:
            if len(opened) < 5:
                yield file
            else:
                file.write(b"half of a checkpoint")
                raise ending

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "replacing", cut_off)
        with pytest.raises(type(ending)):
            trained(chosen, run)
    state = checkpoint.load(run.checkpoint)
    assert state is not None
    assert state.step == 4
    assert same(trained(chosen, run), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("call", [2, 3])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(
    number: signal.Signals, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within an epoch, and at the end of one."""
    chosen = wanted("swav")
    whole = trained(chosen, started(chosen, tmp_path / "whole"))
    run = started(chosen, tmp_path / "asked")
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "backward", at_call(call, pretrain.backward, lambda: os.kill(os.getpid(), number)))
        with pytest.raises(StoppedError, match=rf"stopped by {number.name} after step {call} of 9.*--resume"):
            trained(chosen, run)
    assert signal.getsignal(number) == before
    assert same(trained(chosen, run), whole)


def test_the_checkpoint_before_and_the_last_good_one_are_kept(tmp_path: Path) -> None:
    chosen = wanted("imsvd")
    run = started(chosen, tmp_path)
    trained(chosen, run)
    steps = {}
    for name in ("checkpoint.pt", checkpoint.PREVIOUS, checkpoint.GOOD):
        state = checkpoint.load(tmp_path / name)
        assert state is not None
        steps[name] = state.step
    assert steps == {"checkpoint.pt": 9, checkpoint.PREVIOUS: 6, checkpoint.GOOD: 9}
    run.checkpoint.write_bytes(b"torn")
    with pytest.raises(checkpoint.CheckpointError, match=r"put checkpoint-previous\.pt or checkpoint-good\.pt in its"):
        trained(chosen, run)
    assert run.checkpoint.read_bytes() == b"torn"
    run.checkpoint.write_bytes((tmp_path / checkpoint.PREVIOUS).read_bytes())
    trained(chosen, run)


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    (tmp_path / "checkpoint.pt").write_bytes(b"state")
    checkpoint.keep(tmp_path / "checkpoint.pt", checkpoint.GOOD)
    assert (tmp_path / checkpoint.GOOD).read_bytes() == b"state"
    assert len(list(tmp_path.iterdir())) == 2


def test_where_it_runs_may_change(tmp_path: Path) -> None:
    started(wanted("sela"), tmp_path)
    with open_run(tmp_path, "small", wanted("sela", checkpoint_minutes=3.0, device="auto"), resume=True):
        pass


KILLED = """
import os, sys
import torch
from pathlib import Path
from infoassign_training.engine import checkpoint, pretrain
from infoassign_training.engine.run import Run
import digit_runs
torch.set_num_threads(1)
where, number = sys.argv[2], int(sys.argv[3])
calls = []
def counted(original):
    def called(*arguments, **named):
        calls.append(1)
        if len(calls) == number: os.kill(os.getpid(), 9)
        return original(*arguments, **named)
    return called
if where == "step": pretrain.backward = counted(pretrain.backward)
else: os.fsync = counted(os.fsync)  # a checkpoint is written and has not taken the place of the one before
run = Run(Path(sys.argv[1]))
digit_runs.train(run.read().settings, digit_runs.some(200), run)
"""


@pytest.mark.deep
@pytest.mark.parametrize(("where", "number"), [("step", 6), ("file", 7)])
@pytest.mark.parametrize("kind", CHOSEN)
def test_killed(kind: str, where: str, number: int, tmp_path: Path) -> None:
    """By SIGKILL, in the middle of a step or of writing."""
    chosen = wanted(kind, checkpoint_minutes=EVERY_STEP)
    whole = trained(chosen, started(chosen, tmp_path / "whole"))
    run = started(chosen, tmp_path / "cut")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED, str(run.folder), where, str(number)]
    killed = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    state = checkpoint.load(run.checkpoint)
    assert state is not None
    assert 0 < state.step < 9
    assert same(trained(chosen, run), whole)


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    """As a read-only one: nobody, not even root, makes folders in a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/run"):
        started(wanted("imsvd"), tmp_path / "file" / "run")


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(wanted("imsvd"), started(wanted("imsvd"), tmp_path / "whole"))
    hours = iter(range(10**6))
    monkeypatch.setattr("time.time", lambda: 1e9 - 3600.0 * next(hours))
    run = started(wanted("imsvd"), tmp_path / "jumps")
    assert same(trained(wanted("imsvd"), run), whole)
    assert all(0 < record["seconds"] < 3600 for record in run.records())
