"""How fast a recipe's steps are on this machine, and where their time goes."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from infoassign_training import timing
from infoassign_training.config import Pretraining
from infoassign_training.data.settings import Digits, Synthetic
from infoassign_training.engine import ranks
from infoassign_training.engine.feed import Feed, feed_of
from infoassign_training.engine.pretrain import TrainingError, train
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run
from infoassign_training.errors import UserError
from infoassign_training.methods.build import build
from infoassign_training.methods.method import Batch
from infoassign_training.methods.transfer import Transfer

PHOTOGRAPH = 256
"""Size of the noise that stands for photographs, and of what ``infoassign pack`` makes of them."""


MANY = 1_000_000
"""Epochs of which nobody sees the end."""


@dataclass(frozen=True)
class Throughput:
    """What was measured.

    Examples
    --------
    >>> found = Throughput(
    ...     device="cpu",
    ...     processes=1,
    ...     batch_size=128,
    ...     steps=20,
    ...     images_per_second=1000.0,
    ...     images_per_second_per_device=1000.0,
    ...     milliseconds=(128.0, 120.0, 140.0),
    ...     shares={"compute": 0.9, "assignment": 0.1},
    ...     peak_memory=None,
    ...     noise=False,
    ... )
    >>> print(found.table().splitlines()[2])
    images a second  1000, 1000 a device
    >>> found.to_dict()["bottleneck"]
    'Bottleneck: compute, 90 % of the time, as it should be.'
    """

    device: str
    """What computed."""
    processes: int
    """How many there were."""
    batch_size: int
    """Of all processes."""
    steps: int
    """How many were measured, after some that were not."""
    images_per_second: float
    """Of all processes; every image has several views."""
    images_per_second_per_device: float
    """The same, divided by their number."""
    milliseconds: tuple[float, float, float]
    """Of a step: median, shortest, longest."""
    shares: dict[str, float]
    """Of the time of the first process, by part."""
    peak_memory: int | None
    """Bytes: on CUDA what torch had allocated at most, else the memory of the process; None where that is unknown."""
    noise: bool
    """Whether the images were noise, which need not be read and decoded."""

    @property
    def assignment(self) -> float:
        """The share of labels and loss."""
        return self.shares.get(timing.ASSIGNMENT, 0.0)

    def table(self) -> str:
        """Lay it out as text."""
        middle, shortest, longest = self.milliseconds
        rows = {
            "device": f"{self.device}, {self.processes} process{'' if self.processes == 1 else 'es'}",
            "batch": f"{self.batch_size} images, {self.batch_size // self.processes} a process",
            "images a second": f"{self.images_per_second:.4g}, {self.images_per_second_per_device:.4g} a device",
            "ms a step": f"{middle:.4g} (median of {self.steps}; {shortest:.4g} to {longest:.4g})",
            "time": timing.split(self.shares),
            "labels and loss": f"{100 * self.assignment:.1f} % of a step",
        }
        if self.peak_memory is not None:
            whose = "on the device" if self.device.startswith("cuda") else "of the process"
            rows["peak memory"] = f"{self.peak_memory / 1e9:.2f} GB {whose}"
        if self.noise:
            rows["images"] = "noise: nothing is read or decoded; --data WHERE measures yours"
        lines = [f"{name:<16} {value}" for name, value in rows.items()]
        return "\n".join([*lines, "", timing.bottleneck(self.shares)])

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self) | {"assignment": self.assignment, "bottleneck": timing.bottleneck(self.shares)}


def on_noise(settings: Pretraining, images: int) -> Pretraining:
    """Take noise instead of the images of a recipe; digits stay digits.

    Parameters
    ----------
    settings
        Of the recipe.
    images
        How many.

    Examples
    --------
    >>> from infoassign_training.recipes import RECIPES
    >>> on_noise(RECIPES["mira-cifar10"].settings, 500).data
    Synthetic(count=500, size=32)
    """
    if isinstance(settings.data, Digits):
        return settings
    # Small images come as they are, photographs larger than what is cropped from them.
    size = settings.image_size if settings.image_size <= 64 else max(PHOTOGRAPH, settings.image_size)
    return replace(settings, data=Synthetic(count=images, size=size))


def measure(settings: Pretraining, *, steps: int = 20, warmup: int = 5) -> Throughput:
    """Train for some steps, and write nothing; under torchrun every process calls this.

    Of the images of `settings`, as many take part as the steps need. Methods that label all images (SeLa, DeepCluster)
    do so once, before the first step, which is not measured unless `warmup` is 0.

    Parameters
    ----------
    settings
        What to do.
    steps
        How many to measure.
    warmup
        How many before them, in which memory is allocated and workers start.

    Returns
    -------
    Throughput
        Of all processes; the shares and the memory are those of this one.

    Raises
    ------
    UserError
        If the images cannot be read, the batch does not fit into memory, or training diverges.
    TrainingError
        One of these.

    Examples
    --------
    >>> measure(Pretraining(device="cpu"), steps=2, warmup=1).steps
    2
    """
    require_steps(steps, warmup)
    # So many that these steps are among the first, and a method that labels all images does so before them alone.
    settings = replace(settings, epochs=MANY)
    try:
        with ranks.joined(settings.device) as (place, device):
            return _measured(settings, place, device, steps, warmup)
    except torch.OutOfMemoryError as error:
        raise _too_large(settings) from error
    except MemoryError as error:
        raise _too_large(settings) from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # what torch says on the CPU
            raise
        raise _too_large(settings) from error
    except ValueError as error:
        raise TrainingError(str(error)) from error


def require_steps(steps: int, warmup: int) -> None:
    """Raise UserError unless there is something to measure."""
    for name, value, least in (("steps", steps, 1), ("warmup", warmup, 0)):
        if value < least:
            raise UserError(f"{name} must be at least {least}; got {value}")


def _measured(settings: Pretraining, place: Place, device: torch.device, steps: int, warmup: int) -> Throughput:
    feed = feed_of(settings, place, device, most=settings.batch_size * (steps + warmup))
    method = build(settings, images=feed.images, classes=feed.classes).to(device)
    if isinstance(method, Transfer):
        method.targets.zero_()  # any labels take as long, and those of a file are of all images
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # What training would write is thrown away.
    with tempfile.TemporaryDirectory() as folder, timing.running(device) as watch:
        counted = _Counted(feed, watch, device, steps, warmup, shown=place.rank == 0)
        with suppress(_EnoughError):
            train(method, settings, counted, Run(Path(folder)), place, quiet=True)
    rate = steps * settings.batch_size / counted.seconds
    times = counted.milliseconds()
    return Throughput(
        device=f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu",
        processes=place.world,
        batch_size=settings.batch_size,
        steps=steps,
        images_per_second=rate,
        images_per_second_per_device=rate / place.world,
        milliseconds=(median(times), min(times), max(times)),
        shares=counted.shares,
        peak_memory=_peak_memory(device),
        noise=isinstance(settings.data, Synthetic),
    )


def _too_large(settings: Pretraining) -> TrainingError:
    return TrainingError(
        f"a batch of {settings.batch_size} images does not fit into memory; lower --batch-size, which is that of all"
        " processes together, raise --accumulate, or start more processes"
    )


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class _EnoughError(Exception):
    """All steps are done that were to be measured."""


class _Counted:
    """A feed that counts the steps that are made of its batches, and stops training after some."""

    def __init__(
        self, feed: Feed, watch: timing.Stopwatch, device: torch.device, steps: int, warmup: int, *, shown: bool
    ) -> None:
        self.images, self.classes, self.steps_per_epoch = feed.images, feed.classes, feed.steps_per_epoch
        self.true_classes = feed.true_classes
        self.seconds = 0.0
        self.shares: dict[str, float] = {}
        self._feed, self._watch, self._device = feed, watch, device
        self._steps, self._warmup = steps, warmup
        self._done = 0
        self._marks: list[Any] = []
        self._bar = tqdm(total=warmup + steps, desc="throughput", unit="step", disable=not shown)
        if warmup == 0:
            self._begin()

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch; when the next one is asked for, a step is done."""
        for batch in self._feed.epoch(number, first):
            yield batch
            self._step_done()

    def everything(self, step: int, views: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Go once over all images."""
        return self._feed.everything(step, views)

    def sample(self, count: int) -> Iterator[Batch]:
        """Yield some images."""
        return self._feed.sample(count)

    def milliseconds(self) -> list[float]:
        """Return the time of every step."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if self._device.type == "cuda":
            return [before.elapsed_time(after) for before, after in pairs]
        return [1000 * (after - before) for before, after in pairs]

    def _step_done(self) -> None:
        self._done += 1
        self._bar.update()
        if self._done == self._warmup:
            self._begin()
        elif self._done > self._warmup:
            self._mark()
        if self._done == self._warmup + self._steps:
            self._wait()
            self.seconds = time.perf_counter() - self._started
            self.shares = self._watch.shares()
            self._bar.close()
            raise _EnoughError

    def _begin(self) -> None:
        self._wait()
        self._watch.restart()
        self._started = time.perf_counter()
        self._mark()

    def _mark(self) -> None:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
