"""The definitions themselves, transcribed in NumPy float64: what the laws measure a solver or a loss with.

They share no code with the library's solvers and losses, take no short cut and are not fast. The strength is finite.
"""

from collections.abc import Sequence
from math import log
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax, xlogy

Matrix: TypeAlias = NDArray[np.float64]
"""An array of float64, of any shape."""


def usable(scores: Matrix) -> NDArray[np.bool_]:
    """Return which labels some row may use, shape (K,).

    Parameters
    ----------
    scores
        Shape (B, K), float64; ``-inf`` forbids a pair.

    Examples
    --------
    >>> usable(np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 2.0]]))
    array([ True, False,  True])
    """
    return np.asarray(np.any(scores > -np.inf, axis=0))


def log_plan(potential: Matrix, scores: Matrix, epsilon: float) -> Matrix:
    """Return ``log W(v)``, with ``w_ij ∝ exp((s_ij - v_j) / epsilon)`` (theory, A2); ``-inf`` where forbidden.

    Parameters
    ----------
    potential
        v, shape (K,), in units of the scores; anything for a label that no row may use.
    scores
        Shape (B, K), float64; ``-inf`` forbids a pair.
    epsilon
        Weight of the rows' entropy, > 0.

    Returns
    -------
    ndarray
        Shape (B, K), float64.

    Examples
    --------
    >>> np.exp(log_plan(np.array([0.0, 0.0]), np.array([[0.0, 0.0], [0.0, -np.inf]]), 0.5))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    allowed = scores > -np.inf
    exponent = np.where(allowed, scores, 0.0) - np.where(usable(scores), potential, 0.0)
    return np.asarray(log_softmax(np.where(allowed, exponent / epsilon, -np.inf), axis=1))


def log_mean(log_rows: Matrix) -> Matrix:
    """Return the logarithm of the mean over rows, shape (K,), where the mean itself would underflow, too.

    Parameters
    ----------
    log_rows
        Logarithms, shape (B, K); ``-inf`` for 0.

    Examples
    --------
    >>> log_mean(np.array([[-1000.0], [-1000.0]]))
    array([-1000.])
    """
    return np.asarray(logsumexp(log_rows, axis=0) - log(len(log_rows)))


def log_target(potential: Matrix, scores: Matrix, strength: float, prior: Matrix | None = None) -> Matrix:
    """Return ``log u`` with ``u ∝ r exp(v / rho)``, the marginal that a potential asks for; ``-inf`` where unusable.

    Parameters
    ----------
    potential
        v, shape (K,), in units of the scores; anything for a label that no row may use.
    scores
        Shape (B, K), float64; ``-inf`` forbids a pair.
    strength
        Weight rho of the marginal's divergence, finite.
    prior
        r, shape (K,); without it equal shares.

    Returns
    -------
    ndarray
        Shape (K,), float64.

    Examples
    --------
    >>> np.exp(log_target(np.zeros(2), np.zeros((1, 2)), 1.0))
    array([0.5, 0.5])
    """
    columns = usable(scores)
    r = np.full(len(columns), 1 / len(columns)) if prior is None else prior
    raw = np.where(columns, np.log(r) + np.where(columns, potential, 0.0) / strength, -np.inf)
    return np.asarray(raw - logsumexp(raw))


def duality_gap(
    potential: Matrix, scores: Matrix, epsilon: float, strength: float, prior: Matrix | None = None
) -> float:
    """Return ``rho KL(wbar || u)``, which is ``primal(W(v)) - dual(v)`` (theory, A4), with all of its digits.

    Parameters
    ----------
    potential
        v, shape (K,), in units of the scores; anything for a label that no row may use.
    scores
        Shape (B, K), float64; ``-inf`` forbids a pair.
    epsilon
        Weight of the rows' entropy, > 0.
    strength
        Weight rho of the marginal's divergence, finite.
    prior
        r, shape (K,); without it equal shares.

    Examples
    --------
    >>> scores = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> v, options = np.zeros(2), {"epsilon": 0.5, "strength": 0.5}
    >>> between = primal(np.exp(log_plan(v, scores, 0.5)), scores, **options) - dual(v, scores, **options)
    >>> round(between / duality_gap(v, scores, **options), 12)
    1.0
    """
    if strength == 0:
        return 0.0
    columns = usable(scores)
    u = log_target(potential, scores, strength, prior)[columns]
    d = log_mean(log_plan(potential, scores, epsilon))[columns] - u
    # sum u (d e^d - e^d + 1), no term of which is negative: by its series near 0, without a bare exp(d) far from it.
    tiny, near = np.abs(d) < 1e-5, np.abs(d) < 1
    series = np.exp(u) * d**2 * (1 / 2 + d / 3 + d**2 / 8)
    some = np.where(near, d, 0.0)
    close = np.exp(u) * (some * np.exp(some) - np.expm1(some))
    far = np.exp(u + d) * (d - 1) + np.exp(u)
    return float(strength * np.sum(np.where(tiny, series, np.where(near, close, far))))


def primal(plan: Matrix, scores: Matrix, epsilon: float, strength: float, prior: Matrix | None = None) -> float:
    """Return ``-<w, s> + epsilon sum w log w``, both means over rows, ``+ rho KL(wbar || r)`` (theory, A).

    Parameters
    ----------
    plan
        w, shape (B, K), rows in the simplex.
    scores
        Shape (B, K), float64; ``-inf`` forbids a pair.
    epsilon
        Weight of the rows' entropy, > 0.
    strength
        Weight rho of the marginal's divergence, finite.
    prior
        r, shape (K,); without it equal shares.

    Examples
    --------
    >>> primal(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]), 0.5, 0.5)
    -1.0
    """
    r = np.full(plan.shape[1], 1 / plan.shape[1]) if prior is None else prior
    wbar = plan.mean(axis=0)
    linear = np.sum(plan * np.where(plan > 0, scores, 0.0)) / len(plan)
    entropic = epsilon * np.sum(xlogy(plan, plan)) / len(plan)
    return float(entropic - linear + (strength * np.sum(xlogy(wbar, wbar / r)) if strength > 0 else 0.0))


def dual(potential: Matrix, scores: Matrix, epsilon: float, strength: float, prior: Matrix | None = None) -> float:
    """Return ``-rho log sum_j r_j exp(v_j / rho) - epsilon mean_i lse_i`` (theory, A3), for a positive strength.

    Parameters
    ----------
    potential
        v, shape (K,), in units of the scores; anything for a label that no row may use.
    scores
        Shape (B, K), float64; ``-inf`` forbids a pair.
    epsilon
        Weight of the rows' entropy, > 0.
    strength
        Weight rho of the marginal's divergence, finite.
    prior
        r, shape (K,); without it equal shares.

    Examples
    --------
    >>> round(dual(np.zeros(2), np.zeros((3, 2)), 0.5, 0.5) / log(2), 12)
    -0.5
    """
    columns = usable(scores)
    r = (np.full(len(columns), 1 / len(columns)) if prior is None else prior)[columns]
    v = potential[columns]
    lse = logsumexp((scores[:, columns] - v) / epsilon, axis=1)
    return float(-strength * logsumexp(np.log(r) + v / strength) - epsilon * np.mean(lse))


def mutual_information(plan: Matrix) -> float:
    """Return ``H(wbar) - mean_i H(w_i)``, the information between label and row (MIRA, eq. 2).

    Parameters
    ----------
    plan
        w, shape (B, K), rows in the simplex.

    Examples
    --------
    >>> round(mutual_information(np.eye(4)) / log(4), 12)
    1.0
    """
    wbar = plan.mean(axis=0)
    return float(np.sum(xlogy(plan, plan)) / len(plan) - np.sum(xlogy(wbar, wbar)))


def mean_total_variation(first: Matrix, second: Matrix) -> float:
    """Return the mean over rows of half the L1 distance.

    Parameters
    ----------
    first, second
        Plans, shape (B, K).

    Examples
    --------
    >>> mean_total_variation(np.eye(2), np.full((2, 2), 0.5))
    0.5
    """
    return float(np.abs(first - second).sum(axis=1).mean() / 2)


def segments(units: Sequence[int]) -> list[slice]:
    """Return where each segment's units lie in a row of a code.

    Parameters
    ----------
    units
        The sizes of the segments.

    Examples
    --------
    >>> segments([2, 3])
    [slice(0, 2, None), slice(2, 5, None)]
    """
    ends = np.cumsum(units).tolist()
    return [slice(end - size, end) for end, size in zip(ends, units, strict=True)]


def joint_entropy_terms(z1: Any, z2: Any, units: Sequence[int]) -> tuple[Any, Any, Any]:
    """Return what the loss of two soft codes is made of (theory, B): diagonal, off-diagonal and invariance.

    Parameters
    ----------
    z1, z2
        Logits of the two views, shape (N, sum of units); complex ones too, for derivatives by a complex step.
    units
        The sizes of the segments.

    Returns
    -------
    tuple
        ``DE``, the sum of P log P over the elements ``d1 = d2`` of the blocks ``m1 = m2``; ``OE``, the same sum over
        the blocks ``m1 != m2``; and ``TI = -mean_{i,m} log <q'_i(m,.), q''_i(m,.)>``.

    Examples
    --------
    >>> constant = np.zeros((5, 4))
    >>> [round(float(term), 3) for term in joint_entropy_terms(constant, constant, [2, 2])]
    [-1.386, -2.773, 0.693]
    """
    places = segments(units)
    first, second = (np.concatenate([_softmax(z[:, place]) for place in places], axis=1) for z in (z1, z2))
    joint = first.T @ second / len(first)
    diagonal = sum(_x_log_x(np.diagonal(joint[place, place])).sum() for place in places)
    blocks = [joint[one, other] for one in places for other in places if one != other]
    off_diagonal = sum((_x_log_x(block).sum() for block in blocks), 0.0)
    agreement = [np.log((first[:, place] * second[:, place]).sum(axis=1)) for place in places]
    return diagonal, off_diagonal, -np.mean(agreement)


def joint_entropy_loss(z1: Any, z2: Any, units: Sequence[int]) -> Any:
    """Return ``DE / M + OE / (M (M - 1)) + TI``, the loss of MUSIC's and IMSVD's released code (theory, B1).

    Parameters
    ----------
    z1, z2, units
        As in :func:`joint_entropy_terms`.

    Examples
    --------
    >>> constant = np.zeros((5, 4))
    >>> round(float(joint_entropy_loss(constant, constant, [2, 2])), 3)
    -1.386
    """
    diagonal, off_diagonal, invariance = joint_entropy_terms(z1, z2, units)
    count = len(units)
    pairs = max(count * (count - 1), 1)  # without pairs the sum over them is 0
    return diagonal / count + off_diagonal / pairs + invariance


def entropy_lower_bound(units: Sequence[int]) -> float:
    """Return what that loss cannot be below: the bounds of its terms (theory, B2 and, for segments of two units, B3).

    Parameters
    ----------
    units
        The sizes of the segments.

    Examples
    --------
    >>> round(entropy_lower_bound([3, 3]) / log(3), 12)
    -3.0
    """
    logs = np.log(units)
    diagonal = sum(-2 / np.e if size == 2 else -log(size) for size in units) / len(units)
    return float(diagonal - (2 * logs.mean() if len(units) > 1 else 0.0))


def joint_entropy_gradients(z1: Matrix, z2: Matrix, units: Sequence[int]) -> tuple[Matrix, Matrix]:
    """Return the gradients of :func:`joint_entropy_loss`, by way of ``dL/dP = weight (1 + log P)`` (theory, B7).

    Where ``P = 0`` its logarithm is taken to be 0: what it is multiplied by is 0.

    Parameters
    ----------
    z1, z2, units
        As in :func:`joint_entropy_terms`, real.

    Returns
    -------
    tuple
        The gradients in `z1` and in `z2`, of their shape.

    Examples
    --------
    >>> z = np.random.default_rng(0).normal(size=(5, 4))
    >>> slope, _ = joint_entropy_gradients(z, z, [2, 2])
    >>> ahead, behind = (joint_entropy_loss(z + h * np.eye(5, 4), z, [2, 2]) for h in (1e-5, -1e-5))
    >>> bool(abs((ahead - behind) / 2e-5 - np.trace(slope)) < 1e-9)
    True
    """
    places, count = segments(units), len(units)
    first, second = (np.concatenate([_softmax(z[:, place]) for place in places], axis=1) for z in (z1, z2))
    rows = len(first)
    joint = first.T @ second / rows
    weight = np.zeros_like(joint)
    for one in places:
        for other in places:
            if one == other:
                weight[one, other] = np.eye(one.stop - one.start) / count
            else:
                weight[one, other] = 1 / (count * (count - 1))
    slope = weight * (1 + np.log(np.where(joint > 0, joint, 1.0))) / rows
    in_first, in_second = second @ slope.T, first @ slope
    for place in places:
        agreement = np.sum(first[:, place] * second[:, place], axis=1, keepdims=True) * rows * count
        in_first[:, place] -= second[:, place] / agreement
        in_second[:, place] -= first[:, place] / agreement
    return _through_softmax(first, in_first, places), _through_softmax(second, in_second, places)


def _through_softmax(q: Matrix, slope: Matrix, places: list[slice]) -> Matrix:
    """Return the slope in the logits, from that in the probabilities."""
    pieces = [q[:, p] * (slope[:, p] - np.sum(q[:, p] * slope[:, p], axis=1, keepdims=True)) for p in places]
    return np.concatenate(pieces, axis=1)


def _softmax(z: Any) -> Any:
    if not np.iscomplexobj(z):
        return softmax(z, axis=1)
    powers = np.exp(z - z.real.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _x_log_x(x: Any) -> Any:
    return x * np.log(np.where(x == 0, 1.0, x))
