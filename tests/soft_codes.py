"""Soft codes of M segments with D units each, their terms and orthogonal arrays, in NumPy float64.

Literal, with the whole joint distribution in memory; shares no code with the library. A code has shape (N, M, D).
"""

from typing import Any

import numpy as np
from scipy.special import softmax, xlogy


def soft_code(rows: int, segments: int, units: int, seed: int = 0, sharpness: float = 1.0) -> Any:
    return softmax(np.random.default_rng(seed).normal(size=(rows, segments, units)) * sharpness, axis=-1)


def one_hot(symbols: Any, units: int) -> Any:
    """The code of an array of symbols, shape (N, M)."""
    return np.eye(units)[np.asarray(symbols)]


def joint(first: Any, second: Any) -> Any:
    """P(m1, m2; d1, d2), with axes in this order."""
    return np.einsum("nad,nbe->abde", first, second) / len(first)


def diagonal_entropies(first: Any, second: Any) -> Any:
    """DE_m, shape (M,): only the elements d1 = d2 of the blocks m1 = m2."""
    p = np.einsum("mmdd->md", joint(first, second))
    return xlogy(p, p).sum(axis=-1)


def off_diagonal_entropies(first: Any, second: Any) -> Any:
    """OE of the pairs m1 != m2, shape (M (M - 1),)."""
    p = joint(first, second)
    sums = xlogy(p, p).sum(axis=(2, 3))
    return sums[~np.eye(len(sums), dtype=bool)]


def invariance(first: Any, second: Any) -> float:
    """TI, the mean of -log <q'_i(m, .), q''_i(m, .)>."""
    return float(-np.log(np.sum(first * second, axis=-1)).mean())


def block_loss(first: Any, second: Any, invariance_weight: float = 1.0) -> float:
    """DE over M, OE over M (M - 1), and TI: MUSIC's eq. 5 and the released code."""
    entropies = diagonal_entropies(first, second).mean() + off_diagonal_entropies(first, second).mean()
    return float(entropies + invariance_weight * invariance(first, second))


def bush(units: int, factors: int) -> Any:
    """The symbols a + b x of all pairs (a, b), for x in the field, and b: an orthogonal array for a prime, or four."""
    if units == 4:
        times = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]])
        plus = np.arange(4)[:, None] ^ np.arange(4)
    else:
        times = np.outer(np.arange(units), np.arange(units)) % units
        plus = np.add.outer(np.arange(units), np.arange(units)) % units
    a, b = np.divmod(np.arange(units**2), units)
    return np.stack([plus[a, times[b, x]] for x in range(units)] + [b], axis=1)[:, :factors]
