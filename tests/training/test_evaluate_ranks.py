"""Two processes find what one finds: each image is looked at by one of them, and counted once."""

import os
import socket
from pathlib import Path
from typing import Any

import image_files
import pytest
import torch
from evaluations import SMALL, checkpoint_of, evaluated
from torch import multiprocessing, nn

from infoassign_training.evaluation import results
from infoassign_training.evaluation.probing import Tuned
from infoassign_training.evaluation.run import evaluate
from infoassign_training.evaluation.settings import Clusters, Linear

SETS = {"places-music": "places205", "voc07-svm": "voc2007", "transfer": "dtd"}
"""Sets without checksums, which would have to be made up in every process; of the others, imagenet."""
PROTOCOLS = tuple(name for name in SMALL if name not in ("knn-10", "knn-1", "layers", "semi-1"))
"""Those that are left out differ from others in numbers alone."""


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
    evaluate("linear", Linear(epochs=1, batch_size=96), digits, "digits", folder / run)
    evaluate("clusters", Clusters(), digits, "digits", folder / run)


def without_statistics(tuned: Tuned, mode: bool = True) -> Tuned:
    nn.Module.train(tuned, mode)
    for layer in tuned.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    return tuned


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    found = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in found.items()}
    all_of_them(Path(folder), "two")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, finished_run: Any) -> Path:
    """What one process has found, and what two have."""
    folder = tmp_path_factory.mktemp("evaluations")
    for name in ("imagenet", *SETS.values()):
        (folder / name).mkdir()
        image_files.WRITERS[name](folder / name)
    (folder / "weights").mkdir()
    checkpoint_of(folder / "weights")
    (folder / "digits").symlink_to(finished_run.folder)
    all_of_them(folder, "one")
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port = some.getsockname()[1]
    multiprocessing.spawn(work, (port, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("name", [*PROTOCOLS, "linear", "clusters"])
def test_two_processes_find_what_one_finds(name: str, folder: Path) -> None:
    (first,) = folder.glob(f"one/{name}-{SETS.get(name, '*')}.json") if name in SETS else matching(folder / "one", name)
    one, two = results.read(first), results.read(folder / "two" / first.name)
    assert one["processes"] == 1
    assert two["processes"] == 2
    assert two["results"] == pytest.approx(one["results"], abs=1e-6)
    assert two["data"] == one["data"]
    assert two["notes"] == one["notes"]
    chosen = {key: value for key, value in one["chosen"].items() if key != "largest slope"}
    assert {key: two["chosen"][key] for key in chosen} == pytest.approx(chosen, abs=1e-6)


def matching(folder: Path, name: str) -> list[Path]:
    return [path for path in folder.glob("*.json") if path.stem in (f"{name}-imagenet", f"{name}-digits")]


def test_the_trained_weights_are_the_same(folder: Path) -> None:
    for run in ("linear-music-imagenet", "linear-digits", "semi-10-imagenet", "layers-10-crops-imagenet"):
        one, two = (
            torch.load(folder / which / run / "checkpoint.pt", weights_only=True)["method"] for which in ("one", "two")
        )
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)
