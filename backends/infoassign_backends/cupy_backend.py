"""CuPy arrays: passes by CUDA kernels that read nothing but the scores, and write no matrix but a plan.

``cupy_sweep.cu`` has the kernels; what can be tuned is here. They are compiled for a dtype when it is first met, which
CuPy keeps on disk. Nothing is read back from the device: what depends on values is decided there. Kernels run on CuPy's
current stream, on the device of the scores. Scores that are not contiguous are copied once. The joint entropy is the
standard's, whose products are cuBLAS's.
"""

import logging
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from math import ceil, inf, log2, prod
from typing import Any, NamedTuple

import array_api_compat as api
import cupy
import numpy as np

from infoassign_backends import reference
from infoassign_backends.joint import off_diagonal, off_diagonal_and_gradients, product
from infoassign_backends.protocol import Array, Masses, Sweep
from infoassign_backends.reference import check_epsilon, factored

__all__ = [
    "CupySweep",
    "factored",
    "masses",
    "off_diagonal",
    "off_diagonal_and_gradients",
    "plan",
    "prepare",
    "product",
]

LOG = logging.getLogger("infoassign")
KINDS = {"float16": "Half", "bfloat16": "Brain", "float32": "float", "float64": "double"}
"""What the source calls the dtypes that it serves."""
LOG2E = 1.4426950408889634
LEAST_SCALE, LARGEST_SCALE = 2.0**-100, 2.0**120
"""Scales log2(e) / epsilon from and up to which single precision has them, as the sum of two numbers."""
FAINT = {False: 2.0 ** (40 - 125), True: 2.0 ** (70 - 1000)}
"""A column's mass for each row below which it is made anew, by whether exponents are in double precision: what may
vanish of it is less by 2^40 at least, or 2^70."""
ROWS_OF_A_THREAD = 16
"""Rows at least that a thread adds up its columns of, where rows are not in registers."""
THREADS = 256
"""Threads of a block, but where a row needs more; a power of two."""
RESIDENT = 8
"""Blocks for each multiprocessor at most of kernels that have no rows in their registers."""
SLABS = 32
"""Of rows, at most, whose columns are summed by their logarithms side by side."""
OPTIONS = ("-std=c++17", f"-DTHREADS={THREADS}")
"""For the compiler."""


class Team(NamedTuple):
    """How many threads have a row in their registers, for rows of up to ``4 * threads * chunks`` columns."""

    threads: int
    """Up to a warp's 32, or a multiple of it; a power of two."""
    chunks: int
    """Of four columns each, for every thread."""
    rows: int
    """Worked on together; a power of two."""
    resident: int
    """Blocks for each multiprocessor: as many as its registers hold."""

    @property
    def columns(self) -> int:
        """The columns there is room for."""
        return 4 * self.threads * self.chunks

    @property
    def together(self) -> int:
        """The rows that a block works on at a time."""
        return self.rows * max(1, THREADS // self.threads)


TEAMS = (
    Team(8, 1, 4, 4),
    Team(32, 1, 4, 4),
    Team(32, 2, 4, 2),
    Team(32, 4, 2, 2),
    Team(256, 1, 4, 3),
    Team(256, 2, 4, 2),
    Team(256, 3, 2, 2),
    Team(256, 4, 2, 2),
    Team(512, 4, 2, 1),
)
"""From the smallest; wider rows, and all in double precision, are passed over three times."""


def _device(array: Array) -> Any:
    """Return the device of an array, a context that makes it the current one."""
    return array.device


def _address(array: Array) -> int:
    return int(array.data.ptr)


@cache
def _attributes(device: int) -> dict[str, int]:
    found: dict[str, int] = cupy.cuda.Device(device).attributes
    return found


def _team(kind: str, columns: int) -> Team | None:
    """Return the smallest team that has room for a row; None where there is none."""
    return next((team for team in TEAMS if kind != "double" and columns <= team.columns), None)


def _scale(epsilon: float) -> tuple[Any, Any, Any]:
    """Return ``log2(e) / epsilon`` as the sum of two single numbers, infinite if that cannot be, and 1 / epsilon."""
    scale = LOG2E / epsilon if LEAST_SCALE < LOG2E / epsilon < LARGEST_SCALE else inf
    high = np.float32(scale)
    return high, np.float32(scale - float(high) if scale < inf else 0.0), np.float64(1 / epsilon)


@cache
def _kernel(name: str) -> Any:
    """Return a kernel; each is compiled by itself, since most are never used."""
    source = files("infoassign_backends").joinpath("cupy_sweep.cu").read_text(encoding="utf-8")
    return cupy.RawModule(code=source, options=OPTIONS, name_expressions=(name,)).get_function(name)


def _launch(name: str, blocks: int, threads: tuple[int, int], *arguments: Any) -> None:
    """Launch a kernel; integers are 64 bits wide."""
    given = tuple(np.int64(value) if isinstance(value, int) else value for value in arguments)
    _kernel(name)((blocks,), threads, given)


class Prices(NamedTuple):
    """What kernels need to know of a potential; columns are padded to a multiple of four."""

    natural: Array
    """``v / epsilon``."""
    high: Array
    """The same in powers of two, rounded to a multiple of 2^-10, in single precision."""
    rest: Array
    """What is left of that."""
    dearest: Array
    """A bound on the sizes of those in powers of two, shape (problems,)."""


class Rows(NamedTuple):
    """What is known of rows at a potential, each shape (problems, rows)."""

    shift: Array
    """By how much exponents are shifted; see the source of the kernels."""
    weight: Array
    """1 / the sum of the shifted exponentials."""
    lse: Array
    """Log-normalisers of the rows shifted so that their largest score is 0."""


class CupySweep:
    """Scores that are one CuPy array; see :class:`infoassign_backends.protocol.Sweep`."""

    def __init__(self, scores: Array, epsilon: float) -> None:
        check_epsilon(epsilon, np.float64, np)
        xp = api.array_namespace(scores)
        self.vector_dtype: Any = xp.float64
        self.compute_dtype: Any = xp.float64
        self.plan_dtype: Any = xp.float64 if scores.dtype == xp.float64 else xp.float32
        rows, columns = scores.shape[-2:]
        self.rows: int = rows
        self._columns: int = columns
        self._batch = scores.shape[:-2]
        self._problems = prod(self._batch)
        self._padded = 4 * ceil(self._columns / 4)
        self._kind = KINDS[str(scores.dtype)]
        self._team = _team(self._kind, self._columns)
        self._epsilon = epsilon
        self._scale = _scale(epsilon)
        self._device = _device(scores)
        self._blocks()
        self.sum_error, self.entry_error = self._errors()
        with self._device:
            self._scores = cupy.ascontiguousarray(scores)
            # Four scores are read at once where they are where a processor can do that.
            width = 4 * self._scores.dtype.itemsize
            self._aligned = int(self._columns % 4 == 0 and _address(self._scores) % width == 0)
            self._largest, least = (self._empty(self.rows, dtype=self.plan_dtype) for _ in range(2))
            of_rows = self._problems * self.rows, self._columns, self._aligned
            self._over_rows(f"extremes<{self._kind}>", self._scores, *of_rows, self._largest, least)
            self._tallest = xp.astype(xp.max(xp.abs(self._largest), axis=-1), xp.float32)
            largest = xp.astype(self._largest, xp.float64)
            self.offset: Array = self._shown(xp.sum(largest / self.rows, axis=-1))  # whose sum might overflow
            halves = largest / 2 - xp.astype(least, xp.float64) / 2
            self.span: Array = self._shown(xp.max(halves, axis=-1) / epsilon * 2)

    def _blocks(self) -> None:
        """Decide into how many blocks the rows of a problem are cut, by kernels that add up over them."""
        processors, rows = _attributes(self._device.id)["MultiProcessorCount"], self.rows

        def blocks(together: int, resident: int, tiles: int = 1) -> int:
            room: int = processors * resident // (self._problems * tiles)
            return max(1, min(room, -(-rows // together)))

        quarter = ceil(self._columns / 4)
        across = min(THREADS, 1 << (quarter - 1).bit_length())
        self._threads = across, THREADS // across
        self._tiles = ceil(quarter / across)
        self._again = blocks(ROWS_OF_A_THREAD * self._threads[1], RESIDENT, self._tiles)
        self._first = 0 if self._team is None else blocks(self._team.together, self._team.resident)
        self._for_sums = blocks(THREADS, RESIDENT)

    def _errors(self) -> tuple[float, float]:
        """Return bounds on the relative errors of sums and of entries.

        In single precision an entry is off by two units in the last place as it is made (``ex2.approx``, at most
        2^-22), by ln 2 2^-24 from its exponent, and by rounding where it is stored. A row's sum adds half an `eps` for
        each level of the tree over a thread's columns, and so do rows that are added up together; the rounding of
        sums, of a reciprocal, of a product with it and of a weight are four more. All else is compensated, which over
        n numbers leaves a half and the square of n halves (Ogita, Rump and Oishi, 2005).
        """
        if self._kind == "double":
            unit = float(np.finfo(np.float64).eps)
            return (self.rows + self._columns) * unit / 2, 2 * unit
        unit = float(np.finfo(np.float32).eps)
        levels, numbers = 2.0, self.rows / (self._again * self._threads[1]) + self._columns / 128
        if self._team is not None:
            levels = ceil(log2(4 * self._team.chunks)) + log2(self._team.rows)
            numbers = max(numbers, self.rows / (self._first * self._team.together))
        return (levels + 5) * unit / 2 + ((numbers + 8) * unit / 2) ** 2, 3 * unit

    def __reduce__(self) -> tuple[Any, ...]:
        return CupySweep, (self._scores, self._epsilon)

    def _shown(self, values: Array) -> Array:
        return values.reshape((*self._batch, *values.shape[1:]))

    def _empty(self, *shape: int, dtype: Any = np.float64) -> Array:
        """Return an array with a place for the values of every problem."""
        return cupy.empty((self._problems, *shape), dtype)

    def _taken(self, vector: Array) -> Array:
        return cupy.ascontiguousarray(vector, np.float64)

    def _over_rows(self, name: str, *arguments: Any) -> None:
        """Launch a kernel that has a warp for each row."""
        processors = _attributes(self._device.id)["MultiProcessorCount"]
        blocks = min(ceil(self._problems * self.rows / (THREADS // 32)), RESIDENT * processors)
        _launch(name, blocks, (THREADS, 1), *arguments)

    def _prices(self, potential: Array) -> Prices:
        natural, high, rest = (self._empty(self._padded, dtype=dtype) for dtype in (np.float64, np.float32, np.float32))
        prices = Prices(natural, high, rest, self._empty(dtype=np.float32))
        given = self._taken(potential), np.float64(self._epsilon), self._columns, self._padded
        _launch("prices", self._problems, (THREADS, 1), *given, *prices)
        return prices

    def _sweep(self, team: Team, prices: Prices, shift: Array, total: Array, partial: Array) -> None:
        """Fill in the shifts and sums of tame rows, and the columns' sums over the first blocks of rows."""
        shape = self.rows, self._columns, self._padded, self._aligned, self._first, partial.shape[1]
        given = self._scores, self._largest, *prices[1:], *self._scale[:2], *shape, shift, total, partial
        name = f"sweep<{self._kind}, {', '.join(map(str, team))}>"
        _launch(name, self._problems * self._first, (max(THREADS, team.threads), 1), *given)

    def _row_sums(
        self, prices: Prices, shift: Array, total: Array, *, wild: bool = False, x: Array | None = None
    ) -> Array:
        """Fill in the rows' shifts and sums, with `wild` of those that are not tame; return W x if there is an x."""
        shape = self._problems, self.rows, self._columns, self._padded, self._aligned
        given = self._scores, self._largest, *prices, *self._scale, *shape, int(wild)
        product = total if x is None else self._empty(self.rows)
        weights = total if x is None else self._taken(x)
        name = f"row_sums<{self._kind}, {'false' if x is None else 'true'}>"
        self._over_rows(name, *given, weights, shift, total, product)
        return product

    def _normalized(self, prices: Prices, shift: Array, total: Array) -> tuple[Rows, Array]:
        """Return what is known of rows with these sums, which become weights, and the sums of the log-normalisers."""
        lse, partial = self._empty(self.rows), self._empty(self._for_sums)
        given = self._largest, prices.dearest, *self._scale, self.rows, self._for_sums
        blocks = self._problems * self._for_sums
        _launch(f"normalizers<{self._kind}>", blocks, (THREADS, 1), *given, shift, total, lse, partial)
        return Rows(shift, total, lse), partial

    def _rows_at(self, prices: Prices) -> Rows:
        shift, total = self._empty(self.rows), self._empty(self.rows)
        self._row_sums(prices, shift, total)
        return self._normalized(prices, shift, total)[0]

    def _column_sums(self, prices: Prices, rows: Rows, y: Array | None, first: int, partial: Array) -> None:
        """Put the columns' sums over blocks of rows behind the first of `partial`; of all rows if there are none."""
        shape = self.rows, self._columns, self._padded, self._aligned
        cut = int(first > 0), self._tiles, self._again, first, partial.shape[1]
        given = self._scores, self._largest, *prices, self._tallest, *self._scale, *shape, *cut
        kind = "Wide" if self._kind == "double" or y is not None else "Pair"
        name = f"column_sums<{self._kind}, {'false' if y is None else 'true'}, {kind}>"
        blocks = self._problems * self._again * self._tiles
        weights = rows.weight if y is None else self._taken(y)
        _launch(name, blocks, self._threads, *given, weights, rows.shift, rows.weight, partial)

    def _exact_columns(self, natural: Array, lse: Array, asked: Array, found: Array) -> None:
        """Make the logarithms of the masses anew, of columns that are asked for."""
        tiles, number = ceil(self._columns / 32), self._problems * self._columns
        room = RESIDENT * _attributes(self._device.id)["MultiProcessorCount"] // (self._problems * tiles)
        slabs = max(1, min(SLABS, ceil(self.rows / THREADS), room))
        logs = self._empty(slabs, self._columns)
        shape = self.rows, self._columns, self._padded, tiles, slabs
        given = self._scores, self._largest, natural, lse, self._scale[2], *shape, asked, logs
        _launch(f"exact_columns<{self._kind}>", self._problems * tiles * slabs, (THREADS, 1), *given)
        _launch("exact_sums", ceil(number / THREADS), (THREADS, 1), logs, asked, number, self._columns, slabs, found)

    def __call__(self, potential: Array) -> Masses:
        return self.masses(potential, None)

    def masses(self, potential: Array, known: Array | None) -> Masses:
        """Pass over the data once; `known` as in :meth:`infoassign_backends.protocol.Backend.masses`."""
        with self._device:
            return self._masses(potential, known)

    def _masses(self, potential: Array, known: Array | None) -> Masses:
        prices = self._prices(potential)
        shift, total = self._empty(self.rows), self._empty(self.rows)
        parts = self._first + self._again
        partial = self._empty(parts, self._columns)
        if self._team is not None:
            self._sweep(self._team, prices, shift, total, partial)
        # These find out on the device that there is nothing left for them, where there is not.
        self._row_sums(prices, shift, total, wild=self._team is not None)
        rows, of_rows = self._normalized(prices, shift, total)
        self._column_sums(prices, rows, None, self._first, partial)
        log_columns, normalizers = self._empty(self._columns), self._empty()
        faint = self._empty(self._columns, dtype=np.uint8)
        tiles = ceil(self._columns / 32)
        cut = self._columns, tiles, self._first, parts, self._for_sums
        given = partial, of_rows, prices.dearest, self._tallest, *self._scale[:2], *cut
        faint_below = np.float64(self.rows * FAINT[self._kind == "double"])
        beside = partial if known is None else self._taken(known)
        written = log_columns, faint, normalizers
        blocks = self._problems * (tiles + 1)
        _launch("finish", blocks, (THREADS, 1), *given, faint_below, int(known is not None), beside, *written)
        self._exact_columns(prices.natural, rows.lse, faint, log_columns)
        return Masses(self._shown(log_columns), self._shown(normalizers), self.rows)

    def iter_plan(self, potential: Array) -> Iterator[Array]:
        with self._device:
            prices = self._prices(potential)
            rows = self._rows_at(prices)
            plan = self._empty(self.rows, self._columns, dtype=self.plan_dtype)
            shape = self._problems, self.rows, self._columns, self._padded, self._aligned
            given = self._scores, self._largest, *prices, *self._scale, *shape, rows.shift, rows.weight, plan
            self._over_rows(f"plan<{self._kind}>", *given)
        yield self._shown(plan)

    def labels(self, potential: Array) -> Array:
        with self._device:
            found = self._empty(self.rows, dtype=np.int64)
            shape = self._problems, self.rows, self._columns, self._aligned
            given = self._scores, self._largest, self._taken(potential)
            self._over_rows(f"labels<{self._kind}>", *given, *shape, found)
        return self._shown(found)

    def apply(self, potential: Array, x: Array) -> Array:
        with self._device:
            shift, total = self._empty(self.rows), self._empty(self.rows)
            found = self._row_sums(self._prices(potential), shift, total, x=x)
        return self._shown(found)

    def apply_transpose(self, potential: Array, y: Array) -> Array:
        with self._device:
            prices = self._prices(potential)
            partial = self._empty(self._again, self._columns)
            self._column_sums(prices, self._rows_at(prices), y, 0, partial)
            return self._shown(api.array_namespace(y).sum(partial, axis=1))

    def log_column_sums(self) -> Array:
        xp = api.array_namespace(self._largest)
        with self._device:
            # As if the rows' largest scores, which exponents leave out, were what normalises them.
            lse = xp.astype(self._largest, xp.float64) * -self._scale[2]
            price = self._empty(self._padded)
            price[...] = 0.0
            asked = self._empty(self._columns, dtype=np.uint8)
            asked[...] = 1
            found = self._empty(self._columns)
            self._exact_columns(price, lse, asked, found)
        return self._shown(found)

    def sum_rows(self, values: Array) -> Array:
        return api.array_namespace(values).sum(values, axis=-1)

    def bound_rows(self, values: Array) -> Array:
        return api.array_namespace(values).max(values, axis=-1)


@cache
def _told(reason: str) -> None:
    LOG.warning("CuPy arrays are passed over in the array-API standard, which is slower: %s", reason)


def _served(scores: Array) -> bool:
    """Return whether there are kernels for scores; if not, it is said once why."""
    reason = None
    if cupy.cuda.runtime.is_hip:
        reason = "the kernels are for CUDA, and this CuPy is for ROCm"
    elif str(scores.dtype) not in KINDS:
        reason = f"the kernels are for {', '.join(KINDS)}, not for {scores.dtype}"
    if reason is not None:
        _told(reason)
    return reason is None


def prepare(scores: Array, epsilon: float) -> Sweep:
    """Prepare CuPy scores; see :class:`infoassign_backends.protocol.Backend`."""
    return CupySweep(scores, epsilon) if _served(scores) else reference.prepare(scores, epsilon)


def masses(scores: Array, potential: Array, epsilon: float, offset: float, known: Array) -> Masses:
    """Pass once over CuPy scores; see :class:`infoassign_backends.protocol.Backend`."""
    if not _served(scores):
        return reference.masses(scores, potential, epsilon, offset, known)
    sweep = CupySweep(scores, epsilon)
    found = sweep.masses(potential, known)
    return found._replace(log_normalizers=found.log_normalizers + (sweep.offset - offset) * (sweep.rows / epsilon))


def plan(scores: Array, potential: Array, epsilon: float) -> Array:
    """Return the plan of CuPy scores; see :class:`infoassign_backends.protocol.Backend`."""
    return next(prepare(scores, epsilon).iter_plan(potential))
