"""What auctions ask about scores that are not one matrix in memory: in chunks, or spread over ranks."""

import os
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from infoassign.arrays import on_host, take_rows
from infoassign.auction import TILE, Candidates, DenseMarket, Float, Market, best_of, joined
from infoassign.scores import DenseScores, InChunks, Scores
from infoassign.sharding import Ranks
from infoassign_backends.host import slices

SLOTS = 2**16
"""Places among which ranks find an order; many more than there are ranks."""


class ChunkedMarket:
    """Scores that come in chunks of rows; see :class:`infoassign.auction.Market`."""

    def __init__(self, scores: InChunks) -> None:
        extent = scores.extent
        self.rows, self.columns = extent.rows, int(scores.like.shape[-1])
        self.highest = extent.offset + extent.shift
        self.lowest = extent.offset - extent.shift - extent.spread
        self.forbids = extent.span == np.inf
        self.allowed: NDArray[np.bool_] | None = None
        self._scores = scores

    def best(self, rows: NDArray[np.int64] | None, price: Float, number: int) -> Candidates:
        """Rank chunk by chunk; see :meth:`infoassign.auction.Market.best`."""
        asked = np.arange(self.rows) if rows is None else np.sort(rows)
        found, start = [best_of(np.empty((0, self.columns)), price, min(number, self.columns))], 0
        for chunk in self._scores.chunks():
            first, last = np.searchsorted(asked, [start, start + chunk.shape[0]])
            here = asked[first:last] - start
            tiles = (on_host(take_rows(chunk, here[tile])) for tile in slices((len(here), self.columns), TILE))
            found.extend(best_of(tile, price, number) for tile in tiles)
            start += chunk.shape[0]
        columns, scores, rest = joined(found)
        if rows is None:
            return Candidates(columns, scores, rest)
        back = np.argsort(np.argsort(rows, kind="stable"), kind="stable")
        return Candidates(columns[back], scores[back], rest[back])


class ShardedMarket:
    """The scores of all ranks, of which this one holds some rows; see :class:`infoassign.auction.Market`.

    Every rank holds the same auction, on lists that all ranks contribute to: what is exchanged is a few numbers a row.
    The ranks sum NumPy's arrays.
    """

    def __init__(self, market: Market, ranks: Ranks) -> None:
        self._market, self._ranks = market, ranks
        self.columns = market.columns
        self.start, self.rows = places(market, ranks)
        self.highest = float(ranks.bound(np.array([max(market.highest, 0.0)]))[0])
        self.lowest = -float(ranks.bound(np.array([max(-market.lowest, 0.0)]))[0])
        self.forbids = bool(ranks.sum(np.array([float(market.forbids)]))[0] > 0)
        self.allowed: NDArray[np.bool_] | None = None

    def best(self, rows: NDArray[np.int64] | None, price: Float, number: int) -> Candidates:
        """Rank the rows that are here and learn of the others; see :meth:`infoassign.auction.Market.best`."""
        asked = np.arange(self.rows) if rows is None else rows
        here = np.flatnonzero((asked >= self.start) & (asked < self.start + self._market.rows))
        listed = min(number, self.columns)
        table = np.zeros((len(asked), 2 * listed + 1))

        def fill() -> None:
            found = self._market.best(asked[here] - self.start, price, number)
            table[here] = np.concatenate([found.columns, found.scores, found.rest[:, None]], axis=1)

        self._ranks.attempt(fill, lambda: None)
        table = self._ranks.sum(table.reshape(-1)).reshape(table.shape)
        return Candidates(table[:, :listed].astype(np.int64), table[:, listed:-1], table[:, -1])


def places(market: Market, ranks: Ranks) -> tuple[int, int]:
    """Return the number of this rank's first row among those of all ranks, in some order of the ranks, and how many.

    Sums do not tell ranks apart. Each takes a slot by its rows, which gives the same order every time; where two take
    one they draw again.
    """
    zero = np.zeros(market.columns)
    first = ranks.attempt(
        lambda: market.best(np.arange(min(1, market.rows)), zero, market.columns).scores, lambda: np.empty(0)
    )
    salt = b""
    while True:
        slot = crc32(first.tobytes() + str(market.rows).encode() + salt) % SLOTS
        taken = np.zeros(2 * SLOTS)
        taken[slot], taken[SLOTS + slot] = 1, market.rows
        taken, rows = np.split(ranks.sum(taken), 2)
        if taken.max() == 1:
            return int(rows[:slot].sum()), int(rows.sum())
        salt = os.urandom(8)


def market_of(scores: Scores) -> Market:
    """Return what an auction asks about the rows of one problem that are here."""
    if isinstance(scores, DenseScores):
        return DenseMarket(on_host(scores.like))
    assert isinstance(scores, InChunks)
    return ChunkedMarket(scores)
