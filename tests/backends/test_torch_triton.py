"""CUDA's passes, run by Triton's interpreter on the host, and compiled for devices that are not here."""

import json
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch.utils._python_dispatch import TorchDispatchMode

import infoassign as ia
from infoassign.objective import Family
from infoassign.solver import plain_steps
from infoassign.testing import backend_laws, laws
from infoassign_backends import joint_torch, numpy_backend, torch_backend
from infoassign_backends.protocol import Product

pytest.importorskip("triton")
torch_triton = pytest.importorskip("infoassign_backends.torch_triton")
pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter is for machines without a device"),
    # NumPy's, at exp2(-inf) and the like.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
BACKEND = SimpleNamespace(
    **{name: getattr(torch_triton, name) for name in ("prepare", "factored", "masses", "plan")},
    **{name: getattr(joint_torch, name) for name in ("product", "off_diagonal", "off_diagonal_and_gradients")},
)


def tensor(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few programs, since the interpreter runs them one by one."""
    monkeypatch.setattr(torch_triton, "SLABS", 2)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of more than one tile, which otherwise takes thousands of labels."""
    monkeypatch.setattr(torch_triton, "WHOLE", {False: 0, True: 0})
    monkeypatch.setattr(torch_triton, "tiles", lambda columns, *, wide: torch_triton.Shape(8, 16, 4))


@pytest.fixture
def products_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter multiplies the bits of bfloat16 as if they were whole numbers; here it is their values."""
    from triton.language import float32
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    multiply = InterpreterBuilder.create_dot

    def values(x: Any) -> Any:
        if x.data.dtype != np.uint16:
            return x
        return TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return multiply(self, values(a), values(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels for all torch tensors."""
    for name in ("prepare", "factored", "masses", "plan"):
        monkeypatch.setattr(torch_backend, name, getattr(torch_triton, name))


def case(name: str) -> backend_laws.Case:
    return dict(backend_laws.cases())[name]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["masked", "a label with next to no mass", "a small epsilon"])
@pytest.mark.parametrize("law", backend_laws.LAWS[:3], ids=lambda law: law.__name__)
def test_some_cases_of_the_laws(law: Any, name: str, dtype: str) -> None:
    problem = case(name)
    law(BACKEND, tensor, problem._replace(scores=problem.scores.astype(dtype)))


@pytest.mark.parametrize("law", backend_laws.LAWS[:3], ids=lambda law: law.__name__)
def test_rows_of_several_tiles(law: Any, tiled: None) -> None:
    problem = case("a batch of batches")
    scores, potentials = problem.scores[:1, 0].astype("float32"), problem.potentials[:2, :1, 0]
    law(BACKEND, tensor, backend_laws.Case(scores, potentials, problem.epsilon))


@pytest.mark.deep
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_all_laws(dtype: str) -> None:
    laws.backend(BACKEND, tensor, dtypes=(dtype,))


@pytest.mark.deep
def test_all_laws_of_rows_of_several_tiles(tiled: None) -> None:
    laws.backend(BACKEND, tensor, dtypes=("float32",))


def test_bfloat16_is_single_precision_of_the_same_values(random: np.random.Generator) -> None:
    scores = tensor(random.normal(size=(9, 20)) * 4).to(torch.bfloat16)
    potential = tensor(random.normal(size=20))
    found, expected = (torch_triton.prepare(x, 0.3) for x in (scores, scores.float()))
    for one, other in zip(found(potential)[:2], expected(potential)[:2], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(next(found.iter_plan(potential)), next(expected.iter_plan(potential)))
    assert torch.equal(found.labels(potential), expected.labels(potential))


@pytest.mark.parametrize("offset", [0.0, 1e3, -3e5, 1e7])
def test_entries_are_as_exact_as_the_sweep_says(offset: float, random: np.random.Generator) -> None:
    # 1e7 is more than single precision's exponents can take; from -3e5 they would be off by 2 % if not split.
    scores = (random.normal(size=(40, 30)) * 8 + offset).astype(np.float32)
    potential = random.normal(size=30) * 5 + offset / 7
    sweep = torch_triton.prepare(tensor(scores), 0.5)
    scaled = (scores.astype(np.longdouble) - potential) / 0.5
    expected = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))
    found = next(sweep.iter_plan(tensor(potential))).numpy()
    heavy = expected > 1e-30
    assert np.abs(found / expected - 1)[heavy].max() <= sweep.entry_error + sweep.sum_error
    masses = np.exp(sweep(tensor(potential)).log_columns.numpy())
    assert np.abs(masses / expected.sum(axis=0) - 1).max() <= sweep.entry_error + sweep.sum_error


def test_a_nan_is_seen_and_stays_in_its_problem(random: np.random.Generator) -> None:
    scores = tensor(random.normal(size=(2, 6, 5)).astype(np.float32))
    scores[1, 2, 3] = torch.nan
    sweep = torch_triton.prepare(scores, 1.0)
    found = sweep(torch.zeros(2, 5, dtype=torch.float64))
    for values in (sweep.offset, found.log_normalizers, found.log_columns.sum(dim=1)):
        assert values.isfinite().tolist() == [True, False]


SOLUTIONS = {
    "mira": partial(ia.mira, beta=0.7),
    "sinkhorn": partial(ia.sinkhorn, epsilon=0.5),
    "finite strength": partial(ia.assign, epsilon=0.5, strength=2.0),
    "SwAV's three iterations": partial(
        ia.sinkhorn, epsilon=0.5, start="columns", tol=0, max_sweeps=3, acceleration=None
    ),
    "ten of eq. 7": partial(ia.mira, beta=0.7, tol=0, max_sweeps=11, acceleration=None),
}


@pytest.mark.parametrize("solve", SOLUTIONS.values(), ids=SOLUTIONS)
def test_solutions_are_those_of_the_host(solve: Any, everywhere: None, random: np.random.Generator) -> None:
    scores = (random.normal(size=(64, 12)) * 2).astype(np.float32)
    found, expected = solve(tensor(scores)), solve(scores.astype(np.float64))
    assert found.plan.dtype == torch.float32
    assert found.sweeps <= expected.sweeps + 2
    distance = np.abs(found.plan.numpy() - expected.plan).sum(axis=1).mean() / 2
    assert distance <= (found.error_bound + expected.error_bound if found.converged else 1e-5)
    assert (found.labels.numpy() == expected.labels).all()


@pytest.mark.parametrize("strength", [0.2, 5.0, 1e6, np.inf])
def test_plain_steps_on_the_device_are_those_of_the_host(strength: float, random: np.random.Generator) -> None:
    scores, start = random.normal(size=(2, 30, 300)), random.normal(size=(2, 300))
    scores[0, :, 7] = -np.inf if strength < np.inf else -3000
    prior = random.dirichlet(np.ones(300), size=2)
    family = Family(0.5, strength, np.log(prior))
    expected = plain_steps(numpy_backend.prepare(scores, 0.5), family, start, 3)
    found = torch_triton.prepare(tensor(scores), 0.5).plain_steps(tensor(start), 3, tensor(np.log(prior)), strength)
    assert np.allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_the_default_tolerance_is_above_what_rounding_leaves(everywhere: None) -> None:
    # At the size of MIRA's training the certificate has to reach 1e-5, or every solve would end as stalled.
    sweep = torch_triton.prepare(torch.zeros(8, 3000), 1 / 3)
    assert 1.5 * (sweep.sum_error + sweep.entry_error) < 0.7e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("labels", [5, 70])
def test_products(dtype: torch.dtype, labels: int, products_of_bfloat16: None, random: np.random.Generator) -> None:
    features, prototypes = (
        torch.nn.functional.normalize(tensor(random.normal(size=(n, 20))), dim=1).to(dtype) for n in (150, labels)
    )
    bias = tensor(random.normal(size=labels)).to(dtype)
    bias[3] = -torch.inf
    scores = features.double() @ prototypes.double().T / 0.1 + bias.double()
    potential = tensor(random.normal(size=labels))
    potential[3] = 0
    found = torch_triton.factored(Product(features, prototypes, 0.1, bias, 15.0, np.inf), 0.5)
    expected = torch_backend.prepare(scores, 0.5)
    # Products are summed in single precision: 21 units of a score of 10 at most, over epsilon.
    unit = 21 * 2**-24 * 20 + found.sum_error + found.entry_error
    there, wanted = found(potential), expected(potential)
    assert there.log_columns[3] == -torch.inf
    usable = torch.arange(labels) != 3
    assert (there.log_columns - wanted.log_columns)[usable].abs().max() < unit
    assert abs(there.log_normalizers / 150 - (wanted.log_normalizers / 150 + expected.offset / 0.5)) < unit
    plan = torch.cat(list(found.iter_plan(potential)))
    assert (plan - next(expected.iter_plan(potential))).abs().max() < unit
    assert torch.equal(found.labels(potential), expected.labels(potential))
    x, y = tensor(random.normal(size=labels)), tensor(random.normal(size=150))
    assert (found.apply(potential, x) - expected.apply(potential, x)).abs().max() < 4 * unit
    assert (found.apply_transpose(potential, y) - expected.apply_transpose(potential, y)).abs().max() < 150 * unit
    assert (found.log_column_sums() - expected.log_column_sums())[usable].abs().max() < unit


def test_pieces_of_the_plan_of_products(monkeypatch: pytest.MonkeyPatch, random: np.random.Generator) -> None:
    features, prototypes = tensor(random.normal(size=(150, 8))).float(), tensor(random.normal(size=(10, 8))).float()
    sweep = torch_triton.factored(Product(features, prototypes, 1.0, None, 50.0, 100.0), 1.0)
    potential = tensor(random.normal(size=10))
    (whole,) = sweep.iter_plan(potential)
    monkeypatch.setattr(torch_triton, "PIECE", 400)
    pieces = list(sweep.iter_plan(potential))
    assert len(pieces) > 2
    assert torch.equal(torch.cat(pieces), whole)


def test_a_dataset_of_products_is_labelled(everywhere: None, random: np.random.Generator) -> None:
    features, prototypes = (
        random.normal(size=(300, 8)).astype(np.float32),
        random.normal(size=(6, 8)).astype(np.float32),
    )
    solve = partial(ia.sinkhorn, epsilon=1.0, tol=1e-4)
    found = solve(ia.FactoredScores(tensor(features), tensor(prototypes), 2.0))
    expected = solve(features.astype(float) @ prototypes.T.astype(float) / 2)
    assert found.converged
    assert (found.labels.numpy() == expected.labels).mean() > 0.99
    assert found.marginal_error <= 1e-4


def test_a_bias_may_be_a_column_of_a_matrix(random: np.random.Generator) -> None:
    features, prototypes = tensor(random.normal(size=(40, 8))).float(), tensor(random.normal(size=(10, 8))).float()
    bias, potential = tensor(random.normal(size=(10, 3))).float()[:, 1], tensor(random.normal(size=10))
    found, expected = (
        torch_triton.factored(Product(features, prototypes, 1.0, x, 50.0, 100.0), 1.0)(potential)
        for x in (bias, bias.clone())
    )
    assert torch.equal(found.log_columns, expected.log_columns)


def test_products_are_made_in_tf32_where_torch_may(random: np.random.Generator) -> None:
    product = Product(torch.ones(3, 2), torch.ones(2, 2), 1.0, None, 2.0, 0.0)
    matmul = torch.backends.cuda.matmul
    assert torch_triton.factored(product, 1.0)._source.precision == "tf32x3"
    try:
        matmul.fp32_precision = "tf32"  # after which to read `allow_tf32` is an error
        assert torch_triton.factored(product, 1.0)._source.precision == "tf32"
        matmul.fp32_precision = "none"
        matmul.allow_tf32 = True
        assert torch_triton.factored(product, 1.0)._source.precision == "tf32"
    finally:
        matmul.allow_tf32 = False
    assert torch_triton.factored(product, 1.0)._source.precision == "tf32x3"


def test_double_precision_products_are_left_to_tiles() -> None:
    double = torch.ones(3, 2, dtype=torch.float64)
    assert torch_triton.factored(Product(double, double, 1.0, None, 1.0, 1.0), 1.0) is None


def test_the_slow_way_is_taken_where_there_is_no_kernel_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    torch_backend._elsewhere.cache_clear()
    scores = torch.zeros(4, 3, device="meta")
    with caplog.at_level(logging.WARNING, "infoassign"):
        for _ in range(2):
            assert torch_backend.prepare(scores, 1.0).offset.device.type == "meta"
    (record,) = caplog.records
    assert "there are no kernels for meta" in record.message
    torch_backend._elsewhere.cache_clear()


class Transfers(TorchDispatchMode):
    """What is copied between the host and a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in (*args, out) if isinstance(x, torch.Tensor) and (x.ndim or x is out)}
        if devices - {"meta"}:
            self.found.append(str(func))
        return out


@pytest.mark.parametrize("solve", [ia.mira, partial(ia.sinkhorn, start="columns")], ids=["mira", "sinkhorn"])
def test_fixed_steps_neither_read_nor_send(solve: Any) -> None:
    # Values of meta tensors cannot be read; what is sent to a device could not be captured in a CUDA graph.
    scores = torch.empty(64, 10, device="meta")
    with Transfers() as transfers:
        plan = solve(scores, tol=0, max_sweeps=3, acceleration=None, check_finite=False).plan
    assert plan.device.type == "meta"
    assert transfers.found == []


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("solve", [ia.mira, partial(ia.sinkhorn, start="columns")], ids=["mira", "sinkhorn"])
def test_nor_does_what_is_around_the_kernels(
    solve: Any, batch: tuple[int, ...], everywhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    monkeypatch.setattr(torch_triton, "launch", lambda _, kernel, *given, **constants: launched.append(kernel))
    scores = torch.empty((*batch, 64, 10), device="meta", dtype=torch.bfloat16)
    with Transfers() as transfers:
        found = solve(scores, tol=0, max_sweeps=3, acceleration=None, check_finite=False)
        assert found.plan.device.type == found.labels.device.type == "meta"
    assert transfers.found == []
    assert torch_triton.triton_sweep.plain_step in launched


def test_slabs_of_many_small_problems_take_less_than_their_scores() -> None:
    scores = torch.zeros(64, 33, 40)
    sweep = torch_triton.prepare(scores, 1.0)
    price, norms = torch.zeros(64, 40, dtype=torch.float64), torch.zeros(64, 33, dtype=torch.float64)
    assert sweep._faint(price, norms, price + 33).shape == (64, 1, 40)
    assert torch_triton.prepare(scores[0], 1.0)._faint(price[0], norms[0], price[0] + 33).shape == (1, 2, 40)


def test_another_size_of_a_batch_compiles_nothing() -> None:
    program = Path(__file__).with_name("triton_launches.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first: dict[str, Any] = {}
    for kind, size, kernels in map(json.loads, done.stdout.splitlines()):
        assert kernels == first.setdefault(kind, kernels), size
    assert first.keys() == {"dense", "products"}


@pytest.mark.deep
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_devices(capability: int, dtype: str) -> None:
    program = Path(__file__).with_name("compile_sweeps.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, program, str(capability), dtype], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    names = {launch["kernel"] for launch in found}
    assert names == {"extents", "masses", "columns", "collect", "faint", "merge", "plain_step", "plan", "labels"}
    tensor_core = "mma.sync" if capability == 80 else "wgmma.mma_async"
    for launch in found:
        constants, instructions = launch["constants"], launch["instructions"]
        assert launch["shared"] <= 99 * 1024, "more than every device of a generation has"
        if constants.get("WIDE") is False and launch["kernel"] != "extents":
            assert instructions["ex2.approx"] > 0
            if constants["DEPTH"]:
                assert instructions[tensor_core] > 0
        if launch["kernel"] == "masses" and constants["COLUMNS"] == 3000 and not constants["WIDE"]:
            assert instructions["cp.async.c"] > 0, "loads are not under way while others are worked on"
