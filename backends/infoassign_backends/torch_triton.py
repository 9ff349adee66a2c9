"""torch tensors on CUDA devices: passes straight from the scores, by the kernels of ``triton_sweep``.

Nothing is read back from the device and no launch depends on a value, so whole solves of fixed length can be captured
in a CUDA graph. Beside the scores there are only vectors: four doubles a row, and the columns' masses of every program.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from math import e, log2
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from infoassign_backends import triton_sweep
from infoassign_backends.protocol import Masses, Sweep
from infoassign_backends.reference import check_epsilon

__all__ = ["TritonSweep", "masses", "plan", "prepare"]

WHOLE = {False: 2**13, True: 2**12}
"""Columns up to which a program holds whole rows, in single and in double precision; more are passed over twice, the
second time from the cache."""
ENTRIES = {False: 2**13, True: 2**12}
"""Entries that a program holds; with half as many it has half as many tiles to hold."""
SPLIT = (2.0**-70, 2.0**100)
"""Range of ``log2(e) / epsilon`` whose low part is a normal single."""


class Shape(NamedTuple):
    """What a program takes at a time, and by how many warps."""

    rows: int
    columns: int
    warps: int
    stages: int = 1
    """Blocks of rows of which loads are under way at a time."""


def whole_rows(columns: int, *, wide: bool) -> Shape:
    """Return the shape of a program that holds whole rows."""
    width = max(16, triton.next_power_of_2(columns))
    rows = min(64, max(1, ENTRIES[wide] // width))
    return Shape(rows, width, max(4, min(16, rows * width // 512)), 1 if wide else 3)


def tiles(columns: int, *, wide: bool) -> Shape:
    """Return the shape of a program that takes rows tile by tile."""
    width = min(512, max(16, triton.next_power_of_2(columns)))
    return Shape(min(64, ENTRIES[wide] // 2 // width), width, 8)


STRIP = Shape(32, 32, 4)
"""Rows and columns, of programs that look at columns one by one."""
SLABS = 32
"""Programs among which the rows of such columns are shared."""


@cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":  # Triton's interpreter
        return 3
    found: int = torch.cuda.get_device_properties(device).multi_processor_count
    return found


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a device the current one, which Triton launches on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class TritonSweep:
    """Scores on a CUDA device; see :class:`infoassign_backends.protocol.Sweep`.

    Parameters
    ----------
    scores
        Shape (..., B, K); copied if a row's entries are not beside each other in memory.
    epsilon
        > 0.
    offset
        What all rows are to be shifted by; by default every row by its largest score.
    """

    compute_dtype = vector_dtype = torch.float64

    def __init__(self, scores: Tensor, epsilon: float, offset: float | None = None) -> None:
        check_epsilon(epsilon, torch.float64, torch)
        self._batch, (self.rows, self._columns) = scores.shape[:-2], scores.shape[-2:]
        scores = scores.reshape(-1, self.rows, self._columns)
        self._scores = scores if scores.stride(2) == 1 or self._columns == 1 else scores.contiguous()
        double = scores.dtype == torch.float64
        self.plan_dtype = torch.float64 if double else torch.float32
        c = log2(e) / epsilon
        # Which passes there are: in single precision, in double precision, or both, of which the device chooses.
        self._wide = (True,) if double or not SPLIT[0] < c < SPLIT[1] else (False, True)
        unit, half = torch.finfo(torch.float64).eps / 2, torch.finfo(torch.float32).eps / 2
        self.sum_error = (self.rows + self._columns) * unit
        if not double:
            # In a thread one by one, then by trees; tiles of a row one by one; a column's entries in a program's rows.
            whole, tiled = whole_rows(self._columns, wide=False), tiles(self._columns, wide=False)
            in_thread = max(16, min(whole.columns, WHOLE[False]) // (32 * whole.warps))
            self.sum_error += (in_thread + 2 * (self._columns // tiled.columns) + 16 + tiled.rows) * half
        # 2^-22 for the power, a unit for its exponent, two for the division, and one to store it.
        self.entry_error = float(16 * half if not double else 32 * unit)
        self._c = self._filled((1,), c)
        self._base, self._least, size = (self._empty(len(scores), self.rows) for _ in range(3))
        self._extents(size)
        self._reach = size.amax(dim=1)
        self.offset = self._shown((self._base / self.rows).sum(dim=1))
        self.span = self._shown(((self._base - self._least) / epsilon).amax(dim=1))
        if offset is not None:
            self._base = self._filled((1,), offset)
        self._apart = 0 if offset is not None else 1

    def _shown(self, values: Tensor) -> Tensor:
        return values.reshape((*self._batch, *values.shape[1:]))

    def _taken(self, vector: Tensor) -> Tensor:
        return vector.detach().to(torch.float64).reshape(len(self._scores), -1).contiguous()

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64, device=self._scores.device)

    def _filled(self, shape: tuple[int, ...], value: float) -> Tensor:
        return torch.full(shape, value, dtype=torch.float64, device=self._scores.device)

    def _launch(self, kernel: Any, grid: tuple[int, ...], *given: Any, shape: Shape, **constants: Any) -> None:
        with _on(self._scores.device):
            # Products and sums are fused where it is written, and only there.
            kernel[grid](*given, num_warps=shape.warps, enable_fp_fusion=False, **constants)

    @property
    def _matrix(self) -> dict[str, int]:
        """What kernels know of the scores when they are compiled."""
        return {"STRIDE": self._scores.stride(1), "COLUMNS": self._columns}

    def _programs(self, shape: Shape) -> int:
        """Return how many programs share the rows of a problem."""
        resident = _processors(self._scores.device) * max(1, 16 // shape.warps)
        return min(triton.cdiv(self.rows, shape.rows), max(1, resident // len(self._scores)))

    def _extents(self, size: Tensor) -> None:
        shape = tiles(self._columns, wide=True)
        self._launch(
            triton_sweep.extents,
            (triton.cdiv(self.rows, shape.rows), len(self._scores)),
            *(self._scores, self._base, self._least, size, self.rows, self._scores.stride(0)),
            shape=shape,
            **self._matrix,
            ROWS=shape.rows,
            TILE=shape.columns,
            WIDE=self.plan_dtype == torch.float64,
        )

    def _sums(self, price: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the columns' masses, the rows' normalisers and their sums."""
        norms = self._empty(len(self._scores), self.rows)
        fused = {wide: weights is None and self._columns <= WHOLE[wide] for wide in self._wide}
        shapes = {wide: (whole_rows if fused[wide] else tiles)(self._columns, wide=wide) for wide in self._wide}
        programs = self._programs(shapes[self._wide[0]])
        partial = self._filled((len(self._scores), programs, self._columns), 0.0)
        totals = self._empty(len(self._scores), programs)
        given = (self._scores, self._base, price, self._c, self._reach)
        out = (norms, partial, totals, self.rows, self._scores.stride(0), self._apart)
        for wide, shape in shapes.items():
            constants = {**self._matrix, "ROWS": shape.rows, "TILE": shape.columns}
            constants |= {"WIDE": wide, "ONLY": len(self._wide) == 1}
            grid = (programs, len(self._scores))
            if fused[wide]:
                self._launch(triton_sweep.masses, grid, *given, *out, shape=shape, STAGES=shape.stages, **constants)
            else:
                weighted = weights is not None
                factors = weights if weighted else norms
                self._launch(
                    triton_sweep.columns, grid, *given, factors, *out, shape=shape, WEIGHTED=weighted, **constants
                )
        mass = self._empty(len(self._scores), self._columns)
        self._launch(
            triton_sweep.collect,
            (triton.cdiv(self._columns, STRIP.columns), len(self._scores)),
            *(partial, mass, programs),
            shape=STRIP,
            COLUMNS=self._columns,
            PROGRAMS=STRIP.rows,
            TILE=STRIP.columns,
        )
        return mass, norms, totals.sum(dim=1)

    def _logarithms(self, price: Tensor, norms: Tensor, mass: Tensor) -> Tensor:
        """Return the logarithms of the columns' masses; where there is next to none they are summed anew."""
        across = triton.cdiv(self._columns, STRIP.columns)
        logs = self._empty(len(self._scores), SLABS, self._columns)
        self._launch(
            triton_sweep.faint,
            (across, SLABS, len(self._scores)),
            *(self._scores, self._base, price, self._c, norms, mass, logs),
            *(self.rows, self._scores.stride(0), self._apart),
            shape=STRIP,
            **self._matrix,
            ROWS=STRIP.rows,
            TILE=STRIP.columns,
        )
        found = self._empty(len(self._scores), self._columns)
        self._launch(
            triton_sweep.merge,
            (across, len(self._scores)),
            *(mass, logs, found, self.rows),
            shape=STRIP,
            COLUMNS=self._columns,
            SLABS=SLABS,
            TILE=STRIP.columns,
        )
        return found

    def __call__(self, potential: Tensor) -> Masses:
        price = self._taken(potential)
        mass, norms, total = self._sums(price, None)
        # Rows' normalisers are in powers of two.
        return Masses(self._shown(self._logarithms(price, norms, mass)), self._shown(total / log2(e)), self.rows)

    def _product(self, potential: Tensor, factors: Tensor | None) -> Tensor:
        """Return the plan, or its product with a factor a column."""
        shape_of = (len(self._scores), self.rows) if factors is not None else self._scores.shape
        dtype = self.vector_dtype if factors is not None else self.plan_dtype
        found = torch.empty(shape_of, dtype=dtype, device=self._scores.device)
        price = self._taken(potential)
        for wide in self._wide:
            shape = tiles(self._columns, wide=wide)
            self._launch(
                triton_sweep.plan,
                (triton.cdiv(self.rows, shape.rows), len(self._scores)),
                *(self._scores, self._base, price, self._c, self._reach, price if factors is None else factors, found),
                *(self.rows, self._scores.stride(0), self._apart),
                shape=shape,
                **self._matrix,
                ROWS=shape.rows,
                TILE=shape.columns,
                WIDE=wide,
                ONLY=len(self._wide) == 1,
                APPLY=factors is not None,
            )
        return self._shown(found)

    def iter_plan(self, potential: Tensor) -> Iterator[Tensor]:
        yield self._product(potential, None)

    def labels(self, potential: Tensor) -> Tensor:
        shape = tiles(self._columns, wide=True)
        found = torch.empty(self._scores.shape[:2], dtype=torch.int64, device=self._scores.device)
        self._launch(
            triton_sweep.labels,
            (triton.cdiv(self.rows, shape.rows), len(self._scores)),
            *(self._scores, self._base, self._taken(potential), found, self.rows, self._scores.stride(0)),
            shape=shape,
            **self._matrix,
            ROWS=shape.rows,
            TILE=shape.columns,
        )
        return self._shown(found)

    def apply(self, potential: Tensor, x: Tensor) -> Tensor:
        return self._product(potential, self._taken(x))

    def apply_transpose(self, potential: Tensor, y: Tensor) -> Tensor:
        return self._shown(self._sums(self._taken(potential), self._taken(y))[0])

    def log_column_sums(self) -> Tensor:
        nothing = torch.zeros_like(self._scores[:, 0, :], dtype=torch.float64)
        # As if no column had any mass yet and rows were not shifted: exp(s / epsilon) itself.
        return self._shown(self._logarithms(nothing, -self._base * self._c, nothing))

    def sum_rows(self, values: Tensor) -> Tensor:
        return values.sum(dim=-1)

    def bound_rows(self, values: Tensor) -> Tensor:
        return values.amax(dim=-1)


def prepare(scores: Tensor, epsilon: float) -> Sweep:
    """Prepare torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    return TritonSweep(scores.detach(), epsilon)


def masses(scores: Tensor, potential: Tensor, epsilon: float, offset: float, known: Tensor) -> Masses:
    """Pass once over torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    return TritonSweep(scores.detach(), epsilon, offset)(potential)


def plan(scores: Tensor, potential: Tensor, epsilon: float) -> Tensor:
    """Return the plan of torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    return next(TritonSweep(scores.detach(), epsilon).iter_plan(potential))
