"""Plans that meet the prior exactly, and what they prove.

A plan ``W(v)`` whose marginal is nearly ``r`` is moved onto ``{rows in the simplex, wbar = r}`` by one Newton step on
its own entries: ``w'_ij = w_ij (1 + <w_i, z> - z_j)`` keeps the rows' sums and what is forbidden, and has the marginal
r if ``(D - S) z = wbar - r`` with ``D = diag(wbar)`` and ``S = W^T W / B``. It is non-negative while
``max z - min_i <w_i, z> <= 1``. For any plan W' with that marginal

    primal(W') - dual(v) = epsilon mean_i KL(w'_i || w_i)

which by A5 bounds ``epsilon mean_i KL(w*_i || w_i)``: the distance of ``W(v)`` from the optimum. With
``t = <w_i, z> - z_j``, ``(1 + t) log(1 + t) - t <= t^2 / 2 / (1 - max(-t) / 2)``, so the mean KL is at most
``z^T (D - S) z / 2`` over that denominator: K numbers, whatever holds the scores.
"""

from math import log
from typing import NamedTuple

import array_api_compat as api

from infoassign.arrays import clipped
from infoassign.conjugate import conjugate_gradients
from infoassign.objective import Certificate, Family, Point, certificate, log_ratio, marginal_error
from infoassign_backends.protocol import Array, Sweep

ITERATIONS = 500
"""Steps of conjugate gradients at most; each passes over the scores twice."""


class Correction(NamedTuple):
    """The Newton step onto the exact marginal; arrays have shape (..., K) or (...,)."""

    z: Array
    row_means: Array
    """``<w_i, z>``, shape (..., B)."""
    energy: Array
    """``z^T (D - S) z``, rounding included."""
    reach: Array
    """``max z - min_i <w_i, z>``; the corrected plan is non-negative if it is at most 1. ``inf`` without a solution."""
    missed: Array
    """L1 distance of the corrected plan's marginal from the prior, measured."""
    amplification: Array
    """An estimate from below of the norm of the inverse of ``I - D^-1 S``."""


def newton_correction(sweep: Sweep, family: Family, point: Point) -> Correction:
    """Solve ``(D - S) z = wbar - r`` by conjugate gradients, preconditioned by D."""
    xp = api.array_namespace(point.potential)
    v = point.potential
    # A column that is all but empty cannot be filled by a part of itself.
    usable = point.log_marginal > log(float(xp.finfo(v.dtype).smallest_normal)) / 3
    wbar = xp.where(usable, point.marginal, 1.0)  # a stand-in that nothing is divided into

    def dot(a: Array, b: Array) -> Array:
        return xp.sum(xp.where(usable, a * b, 0.0), axis=-1)[..., None]

    def curvature(x: Array) -> Array:
        return xp.where(usable, wbar * x - sweep.apply_transpose(v, sweep.apply(v, x)) / sweep.rows, 0.0)

    excess = xp.where(usable, wbar - family.prior, 0.0)
    residual = excess - wbar * dot(excess, xp.ones_like(excess))  # orthogonal to the constants
    z, least = conjugate_gradients(curvature, residual, wbar, usable, iterations=ITERATIONS)
    z = z - dot(wbar, z)
    row_means = sweep.apply(v, z)
    # Measured, not believed: the recursion's residual drifts from the true one.
    missed = xp.abs(excess - wbar * z + sweep.apply_transpose(v, row_means) / sweep.rows)
    missed = xp.sum(xp.where(usable, missed, family.prior), axis=-1)
    weight = dot(z, wbar * z)[..., 0]
    # A difference of two sums, positive by theory.
    energy = xp.maximum(weight - sweep.sum_rows(row_means**2) / sweep.rows, xp.zeros_like(weight))
    highest = xp.max(xp.where(usable, z, -xp.inf), axis=-1)
    reach = sweep.bound_rows(clipped(highest[..., None] - row_means, 0.0))
    reach = xp.where(xp.all(usable, axis=-1), reach, xp.inf)
    return Correction(z, row_means, energy + 8 * sweep.sum_error * weight, reach, missed, 1 / least[..., 0])


def certify_exact(sweep: Sweep, family: Family, point: Point) -> Certificate:
    """Bound the distance from ``W(v)`` to the optimum for rho = inf, rounding of the sweep included.

    A plan that misses the prior by an L1 distance m, as the corrected one does by rounding and W(v) itself by the
    marginal error, still bounds ``mean KL(w*_i || w_i)``, plus ``osc((v* - v) / epsilon) m / 2`` (A8), since the duals
    of two priors differ by ``<v, r' - r>``. Without forbidden pairs the potential after one plain step differs from
    the optimal one by a logarithm of means of the same exponentials, which is spread by twice the scores' span at
    most; to that comes what the plain step would change. With forbidden pairs there is no such bound; there what
    rounding leaves is taken to be amplified as conjugate gradients have seen it to be, which is an estimate.
    """
    xp = api.array_namespace(point.potential)
    found = newton_correction(sweep, family, point)
    error = marginal_error(family, point)
    # Errors of the kernel's entries change the scores a little, not the sums; that moves the optimum as little.
    computed = point.rounding.column - sweep.entry_error
    wbar = point.marginal
    rounded = xp.sum(wbar * computed, axis=-1)
    d = xp.where(point.usable, log_ratio(point), 0.0)
    drift = 2 * sweep.span + xp.max(d, axis=-1) - xp.min(d, axis=-1)
    bounded = xp.isfinite(drift)
    drift = xp.where(bounded, drift, 0.0) / 2
    inside = found.reach <= 1 + 1e-9
    corrected = found.energy / 2 / (1 - xp.where(inside, found.reach, 0.0) / 2)
    rigorous = xp.minimum(xp.where(inside, corrected + drift * found.missed, xp.inf), drift * error) + drift * rounded
    # (a + b)^2 <= 2 a^2 + 2 b^2, with b the amplified norm of what is left.
    spread = xp.sqrt(found.amplification * xp.sum(wbar * computed**2, axis=-1))
    estimated = 2 * corrected + 4 * spread**2
    solved = inside & (found.missed <= 1e-6 * error + 4 * rounded)
    divergence = xp.where(bounded, rigorous, xp.where(solved, estimated, xp.inf))
    mean = xp.sqrt(divergence / 2) + point.rounding.mean
    row = xp.sqrt(sweep.rows * divergence / 2) + point.rounding.row
    floor = xp.sqrt(xp.where(bounded, drift * rounded, 4 * spread**2) / 2) + point.rounding.mean
    return certificate(point, family.epsilon * divergence, mean, floor, row)


def exact_marginal(plan: Array, marginal: Array, prior: Array) -> Array:
    """Move a plan onto those with a given marginal, no further than it must (theory, A11).

    The columns with too much give a part of each entry, which the columns with too little share: the mean over rows
    of the L1 distance moved is that of the marginal from the prior, the least possible. Forbidden pairs are not heeded.

    Parameters
    ----------
    plan
        Shape (..., B, K), real floating, rows in the simplex; or some of its rows.
    marginal
        ``mean_i w_i`` over all rows, shape (..., K).
    prior
        Shape (K,) or (..., K), positive, summing to one.

    Returns
    -------
    Array
        Like `plan`, with ``mean_i w_i = prior`` up to rounding.

    Examples
    --------
    >>> import numpy as np
    >>> plan = np.array([[1.0, 0.0], [0.6, 0.4]])
    >>> exact_marginal(plan, plan.mean(axis=0), np.array([0.5, 0.5])).mean(axis=0)
    array([0.5, 0.5])
    """
    xp = api.array_namespace(plan)
    keep = xp.where(marginal > prior, prior / xp.where(marginal > 0, marginal, 1.0), 1.0)
    missing = xp.maximum(prior - marginal, xp.zeros_like(marginal))
    total = xp.sum(missing, axis=-1, keepdims=True)
    shares = missing / xp.where(total > 0, total, 1.0)
    given = xp.sum(plan * (1 - keep)[..., None, :], axis=-1, keepdims=True)
    return plan * keep[..., None, :] + given * shares[..., None, :]
