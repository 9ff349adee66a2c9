"""The passes over rows that a kernel is made and used in, compiled by numba.

:mod:`infoassign_backends.blocked` says what they do. Rows are worked on eight at a time, which stay in the cache
between the sums over their entries and those over columns, and meanwhile the next eight are fetched. Sums are in
float64, always.

Exponents ``t = (s - v) / epsilon`` are counted in powers of two. For scores of at most single precision whose exponents
are not huge they are made in single precision and yet are good to 2^-26: the whole part n of ``y = s c - q`` is found
first, and what is left, ``s c - (q + n)``, is a fused multiply-add whose addend is exactly a single number, since row
shifts are integers and prices are split into a multiple of 2^-10 and a small rest. In all other rows they are made in
double precision.

All is in one file, since numba's cache sees changes of the file of a pass only.
"""

from functools import cache
from math import factorial, log
from typing import Any

import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from infoassign_backends.blocked import Float, Rows

AHEAD = 256
"""Entries of a row that are worked on while as many of later rows are fetched."""
TOGETHER = 8
"""Rows that are worked on together."""
LARGEST = 4000.0
"""Exponents up to here are made in single precision."""
LEAST_SCALE, LARGEST_SCALE = 2.0**-100, 2.0**120
"""Scales from and up to which single precision has them, as the sum of two numbers."""
REORDER = {"contract", "nsz", "arcp", "reassoc"}
UNIT = log(2)

POWERS = tuple(UNIT**i / factorial(i) for i in range(13))
"""The coefficients of 2^r, of which seven are enough in single precision for r in [-1/2, 1/2], and all in double."""
C0, C1, C2, C3, C4, C5, C6, C7 = (np.float32(c) for c in POWERS[:8])
D0, D1, D2, D3, D4, D5, D6, D7, D8, D9, D10, D11, D12 = POWERS
ROUND32, ROUND64 = np.float32(1.5 * 2.0**23), 1.5 * 2.0**52
"""Adding these rounds to an integer, which then stands in the lowest bits."""
ABSOLUTE32, NAN32 = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
ABSOLUTE64, NAN64 = np.int64(0x7FFFFFFFFFFFFFFF), np.int64(0x7FF0000000000000)
"""The bits of a number without its sign, and what they are above in a NaN."""


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a b + c``, rounded once."""
    return a(a, a, a), lambda context, builder, signature, args: builder.fma(*args)


@intrinsic
def bits_of(typing: Any, x: Any) -> Any:
    """The bits of a number, as an integer."""
    to = types.int32 if x == types.float32 else types.int64
    return to(x), lambda context, builder, _, args: builder.bitcast(args[0], context.get_value_type(to))


@intrinsic
def of_bits(typing: Any, x: Any) -> Any:
    """The number that an integer is the bits of."""
    to = types.float32 if x == types.int32 else types.float64
    return to(x), lambda context, builder, _, args: builder.bitcast(args[0], context.get_value_type(to))


def _choice(comparison: str) -> Any:
    @intrinsic
    def choose(typing: Any, a: Any, b: Any) -> Any:
        """One of two numbers that are no NaN; unlike max() and min() it can become a vector's."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            first = builder.fcmp_ordered(comparison, args[0], args[1], flags=("nnan", "nsz"))
            return builder.select(first, args[0], args[1], flags=("nnan", "nsz"))

        return a(a, a), generate

    return choose


larger, smaller = _choice(">"), _choice("<")


@intrinsic
def fetch(typing: Any, matrix: Any, row: Any, column: Any) -> Any:
    """Have an entry brought into the cache."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        entry = cgutils.get_item_pointer(context, builder, signature.args[0], array, args[1:])
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [builder.bitcast(entry, pointer), number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(matrix, types.intp, types.intp), generate


def value(x: Any) -> Any:
    """A score as a number: half precision, which numba does not know, comes as its bits."""


@overload(value)
def _value(x: Any) -> Any:
    def of_half(x: Any) -> Any:
        word = np.int32(x)
        shifted = np.int32(np.int32(word & np.int32(0x7FFF)) << np.int32(13))
        scaled = bits_of(of_bits(shifted) * np.float32(2.0**112))
        infinite = NAN32 if shifted >= np.int32(0x7C00 << 13) else np.int32(0)
        sign = np.int32(np.int32(word & np.int32(0x8000)) << np.int32(16))
        return of_bits(np.int32(np.int32(scaled | infinite) | sign))

    def of_number(x: Any) -> Any:
        return x

    return of_half if x == types.uint16 else of_number


def is_nan(magnitude: Any) -> Any:
    """Whether the bits of a number without its sign are those of a NaN."""


@overload(is_nan)
def _is_nan(magnitude: Any) -> Any:
    def of_single(magnitude: Any) -> Any:
        return magnitude > NAN32

    def of_double(magnitude: Any) -> Any:
        return magnitude > NAN64

    return of_single if magnitude == types.int32 else of_double


def magnitude(x: Any) -> Any:
    """The bits of a number without its sign, which are ordered as the numbers are."""


@overload(magnitude)
def _magnitude(x: Any) -> Any:
    def of_single(x: Any) -> Any:
        return np.int32(bits_of(x) & ABSOLUTE32)

    def of_double(x: Any) -> Any:
        return bits_of(x) & ABSOLUTE64

    return of_single if x == types.float32 else of_double


def power_of_two(y: Any, like: Any) -> Any:
    """``2^y`` for y <= 1 in double precision, in the precision of the second; 0 where it would vanish."""


@overload(power_of_two)
def _power_of_two(y: Any, like: Any) -> Any:
    def in_single(y: Any, like: Any) -> Any:
        shifted = max(y, -126.0) + ROUND64
        p = in_powers(np.float32(max(y, -126.0) - (shifted - ROUND64)))
        found = of_bits(np.int32(bits_of(p) + (np.int32(bits_of(shifted)) << np.int32(23))))
        return np.float32(0) if y < -125.0 else found

    def in_double(y: Any, like: Any) -> Any:
        shifted = max(y, -1001.0) + ROUND64
        r = max(y, -1001.0) - (shifted - ROUND64)
        high = ((((D12 * r + D11) * r + D10) * r + D9) * r + D8) * r + D7
        p = ((((((high * r + D6) * r + D5) * r + D4) * r + D3) * r + D2) * r + D1) * r + D0
        found = of_bits(bits_of(p) + (bits_of(shifted) << np.int64(52)))
        return 0.0 if y < -1000.0 else found

    return in_single if like == types.float32 else in_double


@numba.njit(fastmath={"contract"})
def in_powers(r: Any) -> Any:
    """``2^r`` for r in [-1/2, 1/2], in single precision."""
    p = fma(fma(fma(C7, r, C6), r, C5), r, C4)
    return fma(fma(fma(fma(p, r, C3), r, C2), r, C1), r, C0)


@numba.njit(fastmath=REORDER, error_model="numpy")
def extremes(scores: Any) -> Any:
    """The largest and the least score of a row, and whether one of them is a NaN."""
    most = least = value(scores[0])
    top = magnitude(most)
    for j in range(len(scores)):
        x = value(scores[j])
        most, least = larger(x, most), smaller(x, least)
        top = max(top, magnitude(x))
    return most, least, is_nan(top)


@numba.njit(fastmath=REORDER, error_model="numpy")
def exponents(scores: Any, origin: Any, scale: Any, price: Any, y: Any) -> Any:
    """Put the exponents of a row into y, and return the largest."""
    highest = -np.inf
    for j in range(len(y)):
        y[j] = (np.float64(value(scores[j])) - origin) * scale - price[j]
        highest = larger(y[j], highest)
    return highest


@numba.njit(fastmath={"contract"}, error_model="numpy")
def exponentials(y: Any, shift: Any, e: Any) -> None:
    """Put ``2^(y - shift)`` into e."""
    for j in range(len(e)):
        e[j] = power_of_two(y[j] - shift, e[j])


@numba.njit(fastmath=REORDER, error_model="numpy")
def highest_exponent(scores: Any, scale: Any, price: Any) -> Any:
    """About the largest exponent of a row, in single precision."""
    highest = np.float32(-np.inf)
    for j in range(len(price)):
        highest = larger(value(scores[j]) * scale - price[j], highest)
    return highest


@numba.njit(fastmath={"contract"}, error_model="numpy")
def exponentials_in_single(scores: Any, scale: Any, scale_rest: Any, price: Any, rest: Any, shift: Any, e: Any) -> None:
    """Put ``2^(s scale - price - shift)`` into e; see the head of this file."""
    for j in range(len(e)):
        x = value(scores[j])
        q = price[j] + shift
        y = fma(x, scale, -q)
        shifted = y + ROUND32
        r = fma(x, scale_rest, fma(x, scale, -(q + (shifted - ROUND32)))) - rest[j]
        found = of_bits(np.int32(bits_of(in_powers(r)) + (np.int32(bits_of(shifted)) << np.int32(23))))
        e[j] = np.float32(0) if y < np.float32(-125) else found


@numba.njit(fastmath=REORDER, error_model="numpy")
def dot8(e: Any, start: Any, x: Any) -> Any:
    """The products of eight rows' entries from a column on with a vector."""
    e0, e1, e2, e3 = e[0, start:], e[1, start:], e[2, start:], e[3, start:]
    e4, e5, e6, e7 = e[4, start:], e[5, start:], e[6, start:], e[7, start:]
    r0 = r1 = r2 = r3 = r4 = r5 = r6 = r7 = 0.0
    for j in range(len(x)):
        r0 += np.float64(e0[j]) * x[j]
        r1 += np.float64(e1[j]) * x[j]
        r2 += np.float64(e2[j]) * x[j]
        r3 += np.float64(e3[j]) * x[j]
        r4 += np.float64(e4[j]) * x[j]
        r5 += np.float64(e5[j]) * x[j]
        r6 += np.float64(e6[j]) * x[j]
        r7 += np.float64(e7[j]) * x[j]
    return r0, r1, r2, r3, r4, r5, r6, r7


@numba.njit(fastmath=REORDER, error_model="numpy")
def dot(e: Any, x: Any) -> Any:
    """The product of a row with a vector."""
    total = 0.0
    for j in range(len(x)):
        total += np.float64(e[j]) * x[j]
    return total


@numba.njit(fastmath=REORDER, error_model="numpy")
def add8(e: Any, w: Any, start: Any, mass: Any) -> None:
    """Add eight rows' entries from a column on, times their weights, to the masses of the columns."""
    e0, e1, e2, e3 = e[0, start:], e[1, start:], e[2, start:], e[3, start:]
    e4, e5, e6, e7 = e[4, start:], e[5, start:], e[6, start:], e[7, start:]
    w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    for j in range(len(mass)):
        low = (np.float64(e0[j]) * w0 + np.float64(e1[j]) * w1) + (np.float64(e2[j]) * w2 + np.float64(e3[j]) * w3)
        high = (np.float64(e4[j]) * w4 + np.float64(e5[j]) * w5) + (np.float64(e6[j]) * w6 + np.float64(e7[j]) * w7)
        mass[j] += low + high


@numba.njit(fastmath=REORDER, error_model="numpy")
def add(e: Any, w: Any, mass: Any) -> None:
    """Add a row's entries, times its weight, to the masses of the columns."""
    for j in range(len(mass)):
        mass[j] += np.float64(e[j]) * w


@numba.njit(error_model="numpy")
def fetch_rows(matrix: Any, start: Any, stop: Any) -> None:
    """Have some columns of rows brought into the cache."""
    for row in range(len(matrix)):
        for j in range(start, stop, 64 // matrix.itemsize):
            fetch(matrix, row, j)


@numba.njit(error_model="numpy")
def products(kernel: Any, x: Any, out: Any, later: Any) -> None:
    """Put the products of at most eight rows with a vector into out, and fetch later rows meanwhile."""
    out[:] = 0
    for start in range(0, len(x), AHEAD):
        stop = min(start + AHEAD, len(x))
        fetch_rows(later, start, stop)
        if len(out) == TOGETHER:
            r0, r1, r2, r3, r4, r5, r6, r7 = dot8(kernel, start, x[start:stop])
            out[0] += r0
            out[1] += r1
            out[2] += r2
            out[3] += r3
            out[4] += r4
            out[5] += r5
            out[6] += r6
            out[7] += r7
        else:
            for i in range(len(out)):
                out[i] += dot(kernel[i, start:stop], x[start:stop])


@numba.njit(error_model="numpy")
def add_rows(kernel: Any, weights: Any, mass: Any, later: Any) -> None:
    """Add at most eight rows, times their weights, to the masses of the columns, and fetch later rows meanwhile."""
    for start in range(0, len(mass), AHEAD):
        stop = min(start + AHEAD, len(mass))
        fetch_rows(later, start, stop)
        if len(weights) == TOGETHER:
            add8(kernel, weights, start, mass[start:stop])
        else:
            for i in range(len(weights)):
                add(kernel[i, start:stop], weights[i], mass[start:stop])


def _fill(
    scores: Any,
    scale: Any,
    price: Any,
    start: Any,
    kernel: Any,
    most: Any,
    least: Any,
    shift: Any,
    sums: Any,
    mass: Any,
) -> None:
    """Make a kernel, or where it has but eight rows those one after another, and make the first sweep over it."""
    problems, rows, columns = scores.shape
    kept = kernel.shape[1] == rows
    y, weights = np.empty(columns), np.empty(TOGETHER)
    single = scores.itemsize < 8 and LEAST_SCALE < scale < LARGEST_SCALE
    scale_high = np.float32(scale)
    scale_rest = np.float32(scale - np.float64(scale_high))
    high, rest = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for p in range(problems):
        dearest = 0.0
        for j in range(columns):
            split = np.rint(price[p, j] * 1024) / 1024
            high[j], rest[j] = split, price[p, j] - split
            dearest = max(dearest, abs(price[p, j]))
        for first in range(0, rows, TOGETHER):
            last = min(first + TOGETHER, rows)
            there = kernel[p, first:last] if kept else kernel[p, : last - first]
            for i in range(first, last):
                e = there[i - first]
                most[p, i], least[p, i], bad = extremes(scores[p, i])
                largest = np.float64(most[p, i])
                if bad or not np.isfinite(largest):
                    most[p, i] = np.nan if bad else most[p, i]
                    shift[p, i] = np.nan
                    e[:] = np.nan
                elif single and abs(largest) * scale + dearest < LARGEST:
                    h = np.float32(largest * scale)
                    if dearest > 0:
                        h = highest_exponent(scores[p, i], scale_high, high)
                    h = np.rint(h)
                    exponentials_in_single(scores[p, i], scale_high, scale_rest, high, rest, h, e)
                    shift[p, i] = np.float64(h) - largest * scale
                else:
                    h = exponents(scores[p, i], largest, scale, price[p], y)
                    exponentials(y, h, e)
                    shift[p, i] = h
            half, end = min(last + TOGETHER // 2, rows), min(last + TOGETHER, rows)
            products(there, start[p], sums[p, first:last], scores[p, last:half])
            for i in range(first, last):
                weights[i - first] = 1 / sums[p, i]
            add_rows(there, weights[: last - first], mass[p], scores[p, half:end])


def _sweep(kernel: Any, scale: Any, sums: Any, mass: Any) -> None:
    """Make the rows' sums and the columns' masses."""
    problems, rows, _ = kernel.shape
    weights = np.empty(TOGETHER)
    for p in range(problems):
        for first in range(0, rows, TOGETHER):
            last = min(first + TOGETHER, rows)
            half, end = min(last + TOGETHER // 2, rows), min(last + TOGETHER, rows)
            products(kernel[p, first:last], scale[p], sums[p, first:last], kernel[p, last:half])
            for i in range(first, last):
                weights[i - first] = 1 / sums[p, i]
            add_rows(kernel[p, first:last], weights[: last - first], mass[p], kernel[p, half:end])


def _rows(kernel: Any, x: Any, out: Any) -> None:
    """Multiply with a vector from the right."""
    problems, rows, _ = kernel.shape
    for p in range(problems):
        for first in range(0, rows, TOGETHER):
            last = min(first + TOGETHER, rows)
            later = kernel[p, last : min(last + TOGETHER, rows)]
            products(kernel[p, first:last], x[p], out[p, first:last], later)


def _columns(kernel: Any, y: Any, out: Any) -> None:
    """Multiply with a vector from the left."""
    problems, rows, _ = kernel.shape
    for p in range(problems):
        for first in range(0, rows, TOGETHER):
            last = min(first + TOGETHER, rows)
            later = kernel[p, last : min(last + TOGETHER, rows)]
            add_rows(kernel[p, first:last], y[p, first:last], out[p], later)


def _normalize(kernel: Any, scale: Any, sums: Any) -> None:
    """Turn a kernel into a plan, where it is."""
    problems, rows, columns = kernel.shape
    for p in range(problems):
        for i in range(rows):
            weight, e = 1 / sums[p, i], kernel[p, i]
            for j in range(columns):
                e[j] = np.float64(e[j]) * (scale[p, j] * weight)


def _tops(scores: Any, scale: Any, price: Any, most: Any, shift: Any, out: Any) -> None:
    """Put the largest exponents of the columns, less their rows' shifts, into out."""
    problems, rows, _ = scores.shape
    for p in range(problems):
        for i in range(rows):
            raise_tops(scores[p, i], most[p, i], scale, price[p], shift[p, i], out[p])


@numba.njit(fastmath=REORDER, error_model="numpy")
def raise_tops(scores: Any, origin: Any, scale: Any, price: Any, shift: Any, out: Any) -> None:
    """The same for one row."""
    for j in range(len(out)):
        out[j] = larger((np.float64(value(scores[j])) - origin) * scale - price[j] - shift, out[j])


NUMBER, VECTORS = types.float64, types.float64[:, ::1]
ARGUMENTS: dict[Any, tuple[Any, ...]] = {
    _fill: ("read", NUMBER, VECTORS, VECTORS, "written", VECTORS, VECTORS, VECTORS, VECTORS, VECTORS),
    _tops: ("read", NUMBER, VECTORS, VECTORS, VECTORS, VECTORS),
    _sweep: ("read", VECTORS, VECTORS, VECTORS),
    _rows: ("read", VECTORS, VECTORS),
    _columns: ("read", VECTORS, VECTORS),
    _normalize: ("written", VECTORS, VECTORS),
}
"""Those of every pass; matrices are read or written."""


@cache
def compiled(function: Any, *dtypes: np.dtype[Any]) -> Any:
    """Compile a pass for matrices of some dtypes, or load it from numba's cache where that can be written."""
    matrices = iter(dtypes)

    def kind(of: Any) -> Any:
        if of not in ("read", "written"):
            return of
        # Declared read-only, also arrays that are not will do.
        return types.Array(numba.from_dtype(next(matrices)), 3, "C", readonly=of == "read")

    signature = types.void(*map(kind, ARGUMENTS[function]))
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(signature, cache=True, **options)(function)
    except RuntimeError:  # no folder to write to
        return numba.njit(signature, **options)(function)


def _contiguous(scores: NDArray[Any]) -> NDArray[Any]:
    rows = np.ascontiguousarray(scores)
    return rows.view(np.uint16) if rows.dtype == np.float16 else rows


def fill(
    scores: NDArray[Any], price: Float, epsilon: float, log_start: Float, kernel: NDArray[Any] | None, rows: Rows
) -> Float:
    """See :func:`infoassign_backends.blocked.fill`."""
    given, mass = _contiguous(scores), np.zeros_like(price)
    if kernel is None:
        dtype = np.float64 if given.dtype == np.float64 else np.float32
        kernel = np.empty((len(given), TOGETHER, given.shape[2]), dtype)
    run = compiled(_fill, given.dtype, kernel.dtype)
    run(given, 1 / (epsilon * UNIT), (price + log_start) / UNIT, np.exp(log_start), kernel, *rows, mass)
    rows.shift[...] *= UNIT
    return mass


def tops(scores: NDArray[Any], price: Float, epsilon: float, rows: Rows) -> Float:
    """See :func:`infoassign_backends.blocked.tops`."""
    given, out = _contiguous(scores), np.full_like(price, -np.inf)
    compiled(_tops, given.dtype)(given, 1 / epsilon, price, rows.largest, rows.shift, out)
    return out


def sweep(kernel: NDArray[Any], scale: Float, sums: Float) -> Float:
    """See :func:`infoassign_backends.blocked.sweep`."""
    mass = np.zeros_like(scale)
    compiled(_sweep, kernel.dtype)(kernel, scale, sums, mass)
    return mass


def times_columns(kernel: NDArray[Any], x: Float) -> Float:
    """See :func:`infoassign_backends.blocked.times_columns`."""
    out = np.empty(kernel.shape[:2])
    compiled(_rows, kernel.dtype)(kernel, x, out)
    return out


def times_rows(kernel: NDArray[Any], y: Float) -> Float:
    """See :func:`infoassign_backends.blocked.times_rows`."""
    out = np.zeros((len(kernel), kernel.shape[2]))
    compiled(_columns, kernel.dtype)(kernel, y, out)
    return out


def normalize(kernel: NDArray[Any], scale: Float, sums: Float) -> None:
    """See :func:`infoassign_backends.blocked.normalize`."""
    compiled(_normalize, kernel.dtype)(kernel, scale, sums)
