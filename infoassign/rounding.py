"""Plans that meet the prior exactly, and what they prove; hard labels with balanced clusters.

A plan ``W(v)`` whose marginal is nearly ``r`` is moved onto ``{rows in the simplex, wbar = r}`` by one Newton step on
its own entries: ``w'_ij = w_ij (1 + <w_i, z> - z_j)`` keeps the rows' sums and what is forbidden, and has the marginal
r if ``(D - S) z = wbar - r`` with ``D = diag(wbar)`` and ``S = W^T W / B``. It is non-negative while
``max z - min_i <w_i, z> <= 1``. For any plan W' with that marginal

    primal(W') - dual(v) = epsilon mean_i KL(w'_i || w_i)

which by A5 bounds ``epsilon mean_i KL(w*_i || w_i)``: the distance of ``W(v)`` from the optimum. With
``t = <w_i, z> - z_j``, ``(1 + t) log(1 + t) - t <= t^2 / 2 / (1 - max(-t) / 2)``, so the mean KL is at most
``z^T (D - S) z / 2`` over that denominator: K numbers, whatever holds the scores.
"""

from heapq import heapify, heappush, heappushpop
from math import log
from typing import Any, NamedTuple

import array_api_compat as api
import numpy as np
from numpy.typing import NDArray

from infoassign.objective import Certificate, Family, Point, certificate, log_ratio, marginal_error
from infoassign_backends.protocol import Array, Sweep

Float = NDArray[np.float64]
ITERATIONS = 500
"""Steps of conjugate gradients at most; each passes over the scores twice."""
EXACT_UP_TO = 1000
"""Rows up to which balanced labels are found by scipy's exact solver."""


class Correction(NamedTuple):
    """The Newton step onto the exact marginal; arrays have shape (..., K) or (...,)."""

    z: Array
    row_means: Array
    """``<w_i, z>``, shape (..., B)."""
    energy: Array
    """``z^T (D - S) z``."""
    reach: Array
    """``max z - min_i <w_i, z>``; the corrected plan is non-negative if it is at most 1. ``inf`` without a solution."""
    residual: Array
    """Norm of what conjugate gradients left, in the metric of 1 / D."""
    amplification: Array
    """An estimate of the norm of the inverse of ``I - D^-1 S``."""


def newton_correction(sweep: Sweep, family: Family, point: Point, rows: int) -> Correction:
    """Solve ``(D - S) z = wbar - r`` by conjugate gradients, preconditioned by D."""
    xp = api.array_namespace(point.potential)
    v = point.potential
    unit = float(xp.finfo(v.dtype).eps)
    # A column that is all but empty cannot be filled by a part of itself.
    usable = point.log_marginal > log(float(xp.finfo(v.dtype).smallest_normal)) / 3
    wbar = xp.where(usable, xp.exp(point.log_marginal), 1.0)  # a stand-in that nothing is divided into

    def dot(a: Array, b: Array) -> Array:
        return xp.sum(xp.where(usable, a * b, 0.0), axis=-1)[..., None]

    def curvature(x: Array) -> Array:
        return xp.where(usable, wbar * x - sweep.apply_transpose(v, sweep.apply(v, x)) / rows, 0.0)

    residual = xp.where(usable, wbar - xp.exp(family.log_prior), 0.0)
    residual = residual - wbar * dot(residual, xp.ones_like(residual))  # orthogonal to the constants
    z = xp.zeros_like(residual)
    direction = residual / wbar
    size = first = dot(residual, direction)
    least = xp.ones_like(size)
    for _ in range(ITERATIONS):
        going = size > xp.maximum(1e-16 * first, xp.full_like(first, unit**2))
        if not bool(xp.any(going)):
            break
        product = curvature(direction)
        bend, norm = dot(direction, product), dot(direction, wbar * direction)
        going = going & (bend > 4 * unit * norm)
        if not bool(xp.any(going)):
            break
        least = xp.where(going, xp.minimum(least, bend / norm), least)
        length = xp.where(going, size / xp.where(going, bend, 1.0), 0.0)
        z = z + length * direction
        residual = residual - length * product
        following = dot(residual, residual / wbar)
        ratio = xp.where(going, following / xp.where(going, size, 1.0), 0.0)
        direction = residual / wbar + ratio * direction
        size = following
    z = z - dot(wbar, z)
    row_means = sweep.apply(v, z)
    # Measured, not believed: the recursion's residual drifts from the true one.
    left = wbar * z - sweep.apply_transpose(v, row_means) / rows - (wbar - xp.exp(family.log_prior))
    energy = dot(z, wbar * z)[..., 0] - xp.sum(row_means**2, axis=-1) / rows
    reach = xp.max(xp.where(usable, z, -xp.inf), axis=-1) - xp.min(row_means, axis=-1)
    reach = xp.where(xp.all(usable, axis=-1), reach, xp.inf)
    return Correction(z, row_means, energy, reach, xp.sqrt(dot(left, left / wbar)[..., 0]), 1 / least[..., 0])


def certify_exact(sweep: Sweep, family: Family, point: Point, rows: int) -> Certificate:
    """Bound the distance from ``W(v)`` to the optimum for rho = inf, rounding of the sweep included.

    Where the Newton step leaves the simplex, the bound of A8 is what there is, if no pair is forbidden:
    ``mean KL(w*_i || w_i) <= osc((v* - v) / epsilon) |wbar - r|_1 / 2``, and the potential after one plain step, like
    the optimal one, rises and falls no further than the scores do between two columns.
    """
    xp = api.array_namespace(point.potential)
    found = newton_correction(sweep, family, point, rows)
    inside = found.reach <= 1
    # Positive by theory; rounding of the difference of two sums is its floor.
    energy = xp.maximum(found.energy, xp.zeros_like(found.energy)) / 2
    divergence = xp.where(inside, energy / (1 - xp.where(inside, found.reach, 0.0) / 2), xp.inf)
    d = xp.where(point.usable, log_ratio(point), 0.0)
    drift = 2 * sweep.span + xp.max(d, axis=-1) - xp.min(d, axis=-1)
    anywhere = xp.where(xp.isfinite(drift), drift, 0.0) * marginal_error(family, point) / 2
    divergence = xp.where(xp.isfinite(drift), xp.minimum(divergence, anywhere), divergence)
    # What rounding, and conjugate gradients, leave of the right-hand side is amplified as the rest is; the estimate
    # of by how much comes from below, hence the factor.
    wbar = xp.where(point.usable, xp.exp(point.log_marginal), 0.0)
    rounded = xp.sqrt(xp.sum(wbar * point.rounding.column**2, axis=-1))
    amplified = xp.sqrt(4 * found.amplification) / 2
    floor = point.rounding.mean + amplified * rounded
    left = xp.where(inside, amplified * found.residual, 0.0)
    mean = xp.sqrt(divergence / 2) + left + floor
    row = xp.sqrt(rows * divergence / 2) + rows**0.5 * left + point.rounding.row + rows**0.5 * amplified * rounded
    return certificate(point, family.epsilon * divergence, mean, floor, row)


def exact_marginal(plan: Array, prior: Array) -> Array:
    """Move a plan onto those with a given marginal, no further than it must (theory, A11).

    The columns with too much give a part of each entry, which the columns with too little share: the mean over rows
    of the L1 distance moved is that of the marginal from the prior, the least possible. Forbidden pairs are not heeded.

    Parameters
    ----------
    plan
        Shape (..., B, K), real floating, rows in the simplex.
    prior
        Shape (K,) or (..., K), positive, summing to one.

    Returns
    -------
    Array
        Like `plan`, with ``mean_i w_i = prior`` up to rounding.

    Examples
    --------
    >>> import numpy as np
    >>> exact_marginal(np.array([[1.0, 0.0], [0.6, 0.4]]), np.array([0.5, 0.5])).mean(axis=0)
    array([0.5, 0.5])
    """
    xp = api.array_namespace(plan)
    marginal = xp.mean(plan, axis=-2)
    keep = xp.where(marginal > prior, prior / xp.where(marginal > 0, marginal, 1.0), 1.0)
    missing = xp.maximum(prior - marginal, xp.zeros_like(marginal))
    total = xp.sum(missing, axis=-1, keepdims=True)
    shares = missing / xp.where(total > 0, total, 1.0)
    given = xp.sum(plan * (1 - keep)[..., None, :], axis=-1, keepdims=True)
    return plan * keep[..., None, :] + given * shares[..., None, :]


class BalancedLabels(NamedTuple):
    """Hard labels whose clusters have the sizes they should."""

    labels: Array
    """Shape (..., B), integer."""
    optimality_loss: float | Array
    """By how much, at most, another such labelling has a larger mean score, in units of scores / temperature."""


def cluster_sizes(share: Float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the least size of each cluster and which may be one larger, from shares that sum to the rows."""
    nearest = np.round(share)
    whole = np.abs(share - nearest) <= 1e-9 * max(1.0, share.sum())
    least = np.where(whole, nearest, np.floor(share)).astype(np.int64)
    return least, ~whole


def balanced_labels(scores: Float, share: Float, price: Float, tolerance: float) -> tuple[NDArray[np.int64], float]:
    """Label rows so that their mean score is largest and every cluster has the floor or ceiling of its share.

    SeLa's integral assignment. Up to :data:`EXACT_UP_TO` rows it is solved exactly by scipy; beyond, by an auction
    from the prices of the soft solution, to `tolerance` for given sizes. The loss is bounded by linear programming
    duality: no labelling can be better than ``sum_i max_j (s_ij - p_j) + max_n <n, p>``.

    Returns
    -------
    tuple
        Labels (B,), and the bound on the loss in the mean score; 0 where the solution is exact.
    """
    least, flexible = cluster_sizes(share)
    extra = len(scores) - int(least.sum())
    if len(scores) + len(share) <= EXACT_UP_TO:
        return _exact_labels(scores, least, flexible), 0.0
    labels = np.argmax(scores - price, axis=1)
    wanted: Float = (np.bincount(labels, minlength=len(share)) - least).astype(np.float64)
    best: tuple[NDArray[np.int64], float] | None = None
    for _ in range(2):
        sizes = least.copy()
        sizes[_largest(np.where(flexible, wanted, -np.inf), extra)] += 1
        labels, price = _auction(scores, sizes, price, tolerance)
        ideal = least.copy()
        ideal[_largest(np.where(flexible, price, -np.inf), extra)] += 1
        bound = np.max(scores - price, axis=1).sum() + ideal @ np.where(np.isfinite(price), price, 0.0)
        loss = max(0.0, float(bound - scores[np.arange(len(scores)), labels].sum()) / len(scores))
        if best is None or loss < best[1]:
            best = labels, loss
        wanted = price
    assert best is not None
    return best


def _largest(values: Float, number: int) -> NDArray[np.int64]:
    """Return where the largest values are."""
    return np.argsort(-values, kind="stable")[:number]


def _exact_labels(scores: Float, least: NDArray[np.int64], flexible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Solve the assignment of rows to slots; slots that may stay empty are filled up with rows of no value."""
    from scipy.optimize import linear_sum_assignment

    columns = np.arange(len(least))
    slots = np.concatenate([np.repeat(columns, least), columns[flexible]])
    optional = np.arange(len(slots)) >= least.sum()
    dummies = np.tile(np.where(optional, 0.0, -np.inf), (len(slots) - len(scores), 1))
    try:
        _, chosen = linear_sum_assignment(np.concatenate([scores[:, slots], dummies]), maximize=True)
    except ValueError as error:
        raise ValueError("no labels without a forbidden pair have balanced clusters") from error
    labels: NDArray[np.int64] = slots[chosen[: len(scores)]]
    return labels


def _auction(
    scores: Float, sizes: NDArray[np.int64], price: Float, tolerance: float
) -> tuple[NDArray[np.int64], Float]:
    """Let rows bid for places until all have one; each then has its best column at the final prices, to `tolerance`.

    A row bids the price at which its second choice would be as good, and `tolerance` more; a column keeps its
    highest bids, and once it is full its price is the lowest of them (Bertsekas' auction, with capacities).
    """
    price = np.where(sizes > 0, price, np.inf)
    ceiling = np.where(sizes > 0, price, -np.inf).max() + 2 * len(sizes) * (np.ptp(scores[np.isfinite(scores)]) + 1)
    held: list[list[tuple[float, int]]] = [[] for _ in sizes]
    rows = np.arange(len(scores))
    # All bid at once first: one pass over the scores places most.
    value = scores - price
    first = np.argmax(value, axis=1)
    best = value[rows, first]
    value[rows, first] = -np.inf
    bids = price[first] + np.minimum(best - np.max(value, axis=1), ceiling) + tolerance
    order = np.lexsort((-bids, first))
    place = np.arange(len(rows)) - np.searchsorted(first[order], first[order])
    kept = place < sizes[first[order]]
    for row in order[kept]:
        held[first[row]].append((bids[row], int(row)))
    for column, bidders in enumerate(held):
        heapify(bidders)
        if bidders and len(bidders) == sizes[column]:
            price[column] = bidders[0][0]
    waiting = order[~kept].tolist()
    while waiting:
        row = waiting.pop()
        value_of_row = scores[row] - price
        column = int(np.argmax(value_of_row))
        best_value = value_of_row[column]
        value_of_row[column] = -np.inf
        margin = min(best_value - value_of_row.max(), ceiling)
        bid = float(price[column] + margin + tolerance)
        if not bid < ceiling:
            raise ValueError("no labels without a forbidden pair have balanced clusters")
        if len(held[column]) < sizes[column]:
            heappush(held[column], (bid, row))
        else:
            waiting.append(heappushpop(held[column], (bid, row))[1])
        if len(held[column]) == sizes[column]:
            price[column] = held[column][0][0]
    labels = np.empty(len(scores), np.int64)
    for column, bidders in enumerate(held):
        labels[[row for _, row in bidders]] = column
    return labels, price


def feasible(allowed: NDArray[np.bool_], prior: Float) -> bool:
    """Return whether some plan on the allowed pairs has the prior as its marginal: a maximal flow tells.

    Masses become integers, the prior's rounded up, so that what lacks less than one part in 2**31 / K passes.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    rows, columns = allowed.shape
    supply = max(1, (2**31 - 1) // (rows + 1))
    supply -= supply % columns if supply > columns else 0  # a uniform prior stays exact
    demand = np.ceil(prior * rows * supply - 1e-6).astype(np.int64)
    row, column = np.nonzero(allowed)
    source, sink = rows + columns, rows + columns + 1
    tails = np.concatenate([np.full(rows, source), row, rows + np.arange(columns)])
    heads = np.concatenate([np.arange(rows), rows + column, np.full(columns, sink)])
    capacity = np.concatenate([np.full(rows, supply), np.full(len(row), supply), demand]).astype(np.int32)
    graph = csr_array((capacity, (tails, heads)), shape=(sink + 1, sink + 1))
    flow: Any = maximum_flow(graph, source, sink)
    return bool(flow.flow_value == rows * supply)
