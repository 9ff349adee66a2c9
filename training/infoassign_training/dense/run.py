"""From a checkpoint to the scores of what was trained from it on a challenge."""

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
from torch import nn
from tqdm import tqdm

import infoassign
from infoassign.files import write_text
from infoassign_training.dense.challenge import Challenge
from infoassign_training.dense.coco import open_coco
from infoassign_training.dense.loop import train
from infoassign_training.dense.objects import Objects
from infoassign_training.dense.pixels import open_pixels
from infoassign_training.dense.presets import LAYOUTS, PRESETS, Preset
from infoassign_training.dense.proposals import open_proposed
from infoassign_training.dense.segmentation import Segmentation
from infoassign_training.dense.settings import Dense, RegionDetector, Segmenter
from infoassign_training.dense.voc import open_voc
from infoassign_training.engine import ranks
from infoassign_training.engine.ranks import Place
from infoassign_training.errors import UserError
from infoassign_training.evaluation.features import pause
from infoassign_training.evaluation.results import Result, hash_of, read, write
from infoassign_training.models.pretrained import Pretrained, read_pretrained


class DenseError(UserError):
    """Something that cannot be trained or scored as asked."""


def evaluate(
    name: str,
    settings: Dense,
    checkpoint: Path,
    data: str,
    folder: Path,
    *,
    weights: str = "",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Result:
    """Train a model from an encoder and score it; under torchrun every process calls this.

    Parameters
    ----------
    name
        Of :data:`~infoassign_training.dense.presets.PRESETS`; it says on which data.
    settings
        How.
    checkpoint
        A run of ours, or a file; see :func:`~infoassign_training.models.pretrained.read_pretrained`.
    data
        The folder of the data set, or NAME:WHERE.
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
        raise DenseError("--resume and --overwrite exclude each other: one goes on, the other begins anew")
    begun = time.perf_counter()
    preset = PRESETS[name]
    changed = hash_of(asdict(replace(settings, seed=0))) if changed_in(name, settings) else ""
    stem = "-".join(filter(None, [name, changed[:8], weights, f"seed{settings.seed}" if settings.seed else ""]))
    with ranks.joined(device) as (place, where):
        pretrained = read_pretrained(checkpoint, weights=weights)
        try:
            challenge = opened(settings, preset.data, folder_of(preset.data, data))
            challenge.check()
            settings.schedule.require_shared(place.world)
            with torch.random.fork_rng([]):
                torch.manual_seed(settings.seed)
                model = challenge.model(pretrained).to(where)
        except ValueError as error:
            raise DenseError(str(error)) from error
        started = {"preset": name, "settings": asdict(settings), "checkpoint": pretrained.sha256}
        started |= {"data": {**challenge.counts, "sha256": challenge.digest}}
        goes_on = _begin(folder / stem, started, place, resume=resume, overwrite=overwrite)
        path = folder / f"{stem}.json"
        if goes_on and ranks.any_of(path.exists()):
            return Result.from_dict(read(path))
        if place.rank == 0:
            path.unlink(missing_ok=True)  # or --resume would take it for that of what is trained now
        views = challenge.views(settings.seed)
        train(model, views, settings.schedule, settings.seed, folder / stem, place, workers=workers, quiet=quiet)
        found = _found(challenge, model, folder / stem, place, workers, quiet=quiet)
        # The other processes wait, or they would leave while the first one scores.
        scores = challenge.scores(found) if place.rank == 0 else {}
        ranks.wait()
    result = _result(preset, settings, pretrained, checkpoint, weights, data, challenge)
    result = replace(result, results=scores, seconds=round(time.perf_counter() - begun, 2), processes=place.world)
    if place.rank == 0:
        write(path, result)
    return result


def folder_of(kind: str, words: str) -> Path:
    """Return the folder that a person names, alone or after the name of the data.

    Raises
    ------
    ValueError
        If other data is named.

    Examples
    --------
    >>> folder_of("coco", "coco:data/coco") == folder_of("coco", "data/coco")
    True
    """
    name, colon, where = words.partition(":")
    if (colon and name in LAYOUTS and name != kind) or (colon and name not in LAYOUTS and not Path(words).exists()):
        raise ValueError(f"this is trained on {kind}; give --data {kind}:WHERE, {LAYOUTS[kind]}")
    return Path(where if colon and name == kind else words).expanduser()


def opened(settings: Dense, kind: str, where: Path) -> Challenge:
    """Open what is trained on and what is scored on."""
    chosen = settings.model
    if isinstance(chosen, Segmenter):
        return Segmentation(*open_pixels(where, chosen.annotations, chosen.test_list), chosen)
    if isinstance(chosen, RegionDetector):
        proposed = open_proposed(where, "trainval", training=True), open_proposed(where, "test", training=False)
        return Objects(*proposed, chosen)
    if kind == "coco":
        train = open_coco(where, "train", training=True, masks=chosen.masks)
        return Objects(train, open_coco(where, "val", training=False, masks=False), chosen)
    if chosen.masks:
        raise ValueError("VOC has boxes here and no masks; leave out --model.masks")
    years = open_voc(where, ("VOC2007", "trainval"), ("VOC2012", "trainval"))
    return Objects(years, open_voc(where, ("VOC2007", "test")), chosen)


def changed_in(name: str, settings: Dense) -> dict[str, Any]:
    """Return what is not as the preset of that name has it, but for the seed.

    Examples
    --------
    >>> changed_in("coco-c4", replace(PRESETS["coco-c4"].settings, seed=3))
    {}
    """
    known = PRESETS[name].settings
    return {
        f"{part}.{key}": value
        for part in ("model", "schedule")
        for key, value in vars(getattr(settings, part)).items()
        if getattr(getattr(known, part), key) != value
    }


def _begin(folder: Path, started: dict[str, Any], place: Place, *, resume: bool, overwrite: bool) -> bool:
    """Make the folder of what is trained ready, and say whether something was trained before that goes on."""
    file = folder / "settings.json"
    text = json.dumps(started, indent=2) + "\n"
    there = ranks.any_of(file.exists())
    if there and not (resume or overwrite):
        raise DenseError(f"{folder} holds what was trained before; go on with --resume, or begin with --overwrite")
    if there and resume and file.read_text(encoding="utf-8") != text:
        raise DenseError(
            f"{folder} was begun with another checkpoint, other data or other settings; begin with --overwrite"
        )
    ranks.wait()
    if place.rank == 0 and not (there and resume):
        if there:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    ranks.wait()
    return there and resume


def _found(
    challenge: Challenge, model: nn.Module, folder: Path, place: Place, workers: int, *, quiet: bool
) -> list[dict[str, Any]]:
    """Return what is said of all images, on the first rank; each rank looks at some of them, and leaves a file."""
    count = challenge.counts["test"]
    rows: Sequence[int] = range(count)[place.part(count)]
    with tqdm(desc="test", unit="found", mininterval=pause(), disable=quiet or place.rank > 0) as bar:
        found = []
        for one in challenge.found(model, rows, workers=workers):
            found.append(one)
            bar.update()
    write_text(folder / f"found-{place.rank}.json", json.dumps(found))
    ranks.wait()
    if place.rank:
        return []
    parts = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(place.world)]
    return [one for part in parts for one in part]


def _result(
    preset: Preset,
    settings: Dense,
    pretrained: Pretrained,
    checkpoint: Path,
    weights: str,
    data: str,
    challenge: Challenge,
) -> Result:
    changed = changed_in(preset.name, settings)
    versions = {module.__name__: module.__version__ for module in (infoassign, torch, torchvision, numpy)}
    return Result(
        protocol=f"{preset.name}*" if changed else preset.name,
        settings={"kind": settings.model.kind, **asdict(settings)},
        checkpoint={
            "path": str(checkpoint),
            "sha256": pretrained.sha256,
            "origin": pretrained.origin,
            "weights": weights,
            "encoder": {"kind": pretrained.settings.kind, **asdict(pretrained.settings)},
        },
        data={
            "name": preset.data,
            "place": data,
            "validation": 0,
            **challenge.counts,
            "metric": challenge.metric,
            "shown": {"mean": pretrained.mean, "std": pretrained.std},
        },
        results={},
        notes=tuple(f"not as {preset.name} has it: {key} {value}" for key, value in changed.items()),
        versions={"python": platform.python_version(), **versions, "pycocotools": version("pycocotools")},
    )
