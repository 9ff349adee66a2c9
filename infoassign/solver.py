"""The one loop: sweep, certificate, next potential.

Every decision is taken by arrays, problem by problem in a batch, so nothing is read back from the device but, once a
sweep, whether all are done; with ``tol = 0`` not even that.
"""

import logging
from collections.abc import Callable
from math import inf, log
from time import perf_counter
from typing import Any, NamedTuple

import array_api_compat as api

from infoassign.arrays import choose
from infoassign.objective import Family, Point, certify_penalised, dual_noise, examine, marginal_error, marginal_floor
from infoassign.result import Solution, Status
from infoassign.steps import Step, plain, plain_step_from
from infoassign_backends.protocol import Array, Sweep

LOG = logging.getLogger("infoassign")

PATIENCE = 100
"""Sweeps without progress after which rounding is taken to have won."""
FEASIBILITY = 32
"""Sweeps after which a problem with forbidden pairs and an exact marginal is asked whether it has a solution at all."""


class Progress(NamedTuple):
    """How far a point is from the solution; every field has shape (...,)."""

    error: Array
    """What `tol` bounds, rounding included."""
    floor: Array
    """What rounding alone would leave of it."""
    measure: Array
    """The same without rounding and without a cap: the gap, or the marginal error."""


def assess(family: Family, point: Point) -> Progress:
    """Return how far a point is from the solution, in the sense of `tol`."""
    if family.exact:
        measure, floor = marginal_error(family, point), marginal_floor(point)
        return Progress(measure + floor, floor, measure)
    found = certify_penalised(family, point)
    # Bounds are capped at 1, which says nothing; the gap goes on falling.
    return Progress(found.error_bound, found.floor, found.gap)


def representable(sweep: Sweep, potential: Array, epsilon: float) -> Array:
    """Round a potential to what the sweep computes with.

    So the certificate is about the very numbers that made the plan and not about their neighbours.
    """
    xp = api.array_namespace(potential)
    if sweep.compute_dtype == sweep.vector_dtype:
        return potential
    return xp.astype(xp.astype(potential / epsilon, sweep.compute_dtype), sweep.vector_dtype) * epsilon


def plain_steps(sweep: Sweep, family: Family, potential: Array, number: int) -> Array:
    """Make so many sweeps and plain steps; on the way nothing but the columns' masses is looked at.

    A sweep that can make both on its device is left to it.
    """
    there = getattr(sweep, "plain_steps", None)
    if there is not None:
        return there(potential, number, family.log_prior, family.strength)
    for _ in range(number):
        potential = representable(sweep, potential, family.epsilon)
        masses = sweep(potential)
        potential = plain_step_from(family, potential, masses.log_columns - log(masses.rows))
    return potential


def solve(
    sweep: Sweep,
    family: Family,
    start: Array,
    step: Step,
    *,
    tol: float,
    max_sweeps: int,
    ceiling: Array | float = inf,
    feasible: Callable[[], Array] | None = None,
) -> Solution:
    """Iterate from a potential of shape (..., K) until the certificate is within `tol`.

    With ``tol = 0`` exactly `max_sweeps` sweeps are made, that is ``max_sweeps - 1`` steps, and nothing is read
    back from the device. Otherwise a problem that is done is left as it is, and one that cannot be ends at the best
    point it has seen; every sweep is logged. No plan has an objective above `ceiling`, in units of the shifted scores,
    so a dual above it proves that there is no plan. `feasible` says which problems of the batch have a solution; it is
    asked late.
    """
    xp = api.array_namespace(start)
    fixed = tol == 0
    if family.strength == 0:  # without a coupling between the rows the first sweep is the answer
        max_sweeps, start = 1, xp.zeros_like(start)
    first = 1
    if fixed and step is plain:
        first, start = max_sweeps, plain_steps(sweep, family, start, max_sweeps - 1)
    potential, memory, best, began = start, None, None, perf_counter()
    status = sweeps = stale = xp.zeros(start.shape[:-1], dtype=xp.int32, device=api.device(start))
    for number in range(first, max_sweeps + 1):
        potential = representable(sweep, potential, family.epsilon)
        point = examine(family, potential, sweep(potential), sweep)
        running = status == 0
        sweeps = xp.where(running, number, sweeps)
        if best is None:
            best, lowest, highest = point, xp.full_like(point.dual, inf), xp.full_like(point.dual, -inf)
        if fixed:
            best = point
        else:
            progress = assess(family, point)
            if LOG.isEnabledFor(logging.INFO):
                name, error = "marginal error" if family.exact else "error bound", float(xp.max(progress.error))
                LOG.info("sweep %d: %s %.3g, tol %.3g, %.1f s", number, name, error, tol, perf_counter() - began)
            done = progress.error <= tol
            better = progress.measure < lowest
            best = choose(running & (better | done), point, best)
            lowest = xp.where(better, progress.measure, lowest)
            risen = point.dual > highest + dual_noise(point)
            highest = xp.where(risen, point.dual, highest)
            stale = xp.where(better | risen, 0, stale + 1)
            floored = (progress.floor > tol) & (progress.error <= 2 * progress.floor)
            status = settle(status, done, Status.CONVERGED)
            # A point that an accelerated step overshot to says nothing about what can be reached.
            status = settle(status, (floored & better) | (stale >= PATIENCE), Status.STALLED)
            if number in {FEASIBILITY, max_sweeps} and feasible is not None and bool(xp.any(status == 0)):
                status = settle(status, ~feasible(), Status.INFEASIBLE)
        if family.exact:  # a column that no row may use cannot have its share
            impossible = ~xp.all(point.usable, axis=-1) | (family.epsilon * (point.dual - dual_noise(point)) > ceiling)
            status = settle(status, impossible, Status.INFEASIBLE)
        if not fixed and bool(xp.all(status != 0)):
            break
        if number < max_sweeps:
            following, memory = step(family, point, memory)
            # Where a problem is done it stays where it is, or one that diverges would spoil the kernel for all.
            potential = following if fixed else choose(status == 0, following, potential)
    assert best is not None  # max_sweeps >= 1
    return Solution(best, sweeps, settle(status, status == 0, Status.MAX_SWEEPS))


def settle(status: Array, condition: Any, verdict: Status) -> Array:
    """Give a verdict where the condition holds and there is none yet."""
    xp = api.array_namespace(status)
    return xp.where((status == 0) & condition, verdict.code, status)
