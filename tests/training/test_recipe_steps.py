"""One recipe for every method, architecture and way of cropping does two real steps on a folder of JPEG files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import write_image

from infoassign_training import pipeline
from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import MultiCrop
from infoassign_training.data.settings import Digits, Folder
from infoassign_training.engine import checkpoint
from infoassign_training.engine.run import Run
from infoassign_training.methods.build import build
from infoassign_training.methods.labels import read_labels, write_labels
from infoassign_training.models.settings import AlexNet
from infoassign_training.recipes import RECIPES

CLASSES, PER_CLASS, BATCH = 3, 3, 4
"""Nine images, of which two batches take eight."""
SEGMENTS = 3


def kind_of(settings: Pretraining) -> tuple[Any, ...]:
    """Return what must be tried once: method, architecture, crops."""
    assert isinstance(settings.augmentation, MultiCrop)
    method: Any = settings.method
    return (
        method.kind,
        getattr(method, "rotation", False),
        getattr(method, "queue", 0) > 0,
        settings.encoder,
        settings.augmentation.kind,  # type: ignore[attr-defined]
        settings.augmentation.local_views,
    )


def one_of_each() -> list[str]:
    found: dict[tuple[Any, ...], str] = {}
    for name, recipe in RECIPES.items():
        if not isinstance(recipe.settings.data, Digits):
            found.setdefault(kind_of(recipe.settings), name)
    return list(found.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for label in range(CLASSES):
        for number in range(PER_CLASS):
            write_image(root / f"class{label}" / f"{number}.jpg", seed=10 * label + number, height=70, width=90)
    return root


def reduced(settings: Pretraining, folder: Path, labels: Path) -> Pretraining:
    """Make everything small that is no kind: images, layers, labels, but neither views nor heads by their number."""
    method: Any = settings.method
    small = {
        "prototypes": 6,
        "clusters": 3,
        "heads": tuple(5 + head % 2 for head in range(len(getattr(method, "heads", ())))),
        "relabellings": 2,
        "queue": 8 if getattr(method, "queue", 0) else 0,
        "queue_from_epoch": 0,
        "labels": str(labels),
    }
    method = replace(method, **{name: value for name, value in small.items() if hasattr(method, name)})
    units = getattr(method, "segment_size", getattr(method, "units", 8))
    projector = settings.projector
    if projector is not None:
        hidden = tuple(16 + layer for layer in range(len(projector.hidden)))
        projector = replace(projector, hidden=hidden, projection=SEGMENTS * units)
    assert isinstance(settings.augmentation, MultiCrop)
    sizes = {} if isinstance(settings.encoder, AlexNet) else {"global_size": 48, "local_size": 32}
    return replace(
        settings,
        epochs=1,
        batch_size=BATCH,
        data=Folder(root=str(folder), labelled=True),
        augmentation=replace(settings.augmentation, **sizes),
        projector=projector,
        method=method,
        # The rate of the real batches, so that steps show in single precision.
        optimizer=replace(
            settings.optimizer, drops=(), learning_rate=settings.optimizer.learning_rate * settings.batch_size / BATCH
        ),
        device="cpu",
        workers=0,
    )


@pytest.mark.parametrize("name", one_of_each())
def test_two_steps(name: str, folder: Path, tmp_path: Path) -> None:
    heads = len(getattr(RECIPES[name].settings.method, "heads", ()))
    images = CLASSES * PER_CLASS
    labels = tmp_path / "given.npy"
    write_labels(labels, np.arange(heads * images).reshape(heads, images) % 5 if heads else np.zeros((1, images), int))
    settings = reduced(RECIPES[name].settings, folder, labels)
    assert pipeline.pretrain(name, settings, tmp_path / "run") == {}

    run = Run(tmp_path / "run")
    (record,) = run.records()
    assert record["step"] == 2
    assert np.isfinite(record["loss"])
    assert run.report.exists()
    state = checkpoint.load(run.checkpoint)
    assert state is not None
    initial = build(settings, images=images, classes=CLASSES)
    trained = build(settings, images=images, classes=CLASSES)
    state.restore_method(trained)
    assert trained.encoder(torch.zeros(2, 3, settings.image_size, settings.image_size)).isfinite().all()
    moved = [
        not torch.equal(before, after)
        for before, after in zip(initial.encoder.parameters(), trained.encoder.parameters(), strict=True)
    ]
    # Branches that start as zero get their first gradients in the second step, some too small to show.
    assert sum(moved) > 0.9 * len(moved), f"{moved.count(False)} of {len(moved)} parameters of the encoder stayed"
    assert json.loads(run.settings.read_text())["settings"] == json.loads(json.dumps(settings.to_dict()))
    if settings.method.kind == "transfer":
        labels.unlink()  # they are in the checkpoint
        assert pipeline.report(run.folder) == {}
        assert pipeline.pretrain(name, settings, run.folder, resume=True) == {}
    if settings.method.kind in ("sela", "deepcluster"):
        made = read_labels(run.labels, sizes=getattr(settings.method, "heads", (3,)), images=images)
        assert made.shape == (heads or 1, images)
