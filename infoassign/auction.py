"""Hard labels whose clusters have the sizes they should: exactly for few rows, by auctions for many.

An auction sees the scores through a :class:`Market`, which need not hold them as one matrix. Each row keeps a short
list of candidates, the columns worth most to it at the prices of some pass, and a bound on what any other column is
worth. Prices only rise while rows bid, so a row whose best candidate is worth no less than the bound knows its best
column, and what its second choice is worth at most: its bid is valid, if smaller than it could be. Other rows wait.
When nobody can bid any more, one pass lists candidates anew for all that wait; then each of them can, so every pass
brings the auction on.
"""

from heapq import heapify, heappush, heappushpop
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from infoassign_backends.protocol import Array

Float = NDArray[np.float64]
EXACT_UP_TO = 2000
"""Rows and labels together up to which balanced labels are found by scipy's exact solver."""
ROUNDS = 10
"""How often the auction is held with other sizes, at most, where shares are not whole numbers."""
CANDIDATES = 16
"""Columns that a row has on its list at first."""
LISTED = 2**24
"""Candidates in all lists together up to which lists get longer, 16 bytes each."""
MARGIN = 5
"""Rows within so many steps of having to wait are given new lists along with those that wait."""
TILE = 2**18
"""Scores that are ranked at once: what fits in a cache."""


class Candidates(NamedTuple):
    """The best columns of some rows at some prices."""

    columns: NDArray[np.int64]
    """Shape (n, m), in any order, no column twice in a row."""
    scores: Float
    """Shape (n, m): their scores, without the prices; ``-inf`` where a pair is forbidden."""
    rest: Float
    """Shape (n,): what no other column is worth more than, score less price; ``-inf`` if there is no other."""


class Market(Protocol):
    """What an auction asks about scores ``s_ij``, wherever they are; one call of :meth:`best` is one pass over them."""

    @property
    def rows(self) -> int:
        """The number of rows B."""

    @property
    def columns(self) -> int:
        """The number of columns K."""

    @property
    def lowest(self) -> float:
        """The smallest finite score, or a bound from below: the looser, the coarser the steps that are begun with."""

    @property
    def highest(self) -> float:
        """The largest score, or a bound from above."""

    @property
    def forbids(self) -> bool:
        """Whether a pair may be forbidden, by a score of ``-inf``."""

    @property
    def allowed(self) -> NDArray[np.bool_] | None:
        """Shape (B, K): which pairs are not forbidden, to find sizes that clusters can have; None if not at hand."""

    def best(self, rows: NDArray[np.int64] | None, price: Float, number: int) -> Candidates:
        """Return the columns that are worth most to some rows, by one pass over the scores.

        Parameters
        ----------
        rows
            Shape (n,), which rows, in any order; None for all, in order.
        price
            Shape (K,), what is taken off the scores; ``inf`` for columns that are not offered.
        number
            How many columns to list, >= 1; with K or more, the answer is all scores of these rows.

        Returns
        -------
        Candidates
            For each row the ``m = min(number, K)`` columns j with the largest ``s_ij - price_j``, up to rounding, and
            a bound on the others'. Every call must give a pair the same score.
        """


class DenseMarket:
    """Scores that are one float64 array in memory, shape (B, K); see :class:`Market`."""

    def __init__(self, scores: Float) -> None:
        self._scores = scores
        self.rows, self.columns = scores.shape
        self.lowest, self.highest = float(scores.min()), float(scores.max())
        self.forbids = self.lowest == -np.inf
        self.allowed: NDArray[np.bool_] | None = None
        if self.forbids:
            self.allowed = ~np.isneginf(scores)
            self.lowest = float(scores.min(where=self.allowed, initial=np.inf))

    def best(self, rows: NDArray[np.int64] | None, price: Float, number: int) -> Candidates:
        """Rank tile by tile; see :meth:`Market.best`."""
        n, step = self.rows if rows is None else len(rows), max(1, TILE // self.columns)
        tiles = (slice(start, start + step) for start in range(0, n, step))
        return joined([best_of(self._scores[tile if rows is None else rows[tile]], price, number) for tile in tiles])


def best_of(scores: Float, price: Float, number: int) -> Candidates:
    """Return the best columns of some scores in memory; see :meth:`Market.best`."""
    n, columns = scores.shape
    if number >= columns:
        return Candidates(np.tile(np.arange(columns), (n, 1)), scores, np.full(n, -np.inf))
    worth = scores - price
    order = np.argpartition(worth, -number - 1, axis=1)
    listed = order[:, -number:]
    rest = np.take_along_axis(worth, order[:, -number - 1 : -number], axis=1)[:, 0]
    return Candidates(listed, np.take_along_axis(scores, listed, axis=1), rest)


def joined(parts: list[Candidates]) -> Candidates:
    """Put the candidates of consecutive rows together."""
    return Candidates(*(np.concatenate(part) for part in zip(*parts, strict=True)))


class BalancedLabels(NamedTuple):
    """Hard labels whose clusters have the sizes they should.

    What :meth:`infoassign.Assignment.balanced_labels` returns.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> labels, loss = ia.sinkhorn(np.array([[1.0, 0.0], [0.9, 0.0], [0.1, 0.0], [0.8, 0.0]])).balanced_labels()
    >>> np.bincount(labels), loss
    (array([2, 2]), 0.0)
    """

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


def balanced_labels(market: Market, share: Float, price: Float, tolerance: float) -> tuple[NDArray[np.int64], float]:
    """Label rows so that their mean score is largest and every cluster has the floor or ceiling of its share.

    SeLa's integral assignment. Up to :data:`EXACT_UP_TO` rows and labels it is solved exactly by scipy; beyond, by
    auctions from the prices of the soft solution, each to `tolerance` for given sizes. The loss is bounded by linear
    programming duality: no labelling can be better than ``sum_i max_j (s_ij - p_j) + max_n <n, p>``.

    Parameters
    ----------
    market
        The scores.
    share
        Shape (K,), how many rows each cluster should have, summing to the rows.
    price
        Shape (K,), where the auctions start; the nearer the best prices, the fewer bids.
    tolerance
        By how much a row may be off its best column at the final prices, > 0, in units of the scores.

    Returns
    -------
    tuple
        Labels (B,), and the bound on the loss in the mean score; 0 where the solution is exact.

    Raises
    ------
    ValueError
        If forbidden pairs leave no such labels, or none are found.
    """
    rows, columns = market.rows, market.columns
    least, flexible = cluster_sizes(share)
    extra = rows - int(least.sum())
    if rows + columns <= EXACT_UP_TO:
        return _exact_labels(_all_scores(market), least, flexible), 0.0
    allowed = market.allowed
    fallback = None if allowed is None else _possible_sizes(allowed, least, flexible)
    spread, floor = market.highest - market.lowest, -np.inf
    if market.forbids:
        # What a forbidden pair counts: so little that no labelling within the tolerance uses one if there is another.
        floor = market.lowest - (columns + 2) * spread - 2 * rows * tolerance
        spread = market.highest - floor
    price = _narrowed(price, spread)
    lists = _Lists(market, price)
    chosen = np.take_along_axis(lists.columns, lists.choices(price)[0][:, None], axis=1)
    wanted: Float = (np.bincount(chosen[:, 0], minlength=columns) - least).astype(np.float64)
    best: tuple[NDArray[np.int64], float, bool] | None = None
    for _ in range(ROUNDS):
        sizes = least.copy()
        sizes[_largest(np.where(flexible, wanted, -np.inf), extra)] += 1
        if allowed is not None and fallback is not None and not feasible(allowed, sizes / rows):
            sizes = fallback
        labels, reached, price = _auction(lists, sizes, _narrowed(price, spread), spread, floor, tolerance)
        content = np.maximum(lists.content(price), floor - price.min())
        if not sizes.all():
            price = np.where(sizes > 0, price, _least_prices(market, np.flatnonzero(sizes == 0), content, floor))
        ideal = least.copy()
        ideal[_largest(np.where(flexible, price, -np.inf), extra)] += 1
        loss = max(0.0, float(content.sum() + ideal @ price - np.maximum(reached, floor).sum()) / rows)
        if best is None or loss < best[1]:
            best = labels, loss, bool(np.isneginf(reached).any())
        if best[1] <= 2 * tolerance:
            break
        wanted = price  # the dearest clusters are those to be made larger
    assert best is not None
    labels, loss, broken = best
    if broken and loss <= 2 * tolerance:
        raise ValueError("no labels without a forbidden pair have balanced clusters")
    if broken:
        raise ValueError(
            "no labels without a forbidden pair and with balanced clusters were found, though some may exist"
        )
    return labels, loss


def _narrowed(price: Float, spread: float) -> Float:
    """Return prices that differ no more than the scores do, which is all that is needed; with an entropy they may."""
    narrowed: Float = np.minimum(price, price.min() + spread)
    return narrowed


def _all_scores(market: Market) -> Float:
    """Return the scores as one matrix."""
    found = market.best(None, np.zeros(market.columns), market.columns)
    scores = np.empty((market.rows, market.columns))
    np.put_along_axis(scores, found.columns, found.scores, axis=1)
    return scores


def _least_prices(market: Market, columns: NDArray[np.int64], content: Float, floor: float) -> Float:
    """Return the least prices (K,) at which nobody would rather have one of some columns; of these columns only.

    Every row's scores for these columns are needed, but not at once.
    """
    prices = np.full(market.columns, -np.inf)
    only = np.full(market.columns, np.inf)
    only[columns] = 0.0
    step = max(1, LISTED // len(columns))
    for start in range(0, market.rows, step):
        some = np.arange(start, min(start + step, market.rows))
        found = market.best(some, only, len(columns))
        np.maximum.at(prices, found.columns, np.maximum(found.scores, floor) - content[some, None])
    return prices


class _Lists:
    """The candidates of all rows, and the prices at which the bound on what the other columns are worth holds."""

    columns: NDArray[np.int64]
    scores: Float
    rest: Float

    def __init__(self, market: Market, price: Float) -> None:
        self._market, self._number = market, CANDIDATES
        self._make(price)

    def _make(self, price: Float) -> None:
        """List candidates for all rows, by one pass."""
        self.columns, self.scores, self.rest = self._ask(None, price)
        self._price = price.copy()

    def _ask(self, rows: NDArray[np.int64] | None, price: Float) -> Candidates:
        """Pass over the scores; no rounding there makes a row wait for the list that it has just been given."""
        found = self._market.best(rows, price, self._number)
        best = np.max(found.scores - price[found.columns], axis=1)
        return found._replace(rest=np.minimum(found.rest, best))

    def move(self, price: Float) -> None:
        """Make the bounds hold at other prices: where all prices rose, no column is worth what it was."""
        offered = np.isfinite(price)
        shift = float(np.max(self._price[offered] - price[offered]))
        if shift < np.inf:
            self.rest = self.rest + shift
        elif self.columns.shape[1] < self._market.columns:  # of a column that was not offered before, nothing is known
            self.rest = np.full_like(self.rest, np.inf)
        self._price = price.copy()

    def renew(self, waiting: list[int], price: Float, margin: float) -> None:
        """List candidates anew, by one pass, for rows that wait and for rows that are near to it."""
        self.move(price)
        chosen = self.choices(price)[1] < self.rest + margin
        chosen[waiting] = True
        rows = np.flatnonzero(chosen)
        if len(rows):
            self.columns[rows], self.scores[rows], self.rest[rows] = self._ask(rows, price)

    @property
    def can_widen(self) -> bool:
        """Whether there is room for lists twice as long."""
        return 2 * self._number * self._market.rows <= LISTED

    def widen(self, price: Float) -> None:
        """List twice as many candidates, for all rows, by one pass."""
        self._number *= 2
        self._make(price)

    def choices(self, price: Float) -> tuple[NDArray[np.int64], Float, Float]:
        """Return which candidate of every row is its best, what it is worth, and what the second best is."""
        worth = self.scores - price[self.columns]
        rows, first = np.arange(len(worth)), np.argmax(worth, axis=1)
        best = worth[rows, first]
        worth[rows, first] = -np.inf
        return first, best, np.max(worth, axis=1)

    def content(self, price: Float) -> Float:
        """Return what the best of all columns is worth to every row, by a pass for rows whose list does not tell."""
        self.renew([], price, 0.0)
        return self.choices(price)[1]


def _largest(values: Float, number: int) -> NDArray[np.int64]:
    """Return where the largest values are."""
    return np.argsort(-values, kind="stable")[:number]


def _exact_labels(scores: Float, least: NDArray[np.int64], flexible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Solve the assignment of rows to slots; slots that may stay empty are filled up with rows of no value.

    So the linear program of balanced plans is solved, which has integral solutions (theory, A9).
    """
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


class _Placed(NamedTuple):
    """What an auction leads to."""

    labels: NDArray[np.int64]
    scores: Float
    """Shape (B,), of the rows for their labels; ``-inf`` where the pair is forbidden."""
    price: Float
    """Shape (K,); ``inf`` for columns without places."""


def _auction(
    lists: _Lists, sizes: NDArray[np.int64], price: Float, spread: float, floor: float, tolerance: float
) -> _Placed:
    """Let rows bid for places until all have one; each then has its best column at the final prices, to `tolerance`.

    Bertsekas' auction, with capacities: a row bids the price at which its second choice would be as good, and
    something more; a column keeps its highest bids, and once it is full its price is the lowest of them. What is
    bid more starts at a tenth of the scores' spread and falls to `tolerance`, or ties would be fought over in steps
    that small.
    """
    price = np.where(sizes > 0, price, np.inf)
    if np.count_nonzero(sizes) == 1:
        lists.renew(list(range(len(lists.rest))), price, 0.0)
        first, best, _ = lists.choices(price)
        return _Placed(np.full(len(first), np.argmax(sizes)), best + price.min(), price)
    raise_by = max(tolerance, spread / 10)
    while True:
        placed = _bid(lists, sizes, price, floor, raise_by)
        if raise_by <= tolerance:
            return placed
        price, raise_by = placed.price, max(tolerance, raise_by / 10)


def _bid(lists: _Lists, places: NDArray[np.int64], price: Float, floor: float, raise_by: float) -> _Placed:
    """Run one auction among at least two columns, from given prices, with no row placed.

    A column that is not among a row's candidates may be had as a forbidden one, at a score of `floor`.
    """
    lists.move(price)
    outside = floor - float(price.min())  # no forbidden pair is worth more, now or later
    # All bid at once first: that places most.
    first, best, second = lists.choices(price)
    rows = np.arange(len(first))
    columns, scores = lists.columns[rows, first], lists.scores[rows, first]
    bids = scores - np.maximum(second, np.maximum(lists.rest, outside)) + raise_by
    able = np.flatnonzero(best >= np.maximum(lists.rest, outside))
    order = able[np.lexsort((-bids[able], columns[able]))]
    kept = np.arange(len(order)) - np.searchsorted(columns[order], columns[order]) < places[columns[order]]
    held: list[list[tuple[float, int]]] = [[] for _ in places]
    for row in order[kept].tolist():
        held[columns[row]].append((float(bids[row]), row))
    price = price.copy()
    room: list[int] = places.tolist()
    for column, bidders in enumerate(held):
        heapify(bidders)
        if 0 < len(bidders) == room[column]:
            price[column] = bidders[0][0]
    waiting: list[int] = np.flatnonzero(best < lists.rest).tolist()
    bidding: list[int] = np.flatnonzero((best >= lists.rest) & (best < outside)).tolist() + order[~kept].tolist()
    margin = MARGIN * raise_by
    while bidding or waiting:
        if not bidding:
            # Rows that are much alike have the same few candidates: if one pass was not enough, longer lists are.
            if margin > MARGIN * raise_by and lists.can_widen:
                lists.widen(price)
            else:
                lists.renew(waiting, price, margin)
            bidding, waiting = waiting, []
            margin *= 2
        row = bidding.pop()
        candidates, offers, rest = lists.columns[row], lists.scores[row], float(lists.rest[row])
        worth = offers - price.take(candidates)
        choice = int(worth.argmax())
        best_worth = float(worth[choice])
        if best_worth < rest:
            waiting.append(row)
            continue
        worth[choice] = -np.inf
        next_worth = max(float(worth.max()), rest)
        column, score = int(candidates[choice]), float(offers[choice])
        scores[row] = score
        if best_worth < outside:  # perhaps a forbidden pair is worth more: that with the cheapest column
            cheapest, next_cheapest = np.argsort(price)[:2].tolist()
            forbidden_worth = floor - float(price[cheapest])
            if best_worth < forbidden_worth:
                column, score, scores[row] = cheapest, floor, -np.inf
                next_worth, forbidden_worth = best_worth, floor - float(price[next_cheapest])
            next_worth = max(next_worth, forbidden_worth)
        else:
            next_worth = max(next_worth, outside)
        bid = score - next_worth + raise_by
        if len(held[column]) < room[column]:
            heappush(held[column], (bid, row))
        else:
            bidding.append(heappushpop(held[column], (bid, row))[1])
        if len(held[column]) == room[column]:
            price[column] = held[column][0][0]
    labels = np.empty(len(rows), np.int64)
    for column, bidders in enumerate(held):
        labels[[row for _, row in bidders]] = column
    return _Placed(labels, scores, price)


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
