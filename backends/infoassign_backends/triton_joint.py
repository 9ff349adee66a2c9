"""The entropy of a joint distribution on CUDA, by Triton; see :mod:`infoassign_backends.joint`.

P is made a panel of columns at a time, by a product of matrices whose tiles are finished while they are still in
registers: masked, their P log P added up, and only the slope is written. Two more products turn the slopes of a panel,
at most :data:`PANEL` bytes for each of D rows, into gradients, before the next overwrites them (theory, B7).

How digits are kept:

- Products are summed in float32, of float16, of bfloat16, or of float32 as ``torch.backends.cuda.matmul`` has it: in
  TF32 where that is allowed, otherwise by three products in TF32, of leading and trailing digits.
- P log P is added up in float32 over a quarter of a tile's row, m numbers, and in float64 from there on. Where they
  are of one sign, as for distributions, that is off by (m - 1) 2^-24 of the whole at most, however many cells P has.
- Of the slope ``1 + log P``, most is ``1 - log a - log b`` in the block of two segments of sizes a and b, which no
  softmax lets pass. What is left, the information, is what the gradients' products round to the 8 or 11 digits of the
  tensor cores. The rest has rank two and is added in float32. It is a multiple of 1/4, which is kept exactly where the
  slope is 0.

Nothing waits for the device, and the same bits come out every time. With ``TRITON_INTERPRET=1`` in the environment
before this is imported, all of it runs on the CPU.
"""

from functools import lru_cache
from itertools import groupby
from math import log
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from infoassign_backends.protocol import Views

LEAST = tl.constexpr(torch.finfo(torch.float32).smallest_normal)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
ALIGNED = 16
"""Numbers of which the rows of operands are a multiple, so that they are read several at a time."""
PANEL = 4096
"""Bytes of a row of slopes: few enough to be spared, and columns enough to keep a device busy."""


class Tile(NamedTuple):
    """How a product of matrices is cut, and run."""

    height: int
    width: int
    terms: int
    """How many are added at a time."""
    warps: int
    stages: int
    group: int = 8
    """Tiles, one below the other, that are made before the next column, to find their operands in the cache."""


class Tiles(NamedTuple):
    """What there is to tune on a device."""

    half: Tile
    tf32: Tile
    split: Tile
    """For float32 that is taken apart."""


# Large tiles read their operands less often, and want 144 KiB of shared memory, which these generations have.
LARGE_FROM, LARGE_BELOW = (9, 0), (12, 0)
LARGE = Tiles(Tile(128, 256, 64, 8, 3), Tile(128, 256, 32, 8, 3), Tile(128, 128, 32, 8, 3))
SMALL = Tiles(Tile(128, 128, 32, 8, 3), Tile(128, 128, 32, 8, 3), Tile(128, 64, 32, 8, 3))


def served(views: Views) -> bool:
    """Return whether the functions here are for views of this device and dtype."""
    dtype, device = views.first.dtype, views.first.device
    if device.type != "cuda" or torch.version.cuda is None or dtype not in DTYPES:
        return False
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch 2.9, with which came Triton 3.5
        return False
    return all(view.dtype == dtype for view in views) and torch.cuda.get_device_capability(device) >= (8, 0)


def off_diagonal(views: Views, sizes: tuple[int, ...]) -> Tensor:
    """Return OE; see :class:`infoassign_backends.protocol.Backend`."""
    with torch.cuda.device_of(views.first):
        panels = _Panels(views, sizes)
        return _total([panels.make(columns, None) for columns in panels.columns], views.first.dtype)


def off_diagonal_and_gradients(views: Views, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return OE and its gradients; see :class:`infoassign_backends.protocol.Backend`."""
    first, second = views.first, views.second
    width = first.shape[1]
    with torch.cuda.device_of(first):
        panels = _Panels(views, sizes)
        level, scale, split = panels.segments.level[:width], panels.scale, panels.split
        sums1, sums2 = (_row_sums(view, level, scale) for view in (first, second))
        # Added up over panels, so in float32; to_second is finished in each.
        to_first, to_second = _expected(sums2, level), second.new_empty(second.shape)
        height = len(panels.segments.level)
        room, parts = first.new_empty(height * panels.columns[0].stop), []
        for columns in panels.columns:
            slopes = room[: height * (columns.stop - columns.start)].view(height, -1)
            parts.append(panels.make(columns, slopes))
            there = slice(columns.start, min(columns.stop, width))
            slopes = slopes[:width, : there.stop - there.start]
            _add_product(to_first, second[:, there], slopes.T, scale, split)
            finished = _expected(sums1, level[there])
            _add_product(finished, first, slopes, scale, split)
            to_second[:, there] = finished
        del room, slopes, finished  # before there is another copy of a gradient
        return _total(parts, first.dtype), to_first.to(first.dtype), to_second


def _total(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat(parts).sum().to(dtype)


class _Segments(NamedTuple):
    """What is known of each unit, on the device, and of as many of none as make them a multiple of ALIGNED."""

    owner: Tensor
    """The number of its segment, int32; -1 for none."""
    level: Tensor
    """Its share of the slope that is expected: ``1/2 - log(size)`` in quarters, so that sums of two are short."""


def _segments(sizes: tuple[int, ...], device: torch.device) -> _Segments:
    """Return the segments, which are kept for the stream that made them.

    A graph that is being captured makes its own: those that are kept may be dropped before it is run.
    """
    if device.type != "cuda":
        return _new_segments(sizes, device)
    if torch.cuda.is_current_stream_capturing():
        return _new_segments(sizes, device)
    return _kept_segments(sizes, device, torch.cuda.current_stream(device).cuda_stream)


@lru_cache(maxsize=32)
def _kept_segments(sizes: tuple[int, ...], device: torch.device, stream: int) -> _Segments:
    return _new_segments(sizes, device)


def _new_segments(sizes: tuple[int, ...], device: torch.device) -> _Segments:
    """Make them on the device, a run of equal sizes at a time: copying from the host would wait."""
    owners, levels, start = [], [], 0
    for size, run in groupby(sizes):
        count = len(list(run))
        owners.append(torch.arange(count * size, device=device, dtype=torch.int32) // size + start)
        levels.append(torch.full((count * size,), round(4 * (0.5 - log(size))) / 4, device=device, dtype=torch.float32))
        start += count
    rest = -sum(sizes) % ALIGNED
    owners.append(torch.full((rest,), -1, device=device, dtype=torch.int32))
    levels.append(torch.zeros(rest, device=device, dtype=torch.float32))
    return _Segments(torch.cat(owners), torch.cat(levels))


class _Panels:
    """P, some columns at a time, with cells of no segment at its end, to a multiple of :data:`ALIGNED`."""

    def __init__(self, views: Views, sizes: tuple[int, ...]) -> None:
        first, self.second = views.all_first, views.all_second
        self.segments = _segments(sizes, first.device)
        self.first = _operand(first, len(self.segments.level))
        self.columns = _cut(len(self.segments.level), PANEL // first.itemsize)
        self.scale = 1 / len(first)
        self.split = first.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision != "tf32"

    def make(self, columns: slice, slopes: Tensor | None) -> Tensor:
        """Return sums of P log P over the tiles of a panel, and write its slopes if they are asked for."""
        first, second = self.first, _operand(self.second[:, columns], columns.stop - columns.start)
        (samples, height), (_, width), (owner, level) = first.shape, second.shape, self.segments
        tile = _tile(first, self.split)
        sums = torch.empty(_count(tile, height, width), dtype=torch.float64, device=first.device)
        _panel[(len(sums),)](
            first,
            second,
            owner,
            owner[columns],
            level,
            level[columns],
            sums,
            sums if slopes is None else slopes,
            self.scale,
            samples,
            height,
            width,
            *first.stride(),
            *second.stride(),
            WITH_SLOPE=slopes is not None,
            **_options(tile, samples, self.split),
        )
        return sums


def _cut(width: int, most: int) -> list[slice]:
    return [slice(start, min(start + most, width)) for start in range(0, width, most)]


def _aligned(length: int) -> int:
    return length + -length % ALIGNED


def _operand(view: Tensor, units: int) -> Tensor:
    """Return a view as a device reads it fast: with zeros to so many units, each row in its place in memory.

    Tensor cores take operands of 16 bits either way round, others only with the terms of a sum side by side: those
    would be turned number by number, each time that they are read.
    """
    rows, width = view.shape
    if view.itemsize == 4:
        turned = view.new_empty((units, _aligned(rows)))
        turned[:width, :rows] = view.T
        turned[width:] = 0
        turned[:, rows:] = 0
        return turned.T
    if width == units and view.stride(1) == 1 and view.stride(0) % ALIGNED == 0 and view.data_ptr() % 16 == 0:
        return view
    room = view.new_empty((rows, units))
    room[:, :width] = view
    room[:, width:] = 0
    return room


def _row_sums(view: Tensor, level: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the sums of rows as they are, and times the levels; both times the scale."""
    rows, width = view.shape
    sums, leveled = torch.empty((2, rows), device=view.device, dtype=torch.float32)
    if rows:
        _sum_rows[(triton.cdiv(rows, 4),)](
            view,
            level,
            sums,
            leveled,
            scale,
            rows,
            width,
            *view.stride(),
            HEIGHT=4,
            WIDTH=512,
            num_warps=8,
            enable_fp_fusion=True,
        )
    return sums, leveled


def _expected(sums: tuple[Tensor, Tensor], level: Tensor) -> Tensor:
    """Return what the levels alone make of a gradient, in float32."""
    return torch.addcmul(sums[1][:, None], sums[0][:, None], level)


def _add_product(into: Tensor, left: Tensor, right: Tensor, scale: float, split: bool) -> None:
    """Add the scaled product of two matrices to one in float32."""
    if left.is_cuda and not split:
        if left.dtype == torch.float32:
            into.addmm_(left, right, alpha=scale)
        else:
            torch.addmm(into, left, right, alpha=scale, out_dtype=torch.float32, out=into)
        return
    tile, (height, width) = _tile(left, split), into.shape
    if height:
        _add[(_count(tile, height, width),)](
            left,
            right,
            into,
            scale,
            left.shape[1],
            height,
            width,
            *left.T.stride(),
            *right.stride(),
            **_options(tile, left.shape[1], split),
        )


def _tile(operand: Tensor, split: bool) -> Tile:
    """Return the tiles for a product."""
    capability = torch.cuda.get_device_capability(operand.device) if operand.is_cuda else LARGE_FROM
    tiles = LARGE if LARGE_FROM <= capability < LARGE_BELOW else SMALL
    return tiles.split if split else tiles.half if operand.itemsize == 2 else tiles.tf32


def _count(tile: Tile, height: int, width: int) -> int:
    return -(-height // tile.height) * -(-width // tile.width)


def _options(tile: Tile, terms: int, split: bool) -> dict[str, Any]:
    """Return what a product is compiled for. Fused operations were the default, about which Triton 3.9 warns."""
    return {
        "HEIGHT": tile.height,
        "WIDTH": tile.width,
        "TERMS": tile.terms,
        "GROUP": tile.group,
        "WHOLE": terms % tile.terms == 0,
        "PRECISION": "tf32x3" if split else "tf32",
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        "enable_fp_fusion": True,
    }


# What follows is compiled by Triton. Sizes that are known by then are in capitals; offsets within a tile fit 32 bits.


@triton.jit
def _place(height, width, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr):
    """Return the row and the column of this program's tile: down a group of rows, then on to the next column."""
    program, down, along = tl.program_id(0), tl.cdiv(height, HEIGHT), tl.cdiv(width, WIDTH)
    start = program // (GROUP * along) * GROUP
    here = program % (GROUP * along)
    rows = tl.minimum(down - start, GROUP)
    return start + here % rows, here // rows


@triton.jit
def _multiply(
    left,
    right,
    terms,
    height,
    width,
    left_term,
    left_row,
    right_term,
    right_column,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    TERMS: tl.constexpr,
    GROUP: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a tile of left^T right, (terms, height) and (terms, width), and where it is; 0 outside."""
    down, along = _place(height, width, HEIGHT, WIDTH, GROUP)
    rows, columns, term = tl.arange(0, HEIGHT), tl.arange(0, WIDTH), tl.arange(0, TERMS)
    top, start = (down * HEIGHT).to(tl.int64), (along * WIDTH).to(tl.int64)
    left += top * left_row
    right += start * right_column
    left_offsets = term[:, None] * left_term + rows[None, :] * left_row
    right_offsets = term[:, None] * right_term + columns[None, :] * right_column
    left_there = rows[None, :] < height - down * HEIGHT
    right_there = columns[None, :] < width - along * WIDTH
    tile = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for done in range(0, terms, TERMS):
        if WHOLE:
            a = tl.load(left + left_offsets, mask=left_there, other=0.0)
            b = tl.load(right + right_offsets, mask=right_there, other=0.0)
        else:
            more = term[:, None] < terms - done
            a = tl.load(left + left_offsets, mask=left_there & more, other=0.0)
            b = tl.load(right + right_offsets, mask=right_there & more, other=0.0)
        tile = tl.dot(tl.trans(a), b, tile, input_precision=PRECISION)
        left += TERMS * left_term
        right += TERMS * right_term
    return tile, top, start


@triton.jit
def _halves(tile):
    """Cut a tile into its left and its right half."""
    return tl.split(tl.permute(tl.reshape(tile, (tile.shape[0], 2, tile.shape[1] // 2)), (0, 2, 1)))


@triton.jit
def _panel(
    first,
    second,
    owner1,
    owner2,
    level1,
    level2,
    sums,
    slopes,
    scale,
    samples,
    height,
    width,
    first_sample,
    first_unit,
    second_sample,
    second_unit,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    TERMS: tl.constexpr,
    GROUP: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    WITH_SLOPE: tl.constexpr,
):
    """Make a tile of P; keep the sum of its P log P, and the slopes."""
    tile, top, start = _multiply(
        first,
        second,
        samples,
        height,
        width,
        first_sample,
        first_unit,
        second_sample,
        second_unit,
        HEIGHT,
        WIDTH,
        TERMS,
        GROUP,
        WHOLE,
        PRECISION,
    )
    # By quarters, one after the other: all at once do not fit the registers.
    half1, half2 = _halves(tile)
    part1, part2 = _halves(half1)
    part3, part4 = _halves(half2)
    rows, columns = top + tl.arange(0, HEIGHT), start + tl.arange(0, WIDTH // 4)
    owner = tl.load(owner1 + rows, mask=rows < height, other=-1)
    level = tl.load(level1 + rows, mask=rows < height, other=0.0)
    step: tl.constexpr = WIDTH // 4
    total = _finish(part1, owner, level, rows, columns, owner2, level2, slopes, scale, height, width, WITH_SLOPE)
    columns += step
    total += _finish(part2, owner, level, rows, columns, owner2, level2, slopes, scale, height, width, WITH_SLOPE)
    columns += step
    total += _finish(part3, owner, level, rows, columns, owner2, level2, slopes, scale, height, width, WITH_SLOPE)
    columns += step
    total += _finish(part4, owner, level, rows, columns, owner2, level2, slopes, scale, height, width, WITH_SLOPE)
    tl.store(sums + tl.program_id(0), total)


@triton.jit
def _finish(
    counts, owner, level, rows, columns, owner2, level2, slopes, scale, height, width, WITH_SLOPE: tl.constexpr
):
    """Return the sum of P log P over some cells, from N P, and write their slopes less what is expected of them."""
    other = tl.load(owner2 + columns, mask=columns < width, other=-1)
    # Outside, counts are 0. A NaN stays one in the sum.
    p = tl.where(owner[:, None] == other[None, :], 0.0, counts * scale)
    positive = p > 0
    # The logarithm may count subnormal numbers as 0, and 0 times infinity is NaN.
    logs = tl.log(tl.where(positive, tl.maximum(p, LEAST), 1.0))
    if WITH_SLOPE:
        expected = level[:, None] + tl.load(level2 + columns, mask=columns < width, other=0.0)[None, :]
        there = (rows < height)[:, None] & (columns < width)[None, :]
        where = slopes + rows[:, None] * width + columns[None, :]
        tl.store(where, (tl.where(positive, 1 + logs, 0.0) - expected).to(slopes.dtype.element_ty), mask=there)
    return tl.sum(tl.sum(p * logs, axis=1).to(tl.float64), axis=0)


@triton.jit
def _add(
    left,
    right,
    into,
    scale,
    terms,
    height,
    width,
    left_term,
    left_row,
    right_term,
    right_column,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    TERMS: tl.constexpr,
    GROUP: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add a tile of a product of matrices, scaled."""
    tile, top, start = _multiply(
        left,
        right,
        terms,
        height,
        width,
        left_term,
        left_row,
        right_term,
        right_column,
        HEIGHT,
        WIDTH,
        TERMS,
        GROUP,
        WHOLE,
        PRECISION,
    )
    rows, columns = top + tl.arange(0, HEIGHT), start + tl.arange(0, WIDTH)
    there = (rows < height)[:, None] & (columns < width)[None, :]
    where = into + rows[:, None] * width + columns[None, :]
    tl.store(where, tl.load(where, mask=there) + scale * tile, mask=there)


@triton.jit
def _sum_rows(
    view, level, sums, leveled, scale, height, width, view_row, view_unit, HEIGHT: tl.constexpr, WIDTH: tl.constexpr
):
    """Add up some rows, in float64."""
    rows = tl.program_id(0).to(tl.int64) * HEIGHT + tl.arange(0, HEIGHT)
    columns = tl.arange(0, WIDTH)
    plain, weighted = tl.zeros((HEIGHT, WIDTH), tl.float64), tl.zeros((HEIGHT, WIDTH), tl.float64)
    for start in range(0, width, WIDTH):
        units = start + columns
        there = (rows < height)[:, None] & (units < width)[None, :]
        some = tl.load(view + rows[:, None] * view_row + units[None, :] * view_unit, mask=there, other=0.0)
        plain += some.to(tl.float64)
        weighted += some.to(tl.float64) * tl.load(level + units, mask=units < width, other=0.0)[None, :]
    tl.store(sums + rows, tl.sum(plain, axis=1) * scale, mask=rows < height)
    tl.store(leveled + rows, tl.sum(weighted, axis=1) * scale, mask=rows < height)
