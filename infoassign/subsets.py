"""Joint entropies and total correlations of subsets of an embedding's segments (IMSVD, eq. 3 and 5 to 8)."""

from collections.abc import Callable
from itertools import accumulate, combinations
from math import comb, prod
from random import Random
from typing import NamedTuple

import array_api_compat as api

from infoassign import validation
from infoassign.arrays import in_single
from infoassign.information import entropy
from infoassign.segments import Segments, Units, as_segments, gathered, off_diagonal
from infoassign_backends import backend_for
from infoassign_backends.protocol import Array

CELLS = 2**27
"""Cells of a joint distribution that are made at most."""
WORK = 1e13
"""Multiplications that all subsets together may need."""
PIECE = 2**22
"""Entries of the products of all but one segment's codes that are in memory at a time."""


class SubsetMean(NamedTuple):
    """A mean over subsets of segments, exact or estimated."""

    value: Array
    """Shape (), in nats; differentiable where the library has autograd."""
    standard_error: float
    """Of the value, as an estimate of the mean over all subsets; 0 if all were looked at."""
    subsets: int
    """How many were looked at."""


def subset_entropy(q: Array, units: Units, order: int, *, samples: int | None = None, seed: int = 0) -> SubsetMean:
    """Return the mean joint entropy of r segments, ``S_r`` (IMSVD, eq. 5 and 6, without the minus of eq. 5).

    The joint distribution of segments ``m_1, ..., m_r`` is ``mean_i q_i(m_1, d_1) ... q_i(m_r, d_r)`` (eq. 3).

    Parameters
    ----------
    q
        Soft codes, shape (N, sum D), as of :func:`infoassign.soft_discretize`.
    units
        The size of every segment, or the sizes of all.
    order
        r, from 1 to the number of segments M.
    samples
        How many subsets of the ``M choose r`` to look at, drawn without replacement; None for all. Orders 1 and 2 of
        all segments cost one pass over the joint distribution; higher ones a joint distribution, of ``prod D`` cells, a
        subset.
    seed
        Of the draw.

    Returns
    -------
    SubsetMean
        The mean with its standard error.

    Raises
    ------
    TypeError, ValueError
        If `q` is no matrix of distributions, `units` do not cut it, or `order`, `samples` or the work is out of range.

    Examples
    --------
    Two fair bits and their exclusive or are independent by twos, but three together have no more than two bits:

    >>> import numpy as np
    >>> bits = np.eye(2)[[[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]].reshape(4, 6)
    >>> [float(subset_entropy(bits, 2, order).value / np.log(2)) for order in (1, 2, 3)]
    [1.0, 2.0, 2.0]
    """
    segments, q = _checked(q, units, order, 1)
    if order == 1:
        return SubsetMean(api.array_namespace(q).mean(_marginal_entropies(q, segments)), 0.0, segments.count)
    if order == 2 and samples is None:
        return SubsetMean(_pair_entropy(q, segments), 0.0, comb(segments.count, 2))
    return _mean_over_subsets(q, segments, order, samples, seed, lambda subset: _joint_entropy(q, segments, subset))


def total_correlation(q: Array, units: Units, order: int, *, samples: int | None = None, seed: int = 0) -> SubsetMean:
    """Return the mean total correlation of r segments, ``C_r = r S_1 - S_r`` (IMSVD, eq. 8).

    A subset's is the divergence of its joint distribution from the product of its marginals: 0 if, and only if, its
    segments are independent of each other, all together. At order 2 it is the mean mutual information of two segments.

    Parameters
    ----------
    q, units, samples, seed
        As :func:`infoassign.subset_entropy`.
    order
        r, from 2 to the number of segments.

    Returns
    -------
    SubsetMean
        The mean, at least 0 up to rounding, with its standard error. A sample's marginal entropies are those of its own
        subsets, which vary with their joint entropies, so that the difference varies less.

    Raises
    ------
    TypeError, ValueError
        As :func:`infoassign.subset_entropy`.

    Examples
    --------
    Two fair bits and their exclusive or:

    >>> import numpy as np
    >>> bits = np.eye(2)[[[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]].reshape(4, 6)
    >>> [round(float(total_correlation(bits, 2, order).value / np.log(2)), 12) for order in (2, 3)]
    [0.0, 1.0]
    """
    segments, q = _checked(q, units, order, 2)
    single = _marginal_entropies(q, segments)
    if order == 2 and samples is None:
        mean = api.array_namespace(q).mean(single)
        return SubsetMean(2 * mean - _pair_entropy(q, segments), 0.0, comb(segments.count, 2))

    def of(subset: tuple[int, ...]) -> Array:
        return sum(single[segment] for segment in subset) - _joint_entropy(q, segments, subset)

    return _mean_over_subsets(q, segments, order, samples, seed, of)


def _checked(q: Array, units: Units, order: int, least: int) -> tuple[Segments, Array]:
    segments = as_segments(units, validation.check_embedding("q", q))
    validation.check_distributions("q", q, segments.sums)
    if validation.count("order", order, least) > segments.count:
        raise ValueError(f"order must be at most the number of segments, {segments.count}; got {order}")
    return segments, in_single(q)


def _marginal_entropies(q: Array, segments: Segments) -> Array:
    """Return the entropy of each segment, shape (M,)."""
    xp = api.array_namespace(q)
    marginal = xp.mean(q, axis=0, keepdims=True)
    return segments.each(lambda p: xp.expand_dims(entropy(p), axis=-1), marginal)[0, :]


def _pair_entropy(q: Array, segments: Segments) -> Array:
    """Return S_2: what the joint distribution of a view with itself has off its diagonal blocks."""
    return -off_diagonal(gathered(q, q, None), segments) / (segments.count * (segments.count - 1))


def _joint_entropy(q: Array, segments: Segments, subset: tuple[int, ...]) -> Array:
    """Return the joint entropy of some segments: the rows' outer products, a piece of rows at a time."""
    xp = api.array_namespace(q)
    edges = [0, *accumulate(segments.sizes)]
    *rest, last = (slice(edges[segment], edges[segment + 1]) for segment in subset)
    entries = prod(units.stop - units.start for units in rest)
    step, joint = max(1, PIECE // entries), 0.0
    for start in range(0, q.shape[0], step):
        rows = q[start : min(start + step, q.shape[0]), :]
        outer = rows[:, rest[0]]
        for units in rest[1:]:
            outer = xp.reshape(outer[:, :, None] * rows[:, None, units], (rows.shape[0], -1))
        joint = joint + backend_for(q).product(outer, rows[:, last])
    return entropy(xp.reshape(joint / q.shape[0], (-1,)))


def _mean_over_subsets(
    q: Array,
    segments: Segments,
    order: int,
    samples: int | None,
    seed: int,
    value_of: Callable[[tuple[int, ...]], Array],
) -> SubsetMean:
    """Return the mean over all subsets, or over a sample of them."""
    total = comb(segments.count, order)
    number = total if samples is None else min(validation.count("samples", samples, least=2), total)
    cells = prod(sorted(segments.sizes)[-order:])
    if cells > CELLS:
        raise ValueError(f"a joint distribution of {order} segments has up to {cells} cells, more than {CELLS}")
    if number * cells * q.shape[0] > WORK:
        raise ValueError(
            f"{number} subsets of {cells} cells and {q.shape[0]} rows are more than {WORK:.0e} multiplications;"
            " give samples=, for instance 100, or fewer of them or of the rows"
        )
    xp = api.array_namespace(q)
    if number == total:
        subsets = list(combinations(range(segments.count), order))
    else:
        drawn = Random(validation.count("seed", seed, least=0)).sample(range(total), number)
        subsets = [_combination(rank, segments.count, order) for rank in drawn]
    values = xp.stack([value_of(subset) for subset in subsets])
    # Of a sample without replacement.
    error = 0.0 if number == total else float(xp.std(values, correction=1)) * ((1 / number - 1 / total) ** 0.5)
    return SubsetMean(xp.mean(values), error, number)


def _combination(rank: int, count: int, order: int) -> tuple[int, ...]:
    """Return the combination of so many out of so many that has a rank in lexicographic order."""
    chosen: list[int] = []
    candidate = 0
    while len(chosen) < order:
        with_it = comb(count - candidate - 1, order - len(chosen) - 1)
        if rank < with_it:
            chosen.append(candidate)
        else:
            rank -= with_it
        candidate += 1
    return tuple(chosen)
