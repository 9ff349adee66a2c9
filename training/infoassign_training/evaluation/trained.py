"""The protocols that train by SGD: their runs, which go on where they were cut off, and their scores."""

from contextlib import ExitStack
from dataclasses import replace

from torch import Tensor

from infoassign_training.config import Optimizer, Pretraining
from infoassign_training.data.augmentations import Distortions, Plain
from infoassign_training.data.build import images_of
from infoassign_training.data.evaluation_views import ten_crops
from infoassign_training.data.images import Images
from infoassign_training.data.settings import Evaluated
from infoassign_training.data.subsets import rows_of
from infoassign_training.engine import ranks
from infoassign_training.engine.feed import feed_of
from infoassign_training.engine.pretrain import train
from infoassign_training.engine.run import Run, open_run
from infoassign_training.evaluation.features import Looking, features_of
from infoassign_training.evaluation.metrics import measured
from infoassign_training.evaluation.probing import (
    Classifying,
    FromCheckpoint,
    LinearProbes,
    Probe,
    Probes,
    Tuning,
    held_out_rows,
)
from infoassign_training.evaluation.settings import FineTune, Linear, Trained
from infoassign_training.evaluation.task import Found, Task, sizes, subset, whole
from infoassign_training.methods.build import build
from infoassign_training.models.settings import SmallResNet


def linear(task: Task, chosen: Linear, *, resume: bool, overwrite: bool) -> Found:
    """Train linear classifiers on frozen features, choose a rate for each layer, and score what was chosen."""
    probes = LinearProbes(
        checkpoint=str(task.checkpoint),
        sha256=task.pretrained.sha256,
        weights=task.weights,
        learning_rates=chosen.learning_rates,
        held_out=chosen.held_out,
        layers=chosen.layers,
        seed=chosen.seed,
    )
    settings = settings_of(task, chosen, probes, source(task, chosen.seed))
    method = trained(task, settings, resume=resume, overwrite=overwrite)
    assert isinstance(method, Probes)
    looking = task.look(chosen)
    layers = max(probe.layer for probe in method.probes) + 1
    finals = {(probe.layer, probe.rate): number for number, probe in enumerate(method.probes) if not probe.choosing}
    found: dict[str, float | str] = {}
    rates = [chosen.learning_rates[0]] * layers
    notes: tuple[str, ...] = ()
    if len(chosen.learning_rates) > 1:
        held = _held(task.benchmark.train, chosen)
        scores = accuracies(method, held, looking, [n for n, probe in enumerate(method.probes) if probe.choosing])
        by = {(method.probes[number].layer, method.probes[number].rate): score for number, score in scores.items()}
        for layer in range(layers):
            rates[layer] = max(chosen.learning_rates, key=lambda rate: by[layer, rate])
        found = {
            f"held-out top-1{_of(layer, layers)} at rate {rate:g}": score for (layer, rate), score in sorted(by.items())
        }
        notes = (f"the rate was chosen on {len(held)} training images, which its classifier was not trained on",)
    found |= {f"learning rate{_of(layer, layers)}": rate for layer, rate in enumerate(rates)}
    numbers = [finals[layer, rate] for layer, rate in enumerate(rates)]
    results = scored(task, method, looking, numbers, "")
    if chosen.ten_crops:
        if isinstance(task.pretrained.settings, SmallResNet):
            raise ValueError("protocol.ten-crops is for images that are larger than what the network is shown")
        results |= scored(task, method, task.look(chosen, ten_crops), numbers, ", 10 crops")
    return Found(results, found, (*notes, *_on_digits(task)))


def fine_tune(task: Task, chosen: FineTune, *, resume: bool, overwrite: bool) -> Found:
    """Train the encoder and a linear classifier on the labelled images, and score them."""
    tuning = Tuning(
        checkpoint=str(task.checkpoint),
        sha256=task.pretrained.sha256,
        weights=task.weights,
        encoder_rate=chosen.encoder_rate,
        head_rate=chosen.head_rate,
    )
    _, notes = subset(task.benchmark.train, chosen, chosen.seed)
    data = replace(source(task, chosen.seed), labelled=chosen.labelled, labelled_list=chosen.labelled_list)
    method = trained(task, settings_of(task, chosen, tuning, data), resume=resume, overwrite=overwrite)
    return Found(scored(task, method, task.look(chosen), [0], ""), {}, (*notes, *_on_digits(task)))


def source(task: Task, seed: int) -> Evaluated:
    """Return how settings name the training images."""
    name, _, root = task.words.partition(":")
    # A folder may be named alone.
    return Evaluated(name=task.benchmark.name, root=root if name == task.benchmark.name else task.words, seed=seed)


def settings_of(task: Task, chosen: Trained, method: FromCheckpoint, data: Evaluated) -> Pretraining:
    """Say in the engine's words what is trained."""
    small = isinstance(task.pretrained.settings, SmallResNet)
    size, resize = sizes(chosen, task.pretrained.image_size)
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
            interpolation=chosen.interpolation,
            mean=task.pretrained.mean,
            std=task.pretrained.std,
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


def trained(task: Task, settings: Pretraining, *, resume: bool, overwrite: bool) -> Classifying:
    """Train to the end, from wherever the run in the folder is; all ranks call this together."""
    source = images_of(settings.data)
    if settings.batch_size > len(source):
        raise ValueError(f"protocol.batch-size {settings.batch_size} is larger than the {len(source)} labelled images")
    feed = feed_of(settings, task.place, task.device)
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
    for layer, scores in enumerate(logits_of(method, test, looking, numbers)):
        found = measured(whole(scores).numpy(), truth, task.benchmark.metric)
        results |= {f"{name}{_of(layer, len(numbers))}{what}": value for name, value in found.items()}
    return results


def accuracies(method: Classifying, held: Images, looking: Looking, numbers: list[int]) -> dict[int, float]:
    """Return the top-1 accuracies of some of the classifiers."""
    classes = held.classes
    assert classes is not None
    found = logits_of(method, held, looking, numbers)
    return {
        number: measured(whole(scores).numpy(), classes, "top-1")["top-1"]
        for number, scores in zip(numbers, found, strict=True)
    }


def logits_of(method: Classifying, images: Images, looking: Looking, numbers: list[int]) -> list[Tensor]:
    """Return the scores (n_r, C) of this rank's images by some of the classifiers; of several crops, their mean."""
    method.eval()

    def forward(shown: Tensor) -> list[Tensor]:
        crops = shown if shown.ndim == 5 else shown[:, None]
        features = method.features(crops.flatten(0, 1))
        return [_mean(head(features[probe.layer]), crops.shape[1]) for head, probe in chosen]

    every = list(method.heads)
    probes = method.probes if isinstance(method, Probes) else (Probe(0, 0.0, choosing=False),)
    chosen = [(every[number], probes[number]) for number in numbers]
    return features_of(forward, images, looking, "test images")


def _mean(logits: Tensor, crops: int) -> Tensor:
    """Average over crops what the scores say, as probabilities."""
    return logits if crops == 1 else logits.softmax(dim=1).unflatten(0, (-1, crops)).mean(dim=1)


def _held(images: Images, chosen: Linear) -> Images:
    return rows_of(images, held_out_rows(len(images), chosen.held_out, chosen.seed).nonzero()[:, 0].numpy())


def _of(layer: int, layers: int) -> str:
    return f", conv{layer + 1}" if layers > 1 else ""


def _on_digits(task: Task) -> tuple[str, ...]:
    small = isinstance(task.pretrained.settings, SmallResNet)
    return ("the digits are distorted as in pretraining, in place of crops",) if small else ()
