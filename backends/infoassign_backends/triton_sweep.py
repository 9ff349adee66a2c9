"""The passes over a matrix of scores on CUDA: straight from the logits, with nothing of their size made or kept.

A program takes some rows at a time, whole, so that one reading of the scores gives the rows' normalisers and the
columns' masses. Every program adds up the masses of its rows in registers and writes them once, which a second kernel
adds up in double precision: no atomics, and the same bits every time.

Exponents are powers of two, ``y_ij = s_ij c - p_j`` with ``c = log2(e) / epsilon`` and prices ``p = v c``. In single
precision they would be off by a unit of themselves. So ``c`` is split into a high and a low part and prices into a
whole and a rest, and of every entry the whole power k is taken off first:

    y - k = fma(s, c_high, -(whole + k)) + fma(s, c_low, -rest).

The first addend is a whole number below 2^24, exactly a single, so the left is off by one rounding of a number of at
most 2, whatever y is: 2^k is an exponent's bits, and entries are as good as ex2.approx, 2^-22. That holds where
:data:`REACH` bounds ``|s c|`` and ``|p|``. Beyond it, and for scores in double precision, the same passes are made in
double precision (``WIDE``). Which of the two it is, is known on the device only: both are launched, and one returns.

Natural logarithms and exponentials are those of the interface; everything in between is in powers of two.
"""

import triton
import triton.language as tl

REACH = tl.constexpr(2.0**20)
"""Powers of two up to which single precision's exponents are split exactly."""
MAGIC = tl.constexpr(12582912.0)
"""1.5 2^23: what is added to it is rounded to a whole number, in its lowest bits."""
BITS = tl.constexpr(0x4B400000)
"""The bits of :data:`MAGIC`."""
FAINT = tl.constexpr(2.0**-100)
"""Mass a row below which a column's entries may have underflown."""
NOTHING = tl.constexpr(-125.0)
"""Powers of two, of a row's largest entry, below which an entry is 0."""
LN2 = tl.constexpr(0.6931471805599453)
kernel = triton.jit(do_not_specialize=["rows", "batch_stride", "base_stride", "programs", "slabs"])
"""So that a batch of another size, such as the last of an epoch, does not wait for a compiler."""


@triton.jit
def _prices(potential, column, inside, c, WIDE: tl.constexpr):
    """Return a price's whole part and its rest, or twice the price if it is in double precision; and the largest."""
    price = tl.load(potential + column, mask=inside, other=0.0) * c
    largest = tl.max(tl.abs(price), axis=0)
    if WIDE:
        high = price
        rest = price
    else:
        whole = tl.floor(price + 0.5)
        high = whole.to(tl.float32)
        rest = (price - whole).to(tl.float32)
    return high, rest, largest


@triton.jit
def _tile(
    scores,
    factors,
    bias,
    inverse,
    row,
    column,
    here,
    there,
    STRIDE: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return the scores of some rows and columns; what is not there counts as forbidden.

    With a depth they are products, ``inverse scores_i . factors_j + bias_j``, summed in single precision.
    """
    inside = here[:, None] & there[None, :]
    start = row.to(tl.int64)[:, None] * STRIDE
    if DEPTH == 0:
        s = tl.load(scores + start + column[None, :], mask=inside, other=-float("inf"))
    else:
        total = tl.zeros_like(inside).to(tl.float32)
        for begin in tl.range(0, DEPTH, STEP):
            unit = begin + tl.arange(0, STEP)
            known = unit < DEPTH
            one = tl.load(scores + start + unit[None, :], mask=here[:, None] & known[None, :], other=0.0)
            to = factors + column[None, :].to(tl.int64) * DEPTH + unit[:, None]
            other = tl.load(to, mask=known[:, None] & there[None, :], other=0.0)
            total = tl.dot(one, other, total, input_precision=PRECISION)
        added = tl.load(bias + column, mask=there, other=0.0)
        s = tl.where(inside, total * inverse + added[None, :], -float("inf"))
    if WIDE:
        s = s.to(tl.float64)
    else:
        s = s.to(tl.float32)
    return s


@triton.jit
def _powers(s, base, high, rest, c_high, c, WIDE: tl.constexpr):
    """Return ``s c - p``: in single precision nearly, in double precision of rows shifted by their base."""
    if WIDE:
        y = (s - base[:, None]) * c - high[None, :]
    else:
        y = tl.fma(s, c_high, -high[None, :]) - rest[None, :]
    return y


@triton.jit
def _raise(s, y, top, high, rest, c_high, c_low, WIDE: tl.constexpr):
    """Return ``2^(s c - p - top)``, for whole numbers `top`; in double precision `y` is all that is needed."""
    below = y - top[:, None]
    if WIDE:
        e = tl.exp2(below)
    else:
        rounded = tl.maximum(below, NOTHING) + MAGIC
        k = rounded - MAGIC
        rest_of_it = tl.fma(s, c_high, -(high[None, :] + (top[:, None] + k))) + tl.fma(s, c_low, -rest[None, :])
        scale = ((rounded.to(tl.int32, bitcast=True) - BITS + 127) << 23).to(tl.float32, bitcast=True)
        # In this order a NaN stays one.
        e = tl.where(below < NOTHING, 0.0, tl.exp2(rest_of_it) * scale)
    return e


@triton.jit
def _tops(y, WIDE: tl.constexpr):
    """Return a number near the largest of every row, whole in single precision."""
    top = tl.max(y, axis=1)
    if not WIDE:
        top = (top + MAGIC) - MAGIC
    return top


@kernel
def extents(
    scores,
    factors,
    bias,
    inverse,
    base,
    least,
    reach,
    rows,
    batch_stride,
    STRIDE: tl.constexpr,
    ALIGN: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write every row's largest and least score, and its largest finite one by size; +inf and NaN stay to be seen."""
    problem = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    kind: tl.constexpr = tl.float64 if WIDE else tl.float32
    largest = tl.full([ROWS], -float("inf"), kind)
    smallest = tl.full([ROWS], float("inf"), kind)
    size = tl.zeros([ROWS], kind)
    wrong = tl.zeros([ROWS], tl.int32)
    for start in tl.range(0, COLUMNS, TILE):
        column = start + tl.arange(0, TILE)
        here = row < rows
        there = column < COLUMNS
        s = _tile(
            scores + tl.multiple_of(problem * batch_stride, ALIGN),
            factors,
            bias,
            inverse,
            row,
            column,
            here,
            there,
            STRIDE,
            DEPTH,
            STEP,
            PRECISION,
            WIDE,
        )
        wrong = tl.maximum(wrong, tl.max((s != s).to(tl.int32), axis=1))
        largest = tl.maximum(largest, tl.max(s, axis=1))
        smallest = tl.minimum(smallest, tl.min(tl.where(here[:, None] & there[None, :], s, float("inf")), axis=1))
        size = tl.maximum(size, tl.max(tl.where(tl.abs(s) < float("inf"), tl.abs(s), 0.0), axis=1))
    out = problem * rows + row
    largest = tl.where(wrong > 0, float("nan"), largest)
    tl.store(base + out, largest.to(tl.float64), mask=row < rows)
    tl.store(least + out, smallest.to(tl.float64), mask=row < rows)
    tl.store(reach + out, size.to(tl.float64), mask=row < rows)


@kernel
def masses(
    scores,
    factors,
    bias,
    inverse,
    base,
    potential,
    constant,
    reach,
    norms,
    partial,
    totals,
    rows,
    batch_stride,
    base_stride,
    STRIDE: tl.constexpr,
    ALIGN: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    WIDE: tl.constexpr,
    ONLY: tl.constexpr,
):
    """Write the masses of the columns and the sum of the normalisers over the rows of a program; rows' normalisers.

    The normaliser of a row is ``log2 sum_j 2^(s_ij c - p_j)`` less ``base_i c``.
    """
    problem = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, TILE)
    there = column < COLUMNS
    c = tl.load(constant)
    c_high = c.to(tl.float32)
    c_low = (c - c_high.to(tl.float64)).to(tl.float32)
    high, rest, dearest = _prices(potential + problem * COLUMNS, column, there, c, WIDE)
    wide = (tl.load(reach + problem) * c > REACH) | (dearest > REACH)
    if ONLY | (wide == WIDE):
        kind: tl.constexpr = tl.float64 if WIDE else tl.float32
        total = tl.zeros([TILE], kind)
        lost = tl.zeros([TILE], kind)  # by rounding, of the total (theory, "Rounding"; Kahan's sum)
        normalizers = tl.zeros([ROWS], tl.float64)
        for start in tl.range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS, num_stages=STAGES):
            row = start + tl.arange(0, ROWS)
            here = row < rows
            s = _tile(
                scores + tl.multiple_of(problem * batch_stride, ALIGN),
                factors,
                bias,
                inverse,
                row,
                column,
                here,
                there,
                STRIDE,
                DEPTH,
                STEP,
                PRECISION,
                WIDE,
            )
            shift = tl.load(base + (problem * rows + row) * base_stride, mask=here, other=0.0)
            y = _powers(s, shift, high, rest, c_high, c, WIDE)
            top = tl.where(here, _tops(y, WIDE), 0.0)
            e = _raise(s, y, top, high, rest, c_high, c_low, WIDE)
            weight = tl.where(here, tl.sum(e, axis=1), 1.0)
            norm = top.to(tl.float64) + tl.log2(weight.to(tl.float64))
            if not WIDE:
                norm -= shift * c
            tl.store(norms + problem * rows + row, norm, mask=here)
            normalizers += tl.where(here, norm, 0.0)
            added = tl.sum(e / weight[:, None], axis=0) - lost
            following = total + added
            lost = (following - total) - added
            total = following
        out = problem * tl.num_programs(0) + tl.program_id(0)
        tl.store(partial + out * COLUMNS + column, total.to(tl.float64) - lost.to(tl.float64), mask=there)
        tl.store(totals + out, tl.sum(normalizers, axis=0))


@kernel
def collect(partial, mass, programs, COLUMNS: tl.constexpr, PROGRAMS: tl.constexpr, TILE: tl.constexpr):
    """Add up what the programs wrote, in double precision."""
    problem = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * TILE + tl.arange(0, TILE)
    total = tl.zeros([TILE], tl.float64)
    for start in tl.range(0, programs, PROGRAMS):
        program = start + tl.arange(0, PROGRAMS)
        inside = (program < programs)[:, None] & (column < COLUMNS)[None, :]
        where = (problem * programs + program)[:, None] * COLUMNS + column[None, :]
        total += tl.sum(tl.load(partial + where, mask=inside, other=0.0), axis=0)
    tl.store(mass + problem * COLUMNS + column, total, mask=column < COLUMNS)


@kernel
def faint(
    scores,
    factors,
    bias,
    inverse,
    base,
    potential,
    constant,
    norms,
    mass,
    logs,
    rows,
    batch_stride,
    base_stride,
    STRIDE: tl.constexpr,
    ALIGN: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write the logarithm of the mass of columns with next to none, over the rows of a program; others return.

    Their entries underflow one by one, so the largest is taken out; rarely needed, hence in double precision.
    """
    problem = tl.program_id(2).to(tl.int64)
    column = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = column < COLUMNS
    known = tl.load(mass + problem * COLUMNS + column, mask=there, other=float("inf"))
    poor = (known < rows * FAINT).to(tl.int32)
    if tl.max(poor, axis=0) > 0:
        c = tl.load(constant)
        price = tl.load(potential + problem * COLUMNS + column, mask=there, other=0.0) * c
        highest = tl.full([TILE], -float("inf"), tl.float64)
        total = tl.zeros([TILE], tl.float64)
        for start in tl.range(tl.program_id(1) * ROWS, rows, tl.num_programs(1) * ROWS):
            row = start + tl.arange(0, ROWS)
            here = row < rows
            s = _tile(
                scores + tl.multiple_of(problem * batch_stride, ALIGN),
                factors,
                bias,
                inverse,
                row,
                column,
                here,
                there,
                STRIDE,
                DEPTH,
                STEP,
                PRECISION,
                True,
            )
            shift = tl.load(base + (problem * rows + row) * base_stride, mask=here, other=0.0)
            norm = tl.load(norms + problem * rows + row, mask=here, other=0.0)
            x = ((s - shift[:, None]) * c - price[None, :]) - norm[:, None]
            following = tl.maximum(highest, tl.max(x, axis=0))
            top = tl.where(following == -float("inf"), 0.0, following)
            total = total * tl.exp2(highest - top) + tl.sum(tl.exp2(x - top[None, :]), axis=0)
            highest = following
        found = tl.where(highest == -float("inf"), highest, highest + tl.log2(total))
        out = (problem * tl.num_programs(1) + tl.program_id(1)) * COLUMNS
        tl.store(logs + out + column, found, mask=there)


@triton.jit
def _logarithm(mass, logs, problem, column, there, rows, slabs, COLUMNS: tl.constexpr, SLABS: tl.constexpr):
    """Return the natural logarithms of the columns' masses, those of faint columns from the slabs of their rows."""
    known = tl.load(mass + problem * COLUMNS + column, mask=there, other=1.0)
    poor = known < rows * FAINT
    found = tl.log2(tl.where(poor, 1.0, known))
    if tl.max(poor.to(tl.int32), axis=0) > 0:
        slab = tl.arange(0, SLABS)
        where = (problem * slabs + slab)[:, None] * COLUMNS + column[None, :]
        parts = tl.load(logs + where, mask=(slab < slabs)[:, None] & (poor & there)[None, :], other=-float("inf"))
        highest = tl.max(parts, axis=0)
        top = tl.where(highest == -float("inf"), 0.0, highest)
        total = tl.sum(tl.exp2(parts - top[None, :]), axis=0)
        least = tl.where(highest == -float("inf"), highest, highest + tl.log2(total))
        found = tl.where(poor, least, found)
    return found * LN2


@kernel
def merge(mass, logs, out, rows, slabs, COLUMNS: tl.constexpr, SLABS: tl.constexpr, TILE: tl.constexpr):
    """Write the natural logarithms of the columns' masses."""
    problem = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = column < COLUMNS
    found = _logarithm(mass, logs, problem, column, there, rows, slabs, COLUMNS, SLABS)
    tl.store(out + problem * COLUMNS + column, found, mask=there)


@triton.jit
def _stepped(
    mass,
    logs,
    potential,
    log_prior,
    problem,
    column,
    rows,
    slabs,
    log_rows,
    epsilon,
    beta,
    COLUMNS: tl.constexpr,
    SLABS: tl.constexpr,
):
    """Return ``beta (v + epsilon log(wbar / r))``, which columns some row may use, and ``log r``."""
    there = column < COLUMNS
    found = _logarithm(mass, logs, problem, column, there, rows, slabs, COLUMNS, SLABS) - log_rows
    usable = there & (found != -float("inf"))
    v = tl.load(potential + problem * COLUMNS + column, mask=there, other=0.0)
    r = tl.load(log_prior + problem * COLUMNS + column, mask=there, other=0.0)
    return beta * (v + epsilon * tl.where(usable, found - r, 0.0)), usable, r


@kernel
def plain_step(
    mass,
    logs,
    potential,
    log_prior,
    numbers,
    out,
    rows,
    slabs,
    COLUMNS: tl.constexpr,
    SLABS: tl.constexpr,
    TILE: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Write the potential after a plain step, without the common scale of ``u`` (theory, A6 and A7).

    One program a problem passes over the columns three times, the last time to take off what the others have found.
    """
    problem = tl.program_id(0).to(tl.int64)
    log_rows, epsilon = tl.load(numbers), tl.load(numbers + 1)
    strength, beta = tl.load(numbers + 2), tl.load(numbers + 3)
    largest = 0.0 * beta - float("inf")
    shift = 0.0 * beta
    if not EXACT:
        for start in tl.range(0, COLUMNS, TILE):
            column = start + tl.arange(0, TILE)
            x, usable, r = _stepped(
                mass,
                logs,
                potential,
                log_prior,
                problem,
                column,
                rows,
                slabs,
                log_rows,
                epsilon,
                beta,
                COLUMNS,
                SLABS,
            )
            largest = tl.maximum(largest, tl.max(tl.where(usable, x / strength, -float("inf")), axis=0))
    for start in tl.range(0, COLUMNS, TILE):
        column = start + tl.arange(0, TILE)
        x, usable, r = _stepped(
            mass,
            logs,
            potential,
            log_prior,
            problem,
            column,
            rows,
            slabs,
            log_rows,
            epsilon,
            beta,
            COLUMNS,
            SLABS,
        )
        if EXACT:
            shift += tl.sum(tl.where(usable, tl.exp(r) * x, 0.0), axis=0)
        else:
            shift += tl.sum(tl.where(usable, tl.exp(r + (x / strength - largest)), 0.0), axis=0)
    if not EXACT:
        shift = strength * (largest + tl.log(shift))
    for start in tl.range(0, COLUMNS, TILE):
        column = start + tl.arange(0, TILE)
        x, usable, r = _stepped(
            mass,
            logs,
            potential,
            log_prior,
            problem,
            column,
            rows,
            slabs,
            log_rows,
            epsilon,
            beta,
            COLUMNS,
            SLABS,
        )
        to = out + problem * COLUMNS + column
        tl.store(to, tl.where(usable, x - shift, 0.0), mask=column < COLUMNS)


@triton.jit
def _normalize(
    scores,
    factors,
    bias,
    inverse,
    potential,
    row,
    here,
    shift,
    c,
    STRIDE: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return ``top`` and ``weight``, a row each, with ``sum_j 2^(s_ij c - p_j) = 2^top weight``: tile by tile."""
    kind: tl.constexpr = tl.float64 if WIDE else tl.float32
    c_high = c.to(tl.float32)
    c_low = (c - c_high.to(tl.float64)).to(tl.float32)
    top = tl.zeros_like(row).to(kind) - float("inf")
    weight = tl.zeros_like(row).to(tl.float64)
    for start in tl.range(0, COLUMNS, TILE):
        column = start + tl.arange(0, TILE)
        there = column < COLUMNS
        high, rest, _ = _prices(potential, column, there, c, WIDE)
        s = _tile(scores, factors, bias, inverse, row, column, here, there, STRIDE, DEPTH, STEP, PRECISION, WIDE)
        y = _powers(s, shift, high, rest, c_high, c, WIDE)
        following = tl.maximum(top, _tops(y, WIDE))
        to = tl.where(following == -float("inf"), 0.0, following)
        e = _raise(s, y, to, high, rest, c_high, c_low, WIDE)
        weight = weight * tl.exp2((top - to).to(tl.float64)) + tl.sum(e, axis=1).to(tl.float64)
        top = following
    return tl.where(here, top, 0.0), tl.where(here, weight, 1.0)


@triton.jit
def _dearest(potential, c, COLUMNS: tl.constexpr, TILE: tl.constexpr, WIDE: tl.constexpr):
    """Return the size of the largest price."""
    found = 0.0 * c
    for start in tl.range(0, COLUMNS, TILE):
        column = start + tl.arange(0, TILE)
        found = tl.maximum(found, _prices(potential, column, column < COLUMNS, c, WIDE)[2])
    return found


@kernel
def columns(
    scores,
    factors,
    bias,
    inverse,
    base,
    potential,
    constant,
    reach,
    weights,
    norms,
    partial,
    totals,
    rows,
    batch_stride,
    base_stride,
    STRIDE: tl.constexpr,
    ALIGN: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
    ONLY: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """Do what :func:`masses` does for any number of columns, a tile at a time; rows may be weighted.

    A program adds up its columns where it writes them, in double precision, a sum of ``ROWS`` entries at a time;
    `partial` comes as zeros.
    """
    problem = tl.program_id(1).to(tl.int64)
    scores += tl.multiple_of(problem * batch_stride, ALIGN)
    potential += problem * COLUMNS
    c = tl.load(constant)
    c_high = c.to(tl.float32)
    c_low = (c - c_high.to(tl.float64)).to(tl.float32)
    wide = (tl.load(reach + problem) * c > REACH) | (_dearest(potential, c, COLUMNS, TILE, WIDE) > REACH)
    if ONLY | (wide == WIDE):
        out = problem * tl.num_programs(0) + tl.program_id(0)
        normalizers = tl.zeros([ROWS], tl.float64)
        for start in tl.range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
            row = start + tl.arange(0, ROWS)
            here = row < rows
            shift = tl.load(base + (problem * rows + row) * base_stride, mask=here, other=0.0)
            top, weight = _normalize(
                scores,
                factors,
                bias,
                inverse,
                potential,
                row,
                here,
                shift,
                c,
                STRIDE,
                DEPTH,
                STEP,
                PRECISION,
                COLUMNS,
                TILE,
                WIDE,
            )
            norm = top.to(tl.float64) + tl.log2(weight.to(tl.float64))
            if not WIDE:
                norm -= shift * c
            tl.store(norms + problem * rows + row, norm, mask=here)
            normalizers += tl.where(here, norm, 0.0)
            if WEIGHTED:
                factor = tl.load(weights + problem * rows + row, mask=here, other=0.0)
            for begin in tl.range(0, COLUMNS, TILE):
                column = begin + tl.arange(0, TILE)
                there = column < COLUMNS
                high, rest, _ = _prices(potential, column, there, c, WIDE)
                s = _tile(
                    scores, factors, bias, inverse, row, column, here, there, STRIDE, DEPTH, STEP, PRECISION, WIDE
                )
                y = _powers(s, shift, high, rest, c_high, c, WIDE)
                e = _raise(s, y, top, high, rest, c_high, c_low, WIDE)
                w = e / weight.to(e.dtype)[:, None]
                if WEIGHTED:
                    added = tl.sum(w.to(tl.float64) * factor[:, None], axis=0)
                else:
                    added = tl.sum(w, axis=0).to(tl.float64)
                to = partial + out * COLUMNS + column
                tl.store(to, added + tl.load(to, mask=there, other=0.0), mask=there)
            tl.debug_barrier()  # what is stored here is loaded in the next turn, maybe by another thread
        tl.store(totals + out, tl.sum(normalizers, axis=0))


@kernel
def plan(
    scores,
    factors,
    bias,
    inverse,
    base,
    potential,
    constant,
    reach,
    x,
    out,
    rows,
    batch_stride,
    base_stride,
    STRIDE: tl.constexpr,
    ALIGN: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
    ONLY: tl.constexpr,
    APPLY: tl.constexpr,
):
    """Write the plan, or its product with a factor a column."""
    problem = tl.program_id(1).to(tl.int64)
    scores += tl.multiple_of(problem * batch_stride, ALIGN)
    potential += problem * COLUMNS
    c = tl.load(constant)
    c_high = c.to(tl.float32)
    c_low = (c - c_high.to(tl.float64)).to(tl.float32)
    wide = (tl.load(reach + problem) * c > REACH) | (_dearest(potential, c, COLUMNS, TILE, WIDE) > REACH)
    if ONLY | (wide == WIDE):
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        here = row < rows
        shift = tl.load(base + (problem * rows + row) * base_stride, mask=here, other=0.0)
        top, weight = _normalize(
            scores,
            factors,
            bias,
            inverse,
            potential,
            row,
            here,
            shift,
            c,
            STRIDE,
            DEPTH,
            STEP,
            PRECISION,
            COLUMNS,
            TILE,
            WIDE,
        )
        total = tl.zeros([ROWS], tl.float64)
        for start in tl.range(0, COLUMNS, TILE):
            column = start + tl.arange(0, TILE)
            there = column < COLUMNS
            inside = here[:, None] & there[None, :]
            high, rest, _ = _prices(potential, column, there, c, WIDE)
            s = _tile(scores, factors, bias, inverse, row, column, here, there, STRIDE, DEPTH, STEP, PRECISION, WIDE)
            y = _powers(s, shift, high, rest, c_high, c, WIDE)
            e = _raise(s, y, top, high, rest, c_high, c_low, WIDE)
            w = e / weight.to(e.dtype)[:, None]
            if APPLY:
                factor = tl.load(x + problem * COLUMNS + column, mask=there, other=0.0)
                total += tl.sum(w.to(tl.float64) * factor[None, :], axis=1)
            else:
                tl.store(out + (problem * rows + row)[:, None] * COLUMNS + column[None, :], w, mask=inside)
        if APPLY:
            tl.store(out + problem * rows + row, total, mask=here)


@kernel
def labels(
    scores,
    factors,
    bias,
    inverse,
    base,
    potential,
    out,
    rows,
    batch_stride,
    base_stride,
    STRIDE: tl.constexpr,
    ALIGN: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write the column of every row's largest entry, the first of several: in double precision, shifted first."""
    problem = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = row < rows
    shift = tl.load(base + (problem * rows + row) * base_stride, mask=here, other=0.0)
    best = tl.full([ROWS], -float("inf"), tl.float64)
    found = tl.zeros([ROWS], tl.int32)
    for start in tl.range(0, COLUMNS, TILE):
        column = start + tl.arange(0, TILE)
        there = column < COLUMNS
        s = _tile(
            scores + tl.multiple_of(problem * batch_stride, ALIGN),
            factors,
            bias,
            inverse,
            row,
            column,
            here,
            there,
            STRIDE,
            DEPTH,
            STEP,
            PRECISION,
            True,
        )
        worth = (s - shift[:, None]) - tl.load(potential + problem * COLUMNS + column, mask=there, other=0.0)[None, :]
        largest, index = tl.max(worth, axis=1, return_indices=True, return_indices_tie_break_left=True)
        better = largest > best
        found = tl.where(better, start + index, found)
        best = tl.where(better, largest, best)
    tl.store(out + problem * rows + row, found.to(tl.int64), mask=here)
