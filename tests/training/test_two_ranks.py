"""Training in several processes gives what one process does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import digit_runs
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

from infoassign_training import pipeline
from infoassign_training.config import Optimizer, Pretraining
from infoassign_training.engine import checkpoint, pretrain
from infoassign_training.engine.feed import DigitFeed
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
    "supervised": settings.Supervised(),
}


class DoubleFeed(DigitFeed):
    """The digits in double precision."""

    def epoch(self, number: int) -> Iterator[Batch]:
        for batch in super().epoch(number):
            yield replace(batch, views=[view.double() for view in batch.views])

    def everything(self, step: int, views: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        for rows, found in super().everything(step, views):
            yield rows, [view.double() for view in found]


def plain(chosen: settings.Settings) -> Method:
    """A network without batch normalisation, whose statistics would be each rank's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh())
        method = chosen.method(Parts(encoder, nn.Linear(16, 10), features=16, projection=10, images=100, classes=10))
    return method.double()


def wanted(kind: str) -> Pretraining:
    small = replace(digit_runs.SMALL, batch_size=24, optimizer=Optimizer(learning_rate=1.0))
    projector = None if small.projector is None else replace(small.projector, projection=10)
    return digit_runs.with_method(replace(small, projector=projector), CHOSEN[kind])


def train(kind: str, place: Place, folder: Path) -> None:
    """Two epochs of four steps, by the engine."""
    chosen = wanted(kind)
    feed = DoubleFeed(digit_runs.some(100), chosen, place, torch.device("cpu"))
    if place.rank == 0:
        with open_run(folder, kind, chosen):
            pass
    pretrain.train(plain(chosen.method), chosen, feed, Run(folder), place)


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    for kind in CHOSEN:
        train(kind, Place(rank, world, rank), Path(folder) / kind)
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.deep)])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every method by several processes."""
    folder = tmp_path_factory.mktemp("several")
    multiprocessing.spawn(work, (request.param, str(folder)), nprocs=request.param)
    return folder


@pytest.mark.parametrize("kind", CHOSEN)
def test_ranks_end_with_the_weights_and_the_log_of_one(kind: str, several: Path, tmp_path: Path) -> None:
    train(kind, Place(), tmp_path)
    one, many = (checkpoint.load(Run(folder).checkpoint) for folder in (tmp_path, several / kind))
    assert one is not None
    assert many is not None
    initial = plain(CHOSEN[kind]).state_dict()
    for name, expected in one.method.items():
        found = many.method[name]
        if expected.dtype == torch.int64:
            assert torch.equal(expected, found), name
        else:
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, msg=name)
    assert not all(torch.equal(initial[name], value) for name, value in one.method.items())
    for alone, together in zip(Run(tmp_path).records(), Run(several / kind).records(), strict=True):
        times = {"seconds"} | {key for key in alone | together if key.startswith("share_")}
        assert alone.keys() - times == together.keys() - times
        for key in alone.keys() - times - {"solver_error_bound"}:
            assert together[key] == pytest.approx(alone[key], abs=1e-5), key


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
