"""Hard labels whose clusters have the sizes they should: exactly for few rows, by auctions for many."""

from heapq import heapify, heappush, heappushpop
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infoassign_backends.protocol import Array

Float = NDArray[np.float64]
EXACT_UP_TO = 2000
"""Rows and labels together up to which balanced labels are found by scipy's exact solver."""
ROUNDS = 10
"""How often the auction is held with other sizes, at most, where shares are not whole numbers."""


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
