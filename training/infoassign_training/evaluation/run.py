"""An evaluation from a checkpoint to its file of results."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy
import sklearn
import torch
import torchvision

import infoassign
from infoassign_training.data.benchmark_layouts import SETS
from infoassign_training.data.benchmarks import Benchmark, open_benchmark
from infoassign_training.data.images import TaggedImages
from infoassign_training.engine import ranks
from infoassign_training.errors import UserError
from infoassign_training.evaluation import protocols, trained
from infoassign_training.evaluation.presets import PROTOCOLS
from infoassign_training.evaluation.results import EVALUATIONS, Result, hash_of, read, write
from infoassign_training.evaluation.settings import Clusters, FineTune, Knn, Logistic, MultiLabel, Settings, Svm
from infoassign_training.evaluation.task import Found, Task, scale_of, sizes
from infoassign_training.models.pretrained import Pretrained, read_pretrained
from infoassign_training.models.settings import AlexNet, SmallResNet


class EvaluationError(UserError):
    """An evaluation that cannot be made as asked."""


def file_of(folder: Path, protocol: str, words: str, weights: str, seed: int, changed: str = "") -> Path:
    """Return where a result is written.

    Parameters
    ----------
    changed
        Hash of the protocol's settings, where they are not those of its name.

    Examples
    --------
    >>> file_of(Path("out"), "knn", "cifar10:/data", "teacher", 3).name
    'knn-cifar10-teacher-seed3.json'
    """
    parts = [protocol, changed[:8], title_of(words), weights, f"seed{seed}" if seed else ""]
    return folder / ("-".join(filter(None, parts)) + ".json")


def title_of(words: str) -> str:
    """Return the name of a data set; of images of one's own that of their folder.

    Examples
    --------
    >>> title_of("imagenet:/data"), title_of("folder:my/pictures"), title_of("my/pictures")
    ('imagenet', 'pictures', 'pictures')
    """
    name, colon, where = words.partition(":")
    if name in SETS and name not in ("folder", "packed"):
        return name
    return Path(where if colon and name in SETS else words).expanduser().resolve().name


def changes(protocol: str, chosen: Settings) -> dict[str, Any]:
    """Return what is not as the protocol of that name has it, but for the seed.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from infoassign_training.evaluation.presets import PROTOCOLS
    >>> changes("knn", replace(PROTOCOLS["knn"].settings, seed=3, temperature=0.1))
    {'temperature': 0.1}
    """
    known = vars(PROTOCOLS[protocol].settings) if protocol in PROTOCOLS else {}
    return {name: value for name, value in vars(chosen).items() if known and name != "seed" and known[name] != value}


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

    Returns
    -------
    list of Result
        One for each data set, in order, as written.

    Raises
    ------
    UserError
        If the checkpoint, the data or the settings do not allow it; the message says what to do.
    EvaluationError
        One of these.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from infoassign_training.config import Pretraining
    >>> from infoassign_training.pipeline import pretrain
    >>> folder = Path(mkdtemp()) / "run"
    >>> scores = pretrain("untrained", Pretraining(epochs=0), folder)
    >>> (found,) = evaluate("knn", Knn(), folder, ["digits"], folder.parent / "results")
    >>> list(found.results), found.results["top-1"] > 0.8
    (['top-1', 'top-5'], True)
    """
    if resume and overwrite:
        raise EvaluationError("--resume and --overwrite exclude each other: one goes on, the other begins anew")
    if not data:
        raise EvaluationError("on what? name a data set: --data digits, a folder, or NAME:WHERE")
    if (folder / "settings.json").exists():
        raise EvaluationError(f"{folder} is a run's folder; results go to {EVALUATIONS} in it, without --out")
    changed = hash_of(_settings(replace(chosen, seed=0))) if changes(protocol, chosen) else ""
    paths = [file_of(folder, protocol, words, weights, chosen.seed, changed) for words in data]
    if len(set(paths)) < len(paths):
        raise EvaluationError("two of the data sets have the same name; evaluate them one by one, each with an --out")
    try:
        # Once for all: a group that is left cannot be joined again at once.
        with ranks.joined(device) as (place, where), ExitStack() as leaving:
            there = [path for path in paths if ranks.any_of(path.exists())]
            if there and not (resume or overwrite):
                raise EvaluationError(
                    f"{there[0]} is there already; leave it as it is with --resume, write it anew with --overwrite, or"
                    " elsewhere with --out"
                )
            pretrained = read_pretrained(checkpoint, weights=weights)
            # All of them, before hours are spent on the first.
            benchmarks = [open_benchmark(words, seed=chosen.seed, class_list=chosen.class_list) for words in data]
            for benchmark in benchmarks:
                require_fitting(chosen, pretrained, benchmark)
            found = []
            if place.rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
                leaving.callback(_remove_if_empty, folder)
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


def _remove_if_empty(folder: Path) -> None:
    """Leave nothing where nothing was found."""
    if not any(folder.iterdir()):
        folder.rmdir()


def _evaluated(protocol: str, chosen: Settings, task: Task, path: Path, *, resume: bool, overwrite: bool) -> Result:
    """Evaluate on one data set, and write what was found."""
    begun = time.perf_counter()
    if chosen.kind in TRAINED:
        if task.place.rank == 0 and overwrite:
            path.unlink(missing_ok=True)  # or --resume would take it for that of what is trained now
        found = TRAINED[chosen.kind](task, chosen, resume=resume, overwrite=overwrite)
    else:
        found = FROZEN[chosen.kind](task, chosen)
    result = _result(protocol, chosen, task, found, time.perf_counter() - begun)
    strange = [name for name, value in found.results.items() if not isfinite(value)]
    if strange:
        raise EvaluationError(f"on {title_of(task.words)} there is no {', '.join(strange)}: it would not be a number")
    if task.place.rank == 0:
        write(path, result)
    return result


def require_fitting(chosen: Settings, pretrained: Pretrained, benchmark: Benchmark) -> None:
    """Raise ValueError if a protocol or an encoder is for other images than these."""
    tagged = isinstance(benchmark.train, TaggedImages)
    if tagged and not isinstance(chosen, Svm | Logistic | MultiLabel):
        raise ValueError(
            f"{benchmark.name} has several classes an image: it is for voc07-svm, voc07-fc6-8, voc07-all and transfer"
        )
    if isinstance(chosen, Svm | MultiLabel) and not tagged:
        raise ValueError(f"{benchmark.name} has one class an image; {chosen.kind} is for several classes, as voc2007")
    if isinstance(chosen, MultiLabel) and chosen.tuned == "fc6-8" and not isinstance(pretrained.settings, AlexNet):
        raise ValueError(
            f"{pretrained.origin}: fc6 to fc8 are layers of an AlexNet; of other networks voc07-all trains all layers"
        )
    if isinstance(pretrained.settings, SmallResNet) != (benchmark.name == "digits"):
        raise ValueError(
            f"{pretrained.origin}: an encoder of the 8 x 8 digits is for --data digits, and no other is for them"
        )


FROZEN: Mapping[str, Callable[[Task, Any], Found]] = {
    "knn": protocols.knn,
    "logistic": protocols.logistic,
    "svm": protocols.svm,
    "clusters": protocols.clusters,
}
"""On features that stay as they are, by kind."""
TRAINED: Mapping[str, Callable[..., Found]] = {
    "linear": trained.linear,
    "fine-tune": trained.fine_tune,
    "multi-label": trained.multi_label,
}
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
    crop, resize = sizes(chosen, task.pretrained.image_size)
    mean, std = scale_of(chosen, task.pretrained)
    changed = changes(protocol, chosen)
    notes = [f"not as {protocol} has it: {name} {value}" for name, value in changed.items()]
    if benchmark.validation is not None and isinstance(chosen, Knn | FineTune | Clusters):
        notes.append("the set's validation images are not used: there is nothing to choose")
    return Result(
        protocol=f"{protocol}*" if changed else protocol,
        settings=_settings(chosen),
        checkpoint={
            "path": str(task.checkpoint),
            "sha256": task.pretrained.sha256,
            "origin": task.pretrained.origin,
            "weights": task.weights,
            "encoder": {"kind": task.pretrained.settings.kind, **asdict(task.pretrained.settings)},
        },
        data={
            "name": title_of(task.words),
            "place": task.words,
            **{name: 0 if images is None else len(images) for name, images in data.items()},
            "classes": len(benchmark.train.names),
            "metric": "nmi" if isinstance(chosen, Clusters) else benchmark.metric,
            "shown": {"crop": crop, "resize": resize, "interpolation": chosen.interpolation, "mean": mean, "std": std},
        },
        results=found.results,
        chosen=found.chosen,
        notes=(*notes, *found.notes, *filter(None, [benchmark.note])),
        seconds=round(seconds, 2),
        processes=task.place.world,
        versions={"python": platform.python_version()} | {module.__name__: module.__version__ for module in modules},
    )
