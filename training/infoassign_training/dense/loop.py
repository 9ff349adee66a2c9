"""Training on images of any sizes, step by step, from wherever the checkpoint stands."""

import json
import sys
from collections.abc import Iterable, Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from infoassign_training.data.views import seed_of
from infoassign_training.dense.challenge import Target, View, Views
from infoassign_training.dense.settings import Schedule
from infoassign_training.engine import checkpoint, ranks
from infoassign_training.engine.checkpoint import Checkpoint
from infoassign_training.engine.pretrain import StoppedError, TrainingError, shared
from infoassign_training.engine.ranks import Place
from infoassign_training.stopping import heard

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
"""What is written to the folder."""
LOGGED, SAVED = 20, 1000
"""Steps between lines of the log, and between checkpoints."""


def train(
    model: nn.Module,
    views: Views,
    schedule: Schedule,
    seed: int,
    folder: Path,
    place: Place,
    *,
    workers: int = 0,
    quiet: bool = False,
) -> None:
    """Train a model to the end of its schedule, from where the folder's checkpoint stands.

    Parameters
    ----------
    model
        Where it begins, on the device to compute on; in the end in evaluation mode. Images and targets in, losses by
        name out.
    views
        What it is shown.
    schedule
        How.
    seed
        Of what the model draws.
    folder
        Where checkpoint and log are written, by the first rank alone.
    place
        Which rank this is; all call this together, and share out each batch.
    workers
        Further processes for each that read images.
    quiet
        Whether to show no progress.

    Raises
    ------
    TrainingError
        If the loss is no longer finite; the last checkpoint is kept.
    StoppedError
        If the system asked to stop; a checkpoint is written.
    CheckpointError
        If the folder's checkpoint cannot be used.
    """
    if schedule.batch_size % place.world:
        raise TrainingError(f"schedule.batch-size must be a multiple of the {place.world} processes")
    optimizer = optimizer_of(model, schedule)
    state = checkpoint.load(folder / CHECKPOINT)
    first = 0
    if state is not None:
        state.restore_method(model)
        optimizer.load_state_dict(state.optimizer)
        first = state.step
    model.train()
    module = shared(model, place)
    feed = _batches(views, schedule.batch_size, place, range(first, schedule.iterations), workers)
    device = _device(model)
    shows = not quiet and place.rank == 0
    bar = tqdm(total=schedule.iterations, initial=first, desc="train", unit="step", disable=not shows)
    bar.mininterval = 0.2 if sys.stderr.isatty() else 10
    with heard() as asked, bar, torch.random.fork_rng([device] if device.type == "cuda" else []):
        for step, (images, targets) in enumerate(feed, start=first):
            # What the model draws, such as regions, is drawn anew at every step, the same after an interruption.
            torch.manual_seed(seed_of(seed, 2, step, place.rank))
            losses = _step(module, optimizer, schedule.rate(step), *_moved(images, targets, device))
            done = step + 1
            bar.update()
            if done % LOGGED == 0 or done == schedule.iterations:
                _log(folder, place, bar, done, losses)
            stop = done < schedule.iterations and ranks.any_of(bool(asked()))
            if done % SAVED == 0 or done == schedule.iterations or stop:
                if place.rank == 0:
                    kept = Checkpoint(done, model.state_dict(), optimizer.state_dict(), {}, {})
                    checkpoint.save(folder / CHECKPOINT, kept)
                ranks.wait()
            if stop:
                raise StoppedError(f"stopped after step {done} of {schedule.iterations}; it goes on with --resume")
        refresh(model, views, schedule, seed, place, workers=workers)
    model.eval()


def _step(
    module: nn.Module, optimizer: torch.optim.Optimizer, rate: float, images: list[Tensor], targets: list[Target]
) -> dict[str, Tensor]:
    """Go a step, and return the losses."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    losses: dict[str, Tensor] = module(images, targets)
    loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}


def _log(folder: Path, place: Place, bar: "tqdm[object]", step: int, losses: dict[str, Tensor]) -> None:
    """Write and show the losses of the first rank; all stop if one's are no longer finite."""
    values = {name: float(value) for name, value in losses.items()}
    if ranks.any_of(not isfinite(values["loss"])):
        raise TrainingError(
            f"the loss is no longer finite after step {step}; take a lower learning rate or a longer warm-up, and"
            " begin with --overwrite"
        )
    if place.rank == 0:
        bar.set_postfix(loss=f"{values['loss']:.3f}")
        with (folder / LOG).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


@torch.no_grad()
def refresh(model: nn.Module, views: Views, schedule: Schedule, seed: int, place: Place, *, workers: int = 0) -> None:
    """Take the statistics of normalisation anew, as means over batches with the weights as they are.

    Detectron2 calls it precise normalisation; MoCo's code does it, over 200 batches, before detections are scored.
    """
    if not schedule.refreshed:
        return
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    kept = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    model.train()
    device, begin = _device(model), schedule.iterations
    feed = _batches(views, schedule.batch_size, place, range(begin, begin + schedule.refreshed), workers)
    for step, (images, targets) in enumerate(feed):
        torch.manual_seed(seed_of(seed, 3, step, place.rank))
        model(*_moved(images, targets, device))
    for layer, momentum in zip(layers, kept, strict=True):
        layer.momentum = momentum


def optimizer_of(model: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    """Return SGD over all that is trained; what normalises has no weight decay."""
    norms = {
        parameter
        for layer in model.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for parameter in layer.parameters()
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter not in norms]},
        {"params": [parameter for parameter in trained if parameter in norms], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )


def _batches(
    views: Views, size: int, place: Place, steps: range, workers: int
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    """Yield this rank's part of the batches of some steps."""
    part = place.part(size)
    rows = [[*range(step * size + part.start, step * size + part.stop)] for step in steps]
    loader: Iterable[tuple[list[Tensor], list[Target]]] = DataLoader(
        views,  # type: ignore[arg-type]  # it has no length
        batch_sampler=rows,
        collate_fn=_together,
        num_workers=workers,
    )
    return iter(loader)


def _together(views: list[View]) -> tuple[list[Tensor], list[Target]]:
    """Make a batch of views, whose images differ in size."""
    return [image for image, _ in views], [target for _, target in views]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _moved(images: list[Tensor], targets: list[Target], device: torch.device) -> tuple[list[Tensor], list[Target]]:
    """Bring a batch to the device."""
    there = [{name: value.to(device) for name, value in target.items()} for target in targets]
    return [image.to(device) for image in images], there
