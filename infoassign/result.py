"""What a solve returns: an assignment that knows how right it is."""

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from math import exp
from typing import TYPE_CHECKING, Any

import array_api_compat as api

from infoassign.information import entropy, mutual_information
from infoassign.objective import dual_value
from infoassign_backends.protocol import Array, Sweep

if TYPE_CHECKING:
    from infoassign.objective import Family
    from infoassign.solver import Solution


class Status(Enum):
    """Why a solve stopped. `advice` says in a sentence what that means and what to do.

    Examples
    --------
    >>> Status.STALLED.advice
    'Rounding keeps the certified error above tol; pass the scores in float64, or raise tol.'
    """

    CONVERGED = "converged"
    MAX_SWEEPS = "max_sweeps"
    STALLED = "stalled"

    @property
    def advice(self) -> str:
        """One sentence for the user."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "The certified error is within tol.",
    Status.MAX_SWEEPS: "All sweeps were used before the certified error came within tol; raise max_sweeps, or tol.",
    Status.STALLED: "Rounding keeps the certified error above tol; pass the scores in float64, or raise tol.",
}


@dataclass(frozen=True, eq=False, repr=False)
class Assignment:
    """Soft labels for a batch of scores, and the proof of how close to optimal they are.

    Made by :func:`infoassign.mira`. The plan, the labels and what is derived from them are computed when
    first asked for and kept. Energies (`gap`, `objective`, `potential`) are in units of scores / temperature.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> assignment = ia.mira(np.array([[1.0, 0.0], [0.0, 3.0]]))
    >>> assignment
    Assignment(rows=2, columns=2, status=CONVERGED, sweeps=17, error_bound=9.5e-06)
    """

    _sweep: Sweep = field(repr=False)
    _family: "Family" = field(repr=False)
    _solution: "Solution" = field(repr=False)
    _unit: float
    """The temperature: energies of the solution are in units of raw scores, those shown in scores / temperature."""
    _dtype: Any = field(repr=False)
    """The dtype of the scores, and of the plan that is shown."""
    rows: int
    """The number of rows B."""

    @cached_property
    def _computed_plan(self) -> Array:
        """The plan in the dtype of the computation, which half precision would blur."""
        return self._sweep.plan(self._solution.potential)

    @cached_property
    def plan(self) -> Array:
        """Soft labels, shape (B, K), rows in the simplex; library, device and dtype of the scores."""
        plan = self._computed_plan
        return api.array_namespace(plan).astype(plan, self._dtype, copy=False)

    @cached_property
    def labels(self) -> Array:
        """The likeliest label of every row, shape (B,), integer."""
        return self._sweep.labels(self._solution.potential)

    @property
    def marginal(self) -> Array:
        """Share of every label, ``mean_i w_ij``, shape (K,), summing to one."""
        xp = api.array_namespace(self._solution.log_marginal)
        return xp.exp(self._solution.log_marginal)

    @property
    def potential(self) -> Array:
        """``v``, shape (K,): ``w_ij ∝ exp((s_ij - v_j) / epsilon)``, with ``mean_j exp(v_j / beta) = 1``.

        ``+inf``, a price nobody pays, for a label that no row may use. At strength 0 (beta = 0) it is 0.
        """
        solution = self._solution
        xp = api.array_namespace(solution.potential)
        return xp.where(solution.usable, solution.potential / self._unit, xp.inf)

    @property
    def gap(self) -> float:
        """Primal objective minus dual objective, a bound on the suboptimality (theory, A4)."""
        return float(self._solution.certificate.gap) / self._unit

    @property
    def error_bound(self) -> float:
        """Bound on the mean over rows of the total variation to the optimal plan (theory, A5).

        It includes what rounding in the dtype of the computation can add. Half precision is computed in float32, and
        the bound is about that plan: showing it in half precision then rounds every entry once more.
        """
        return float(self._solution.certificate.error_bound)

    @property
    def row_error_bound(self) -> float:
        """Bound on the total variation to the optimal plan in the worst row (theory, A5)."""
        return float(self._solution.certificate.row_error_bound)

    @property
    def objective(self) -> float:
        """The primal objective of the plan; MIRA's eq. 4 is this minus ``beta log K``."""
        solution = self._solution
        dual = dual_value(self._family, solution.potential, solution.usable, solution.mean_log_normalizer)
        return float(dual) / self._unit + self.gap

    @property
    def sweeps(self) -> int:
        """How many times the scores were passed over."""
        return self._solution.sweeps

    @property
    def status(self) -> Status:
        """Why the solve stopped."""
        return self._solution.status

    @property
    def converged(self) -> bool:
        """Whether the certified error is within the tolerance that was asked for."""
        return self.status is Status.CONVERGED

    @cached_property
    def mutual_information(self) -> float:
        """Mutual information between label and row, in nats (MIRA, eq. 2); at most ``log min(B, K)``."""
        return float(mutual_information(self._computed_plan))

    @property
    def perplexity(self) -> float:
        """``exp H(marginal)``: the effective number of labels in use, between 1 and K."""
        return exp(float(entropy(self.marginal)))

    def __repr__(self) -> str:
        columns = self._solution.potential.shape[0]
        return (
            f"Assignment(rows={self.rows}, columns={columns}, status={self.status.name}, "
            f"sweeps={self.sweeps}, error_bound={self.error_bound:.2g})"
        )
