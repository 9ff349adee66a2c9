"""The objective of the family and its certificates, from vectors of length K (theory, part A).

For scores ``s`` (B, K), an entropy weight ``epsilon`` > 0, a marginal strength ``rho`` in [0, inf] and a prior
``r``, an assignment minimises over plans ``W`` with rows in the simplex

    primal(W) = -(1/B) <W, s> + epsilon (1/B) sum w log w + rho KL(wbar || r),   wbar = mean_i w_i,

where ``rho = inf`` means ``wbar = r`` exactly. There is one minimiser (A1). It is searched among the ``W(v)`` (A2):
``w_ij ∝ exp((s_ij - v_j) / epsilon)``. The dual is

    dual(v) = -rho log sum_j r_j exp(v_j / rho) - epsilon mean_i lse_i           (A3; -<v, r> - ... for rho = inf)

and for finite rho the difference of the two has a closed form, ``rho KL(wbar || u)`` with ``u ∝ r exp(v / rho)`` (A4):
one sweep, which yields ``wbar``, certifies itself at O(K) cost. For ``rho = inf`` a feasible plan near ``W(v)`` is
needed; see :mod:`infoassign.rounding`. Leading axes are a batch of problems throughout.
"""

from dataclasses import dataclass
from functools import cached_property
from math import inf, log
from typing import NamedTuple

import array_api_compat as api

from infoassign.arrays import dot, either
from infoassign_backends.protocol import Array, Masses, Sweep


@dataclass(frozen=True)
class Family:
    """One member of the family: the three things that, with the scores, make a problem.

    MIRA's eq. 4 is ``epsilon = 1 - beta``, ``strength = beta`` and a uniform prior, on log-probabilities.
    """

    epsilon: float
    """Weight of the entropy of the rows, in units of the scores; > 0."""
    strength: float
    """Weight rho of ``KL(wbar || prior)``, in units of the scores; in [0, inf]."""
    log_prior: Array
    """``log r``, shape (K,) or (..., K)."""

    @cached_property
    def prior(self) -> Array:
        """``r``."""
        return api.array_namespace(self.log_prior).exp(self.log_prior)

    @property
    def exact(self) -> bool:
        """Whether the marginal must equal the prior."""
        return self.strength == inf

    @property
    def beta(self) -> float:
        """The modulus of the plain step, ``rho / (rho + epsilon)`` (A6)."""
        return 1.0 if self.exact else self.strength / (self.strength + self.epsilon)


class Rounding(NamedTuple):
    """Bounds on what rounding in a sweep changes."""

    mean: Array
    """Total variation of the plan's rows, on average, shape (...,)."""
    row: Array
    """The same for the worst row, shape (...,)."""
    column: Array
    """Logarithm of the columns' masses, shape (..., K)."""
    total: Array
    """Sum of a row, which should be 1, shape (...,)."""


class Point(NamedTuple):
    """A potential and what one sweep said there; vectors have shape (..., K), the rest (...,)."""

    potential: Array
    usable: Array
    """Which columns some row may use."""
    log_marginal: Array
    """``log wbar``."""
    log_target: Array
    """``log u``: the column marginal that the potential asks for, which at the optimum is the one there is (A2)."""
    marginal: Array
    """``wbar``."""
    target: Array
    """``u``."""
    dual: Array
    """``dual(v) / epsilon``, of rows shifted so that their largest score is 0."""
    rounding: Rounding


class Certificate(NamedTuple):
    """What is proved about the plan at a point; every field has shape (...,)."""

    gap: Array
    """Bound on the suboptimality, in units of the scores."""
    error_bound: Array
    """Bound on the mean over rows of the total variation to the optimal plan, rounding included."""
    row_error_bound: Array
    """The same for the worst row."""
    floor: Array
    """The value of `error_bound` that rounding alone would leave at the exact solution."""


def tempered_prior(family: Family, potential: Array, usable: Array) -> tuple[Array, Array]:
    """Return ``log u`` with ``u ∝ r exp(v / rho)`` over the usable columns, and the log of its scale.

    The scale is taken by log1p where it is near one, since for large rho it is multiplied by it.
    """
    xp = api.array_namespace(potential)
    scaled = xp.where(usable, potential / family.strength, -xp.inf)
    largest = xp.max(scaled, axis=-1, keepdims=True)
    below = scaled - largest
    r = xp.where(usable, family.prior, 0.0)
    total = xp.sum(r, axis=-1, keepdims=True)
    difference = xp.sum(r * xp.expm1(below), axis=-1, keepdims=True) / total
    near = difference > -0.5
    log_mean = either(
        xp.all(near, axis=-1),
        lambda: xp.log1p(xp.where(near, difference, 0.0)),
        lambda: xp.log(xp.sum(r * xp.exp(below), axis=-1, keepdims=True) / total),
    )
    scale = largest + xp.log(total) + log_mean
    return family.log_prior + scaled - scale, xp.squeeze(scale, axis=-1)


def gauged(family: Family, potential: Array, usable: Array) -> Array:
    """Shift a potential so that ``sum_j r_j exp(v_j / rho) = 1`` (``sum_j r_j v_j = 0`` for rho = inf); A7.

    A common shift is invisible to the plan, yet it is the slowest mode of the iteration.
    """
    xp = api.array_namespace(potential)
    if family.exact:
        shift = xp.sum(xp.where(usable, family.prior * potential, 0.0), axis=-1)
    else:
        shift = family.strength * tempered_prior(family, potential, usable)[1]
    return xp.where(usable, potential - shift[..., None], 0.0)


def marginal_floor(point: Point) -> Array:
    """Return what rounding may add to that distance, shape (...,)."""
    return dot(point.marginal, point.rounding.column)


def rounding_bounds(
    epsilon: float, potential: Array, log_marginal: Array, marginal: Array, usable: Array, sweep: Sweep
) -> Rounding:
    """Bound what rounding in the sweep may have changed.

    The operations of a sweep, in order, leave log w off by up to 2 S + |(s - v) / epsilon| + |log w| + a few units,
    where S = (max_k s_k - s) / epsilon <= lift + log K - log w, and the sums add at most a unit of their own dtype
    per term. A column's mass comes from entries no lighter than itself. In a row entries weigh in by w, where
    -w log w sums to at most log K; over all rows, lift weighs in by wbar. Making and storing an entry has
    an error of its own.
    """
    xp = api.array_namespace(potential)
    highest = xp.max(xp.where(usable, potential, -xp.inf), axis=-1, keepdims=True)
    # |v - max v| / epsilon: how far below its row's maximum a column's potential can lift an entry.
    lift = xp.where(usable, (highest - potential) / epsilon, 0.0)
    unit = float(xp.finfo(sweep.compute_dtype).eps) / 2
    columns = potential.shape[-1]
    always = sweep.sum_error + sweep.entry_error
    log_k = log(columns)
    mean = unit * (2 * dot(marginal, lift) + 4 * log_k + 8) + always
    row = xp.maximum(unit * (2 * xp.max(lift, axis=-1) + 4 * log_k + 8) + always, mean)
    column = 3 * unit * (lift - xp.where(usable, log_marginal, 0.0)) + (unit * (3 * log_k + 10) + always)
    total = xp.full_like(mean, float(xp.finfo(sweep.plan_dtype).eps) / 2 * (log_k + 4))
    return Rounding(mean, row, column, total)


def examine(family: Family, potential: Array, masses: Masses, sweep: Sweep) -> Point:
    """Put together what a sweep said at a potential."""
    xp = api.array_namespace(potential)
    log_marginal = masses.log_columns - log(masses.rows)
    usable = log_marginal != -xp.inf  # a NaN stays in, to be seen in the answer
    dual = -masses.log_normalizers / masses.rows
    log_target = log_marginal
    if family.exact:
        log_target = family.log_prior + xp.zeros_like(log_marginal)
        dual = dual - xp.sum(xp.where(usable, family.prior * potential, 0.0), axis=-1) / family.epsilon
    elif family.strength > 0:
        log_target, scale = tempered_prior(family, potential, usable)
        dual = dual - (family.strength / family.epsilon) * scale
    marginal, target = xp.exp(log_marginal), xp.exp(log_target)
    rounding = rounding_bounds(family.epsilon, potential, log_marginal, marginal, usable, sweep)
    return Point(potential, usable, log_marginal, log_target, marginal, target, dual, rounding)


def dual_noise(point: Point) -> Array:
    """Return what rounding may do to the dual value of a point, shape (...,)."""
    xp = api.array_namespace(point.dual)
    return point.rounding.mean + 32 * float(xp.finfo(point.dual.dtype).eps) * xp.abs(point.dual)


def log_ratio(point: Point) -> Array:
    """Return ``d = log wbar - log u``, 0 for columns that no row may use."""
    xp = api.array_namespace(point.potential)
    return xp.where(point.usable, point.log_marginal, 0.0) - xp.where(point.usable, point.log_target, 0.0)


def penalised_gap(strength: float, point: Point, d: Array) -> Array:
    """Evaluate ``rho KL(wbar || u)`` (A4), with ``d = log wbar - log u``, so that rounding cannot make it negative.

    The textbook sum of ``wbar log(wbar / u)`` cancels terms of either sign and drowns at 1e-8 in float32. Both
    vectors sum to one, so ``KL = sum u (d e^d - e^d + 1)``, whose terms are all non-negative; near d = 0 they are
    evaluated with expm1, far from it without a bare exp(d), which may overflow.
    """
    xp = api.array_namespace(d)
    near = xp.abs(d) < 1
    d_near = xp.where(near, d, 0.0)
    raised = xp.expm1(d_near)
    far = point.marginal * (d - 1) + point.target
    return strength * xp.sum(xp.where(near, point.target * (d_near * (raised + 1) - raised), far), axis=-1)


def marginal_error(family: Family, point: Point) -> Array:
    """Return the L1 distance of the plan's marginal from the prior, shape (...,)."""
    xp = api.array_namespace(point.potential)
    return xp.sum(xp.abs(point.marginal - family.prior), axis=-1)


def certificate(point: Point, gap: Array, mean: Array, mean_floor: Array, row: Array) -> Certificate:
    """Combine a bound on the mean, its floor and a bound on the worst row; all shape (...,), rounding included.

    The mean is at most the worst row, and no total variation is larger than 1, or for rows that sum to one up to
    rounding, than 1 and half of that.
    """
    xp = api.array_namespace(gap)
    largest = xp.ones_like(gap) + point.rounding.total
    return Certificate(gap, xp.minimum(xp.minimum(mean, row), largest), xp.minimum(row, largest), mean_floor)


def certify_penalised(family: Family, point: Point) -> Certificate:
    """Bound the distance from ``W(v)`` to the optimum for finite rho (A5), rounding of the sweep included."""
    xp = api.array_namespace(point.potential)
    epsilon, rho, rounding = family.epsilon, family.strength, point.rounding
    if rho == 0:  # no coupling: the plan is the softmax, and nothing but rounding is between it and the optimum
        return certificate(point, 0 * point.dual, rounding.mean, rounding.mean, rounding.row)
    d = log_ratio(point)
    gap = penalised_gap(rho, point, d)
    oscillation = xp.max(xp.where(point.usable, d, -xp.inf), axis=-1) - xp.min(
        xp.where(point.usable, d, xp.inf), axis=-1
    )
    # Mean over rows: TV <= sqrt(gap / (4 epsilon)). To leading order gap is rho sum wbar d^2 / 2, a squared norm
    # of d, so the rounding of d adds its own norm.
    mean_floor = rounding.mean + xp.sqrt(rho / (8 * epsilon) * dot(point.marginal, rounding.column**2))
    mean = xp.sqrt(gap / (4 * epsilon)) + mean_floor
    # Worst row: TV <= tanh(rho osc(d) / (4 epsilon)).
    rounded_oscillation = 2 * xp.max(xp.where(point.usable, rounding.column, 0.0), axis=-1)
    row_floor = rounding.row + xp.tanh(rho / (4 * epsilon) * rounded_oscillation)
    row = rounding.row + xp.tanh(rho / (4 * epsilon) * (oscillation + rounded_oscillation))
    return certificate(point, gap, mean, xp.minimum(mean_floor, row_floor), row)
