"""The sweep in the array-API standard only: no in-place writes, no boolean indexing, right everywhere.

It works in the log domain throughout, so no potential makes an entry overflow, and a column's mass is known by its
logarithm even where the mass itself would underflow. Every other backend is tested against this one.
"""

from typing import Any

import array_api_compat as api

from infoassign_backends.protocol import Array, Masses, Sweep


class DenseSweep:
    """Scores that are one array in memory; see :class:`infoassign_backends.protocol.Sweep`."""

    def __init__(self, scores: Array, epsilon: float) -> None:
        xp = api.array_namespace(scores)
        # Half precision is computed in float32; K-vectors, and all sums, in float64 where the device has it.
        self.compute_dtype: Any = xp.float64 if scores.dtype == xp.float64 else xp.float32
        real = xp.__array_namespace_info__().dtypes(kind="real floating", device=api.device(scores))
        self.vector_dtype: Any = real.get("float64", xp.float32)
        limits = xp.finfo(self.compute_dtype)
        if epsilon < float(limits.smallest_normal):
            raise ValueError(
                f"epsilon (for mira: temperature times 1 - beta) is {epsilon}, too small for {self.compute_dtype};"
                " multiply scores and temperature by the same large factor"
            )
        self._epsilon = epsilon
        x = xp.astype(scores, self.compute_dtype, copy=False)
        # Shifting a row does not change its plan. Done before the division, it keeps large scores from cancelling
        # after it: the entries that matter are those near zero. What would overflow is exp(-huge) = 0 anyway.
        largest = xp.max(x, axis=1, keepdims=True)
        limit = float(limits.max) * min(epsilon, 1.0) / 4
        out_of_range = x / 2 - largest / 2 < -limit
        scaled = (xp.where(out_of_range, largest, x) - largest) / epsilon
        self._scaled = xp.where(out_of_range, -xp.inf, scaled)
        self._shift = xp.sum(xp.astype(largest, self.vector_dtype) / epsilon)

    def _log_plan(self, potential: Array) -> tuple[Array, Array]:
        """Return ``log W(v)`` (B, K) and the log-normalisers of the shifted rows (B, 1)."""
        xp = api.array_namespace(potential)
        scaled = self._scaled - xp.astype(potential / self._epsilon, self.compute_dtype)
        largest = xp.max(scaled, axis=1, keepdims=True)
        below = scaled - largest
        # log w is taken from `below`, where heavy entries are near zero, not as scaled - lse: both of those can be
        # in the thousands and their difference would be good to 1e-4 in float32. The sum is asked for in the wide
        # dtype, since how a library adds up K numbers (pairwise or one by one) depends on their order in memory.
        log_sum = xp.log(xp.sum(xp.exp(below), axis=1, keepdims=True, dtype=self.vector_dtype))
        log_normalizers = xp.astype(largest, self.vector_dtype) + log_sum
        return below - xp.astype(log_sum, self.compute_dtype), log_normalizers

    def __call__(self, potential: Array) -> Masses:
        xp = api.array_namespace(potential)
        log_plan, log_normalizers = self._log_plan(potential)
        largest = xp.max(log_plan, axis=0)
        usable = largest > -xp.inf
        finite_largest = xp.where(usable, largest, xp.zeros_like(largest))
        mass = xp.sum(xp.exp(log_plan - finite_largest), axis=0, dtype=self.vector_dtype)
        log_mass = xp.log(xp.where(usable, mass, xp.ones_like(mass)))
        return Masses(
            log_columns=log_mass + xp.astype(largest, self.vector_dtype),
            log_normalizers=self._shift + xp.sum(log_normalizers),
            rows=log_plan.shape[0],
        )

    def plan(self, potential: Array) -> Array:
        return api.array_namespace(potential).exp(self._log_plan(potential)[0])

    def labels(self, potential: Array) -> Array:
        return api.array_namespace(potential).argmax(self._log_plan(potential)[0], axis=1)


def prepare(scores: Array, epsilon: float) -> Sweep:
    """Prepare dense scores; see :class:`infoassign_backends.protocol.Backend`."""
    return DenseSweep(scores, epsilon)
