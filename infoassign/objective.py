"""The objective of the family and its certificate, from vectors of length K alone (theory, part A).

For scores ``s`` (B, K), an entropy weight ``epsilon`` > 0, a marginal strength ``rho`` >= 0 and a prior
``r``, an assignment minimises over plans ``W`` with rows in the simplex

    primal(W) = -(1/B) <W, s> + epsilon (1/B) sum w log w + rho KL(wbar || r),   wbar = mean_i w_i.

Plans are searched among ``W(v)``, ``w_ij ∝ exp((s_ij - v_j) / epsilon)``, where the optimum lies (A2). Its dual is

    dual(v) = -rho log sum_j r_j exp(v_j / rho) - epsilon mean_i lse_i           (A3)

and the difference of the two has a closed form, ``rho KL(wbar || u)`` with ``u ∝ r exp(v / rho)`` (A4):
one sweep, which yields ``wbar``, certifies itself at O(K) cost.
"""

from dataclasses import dataclass
from math import log
from typing import Any

import array_api_compat as api

from infoassign_backends.protocol import Array


@dataclass(frozen=True)
class Family:
    """One member of the family: the three things that, with the scores, make a problem.

    MIRA's eq. 4 is ``epsilon = 1 - beta``, ``strength = beta`` and a uniform prior, on log-probabilities.
    """

    epsilon: float
    """Weight of the entropy of the rows, in units of the scores; > 0."""
    strength: float
    """Weight rho of ``KL(wbar || prior)``, in units of the scores; >= 0, finite."""
    log_prior: Array
    """``log r``, shape (K,)."""


@dataclass(frozen=True)
class Certificate:
    """What one sweep proves about the plan that it passed over; every field has shape ()."""

    gap: Array
    """Primal minus dual, in units of the scores; an upper bound on the suboptimality."""
    error_bound: Array
    """Bound on the mean over rows of the total variation to the optimal plan, rounding included."""
    row_error_bound: Array
    """The same for the worst row."""
    floor: Array
    """The value of `error_bound` that rounding alone would leave at the exact solution."""


def log_target(family: Family, potential: Array, usable: Array) -> tuple[Array, Array]:
    """Return ``log u`` with ``u ∝ r exp(v / rho)`` over the usable columns, and the log of its scale.

    ``u`` is the column marginal that the potential asks for; at the optimum it is the marginal there is.
    """
    xp = api.array_namespace(potential)
    log_u = xp.where(usable, family.log_prior + potential / family.strength, -xp.inf)
    largest = xp.max(log_u)
    scale = largest + xp.log(xp.sum(xp.exp(log_u - largest)))
    return log_u - scale, scale


def dual_value(family: Family, potential: Array, usable: Array, mean_log_normalizer: Array) -> Array:
    """Evaluate ``dual(v)`` (A3); at strength 0, where the potential must be 0, only the softmax is left."""
    if family.strength == 0:
        return -family.epsilon * mean_log_normalizer
    _, scale = log_target(family, potential, usable)
    return -family.strength * scale - family.epsilon * mean_log_normalizer


def closed_form_gap(strength: float, log_u: Array, d: Array) -> Array:
    """Evaluate ``rho KL(wbar || u)`` (A4), with ``d = log wbar - log u``, so that rounding cannot make it negative.

    The textbook sum of ``wbar log(wbar / u)`` cancels terms of either sign and drowns at 1e-8 in float32. Both
    vectors sum to one, so ``KL = sum u (d e^d - e^d + 1)``, whose terms are all non-negative; near d = 0 they are
    evaluated with expm1, far from it without a bare exp(d), which may overflow.
    """
    xp = api.array_namespace(d)
    u = xp.exp(log_u)
    near = xp.abs(d) < 1
    d_near = xp.where(near, d, 0.0)
    far = xp.exp(log_u + d) * (d - 1) + u
    return strength * xp.sum(xp.where(near, u * (d_near * xp.exp(d_near) - xp.expm1(d_near)), far))


def certify(family: Family, potential: Array, log_marginal: Array, usable: Array, rows: int, dtype: Any) -> Certificate:
    """Bound the distance from ``W(v)`` to the optimum (A5), rounding of the sweep included.

    Parameters
    ----------
    family
        The problem.
    potential
        ``v``, shape (K,).
    log_marginal
        ``log wbar`` of the sweep at `potential`, shape (K,).
    usable
        Which columns some row may use, shape (K,), boolean.
    rows
        The number of rows B that the sweep summed over.
    dtype
        The dtype in which the sweep computed the plan.
    """
    xp = api.array_namespace(potential)
    epsilon, rho = family.epsilon, family.strength
    wbar = xp.where(usable, xp.exp(log_marginal), 0.0)
    highest = xp.max(xp.where(usable, potential, -xp.inf))
    # |v - max v| / epsilon: how far below its row's maximum a column's potential can lift an entry.
    lift = xp.where(usable, (highest - potential) / epsilon, 0.0)

    # Rounding. The operations of a sweep, in order, leave log w off by up to 2 S + |(s - v) / epsilon| + |log w| + a
    # few units, where S = (max_k s_k - s) / epsilon <= lift + log K - log w, and the sums add at most a unit of their
    # own dtype per term. A column's mass comes from entries no lighter than itself. In a row entries weigh in by w,
    # where -w log w sums to at most log K; over all rows, lift weighs in by wbar.
    unit = float(xp.finfo(dtype).eps) / 2
    sums = (rows + potential.shape[0]) * float(xp.finfo(potential.dtype).eps) / 2
    log_k = log(potential.shape[0])
    rounded_mean = unit * (2 * xp.sum(wbar * lift) + 4 * log_k + 8) + sums
    rounded_row = xp.maximum(unit * (2 * xp.max(lift) + 4 * log_k + 8) + sums, rounded_mean)
    if rho == 0:
        return Certificate(xp.zeros_like(highest), rounded_mean, rounded_row, rounded_mean)
    rounded_column = unit * (3 * (lift + log_k) + 3 * xp.where(usable, -log_marginal, 0.0) + 10) + sums

    log_u, _ = log_target(family, potential, usable)
    d = xp.where(usable, log_marginal, 0.0) - xp.where(usable, log_u, 0.0)
    gap = closed_form_gap(rho, log_u, d)
    oscillation = xp.max(xp.where(usable, d, -xp.inf)) - xp.min(xp.where(usable, d, xp.inf))

    # Mean over rows: TV <= sqrt(gap / (4 epsilon)). To leading order gap is rho sum wbar d^2 / 2, a squared norm
    # of d, so the rounding of d adds its own norm.
    mean_floor = rounded_mean + xp.sqrt(rho / (8 * epsilon) * xp.sum(wbar * rounded_column**2))
    mean_bound = xp.sqrt(gap / (4 * epsilon)) + mean_floor
    # Worst row: TV <= tanh(rho osc(d) / (4 epsilon)).
    rounded_oscillation = 2 * xp.max(xp.where(usable, rounded_column, 0.0))
    row_floor = rounded_row + xp.tanh(rho / (4 * epsilon) * rounded_oscillation)
    row_bound = rounded_row + xp.tanh(rho / (4 * epsilon) * (oscillation + rounded_oscillation))
    # No total variation is larger than 1, or for rows that sum to one up to rounding, than 1 and half of that.
    largest = xp.ones_like(gap) + unit * (log_k + 4)
    return Certificate(
        gap=gap,
        error_bound=xp.minimum(xp.minimum(mean_bound, row_bound), largest),
        row_error_bound=xp.minimum(row_bound, largest),
        floor=xp.minimum(mean_floor, row_floor),
    )
