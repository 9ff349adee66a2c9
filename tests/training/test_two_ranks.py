"""Training in several processes gives what one process does."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import digit_runs
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

from infoassign_training import pipeline
from infoassign_training.config import Optimizer, Pretraining
from infoassign_training.engine import checkpoint, pretrain
from infoassign_training.engine.feed import DigitFeed
from infoassign_training.engine.launch import translate
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run, open_run
from infoassign_training.methods import settings
from infoassign_training.methods.method import Batch, Method, Parts

CHOSEN: dict[str, settings.Settings] = {
    "mira": settings.Mira(prototypes=12, beta_start=0.9, beta_end=0.9, tolerance=1e-10),
    "swav": settings.Swav(prototypes=12, queue=48, queue_from_epoch=0),
    "sela": settings.Sela(heads=(12, 5), relabellings=3, label_views=2, sharpness=5.0, tolerance=1e-6),
    "deepcluster": settings.DeepCluster(clusters=5),
    "imsvd": settings.Imsvd(units=5),
    "music": settings.Music(segment_size=5),
    "barlow-twins": settings.BarlowTwins(),
    "vicreg": settings.Vicreg(),
    "supervised": settings.Supervised(),
}


class DoubleFeed(DigitFeed):
    """The digits in double precision."""

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        for batch in super().epoch(number, first):
            yield replace(batch, views=[view.double() for view in batch.views])

    def everything(self, step: int, views: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        for rows, found in super().everything(step, views):
            yield rows, [view.double() for view in found]

    def sample(self, count: int) -> Iterator[Batch]:
        for batch in super().sample(count):
            yield replace(batch, views=[view.double() for view in batch.views])


def plain(chosen: settings.Settings) -> Method:
    """A network without batch normalisation, whose statistics would be each rank's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh())
        method = chosen.method(Parts(encoder, nn.Linear(16, 10), features=16, projection=10, images=100, classes=10))
    return method.double()


def wanted(kind: str) -> Pretraining:
    small = replace(
        digit_runs.SMALL,
        batch_size=24,
        epochs=3,
        optimizer=Optimizer(learning_rate=1.0),
        checkpoint_minutes=1e-9,
        knn_every=2,
    )
    projector = None if small.projector is None else replace(small.projector, projection=10)
    return digit_runs.with_method(replace(small, projector=projector), CHOSEN[kind])


def train(kind: str, place: Place, folder: Path) -> None:
    """Three epochs of four steps, by the engine."""
    chosen = wanted(kind)
    feed = DoubleFeed(digit_runs.some(100), chosen, place, torch.device("cpu"))
    if place.rank == 0 and not Run(folder).settings.exists():
        with open_run(folder, kind, chosen):
            pass
    pretrain.train(plain(chosen.method), chosen, feed, Run(folder), place)


CUT_OFF = 5
"""Steps, of which one is within the second epoch."""


def cut_off(kind: str, place: Place, folder: Path) -> None:
    """Begin a run that is cut off within its second epoch."""
    original, calls = pretrain.backward, []

    def backward(*arguments: Any, **named: Any) -> Any:
        calls.append(None)
        if len(calls) > CUT_OFF:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "backward", backward)
        with pytest.raises(KeyboardInterrupt):
            train(kind, place, folder)


def work(rank: int, world: int, folder: str, kinds: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    place = Place(rank, world, rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    for kind in kinds:
        train(kind, place, Path(folder) / kind)
        cut_off(kind, place, Path(folder) / f"{kind}-cut")
        # What one process has begun.
        train(kind, place, Path(folder) / f"{kind}-one")
    dist.destroy_process_group()


FAST = ("mira", "swav", "sela", "imsvd")
REST = tuple(kind for kind in CHOSEN if kind not in FAST)


@pytest.mark.parametrize(
    ("world", "kinds"),
    [(2, FAST), pytest.param(2, REST, marks=pytest.mark.deep), pytest.param(3, tuple(CHOSEN), marks=pytest.mark.deep)],
    ids=["2", "2, others", "3"],
)
def test_several_ranks_do_what_one_does_and_go_on_from_each_other(
    world: int, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    """Whole runs, and those that one began within an epoch and the others end, and the other way round."""
    for kind in kinds:
        train(kind, Place(), tmp_path / f"{kind}-alone")
        cut_off(kind, Place(), tmp_path / f"{kind}-one")
    multiprocessing.spawn(work, (world, str(tmp_path), kinds), nprocs=world)
    for kind in kinds:
        state = checkpoint.load(Run(tmp_path / f"{kind}-cut").checkpoint)
        assert state is not None
        assert state.step == CUT_OFF
        train(kind, Place(), tmp_path / f"{kind}-cut")
        for ended in (kind, f"{kind}-cut", f"{kind}-one"):
            require_alike(kind, tmp_path / f"{kind}-alone", tmp_path / ended)


DIGITS = ["digits-supervised", "--epochs", "400"]
IMAGES = ["mira-cifar10", "--data", "synthetic", "--data.count", "400", "--data.size", "32", "--workers", "2"]
IMAGES += ["--batch-size", "8", "--epochs", "40", "--checkpoint-minutes", "1e-2", "--method.prototypes", "12"]


@pytest.mark.deep
@pytest.mark.parametrize("recipe", [DIGITS, IMAGES], ids=["no workers", "workers"])
def test_torchrun_asked_to_end_leaves_a_run_that_goes_on(recipe: list[str], tmp_path: Path) -> None:
    """As SLURM asks ahead of the time limit: SIGTERM to torchrun, which passes it on to processes and their workers."""
    run = tmp_path / "run"
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "infoassign_training", "pretrain", *recipe, "--out", str(run)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not Run(run).checkpoint.exists() and process.poll() is None:
            time.sleep(0.2)
        process.terminate()
        _, printed = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopped by SIGTERM after step" in printed
    assert "Traceback" not in printed.partition("stopped by SIGTERM")[0]
    state = checkpoint.load(Run(run).checkpoint)
    assert state is not None
    assert f"after step {state.step} of " in printed


@pytest.mark.deep
def test_torchrun_ends_the_digits_with_their_report(tmp_path: Path) -> None:
    """What the first rank does alone in the end waits for no other."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    options = ["pretrain", "digits-mira", "--epochs", "1", "--out", str(tmp_path / "run")]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*command, "-m", "infoassign_training", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.deep
def test_srun_starts_ranks_as_torchrun_does(tmp_path: Path) -> None:
    """What srun says to two tasks of a step, on one machine."""
    command = [sys.executable, "-m", "infoassign_training", "pretrain", "digits-supervised", "--epochs", "1", "--out"]
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    tasks = []
    for rank in ("0", "1"):
        task = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "OMP_NUM_THREADS": "1"}
        environment = os.environ | job | task
        tasks.append(subprocess.Popen([*command, str(tmp_path / "run")], env=environment, stderr=subprocess.PIPE))
    printed = [task.communicate(timeout=300)[1].decode() for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], printed
    assert (tmp_path / "run" / "report.html").exists()
    assert printed[1] == "", "the first rank alone speaks"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "3", "SLURM_STEP_NUM_TASKS": "2"},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
    ],
    ids=["alone", "torchrun", "a job's script"],
)
def test_what_srun_did_not_start_is_left_alone(environment: dict[str, str]) -> None:
    changed = dict(environment)
    translate(changed)
    assert changed == environment


def require_alike(kind: str, expected: Path, found: Path) -> None:
    """Weights, buffers and log of two runs are the same, to rounding, and not those of the start."""
    one, many = (checkpoint.load(Run(folder).checkpoint) for folder in (expected, found))
    assert one is not None
    assert many is not None
    assert one.step == many.step
    initial = plain(CHOSEN[kind]).state_dict()
    for name, value in one.method.items():
        if value.dtype == torch.int64:
            assert torch.equal(value, many.method[name]), (kind, name)
        else:
            torch.testing.assert_close(many.method[name], value, rtol=0, atol=1e-5, msg=f"{kind} {name}")
    assert not all(torch.equal(initial[name], value) for name, value in one.method.items())
    for alone, together in zip(Run(expected).records(), Run(found).records(), strict=True):
        times = {"seconds"} | {key for key in alone | together if key.startswith("share_")}
        assert alone.keys() - times == together.keys() - times
        for key in alone.keys() - times - {"solver_error_bound"}:
            assert together[key] == pytest.approx(alone[key], abs=1e-5), (kind, key)


@pytest.mark.deep
def test_a_rank_that_dies_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    """By torchrun, which ends the others; the checkpoint of the step before is there and whole."""
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, sys\n"
        "from infoassign_training.engine import pretrain\n"
        "step, calls = pretrain.backward, []\n"
        "def fatal(*arguments, **named):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 4 and os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\n"
        "    return step(*arguments, **named)\n"
        "pretrain.backward = fatal\n"
        "from infoassign_training.cli import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    run = tmp_path / "run"
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    options = ["pretrain", "digits-supervised", "--out", str(run), "--epochs", "1", "--checkpoint-minutes", "1e-9"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "cannot reach the others; one of them has ended" in ended.stderr
    state = checkpoint.load(Run(run).checkpoint)
    assert state is not None
    assert state.step == 3


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WORLD_SIZE", "3"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "init_process_group", lambda *_: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with pytest.raises(pretrain.TrainingError, match="batch_size 128 is that of all 3 processes"):
        pipeline.pretrain("small", digit_runs.SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()
