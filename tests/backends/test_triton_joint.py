"""Triton's joint entropies: on the CPU by its interpreter where there is no device, and on CUDA (pytest -m gpu)."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from infoassign_backends import joint, joint_torch
from infoassign_backends.protocol import Views

triton = pytest.importorskip("triton")
from infoassign_backends import triton_joint  # noqa: E402

INTERPRETED = not torch.cuda.is_available()
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [(3, 3), (1, 4, 2, 2, 5), (1, 1), (7,), (2,) * 40, (80, 33, 80, 100)]
LARGE = [(80,) * 9, (1, 700, 50, 213), (16,) * 64]
MATMUL = torch.backends.cuda.matmul
pytestmark = pytest.mark.theorem("B7")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and INTERPRETED:
        pytest.skip("no CUDA device")
    if request.param == "cpu" and not INTERPRETED:
        pytest.skip("Triton compiles for the device here")
    return request.param


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products as tensor cores make them: Triton's interpreter takes the bits of bfloat16 for integers, and no TF32."""
    if not INTERPRETED:
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def digits(x: Any, precision: Any) -> Any:
        if x.dtype == triton.language.bfloat16:
            return (x.data.astype(np.uint32) << 16).view(np.float32)
        if x.dtype == triton.language.float32 and precision.name == "TF32":
            return (x.data.view(np.int32) & -(2**13)).view(np.float32)
        return x.data.astype(np.float32)

    def dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, most_imprecise: Any) -> Any:
        product = digits(a, input_precision) @ digits(b, input_precision)
        return TensorHandle(product + d.data, d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)


@pytest.fixture(params=["ieee", "tf32"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    before = MATMUL.fp32_precision
    MATMUL.fp32_precision = request.param
    yield request.param
    MATMUL.fp32_precision = before


def definition(views: Views, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """P whole, in float64."""
    first, second, all_first, all_second = (view.detach().double() for view in views)
    p = all_first.T @ all_second / len(all_first)
    for start, stop in pairwise([0, *accumulate(sizes)]):
        p[start:stop, start:stop] = 0
    slope = torch.where(p > 0, 1 + torch.where(p > 0, p, 1).log(), 0) / len(all_first)
    return torch.special.xlogy(p, p).sum(), second @ slope.T, first @ slope


def some_views(
    sizes: tuple[int, ...],
    device: str,
    dtype: torch.dtype = torch.float32,
    rows: int = 11,
    here: slice = slice(None),
    share: float = 0.3,
) -> Views:
    """Soft codes, in which so many units are used."""
    generator = torch.Generator().manual_seed(len(sizes))
    both = []
    for _ in range(2):
        parts = []
        for size in sizes:
            part = torch.rand(rows, size, generator=generator, dtype=torch.float64)
            part[torch.rand(part.shape, generator=generator) > share] = 0
            parts.append(part / part.sum(dim=1, keepdim=True).clamp(min=1e-3))
        both.append(torch.cat(parts, dim=1).to(device, dtype))
    return Views(both[0][here], both[1][here], *both)


def agree(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], unit: float, least: float = 0.0) -> None:
    """To `unit` of the largest number, or of what is the least that it is made of."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        if one.numel():
            assert float((one.double() - other).abs().max()) <= unit * max(float(other.abs().max()), least)


def unit_of(dtype: torch.dtype) -> float:
    """What an answer may be off by: half from rounding it, as much from the slopes. In float32 there are more.

    Tensor cores cut off what does not fit when they add: as many units as there are additions, in the worst case.
    """
    return (1 if dtype.itemsize == 2 else 12 if INTERPRETED else 250) * torch.finfo(dtype).eps


def check(views: Views, sizes: tuple[int, ...], unit: float | None = None) -> None:
    dtype = views.first.dtype
    expected = definition(views, sizes)
    found = triton_joint.off_diagonal_and_gradients(views, sizes)
    assert {one.dtype for one in found} == {dtype}
    assert {one.device for one in found} == {views.first.device}
    assert found[0].shape == ()
    agree(found, expected, unit or unit_of(dtype), least=4 / len(views.all_first))
    alone = triton_joint.off_diagonal(views, sizes)
    assert alone.dtype == dtype
    assert torch.equal(alone, found[0])  # the same cells in the same order


QUICK = [(torch.float32, sizes) for sizes in SIZES[:5]] + [(dtype, SIZES[1]) for dtype in DTYPES[1:]]
THOROUGH = [(dtype, sizes) for dtype in DTYPES for sizes in SIZES if (dtype, sizes) not in QUICK]


@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.deep) for case in THOROUGH)],
    ids=lambda x: str(x) if isinstance(x, torch.dtype) else f"{len(x)}x{x[0]}",
)
def test_is_the_definition(device: str, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    for here in (slice(None), slice(2, 7), slice(0, 0)):
        check(some_views(sizes, device, dtype, here=here), sizes)


@pytest.mark.deep
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 64, 65, 200])
@pytest.mark.parametrize("sizes", LARGE, ids=lambda sizes: f"{len(sizes)}x{sizes[0]}")
def test_is_the_definition_over_tiles_and_panels(
    device: str, sizes: tuple[int, ...], rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for panel in (128 * 4, 4096):
        monkeypatch.setattr(triton_joint, "PANEL", panel)
        check(some_views(sizes, device, dtype, rows, slice(rows // 3, None)), sizes)


def test_follows_torch_in_its_precision(device: str, precision: str) -> None:
    """TF32 has 11 digits, of which the device drops the others; without it all are there."""
    sizes = (40, 30, 33)
    views = some_views(sizes, device, rows=70, share=1)
    expected = definition(views, sizes)
    error = [
        float((one.double() - other).abs().max() / other.abs().max())
        for one, other in zip(triton_joint.off_diagonal_and_gradients(views, sizes), expected, strict=True)
    ]
    assert max(error) < (2e-3 if precision == "tf32" else unit_of(torch.float32))
    assert precision == "ieee" or max(error) > 3e-5


@pytest.mark.deep
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_laws(device: str, dtype: torch.dtype) -> None:
    pytest.importorskip("hypothesis")
    from infoassign.testing.backend_laws import joint_entropies_are_those_of_the_definition as the_law

    backend: Any = SimpleNamespace(
        off_diagonal=triton_joint.off_diagonal,
        off_diagonal_and_gradients=triton_joint.off_diagonal_and_gradients,
        product=joint_torch.product,
    )

    def make(x: Any) -> Tensor:
        return torch.from_numpy(np.array(x)).to(device, dtype)

    for sizes in SIZES[:-1]:
        the_law(backend, make, sizes, "float32")


def uniform(device: str, dtype: torch.dtype, sizes: tuple[int, ...], rows: int) -> Views:
    one = torch.cat([torch.full((rows, size), 1 / size) for size in sizes], dim=1).to(device, dtype)
    return Views(one, one, one, one)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_uniform_codes(device: str, dtype: torch.dtype) -> None:
    """``P = 1 / (a b)`` in the block of segments of sizes a and b: OE is minus the sum of log(a b) over blocks."""
    sizes = (64, 16, 128, 4)  # whose inverses all dtypes have
    views = uniform(device, dtype, sizes, 33)
    found = triton_joint.off_diagonal_and_gradients(views, sizes)
    expected = -sum(log(a * b) for i, a in enumerate(sizes) for j, b in enumerate(sizes) if i != j)
    unit = unit_of(dtype)
    assert float(found[0]) == pytest.approx(expected, rel=unit)
    slopes = [sum(1 - log(a * b) for j, b in enumerate(sizes) if i != j) / 33 for i, a in enumerate(sizes)]
    every = torch.tensor(np.repeat(slopes, sizes)).expand(33, -1).to(device)
    agree(found[1:], (every, every), unit)


@pytest.mark.deep
def test_sums_over_many_cells_do_not_drown(device: str) -> None:
    """Of 4 million cells, all of one sign: float32 by itself loses 1e-4 of them."""
    sizes = (512,) * 4
    found = triton_joint.off_diagonal(uniform(device, torch.float32, sizes, 32), sizes)
    assert float(found) == pytest.approx(-4 * 3 * 2 * log(512), rel=3e-7)


@pytest.mark.deep
def test_sums_over_many_samples_do_not_drown(device: str) -> None:
    sizes = (5, 11)
    check(some_views(sizes, device, rows=4000, share=1), sizes)


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.deep), torch.bfloat16], ids=str)
def test_layouts(device: str, dtype: torch.dtype) -> None:
    """Rows, columns, or both apart in memory; the same memory for all rows; an odd start."""
    sizes = (30, 20, 17)
    views = some_views(sizes, device, dtype, rows=13)
    expected = triton_joint.off_diagonal_and_gradients(views, sizes)

    def apart(view: Tensor) -> Tensor:
        return view.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3]

    def shifted(view: Tensor) -> Tensor:
        room = view.new_zeros(view.numel() + 1)[1:].view(view.shape)
        return room.copy_(view)

    layouts: list[Callable[[Tensor], Tensor]] = [lambda view: view.T.contiguous().T, apart, shifted]
    for layout in layouts:
        found = triton_joint.off_diagonal_and_gradients(Views(*map(layout, views)), sizes)
        assert all(map(torch.equal, found, expected))
    one = views.first[:1].expand(13, -1)
    check(Views(one, views.second, one, views.all_second), sizes)


def test_subnormal_cells_count_as_little(device: str) -> None:
    first = torch.tensor([[1e-25, 1.0]], device=device)
    second = first.flip(1) * 1e-18
    views = Views(first, second, first, second)
    value, to_first, _ = triton_joint.off_diagonal_and_gradients(views, (1, 1))
    expected = definition(views, (1, 1))
    assert float(value) == pytest.approx(float(expected[0]), rel=0.2)
    np.testing.assert_allclose(to_first.cpu(), expected[1].cpu(), rtol=0.2, atol=1e-40)


def test_zeros_count_nothing(device: str) -> None:
    sizes = (3, 4)
    empty = torch.zeros((5, 7), device=device)
    found = triton_joint.off_diagonal_and_gradients(Views(empty, empty, empty, empty), sizes)
    assert not any(bool(one.any()) for one in found)
    hard = torch.zeros((4, 4), device=device)
    hard[:, [0, 2]] = 1  # P has four cells of 1, whose logarithm is 0, of which two are within segments
    value, to_first, _ = triton_joint.off_diagonal_and_gradients(Views(hard, hard, hard, hard), (2, 2))
    assert float(value) == 0
    assert torch.equal(to_first, hard / 4)


def test_no_silent_nan(device: str) -> None:
    sizes = (3, 4)
    views = some_views(sizes, device)
    views.all_first[2, 1] = torch.nan
    assert torch.isnan(triton_joint.off_diagonal(views, sizes))


@pytest.mark.parametrize(
    "dtype", [torch.float32, *(pytest.param(d, marks=pytest.mark.deep) for d in DTYPES[1:])], ids=str
)
def test_same_bits_twice(device: str, dtype: torch.dtype) -> None:
    sizes = (80, 33, 30)
    views = some_views(sizes, device, dtype, rows=40)
    one, other = (triton_joint.off_diagonal_and_gradients(views, sizes) for _ in range(2))
    assert all(map(torch.equal, one, other))
    assert all(map(torch.equal, views, some_views(sizes, device, dtype, rows=40)))  # nothing is written to


@pytest.mark.deep
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_information_survives_tf32(device: str, spread: float) -> None:
    """What passes the softmax is a small part of a gradient.

    Of it, slopes that are rounded whole would lose .0073 where codes are nearly uniform, and .0016 where they are not.
    """
    sizes, rows = (80,) * 8, 256
    generator = torch.Generator().manual_seed(0)
    z = torch.randn((2, rows, 8, 80), generator=generator).to(device) * spread
    q = z.softmax(dim=3).flatten(2)
    views = Views(q[0], q[1], q[0], q[1])
    before, MATMUL.fp32_precision = MATMUL.fp32_precision, "tf32"
    try:
        _, found, _ = triton_joint.off_diagonal_and_gradients(views, sizes)
    finally:
        MATMUL.fp32_precision = before
    _, expected, _ = definition(views, sizes)

    def passed(gradient: Tensor) -> Tensor:
        given, slope = (x.double().view(rows, 8, 80) for x in (q[0], gradient))
        return given * (slope - (given * slope).sum(dim=2, keepdim=True))

    error = (passed(found) - passed(expected)).norm() / passed(expected).norm()
    assert float(error) < (3e-3 if spread < 1 else 1.1e-3)


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{len(sizes)}x{sizes[0]}")
def test_segments_are_made_and_kept(device: str, sizes: tuple[int, ...]) -> None:
    owner, level = triton_joint._segments(sizes, torch.device(device))
    width = sum(sizes)
    assert len(owner) == len(level) == -(-width // 16) * 16
    np.testing.assert_array_equal(owner.cpu()[:width], np.repeat(np.arange(len(sizes)), sizes))
    assert bool((owner[width:] == -1).all())
    expected = level[:width, None] + level[:width]
    assert torch.equal(expected.bfloat16().float(), expected)
    each = torch.tensor(np.repeat(sizes, sizes)).log()
    assert float((expected.cpu() - 1 + each[:, None] + each).abs().max()) <= 0.25


def test_who_is_served() -> None:
    cpu = some_views((3, 3), "cpu")
    assert not triton_joint.served(cpu)
    assert joint_torch._on_device(cpu) is joint


def test_says_once_what_is_not_served(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    joint_torch._say_once.cache_clear()
    joint_torch._triton.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    of: Any = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float64)
    with caplog.at_level(logging.WARNING, logger="infoassign"):
        for _ in range(2):
            assert joint_torch._on_device(Views(of, of, of, of)) is joint
        assert len(caplog.records) == 1
        assert "float64" in caplog.text
        monkeypatch.setitem(sys.modules, "infoassign_backends.triton_joint", None)
        joint_torch._triton.cache_clear()
        for _ in range(2):
            assert joint_torch._on_device(Views(of, of, of, of)) is joint
        assert len(caplog.records) == 2
        assert "Triton cannot be imported" in caplog.text
    joint_torch._say_once.cache_clear()
    joint_torch._triton.cache_clear()


@pytest.mark.deep
@pytest.mark.parametrize(("architecture", "instruction"), [(80, "mma.sync"), (90, "wgmma.mma_async")])
def test_compiles_to_matrix_instructions(architecture: int, instruction: str, tmp_path: Path) -> None:
    """For devices that need not be there; the tests are interpreted, so in a process of its own."""
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "backends")]),
    }
    command = [sys.executable, str(root / "tests" / "backends" / "compile_joint.py"), str(architecture)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    dtypes = set()
    for row in rows:
        products = [name for name in row["matrix"] if name.startswith(instruction)]
        assert products or row["kernel"].startswith("_sum_rows"), row
        dtypes |= {dtype for dtype in ("f16.f16", "bf16.bf16", "tf32.tf32") for name in products if f".{dtype}" in name}
        # What all devices of a generation have: 163 KiB and 227 KiB for the large ones, 99 KiB for the others.
        assert row["shared"] <= (227 if architecture == 90 else 99) * 1024, row
    assert dtypes == {"f16.f16", "bf16.bf16", "tf32.tf32"}


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="no CUDA device")
class TestOnADevice:
    SIZES = (80,) * 102

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode")
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_nothing_waits_and_graphs_replay(self, dtype: torch.dtype) -> None:
        sizes = (80, 33, 80, 100)
        static = Views(*(view.clone() for view in some_views(sizes, "cuda", dtype, rows=70)))
        expected = triton_joint.off_diagonal_and_gradients(static, sizes)  # compiles
        unit = 2 * unit_of(dtype)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            triton_joint.off_diagonal_and_gradients(static, (100, 80, 33, 80))  # new segments
            triton_joint.off_diagonal(static, sizes)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        triton_joint._kept_segments.cache_clear()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = triton_joint.off_diagonal_and_gradients(static, sizes)
        graph.replay()
        agree(found, expected, unit)
        for view, other in zip(static, some_views((80, 33, 80, 99, 1), "cuda", dtype, rows=70), strict=True):
            view.copy_(other)
        graph.replay()
        torch.cuda.synchronize()
        agree(found, triton_joint.off_diagonal_and_gradients(static, sizes), unit)

    def test_other_streams(self) -> None:
        sizes = (80, 33, 80, 100)
        views = some_views(sizes, "cuda", rows=70)
        expected = triton_joint.off_diagonal_and_gradients(views, sizes)
        torch.cuda.synchronize()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            found = triton_joint.off_diagonal_and_gradients(views, sizes)
        stream.synchronize()
        assert all(map(torch.equal, found, expected))

    @pytest.mark.parametrize(
        ("dtype", "most"), [(torch.float32, 260e6), (torch.bfloat16, 160e6), (torch.float16, 160e6)], ids=str
    )
    def test_memory(self, dtype: torch.dtype, most: float) -> None:
        """Beside P, of 266 MB: with both gradients, of 67 MB each in float32."""
        z = torch.randn(2, 2048, 102, 80, device="cuda")
        q = z.softmax(dim=3).flatten(2).to(dtype)
        del z
        views = Views(q[0], q[1], q[0], q[1])
        triton_joint.off_diagonal_and_gradients(views, self.SIZES)  # the workspace of cuBLAS
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = triton_joint.off_diagonal_and_gradients(views, self.SIZES)
        torch.cuda.synchronize()
        assert torch.cuda.max_memory_allocated() - before < most
        agree(found, definition(views, self.SIZES), unit_of(dtype))

    def test_autograd_and_autocast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = (30, 20, 17)
        views = some_views(sizes, "cuda", rows=50)
        expected = definition(views, sizes)
        monkeypatch.delattr(joint, "off_diagonal_and_gradients")
        for dtype in (None, torch.bfloat16, torch.float16):
            first, second = (view.clone().requires_grad_() for view in views[:2])
            with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
                value = joint_torch.off_diagonal(Views(first, second, first, second), sizes)
                value.backward()
            assert value.dtype == torch.float32
            agree((value, first.grad, second.grad), expected, unit_of(torch.float32))
