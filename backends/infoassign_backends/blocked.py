"""The passes over rows that a kernel is made and used in, by NumPy, a tile at a time.

The compiled ones are tested against these.

All work on pieces of matrices of shape (problems, rows, columns), in float64; the kernel itself is stored in single
precision for scores of at most that. The kernel of scores s at a potential v is

    E_ij = exp((s_ij - largest_i) / epsilon - price_j - log_start_j - shift_i),    price = v / epsilon,

with shifts such that the largest entry of a row is about 1. :class:`infoassign_backends.kernel.KernelSweep` says why.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float64]
TILE = 2**16
"""Entries that are worked on at a time, so that they stay in the cache."""
LOWEST = {32: -125.0, 64: -1000.0}
"""The power of two from which on an entry may vanish, by the bits of the kernel."""


class Rows(NamedTuple):
    """What a pass finds of rows; arrays of shape (problems, rows) to be written into."""

    largest: Float
    """The largest score; NaN if one is."""
    least: Float
    """The least score."""
    shift: Float
    """See the head of this file."""
    sums: Float
    """``sum_j E_ij exp(log_start_j)``, so that ``lse_i = shift_i + log sums_i`` for rows shifted by their largest."""


def tiles(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut the rows of matrices of this shape into slices of some entries."""
    problems, rows, columns = shape
    step = max(1, TILE // (problems * columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _sums(x: Float, scale: Float, out: Float) -> Float:
    """Put the rows' sums at a scale of the columns into out, and return the columns' masses."""
    np.vecdot(x, scale[:, None, :], out=out)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.einsum("pij,pi->pj", x, 1 / out))


def _exponents(scores: NDArray[Any], largest: Float, price: Float, epsilon: float) -> Float:
    """Return ``(s - largest) / epsilon - price``; shifted first, lest large scores cancel after the division."""
    x = scores.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is exp(-inf) = 0; a NaN is to be seen
        x -= largest[..., None]
        x *= 1 / epsilon
    x -= price[:, None, :]
    return x


def fill(
    scores: NDArray[Any], price: Float, epsilon: float, log_start: Float, kernel: NDArray[Any] | None, rows: Rows
) -> Float:
    """Make a kernel and the first sweep over it.

    Parameters
    ----------
    scores
        Shape (p, b, k).
    price, log_start
        Shape (p, k), finite.
    epsilon
        What divides the scores.
    kernel
        To be written into, like the scores; None to keep nothing.
    rows
        To be written into.

    Returns
    -------
    Float
        ``sum_i E_ij / sums_i``, shape (p, k).
    """
    mass = np.zeros_like(price)
    start = np.exp(log_start)
    for tile in tiles(scores.shape):
        given = scores[:, tile]
        largest = given.max(axis=2).astype(np.float64)
        rows.largest[:, tile], rows.least[:, tile] = largest, given.min(axis=2)
        x = _exponents(given, largest, price + log_start, epsilon)
        shift = x.max(axis=2)
        with np.errstate(invalid="ignore"):
            x -= shift[..., None]
        np.exp(x, out=x)
        if kernel is not None:
            kernel[:, tile] = x
            if kernel.dtype != x.dtype:
                x[...] = kernel[:, tile]  # the sums are those of what is stored
        rows.shift[:, tile] = shift
        mass += _sums(x, start, rows.sums[:, tile])
    return mass


def tops(scores: NDArray[Any], price: Float, epsilon: float, rows: Rows) -> Float:
    """Return the largest exponent of every column, each less its row's shift, shape (p, k)."""
    found = np.full_like(price, -np.inf)
    for tile in tiles(scores.shape):
        x = _exponents(scores[:, tile], rows.largest[:, tile], price, epsilon)
        with np.errstate(invalid="ignore"):
            x -= rows.shift[:, tile, None]
        np.maximum(found, x.max(axis=1), out=found)
    return found


def sweep(kernel: NDArray[Any], scale: Float, sums: Float) -> Float:
    """Put ``sums_i = sum_j E_ij scale_j`` where it belongs, and return ``sum_i E_ij / sums_i``."""
    mass = np.zeros_like(scale)
    for tile in tiles(kernel.shape):
        mass += _sums(kernel[:, tile].astype(np.float64, copy=False), scale, sums[:, tile])
    return mass


def times_columns(kernel: NDArray[Any], x: Float) -> Float:
    """Return ``E x``, shape (p, b)."""
    out = np.empty(kernel.shape[:2])
    for tile in tiles(kernel.shape):
        np.vecdot(kernel[:, tile].astype(np.float64, copy=False), x[:, None, :], out=out[:, tile])
    return out


def times_rows(kernel: NDArray[Any], y: Float) -> Float:
    """Return ``E^T y``, shape (p, k)."""
    out = np.zeros((len(kernel), kernel.shape[2]))
    for tile in tiles(kernel.shape):
        out += np.einsum("pij,pi->pj", kernel[:, tile].astype(np.float64, copy=False), y[:, tile])
    return out


def normalize(kernel: NDArray[Any], scale: Float, sums: Float) -> None:
    """Turn a kernel into the plan ``E_ij scale_j / sums_i``, where it is."""
    for tile in tiles(kernel.shape):
        x = kernel[:, tile] * scale[:, None, :]
        x /= sums[:, tile, None]
        kernel[:, tile] = x
