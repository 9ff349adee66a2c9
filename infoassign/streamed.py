"""Scores bigger than memory, from a file or a function that makes them again on every pass."""

from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from math import inf
from os import PathLike
from typing import Any, NamedTuple
from zlib import crc32

import array_api_compat as api
import numpy as np

from infoassign import scores
from infoassign.arrays import constant, on_host, take_rows
from infoassign.chunked import Extent
from infoassign.files import ScoresChangedError, touched, write_npy
from infoassign.scores import InChunks
from infoassign.validation import check_chunk, check_values, count
from infoassign_backends.host import slices
from infoassign_backends.protocol import Array
from infoassign_backends.sums import widest

CHUNK = 2**24
"""Entries of a chunk that is read."""


class Survey(NamedTuple):
    """What the first pass over a stream found."""

    extent: Extent
    usable: Array
    prints: list[tuple[int, int]]
    """The number of rows of every chunk, and a checksum of its first and its last."""
    sample: Array


class StreamedScores(InChunks):
    """Scores bigger than memory: read in chunks of rows on every pass, and never kept.

    What is held in memory is the chunk that is worked on and the next, which is read meanwhile. The answer is that of
    the same scores in one array. A first pass looks at them all once: it refuses NaN, ``+inf`` and rows without a
    label, and draws a sample of the rows to start from (see `start` of :func:`infoassign.assign`). Every later pass
    compares the number of rows, and the first and the last, of every chunk with what the first one saw.

    Parameters
    ----------
    source
        An indexable array (B, K) of real floating scores, of which slices of rows are read: a memory-mapped file
        (``numpy.load(path, mmap_mode="r")``), an HDF5 or zarr data set, an array in memory. Or a callable that returns
        a fresh iterator over arrays (b, K), of any library and any b, the same at every call.
    chunk_rows
        Rows of a chunk of an indexable source. Default: as many as make about 16 million scores.

    Raises
    ------
    TypeError
        If `source` is neither; a generator, which can be read only once, is not.
    ValueError
        If an indexable source has not two axes.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> scores = np.random.default_rng(0).normal(size=(1000, 8))
    >>> in_chunks = ia.StreamedScores(lambda: (scores[i : i + 64] for i in range(0, 1000, 64)))
    >>> assignment = ia.sinkhorn(in_chunks, epsilon=0.5)
    >>> assignment
    Assignment(shape=(1000, 8), status=CONVERGED, sweeps=5, marginal_error=1.5e-07)
    >>> bool(np.abs(np.concatenate(list(assignment.iter_plan())) - ia.sinkhorn(scores, epsilon=0.5).plan).max() < 1e-12)
    True
    """

    def __init__(self, source: Any, *, chunk_rows: int | None = None) -> None:
        self._chunk_rows = None if chunk_rows is None else count("chunk_rows", chunk_rows)
        if hasattr(source, "shape") and hasattr(source, "__getitem__"):
            if len(source.shape) != 2 or source.shape[1] == 0:
                raise ValueError(f"source must have shape (rows, labels), with labels; got {tuple(source.shape)}")
            if self._chunk_rows is None:
                self._chunk_rows = max(1, CHUNK // source.shape[1])
        elif not callable(source):
            once = ", which could be read only once" if isinstance(source, Iterator) else ""
            if isinstance(source, str | PathLike):
                once = '; open a file with numpy.load(path, mmap_mode="r")'
            raise TypeError(
                "source must be an indexable array, or a function that returns a new iterator at every call; got"
                f" {type(source).__name__}{once}"
            )
        elif chunk_rows is not None:
            raise ValueError("chunk_rows is for an indexable source; an iterator makes its own chunks")
        self._source = source

    def _read(self) -> Iterator[Array]:
        """Read all once."""
        if self._chunk_rows is None:
            yield from (constant(chunk) for chunk in self._source())
        else:
            for piece in slices(self._source.shape, self._chunk_rows * self._source.shape[1]):
                yield constant(touched(self._source, piece))

    @cached_property
    def _survey(self) -> Survey:
        """Look at everything once."""
        random = np.random.default_rng(0)
        xp, like = api.array_namespace(self.like), self.like
        usable = xp.zeros(like.shape[-1:], dtype=xp.bool, device=api.device(like))
        prints: list[tuple[int, int]] = []
        sample: list[Array] = []
        one_in, rows, offset, highest, lowest, span, spread = scores.ONE_IN, 0, 0.0, -inf, inf, 0.0, 0.0
        before: Array = None
        for number, chunk in enumerate(self._read()):
            check_chunk(number, chunk, like)
            if isinstance(chunk, np.ndarray) and before is not None and np.may_share_memory(chunk, before):
                raise ValueError(
                    f"chunk {number} of scores is in the memory of the one before; yield copies, since a chunk is"
                    " worked on while the next is made"
                )
            before = chunk
            if chunk.shape[0] == 0:
                continue
            largest, smallest = xp.max(chunk, axis=-1), xp.min(chunk, axis=-1)
            top, bottom = float(xp.max(largest)), float(xp.min(largest))
            if not -inf < bottom <= top < inf:
                check_values(chunk, f" (in chunk {number})", rows)
            masked = bool(xp.any(smallest == -xp.inf))
            usable = usable | xp.any(chunk > -xp.inf, axis=0) if masked else xp.ones_like(usable)
            ranges = xp.astype(largest, widest(chunk)) - xp.astype(smallest, widest(chunk))
            span = max(span, float(xp.max(ranges)))
            if masked:
                finite = xp.min(xp.where(chunk == -xp.inf, xp.inf, chunk), axis=-1)
                ranges = xp.astype(largest, widest(chunk)) - xp.astype(finite, widest(chunk))
            spread = max(spread, float(xp.max(ranges)))
            highest, lowest = max(highest, top), min(lowest, bottom)
            prints.append(fingerprint(chunk))
            rows += chunk.shape[0]
            mean = float(xp.sum(xp.astype(largest, widest(chunk)) / chunk.shape[0]))
            offset += (mean - offset) * (chunk.shape[0] / rows)
            sample.append(some_rows(chunk, one_in, random))
            if sum(part.shape[0] for part in sample) * chunk.shape[1] > scores.SAMPLE:
                one_in, sample = 2 * one_in, [some_rows(part, 2, random) for part in sample]
        shift = max(highest - offset, offset - lowest) if rows else 0.0
        sampled = xp.concat([like, *sample])
        return Survey(Extent(rows, len(prints), offset, shift, span, spread), usable, prints, sampled)

    @cached_property
    def like(self) -> Array:
        """No row of them: an array of their library, device, dtype and labels, shape (0, K)."""
        for chunk in self._read():
            check_chunk(0, chunk, None)
            # Not a slice of the chunk, which would keep all of it in memory.
            xp = api.array_namespace(chunk)
            return xp.zeros((0, chunk.shape[1]), dtype=chunk.dtype, device=api.device(chunk))
        if self._chunk_rows is not None:
            return constant(self._source[:0, :])
        raise ValueError("scores must not be empty; the iterator gave nothing, not even a chunk of shape (0, labels)")

    @property
    def extent(self) -> Extent:
        """What the first pass found out about the scores."""
        return self._survey.extent

    def check(self, *, check_finite: bool) -> None:
        """Look at all once, if that has not been done; a look at the values comes with it."""
        self._survey  # noqa: B018

    def usable(self) -> Array:
        """Return which labels some row may use, shape (K,)."""
        return self._survey.usable

    def chunks(self) -> Iterator[Array]:
        """Yield the scores, some rows at a time.

        Raises
        ------
        ScoresChangedError
            If they are not those that the first pass saw.
        """
        prints, number = self._survey.prints, 0
        for chunk in self._read():
            if chunk.shape[0] == 0:
                continue
            if number == len(prints):
                raise ScoresChangedError(f"the scores now have more than the {len(prints)} chunks of the first pass")
            check_chunk(number, chunk, self.like)
            if fingerprint(chunk) != prints[number]:
                raise ScoresChangedError(
                    f"chunk {number} of the scores, now with {chunk.shape[0]} rows, is not the one with"
                    f" {prints[number][0]} rows that the first pass saw; every pass has to give the same scores"
                    " (seed what is random, keep the order)"
                )
            number += 1
            yield chunk
        if number < len(prints):
            raise ScoresChangedError(f"the scores now end after {number} chunks; the first pass saw {len(prints)}")

    def sample(self) -> Array:
        """Return the rows that the first pass drew."""
        return self._survey.sample

    def in_float64(self) -> "StreamedScores":
        """Return the same scores on the host in float64."""
        return StreamedScores(lambda: (on_host(chunk) for chunk in chain([self.like], self.chunks())))

    def store(self, path: str | PathLike[str], *, dtype: str = "float16") -> "StreamedScores":
        """Write the scores to a file once and return them as read from there, in a precision that saves space.

        For scores that are costly to make anew on every pass. The file is a NumPy array (``.npy``), and there whole or
        not at all. What is solved then are the rounded scores.

        Parameters
        ----------
        path
            The file.
        dtype
            "float16", "float32" or "float64".

        Returns
        -------
        StreamedScores
            Memory-mapped.

        Raises
        ------
        ValueError
            If a score does not fit into `dtype`.
        OSError
            If the file cannot be written; what it held before is kept.

        Examples
        --------
        >>> from tempfile import mkdtemp
        >>> import numpy as np
        >>> scores = StreamedScores(lambda: iter(np.ones((3, 100, 4))))
        >>> stored = scores.store(mkdtemp() + "/scores.npy")
        >>> stored.rows, stored.like.dtype
        (300, dtype('float16'))
        """
        if dtype not in {"float16", "float32", "float64"}:
            raise ValueError(f'dtype must be "float16", "float32" or "float64"; got {dtype!r}')
        limit = float(np.finfo(dtype).max)

        def rounded(chunk: Array) -> Any:
            wide = on_host(chunk)
            if bool(np.any((np.abs(wide) > limit) & np.isfinite(wide))):
                raise ValueError(f"a score is beyond the range of {dtype}, {limit:g}; scale the scores, or store wider")
            return wide.astype(dtype)

        write_npy(path, (rounded(chunk) for chunk in self.chunks()), (self.rows, self.like.shape[-1]), dtype)
        return StreamedScores(np.load(path, mmap_mode="r"))

    def __repr__(self) -> str:
        return f"StreamedScores({type(self._source).__name__})"


def fingerprint(chunk: Array) -> tuple[int, int]:
    """Return the number of rows and a checksum of the first and the last."""
    ends = np.stack([on_host(chunk[0, :]), on_host(chunk[-1, :])])
    return int(chunk.shape[0]), crc32(ends.tobytes())


def some_rows(chunk: Array, one_in: int, random: np.random.Generator) -> Array:
    """Draw one row of so many."""
    return take_rows(chunk, np.flatnonzero(random.random(chunk.shape[0]) < 1 / one_in))
