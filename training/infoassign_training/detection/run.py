"""Detection from a checkpoint: train a detector, look at the test images, score, write the result."""

import json
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
import torchvision

import infoassign
from infoassign.files import write_text
from infoassign_training.detection import coco, voc
from infoassign_training.detection.c4 import C4
from infoassign_training.detection.presets import PRESETS, Preset
from infoassign_training.detection.scenes import MeasuredScenes
from infoassign_training.detection.score import detections
from infoassign_training.detection.settings import Detection
from infoassign_training.detection.train import train
from infoassign_training.engine import ranks
from infoassign_training.engine.ranks import Place
from infoassign_training.errors import UserError
from infoassign_training.evaluation.results import Result, hash_of, write
from infoassign_training.models.pretrained import Pretrained, read_pretrained


class DetectionError(UserError):
    """A detector cannot be trained as asked."""


def detect(
    name: str,
    settings: Detection,
    checkpoint: Path,
    data: Path,
    folder: Path,
    *,
    weights: str = "",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Result:
    """Train a detector from an encoder and score it; under torchrun every process calls this.

    Parameters
    ----------
    name
        Of :data:`~infoassign_training.detection.presets.PRESETS`; it says on which data.
    settings
        How.
    checkpoint
        A run of ours, or a file; see :func:`~infoassign_training.models.pretrained.read_pretrained`.
    data
        The folder of the data set.
    folder
        Where the result goes; what is trained goes to a folder in it.
    weights
        Which of several encoders in the file.
    device
        Where to compute; auto for CUDA where there is a device.
    workers
        Further processes for each that read images.
    resume, overwrite
        What to do if training was begun: go on, or begin anew. Without either that is an error.
    quiet
        Whether to show no progress.

    Raises
    ------
    UserError
        If the checkpoint, the data or the settings do not allow it; the message says what to do.
    """
    if resume and overwrite:
        raise DetectionError("--resume and --overwrite exclude each other: one goes on, the other begins anew")
    begun = time.perf_counter()
    changed = hash_of(asdict(replace(settings, seed=0))) if changed_in(name, settings) else ""
    stem = "-".join(filter(None, [name, changed[:8], weights, f"seed{settings.seed}" if settings.seed else ""]))
    try:
        with ranks.joined(device) as (place, where):
            pretrained = read_pretrained(checkpoint, weights=weights)
            train_scenes, test_scenes = opened(PRESETS[name].data, data)
            with torch.random.fork_rng([]):
                torch.manual_seed(settings.seed)
                classes = len(train_scenes.names)
                model = C4(pretrained.encoder, classes, settings.detector, pretrained.mean, pretrained.std)
            started = {"preset": name, "settings": asdict(settings), "checkpoint": pretrained.sha256}
            _begin(folder / stem, started, place, resume=resume, overwrite=overwrite)
            model = train(model.to(where), train_scenes, settings, folder / stem, place, workers=workers, quiet=quiet)
            found = _found(model, test_scenes, settings, folder / stem, place)
            kinds = ["box", "mask"] if settings.detector.masks else ["box"]
            # The other processes wait, or they would leave while the first one scores.
            scores = test_scenes.measured(found, kinds) if place.rank == 0 else {}
            ranks.wait()
    except ValueError as error:
        raise DetectionError(str(error)) from error
    counts = {"train": len(train_scenes), "validation": 0, "test": len(test_scenes), "classes": classes}
    result = _result(PRESETS[name], settings, pretrained, checkpoint, weights, data, counts)
    result = replace(result, results=scores, seconds=round(time.perf_counter() - begun, 2), processes=place.world)
    if place.rank == 0:
        write(folder / f"{stem}.json", result)
    return result


def opened(kind: str, where: Path) -> tuple[MeasuredScenes, MeasuredScenes]:
    """Open what is trained on and what is scored on."""
    if kind == "coco":
        return coco.open_coco(where, "train", training=True), coco.open_coco(where, "val", training=False)
    trained = voc.open_voc(where, ("VOC2007", "trainval"), ("VOC2012", "trainval"))
    return trained, voc.open_voc(where, ("VOC2007", "test"))


def changed_in(name: str, settings: Detection) -> dict[str, Any]:
    """Return what is not as the preset of that name has it, but for the seed.

    Examples
    --------
    >>> changed_in("coco-c4", replace(PRESETS["coco-c4"].settings, seed=3))
    {}
    """
    known = PRESETS[name].settings
    return {
        f"{part}.{key}": value
        for part in ("detector", "schedule")
        for key, value in vars(getattr(settings, part)).items()
        if getattr(getattr(known, part), key) != value
    }


def _begin(folder: Path, started: dict[str, Any], place: Place, *, resume: bool, overwrite: bool) -> None:
    """Make the folder of what is trained ready."""
    file = folder / "settings.json"
    text = json.dumps(started, indent=2) + "\n"
    there = ranks.any_of(file.exists())
    if there and not (resume or overwrite):
        raise DetectionError(f"{folder} holds what was trained before; go on with --resume, or begin with --overwrite")
    if there and resume and file.read_text(encoding="utf-8") != text:
        raise DetectionError(f"{folder} was begun with another checkpoint or other settings; begin with --overwrite")
    ranks.wait()
    if place.rank == 0 and not (there and resume):
        if there:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    ranks.wait()


def _found(model: C4, scenes: MeasuredScenes, settings: Detection, folder: Path, place: Place) -> list[dict[str, Any]]:
    """Return what is found in all images, on the first rank; each rank looks at some of them, and leaves a file."""
    rows: Sequence[int] = range(len(scenes))[place.part(len(scenes))]
    found = []
    for row, one, size in detections(model, scenes, settings.detector, rows):
        found += scenes.written(row, one, size)
    write_text(folder / f"found-{place.rank}.json", json.dumps(found))
    ranks.wait()
    if place.rank:
        return []
    parts = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(place.world)]
    return [one for part in parts for one in part]


def _result(
    preset: Preset,
    settings: Detection,
    pretrained: Pretrained,
    checkpoint: Path,
    weights: str,
    data: Path,
    counts: dict[str, int],
) -> Result:
    changed = changed_in(preset.name, settings)
    versions = {module.__name__: module.__version__ for module in (infoassign, torch, torchvision, numpy)}
    return Result(
        protocol=f"{preset.name}*" if changed else preset.name,
        settings={"kind": "detection", **asdict(settings)},
        checkpoint={
            "path": str(checkpoint),
            "sha256": pretrained.sha256,
            "origin": pretrained.origin,
            "weights": weights,
            "encoder": {"kind": pretrained.settings.kind, **asdict(pretrained.settings)},
        },
        data={
            "name": preset.data,
            "place": str(data),
            **counts,
            "metric": "box-ap",
            "shown": {"mean": pretrained.mean, "std": pretrained.std},
        },
        results={},
        notes=tuple(f"not as {preset.name} has it: {key} {value}" for key, value in changed.items()),
        versions={"python": platform.python_version(), **versions, "pycocotools": version("pycocotools")},
    )
