"""Laws of the plain step of the family, the unbalanced Sinkhorn step: what the proofs of convergence rest on.

The contract: ``step(potential, scores, *, epsilon, strength, prior)`` returns the next potential, up to a constant: one
half step over the rows and one over the columns (MIRA's eq. 7; Sinkhorn for an infinite strength). Arrays are NumPy
float64. Each law is a function ``law(step, problem)`` of a :class:`infoassign.testing.problems.Transport`. As a
constant does not matter, distances are spreads, largest minus smallest: Hilbert's metric of ``exp(v)``.

- `step` is what is tested;
- `problem` brings the scores, epsilon, strength and prior that it is called with, and the potential it should lead to.

Examples
--------
Sinkhorn's step, and one that forgets the prior's share, which the optimum then does not survive:

>>> from infoassign.testing.problems import planted_transport
>>> problem = planted_transport(np.array([[1.0, 0.0], [0.0, 0.5]]), 0.5, 1.0, np.array([0.4, 0.6]))
>>> def step(v, scores, *, epsilon, strength, prior):
...     missing = log_mean(log_plan(v, scores, epsilon)) - np.log(prior)
...     return strength / (strength + epsilon) * (v + epsilon * missing)
>>> the_optimum_is_its_fixed_point(step, problem)
>>> def wrong(v, scores, *, epsilon, strength, prior):
...     return step(v, scores, epsilon=epsilon, strength=strength, prior=np.array([0.5, 0.5]))
>>> the_optimum_is_its_fixed_point(wrong, problem)  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
AssertionError: the_optimum_is_its_fixed_point (A2) is broken: it moves by ...
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import logsumexp, rel_entr

from infoassign.testing.contract import host, law, require
from infoassign.testing.definitions import Matrix, log_mean, log_plan, log_target
from infoassign.testing.problems import Transport

Step = Callable[..., Any]


def spread(vector: Matrix) -> float:
    """Return the largest minus the smallest entry.

    Parameters
    ----------
    vector
        Shape (K,).

    Examples
    --------
    >>> spread(np.array([1.0, 4.0, 2.0]))
    3.0
    """
    return float(vector.max() - vector.min())


def projective_diameter(scores: Matrix, epsilon: float) -> float:
    """Return ``max (s_ij + s_kl - s_il - s_kj) / epsilon``: Hilbert's diameter of ``exp(s / epsilon)`` (theory, A8).

    Parameters
    ----------
    scores
        Shape (B, K), finite.
    epsilon
        What divides them, > 0.

    Examples
    --------
    >>> projective_diameter(np.array([[1.0, 0.0], [0.0, 1.0]]), epsilon=0.5)
    4.0
    """
    between = scores[:, :, None] - scores[:, None, :]
    return float((between.max(axis=0) - between.min(axis=0)).max() / epsilon)


def _moved(step: Step, problem: Transport, potential: Matrix) -> Matrix:
    options = {"epsilon": problem.epsilon, "strength": problem.strength, "prior": problem.prior}
    given = potential.copy(), problem.scores.copy()
    moved = host(step(*given, **options))
    require(moved.shape == potential.shape, f"the next potential has shape {moved.shape}, not {potential.shape}")
    same = np.array_equal(given[0], potential) and np.array_equal(given[1], problem.scores)
    require(same, "the potential or the scores that were given have been written to")
    return moved


def _starts(problem: Transport) -> list[Matrix]:
    random = np.random.default_rng(0)
    size = len(problem.potential)
    return [random.normal(size=size) * scale * problem.epsilon for scale in (0.1, 1.0, 10.0)] + [problem.potential]


def _rounding(problem: Transport, *potentials: Matrix) -> float:
    """What rounding does to a step, in units of the scores, at most."""
    finite = np.abs(problem.scores[problem.scores > -np.inf]).max()
    largest = finite + max(float(np.abs(v).max()) for v in potentials) + problem.epsilon * 10
    return float(64 * np.finfo(float).eps * largest)


@law("A2")
def the_optimum_is_its_fixed_point(step: Step, problem: Transport) -> None:
    """The step leaves the optimal potential where it is."""
    off = spread(_moved(step, problem, problem.potential) - problem.potential)
    # At the optimum the error of log wbar counts in units of epsilon; a rounded prior adds its own.
    allowed = _rounding(problem, problem.potential)
    require(off <= allowed, f"it moves by {off:.3g}, rounding may do {allowed:.3g}")


@law("A6")
def contracts_by_its_modulus(step: Step, problem: Transport) -> None:
    """Two potentials come nearer by ``rho / (rho + epsilon)``: the Jacobian is that times a stochastic matrix."""
    for first, second in pairwise(_starts(problem)):
        before = spread(first - second)
        after = spread(_moved(step, problem, first) - _moved(step, problem, second))
        allowed = problem.modulus * before + _rounding(problem, first, second)
        require(after <= allowed, f"a distance of {before:.6g} becomes {after:.6g}, allowed is {allowed:.6g}")


@law("A6")
def converges_linearly(step: Step, problem: Transport) -> None:
    """After n steps the distance to the optimum is at most the modulus to the n-th times what it was."""
    for start in _starts(problem)[:3]:
        v, left = start, spread(start - problem.potential)
        for n in range(1, 6):
            v, left = _moved(step, problem, v), left * problem.modulus
            distance = spread(v - problem.potential)
            allowed = left + n * _rounding(problem, start, problem.potential)
            require(distance <= allowed, f"after {n} steps {distance:.6g} from the optimum, allowed is {allowed:.6g}")


@law("A8")
def contracts_in_hilberts_metric(step: Step, problem: Transport) -> None:
    """Without forbidden pairs two potentials come nearer by ``tanh(Delta / 4)`` per half step, too (Birkhoff).

    Delta is the diameter of ``exp(scores / epsilon)``; the damping of a finite strength comes on top.
    """
    if not np.isfinite(problem.scores).all():
        return
    factor = problem.modulus * np.tanh(projective_diameter(problem.scores, problem.epsilon) / 4) ** 2
    for first, second in pairwise(_starts(problem)):
        before = spread(first - second)
        after = spread(_moved(step, problem, first) - _moved(step, problem, second))
        allowed = factor * before + _rounding(problem, first, second)
        require(after <= allowed, f"a distance of {before:.6g} becomes {after:.6g}, allowed is {allowed:.6g}")


@law("A8")
def raises_the_dual(step: Step, problem: Transport) -> None:
    """A step raises the dual by ``epsilon KL(r || wbar)`` at least; by a Renyi divergence for a finite strength."""
    for v in _starts(problem):
        log_marginal = log_mean(log_plan(v, problem.scores, problem.epsilon))
        if problem.strength == np.inf:
            least = float(rel_entr(problem.prior, np.exp(log_marginal)).sum())
        else:
            beta, log_u = problem.modulus, log_target(v, problem.scores, problem.strength, problem.prior)
            least = float(logsumexp(beta * log_u + (1 - beta) * log_marginal)) / (beta - 1)
        rise = _dual(problem, _moved(step, problem, v)) - _dual(problem, v)
        # For a large strength the logarithm is divided by little, and multiplied by much.
        damped = 1.0 if problem.strength == np.inf else 1 / (1 - problem.modulus)
        allowed = problem.epsilon * least - (1 + damped) * _rounding(problem, v)
        require(rise >= allowed, f"the dual rises by {rise:.6g}, at least {allowed:.6g} is due")


def _dual(problem: Transport, v: Matrix) -> float:
    lse = logsumexp((problem.scores - v) / problem.epsilon, axis=1)
    if problem.strength == np.inf:
        return float(-(problem.prior @ v) - problem.epsilon * lse.mean())
    first = problem.strength * logsumexp(np.log(problem.prior) + v / problem.strength)
    return float(-first - problem.epsilon * lse.mean())


LAWS = (
    the_optimum_is_its_fixed_point,
    contracts_by_its_modulus,
    converges_linearly,
    contracts_in_hilberts_metric,
    raises_the_dual,
)
"""All of them."""
