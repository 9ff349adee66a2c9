"""Joint entropies and total correlations of subsets of an embedding's segments (IMSVD, eq. 3 and 5 to 8)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, combinations
from math import comb, prod
from random import Random
from typing import NamedTuple

import array_api_compat as api

from infoassign import validation
from infoassign.arrays import constant, in_single
from infoassign.information import entropy
from infoassign.segments import Segments, Units, as_segments, gathered, off_diagonal
from infoassign_backends import backend_for
from infoassign_backends.protocol import Array
from infoassign_backends.sums import sum_of_rows

CELLS = 2**27
"""Cells of a joint distribution that are made at most."""
WORK = 1e13
"""Multiplications that all subsets together may need."""
EACH = 1e6
"""Multiplications in whose time a subset is also looked at."""
PIECE = 2**22
"""Entries of the products of all but one segment's codes that are in memory at a time."""


class SubsetMean(NamedTuple):
    """A mean over subsets of segments, exact or estimated.

    What :func:`infoassign.subset_entropy` and :func:`infoassign.total_correlation` return.

    Examples
    --------
    >>> import numpy as np
    >>> codes = np.eye(2)[[[0, 0], [0, 1], [1, 0], [1, 1]]].reshape(4, 4)
    >>> found = subset_entropy(codes, units=2, order=2)
    >>> float(found.value / np.log(2)), float(found.standard_error), found.subsets
    (2.0, 0.0, 1)
    """

    value: Array
    """Shape (), in nats; differentiable where the library has autograd."""
    standard_error: Array
    """Of the value, as an estimate of the mean over all subsets: shape (), a constant; 0 if all were looked at."""
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
    subsets = _Subsets.of(segments, order, samples, seed)
    xp = api.array_namespace(q)
    if subsets.all and order == 1:
        return SubsetMean(xp.mean(_marginal_entropies(q, segments)), _exact(q), segments.count)
    if subsets.all and order == 2:
        return SubsetMean(_pair_entropy(q, segments), _exact(q), subsets.number)
    return _mean(q, subsets, lambda subset: _joint_entropy(q, segments, subset))


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
    subsets = _Subsets.of(segments, order, samples, seed)
    single = _marginal_entropies(q, segments)
    if subsets.all and order == 2:
        mean = api.array_namespace(q).mean(single)
        return SubsetMean(2 * mean - _pair_entropy(q, segments), _exact(q), subsets.number)

    def of(subset: tuple[int, ...]) -> Array:
        return sum(single[segment] for segment in subset) - _joint_entropy(q, segments, subset)

    return _mean(q, subsets, of)


def _checked(q: Array, units: Units, order: int, least: int) -> tuple[Segments, Array]:
    segments = as_segments("units", units, validation.check_embedding("q", q))
    validation.check_distributions("q", q, segments.sums)
    if validation.count("order", order, least) > segments.count:
        raise ValueError(f"order must be at most the number of segments, {segments.count}; got {order}")
    return segments, in_single(q)


def _marginal_entropies(q: Array, segments: Segments) -> Array:
    """Return the entropy of each segment, shape (M,); the rows are summed in the widest dtype."""
    xp = api.array_namespace(q)
    marginal = sum_of_rows(q)[None, :] / q.shape[0]
    entropies = segments.each(lambda p: xp.expand_dims(entropy(p), axis=-1), marginal)
    return xp.astype(entropies[0, :], q.dtype)


def _pair_entropy(q: Array, segments: Segments) -> Array:
    """Return S_2: what the joint distribution of a view with itself has off its diagonal blocks."""
    return -off_diagonal(gathered(q, q, None), segments) / (segments.count * (segments.count - 1))


def _exact(q: Array) -> Array:
    return api.array_namespace(q).zeros((), dtype=q.dtype, device=api.device(q))


def _joint_entropy(q: Array, segments: Segments, subset: tuple[int, ...]) -> Array:
    """Return the joint entropy of some segments: the rows' outer products, a piece of rows at a time."""
    xp = api.array_namespace(q)
    edges = [0, *accumulate(segments.sizes)]
    *rest, last = (slice(edges[segment], edges[segment + 1]) for segment in subset)
    if not rest:
        return xp.astype(entropy(sum_of_rows(q[:, last]) / q.shape[0]), q.dtype)
    entries = prod(units.stop - units.start for units in rest)
    step, joint = max(1, PIECE // entries), 0.0
    for start in range(0, q.shape[0], step):
        rows = q[start : min(start + step, q.shape[0]), :]
        outer = rows[:, rest[0]]
        for units in rest[1:]:
            outer = xp.reshape(outer[:, :, None] * rows[:, None, units], (rows.shape[0], -1))
        joint = joint + backend_for(q).product(outer, rows[:, last])
    return entropy(xp.reshape(joint / q.shape[0], (-1,)))


@dataclass(frozen=True)
class _Subsets:
    """All subsets of a size of so many segments, or a sample of them."""

    segments: Segments
    order: int
    number: int
    seed: int

    @classmethod
    def of(cls, segments: Segments, order: int, samples: int | None, seed: int) -> "_Subsets":
        """Check how many."""
        validation.count("seed", seed, least=0)
        total = comb(segments.count, order)
        return cls(
            segments,
            order,
            total if samples is None else min(validation.count("samples", samples, least=2), total),
            seed,
        )

    @property
    def total(self) -> int:
        """How many there are."""
        return comb(self.segments.count, self.order)

    @property
    def all(self) -> bool:
        """Whether that is all of them."""
        return self.number == self.total

    def check_work(self, rows: int) -> None:
        """Say so if it is too much."""
        cells = prod(sorted(self.segments.sizes)[-self.order :])
        if cells > CELLS:
            raise ValueError(
                f"a joint distribution of {self.order} segments has up to {cells} cells, more than {CELLS}"
            )
        if self.number * (cells * rows + EACH) > WORK:
            raise ValueError(
                f"{self.number} subsets of up to {cells} cells, over {rows} rows, are too many;"
                " give samples=, for instance 100, or fewer of them or of the rows"
            )

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        count = self.segments.count
        if self.all:
            yield from combinations(range(count), self.order)
            return
        random, drawn = Random(self.seed), set[int]()  # its own sample() is for less than 2**63
        while len(drawn) < self.number:
            rank = random.randrange(self.total)
            if rank not in drawn:
                drawn.add(rank)
                yield _combination(rank, count, self.order)


def _mean(q: Array, subsets: _Subsets, value_of: Callable[[tuple[int, ...]], Array]) -> SubsetMean:
    """Return the mean of a function of subsets."""
    subsets.check_work(q.shape[0])
    if subsets.all:
        total = sum(map(value_of, subsets), start=_exact(q))
        return SubsetMean(total / subsets.number, _exact(q), subsets.number)
    xp = api.array_namespace(q)
    values = xp.stack(list(map(value_of, subsets)))
    # Of a sample without replacement.
    correction = (1 / subsets.number - 1 / subsets.total) ** 0.5
    return SubsetMean(xp.mean(values), xp.std(constant(values), correction=1) * correction, subsets.number)


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
