"""The pass over rows that are not kept, compiled by numba: exponents, exponentials and both sums row by row.

The exponents are made in float64 from scores in any precision. For scores in float64 the exponentials are, too;
for others they are polynomials in float32, as good as a plan in float32 can show them, and half the work. Written so
that LLVM makes vectors of it: the row's maximum by a select that may be reordered, the power of two added to the bits.
"""

from functools import cache
from importlib.util import find_spec
from math import factorial, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infoassign_backends.host import Float, Sums, numpy_sums

AHEAD = 256
"""Entries of a row that are worked on while as many of the next row are fetched."""
UNDERFLOW = {32: 125, 64: 1000}
"""The powers of two below a row's largest entry that are no longer told from 0, by the bits of the exponential."""
DIGITS = {32: 24, 64: 53}
"""The bits of its mantissa."""


@cache
def available() -> bool:
    """Return whether numba is installed."""
    return find_spec("numba") is not None


def underflow(dtype: Any) -> float:
    """Return a mass, by the row, from which on what underflowed in it does not matter."""
    bits = _bits(dtype)
    return float(2.0 ** (DIGITS[bits] - UNDERFLOW[bits]))


def _bits(dtype: Any) -> int:
    return 64 if dtype == np.float64 else 32


@cache
def compile_for(dtype: np.dtype[Any], writeable: bool) -> None:
    """Compile the pass for arrays of a kind, which numba does at the first call."""
    one = np.zeros((1, 1), dtype)
    one.flags.writeable = writeable
    sums(one, np.zeros(1), 1.0, 0.0)


def sums(scores: NDArray[Any], price: Float, epsilon: float, offset: float) -> Sums:
    """Return the sums over some rows, as :func:`infoassign_backends.host.numpy_sums` does."""
    rows = np.ascontiguousarray(scores)
    if rows.dtype == np.float16:  # which numba does not know
        rows = rows.view(np.uint16)
    mass, lse = np.zeros(scores.shape[1]), np.empty(scores.shape[0])
    # Exponents are counted in powers of two.
    unit = log(2)
    passed = _row_by_row(_bits(scores.dtype), rows.dtype == np.uint16)
    passed(rows, offset, 1 / (epsilon * unit), price / unit, mass, lse)
    lse *= unit
    if not np.isfinite(lse).all() or not np.isfinite(mass).all():
        return numpy_sums(scores, price, epsilon, offset)  # which shifts every row by itself, and shows a NaN
    return mass, lse


@cache
def _row_by_row(bits: int, half: bool) -> Any:
    """Compile the pass for scores whose exponentials have so many bits; half precision comes as its bits."""
    import llvmlite.ir as ir
    import numba
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    real, integer = (np.float64, np.int64) if bits == 64 else (np.float32, np.int32)
    real_type, integer_type = (types.float64, types.int64) if bits == 64 else (types.float32, types.int32)

    def cast(to: Any, origin: Any) -> Any:
        """Make a function that reads the bits of a number as another type."""

        @intrinsic
        def bits_as(typing: Any, x: Any) -> Any:
            return to(origin), lambda context, builder, _, args: builder.bitcast(args[0], context.get_value_type(to))

        return bits_as

    @intrinsic
    def larger(typing: Any, a: Any, b: Any) -> Any:
        """The larger of two numbers that are no NaN; unlike max() it can become a vector's."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            greater = builder.fcmp_ordered(">", args[0], args[1], flags=("fast",))
            return builder.select(greater, args[0], args[1], flags=("fast",))

        return types.float64(types.float64, types.float64), generate

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

    bits_of_real, real_of_bits = cast(integer_type, real_type), cast(real_type, integer_type)
    bits_of_single = cast(types.int32, types.float32)
    bits_of_double, single_of_bits = cast(types.int64, types.float64), cast(types.float32, types.int32)
    mantissa = 52 if bits == 64 else 23
    c = tuple(real(log(2) ** i / factorial(i)) for i in range(13))
    magic = 1.5 * 2.0**52  # adding it rounds to an integer, which then stands in the lowest bits
    lowest = -UNDERFLOW[bits]
    reorder = {"contract", "nsz", "arcp", "reassoc", "nnan"}

    if half:

        @numba.njit(fastmath={"contract"})
        def value(x: Any) -> Any:
            word = np.int32(x)
            shifted = np.int32(np.int32(word & np.int32(0x7FFF)) << np.int32(13))
            scaled = bits_of_single(single_of_bits(shifted) * np.float32(2.0**112))
            infinite = np.int32(0x7F800000) if shifted >= np.int32(0x7C00 << 13) else np.int32(0)
            sign = np.int32(np.int32(word & np.int32(0x8000)) << np.int32(16))
            return single_of_bits(np.int32(np.int32(scaled | infinite) | sign))

    else:

        @numba.njit(fastmath={"contract"})
        def value(x: Any) -> Any:
            return x

    if bits == 64:

        @numba.njit(fastmath={"contract"})
        def polynomial(r: Any) -> Any:
            high = ((((c[12] * r + c[11]) * r + c[10]) * r + c[9]) * r + c[8]) * r + c[7]
            return ((((((high * r + c[6]) * r + c[5]) * r + c[4]) * r + c[3]) * r + c[2]) * r + c[1]) * r + c[0]

    else:

        @numba.njit(fastmath={"contract"})
        def polynomial(r: Any) -> Any:
            high = ((c[7] * r + c[6]) * r + c[5]) * r + c[4]
            return (((high * r + c[3]) * r + c[2]) * r + c[1]) * r + c[0]

    @numba.njit(fastmath={"contract"})
    def power_of_two(y: Any) -> Any:
        y = max(y, lowest)
        shifted = y + magic
        p = polynomial(real(y - (shifted - magic)))
        return real_of_bits(bits_of_real(p) + (integer(bits_of_double(shifted)) << integer(mantissa)))

    @numba.njit(fastmath=reorder, error_model="numpy")
    def exponents(scores: Any, offset: Any, scale: Any, price: Any, x: Any) -> Any:
        highest = -1e300
        for j in range(len(price)):
            x[j] = (np.float64(value(scores[j])) - offset) * scale - price[j]
            highest = larger(x[j], highest)
        return highest

    @numba.njit(fastmath=reorder, error_model="numpy")
    def exponentials(x: Any, highest: Any, e: Any) -> Any:
        total = 0.0
        for j in range(len(x)):
            e[j] = power_of_two(x[j] - highest)
            total += np.float64(e[j])
        return total

    @numba.njit(fastmath=reorder, error_model="numpy")
    def add(e: Any, weight: Any, mass: Any) -> None:
        for j in range(len(mass)):
            mass[j] += e[j] * weight

    @numba.njit(nogil=True, error_model="numpy")
    def row_by_row(scores: Any, offset: Any, scale: Any, price: Any, mass: Any, lse: Any) -> None:
        rows, columns = scores.shape
        line = 64 // scores.itemsize
        x, e = np.empty(columns), np.empty(columns, real)
        for i in range(rows):
            highest = exponents(scores[i], offset, scale, price, x)
            total = 0.0
            for start in range(0, columns, AHEAD):
                stop = min(start + AHEAD, columns)
                if i + 1 < rows:
                    for j in range(start, stop, line):
                        fetch(scores, i + 1, j)
                total += exponentials(x[start:stop], highest, e[start:stop])
            add(e, 1 / total, mass)
            lse[i] = highest + np.log2(total)

    return row_by_row
