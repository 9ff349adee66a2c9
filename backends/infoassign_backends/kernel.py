"""The sweep for arrays in the memory of the host: exponentials once, then two products with a matrix.

The kernel ``E_ij = exp(log w_ij(v_ref) - max_i log w_ij(v_ref))`` is made at one potential and serves all that are
near it: with ``a_j = exp(max_i log w_ij(v_ref) - (v_j - v_ref_j) / epsilon)``, the rows' sums are ``R = E a`` and the
columns' masses ``a * (E^T (1 / R))``. Scaled like this, every row has an entry of at least ``1 / K`` of its column's
largest and every column one that is 1, so what underflows in either sum is below 1e-37 of it, times how far the
potential has drifted; past :data:`DRIFT` the potential is absorbed anew, which costs two exponentials an entry, as a
sweep in the log domain does.

All is computed in float64, tile by tile, so that one tile is read once for both products; the kernel itself is
stored in the precision of the scores, single precision for halves.
"""

from collections.abc import Iterator
from typing import Any

import array_api_compat as api

from infoassign_backends.host import masses, plan
from infoassign_backends.joint_host import off_diagonal, off_diagonal_and_gradients, product
from infoassign_backends.protocol import Array, Masses, Sweep
from infoassign_backends.reference import log_sum_exp_of_columns, shift_rows

DRIFT = {32: 40.0, 64: 300.0}
"""How far, in units of epsilon, the spread of ``v - v_ref`` may grow for a kernel of so many bits."""
TILE = 2**16
"""Entries that are worked on at a time, so that they stay in the cache."""

__all__ = ["KernelSweep", "masses", "off_diagonal", "off_diagonal_and_gradients", "plan", "prepare", "product"]


class KernelSweep:
    """Scores that are one array on the host; see :class:`infoassign_backends.protocol.Sweep`."""

    def __init__(self, scores: Array, epsilon: float) -> None:
        xp = api.array_namespace(scores)
        self.plan_dtype: Any = xp.float64 if scores.dtype == xp.float64 else xp.float32
        self.compute_dtype: Any = xp.float64
        self.vector_dtype: Any = xp.float64
        self.sum_error = (scores.shape[-2] + scores.shape[-1]) * float(xp.finfo(xp.float64).eps) / 2
        self.rows: int = scores.shape[-2]
        self._scores = scores
        self._epsilon = epsilon
        self._step = max(1, TILE // scores.shape[-1])
        offset: Array = 0.0
        lowest = []
        for tile in self._tiles(scores):
            scaled, largest = shift_rows(tile, epsilon)
            offset = offset + xp.sum(largest / scores.shape[-2], axis=(-2, -1))
            lowest.append(xp.min(scaled, axis=(-2, -1)))
        self.offset: Array = offset
        self.span: Array = -xp.min(xp.stack(lowest), axis=0)
        self._reference: Array | None = None
        """The potential that the kernel was made at; None before the first."""
        self._kernel: Array = None
        self._log_largest: Array = None
        """``max_i log w_ij`` there, shape (..., K); ``-inf`` for a column that no row may use."""
        self._log_normalizers: Array = None
        """Those of the shifted rows there, shape (..., B, 1)."""

    def _tiles(self, matrix: Array) -> Iterator[Array]:
        """Yield the rows of a matrix in float64, some at a time."""
        xp = api.array_namespace(matrix)
        for start in range(0, matrix.shape[-2], self._step):
            stop = min(start + self._step, matrix.shape[-2])  # the standard has no slices beyond the end
            yield xp.astype(matrix[..., start:stop, :], xp.float64, copy=False)

    def _below(self, tile: Array, potential: Array) -> tuple[Array, Array]:
        """Return ``(s - v) / epsilon`` of some shifted rows less its maximum in the row, and that maximum."""
        xp = api.array_namespace(tile)
        scaled = shift_rows(tile, self._epsilon)[0] - (potential / self._epsilon)[..., None, :]
        largest = xp.max(scaled, axis=-1, keepdims=True)
        return scaled - largest, largest

    def _absorb(self, potential: Array) -> Masses:
        """Make the kernel at a potential and return the masses there, which come with it."""
        xp = api.array_namespace(potential)
        log_sums, log_normalizers, log_largest = [], [], []
        for tile in self._tiles(self._scores):
            below, largest_of_row = self._below(tile, potential)
            log_sum = xp.log(xp.sum(xp.exp(below), axis=-1, keepdims=True))
            log_sums.append(log_sum)
            log_normalizers.append(largest_of_row + log_sum)
            log_largest.append(xp.max(below - log_sum, axis=-2))
        largest = xp.max(xp.stack(log_largest), axis=0)
        usable = largest != -xp.inf  # a NaN stays in, to be seen in the answer
        finite_largest = xp.where(usable, largest, 0.0)[..., None, :]
        kernel = []
        mass: Array = 0.0
        for tile, log_sum in zip(self._tiles(self._scores), log_sums, strict=True):
            entries = xp.exp(self._below(tile, potential)[0] - log_sum - finite_largest)
            mass = mass + xp.sum(entries, axis=-2)
            kernel.append(xp.astype(entries, self.plan_dtype, copy=False))
        self._reference = potential
        self._kernel = xp.concat(kernel, axis=-2)
        self._log_largest = largest
        self._log_normalizers = xp.concat(log_normalizers, axis=-2)
        return Masses(
            log_columns=xp.log(xp.where(usable, mass, 1.0)) + largest,
            log_normalizers=xp.sum(self._log_normalizers, axis=(-2, -1)),
            rows=self.rows,
        )

    def _log_scale(self, potential: Array) -> Array | None:
        """Return ``log a``, or None if the potential is too far from that of the kernel."""
        if self._reference is None:
            return None
        xp = api.array_namespace(potential)
        drift = (potential - self._reference) / self._epsilon
        spread = xp.max(drift, axis=-1) - xp.min(drift, axis=-1)
        # Written so that a NaN does not pass.
        if not bool(xp.all(spread <= DRIFT[xp.finfo(self.plan_dtype).bits])):
            return None
        # A common shift of the potential is taken out, or it could overflow; __call__ puts it back.
        return self._log_largest - (drift - xp.min(drift, axis=-1, keepdims=True))

    def _scaled_tiles(self, potential: Array) -> Iterator[Array]:
        """Yield ``E a`` entry by entry: the plan at a potential, its rows not yet normalised."""
        xp = api.array_namespace(potential)
        log_scale = self._log_scale(potential)
        if log_scale is None:
            self._absorb(potential)
            log_scale = self._log_largest
        scale = xp.exp(log_scale)[..., None, :]
        for tile in self._tiles(self._kernel):
            yield tile * scale

    def __call__(self, potential: Array) -> Masses:
        xp = api.array_namespace(potential)
        log_scale = self._log_scale(potential)
        if log_scale is None:
            return self._absorb(potential)
        scale = xp.exp(log_scale)[..., :, None]
        mass: Array = 0.0
        log_sums: Array = 0.0
        for tile in self._tiles(self._kernel):
            sums = tile @ scale
            mass = mass + xp.squeeze(xp.matrix_transpose(1 / sums) @ tile, axis=-2)
            log_sums = log_sums + xp.sum(xp.log(sums), axis=(-2, -1))
        usable = mass != 0  # a column that some row may use has an entry of 1
        drift = xp.min((potential - self._reference) / self._epsilon, axis=-1)
        return Masses(
            log_columns=xp.where(usable, xp.log(xp.where(usable, mass, 1.0)) + log_scale, -xp.inf),
            log_normalizers=xp.sum(self._log_normalizers, axis=(-2, -1)) + log_sums - self.rows * drift,
            rows=self.rows,
        )

    def plan(self, potential: Array) -> Array:
        xp = api.array_namespace(potential)
        tiles = self._scaled_tiles(potential)
        plan = [xp.astype(tile / xp.sum(tile, axis=-1, keepdims=True), self.plan_dtype, copy=False) for tile in tiles]
        return xp.concat(plan, axis=-2)

    def iter_plan(self, potential: Array) -> Iterator[Array]:
        yield self.plan(potential)

    def labels(self, potential: Array) -> Array:
        xp = api.array_namespace(potential)
        return xp.concat([xp.argmax(tile, axis=-1) for tile in self._scaled_tiles(potential)], axis=-1)

    def apply(self, potential: Array, x: Array) -> Array:
        xp = api.array_namespace(potential)
        columns = x[..., :, None]
        parts = [(tile @ columns) / xp.sum(tile, axis=-1, keepdims=True) for tile in self._scaled_tiles(potential)]
        return xp.squeeze(xp.concat(parts, axis=-2), axis=-1)

    def apply_transpose(self, potential: Array, y: Array) -> Array:
        xp = api.array_namespace(potential)
        total: Array = 0.0
        for part, tile in zip(self._tiles(y[..., None]), self._scaled_tiles(potential), strict=True):
            weights = part / xp.sum(tile, axis=-1, keepdims=True)
            total = total + xp.squeeze(xp.matrix_transpose(weights) @ tile, axis=-2)
        return total

    def log_column_sums(self) -> Array:
        xp = api.array_namespace(self._scores)
        # Tile by tile, so that no other matrix of the full size is made.
        sums = [log_sum_exp_of_columns(tile / self._epsilon, xp.float64) for tile in self._tiles(self._scores)]
        return log_sum_exp_of_columns(xp.stack(sums, axis=-2), xp.float64)

    def sum_rows(self, values: Array) -> Array:
        return api.array_namespace(values).sum(values, axis=-1)

    def bound_rows(self, values: Array) -> Array:
        return api.array_namespace(values).max(values, axis=-1)


def prepare(scores: Array, epsilon: float) -> Sweep:
    """Prepare dense scores; see :class:`infoassign_backends.protocol.Backend`."""
    return KernelSweep(scores, epsilon)
