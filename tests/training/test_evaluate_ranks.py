"""Two processes find what one finds: each image is looked at by one of them, and counted once."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import image_files
import pytest
import torch
import torch.distributed as dist
from evaluations import SMALL, checkpoint_of, evaluated, on
from torch import multiprocessing, nn

from infoassign_training.engine import ranks
from infoassign_training.engine.ranks import Place
from infoassign_training.evaluation import results
from infoassign_training.evaluation.probing import Tuned
from infoassign_training.evaluation.settings import Clusters, Linear

SETS = {"places-music": "places205", "voc07-svm": "voc2007", "voc07-all": "voc2007", "transfer": "dtd"}
"""Sets without checksums, which would have to be made up in every process; of the others, imagenet."""
PROTOCOLS = tuple(name for name in SMALL if name not in ("knn-10", "knn-1", "layers", "semi-1", "voc07-fc6-8"))
"""Those that are left out differ from others in numbers alone, or in that every process draws its own dropout."""


def all_of_them(folder: Path, run: str) -> None:
    """Run every protocol, as one of however many processes."""
    weights = {name: folder / "weights" / f"{name}.pth" for name in ("resnet", "alexnet")}
    with pytest.MonkeyPatch.context() as patch:
        # Normalisation sees the images of its process alone where there is no CUDA.
        patch.setattr(Tuned, "train", without_statistics)
        for protocol in PROTOCOLS:
            name = SETS.get(protocol, "imagenet")
            evaluated(protocol, weights, f"{name}:{folder / name}", folder / run)
    digits = folder / "digits"
    on("linear", Linear(epochs=1, batch_size=96), digits, "digits", folder / run)
    on("clusters", Clusters(), digits, "digits", folder / run)


def without_statistics(tuned: Tuned, mode: bool = True) -> Tuned:
    nn.Module.train(tuned, mode)
    for layer in tuned.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    return tuned


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    joined = nullcontext((Place(rank, 2, rank), torch.device("cpu")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "joined", lambda _: joined)
        all_of_them(Path(folder), "two")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, finished_run: Any) -> Path:
    """What one process has found, and what two have."""
    folder = tmp_path_factory.mktemp("evaluations")
    for name in {"imagenet", *SETS.values()}:
        (folder / name).mkdir()
        image_files.WRITERS[name](folder / name)
    (folder / "weights").mkdir()
    checkpoint_of(folder / "weights")
    (folder / "digits").symlink_to(finished_run.folder)
    all_of_them(folder, "one")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("name", [*PROTOCOLS, "linear", "clusters"])
def test_two_processes_find_what_one_finds(name: str, folder: Path) -> None:
    (first,) = (path for path in (folder / "one").glob("*.json") if results.read(path)["protocol"].rstrip("*") == name)
    one, two = results.read(first), results.read(folder / "two" / first.name)
    assert one["processes"] == 1
    assert two["processes"] == 2
    assert two["results"] == pytest.approx(one["results"], abs=1e-6)
    assert two["data"] == one["data"]
    assert two["notes"] == one["notes"]
    chosen = {key: value for key, value in one["chosen"].items() if key != "largest slope"}
    assert {key: two["chosen"][key] for key in chosen} == pytest.approx(chosen, abs=1e-6)


def test_the_trained_weights_are_the_same(folder: Path) -> None:
    runs = [path.parent.name for path in folder.glob("one/*/checkpoint.pt")]
    assert len(runs) == 7
    for run in runs:
        one, two = (
            torch.load(folder / which / run / "checkpoint.pt", weights_only=True)["method"] for which in ("one", "two")
        )
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.deep
def test_torchrun_evaluates_on_one_set_after_the_other(finished_run: Any, tmp_path: Path) -> None:
    """Two sets in one command, by the program itself."""
    image_files.write_imagenet(tmp_path / "data")
    torch.manual_seed(0)
    checkpoint_of(tmp_path)
    sets = [f"imagenet:{tmp_path / 'data'}", str(tmp_path / "data")]
    options = ["--checkpoint", str(tmp_path / "resnet.pth"), "--data", *sets, "--protocol.crop", "32"]
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "infoassign_training", "evaluate", "knn", *options, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [results.read(path) for path in (tmp_path / "out").glob("*.json")]
    assert {(result["data"]["name"], result["processes"]) for result in found} == {("imagenet", 2), ("data", 2)}
