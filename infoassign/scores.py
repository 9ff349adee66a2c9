"""Where the scores live: in one array, in a file or a stream bigger than memory, or in two factors of theirs.

All offer what a problem is made of: the shape, an array to make vectors like, and the prepared sweep (design: the first
seam). :mod:`infoassign.sharding` spreads any of them over ranks.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from math import inf
from mmap import ALLOCATIONGRANULARITY, mmap
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import array_api_compat as api
import numpy as np

from infoassign.arrays import constant, on_host
from infoassign.chunked import ChunkedSweep, Extent
from infoassign.files import replacing
from infoassign.validation import (
    check_array,
    check_chunk,
    check_factors,
    check_scores,
    check_values,
    count,
    positive,
    weight,
)
from infoassign_backends import backend_for
from infoassign_backends.host import pieces
from infoassign_backends.protocol import Array, Sweep
from infoassign_backends.reference import widest

CHUNK = 2**24
"""Entries of a chunk that is read."""
PRODUCT = 2**22
"""Entries of a chunk that is a product of factors; small enough that the allocator gives the same memory again."""
SAMPLE = 2**24
"""Entries at most that are kept of a stream, to find a start from."""
REACH = 2**16
"""Bytes that come into memory, at least, where one of them is looked at."""
ONE_IN = 64
"""One row of so many is drawn for it."""


class ScoresChangedError(RuntimeError):
    """Scores that are read again are no longer those that were read before."""


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

    def prepare(self, epsilon: float) -> Sweep:
        """Prepare the sweep over them."""

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
        return 2 * xp.clip(
            xp.astype(highest, wide) / 2 - xp.astype(lowest, wide) / 2, 0.0, float(xp.finfo(wide).max) / 4
        )

    @property
    def depth(self) -> Array:
        return self.spread  # every row is shifted by its own largest

    def check(self, *, check_finite: bool) -> None:
        check_scores(self.like, check_finite=check_finite)

    def usable(self) -> Array:
        xp = api.array_namespace(self.like)
        return ~xp.all(self.like == -xp.inf, axis=-2)

    def prepare(self, epsilon: float) -> Sweep:
        return backend_for(self.like).prepare(self.like, epsilon)

    def chunks(self) -> Iterator[Array]:
        yield self.like

    def sample(self) -> None:
        return None

    def in_float64(self) -> "DenseScores":
        return DenseScores(on_host(self.like))


class NoRows:
    """The scores of a rank that has none."""

    def __init__(self, like: Array) -> None:
        self.like = like
        self.rows = 0
        self.spread = self.depth = 0.0
        self.extent = Extent(0, 0, 0.0, 0.0, 0.0, 0.0)

    def check(self, *, check_finite: bool) -> None:
        if self.like.ndim != 2 or self.like.shape[-1] == 0:
            raise ValueError(f"scores without rows must have shape (0, labels); got {tuple(self.like.shape)}")

    def usable(self) -> Array:
        xp = api.array_namespace(self.like)
        return xp.zeros(self.like.shape[-1:], dtype=xp.bool, device=api.device(self.like))

    def prepare(self, epsilon: float) -> Sweep:
        return ChunkedSweep(self.chunks, self.like, self.extent, epsilon)

    def chunks(self) -> Iterator[Array]:
        yield from ()

    def sample(self) -> None:
        return None

    def in_float64(self) -> "NoRows":
        return NoRows(on_host(self.like))


class Survey(NamedTuple):
    """What the first pass over a stream found."""

    extent: Extent
    usable: Array
    prints: list[tuple[int, int]]
    """The number of rows of every chunk, and a checksum of its first and its last."""
    sample: Array


class StreamedScores:
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
            for piece in pieces(self._source.shape, self._chunk_rows * self._source.shape[1]):
                yield constant(touched(self._source, piece))

    @cached_property
    def _survey(self) -> Survey:
        """Look at everything once."""
        random = np.random.default_rng(0)
        xp, like = api.array_namespace(self.like), self.like
        usable = xp.zeros(like.shape[-1:], dtype=xp.bool, device=api.device(like))
        prints: list[tuple[int, int]] = []
        sample: list[Array] = []
        one_in, rows, offset, highest, lowest, span, spread = ONE_IN, 0, 0.0, -inf, inf, 0.0, 0.0
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
            if sum(part.shape[0] for part in sample) * chunk.shape[1] > SAMPLE:
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
    def rows(self) -> int:
        """The number of rows."""
        return self.extent.rows

    @property
    def spread(self) -> Array:
        """The largest difference of two finite scores of one row."""
        return self.extent.spread

    @property
    def extent(self) -> Extent:
        """What the first pass found out about the scores."""
        return self._survey.extent

    @property
    def depth(self) -> Array:
        """A bound on how far a finite score is below the offset."""
        return self.extent.shift + self.extent.spread

    def check(self, *, check_finite: bool) -> None:
        """Look at all once, if that has not been done; a look at the values comes with it."""
        self._survey  # noqa: B018

    def usable(self) -> Array:
        """Return which labels some row may use, shape (K,)."""
        return self._survey.usable

    def prepare(self, epsilon: float) -> Sweep:
        """Prepare the sweep over them."""
        return ChunkedSweep(self.chunks, self.like, self.extent, epsilon)

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


class Factors(NamedTuple):
    """What scores are made of, as given: for torch tensors, with the history that gradients go back to."""

    features: Array
    prototypes: Array
    temperature: Any
    bias: Array | None


class FactoredScores:
    """Scores that are the products of features and prototypes, never multiplied out: ``f_i . p_j / temperature + b_j``.

    A tile of rows is multiplied at a time, on every pass. The product has the precision of the features: the scores
    are what it gives, and what it rounds is not in the certificate, as it is not if you multiply yourself.

    Parameters
    ----------
    features
        Shape (B, D), real floating, of any array library; may be memory-mapped.
    prototypes
        Shape (K, D), of the same library, dtype and device.
    temperature
        What divides the products, > 0; for gradients it may be a 0-d torch tensor.
    bias
        Added to every row's scores, shape (K,); ``-inf`` removes a label. Default: none.

    Raises
    ------
    TypeError, ValueError
        If the factors do not fit each other, are empty or not finite, or `temperature` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> random = np.random.default_rng(0)
    >>> features, prototypes = random.normal(size=(1000, 16)), random.normal(size=(8, 16))
    >>> assignment = ia.sinkhorn(ia.FactoredScores(features, prototypes, 4.0), epsilon=0.5)
    >>> dense = ia.sinkhorn(features @ prototypes.T / 4.0, epsilon=0.5)
    >>> assignment.labels.shape, bool((assignment.labels == dense.labels).all())
    ((1000,), True)
    """

    def __init__(self, features: Array, prototypes: Array, temperature: Any = 1.0, bias: Array | None = None) -> None:
        check_factors(features, prototypes, bias)
        self.temperature: float = weight("temperature", temperature, positive, "implicit")[0]
        self.features, self.prototypes, self.bias = constant(features), constant(prototypes), constant(bias)
        self.given = Factors(features, prototypes, temperature, bias)

    @property
    def like(self) -> Array:
        """No row of them: an array of their library, device, dtype and labels, shape (0, K)."""
        xp = api.array_namespace(self.prototypes)
        dtype = self.prototypes.dtype
        return xp.zeros((0, self.prototypes.shape[0]), dtype=dtype, device=api.device(self.prototypes))

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.features.shape[0])

    @cached_property
    def extent(self) -> Extent:
        """What is known of the scores from their factors."""
        xp = api.array_namespace(self.prototypes)

        def longest(matrix: Array) -> float:
            parts = (xp.astype(touched(matrix, piece), widest(matrix)) for piece in pieces(matrix.shape, PRODUCT))
            norms = [float(xp.max(xp.linalg.vector_norm(part, axis=-1))) for part in parts]
            # A NaN is not to be lost among them.
            return float(np.max(norms, initial=0.0))

        limit = float(xp.finfo(in_single(self.prototypes[:1, :]).dtype).max) / 4
        reach = longest(self.prototypes) / self.temperature
        largest = longest(self.features) * reach
        if not (largest < limit and reach < limit):
            raise ValueError("features and prototypes must be finite, and their products in range")
        span = spread = 2 * largest
        shift = largest
        if self.bias is not None:
            bias = on_host(self.bias)
            finite = bias[np.isfinite(bias)]
            spread += float(np.ptp(finite))
            shift += float(np.abs(finite).max())
            span = spread if len(finite) == len(bias) else inf
        return Extent(self.rows, len(self._tiles), 0.0, shift, span, spread)

    @property
    def spread(self) -> Array:
        """A bound on the difference of two finite scores of one row."""
        return self.extent.spread

    @property
    def depth(self) -> Array:
        """A bound on how far a finite score is below the offset."""
        return self.extent.shift + self.extent.spread

    def check(self, *, check_finite: bool) -> None:
        """Look at the factors; that their products are finite follows from it."""
        if check_finite:
            self.extent  # noqa: B018  (says what is wrong)

    def usable(self) -> Array:
        """Return which labels some row may use, shape (K,)."""
        xp = api.array_namespace(self.prototypes)
        if self.bias is None:
            return xp.ones(self.prototypes.shape[:1], dtype=xp.bool, device=api.device(self.prototypes))
        return self.bias > -xp.inf

    def prepare(self, epsilon: float) -> Sweep:
        """Prepare the sweep over them."""
        return ChunkedSweep(self.chunks, self.like, self.extent, epsilon)

    def chunks(self) -> Iterator[Array]:
        """Yield the scores, some rows at a time, as they are multiplied out."""
        for tile in self._tiles:
            yield self._product(touched(self.features, tile))

    @property
    def _tiles(self) -> list[slice]:
        """The rows that are multiplied at a time: the same on every pass, so that every pass rounds alike."""
        return pieces((self.rows, self.prototypes.shape[0]), PRODUCT)

    @cached_property
    def _scaled_prototypes(self) -> Array:
        """The prototypes over the temperature, shape (D, K), in single precision at least."""
        xp = api.array_namespace(self.prototypes)
        return xp.matrix_transpose(in_single(self.prototypes) / self.temperature)

    def _product(self, features: Array) -> Array:
        product = in_single(features) @ self._scaled_prototypes
        return product if self.bias is None else product + in_single(self.bias)

    def sample(self) -> Array:
        """Return the scores of some rows, drawn at random with a fixed seed."""
        number = min(self.rows // ONE_IN, SAMPLE // self.prototypes.shape[0])
        drawn = np.sort(np.random.default_rng(0).choice(self.rows, size=number, replace=False))
        check_map(self.features)
        return self._product(take_rows(self.features, drawn))

    def in_float64(self) -> StreamedScores:
        """Return the same scores on the host in float64, their products made in float64, too."""
        prototypes = on_host(self.prototypes).T / self.temperature
        bias = 0.0 if self.bias is None else on_host(self.bias)

        def products() -> Iterator[Any]:
            yield np.empty((0, prototypes.shape[1]))
            yield from (on_host(touched(self.features, tile)) @ prototypes + bias for tile in self._tiles)

        return StreamedScores(products)

    def __repr__(self) -> str:
        return f"FactoredScores({self.rows} x {self.prototypes.shape[0]}, {self.prototypes.shape[1]} factors)"


def as_scores(scores: Any) -> Scores:
    """Take an array for dense scores; everything else must be scores already."""
    if isinstance(scores, DenseScores | NoRows | StreamedScores | FactoredScores):
        return scores
    check_array("scores", scores)
    scores = constant(scores)
    return NoRows(scores) if scores.ndim == 2 and scores.shape[0] == 0 else DenseScores(scores)


def check_map(source: Any) -> None:
    """Say so if an array is a memory map of a file that was cut: to read on would kill the process."""
    array: Any = source
    while isinstance(array, np.ndarray):
        base: Any = array.base
        if isinstance(base, mmap):
            start = getattr(array, "offset", 0) // ALLOCATIONGRANULARITY * ALLOCATIONGRANULARITY
            if base.size() < start + len(base):
                name = getattr(array, "filename", "of a memory map")
                raise ScoresChangedError(f"the file {name} was cut to {base.size()} bytes, of {start + len(base)}")
            return
        array = base


def touched(source: Any, rows: slice) -> Array:
    """Return some rows of an indexable source, those of a memory map as they are read from disk."""
    check_map(source)
    chunk: Any = source[rows, :]
    if isinstance(chunk, np.memmap):
        chunk = np.asarray(chunk)
        if chunk.flags.c_contiguous:
            # A number here and there, so that what is not in memory is read now.
            np.max(chunk.reshape(-1)[:: max(1, REACH // chunk.itemsize)], initial=0)
    return chunk


def fingerprint(chunk: Array) -> tuple[int, int]:
    """Return the number of rows and a checksum of the first and the last."""
    ends = np.stack([on_host(chunk[0, :]), on_host(chunk[-1, :])])
    return int(chunk.shape[0]), crc32(ends.tobytes())


def in_single(array: Array) -> Array:
    """Return an array in single precision if it is in half."""
    xp = api.array_namespace(array)
    return xp.astype(array, xp.float32) if xp.finfo(array.dtype).bits < 32 else xp.asarray(array)


def take_rows(matrix: Array, rows: Any) -> Array:
    """Return some rows of a matrix, by their numbers (NumPy, ascending)."""
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix[rows])
    xp = api.array_namespace(matrix)
    return xp.take(matrix, xp.asarray(rows, device=api.device(matrix)), axis=0)


def some_rows(chunk: Array, one_in: int, random: np.random.Generator) -> Array:
    """Draw one row of so many."""
    return take_rows(chunk, np.flatnonzero(random.random(chunk.shape[0]) < 1 / one_in))


def write_npy(path: str | PathLike[str], parts: Iterable[Any], shape: tuple[int, int], dtype: Any) -> None:
    """Write NumPy arrays, one after the other, as one ``.npy`` file that is there whole or not at all."""
    with replacing(Path(path)) as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype=dtype).data)
