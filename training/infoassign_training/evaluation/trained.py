"""The protocols that train by SGD: their runs, which go on where they were cut off, and their scores."""

import hashlib
from contextlib import ExitStack
from dataclasses import replace

from torch import Tensor

from infoassign_training.config import Optimizer, Pretraining
from infoassign_training.data.augmentations import ASPECT, Distortions, Plain
from infoassign_training.data.evaluation_views import ten_crops
from infoassign_training.data.images import Images, TaggedImages
from infoassign_training.data.settings import Evaluated
from infoassign_training.data.subsets import rows_of
from infoassign_training.engine import ranks
from infoassign_training.engine.feed import feed_of
from infoassign_training.engine.pretrain import train
from infoassign_training.engine.run import Run, open_run
from infoassign_training.evaluation.features import Looking, features_of
from infoassign_training.evaluation.metrics import measured, top
from infoassign_training.evaluation.probing import (
    Classifying,
    FromCheckpoint,
    LinearProbes,
    Probe,
    Probes,
    Tuning,
    held_out_rows,
)
from infoassign_training.evaluation.settings import FineTune, Linear, MultiLabel, Trained
from infoassign_training.evaluation.tagging import Tagging
from infoassign_training.evaluation.task import Found, Task, scale_of, sizes, subset, whole
from infoassign_training.methods.build import build
from infoassign_training.models.settings import SmallResNet


def linear(task: Task, chosen: Linear, *, resume: bool, overwrite: bool) -> Found:
    """Train linear classifiers on frozen features, choose a rate for each layer, and score what was chosen."""
    small = isinstance(task.pretrained.settings, SmallResNet)
    if small and chosen.ten_crops:
        raise ValueError("protocol.ten-crops is for images that are larger than what the network is shown")
    rates, validation = chosen.learning_rates, task.benchmark.validation
    share = chosen.held_out if len(rates) > 1 and validation is None else 0.0
    probes = LinearProbes(
        checkpoint=str(task.checkpoint),
        sha256=task.pretrained.sha256,
        weights=task.weights,
        learning_rates=rates,
        held_out=share,
        layers=chosen.layers,
        seed=chosen.seed,
    )
    images = task.benchmark.train
    settings = settings_of(task, chosen, probes, source(task, chosen, images))
    method = trained(task, settings, images, resume=resume, overwrite=overwrite)
    assert isinstance(method, Probes)
    looking = task.look(chosen)
    layers = 1 + max(probe.layer for probe in method.probes)
    found: dict[str, float | str] = {}
    best, notes = [rates[0]] * layers, tuple[str, ...]()
    if len(rates) > 1:
        by, notes = _judged(task, chosen, method, looking)
        best = [max(rates, key=lambda rate: by[layer, rate]) for layer in range(layers)]
        found = {f"top-1{_of(*key, layers)}": score for key, score in sorted(by.items())}
    found |= {f"base learning rate{_of(layer, None, layers)}": rate for layer, rate in enumerate(best)}
    numbers = [method.probes.index(Probe(layer, rate, choosing=False)) for layer, rate in enumerate(best)]
    results = scored(task, method, looking, numbers, "")
    if chosen.ten_crops:
        results |= scored(task, method, _ten_crops(task, chosen), numbers, ", 10 crops")
    return Found(results, found, (*notes, *_on_digits(task)))


def _judged(
    task: Task, chosen: Linear, method: Probes, looking: Looking
) -> tuple[dict[tuple[int, float], float], tuple[str, ...]]:
    """Return how good every rate is for every layer, on images that are neither trained on nor scored."""
    judges = task.benchmark.validation
    said = f"the {len(judges)} validation images" if judges is not None else ""
    if judges is None:
        rows = held_out_rows(len(task.benchmark.train), chosen.held_out, chosen.seed).nonzero()[:, 0].numpy()
        judges = rows_of(task.benchmark.train, rows)
        said = f"{len(rows)} training images, which the classifiers that were compared had not been trained on"
    choosing = task.benchmark.validation is None
    numbers = [number for number, probe in enumerate(method.probes) if probe.choosing == choosing]
    classes = judges.classes
    assert classes is not None
    scores = logits_of(method, judges, looking, numbers, "images to choose by")
    by = {
        (method.probes[number].layer, method.probes[number].rate): top(whole(some).numpy(), classes)
        for number, some in zip(numbers, scores, strict=True)
    }
    return by, (f"the rate was chosen on {said}",)


def fine_tune(task: Task, chosen: FineTune, *, resume: bool, overwrite: bool) -> Found:
    """Train the encoder and a linear classifier on the labelled images, and score them."""
    tuning = Tuning(
        checkpoint=str(task.checkpoint),
        sha256=task.pretrained.sha256,
        weights=task.weights,
        encoder_rate=chosen.encoder_rate,
        head_rate=chosen.head_rate,
    )
    images, notes = subset(task.benchmark.train, chosen, chosen.seed)
    data = source(task, chosen, images, chosen.labelled, chosen.labelled_list)
    method = trained(task, settings_of(task, chosen, tuning, data), images, resume=resume, overwrite=overwrite)
    return Found(scored(task, method, task.look(chosen), [0], ""), {}, (*notes, *_on_digits(task)))


def multi_label(task: Task, chosen: MultiLabel, *, resume: bool, overwrite: bool) -> Found:
    """Train on the training and validation images, which have several classes each, and score ten crops."""
    tagging = Tagging(
        checkpoint=str(task.checkpoint),
        sha256=task.pretrained.sha256,
        weights=task.weights,
        rate=chosen.learning_rate,
        tuned=chosen.tuned,
        clip=chosen.clip,
    )
    images = task.benchmark.with_validation()
    data = replace(source(task, chosen, images), validation=task.benchmark.validation is not None)
    method = trained(task, settings_of(task, chosen, tagging, data), images, resume=resume, overwrite=overwrite)
    note = f"trained on the {len(images)} training and validation images; logits of ten crops were averaged"
    return Found(scored(task, method, _ten_crops(task, chosen), [0], ""), {}, (note,))


def _ten_crops(task: Task, chosen: Trained) -> Looking:
    """Return how images are shown ten times each, as many views at once as are looked at otherwise."""
    looking = task.look(chosen, ten_crops)
    return replace(looking, batch_size=max(1, looking.batch_size // 10))


def source(task: Task, chosen: Trained, images: Images, labelled: float = 1.0, labelled_list: str = "") -> Evaluated:
    """Return how settings name the training images."""
    name, _, root = task.words.partition(":")
    return Evaluated(
        name=task.benchmark.name,
        root=root if name == task.benchmark.name else task.words,  # a folder may be named alone
        labelled=labelled,
        labelled_list=labelled_list,
        class_list=chosen.class_list,
        seed=chosen.seed,
        sha256=digest(images),
    )


def digest(images: Images) -> str:
    """Return a hash of which images these are and of their classes, not of what is in them."""
    found = hashlib.sha256()
    for index in range(len(images)):
        found.update(images.origin(index).encode(errors="surrogateescape") + b"\n")
    known = images.presence if isinstance(images, TaggedImages) else images.classes
    if known is not None:
        found.update(known.tobytes())
    return found.hexdigest()


def settings_of(task: Task, chosen: Trained, method: FromCheckpoint, data: Evaluated) -> Pretraining:
    """Say in the engine's words what is trained."""
    small = isinstance(task.pretrained.settings, SmallResNet)
    size, resize = sizes(chosen, task.pretrained.image_size)
    mean, std = scale_of(chosen, task.pretrained)
    return Pretraining(
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        seed=chosen.seed,
        data=data,
        augmentation=Distortions()
        if small
        else Plain(
            global_size=size,
            global_scale=chosen.scale,
            resized=resize if chosen.crops == "plain" else 0,
            aspect=(1.0, 1.0) if chosen.crops == "square" else ASPECT,
            interpolation=chosen.interpolation,
            mean=mean,
            std=std,
        ),
        encoder=task.pretrained.settings,
        projector=None,
        method=method,
        # Every classifier has its own rate, a factor on this one.
        optimizer=Optimizer(
            learning_rate=1.0,
            momentum=chosen.momentum,
            weight_decay=chosen.weight_decay,
            warmup=0.0,
            drops=chosen.drops,
            drop_by=chosen.drop_by,
        ),
        device="cuda" if task.device.type == "cuda" else "cpu",
        workers=0 if small else task.workers,
    )


def trained(task: Task, settings: Pretraining, images: Images, *, resume: bool, overwrite: bool) -> Classifying:
    """Train to the end, from wherever the run in the folder is; all ranks call this together."""
    if settings.batch_size > len(images):
        raise ValueError(f"protocol.batch-size {settings.batch_size} is larger than the {len(images)} labelled images")
    feed = feed_of(settings, task.place, task.device, images=images)
    begun = resume and Run(task.folder).checkpoint.exists()
    method = build(settings, images=feed.images, classes=feed.classes)
    assert isinstance(method, Classifying)
    if not begun:
        method.prepare()
    method.to(task.device)
    with ExitStack() as kept:
        run = Run(task.folder)
        if task.place.rank == 0:
            run = kept.enter_context(
                open_run(task.folder, f"evaluate {settings.method.kind}", settings, resume=resume, overwrite=overwrite)
            )
        ranks.wait()
        train(method, settings, feed, run, task.place)
    return method


def scored(task: Task, method: Classifying, looking: Looking, numbers: list[int], what: str) -> dict[str, float]:
    """Score some of the classifiers, one for each layer, on the test images."""
    test = task.benchmark.test
    truth = whole(task.truth(test)).numpy()
    results: dict[str, float] = {}
    for layer, scores in enumerate(logits_of(method, test, looking, numbers, f"test images{what}")):
        found = measured(whole(scores).numpy(), truth, task.benchmark.metric)
        results |= {f"{name}{_of(layer, None, len(numbers))}{what}": value for name, value in found.items()}
    return results


def logits_of(method: Classifying, images: Images, looking: Looking, numbers: list[int], title: str) -> list[Tensor]:
    """Return the scores (n_r, C) of this rank's images by some of the classifiers; of several crops, averaged."""
    method.eval()

    def forward(shown: Tensor) -> list[Tensor]:
        crops = shown if shown.ndim == 5 else shown[:, None]
        features = method.features(crops.flatten(0, 1))
        scores = [head(features[probe.layer]).unflatten(0, crops.shape[:2]) for head, probe in chosen]
        return [some.squeeze(1) if crops.shape[1] == 1 else method.averaged(some) for some in scores]

    every = list(method.heads)
    probes = method.probes if isinstance(method, Probes) else (Probe(0, 0.0, choosing=False),)
    chosen = [(every[number], probes[number]) for number in numbers]
    return features_of(forward, images, looking, title)


def _of(layer: int, rate: float | None, layers: int) -> str:
    """Say which layer, if there are several, and which rate."""
    return (f", conv{layer + 1}" if layers > 1 else "") + (f" at base learning rate {rate:g}" if rate else "")


def _on_digits(task: Task) -> tuple[str, ...]:
    small = isinstance(task.pretrained.settings, SmallResNet)
    return ("training digits are distorted as in pretraining, not cropped as the protocol says",) if small else ()
