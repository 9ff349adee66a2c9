"""The entropy of a joint distribution, tile by tile, in the memory of the host; see :mod:`infoassign_backends.joint`.

A tile is made and used by products of matrices, whose library has threads of its own. Between them it is turned into
its slope, a few rows at a time, which stay in the cache of a thread.
"""

from itertools import accumulate
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infoassign_backends.host import as_numpy, in_threads, slices
from infoassign_backends.joint import cut
from infoassign_backends.protocol import Array, Views

TILE = 2**23
"""Cells of P that are in memory at a time, twice."""
PIECE = 2**16
"""Cells that are worked on at a time."""
TASK = 2**20
"""Cells that one thread takes at a time."""

Matrix = NDArray[Any]


def product(first: Array, second: Array) -> Matrix:
    """Return ``first^T second``; see :class:`infoassign_backends.protocol.Backend`."""
    found: Matrix = as_numpy(first).T @ as_numpy(second)
    return found


def off_diagonal(views: Views, sizes: tuple[int, ...]) -> Matrix:
    """Return OE; see :class:`infoassign_backends.protocol.Backend`."""
    first, second = as_numpy(views.all_first), as_numpy(views.all_second)
    tiles = _Tiles(len(first), sizes, first.dtype)
    return np.asarray(sum(tiles.slope(first, second, units)[0] for units in tiles.units), first.dtype)


def off_diagonal_and_gradients(views: Views, sizes: tuple[int, ...]) -> tuple[Matrix, Matrix, Matrix]:
    """Return OE and its gradients; see :class:`infoassign_backends.protocol.Backend`."""
    first, second, all_first, all_second = map(as_numpy, views)
    tiles = _Tiles(len(all_first), sizes, first.dtype)
    total, to_first = 0.0, np.empty_like(first)
    to_second, part = np.zeros_like(second), np.empty_like(second)
    for units in tiles.units:
        value, slope = tiles.slope(all_first, all_second, units)
        total += value
        to_first[:, units] = second @ slope.T
        to_second += np.matmul(first[:, units], slope, out=part)
    to_first /= len(all_first)
    to_second /= len(all_first)
    return np.asarray(total, first.dtype), to_first, to_second


class _Tiles:
    """The tiles of P: some units of the first view by all of the second, in memory that is used again."""

    def __init__(self, rows: int, sizes: tuple[int, ...], dtype: Any) -> None:
        width = sum(sizes)
        self.rows = rows
        self.units = cut(width, max(1, TILE // width))
        self.room = np.empty((2, self.units[0].stop, width), dtype)
        self.edges = [0, *accumulate(sizes)]
        self.owner = np.repeat(np.arange(len(sizes)), sizes)

    def slope(self, first: Matrix, second: Matrix, units: slice) -> tuple[float, Matrix]:
        """Return the sum of P log P over a tile, and its slope ``1 + log P``: 0 where P is, and within segments."""
        counts, slope = self.room[:, : units.stop - units.start]  # the first is N P
        np.matmul(first[:, units].T, second, out=counts)
        own = slice(self.edges[self.owner[units.start]], self.edges[self.owner[units.stop - 1] + 1])
        counts[:, own][self.owner[units, None] == self.owner[own]] = 0
        log_rows = log(self.rows)
        # Its logarithm is finite, so that 0 times it is 0, also where subnormal numbers count as 0.
        least = np.finfo(counts.dtype).smallest_normal

        def work(task: slice) -> float:
            total = 0.0
            for piece in slices((task.stop - task.start, counts.shape[1]), PIECE):
                there = slice(task.start + piece.start, task.start + piece.stop)
                some, logs = counts[there], slope[there]
                np.maximum(some, least, out=logs)
                np.log(logs, out=logs)
                logs -= log_rows
                # By rows, and then in float64: long sums in float32 drown.
                total += float(np.einsum("ij,ij->i", some, logs).sum(dtype=np.float64))
                logs += 1
                if some.min() == 0:
                    logs[some == 0] = 0
            return total

        return sum(in_threads(work, slices(counts.shape, TASK))) / self.rows, slope
