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

from infoassign.conjugate import conjugate_gradients
from infoassign.objective import Certificate, Family, Point, certificate, log_ratio, marginal_error
from infoassign_backends.protocol import Array, Sweep

Float = NDArray[np.float64]
ITERATIONS = 500
"""Steps of conjugate gradients at most; each passes over the scores twice."""
EXACT_UP_TO = 2000
"""Rows and labels together up to which balanced labels are found by scipy's exact solver."""
ROUNDS = 10
"""How often the auction is held with other sizes, at most, where shares are not whole numbers."""


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


def newton_correction(sweep: Sweep, family: Family, point: Point, rows: int) -> Correction:
    """Solve ``(D - S) z = wbar - r`` by conjugate gradients, preconditioned by D."""
    xp = api.array_namespace(point.potential)
    v = point.potential
    # A column that is all but empty cannot be filled by a part of itself.
    usable = point.log_marginal > log(float(xp.finfo(v.dtype).smallest_normal)) / 3
    wbar = xp.where(usable, xp.exp(point.log_marginal), 1.0)  # a stand-in that nothing is divided into

    def dot(a: Array, b: Array) -> Array:
        return xp.sum(xp.where(usable, a * b, 0.0), axis=-1)[..., None]

    def curvature(x: Array) -> Array:
        return xp.where(usable, wbar * x - sweep.apply_transpose(v, sweep.apply(v, x)) / rows, 0.0)

    excess = xp.where(usable, wbar - xp.exp(family.log_prior), 0.0)
    residual = excess - wbar * dot(excess, xp.ones_like(excess))  # orthogonal to the constants
    z, least = conjugate_gradients(curvature, residual, wbar, usable, iterations=ITERATIONS)
    z = z - dot(wbar, z)
    row_means = sweep.apply(v, z)
    # Measured, not believed: the recursion's residual drifts from the true one.
    missed = xp.abs(excess - wbar * z + sweep.apply_transpose(v, row_means) / rows)
    missed = xp.sum(xp.where(usable, missed, xp.exp(family.log_prior)), axis=-1)
    weight = dot(z, wbar * z)[..., 0]
    # A difference of two sums, positive by theory.
    energy = xp.maximum(weight - xp.sum(row_means**2, axis=-1) / rows, xp.zeros_like(weight))
    reach = xp.max(xp.where(usable, z, -xp.inf), axis=-1) - xp.min(row_means, axis=-1)
    reach = xp.where(xp.all(usable, axis=-1), reach, xp.inf)
    return Correction(z, row_means, energy + 8 * sweep.sum_error * weight, reach, missed, 1 / least[..., 0])


def certify_exact(sweep: Sweep, family: Family, point: Point, rows: int) -> Certificate:
    """Bound the distance from ``W(v)`` to the optimum for rho = inf, rounding of the sweep included.

    A plan that misses the prior by an L1 distance m, as the corrected one does by rounding and W(v) itself by the
    marginal error, still bounds ``mean KL(w*_i || w_i)``, plus ``osc((v* - v) / epsilon) m / 2`` (A8), since the duals
    of two priors differ by ``<v, r' - r>``. Without forbidden pairs the potential after one plain step differs from
    the optimal one by a logarithm of means of the same exponentials, which is spread by twice the scores' span at
    most; to that comes what the plain step would change. With forbidden pairs there is no such bound; there what
    rounding leaves is taken to be amplified as conjugate gradients have seen it to be, which is an estimate.
    """
    xp = api.array_namespace(point.potential)
    found = newton_correction(sweep, family, point, rows)
    error = marginal_error(family, point)
    # Storing the kernel's entries changes the scores a little, not the sums; that moves the optimum by half a unit.
    computed = point.rounding.column - float(xp.finfo(sweep.plan_dtype).eps)
    wbar = xp.where(point.usable, xp.exp(point.log_marginal), 0.0)
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
    row = xp.sqrt(rows * divergence / 2) + point.rounding.row
    floor = xp.sqrt(xp.where(bounded, drift * rounded, 4 * spread**2) / 2) + point.rounding.mean
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

    SeLa's integral assignment. Up to :data:`EXACT_UP_TO` rows it is solved exactly by scipy; beyond, by auctions
    from the prices of the soft solution, each to `tolerance` for given sizes. The loss is bounded by linear programming
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
    forbidden = np.isneginf(scores)
    fallback = _possible_sizes(~forbidden, least, flexible) if forbidden.any() else None
    finite = np.where(forbidden, scores.max(), scores)
    # Dear enough that no labelling within the tolerance uses a forbidden pair if there is another.
    too_low = finite.min() - (len(share) + 2) * np.ptp(finite) - 2 * len(scores) * tolerance
    scores = np.where(forbidden, too_low, scores)
    labels = np.argmax(scores - price, axis=1)
    wanted: Float = (np.bincount(labels, minlength=len(share)) - least).astype(np.float64)
    best: tuple[NDArray[np.int64], float] | None = None
    for _ in range(ROUNDS):
        sizes = least.copy()
        sizes[_largest(np.where(flexible, wanted, -np.inf), extra)] += 1
        if fallback is not None and not feasible(~forbidden, sizes / len(scores)):
            sizes = fallback
        labels, price = _auction(scores, sizes, price, tolerance)
        ideal = least.copy()
        ideal[_largest(np.where(flexible, price, -np.inf), extra)] += 1
        bound = np.max(scores - price, axis=1).sum() + ideal @ price
        loss = max(0.0, float(bound - scores[np.arange(len(scores)), labels].sum()) / len(scores))
        if best is None or loss < best[1]:
            best = labels, loss
        if best[1] <= 2 * tolerance:
            break
        wanted = price  # the dearest clusters are those to be made larger
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

    Bertsekas' auction, with capacities: a row bids the price at which its second choice would be as good, and
    something more; a column keeps its highest bids, and once it is full its price is the lowest of them. What is
    bid more starts large and falls to `tolerance`, or ties would be fought over in steps that small.
    """
    offered = sizes > 0
    here = np.flatnonzero(offered)
    if len(here) == 1:
        return np.full(len(scores), here[0]), price
    some, places = np.ascontiguousarray(scores[:, offered]), sizes[offered]
    # Two columns' prices need differ by no more than the scores do; with an entropy they may, by far.
    spread = float(np.ptp(some))
    labels, prices = np.empty(0, np.int64), np.minimum(price[offered], price[offered].min() + spread)
    raise_by = max(tolerance, spread / 10)
    while True:
        labels, prices = _bid(some, places, prices, raise_by)
        if raise_by <= tolerance:
            break
        raise_by = max(tolerance, raise_by / 10)
    price = price.copy()
    price[offered] = prices
    if not offered.all():  # the least price at which nobody would rather have a column that is not offered
        content = np.max(some - prices, axis=1)
        price[~offered] = np.max(scores[:, ~offered] - content[:, None], axis=0)
    return here[labels], price


def _bid(scores: Float, places: NDArray[np.int64], price: Float, raise_by: float) -> tuple[NDArray[np.int64], Float]:
    """Run one auction among at least two columns, from given prices, with no row placed."""
    price = price.copy()
    held: list[list[tuple[float, int]]] = [[] for _ in places]
    rows = np.arange(len(scores))
    # All bid at once first: one pass over the scores places most.
    value = scores - price
    first = np.argmax(value, axis=1)
    best = value[rows, first]
    value[rows, first] = -np.inf
    bids = price[first] + best - np.max(value, axis=1) + raise_by
    order = np.lexsort((-bids, first))
    kept = np.arange(len(rows)) - np.searchsorted(first[order], first[order]) < places[first[order]]
    for row in order[kept]:
        held[first[row]].append((bids[row], int(row)))
    for column, bidders in enumerate(held):
        heapify(bidders)
        if len(bidders) == places[column]:
            price[column] = bidders[0][0]
    waiting = order[~kept].tolist()
    while waiting:
        row = waiting.pop()
        value_of_row = scores[row] - price
        column = int(np.argmax(value_of_row))
        best_value = value_of_row[column]
        value_of_row[column] = -np.inf
        bid = float(price[column] + best_value - value_of_row.max() + raise_by)
        if len(held[column]) < places[column]:
            heappush(held[column], (bid, row))
        else:
            waiting.append(heappushpop(held[column], (bid, row))[1])
        if len(held[column]) == places[column]:
            price[column] = held[column][0][0]
    labels = np.empty(len(scores), np.int64)
    for column, bidders in enumerate(held):
        labels[[row for _, row in bidders]] = column
    return labels, price


def _possible_sizes(
    allowed: NDArray[np.bool_], least: NDArray[np.int64], flexible: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return sizes of clusters that some labelling by allowed pairs has: the least ones, some flexible ones one larger.

    Raises
    ------
    ValueError
        If there are none.
    """
    rows, columns = allowed.shape
    flow = _flow(allowed, np.ones(rows, np.int64), least, flexible, rows - int(least.sum()))
    if flow.flow_value != rows:
        raise ValueError("no labels without a forbidden pair have balanced clusters")
    into_sink = flow.flow.tocsr()[rows : rows + columns, rows + columns + 1 :].toarray()
    sizes: NDArray[np.int64] = into_sink.sum(axis=1).astype(np.int64)
    return sizes


def feasible(allowed: NDArray[np.bool_], prior: Float) -> bool:
    """Return whether some plan on the allowed pairs has the prior as its marginal: a maximal flow tells.

    Masses become integers, the prior's rounded up, so that what lacks less than one part in 2**31 / K passes.
    """
    rows, columns = allowed.shape
    supply = max(1, (2**31 - 1) // (rows + 1))
    supply -= supply % columns if supply > columns else 0  # a uniform prior stays exact
    demand = np.ceil(prior * rows * supply - 1e-6).astype(np.int64)
    flow = _flow(allowed, np.full(rows, supply), demand, np.zeros(columns, bool), 0)
    return bool(flow.flow_value == rows * supply)


def _flow(
    allowed: NDArray[np.bool_],
    supply: NDArray[np.int64],
    demand: NDArray[np.int64],
    flexible: NDArray[np.bool_],
    extra: int,
) -> Any:
    """Find a maximal flow from rows to columns, which take their demand, flexible ones one more, `extra` in all.

    Nodes: rows, columns, source, sink, and the node that the extra ones pass through.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    rows, columns = allowed.shape
    source, sink, more = rows + columns, rows + columns + 1, rows + columns + 2
    row, column = np.nonzero(allowed)
    bending = rows + np.flatnonzero(flexible)
    parts = [
        (np.full(rows, source), np.arange(rows), supply),
        (row, rows + column, supply[row]),
        (rows + np.arange(columns), np.full(columns, sink), demand),
        (bending, np.full(len(bending), more), np.ones(len(bending), np.int64)),
        (np.array([more]), np.array([sink]), np.array([extra])),
    ]
    tails, heads, capacity = (np.concatenate(part) for part in zip(*parts, strict=True))
    graph = csr_array((capacity.astype(np.int32), (tails, heads)), shape=(more + 1, more + 1))
    return maximum_flow(graph, source, sink)
