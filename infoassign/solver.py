"""The one loop: sweep, certificate, next potential."""

from dataclasses import dataclass
from math import inf, log

import array_api_compat as api

from infoassign.objective import Certificate, Family, certify, log_target
from infoassign.result import Status
from infoassign_backends.protocol import Array, Sweep

PATIENCE = 100
"""Sweeps without a smaller gap after which rounding is taken to have won."""


@dataclass(frozen=True)
class Solution:
    """Where the loop stopped and what the last sweep said there; vectors have shape (K,)."""

    potential: Array
    usable: Array
    """Which columns some row may use."""
    log_marginal: Array
    mean_log_normalizer: Array
    certificate: Certificate
    sweeps: int
    status: Status


def plain_step(family: Family, potential: Array, log_marginal: Array, usable: Array) -> Array:
    """Return the next potential by the fixed point, with the common scale of ``u`` removed.

    ``v+ = rho / (rho + epsilon) (v + epsilon log(wbar / r))``. For MIRA and ``u = r exp(v / rho)`` this is eq. 7,
    ``u+ = wbar^(1 - beta) u^beta``, a contraction of modulus beta = rho / (rho + epsilon) in ``log u`` (A6). The
    scale of ``u`` is invisible to the plan, yet it is the slowest mode of the iteration, of rate beta exactly:
    renormalising each step leaves the local rate beta lambda_2 (A7).
    """
    xp = api.array_namespace(potential)
    beta = family.strength / (family.strength + family.epsilon)
    log_ratio = xp.where(usable, log_marginal - family.log_prior, 0.0)
    following = beta * (potential + family.epsilon * log_ratio)
    _, scale = log_target(family, following, usable)
    return xp.where(usable, following - family.strength * scale, 0.0)


def solve(sweep: Sweep, family: Family, *, tol: float, max_sweeps: int) -> Solution:
    """Iterate from ``v = 0`` until the certificate is within `tol`.

    With ``tol = 0`` exactly `max_sweeps` sweeps are made, that is ``max_sweeps - 1`` steps, and nothing is read
    back from the device: the papers' mode.
    """
    xp = api.array_namespace(family.log_prior)
    potential = xp.zeros_like(family.log_prior)
    best_gap, best_sweep = inf, 0
    sweeps = 0
    while True:
        masses = sweep(potential)
        sweeps += 1
        log_marginal = masses.log_columns - log(masses.rows)
        usable = log_marginal != -xp.inf  # a NaN stays in, to be seen in the answer
        # Without a coupling between the rows (rho = 0) the first sweep is the answer.
        last = sweeps == max_sweeps or family.strength == 0
        if tol > 0 or last:
            certificate = certify(family, potential, log_marginal, usable, masses.rows, sweep.compute_dtype)
            status = Status.MAX_SWEEPS if last else None
            if tol > 0:
                gap, bound, floor = (float(x) for x in (certificate.gap, certificate.error_bound, certificate.floor))
                if gap < best_gap:
                    best_gap, best_sweep = gap, sweeps
                if bound <= tol:
                    status = Status.CONVERGED
                elif (floor > tol and bound <= 2 * floor) or sweeps - best_sweep >= PATIENCE:
                    status = Status.STALLED
            if status is not None:
                mean_log_normalizer = masses.log_normalizers / masses.rows
                return Solution(potential, usable, log_marginal, mean_log_normalizer, certificate, sweeps, status)
        following = plain_step(family, potential, log_marginal, usable)
        # The potential is rounded to what the sweep can represent, so that the certificate is about the very
        # numbers that made the plan and not about their neighbours.
        scaled = xp.astype(following / family.epsilon, sweep.compute_dtype)
        potential = xp.astype(scaled, sweep.vector_dtype) * family.epsilon
