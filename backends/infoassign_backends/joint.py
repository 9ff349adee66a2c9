"""The entropy of a joint distribution that is never whole in memory, in the array-API standard only.

Two views of N rows, each of D units in segments that hold a distribution (or any weights), make

    P = first^T second / N,        OE = sum of P log P over the cells whose two units are of different segments,

D x D numbers of which one tile of :data:`TILE` is there at a time. The slope of OE in P is ``1 + log P``, so the same
tile gives both gradients before the next is made (theory, B7). What is 0 stays out of it: ``0 log 0 = 0``, with slope
0.

Nothing is written in place and no value is looked at, so it can be traced. Every faster one is tested against this one.
"""

from collections.abc import Iterator
from itertools import accumulate

import array_api_compat as api
import numpy as np

from infoassign_backends.protocol import Array, Views
from infoassign_backends.sums import accurate_sum, widest

TILE = 2**22
"""Cells of P that are in memory at a time."""


def product(first: Array, second: Array) -> Array:
    """Return ``first^T second``; see :class:`infoassign_backends.protocol.Backend`."""
    return api.array_namespace(first).matmul(first.T, second)


def off_diagonal(views: Views, sizes: tuple[int, ...]) -> Array:
    """Return OE; see :class:`infoassign_backends.protocol.Backend`."""
    xp = api.array_namespace(views.first)
    parts = [_x_log_x(tile)[0] for _, tile in _tiles(views, sizes)]
    return xp.astype(sum(parts[1:], start=parts[0]), views.first.dtype)


def off_diagonal_and_gradients(views: Views, sizes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return OE and its gradients; see :class:`infoassign_backends.protocol.Backend`."""
    xp = api.array_namespace(views.first)
    total, to_first, to_second = 0.0, [], 0.0
    for units, tile in _tiles(views, sizes):
        value, logs = _x_log_x(tile)
        slope = xp.where(tile > 0, 1 + logs, 0.0) / views.all_first.shape[0]
        total = total + value
        to_first.append(views.second @ slope.T)
        to_second = to_second + views.first[:, units] @ slope
    return xp.astype(total, views.first.dtype), xp.concat(to_first, axis=1), to_second


def _tiles(views: Views, sizes: tuple[int, ...]) -> Iterator[tuple[slice, Array]]:
    """Yield P, some units of the first view by all of the second, with 0 in the cells within a segment."""
    xp, device = api.array_namespace(views.first), api.device(views.first)
    rows, width = views.all_first.shape
    segment = xp.asarray(np.repeat(np.arange(len(sizes)), sizes), device=device)
    zero = xp.zeros((), dtype=views.first.dtype, device=device)
    for units in cut(width, max(1, TILE // width)):
        tile = product(views.all_first[:, units], views.all_second) / rows
        yield units, xp.where(segment[units, None] == segment[None, :], zero, tile)


def _x_log_x(tile: Array) -> tuple[Array, Array]:
    """Return the sum of P log P over a tile, in the widest dtype, and log P, 0 where P is."""
    xp = api.array_namespace(tile)
    logs = xp.log(xp.where(tile > 0, tile, xp.ones_like(tile)))
    wide = widest(tile)
    return accurate_sum(accurate_sum(tile * logs, wide), wide), logs


def cut(width: int, most: int) -> list[slice]:
    """Cut a number of units into as few slices of nearly equal length as have at most so many.

    Examples
    --------
    >>> cut(10, 4)
    [slice(0, 4, None), slice(4, 7, None), slice(7, 10, None)]
    """
    number = -(-width // most)
    stops = list(accumulate(width // number + (i < width % number) for i in range(number)))
    return [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
