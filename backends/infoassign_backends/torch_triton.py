"""torch tensors on CUDA devices: passes straight from the scores, by the kernels of ``triton_sweep``.

Nothing is read back from the device and no launch depends on a value, so whole solves of fixed length can be captured
in a CUDA graph. Beside the scores there are only vectors: four doubles a row, and the columns' masses of every program.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from copy import copy
from functools import cache
from math import e, gcd, inf, log, log2
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from infoassign_backends import triton_sweep
from infoassign_backends.host import slices
from infoassign_backends.protocol import Masses, Product, Sweep
from infoassign_backends.reference import check_epsilon

__all__ = ["TritonSweep", "factored", "masses", "plan", "prepare"]

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


def products(*, wide: bool) -> Shape:
    """Return the shape of a program that multiplies features and prototypes, tile by tile."""
    return Shape(32, 64, 4) if wide else Shape(128, 64, 8)


STRIP = Shape(32, 32, 4)
"""Rows and columns, of programs that look at columns one by one."""
VECTOR = Shape(1, 256, 8)
"""Columns of a program that works on vectors."""
SLABS = 32
"""Programs at most among which the rows of such columns are shared."""
PIECE = 2**24
"""Entries of a piece of a plan that is not whole in memory."""


@cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":  # Triton's interpreter
        return 3
    found: int = torch.cuda.get_device_properties(device).multi_processor_count
    return found


def launch(
    device: torch.device, kernel: Any, grid: tuple[int, ...], *given: Any, shape: Shape, **constants: Any
) -> None:
    """Launch a kernel on the current stream of a device."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        # Products and sums are fused where it is written, and only there.
        kernel[grid](*given, num_warps=shape.warps, enable_fp_fusion=False, **constants)


class Source(NamedTuple):
    """What kernels make scores of: a matrix, or features that are multiplied with the rows of another."""

    matrix: Tensor
    """Shape (P, B, K), or for features (1, B, D); the last axis has stride 1."""
    factors: Tensor
    """Prototypes, shape (K, D); of no use where there are none."""
    bias: Tensor
    """Shape (K,), float32; of no use without prototypes."""
    inverse: float
    """What products are multiplied with."""
    columns: int
    depth: int
    """D; 0 without prototypes."""
    precision: str
    """That of products of single precision: "ieee", "tf32" or "tf32x3"."""

    def constants(self) -> dict[str, Any]:
        """Return what kernels know of the source when they are compiled."""
        # At most 128 bytes of a row: with more in single precision, products in TF32 run out of registers.
        step = min(128 // self.matrix.element_size(), max(16, triton.next_power_of_2(self.depth)))
        start, stride = (self.matrix.stride(0) if len(self.matrix) > 1 else 0), self.matrix.stride(1)
        return {
            "STRIDE": stride,
            # Where a problem starts, so that aligned rows are loaded 16 bytes at a time; whatever the number of rows.
            "ALIGN": gcd(start, stride, 16),
            "COLUMNS": self.columns,
            "DEPTH": self.depth,
            "STEP": step,
            "PRECISION": self.precision,
        }


class Known(NamedTuple):
    """What is known of scores before the first sweep; P problems."""

    base: Tensor
    """What rows are shifted by, shape (P, B), or (1,) for all alike."""
    offset: Tensor
    """Shape (P,)."""
    span: Tensor
    """Shape (P,)."""
    reach: Tensor
    """The largest size of a finite score, shape (P,)."""


class TritonSweep:
    """Scores on a CUDA device; see :class:`infoassign_backends.protocol.Sweep`.

    Parameters
    ----------
    source
        What makes the scores.
    known
        What is known of them.
    epsilon
        > 0.
    batch
        The leading axes of the scores.
    """

    compute_dtype = vector_dtype = torch.float64

    def __init__(self, source: Source, known: Known, epsilon: float, batch: tuple[int, ...] = ()) -> None:
        self._source, self._known, self._epsilon, self._batch = source, known, epsilon, batch
        self._problems, self.rows = source.matrix.shape[:2]
        self._columns, self._device = source.columns, source.matrix.device
        double = source.matrix.dtype == torch.float64
        self.plan_dtype = torch.float64 if double else torch.float32
        c = log2(e) / epsilon
        # Which passes there are: in single precision, in double precision, or both, of which the device chooses.
        self._wide = (True,) if double or not SPLIT[0] < c < SPLIT[1] else (False, True)
        self._c = self._filled((1,), c)
        unit, half = torch.finfo(torch.float64).eps / 2, torch.finfo(torch.float32).eps / 2
        self.sum_error = (self.rows + self._columns) * unit
        if not double:
            # Rows and columns are each added up in a thread, 16 at most one by one, and then by trees.
            self.sum_error += 2 * (16 + 8) * half
        # 2^-22 for the power, a unit for its exponent, two for the division, and one to store it.
        self.entry_error = float(16 * half if not double else 32 * unit)
        self.offset, self.span = self._shown(known.offset), self._shown(known.span)

    def _shown(self, values: Tensor) -> Tensor:
        return values.reshape((*self._batch, *values.shape[1:]))

    def _taken(self, vector: Tensor) -> Tensor:
        return vector.detach().to(torch.float64).reshape(self._problems, -1).contiguous()

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64, device=self._device)

    def _filled(self, shape: tuple[int, ...], value: float) -> Tensor:
        return torch.full(shape, value, dtype=torch.float64, device=self._device)

    def _launch(self, kernel: Any, grid: tuple[int, ...], *given: Any, **constants: Any) -> None:
        launch(self._device, kernel, grid, *given, **constants)

    def _tiles(self, *, wide: bool) -> Shape:
        return products(wide=wide) if self._source.depth else tiles(self._columns, wide=wide)

    def _programs(self, shape: Shape) -> int:
        """Return how many programs share the rows of a problem."""
        resident = _processors(self._device) * max(1, 16 // shape.warps)
        return min(-(-self.rows // shape.rows), max(1, resident // self._problems))

    @property
    def _scores(self) -> tuple[Any, ...]:
        """The first arguments of kernels."""
        return *self._source[:4], self._known.base

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """The last arguments of kernels."""
        return self.rows, self._source.matrix.stride(0), int(self._known.base.ndim > 1)

    def _sums(self, price: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the columns' masses, the rows' normalisers, and these added up by each program."""
        norms = self._empty(self._problems, self.rows)
        whole = not self._source.depth and weights is None
        fused = {wide: whole and self._columns <= WHOLE[wide] for wide in self._wide}
        shapes = {
            wide: whole_rows(self._columns, wide=wide) if fused[wide] else self._tiles(wide=wide) for wide in self._wide
        }
        programs = self._programs(shapes[self._wide[0]])
        size = (self._problems, programs, self._columns)
        partial = self._empty(*size) if all(fused.values()) else self._filled(size, 0.0)
        totals = self._empty(self._problems, programs)
        given = (*self._scores, price, self._c, self._known.reach)
        out = (norms, partial, totals, *self._sizes)
        for wide, shape in shapes.items():
            constants = {"ROWS": shape.rows, "TILE": shape.columns, "WIDE": wide, "ONLY": len(self._wide) == 1}
            constants |= self._source.constants()
            grid = (programs, self._problems)
            if fused[wide]:
                self._launch(triton_sweep.masses, grid, *given, *out, shape=shape, STAGES=shape.stages, **constants)
            else:
                constants["WEIGHTED"] = weights is not None
                factors = norms if weights is None else weights
                self._launch(triton_sweep.columns, grid, *given, factors, *out, shape=shape, **constants)
        mass = self._empty(self._problems, self._columns)
        self._launch(
            triton_sweep.collect,
            (triton.cdiv(self._columns, STRIP.columns), self._problems),
            *(partial, mass, programs),
            shape=STRIP,
            COLUMNS=self._columns,
            PROGRAMS=STRIP.rows,
            TILE=STRIP.columns,
        )
        return mass, norms, totals

    def _faint(self, price: Tensor, norms: Tensor, mass: Tensor) -> Tensor:
        """Return the logarithms of masses next to nothing, by slabs of rows; of others nothing is written."""
        strips = triton.cdiv(self._columns, STRIP.columns)
        # Of many problems each is one slab, lest there is more of these than of the scores.
        resident = 32 * _processors(self._device) // (strips * self._problems)
        slabs = max(1, min(SLABS, triton.cdiv(self.rows, STRIP.rows), resident))
        logs = self._empty(self._problems, slabs, self._columns)
        self._launch(
            triton_sweep.faint,
            (strips, slabs, self._problems),
            *(*self._scores, price, self._c, norms, mass, logs, *self._sizes),
            shape=STRIP,
            **self._source.constants(),
            ROWS=STRIP.rows,
            TILE=STRIP.columns,
        )
        return logs

    def _logarithms(self, price: Tensor, norms: Tensor, mass: Tensor) -> Tensor:
        """Return the logarithms of the columns' masses."""
        found, logs = self._empty(self._problems, self._columns), self._faint(price, norms, mass)
        self._launch(
            triton_sweep.merge,
            (triton.cdiv(self._columns, STRIP.columns), self._problems),
            *(mass, logs, found, self.rows, logs.shape[1]),
            shape=STRIP,
            COLUMNS=self._columns,
            SLABS=SLABS,
            TILE=STRIP.columns,
        )
        return found

    def __call__(self, potential: Tensor) -> Masses:
        price = self._taken(potential)
        mass, norms, totals = self._sums(price, None)
        # Rows' normalisers are in powers of two.
        total = totals.sum(dim=1) / log2(e)
        return Masses(self._shown(self._logarithms(price, norms, mass)), self._shown(total), self.rows)

    def plain_steps(self, potential: Tensor, number: int, log_prior: Tensor, strength: float) -> Tensor:
        prior = log_prior.to(torch.float64).expand(*self._batch, -1).reshape(self._problems, -1).contiguous()
        beta = 1.0 if strength == inf else strength / (strength + self._epsilon)
        numbers = torch.cat([self._filled((1,), x) for x in (log(self.rows), self._epsilon, strength, beta)])
        price = self._taken(potential)
        for _ in range(number):
            mass, norms, _ = self._sums(price, None)
            logs, following = self._faint(price, norms, mass), torch.empty_like(price)
            self._launch(
                triton_sweep.plain_step,
                (self._problems,),
                *(mass, logs, price, prior, numbers, following, self.rows, logs.shape[1]),
                shape=VECTOR,
                COLUMNS=self._columns,
                SLABS=SLABS,
                TILE=VECTOR.columns,
                EXACT=strength == inf,
            )
            price = following
        return self._shown(price)

    def _product(self, potential: Tensor, x: Tensor | None, rows: slice = slice(None)) -> Tensor:
        """Return some rows of the plan, or of its product with a factor a column."""
        some = self._of(rows)
        size = (self._problems, some.rows) if x is not None else (self._problems, some.rows, self._columns)
        dtype = self.vector_dtype if x is not None else self.plan_dtype
        found = torch.empty(size, dtype=dtype, device=self._device)
        price = self._taken(potential)
        for wide in self._wide:
            shape = self._tiles(wide=wide)
            self._launch(
                triton_sweep.plan,
                (triton.cdiv(some.rows, shape.rows), self._problems),
                *(*some._scores, price, self._c, self._known.reach, price if x is None else x, found, *some._sizes),
                shape=shape,
                **self._source.constants(),
                ROWS=shape.rows,
                TILE=shape.columns,
                WIDE=wide,
                ONLY=len(self._wide) == 1,
                APPLY=x is not None,
            )
        return self._shown(found)

    def _of(self, rows: slice) -> "TritonSweep":
        """Return the sweep over some rows only."""
        if rows == slice(None):
            return self
        some = copy(self)
        some._source = self._source._replace(matrix=self._source.matrix[:, rows])
        some.rows = some._source.matrix.shape[1]
        return some

    def iter_plan(self, potential: Tensor) -> Iterator[Tensor]:
        if not self._source.depth:
            yield self._product(potential, None)
            return
        for rows in slices((self.rows, self._columns), PIECE):
            yield self._product(potential, None, rows)

    def labels(self, potential: Tensor) -> Tensor:
        shape = self._tiles(wide=True)
        found = torch.empty((self._problems, self.rows), dtype=torch.int64, device=self._device)
        self._launch(
            triton_sweep.labels,
            (triton.cdiv(self.rows, shape.rows), self._problems),
            *(*self._scores, self._taken(potential), found, *self._sizes),
            shape=shape,
            **self._source.constants(),
            ROWS=shape.rows,
            TILE=shape.columns,
        )
        return self._shown(found)

    def apply(self, potential: Tensor, x: Tensor) -> Tensor:
        return self._product(potential, self._taken(x))

    def apply_transpose(self, potential: Tensor, y: Tensor) -> Tensor:
        return self._shown(self._sums(self._taken(potential), self._taken(y))[0])

    def log_column_sums(self) -> Tensor:
        nothing = self._filled((self._problems, self._columns), 0.0)
        # As if no column had any mass yet and rows were not shifted: exp(s / epsilon) itself.
        norms = -self._known.base * self._c + self._filled((self._problems, self.rows), 0.0)
        return self._shown(self._logarithms(nothing, norms, nothing))

    def sum_rows(self, values: Tensor) -> Tensor:
        return values.sum(dim=-1)

    def bound_rows(self, values: Tensor) -> Tensor:
        return values.amax(dim=-1)


def _dense(scores: Tensor, epsilon: float, offset: float | None) -> TritonSweep:
    """Look at dense scores once; rows are shifted by their largest score, or all alike."""
    check_epsilon(epsilon, torch.float64, torch)
    batch, (rows, columns) = scores.shape[:-2], scores.shape[-2:]
    matrix = scores.detach().reshape(-1, rows, columns)
    # As in other backends, one copy serves all sweeps.
    matrix = matrix if matrix.stride(2) == 1 or columns == 1 else matrix.contiguous()
    source = Source(matrix, matrix, matrix, 1.0, columns, 0, "ieee")
    # Each by itself, so that all are aligned, also of an odd number of rows: kernels are compiled for that.
    base, least, size = (torch.empty((len(matrix), rows), dtype=torch.float64, device=scores.device) for _ in range(3))
    shape = tiles(columns, wide=True)
    launch(
        matrix.device,
        triton_sweep.extents,
        (triton.cdiv(rows, shape.rows), len(matrix)),
        *(*source[:4], base, least, size, rows, matrix.stride(0)),
        shape=shape,
        **source.constants(),
        ROWS=shape.rows,
        TILE=shape.columns,
        WIDE=matrix.dtype == torch.float64,
    )
    known = Known(base, (base / rows).sum(dim=1), ((base - least) / epsilon).amax(dim=1), size.amax(dim=1))
    if offset is not None:
        known = known._replace(base=torch.full((1,), offset, dtype=torch.float64, device=scores.device))
    return TritonSweep(source, known, epsilon, tuple(batch))


def prepare(scores: Tensor, epsilon: float) -> Sweep:
    """Prepare torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    return _dense(scores, epsilon, None)


def _tensor_float() -> bool:
    """Return whether products of matrices in single precision may be made in TF32."""
    matmul = torch.backends.cuda.matmul
    # torch has two names for it, and to ask by the older is an error where it was set by the newer.
    setting = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32) if setting is None else setting == "tf32"


def factored(product: Product, epsilon: float) -> Sweep | None:
    """Prepare products that are not kept; see :class:`infoassign_backends.protocol.Backend`."""
    check_epsilon(epsilon, torch.float64, torch)
    features, prototypes = (x if x.stride(1) == 1 else x.contiguous() for x in (product.features, product.prototypes))
    if features.dtype == torch.float64:
        return None  # tensor cores are of no use
    columns, depth = prototypes.shape

    def filled(shape: tuple[int, ...], value: float, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.full(shape, value, dtype=dtype, device=features.device)

    given = product.bias
    bias = filled((columns,), 0.0, torch.float32) if given is None else given.to(torch.float32).contiguous()
    precision = "tf32" if _tensor_float() else "tf32x3"
    source = Source(features[None], prototypes.contiguous(), bias, 1 / product.temperature, columns, depth, precision)
    known = Known(
        filled((1,), 0.0), filled((1,), 0.0), filled((1,), product.span / epsilon), filled((1,), product.reach)
    )
    return TritonSweep(source, known, epsilon)


def masses(scores: Tensor, potential: Tensor, epsilon: float, offset: float, known: Tensor) -> Masses:
    """Pass once over torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    return _dense(scores, epsilon, offset)(potential)


def plan(scores: Tensor, potential: Tensor, epsilon: float) -> Tensor:
    """Return the plan of torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    return next(_dense(scores, epsilon, None).iter_plan(potential))
