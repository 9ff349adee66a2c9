"""Where the time of training goes: a stopwatch of named parts, and which of them holds the others up."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")

DATA = "data"
"""Waiting for images. What worker processes do, decode and draw views, is in here: it is only waited for."""
AUGMENTATION = "augmentation"
"""What is done to views in this process: normalisation on the device and, without worker processes, drawing them."""
COMPUTE = "compute"
"""Forward and backward; on several ranks with the averaging of gradients, which goes on during the backward pass."""
ASSIGNMENT = "assignment"
"""Labels and loss."""
COMMUNICATION = "communication"
"""Collective operations on labels, embeddings and rows, with the wait for the slowest rank."""
OPTIMISER = "optimiser"
"""Updates of weights and of their moving averages."""
OTHER = "other"
"""What is in none of the parts: checks, the log, the progress bar."""
PARTS = (DATA, AUGMENTATION, COMPUTE, ASSIGNMENT, COMMUNICATION, OPTIMISER, OTHER)
"""All of them, in the order in which they are shown."""
PENDING = 1024
"""Marks that may wait for a device before those that it has passed are read."""


class Stopwatch:
    """Sums up the time by part; parts may be nested, and the inner one's time is not the outer one's.

    On CUDA the marks are events in the stream, so that nothing waits for the device: a part has the time that the
    device took for what was begun in it, or stood idle in it. It is read when the device has passed.

    Parameters
    ----------
    device
        What computes.

    Examples
    --------
    >>> watch = Stopwatch(torch.device("cpu"))
    >>> with watch("compute"):
    ...     with watch("communication"):
    ...         pass
    >>> sorted(watch.seconds())
    ['communication', 'compute', 'other']
    >>> watch.restart()
    >>> round(sum(watch.shares().values()), 9)
    1.0
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._open: list[str] = []
        self.restart()

    def restart(self) -> None:
        """Forget what was measured; parts that are open stay so."""
        self._seconds: dict[str, float] = {}
        # On CUDA: events, and the part that each ended.
        self._events: list[tuple[Any, str]] = []
        self._last: Any = self._now()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time in the block as that of a part."""
        self._mark()
        self._open.append(part)
        try:
            yield
        finally:
            self._mark()
            self._open.pop()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every part that there was, till now; waits for a CUDA device."""
        self._mark()
        if self._cuda:
            self._last.synchronize()
            self._read()
        return dict(self._seconds)

    def shares(self) -> dict[str, float]:
        """Return the shares of the parts, which sum to 1; empty if no time passed."""
        seconds = self.seconds()
        total = sum(seconds.values())
        return {part: seconds[part] / total for part in seconds} if total else {}

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _mark(self) -> None:
        """End an interval, which was that of the innermost part."""
        now, part = self._now(), self._open[-1] if self._open else OTHER
        if not self._cuda:
            self._seconds[part] = self._seconds.get(part, 0.0) + now - self._last
            self._last = now
            return
        if not self._events:
            self._first = self._last
        self._events.append((now, part))
        self._last = now
        if len(self._events) >= PENDING:
            self._read()

    def _read(self) -> None:
        """Add up the intervals that the device has passed."""
        done = 0
        for event, part in self._events:
            if not event.query():
                break
            self._seconds[part] = self._seconds.get(part, 0.0) + self._first.elapsed_time(event) / 1000
            self._first = event
            done += 1
        del self._events[:done]


_running: ContextVar[Stopwatch | None] = ContextVar("running", default=None)


@contextmanager
def running(device: torch.device) -> Iterator[Stopwatch]:
    """Run a stopwatch, the one that :func:`part` tells; if one is running already, it is that one.

    Parameters
    ----------
    device
        What computes.

    Examples
    --------
    >>> with running(torch.device("cpu")) as watch:
    ...     with part("compute"):
    ...         pass
    >>> sorted(watch.seconds())
    ['compute', 'other']
    """
    found = _running.get()
    if found is not None:
        yield found
        return
    watch = Stopwatch(device)
    token = _running.set(watch)
    try:
        yield watch
    finally:
        _running.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Count the time in the block as that of a part, if a stopwatch is running; else do nothing.

    So methods, feeds and collective operations need not be handed a stopwatch.

    Parameters
    ----------
    name
        One of `PARTS`.

    Examples
    --------
    >>> with part("compute"):  # no stopwatch is running: nothing is counted
    ...     pass
    """
    watch = _running.get()
    if watch is None:
        yield
        return
    with watch(name):
        yield


def timed(name: str, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items; the time that each takes to come is that of a part.

    Parameters
    ----------
    name
        One of `PARTS`.
    items
        Whatever takes its time.

    Examples
    --------
    >>> with running(torch.device("cpu")) as watch:
    ...     found = list(timed("data", [1, 2, 3]))
    >>> found, "data" in watch.seconds()
    ([1, 2, 3], True)
    """
    iterator = iter(items)
    while True:
        with part(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def logged(shares: Mapping[str, float]) -> dict[str, float]:
    """Return shares as the log has them.

    Examples
    --------
    >>> logged({"data": 0.25, "compute": 0.75})
    {'share_data': 0.25, 'share_compute': 0.75}
    """
    return {f"share_{name}": share for name, share in shares.items()}


def over_epochs(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the shares of all epochs together, from lines of the log; empty if no line has any.

    Examples
    --------
    >>> lines = [{"seconds": 1.0, "share_data": 1.0}, {"seconds": 3.0, "share_compute": 1.0}]
    >>> over_epochs(lines)
    {'data': 0.25, 'compute': 0.75}
    """
    seconds: dict[str, float] = {}
    for record in records:
        for name in PARTS:
            if f"share_{name}" in record:
                seconds[name] = seconds.get(name, 0.0) + record["seconds"] * record[f"share_{name}"]
    total = sum(seconds.values())
    return {name: value / total for name, value in seconds.items()} if total else {}


LIMITS: tuple[tuple[str, float, str], ...] = (
    (DATA, 0.3, "give more --workers, or scale the images down once with `infoassign pack`"),
    (AUGMENTATION, 0.3, "let --workers processes draw the views"),
    (COMMUNICATION, 0.2, "use fewer, larger processes or a faster network, and see that no rank is slower than others"),
    (ASSIGNMENT, 0.1, "look for steps of the solver that are not needed (solver_sweeps in the log, the tolerance)"),
    (OPTIMISER, 0.2, "a larger --batch-size has fewer updates"),
    (OTHER, 0.3, "steps are so short that checks and the log show; a larger --batch-size has fewer of them"),
)
"""Parts that should be small, the share from which on they are not, and what to do."""


def bottleneck(shares: Mapping[str, float]) -> str:
    """Name what holds training up, in a sentence with advice.

    Of the parts that are larger than they should be, the largest; compute if there is none.

    Parameters
    ----------
    shares
        By part.

    Examples
    --------
    >>> bottleneck({"data": 0.6, "compute": 0.4})
    'Bottleneck: data, 60 % of the time; give more --workers, or scale the images down once with `infoassign pack`.'
    >>> bottleneck({"data": 0.1, "compute": 0.9})
    'Bottleneck: compute, 90 % of the time, as it should be.'
    """
    excessive = [(shares.get(name, 0.0), name, advice) for name, limit, advice in LIMITS if shares.get(name, 0) > limit]
    if not excessive:
        return f"Bottleneck: compute, {100 * shares.get(COMPUTE, 0.0):.0f} % of the time, as it should be."
    share, name, advice = max(excessive)
    return f"Bottleneck: {name}, {100 * share:.0f} % of the time; {advice}."


def split(shares: Mapping[str, float]) -> str:
    """Lay shares out as text, the largest first.

    Examples
    --------
    >>> split({"data": 0.25, "compute": 0.7, "other": 0.05})
    'compute 70 %, data 25 %, other 5 %'
    """
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in ordered)
