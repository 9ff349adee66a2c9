"""When to stop before the end: what the system asks by a signal, heard between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM is what a system sends before it ends a process; SIGUSR1 what SLURM may be told to send ahead of that."""


@contextmanager
def heard() -> Iterator[Callable[[], str]]:
    """Take note of `SIGNALS` instead of ending at once; what was there before is put back in the end.

    Yields
    ------
    callable
        Returns the name of the signal that came, or an empty string.
    """
    came: list[str] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(signal.Signals(number).name)

    # Python lets the main thread alone say what signals do.
    kept = {}
    if threading.current_thread() is threading.main_thread():
        kept = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: came[0] if came else ""
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
