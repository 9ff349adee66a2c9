"""Where the scores live: in one array, or in chunks of rows that are read or made anew on every pass.

All offer what a problem is made of: the shape, an array to make vectors like, and the prepared sweep (design: the first
seam). :mod:`infoassign.streamed` and :mod:`infoassign.factored` have the two kinds in chunks that users make;
:mod:`infoassign.sharding` spreads any of them over ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import array_api_compat as api

from infoassign.arrays import clipped, constant, on_host
from infoassign.chunked import ChunkedSweep, Extent
from infoassign.validation import check_array, check_scores, check_values
from infoassign_backends import backend_for
from infoassign_backends.protocol import Array, Sweep
from infoassign_backends.sums import widest

SAMPLE = 2**24
"""Entries at most that are drawn, to find a start from."""
ONE_IN = 64
"""One row of so many is drawn."""


class Scores(Protocol):
    """Scores of B rows and K labels, wherever they are."""

    @property
    def like(self) -> Array:
        """An array of their library, device, dtype and shape, but for the number of rows."""

    @property
    def rows(self) -> int:
        """How many rows there are here."""

    @property
    def spread(self) -> Array:
        """A bound on the difference of two finite scores of one row, shape (...,)."""

    @property
    def depth(self) -> Array:
        """A bound on how far a finite score is below the sweep's offset in its row, shape (...,)."""

    def check(self, *, check_finite: bool) -> None:
        """Say what is wrong with them; see :func:`infoassign.assign`."""

    def usable(self) -> Array:
        """Return which labels some row may use, shape (..., K)."""

    def prepare(self, epsilon: float, *, check_finite: bool = False) -> Sweep:
        """Prepare the sweep over them; if asked, say what of an array is no score."""

    def chunks(self) -> Iterator[Array]:
        """Yield them, rows in order, as arrays of shape (..., b, K)."""

    def sample(self) -> Array | None:
        """Return some rows, drawn at random with a fixed seed; None if there is no use in a start from fewer."""

    def in_float64(self) -> "Scores":
        """Return the same scores on the host in float64."""


class DenseScores:
    """Scores that are one array in memory, shape (..., B, K)."""

    def __init__(self, array: Array) -> None:
        self.like = array

    @property
    def rows(self) -> int:
        return int(self.like.shape[-2])

    @property
    def spread(self) -> Array:
        xp = api.array_namespace(self.like)
        finite, wide = xp.isfinite(self.like), widest(self.like)
        highest = xp.max(xp.where(finite, self.like, -xp.inf), axis=(-2, -1))
        lowest = xp.min(xp.where(finite, self.like, xp.inf), axis=(-2, -1))
        # Halved, lest the difference overflows.
        half = xp.astype(highest, wide) / 2 - xp.astype(lowest, wide) / 2
        return 2 * clipped(half, 0.0, float(xp.finfo(wide).max) / 4)

    @property
    def depth(self) -> Array:
        return self.spread  # every row is shifted by its own largest

    def check(self, *, check_finite: bool) -> None:
        check_scores(self.like, check_finite=False)  # prepare sees values without another pass

    def usable(self) -> Array:
        xp = api.array_namespace(self.like)
        return ~xp.all(self.like == -xp.inf, axis=-2)

    def prepare(self, epsilon: float, *, check_finite: bool = False) -> Sweep:
        sweep = backend_for(self.like).prepare(self.like, epsilon)
        xp = api.array_namespace(self.like)
        # The mean of the rows' largest scores shows a NaN, +inf, and a row that is all -inf.
        if check_finite and not bool(xp.all(xp.isfinite(sweep.offset))):
            check_values(self.like)
        return sweep

    def chunks(self) -> Iterator[Array]:
        yield self.like

    def sample(self) -> None:
        return None

    def in_float64(self) -> "DenseScores":
        return DenseScores(on_host(self.like))


class InChunks(ABC):
    """Scores that are made or read in chunks of rows, each of shape (b, K), anew on every pass."""

    @property
    @abstractmethod
    def like(self) -> Array:
        """No row of them: an array of their library, device, dtype and labels, shape (0, K)."""

    @property
    @abstractmethod
    def extent(self) -> Extent:
        """What is known of them before the first sweep."""

    @abstractmethod
    def check(self, *, check_finite: bool) -> None:
        """Say what is wrong with them."""

    @abstractmethod
    def usable(self) -> Array:
        """Return which labels some row may use, shape (K,)."""

    @abstractmethod
    def chunks(self) -> Iterator[Array]:
        """Yield them, rows in order."""

    @abstractmethod
    def sample(self) -> Array | None:
        """Return some rows, drawn at random with a fixed seed; None if there is no use in a start from fewer."""

    @abstractmethod
    def in_float64(self) -> "InChunks":
        """Return the same scores on the host in float64."""

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.extent.rows

    @property
    def spread(self) -> float:
        """A bound on the difference of two finite scores of one row."""
        return self.extent.spread

    @property
    def depth(self) -> float:
        """A bound on how far a finite score is below the offset."""
        return self.extent.shift + self.extent.spread

    def prepare(self, epsilon: float, *, check_finite: bool = False) -> Sweep:
        """Prepare the sweep over them; `check` has seen the values."""
        return ChunkedSweep(self.chunks, self.like, self.extent, epsilon)


class NoRows(InChunks):
    """The scores of a rank that has none."""

    like: Array = None
    extent = Extent(0, 0, 0.0, 0.0, 0.0, 0.0)

    def __init__(self, like: Array) -> None:
        self.like = like

    def check(self, *, check_finite: bool) -> None:
        if self.like.ndim != 2 or self.like.shape[-1] == 0:
            raise ValueError(f"scores without rows must have shape (0, labels); got {tuple(self.like.shape)}")

    def usable(self) -> Array:
        xp = api.array_namespace(self.like)
        return xp.zeros(self.like.shape[-1:], dtype=xp.bool, device=api.device(self.like))

    def chunks(self) -> Iterator[Array]:
        yield from ()

    def sample(self) -> None:
        return None

    def in_float64(self) -> "NoRows":
        return NoRows(on_host(self.like))


def as_scores(scores: Any) -> Scores:
    """Take an array for dense scores; everything else must be scores already."""
    if isinstance(scores, DenseScores | InChunks):
        return scores
    check_array("scores", scores)
    scores = constant(scores)
    return NoRows(scores) if scores.ndim == 2 and scores.shape[0] == 0 else DenseScores(scores)
