"""An evaluation from a checkpoint to its file of results."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy
import sklearn
import torch
import torchvision

import infoassign
from infoassign_training.data.benchmarks import open_benchmark
from infoassign_training.engine import ranks
from infoassign_training.errors import UserError
from infoassign_training.evaluation import protocols, trained
from infoassign_training.evaluation.results import Result, hash_of, read, write
from infoassign_training.evaluation.settings import Settings
from infoassign_training.evaluation.task import Found, Task
from infoassign_training.models.pretrained import read_pretrained


class EvaluationError(UserError):
    """An evaluation that cannot be made as asked."""


def file_of(folder: Path, protocol: str, words: str, weights: str, seed: int) -> Path:
    """Return where a result is written.

    Examples
    --------
    >>> file_of(Path("out"), "knn", "cifar10:/data", "teacher", 3).name
    'knn-cifar10-teacher-seed3.json'
    """
    name, colon, _ = words.partition(":")
    parts = [protocol, name if colon else Path(words).name, *([weights] if weights else [])]
    return folder / ("-".join([*parts, *([f"seed{seed}"] if seed else [])]) + ".json")


def evaluate(
    protocol: str,
    chosen: Settings,
    checkpoint: Path,
    data: Sequence[str],
    folder: Path,
    *,
    weights: str = "",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int = 256,
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> list[Result]:
    """Evaluate an encoder by a protocol on one data set after the other, and write what is found after each.

    Under torchrun every process calls this; each image is looked at by one of them, whatever their number.

    Parameters
    ----------
    protocol
        The name under which results are written.
    chosen
        What to do.
    checkpoint
        A run of ours, or a file; see :func:`~infoassign_training.models.pretrained.read_pretrained`.
    data
        The data sets; see :func:`~infoassign_training.data.benchmarks.open_benchmark`.
    folder
        Where to: a JSON file each and a table of all in it, and a folder for what is trained.
    weights
        Which of several encoders in the file.
    device
        Where to compute; auto for CUDA where there is a device.
    batch_size
        Images at a time that are only looked at, on each process.
    workers
        Further processes for each that read images.
    resume, overwrite
        What to do if training was begun, or there is a result: go on, and leave the result as it is; or begin anew.
        Without either that is an error.

    Raises
    ------
    UserError
        If the checkpoint, the data or the settings do not allow it; the message says what to do.
    """
    if resume and overwrite:
        raise EvaluationError("--resume and --overwrite exclude each other: one goes on, the other begins anew")
    paths = [file_of(folder, protocol, words, weights, chosen.seed) for words in data]
    if len(set(paths)) < len(paths):
        raise EvaluationError("two of the data sets have the same name; evaluate them one by one, each with an --out")
    try:
        # Once for all: a group that is left cannot be joined again at once.
        with ranks.joined(device) as (place, where):
            there = [path for path in paths if ranks.any_of(path.exists())]
            if there and not (resume or overwrite):
                raise EvaluationError(
                    f"{there[0]} is there already; leave it as it is with --resume, write it anew with --overwrite, or"
                    " elsewhere with --out"
                )
            pretrained = read_pretrained(checkpoint, weights=weights)
            # All of them, before hours are spent on the first.
            benchmarks = [open_benchmark(words, seed=chosen.seed) for words in data]
            found = []
            for words, path, benchmark in zip(data, paths, benchmarks, strict=True):
                task = Task(
                    pretrained=pretrained,
                    checkpoint=checkpoint,
                    weights=weights,
                    benchmark=benchmark,
                    words=words,
                    place=place,
                    device=where,
                    batch_size=batch_size,
                    workers=workers,
                    folder=path.with_suffix(""),
                )
                if resume and path in there:
                    found += [_found_before(path, chosen, task)] if place.rank == 0 else []
                    continue
                found.append(_evaluated(protocol, chosen, task, path, resume=resume, overwrite=overwrite))
            return found
    except ValueError as error:
        raise EvaluationError(str(error)) from error


def _evaluated(protocol: str, chosen: Settings, task: Task, path: Path, *, resume: bool, overwrite: bool) -> Result:
    """Evaluate on one data set, and write what was found."""
    begun = time.perf_counter()
    if chosen.kind in TRAINED:
        found = TRAINED[chosen.kind](task, chosen, resume=resume, overwrite=overwrite)
    else:
        found = FROZEN[chosen.kind](task, chosen)
    result = _result(protocol, chosen, task, found, time.perf_counter() - begun)
    if task.place.rank == 0:
        write(path, result)
    return result


FROZEN: Mapping[str, Callable[[Task, Any], Found]] = {
    "knn": protocols.knn,
    "logistic": protocols.logistic,
    "svm": protocols.svm,
    "clusters": protocols.clusters,
}
"""On features that stay as they are, by kind."""
TRAINED: Mapping[str, Callable[..., Found]] = {"linear": trained.linear, "fine-tune": trained.fine_tune}
"""With runs of their own, by kind."""


def _found_before(path: Path, chosen: Settings, task: Task) -> Result:
    """Return the result that is there, if it is of the same protocol and checkpoint."""
    tree = read(path)
    asked = {"protocol": hash_of(_settings(chosen)), "checkpoint": task.pretrained.sha256}
    there = {"protocol": tree.get("protocol_sha256"), "checkpoint": tree["checkpoint"].get("sha256")}
    differing = [name for name, value in asked.items() if there[name] != value]
    if differing:
        raise EvaluationError(
            f"{path} is of another {' and another '.join(differing)}; write it anew with --overwrite, or elsewhere with"
            " --out"
        )
    return Result.from_dict(tree)


def _settings(chosen: Settings) -> dict[str, Any]:
    return {"kind": chosen.kind, **asdict(chosen)}


def _result(protocol: str, chosen: Settings, task: Task, found: Found, seconds: float) -> Result:
    benchmark = task.benchmark
    data = {"train": benchmark.train, "validation": benchmark.validation, "test": benchmark.test}
    modules = (infoassign, torch, torchvision, numpy, sklearn)
    return Result(
        protocol=protocol,
        settings=_settings(chosen),
        checkpoint={
            "path": str(task.checkpoint),
            "sha256": task.pretrained.sha256,
            "origin": task.pretrained.origin,
            "weights": task.weights,
        },
        data={
            "name": benchmark.name,
            "place": task.words,
            **{name: 0 if images is None else len(images) for name, images in data.items()},
            "classes": len(benchmark.train.names),
            "metric": benchmark.metric,
        },
        results=found.results,
        chosen=found.chosen,
        notes=(*found.notes, *([benchmark.note] if benchmark.note else [])),
        seconds=round(seconds, 2),
        processes=task.place.world,
        versions={"python": platform.python_version()} | {module.__name__: module.__version__ for module in modules},
    )
