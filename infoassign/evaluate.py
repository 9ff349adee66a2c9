"""The objective, its dual and what is between them, of any plan or potential, straight from the definitions."""

from math import inf
from typing import Any

import array_api_compat as api

from infoassign.arrays import dot, scalar_or_array
from infoassign.objective import Family, Point, certify_penalised, examine, log_ratio, marginal_error
from infoassign.problem import prepare
from infoassign.rounding import certify_exact
from infoassign.scores import Scores, as_scores
from infoassign.validation import check_array, check_companion, check_potential, not_negative, positive
from infoassign_backends.protocol import Array, Sweep


def primal_objective(
    plan: Array, scores: Array, *, epsilon: float, strength: float = inf, prior: Array | None = None
) -> Any:
    """Value of the problem that :func:`infoassign.assign` minimises, at any plan.

    ``-(1/B) <W, s> + epsilon (1/B) sum w log w + strength KL(wbar || prior)`` (theory, A), with ``0 log 0 = 0``. With
    an infinite strength the last term is left out: the marginal is a constraint, not a cost, and it is not checked.

    Parameters
    ----------
    plan
        Shape (..., B, K), rows in the simplex.
    scores, epsilon, strength, prior
        As in :func:`infoassign.assign`.

    Returns
    -------
    float or Array
        For a single problem a number, for a batch an array of shape (...,), in units of the scores; ``inf`` if the
        plan uses a forbidden pair.

    Raises
    ------
    TypeError, ValueError
        As :func:`infoassign.assign`, and if `plan` has not the shape of `scores`.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> scores = np.array([[2.0, 0.0], [1.0, 0.0]])
    >>> assignment = ia.assign(scores, epsilon=0.5, strength=1.0, tol=1e-9)
    >>> at_solution = primal_objective(assignment.plan, scores, epsilon=0.5, strength=1.0)
    >>> bool(abs(at_solution - assignment.objective) < 1e-12)
    True
    >>> at_solution < primal_objective(np.array([[0.9, 0.1], [0.5, 0.5]]), scores, epsilon=0.5, strength=1.0)
    True
    """
    check_array("scores", scores)
    _, family, sweep = _problem(scores, epsilon, strength, prior)
    check_companion("plan", plan, scores)
    if plan.shape != scores.shape:
        raise ValueError(f"plan must have the shape of scores, {tuple(scores.shape)}; got {tuple(plan.shape)}")
    xp, rows = api.array_namespace(scores), scores.shape[-2]
    plan, scores = (xp.astype(x, sweep.vector_dtype) for x in (plan, scores))
    linear = xp.sum(plan * xp.where(plan > 0, scores, 0.0), axis=(-2, -1))
    value = (family.epsilon * xp.sum(_x_log_x(plan), axis=(-2, -1)) - linear) / rows
    if 0 < family.strength < inf:
        wbar = xp.mean(plan, axis=-2)
        value = value + family.strength * xp.sum(_x_log_x(wbar) - wbar * family.log_prior, axis=-1)
    return scalar_or_array(value)


def dual_objective(
    potential: Array, scores: Any, *, epsilon: float, strength: float = inf, prior: Array | None = None
) -> Any:
    """Value of the dual problem at any potential: never above the primal objective of a plan (theory, A3).

    ``-strength log sum_j r_j exp(v_j / strength) - epsilon mean_i lse_i`` with ``lse_i = log sum_j exp((s_ij - v_j) /
    epsilon)``; the first term is ``-<v, r>`` for an infinite strength, and ``-max_j v_j`` for strength 0.

    Parameters
    ----------
    potential
        Shape (..., K), in units of the scores; ``+inf`` for labels that no row may use.
    scores, epsilon, strength, prior
        As in :func:`infoassign.assign`.

    Returns
    -------
    float or Array
        For a single problem a number, for a batch an array of shape (...,), in units of the scores.

    Raises
    ------
    TypeError, ValueError
        As :func:`infoassign.assign`, and if `potential` has not a value for each label.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.array([[2.0, 0.0], [1.0, 0.0]])
    >>> round(dual_objective(np.array([0.3, 0.0]), scores, epsilon=1.0, strength=0.0), 4)
    -1.7855
    """
    source, family, sweep = _problem(scores, epsilon, strength, prior)
    point = _point(potential, source, family, sweep)
    value = family.epsilon * point.dual - sweep.offset
    if family.strength == 0:
        xp = api.array_namespace(point.potential)
        value = value - xp.max(xp.where(point.usable, point.potential, -xp.inf), axis=-1)
    return scalar_or_array(value)


def duality_gap(
    potential: Array, scores: Any, *, epsilon: float, strength: float = inf, prior: Array | None = None
) -> Any:
    """Primal objective of the plan ``W(v)`` minus the dual objective of its potential (theory, A4).

    For a finite strength it is ``strength KL(wbar || u)`` with ``u ∝ r exp(v / strength)``, exactly. For an infinite
    one ``W(v)`` misses the prior, and the plan is one nearby that meets it (theory, A5): an upper bound on
    ``dual(v*) - dual(v)``, ``inf`` where pairs are forbidden and the marginal is far from the prior.

    Parameters
    ----------
    potential
        Shape (..., K), in units of the scores; ``+inf`` for labels that no row may use.
    scores, epsilon, strength, prior
        As in :func:`infoassign.assign`. Strength 0 leaves the marginal free: there the gap is
        ``max v - <wbar, v>``.

    Returns
    -------
    float or Array
        For a single problem a number, for a batch an array of shape (...,); not negative, in units of the scores.

    Raises
    ------
    TypeError, ValueError
        As :func:`infoassign.assign`, and if `potential` has not a value for each label.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.array([[2.0, 0.0], [1.0, 0.0]])
    >>> gap = duality_gap(np.zeros(2), scores, epsilon=0.5, strength=0.5)
    >>> 0 < gap < 0.5
    True
    """
    source, family, sweep = _problem(scores, epsilon, strength, prior)
    point = _point(potential, source, family, sweep)
    if family.exact:
        return scalar_or_array(certify_exact(sweep, family, point).gap)
    if family.strength == 0:
        xp = api.array_namespace(point.potential)
        highest = xp.max(xp.where(point.usable, point.potential, -xp.inf), axis=-1)
        below = xp.where(point.usable, highest[..., None] - point.potential, 0.0)
        return scalar_or_array(dot(point.marginal, below))
    return scalar_or_array(certify_penalised(family, point).gap)


def kkt_residual(
    potential: Array, scores: Any, *, epsilon: float, strength: float = inf, prior: Array | None = None
) -> Any:
    """How far a potential is from the optimality conditions (theory, A2); 0 exactly at a solution.

    ``W(v)`` is stationary by its form; what is left is the marginal. For a finite strength that is the spread, largest
    minus smallest, of ``v_j - strength log(wbar_j / r_j)``, in units of the scores, which has to be constant (MIRA,
    eq. 5). For an infinite one it is the L1 distance of wbar from the prior.

    Parameters
    ----------
    potential
        Shape (..., K), in units of the scores; ``+inf`` for labels that no row may use.
    scores, epsilon, strength, prior
        As in :func:`infoassign.assign`.

    Returns
    -------
    float or Array
        For a single problem a number, for a batch an array of shape (...,); not negative.

    Raises
    ------
    TypeError, ValueError
        As :func:`infoassign.assign`, and if `potential` has not a value for each label.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> scores = np.array([[2.0, 0.0], [1.0, 0.0]])
    >>> solved = ia.assign(scores, epsilon=0.5, strength=0.5, tol=1e-12)
    >>> kkt_residual(solved.potential, scores, epsilon=0.5, strength=0.5) < 1e-10
    True
    """
    source, family, sweep = _problem(scores, epsilon, strength, prior)
    point = _point(potential, source, family, sweep)
    if family.exact:
        return scalar_or_array(marginal_error(family, point))
    xp = api.array_namespace(point.potential)
    # rho d is v - rho log(wbar / r) up to its sign and a constant.
    off = family.strength * log_ratio(point) if family.strength > 0 else point.potential
    highest = xp.max(xp.where(point.usable, off, -xp.inf), axis=-1)
    return scalar_or_array(highest - xp.min(xp.where(point.usable, off, xp.inf), axis=-1))


def _problem(scores: Any, epsilon: float, strength: float, prior: Any) -> tuple[Scores, Family, Sweep]:
    """Validate what all have in common."""
    epsilon, strength = positive("epsilon", epsilon), not_negative("strength", strength)
    source = as_scores(scores)
    source.check(check_finite=True)
    if source.rows == 0:
        raise ValueError(f"scores must not be empty; got shape {(0, *source.like.shape[-1:])}")
    return source, *prepare(source, epsilon, strength, prior, check_finite=True)


def _point(potential: Array, scores: Scores, family: Family, sweep: Sweep) -> Point:
    """Validate a potential and sweep there."""
    xp = api.array_namespace(scores.like)
    potential = check_potential("potential", potential, scores.like, sweep.vector_dtype)
    forbidden = ~scores.usable()
    if bool(xp.any(~xp.isfinite(potential) & ~forbidden)):
        raise ValueError("potential must be finite for every label that some row may use")
    potential = xp.where(forbidden, 0.0, potential)
    return examine(family, potential, sweep(potential), sweep)


def _x_log_x(x: Array) -> Array:
    """``x log x`` with ``0 log 0 = 0``."""
    xp = api.array_namespace(x)
    return x * xp.log(xp.where(x > 0, x, 1.0))
