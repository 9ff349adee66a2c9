"""Work on the memory of the host: its threads, how matrices are cut for them, and which passes are made."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import count
from types import ModuleType
from typing import Any

import array_api_compat as api
import numpy as np
from numpy.typing import NDArray

from infoassign_backends import blocked
from infoassign_backends.protocol import Array

LOG = logging.getLogger("infoassign")
COMPILE_FROM = 2**18
"""Entries of a matrix from which on passes are compiled, which takes some seconds when it is not in numba's cache."""
THREADED_FROM, TASK, PIECES = 2**16, 2**15, 4
"""Entries from which on threads are worth their while, those of a piece at least, and pieces for each thread."""


def threads() -> int:
    """Return how many threads to use: the environment's ``OMP_NUM_THREADS``, or one for each processor."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    # Not all systems say which processors are for this process.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(number: int, process: int) -> ThreadPoolExecutor:
    """Return the threads of this process; a fork of it gets its own."""
    return ThreadPoolExecutor(number, thread_name_prefix=f"infoassign-{process}")


def in_threads(work: Callable[[Any], Any], tasks: list[Any]) -> list[Any]:
    """Return the results of tasks, in their order; NumPy and compiled code release the interpreter's lock.

    The caller's thread works, too, and whoever is done takes the next task: a thread that sleeps wakes up late. After
    an error no task is begun any more, and it is raised when none is under way.
    """
    helpers = min(threads(), len(tasks)) - 1
    if helpers < 1:
        return [work(task) for task in tasks]
    found: list[Any] = [None] * len(tasks)
    following, left = count(), [len(tasks)]

    def take() -> None:
        try:
            while (i := next(following)) < left[0]:
                found[i] = work(tasks[i])
        except BaseException:
            left[0] = 0
            raise

    others = [_pool(threads() - 1, os.getpid()).submit(take) for _ in range(helpers)]
    try:
        take()
    finally:
        begun = [other for other in others if not other.cancel()]  # the others' threads are busy elsewhere
        wait(begun)
    for other in begun:
        other.result()
    return found


def slices(shape: tuple[int, int], entries: int, together: int = 1) -> list[slice]:
    """Cut the rows of a matrix of this shape into slices of so many entries, of whole groups of some rows."""
    rows, columns = shape
    step = max(1, entries // columns // together) * together
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


Piece = tuple[slice, slice]
"""Some problems and some rows; of several problems it is all rows."""


def pieces(shape: tuple[int, ...], entries: int) -> list[Piece]:
    """Cut matrices of shape (problems, rows, columns) into pieces of about so many entries."""
    problems, rows, columns = shape
    together = entries // (rows * columns)
    if together > 1:
        return [(slice(p, min(p + together, problems)), slice(0, rows)) for p in range(0, problems, together)]
    cut = slices((rows, columns), entries, together=8)
    return [(slice(p, p + 1), some) for p in range(problems) for some in cut]


def shares(shape: tuple[int, ...]) -> list[Piece]:
    """Cut matrices of shape (problems, rows, columns) into some pieces for each thread; small ones are left whole."""
    problems, rows, columns = shape
    size = problems * rows * columns
    return pieces(shape, size if size < THREADED_FROM or threads() == 1 else max(TASK, size // (PIECES * threads())))


@cache
def _numba() -> ModuleType | None:
    """Return the compiled passes; None where numba is not installed, or does not fit what is."""
    try:
        from infoassign_backends import compiled
    except ModuleNotFoundError as error:
        if error.name not in {"numba", "llvmlite"}:
            raise
        return None
    except ImportError as error:  # numba refuses a NumPy that is newer than it knows
        LOG.warning("numba cannot be used (%s); NumPy's passes are used instead, which are slower", error)
        return None
    return compiled


def passes(entries: int) -> ModuleType:
    """Return the module whose passes to make over a matrix of so many entries."""
    return (entries >= COMPILE_FROM and _numba()) or blocked


def as_numpy(array: Array) -> NDArray[Any]:
    """Return an array on the host as NumPy's, without a copy where NumPy has the dtype."""
    if api.is_torch_array(array):
        import torch

        array = array.detach().resolve_neg()
        return np.asarray(array.float() if array.dtype == torch.bfloat16 else array)
    return np.asarray(array)
