"""The sweep in the array-API standard only: no in-place writes, no boolean indexing, right everywhere.

It works in the log domain throughout, so no potential makes an entry overflow, and a column's mass is known by its
logarithm even where the mass itself would underflow. It never looks at a value, so it can be traced and needs no
synchronisation. Every other sweep is tested against this one. The joint entropy in the standard is
in :mod:`infoassign_backends.joint`.
"""

from collections.abc import Iterator
from math import ceil, log2
from typing import Any

import array_api_compat as api

from infoassign_backends.joint import off_diagonal, off_diagonal_and_gradients, product
from infoassign_backends.protocol import Array, Masses, Product, Sweep
from infoassign_backends.sums import accurate_sum, widest

__all__ = ["LogSweep", "factored", "masses", "off_diagonal", "off_diagonal_and_gradients", "plan", "prepare", "product"]


def check_epsilon(epsilon: float, dtype: Any, xp: Any) -> None:
    """Say so if an epsilon is below the smallest normal number of the dtype that is computed in."""
    if epsilon < float(xp.finfo(dtype).smallest_normal):
        name = getattr(dtype, "__name__", dtype)
        raise ValueError(
            f"epsilon (for mira: temperature times 1 - beta) is {epsilon}, too small for {name};"
            " multiply the scores and epsilon (the temperature) by the same large factor"
        )


def shift_rows(scores: Array, epsilon: float) -> tuple[Array, Array]:
    """Return ``(s - max_j s) / epsilon``, at most 0, and the row maxima, shape (..., B, 1).

    Shifting a row does not change its plan. Done before the division, it keeps large scores from cancelling
    after it: the entries that matter are those near zero. What would overflow becomes ``exp(-inf) = 0``.

    Raises
    ------
    ValueError
        If epsilon is below the smallest normal number of the dtype of the scores.
    """
    xp = api.array_namespace(scores)
    check_epsilon(epsilon, scores.dtype, xp)
    limits = xp.finfo(scores.dtype)
    largest = xp.max(scores, axis=-1, keepdims=True)
    limit = float(limits.max) * min(epsilon, 1.0) / 4
    out_of_range = scores / 2 - largest / 2 < -limit
    scaled = (xp.where(out_of_range, largest, scores) - largest) / epsilon
    return xp.where(out_of_range, -xp.inf, scaled), largest


def log_sum_exp_of_columns(x: Array, dtype: Any) -> Array:
    """Return ``log sum_i exp(x_ij)``, shape (..., K), summed in `dtype`; ``-inf`` for columns of ``-inf``."""
    xp = api.array_namespace(x)
    largest = xp.max(x, axis=-2, keepdims=True)
    usable = largest != -xp.inf  # a NaN stays in, to be seen in the answer
    total = accurate_sum(xp.matrix_transpose(xp.exp(x - xp.where(usable, largest, 0.0))), dtype)
    usable, largest = xp.squeeze(usable, axis=-2), xp.squeeze(largest, axis=-2)
    return xp.log(xp.where(usable, total, 1.0)) + xp.astype(largest, dtype)


class LogSweep:
    """Scores that are one array in memory; see :class:`infoassign_backends.protocol.Sweep`."""

    def __init__(self, scores: Array, epsilon: float) -> None:
        xp = api.array_namespace(scores)
        # Half precision is computed in float32; K-vectors, and all sums, in float64 where the device has it.
        self.plan_dtype: Any = xp.float64 if scores.dtype == xp.float64 else xp.float32
        self.compute_dtype: Any = self.plan_dtype
        self.vector_dtype: Any = widest(scores)
        rows, columns = scores.shape[-2:]
        self.rows: int = rows
        unit = float(xp.finfo(self.vector_dtype).eps) / 2
        depth = ceil(log2(rows)) + ceil(log2(columns)) + 2
        self.sum_error = (depth if self.vector_dtype == xp.float32 else rows + columns) * unit
        self.entry_error = float(xp.finfo(self.plan_dtype).eps)
        self._epsilon = epsilon
        self._scaled, self._largest = shift_rows(xp.astype(scores, self.plan_dtype, copy=False), epsilon)
        self.offset: Array = xp.sum(xp.astype(self._largest, self.vector_dtype) / rows, axis=(-2, -1))
        self.span: Array = -xp.astype(xp.min(self._scaled, axis=(-2, -1)), self.vector_dtype)

    def _log_plan(self, potential: Array) -> tuple[Array, Array]:
        """Return ``log W(v)`` (..., B, K) and the log-normalisers of the shifted rows (..., B, 1)."""
        xp = api.array_namespace(potential)
        scaled = self._scaled - xp.astype(potential / self._epsilon, self.plan_dtype)[..., None, :]
        largest = xp.max(scaled, axis=-1, keepdims=True)
        below = scaled - largest
        # log w is taken from `below`, where heavy entries are near zero, not as scaled - lse: both of those can be
        # in the thousands and their difference would be good to 1e-4 in float32. The sum is asked for in the wide
        # dtype, since how a library adds up K numbers (pairwise or one by one) depends on their order in memory.
        log_sum = xp.log(accurate_sum(xp.exp(below), self.vector_dtype))[..., None]
        log_normalizers = xp.astype(largest, self.vector_dtype) + log_sum
        return below - xp.astype(log_sum, self.plan_dtype), log_normalizers

    def __call__(self, potential: Array) -> Masses:
        log_plan, log_normalizers = self._log_plan(potential)
        return Masses(
            log_columns=log_sum_exp_of_columns(log_plan, self.vector_dtype),
            log_normalizers=accurate_sum(log_normalizers[..., 0], self.vector_dtype),
            rows=log_plan.shape[-2],
        )

    def iter_plan(self, potential: Array) -> Iterator[Array]:
        yield self._plan(potential)

    def _plan(self, potential: Array) -> Array:
        return api.array_namespace(potential).exp(self._log_plan(potential)[0])

    def labels(self, potential: Array) -> Array:
        return api.array_namespace(potential).argmax(self._log_plan(potential)[0], axis=-1)

    def apply(self, potential: Array, x: Array) -> Array:
        return accurate_sum(self._plan(potential) * x[..., None, :], self.vector_dtype)

    def apply_transpose(self, potential: Array, y: Array) -> Array:
        xp = api.array_namespace(potential)
        return accurate_sum(xp.matrix_transpose(self._plan(potential) * y[..., :, None]), self.vector_dtype)

    def log_column_sums(self) -> Array:
        return log_sum_exp_of_columns(self._scaled + self._largest / self._epsilon, self.vector_dtype)

    def sum_rows(self, values: Array) -> Array:
        return accurate_sum(values, self.vector_dtype)

    def bound_rows(self, values: Array) -> Array:
        return api.array_namespace(values).max(values, axis=-1)


def prepare(scores: Array, epsilon: float) -> Sweep:
    """Prepare dense scores; see :class:`infoassign_backends.protocol.Backend`."""
    return LogSweep(scores, epsilon)


def factored(product: Product, epsilon: float) -> None:
    """Return None: tiles are as good; see :class:`infoassign_backends.protocol.Backend`."""


def masses(scores: Array, potential: Array, epsilon: float, offset: float, known: Array) -> Masses:
    """Pass once over scores that are not kept; see :class:`infoassign_backends.protocol.Backend`."""
    sweep = LogSweep(scores, epsilon)
    found = sweep(potential)
    return found._replace(log_normalizers=found.log_normalizers + (sweep.offset - offset) * (sweep.rows / epsilon))


def plan(scores: Array, potential: Array, epsilon: float) -> Array:
    """Return the plan of scores that are not kept; see :class:`infoassign_backends.protocol.Backend`."""
    return next(LogSweep(scores, epsilon).iter_plan(potential))
