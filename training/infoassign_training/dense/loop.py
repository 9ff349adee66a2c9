"""Training on images of any sizes, step by step, from wherever the checkpoint stands."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from math import inf, isfinite
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from infoassign.files import write_text
from infoassign_training.data.loader import deaf, in_one_line
from infoassign_training.data.views import seed_of
from infoassign_training.dense.challenge import Target, View, Views
from infoassign_training.dense.settings import Schedule
from infoassign_training.engine import checkpoint, ranks
from infoassign_training.engine.checkpoint import Checkpoint
from infoassign_training.engine.pretrain import StoppedError, TrainingError, shared
from infoassign_training.engine.ranks import Place
from infoassign_training.stopping import heard

Shown = TypeVar("Shown", covariant=True)
"""An image as it is tested, and what belongs to it."""
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
"""What is written to the folder."""
LOGGED, SAVED = 20, 1000
"""Steps between lines of the log, and between checkpoints."""


class Tested(Protocol[Shown]):
    """Images to be tested, by row; they are sent to worker processes."""

    def __getitem__(self, row: int) -> Shown: ...


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
        Where checkpoint and log are written, by the first rank alone; it is made.
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
    optimizer = optimizer_of(model, schedule)
    state = checkpoint.load(folder / CHECKPOINT)
    first = 0
    if state is not None:
        state.restore_method(model)
        optimizer.load_state_dict(state.optimizer)
        first = state.step
    model.train()
    module = shared(model, place)
    device = _device(model)
    feed = _batches(views, schedule.batch_size, place, range(first, schedule.iterations), workers, device)
    if place.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        _cut(folder / LOG, first)
    shows = not quiet and place.rank == 0
    bar = tqdm(total=schedule.iterations, initial=first, desc="train", unit="step", disable=not shows)
    bar.mininterval = 0.2 if sys.stderr.isatty() else 10
    with heard() as asked, bar, torch.random.fork_rng([device] if device.type == "cuda" else []):
        for step, (images, targets) in enumerate(feed, start=first):
            # What the model draws, such as regions, is drawn anew at every step, the same after an interruption.
            torch.manual_seed(seed_of(seed, 2, step, place.rank))
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            losses = _step(module, optimizer, images, targets, schedule.at_once, device)
            done = step + 1
            bar.update()
            if done % LOGGED == 0 or done == schedule.iterations:
                _log(folder, place, bar, done, losses)
            stop = ranks.any_of(bool(asked()))
            if done % SAVED == 0 or done == schedule.iterations or stop:
                _require_finite(model, done)
                if place.rank == 0:
                    kept = Checkpoint(done, model.state_dict(), optimizer.state_dict(), {}, {})
                    checkpoint.save(folder / CHECKPOINT, kept)
                ranks.wait()
            if stop:
                raise StoppedError(f"stopped after step {done} of {schedule.iterations}; it goes on with --resume")
        for _ in refresh(model, views, schedule, seed, place, workers=workers):
            if ranks.any_of(bool(asked())):
                raise StoppedError("stopped before the statistics were all taken anew; it goes on with --resume")
    _agree(model, place)
    model.eval()


def _step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: list[Tensor],
    targets: list[Target],
    at_once: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Go a step, and return the losses, means over the images."""
    optimizer.zero_grad()
    size, total = at_once or len(images), dict[str, Tensor]()
    for first in range(0, len(images), size):
        part = slice(first, first + size)
        share = len(images[part]) / len(images)
        apart = first + size < len(images) and isinstance(module, DistributedDataParallel)
        with cast(DistributedDataParallel, module).no_sync() if apart else nullcontext():
            losses: dict[str, Tensor] = module(*_moved(images[part], targets[part], device))
            (torch.stack(list(losses.values())).sum() * share).backward()
        for name, value in losses.items():
            total[name] = total.get(name, 0) + value.detach() * share
    optimizer.step()
    return {"loss": torch.stack(list(total.values())).sum(), **total}


def _log(folder: Path, place: Place, bar: "tqdm[object]", step: int, losses: dict[str, Tensor]) -> None:
    """Write and show the losses of the first rank; all stop if one's are no longer finite."""
    values = {name: float(value) for name, value in losses.items()}
    if ranks.any_of(not isfinite(values["loss"])):
        raise _diverged(step)
    if place.rank == 0:
        bar.set_postfix(loss=f"{values['loss']:.3f}")
        with (folder / LOG).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _cut(log: Path, step: int) -> None:
    """Leave out of a log what came after the checkpoint that training goes on from."""
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines()
        write_text(log, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    """Return the step of a line of the log; infinity of one that a process which was killed has not finished."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return inf


def _require_finite(model: nn.Module, step: int) -> None:
    """Raise TrainingError rather than let a checkpoint be replaced by one that is of no use."""
    finite = torch.stack([value.isfinite().all() for value in model.state_dict().values()]).all()
    if ranks.any_of(not finite):
        raise _diverged(step)


def _diverged(step: int) -> TrainingError:
    return TrainingError(
        f"the loss or the weights are no longer finite after step {step}; take a lower learning rate or a longer"
        " warm-up, and begin with --overwrite"
    )


@torch.no_grad()
def refresh(
    model: nn.Module, views: Views, schedule: Schedule, seed: int, place: Place, *, workers: int = 0
) -> Iterator[int]:
    """Take the statistics of normalisation anew, as means over batches with the weights as they are.

    Detectron2 calls it precise normalisation; MoCo's code does it, over 200 batches, before detections are scored.

    Yields
    ------
    int
        The batches that are done.
    """
    layers = _normalising(model)
    if not schedule.refreshed or not layers:
        return
    kept = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    model.train()
    device, begin = _device(model), schedule.iterations
    feed = _batches(views, schedule.batch_size, place, range(begin, begin + schedule.refreshed), workers, device)
    for step, (images, targets) in enumerate(feed):
        torch.manual_seed(seed_of(seed, 3, step, place.rank))
        size = schedule.at_once or len(images)
        for first in range(0, len(images), size):
            model(*_moved(images[first : first + size], targets[first : first + size], device))
        yield step + 1
    for layer, momentum in zip(layers, kept, strict=True):
        layer.momentum = momentum


def _agree(model: nn.Module, place: Place) -> None:
    """Give all ranks the mean of their statistics: without CUDA each has seen its own images alone."""
    summed = ranks.all_sum()
    if summed is None:
        return
    for layer in _normalising(model):
        for statistic in (layer.running_mean, layer.running_var):
            assert statistic is not None
            statistic.copy_(summed(statistic.clone()) / place.world)


def _normalising(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the layers whose statistics are trained."""
    return [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def optimizer_of(model: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    """Return SGD over all that is trained; what normalises has no weight decay."""
    norms = {parameter for layer in _normalising(model) for parameter in layer.parameters()}
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
    views: Views, size: int, place: Place, steps: range, workers: int, device: torch.device
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    """Yield this rank's part of the batches of some steps."""
    part = place.part(size)
    rows = [[*range(step * size + part.start, step * size + part.stop)] for step in steps]
    loader: Iterable[tuple[list[Tensor], list[Target]]] = DataLoader(
        views,  # type: ignore[arg-type]  # it has no length
        batch_sampler=rows,
        collate_fn=_together,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        multiprocessing_context="spawn" if workers and device.type == "cuda" else None,
        generator=torch.Generator(),  # for seeds of the workers, which they do not use
        worker_init_fn=deaf,
    )
    return in_one_line(loader)


def one_by_one(images: Tested[Shown], rows: Sequence[int], workers: int, device: torch.device) -> Iterator[Shown]:
    """Yield images to be tested in the order of some rows, read in worker processes if there are any.

    Raises
    ------
    ImagesError
        If an image cannot be decoded; the message names it.
    """
    loader: Iterable[Shown] = DataLoader(
        images,  # type: ignore[arg-type]  # it has no length
        sampler=rows,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="spawn" if workers and device.type == "cuda" else None,
        generator=torch.Generator(),
        worker_init_fn=deaf,
    )
    return in_one_line(loader)


def _together(views: list[View]) -> tuple[list[Tensor], list[Target]]:
    """Make a batch of views, whose images differ in size."""
    return [image for image, _ in views], [target for _, target in views]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _moved(images: list[Tensor], targets: list[Target], device: torch.device) -> tuple[list[Tensor], list[Target]]:
    """Bring a batch to the device."""
    there = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for target in targets]
    return [image.to(device, non_blocking=True) for image in images], there
