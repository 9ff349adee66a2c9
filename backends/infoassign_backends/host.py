"""One pass over rows in the memory of the host that are not kept: streams of scores, and products of factors.

All is computed in float64, some rows at a time and so many at once as there are threads (the environment's
``OMP_NUM_THREADS``, or one for each processor). With numba installed (the extra ``fast``) a compiled pass is used; the
NumPy one beside it needs no more than an exponential an entry either and is what the compiled one is tested against.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import array_api_compat as api
import numpy as np
from numpy.typing import NDArray

from infoassign_backends.protocol import Array, Masses
from infoassign_backends.reference import log_sum_exp_of_columns

TILE = 2**18
"""Entries that NumPy works on at a time: few enough for the cache, enough that threads need not wait for each other."""
PIECE = 2**21
"""Entries that one thread takes at a time."""
UNDERFLOW = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)
"""A mass, by the row, from which on what underflowed in it does not matter."""
COMPILE_FROM = 2**20
"""Entries in a call from which the second that compiling takes is worth it."""

Float = NDArray[np.float64]
Sums = tuple[Float, Float]
"""The columns' masses (K,), and the rows' log-normalisers (b,)."""


def threads() -> int:
    """Return how many threads to use."""
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
    """Return the results of tasks, in their order; NumPy and compiled code release the interpreter's lock."""
    if threads() == 1 or len(tasks) == 1:
        return [work(task) for task in tasks]
    return list(_pool(threads(), os.getpid()).map(work, tasks))


def as_numpy(array: Array) -> NDArray[Any]:
    """Return an array on the host as NumPy's, without a copy where NumPy has the dtype."""
    if api.is_torch_array(array):
        import torch

        array = array.detach()
        return np.asarray(array.float() if array.dtype == torch.bfloat16 else array)
    return np.asarray(array)


def _like(found: Any, array: Array) -> Array:
    return api.array_namespace(array).asarray(found)


def pieces(shape: tuple[int, int], entries: int) -> list[slice]:
    """Cut the rows of a matrix of this shape into slices of so many entries."""
    rows, columns = shape
    step = max(1, entries // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def masses(scores: Array, potential: Array, epsilon: float, offset: float, known: Array) -> Masses:
    """Pass once over scores; see :class:`infoassign_backends.protocol.Backend`."""
    given, price = as_numpy(scores), as_numpy(potential) / epsilon
    some_rows, underflow = numpy_sums, UNDERFLOW
    if given.size >= COMPILE_FROM:
        from infoassign_backends import compiled

        if compiled.available():
            some_rows, underflow = compiled.sums, compiled.underflow(given.dtype)
            compiled.compile_for(given.dtype, given.flags.writeable)  # here, and not in each thread
    cut = pieces(given.shape, PIECE)
    parts = in_threads(lambda piece: some_rows(given[piece], price, epsilon, offset), cut)
    mass = np.sum([part[0] for part in parts], axis=0)
    with np.errstate(divide="ignore"):
        log_columns = np.log(mass)
        lost = np.flatnonzero(mass + np.exp(as_numpy(known)) < underflow * len(given))
    if len(lost):
        logs = [
            log_sum_exp_of_columns(
                (given[piece][:, lost] - np.float64(offset)) / epsilon - price[lost] - part[1][:, None], np.float64
            )
            for piece, part in zip(cut, parts, strict=True)
        ]
        log_columns[lost] = log_sum_exp_of_columns(np.stack(logs), np.float64)
    log_normalizers = np.asarray(sum(part[1].sum() for part in parts))
    return Masses(_like(log_columns, potential), _like(log_normalizers, potential), len(given))


def _exponents(x: Float, scores: NDArray[Any], price: Float, epsilon: float) -> tuple[Float, Float]:
    """Put ``(s - v) / epsilon`` of a tile less its row's maximum into x; return that maximum and the largest score.

    Rows are shifted by their largest score before the division, which keeps large scores from cancelling after it.
    """
    np.copyto(x, scores)
    largest = x.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # what overflows is exp(-inf) = 0
        x -= largest
        x *= 1 / epsilon
    x -= price
    highest = x.max(axis=1, keepdims=True)
    x -= highest
    return highest, largest


def numpy_sums(scores: NDArray[Any], price: Float, epsilon: float, offset: float) -> Sums:
    """Return the sums over some rows by NumPy."""
    mass, lse = np.zeros(scores.shape[1]), []
    cut = pieces(scores.shape, TILE)
    buffer = np.empty((cut[0].stop, scores.shape[1]))
    for tile in cut:
        x = buffer[: tile.stop - tile.start]
        highest, largest = _exponents(x, scores[tile], price, epsilon)
        np.exp(x, out=x)
        total = x.sum(axis=1, keepdims=True)
        # einsum, not a product of matrices: BLAS has threads of its own, which would fight with ours.
        mass += np.einsum("ij,i->j", x, 1 / total[:, 0])
        lse.append((highest + np.log(total) + (largest - offset) / epsilon)[:, 0])
    return mass, np.concatenate(lse)


def plan(scores: Array, potential: Array, epsilon: float) -> Array:
    """Return the plan of scores that are not kept; see :class:`infoassign_backends.protocol.Backend`."""
    given, price = as_numpy(scores), as_numpy(potential) / epsilon
    found = np.empty(given.shape, np.float64 if given.dtype == np.float64 else np.float32)

    def fill(piece: slice) -> None:
        cut = pieces((piece.stop - piece.start, given.shape[1]), TILE)
        buffer = np.empty((cut[0].stop, given.shape[1]))
        for tile in cut:
            there = slice(piece.start + tile.start, piece.start + tile.stop)
            x = buffer[: tile.stop - tile.start]
            _exponents(x, given[there], price, epsilon)
            np.exp(x, out=x)
            x /= x.sum(axis=1, keepdims=True)
            found[there] = x

    in_threads(fill, pieces(given.shape, PIECE))
    return _like(found, scores)
