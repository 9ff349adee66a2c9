"""The sweep over scores that come in chunks of rows, made or read anew on every pass and never kept."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import array_api_compat as api

from infoassign.arrays import integer
from infoassign_backends import backend_for, readable
from infoassign_backends.protocol import Array, Masses
from infoassign_backends.reference import check_epsilon, log_sum_exp_of_columns
from infoassign_backends.sums import accurate_sum, widest

FOR_SUMS, FOR_A_CHUNK = 64, 4
"""Units of rounding that the sums over one chunk may cost (over its rows and labels comes on top in double precision),
and that adding it to the others does."""


class Extent(NamedTuple):
    """What is known of scores before the first sweep over them."""

    rows: int
    chunks: int
    offset: float
    """About what rows are to be shifted by, in units of the scores."""
    shift: float
    """A bound on how far a row's largest score is from that."""
    span: float
    """A bound on the difference of two scores of one row; ``inf`` where a pair is forbidden."""
    spread: float
    """A bound on the difference of two finite scores of one row."""


class ChunkedSweep:
    """Scores in chunks, each of shape (b, K); see :class:`infoassign_backends.protocol.Sweep`."""

    def __init__(self, chunks: Callable[[], Iterable[Array]], like: Array, extent: Extent, epsilon: float) -> None:
        xp = api.array_namespace(like)
        self.rows: int = extent.rows
        self.plan_dtype: Any = xp.float64 if like.dtype == xp.float64 else xp.float32
        self.vector_dtype: Any = widest(like)
        # The host's passes make exponents in double precision.
        self.compute_dtype: Any = xp.float64 if readable(like) else self.plan_dtype
        unit = float(xp.finfo(self.vector_dtype).eps) / 2
        check_epsilon(epsilon, self.compute_dtype, xp)
        sums = FOR_SUMS + FOR_A_CHUNK * extent.chunks
        if self.vector_dtype != xp.float32:
            sums += extent.rows + like.shape[-1]
        self.sum_error: float = sums * unit + float(xp.finfo(self.compute_dtype).eps) * 2 * extent.shift / epsilon
        self.entry_error = 2 * float(xp.finfo(self.plan_dtype).eps)
        self.offset: Array = self._vector(like, extent.offset)
        self.span: Array = self._vector(like, extent.span / epsilon)
        self._chunks = chunks
        self._like = like
        self._offset = extent.offset
        self._epsilon = epsilon

    def _vector(self, like: Array, value: float) -> Array:
        return api.array_namespace(like).asarray(value, dtype=self.vector_dtype, device=api.device(like))

    def __call__(self, potential: Array) -> Masses:
        xp = api.array_namespace(potential)
        log_columns: Array = xp.full_like(potential, -xp.inf)
        log_normalizers: Array = 0.0

        def add(found: Masses) -> None:
            nonlocal log_columns, log_normalizers
            log_columns = log_sum_exp_of_columns(xp.stack([log_columns, found.log_columns]), self.vector_dtype)
            log_normalizers = log_normalizers + found.log_normalizers

        # The next chunk is read or made here, in the caller's thread, whose settings an iterator may depend on, while
        # another thread works on this one. Other devices compute on their own.
        with ThreadPoolExecutor(1) as worker:
            waiting: Future[Masses] | None = None
            for chunk in self._chunks():
                if waiting is not None:
                    add(waiting.result())
                work = partial(self._masses, chunk, potential, log_columns)
                if readable(chunk):
                    waiting = worker.submit(work)
                else:
                    add(work())
            if waiting is not None:
                add(waiting.result())
        return Masses(log_columns, log_normalizers + xp.zeros_like(self.span), self.rows)

    def _masses(self, chunk: Array, potential: Array, known: Array) -> Masses:
        return backend_for(chunk).masses(chunk, potential, self._epsilon, self._offset, known)

    def iter_plan(self, potential: Array) -> Iterator[Array]:
        for chunk in self._chunks():
            yield backend_for(chunk).plan(chunk, potential, self._epsilon)

    def labels(self, potential: Array) -> Array:
        xp = api.array_namespace(potential)
        wide = (xp.astype(chunk, self.vector_dtype, copy=False) for chunk in self._chunks())
        # Shifted first, lest large scores swallow the price.
        found = [xp.argmax(chunk - xp.max(chunk, axis=-1, keepdims=True) - potential, axis=-1) for chunk in wide]
        return xp.concat([xp.astype(potential[:0], integer(potential)), *found])

    def apply(self, potential: Array, x: Array) -> Array:
        xp = api.array_namespace(potential)
        found = [accurate_sum(plan * x, self.vector_dtype) for plan in self.iter_plan(potential)]
        return xp.concat([potential[:0], *found])

    def apply_transpose(self, potential: Array, y: Array) -> Array:
        xp = api.array_namespace(potential)
        total, start = xp.zeros_like(potential), 0
        for plan in self.iter_plan(potential):
            weights = y[start : start + plan.shape[0]]
            total = total + accurate_sum(xp.matrix_transpose(plan * weights[:, None]), self.vector_dtype)
            start += plan.shape[0]
        return total

    def log_column_sums(self) -> Array:
        xp = api.array_namespace(self._like)
        total = xp.full(self._like.shape[-1:], -xp.inf, dtype=self.vector_dtype, device=api.device(self._like))
        for chunk in self._chunks():
            wide = xp.astype(chunk, self.compute_dtype, copy=False) / self._epsilon
            parts = [total, log_sum_exp_of_columns(wide, self.vector_dtype)]
            total = log_sum_exp_of_columns(xp.stack(parts), self.vector_dtype)
        return total

    def sum_rows(self, values: Array) -> Array:
        return accurate_sum(values, self.vector_dtype)

    def bound_rows(self, values: Array) -> Array:
        xp = api.array_namespace(values)
        return xp.max(values, axis=-1) if values.shape[-1] else xp.zeros_like(self.span)
