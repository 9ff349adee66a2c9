"""The sweep in the array-API standard only: no in-place writes, no boolean indexing, right everywhere.

It works in the log domain throughout, so no potential and no epsilon makes an entry overflow, and a
column's mass is known by its logarithm even where the mass itself would underflow. Every other
backend is tested against this one.
"""

from typing import Any

import array_api_compat as api

from infoassign_backends.protocol import Array, Masses, Sweep


class DenseSweep:
    """Scores that are one array in memory; see :class:`infoassign_backends.protocol.Sweep`."""

    def __init__(self, scores: Array, epsilon: float) -> None:
        xp = self._xp = api.array_namespace(scores)
        self._output_dtype = scores.dtype
        # Half precision is computed in float32; K-vectors in float64 where the device has it.
        self.compute_dtype: Any = xp.float64 if scores.dtype == xp.float64 else xp.float32
        real = xp.__array_namespace_info__().dtypes(kind="real floating", device=api.device(scores))
        self.vector_dtype: Any = real.get("float64", xp.float32)
        self._epsilon = epsilon
        x = xp.astype(scores, self.compute_dtype, copy=False)
        # Shifting a row does not change its plan. Done before the division, it keeps large scores
        # from cancelling after it: the entries that matter are those near zero.
        largest = xp.max(x, axis=1, keepdims=True)
        self._scaled = (x - largest) / epsilon
        self._shift = xp.sum(largest, dtype=self.vector_dtype) / epsilon

    def _log_plan(self, potential: Array) -> tuple[Array, Array]:
        """Return ``log W(v)`` (B, K) and the log-normalisers of the shifted rows (B, 1)."""
        xp = self._xp
        scaled = self._scaled - xp.astype(potential / self._epsilon, self.compute_dtype)
        largest = xp.max(scaled, axis=1, keepdims=True)
        below = scaled - largest
        # log w is taken from `below`, where heavy entries are near zero, not as scaled - lse: both of those can be
        # in the thousands and their difference would be good to 1e-4 in float32.
        log_sum = xp.log(xp.sum(xp.exp(below), axis=1, keepdims=True))
        return below - log_sum, largest + log_sum

    def __call__(self, potential: Array) -> Masses:
        xp = self._xp
        log_plan, lse = self._log_plan(potential)
        largest = xp.max(log_plan, axis=0)
        usable = largest > -xp.inf
        finite_largest = xp.where(usable, largest, xp.zeros_like(largest))
        mass = xp.sum(xp.exp(log_plan - finite_largest), axis=0, dtype=self.vector_dtype)
        log_mass = xp.log(xp.where(usable, mass, xp.ones_like(mass)))
        return Masses(
            log_columns=log_mass + xp.astype(largest, self.vector_dtype),
            log_normalizers=self._shift + xp.sum(lse, dtype=self.vector_dtype),
            rows=log_plan.shape[0],
        )

    def plan(self, potential: Array) -> Array:
        xp = self._xp
        return xp.astype(xp.exp(self._log_plan(potential)[0]), self._output_dtype, copy=False)

    def labels(self, potential: Array) -> Array:
        return self._xp.argmax(self._log_plan(potential)[0], axis=1)


def prepare(scores: Array, epsilon: float) -> Sweep:
    """Prepare dense scores; see :class:`infoassign_backends.protocol.Backend`."""
    return DenseSweep(scores, epsilon)
