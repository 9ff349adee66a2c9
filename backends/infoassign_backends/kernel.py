"""The sweep for NumPy arrays: an exponential for each entry once, then one read of a matrix for each pass.

The kernel ``E_ij = exp((s_ij - v0_j) / epsilon - shift_i - log_start_j)`` is made at one potential v0 and serves all
that are near it: with ``a_j = exp(log_start_j - (v_j - v0_j) / epsilon)`` the rows' sums are ``R = E a`` and the
columns' masses ``a * (E^T (1 / R))``, and one pass makes both. Rows are shifted so that their largest entry is about 1.
What underflows is then below 2^-125 of a row's sum (2^-1000 for scores in float64), and matters only to a column that
has next to no mass. The masses at v0 tell: where a column is that poor, the kernel is made once more, with log_start_j
such that the largest entry of every column is about 1, too; those of the rows stay, since a row's largest exponent is
also the largest, by its row, of its column. The poorer a column is, the less far a potential may drift from v0; past
that the kernel is made anew.

All sums are in float64; the kernel is stored in the precision of the scores, single precision for halves. The plan is
made where the kernel was, which a later pass then makes anew: beside the scores there is one matrix of their size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log
from threading import RLock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infoassign_backends.blocked import LOWEST, Float, Rows, tiles
from infoassign_backends.host import Piece, in_threads, passes, pieces, shares
from infoassign_backends.protocol import Masses
from infoassign_backends.reference import check_epsilon, log_sum_exp_of_columns

DRIFT = {32: 40.0, 64: 300.0}
"""How far, in units of epsilon, the spread of ``v - v0`` may grow for a kernel of so many bits."""
NEGLIGIBLE = {32: 40.0, 64: 70.0}
"""The power of two by which what underflowed in a column must be smaller than its mass."""
UNKEPT = 2**20
"""Entries that are worked on at a time where nothing is kept."""


class Made(NamedTuple):
    """A kernel and what the first sweep over it found."""

    potential: Float
    """Where it was made, shape (problems, columns)."""
    log_start: Float
    entries: NDArray[Any]
    """Shape (problems, rows, columns)."""
    rows: Rows
    mass: Float
    """``sum_i E_ij / R_i``, shape (problems, columns)."""
    reach: float
    """How far the potential may drift from there."""


def reach(dtype: Any, rows: int, mass: Float) -> float:
    """Return how far a potential may drift from where a kernel was made before what underflowed matters.

    At a drift of spread D a row's sum is at least ``exp(-D)`` of what it was, so that a column has lost at most
    ``1.5 B 2^lowest exp(D)``, beside its mass; both by the factor a.
    """
    bits = np.finfo(dtype).bits
    poorest = np.min(mass, where=mass > 0, initial=np.inf)
    lost = log(1.5 * rows) + (LOWEST[bits] + NEGLIGIBLE[bits]) * log(2)
    return float(min(DRIFT[bits], np.log(poorest) - lost))


class KernelSweep:
    """Scores that are one NumPy array; see :class:`infoassign_backends.protocol.Sweep`. Threads may share it."""

    def __init__(self, scores: NDArray[Any], epsilon: float) -> None:
        check_epsilon(epsilon, np.float64, np)
        self._batch = scores.shape[:-2]
        self.rows, columns = scores.shape[-2:]
        self._scores = scores.reshape(-1, self.rows, columns)
        self._epsilon = epsilon
        self.plan_dtype: Any = np.float64 if scores.dtype == np.float64 else np.float32
        self.compute_dtype: Any = np.float64
        self.vector_dtype: Any = np.float64
        self.sum_error = (self.rows + columns) * float(np.finfo(np.float64).eps) / 2
        # An entry is off by two units when it is made, measured, and by another when it is stored as the plan's.
        self.entry_error = 2 * float(np.finfo(self.plan_dtype).eps)
        self._passes = passes(scores.size)
        self._shares = shares(self._scores.shape)
        self._lock = RLock()
        self._made: Made | None = None
        made = self._make(np.zeros((len(self._scores), columns)))
        self._largest = made.rows.largest
        self.offset = self._shown((self._largest / self.rows).sum(axis=1))  # whose sum might overflow
        with np.errstate(over="ignore", invalid="ignore"):
            self.span = self._shown(((made.rows.largest - made.rows.least) / epsilon).max(axis=1))

    def __reduce__(self) -> tuple[Any, ...]:
        return KernelSweep, (self._shown(self._scores), self._epsilon)  # the kernel is made anew

    def _shown(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape((*self._batch, *values.shape[1:]))

    def _taken(self, vector: Any) -> Float:
        # A copy: what is remembered of a potential must not change with the caller's array.
        return np.array(vector, dtype=np.float64, order="C").reshape(len(self._scores), -1)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads out; what an error or an interrupt leaves half made is made anew."""
        with self._lock:
            try:
                yield
            except BaseException:
                self._made = None
                raise

    def _sum(self, work: Callable[[Piece], Float]) -> Float:
        """Add up what is made of the pieces, vectors of the columns."""
        total = np.zeros((len(self._scores), self._scores.shape[2]))
        for piece, part in zip(self._shares, in_threads(work, self._shares), strict=True):
            total[piece[0]] += part
        return total

    def _make(self, potential: Float) -> Made:
        """Make the kernel at a potential, where the last one was if that is still there."""
        shape = self._scores.shape
        entries = np.empty(shape, self.plan_dtype) if self._made is None else self._made.entries
        rows = Rows(*np.empty((4, *shape[:2])))
        price = potential / self._epsilon
        log_start = np.zeros_like(price)

        def of(piece: Piece) -> Rows:
            return Rows(*(values[piece] for values in rows))

        def fill(piece: Piece) -> Float:
            there, some, kept = piece[0], self._scores[piece], entries[piece]
            mass: Float = self._passes.fill(some, price[there], self._epsilon, log_start[there], kept, of(piece))
            return mass

        mass = self._sum(fill)
        far = reach(self.plan_dtype, self.rows, mass)
        if np.any(mass == 0) or far < DRIFT[np.finfo(self.plan_dtype).bits] / 2:
            highest = np.full_like(price, -np.inf)
            for piece in self._shares:
                found = self._passes.tops(self._scores[piece], price[piece[0]], self._epsilon, of(piece))
                np.maximum(highest[piece[0]], found, out=highest[piece[0]])
            # Where there is a NaN nothing is known; the other problems of the batch do not care.
            usable = (highest > -np.inf) & np.isfinite(mass)
            log_start = np.where(usable, np.minimum(highest, 1.0), 0.0)
            mass = self._sum(fill)
            far = reach(self.plan_dtype, self.rows, mass)
            # In theory no row's sum is much below 1, and no column is empty. But prices may be so high that their
            # rounding is more than exp() can take: then columns that are lost have the mass of their largest entry.
            empty = usable & ~((mass > 0) & (mass < np.inf))
            wild = np.any(usable & ((rows.sums.min(axis=1) < 0.25)[:, None] | empty), axis=1, keepdims=True)
            if np.any(wild):
                log_start = np.where(wild, 0.0, log_start)
                mass = self._sum(fill)
                lost = wild & usable & (mass == 0)
                log_start, mass = np.where(lost, np.minimum(highest, 0.0), log_start), np.where(lost, 1.0, mass)
                far = -1.0  # it serves no other potential
        self._made = made = Made(potential, log_start, entries, rows, mass, far)
        self._swept = potential
        return made

    def _near(self, potential: Float) -> tuple[Made, Float, Float]:
        """Return a kernel that serves a potential, ``log a`` there, and what all rows are shifted by for it."""
        made = self._made
        if made is not None:
            drift = (potential - made.potential) / self._epsilon
            least = drift.min(axis=1, keepdims=True)
            drift -= least
            if np.all(drift <= made.reach):  # which a NaN is not
                return made, made.log_start - drift, least
        made = self._make(potential)
        return made, made.log_start, np.zeros((len(potential), 1))

    def _at(self, potential: Any) -> tuple[Made, Float]:
        """Return a kernel that serves a potential, with the rows' sums there, and the columns' ``a``."""
        v = self._taken(potential)
        made, log_scale, _ = self._near(v)
        scale = np.exp(log_scale)
        if not np.array_equal(v, self._swept):
            self._sweep(made, scale)
            self._swept = v
        return made, scale

    def _sweep(self, made: Made, scale: Float) -> Float:
        """Make the rows' sums, and return the columns' masses but for the factor a."""
        return self._sum(lambda piece: self._passes.sweep(made.entries[piece], scale[piece[0]], made.rows.sums[piece]))

    def __call__(self, potential: Any) -> Masses:
        v = self._taken(potential)
        with self._alone():
            made, log_scale, least = self._near(v)
            mass = made.mass
            if not (np.array_equal(v, made.potential) and np.array_equal(v, self._swept)):
                mass = self._sweep(made, np.exp(log_scale))
                self._swept = v
            normalizers = (made.rows.shift + np.log(made.rows.sums)).sum(axis=1) - self.rows * least[:, 0]
        with np.errstate(divide="ignore"):  # of columns that no row may use
            log_columns = np.log(mass) + log_scale
        return Masses(self._shown(log_columns), self._shown(normalizers), self.rows)

    def iter_plan(self, potential: Any) -> Iterator[NDArray[Any]]:
        with self._alone():
            made, scale = self._at(potential)
            in_threads(
                lambda piece: self._passes.normalize(made.entries[piece], scale[piece[0]], made.rows.sums[piece]),
                self._shares,
            )
            self._made = None  # it is a plan now, and the caller's
        yield made.entries.reshape(*self._batch, *made.entries.shape[1:])

    def labels(self, potential: Any) -> NDArray[Any]:
        v = self._taken(potential)

        def largest(piece: Piece) -> NDArray[Any]:
            some, largest, price = self._scores[piece], self._largest[piece], v[piece[0], None, :]
            with np.errstate(over="ignore", invalid="ignore"):
                found = [
                    # Shifted first, lest large scores swallow the price.
                    (some[:, tile] - largest[:, tile, None] - price).argmax(axis=2)
                    for tile in tiles(some.shape)
                ]
            return np.concatenate(found, axis=1)

        found = np.empty(self._scores.shape[:2], np.int64)
        for piece, labels in zip(self._shares, in_threads(largest, self._shares), strict=True):
            found[piece] = labels
        return self._shown(found)

    def apply(self, potential: Any, x: Any) -> Float:
        weights = self._taken(x)
        with self._alone():
            made, scale = self._at(potential)
            weights = scale * weights
            parts = in_threads(
                lambda piece: self._passes.times_columns(made.entries[piece], weights[piece[0]]), self._shares
            )
            out = np.empty(self._scores.shape[:2])
            for piece, part in zip(self._shares, parts, strict=True):
                out[piece] = part / made.rows.sums[piece]
        return self._shown(out)

    def apply_transpose(self, potential: Any, y: Any) -> Float:
        with self._alone():
            made, scale = self._at(potential)
            weights = self._taken(y) / made.rows.sums
            total = self._sum(lambda piece: self._passes.times_rows(made.entries[piece], weights[piece]))
        return self._shown(scale * total)

    def log_column_sums(self) -> Float:
        with self._alone():
            made = self._made
            if made is None or np.any(made.potential):
                made = self._make(np.zeros((len(self._scores), self._scores.shape[2])))
            # exp(s / epsilon) is E exp(log_start + these), of which the largest is taken out.
            logs = made.rows.shift + made.rows.largest / self._epsilon
            highest = logs.max(axis=1, keepdims=True)
            with np.errstate(invalid="ignore"):  # a NaN is to be seen
                weights = np.exp(logs - highest)
            total = self._sum(lambda piece: self._passes.times_rows(made.entries[piece], weights[piece]))
        bits = np.finfo(self.plan_dtype).bits
        if np.any(total < self.rows * 2.0 ** (LOWEST[bits] + NEGLIGIBLE[bits])):  # in which underflow may matter
            parts = [
                log_sum_exp_of_columns(self._scores[:, tile].astype(np.float64) / self._epsilon, np.float64)
                for tile in tiles(self._scores.shape)
            ]
            return self._shown(log_sum_exp_of_columns(np.stack(parts, axis=1), np.float64))
        return self._shown(np.log(total) + made.log_start + highest)

    def sum_rows(self, values: Any) -> Any:
        return np.sum(values, axis=-1)

    def bound_rows(self, values: Any) -> Any:
        return np.max(values, axis=-1)


def masses(scores: NDArray[Any], potential: Float, epsilon: float, offset: float, known: Float) -> Masses:
    """Pass once over scores of shape (B, K) and keep no kernel; see :class:`infoassign_backends.protocol.Backend`."""
    price, nothing = (potential / epsilon)[None], np.zeros((1, len(potential)))
    found, cut = passes(scores.size), pieces((1, *scores.shape), UNKEPT)
    rows = Rows(*np.empty((4, 1, len(scores))))

    def of(piece: Piece) -> Rows:
        return Rows(*(values[piece] for values in rows))

    parts = in_threads(lambda piece: found.fill(scores[None][piece], price, epsilon, nothing, None, of(piece)), cut)
    mass = np.sum(parts, axis=0)[0]
    normalizers = rows.shift + np.log(rows.sums)
    with np.errstate(divide="ignore"):
        log_columns = np.log(mass)
        bits = 64 if scores.dtype == np.float64 else 32
        lost = np.flatnonzero(mass + np.exp(known) < len(scores) * 2.0 ** (LOWEST[bits] + NEGLIGIBLE[bits]))
    if len(lost):
        logs = [
            log_sum_exp_of_columns(
                (scores[part][:, lost] - rows.largest[0, part, None]) / epsilon
                - price[0, lost]
                - normalizers[0, part, None],
                np.float64,
            )
            for _, part in cut
        ]
        log_columns[lost] = log_sum_exp_of_columns(np.stack(logs), np.float64)
    shifted = normalizers.sum() + ((rows.largest - offset) / epsilon).sum()
    return Masses(log_columns, np.asarray(shifted), len(scores))


def plan(scores: NDArray[Any], potential: Float, epsilon: float) -> NDArray[Any]:
    """Return the plan of scores (B, K) that are not kept; see :class:`infoassign_backends.protocol.Backend`."""
    dtype = np.float64 if scores.dtype == np.float64 else np.float32
    found: NDArray[Any] = np.empty((1, *scores.shape), dtype)
    price, nothing = (potential / epsilon)[None], np.zeros((1, len(potential)))
    make = passes(scores.size)

    def work(piece: Piece) -> None:
        some = found[piece]
        rows = Rows(*np.empty((4, *some.shape[:2])))
        make.fill(scores[None][piece], price, epsilon, nothing, some, rows)
        make.normalize(some, np.ones_like(price), rows.sums)

    in_threads(work, shares(found.shape))
    return found.reshape(scores.shape)
