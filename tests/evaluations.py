"""Protocols small enough to be run in the tests, and untrained networks to run them on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision

from infoassign_training.evaluation.presets import PROTOCOLS
from infoassign_training.evaluation.results import Result
from infoassign_training.evaluation.run import evaluate
from infoassign_training.evaluation.settings import Settings
from infoassign_training.models.alexnet import AlexNet


def _small(name: str, **changes: Any) -> Settings:
    found: Settings = replace(PROTOCOLS[name].settings, **changes)
    return found


QUICK = {"crop": 32, "epochs": 2, "batch_size": 4}
SMALL: dict[str, Settings] = {
    "knn": _small("knn", crop=32),
    "knn-10": _small("knn-10", crop=32),
    "knn-1": _small("knn-1", crop=32),
    "knn-music": _small("knn-music", crop=32),
    "knn-sela": _small("knn-sela", crop=32, components=5),
    "linear-mira": _small("linear-mira", **QUICK, held_out=0.25),
    "linear-music": _small("linear-music", **QUICK),
    "layers": _small("layers", epochs=1, batch_size=4),
    "layers-10-crops": _small("layers-10-crops", epochs=1, batch_size=4),
    "places-music": _small("places-music", **QUICK | {"drops": (1,)}),
    "semi-1": _small("semi-1", **QUICK | {"batch_size": 2}),
    "semi-10": _small("semi-10", **QUICK, labelled=0.5),
    "transfer": _small("transfer", crop=32, strengths=(1e-3, 1.0), max_iterations=50),
    "voc07-svm": _small("voc07-svm", crop=32, strengths=(1e-2, 1.0), folds=2),
    "voc07-fc6-8": _small("voc07-fc6-8", epochs=1, batch_size=4),
    "voc07-all": _small("voc07-all", **QUICK | {"crop": 64, "drops": (1,)}),
    "clusters-k-means": _small("clusters-k-means", crop=32),
}
"""Every protocol, on small images and for a moment."""
DATA = dict.fromkeys(SMALL, "imagenet") | {
    "places-music": "places205",
    "voc07-svm": "voc2007",
    "voc07-fc6-8": "voc2007",
    "voc07-all": "voc2007",
    "transfer": "dtd",
    "knn-sela": "cifar10",
}
"""Which set each is tried on."""


def checkpoint_of(folder: Path) -> dict[str, Path]:
    """Write the weights of two networks that were not trained."""
    torch.manual_seed(0)
    networks = {"resnet": torchvision.models.resnet18(), "alexnet": AlexNet("large")}
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in networks}


def evaluated(protocol: str, weights: dict[str, Path], words: str, out: Path) -> Result:
    """Run a small protocol on the network that it is for."""
    chosen = weights["alexnet" if protocol.startswith(("layers", "voc07-fc6-8")) else "resnet"]
    return on(protocol, SMALL[protocol], chosen, words, out)


def on(protocol: str, settings: Settings, checkpoint: Path, words: str, out: Path, **options: Any) -> Result:
    """Evaluate on one data set."""
    (found,) = evaluate(protocol, settings, checkpoint, [words], out, device="cpu", batch_size=16, **options)
    return found
