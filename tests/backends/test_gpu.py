"""CUDA tensors: kernels against the laws and the host, whole solves, graphs, streams, memory.

From a bare checkout, in an image that has torch, Triton, NumPy, SciPy, hypothesis, pytest and array_api_compat:

    PYTHONPATH=.:backends:training python -m pytest -m gpu tests/backends/test_gpu.py -p no:cacheprovider
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from scipy.special import logsumexp
from torch import Tensor

import infoassign as ia
from infoassign.testing import backend_laws, laws
from infoassign_backends import torch_backend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("default"),  # what other packages warn of in an image is not ours
]
DEVICE = torch.device("cuda", 0)
FIXED: dict[str, Any] = {"tol": 0, "acceleration": None, "check_finite": False}
HALVES = (torch.bfloat16, torch.float16)


def there(array: Any) -> Tensor:
    return torch.as_tensor(np.array(array), device=DEVICE)


def back(tensor: Tensor) -> Any:
    return tensor.detach().double().cpu().numpy()


def some_scores(*shape: int, seed: int = 0, scale: float = 3.0) -> Any:
    return np.random.default_rng(seed).normal(size=shape or (300, 40)) * scale


def total_variation(one: Any, other: Any) -> Any:
    """The mean over rows, for each problem."""
    return np.abs(one - other).sum(axis=-1).mean(axis=-1) / 2


# Laws


def test_backends() -> None:
    laws.backend(torch_backend, there, dtypes=("float64", "float32", "float16"))


@pytest.mark.parametrize("name", [name for name, _ in backend_laws.cases()])
def test_bfloat16_is_what_single_precision_says_of_its_values(name: str) -> None:
    """Bit for bit: both are read into single precision."""
    case = dict(backend_laws.cases())[name]
    half = there(case.scores).bfloat16()
    sweeps = [torch_backend.prepare(scores, case.epsilon) for scores in (half, half.float())]
    for v in case.potentials:
        price = there(v)
        one, other = (sweep(price) for sweep in sweeps)
        assert torch.equal(one.log_columns, other.log_columns)
        assert torch.equal(one.log_normalizers, other.log_normalizers)
        assert torch.equal(*(next(sweep.iter_plan(price)) for sweep in sweeps))
        assert torch.equal(*(sweep.labels(price) for sweep in sweeps))
        assert torch.equal(*(sweep.apply(price, price) for sweep in sweeps))


def mira_there(scores: Any, **options: Any) -> ia.Assignment:
    return ia.mira(there(scores), **options)


class OnHost:
    """An assignment whose arrays NumPy can read."""

    def __init__(self, assignment: ia.Assignment) -> None:
        self._assignment = assignment

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._assignment, name)
        return found.cpu().numpy() if isinstance(found, Tensor) else found


def test_the_solver() -> None:
    def solve(scores: Any, **options: Any) -> Any:
        return OnHost(mira_there(scores, **options))

    laws.assignment_solver(solve, settings=settings(max_examples=15))


@pytest.mark.parametrize("loss", [ia.imsvd_loss, ia.music_loss])
def test_joint_entropies(loss: Callable[..., Any]) -> None:
    def with_gradients(z1: Any, z2: Any, units: Any) -> Any:
        views = [there(z).requires_grad_() for z in (z1, z2)]
        cut = {"units" if loss is ia.imsvd_loss else "segment_size": units}
        value = loss(*views, **cut)
        return back(value), *map(back, torch.autograd.grad(value, views))

    laws.entropy_objective(with_gradients, settings=settings(max_examples=15))


# Whole solves


PROBLEMS: dict[str, tuple[Callable[..., Any], dict[str, Any], float]] = {
    "mira": (ia.mira, {"beta": 2 / 3}, 0.0),
    "mira, beta .95": (ia.mira, {"beta": 0.95}, 0.0),
    "softmax": (ia.mira, {"beta": 0}, 0.0),
    "sinkhorn": (ia.sinkhorn, {"epsilon": 0.5}, 0.0),
    "a prior": (ia.sinkhorn, {"epsilon": 0.5, "prior": [(i + 1) / 820 for i in range(40)]}, 0.0),
    "a penalty": (ia.assign, {"epsilon": 0.5, "strength": 2.0, "prior": [(i + 1) / 820 for i in range(40)]}, 0.0),
    "a mask": (ia.mira, {"beta": 2 / 3}, 0.3),
    "a mask, equal shares": (ia.sinkhorn, {"epsilon": 0.5}, 0.3),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_solves_are_within_their_bound_of_the_host(name: str, dtype: torch.dtype, batch: tuple[int, ...]) -> None:
    solve, options, masked = PROBLEMS[name]
    scores = some_scores(*batch, 300, 40)
    scores[np.random.default_rng(1).random(scores.shape) < masked] = -np.inf
    scores[..., 0] = 0
    given = there(scores).to(dtype)
    found = solve(given, **options)
    exact = solve(back(given), **options, tol=1e-10)
    assert np.all(np.asarray(found.converged))
    assert found.plan.dtype == dtype
    assert found.plan.device == found.potential.device == found.labels.device == DEVICE
    bounds = [np.asarray(x.cpu() if isinstance(x, Tensor) else x) for x in (found.error_bound, exact.error_bound)]
    off = total_variation(back(found._computed_plan), exact.plan)
    assert np.all(off <= bounds[0] + bounds[1])
    assert np.all(bounds[0] < 1e-2)
    agree = np.take_along_axis(exact.plan, back(found.labels).astype(int)[..., None], axis=-1)[..., 0]
    assert np.all(agree >= exact.plan.max(axis=-1) - 1e-2)
    assert np.all(np.asarray(found.verify().error_bound) < (1e-2 if dtype in HALVES else 1e-3))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("depth", [1, 16, 100, 128])
def test_factored_scores(dtype: torch.dtype, bias: bool, depth: int) -> None:
    random = np.random.default_rng(0)
    features, prototypes = (there(random.normal(size=(n, depth)) / depth**0.5).to(dtype) for n in (1000, 70))
    added = there(random.normal(size=70)).to(dtype) if bias else None
    dense = back(features) @ back(prototypes).T / 0.5 + (0.0 if added is None else back(added))
    for solve, options in ((ia.mira, {"beta": 0.9}), (ia.sinkhorn, {"epsilon": 0.3})):
        scores = ia.FactoredScores(features, prototypes, 0.5, added)
        found, exact = solve(scores, **options), solve(dense, **options, tol=1e-10)
        assert found.converged
        plan = np.concatenate([back(piece) for piece in found.iter_plan()])
        # What products of halves round is in neither bound, nor what three of TF32 leave out.
        slack = 5e-3 if dtype in HALVES else 1e-5
        assert total_variation(plan, exact.plan) <= found.error_bound + exact.error_bound + slack
        best = np.take_along_axis(exact.plan, back(found.labels).astype(int)[:, None], axis=1)[:, 0]
        assert np.all(best >= exact.plan.max(axis=1) - 1e-2)


def test_streamed_scores() -> None:
    scores = some_scores(1000, 40)
    for solve, options in ((ia.mira, {"beta": 0.9}), (ia.sinkhorn, {"epsilon": 0.3})):
        chunks = ia.StreamedScores(lambda: (there(scores[i : i + 128]) for i in range(0, 1000, 128)))
        found, exact = solve(chunks, **options), solve(scores, **options, tol=1e-10)
        plan = np.concatenate([back(piece) for piece in found.iter_plan()])
        assert total_variation(plan, exact.plan) <= found.error_bound + exact.error_bound
        assert np.array_equal(back(found.labels), exact.labels)


@pytest.mark.parametrize("exact", [False, True])
def test_implicit_gradients_are_those_of_the_host(exact: bool) -> None:
    scores, slope = some_scores(60, 12), some_scores(60, 12, seed=1)
    found = []
    for place in (DEVICE, torch.device("cpu")):
        given = torch.as_tensor(scores, device=place).requires_grad_()
        options: dict[str, Any] = {"gradient": "implicit", "tol": 1e-10}
        assignment = ia.sinkhorn(given, epsilon=0.7, **options) if exact else ia.mira(given, beta=0.8, **options)
        loss = (assignment.plan * torch.as_tensor(slope, device=place)).sum() + assignment.objective
        (gradient,) = torch.autograd.grad(loss, given)
        assert gradient.device == place
        found.append(back(gradient))
    np.testing.assert_allclose(*found, atol=1e-7)


def test_gradients_of_factors_are_those_of_the_host() -> None:
    random = np.random.default_rng(0)
    factors, slope = (random.normal(size=(60, 8)), random.normal(size=(12, 8))), random.normal(size=(60, 12))
    found = []
    for place in (DEVICE, torch.device("cpu")):
        given = [torch.as_tensor(x, device=place, dtype=torch.float32).requires_grad_() for x in factors]
        assignment = ia.mira(ia.FactoredScores(*given, 2.0), beta=0.8, gradient="implicit")
        loss = (torch.cat(list(assignment.iter_plan())) * torch.as_tensor(slope, device=place)).sum()
        found.append([back(x) for x in torch.autograd.grad(loss, given)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4 * np.abs(other).max())


@pytest.mark.parametrize("columns", [1, 10, 3000, 8192, 8193, 20_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_number_of_labels(columns: int, dtype: torch.dtype) -> None:
    given = there(some_scores(33, columns)).to(dtype)
    potential = np.random.default_rng(1).normal(size=columns)
    sweep = torch_backend.prepare(given, 0.5)
    scaled = (back(given) - potential) / 0.5
    log_plan = scaled - logsumexp(scaled, axis=1, keepdims=True)
    np.testing.assert_allclose(back(sweep(there(potential)).log_columns), logsumexp(log_plan, axis=0), atol=1e-5)
    np.testing.assert_allclose(back(next(sweep.iter_plan(there(potential)))), np.exp(log_plan), atol=1e-5)
    assert np.array_equal(back(sweep.labels(there(potential))), log_plan.argmax(axis=1))
    assert ia.mira(given, max_sweeps=3).sweeps <= 3


@pytest.mark.parametrize(("rows", "columns"), [(1, 3000), (1_000_000, 10), (1_000_001, 1)])
def test_any_number_of_rows(rows: int, columns: int) -> None:
    scores = some_scores(rows, columns).astype(np.float32)
    found, exact = ia.mira(there(scores)), ia.mira(scores.astype(float), tol=1e-10)
    assert found.converged
    assert total_variation(back(found.plan), exact.plan) <= found.error_bound + exact.error_bound


def test_more_entries_than_32_bits_count() -> None:
    """The last rows are where 32 bits end."""
    rows, columns = 2**21 + 5, 1030
    if torch.cuda.mem_get_info(DEVICE)[0] < 4 * rows * columns:
        pytest.skip("needs 9 GB")
    scores = torch.empty((rows, columns), dtype=torch.bfloat16, device=DEVICE).normal_()
    sweep = torch_backend.prepare(scores, 0.5)
    potential = torch.zeros(columns, dtype=torch.float64, device=DEVICE)
    masses = sweep(potential)
    assert float(masses.log_columns.exp().sum()) == pytest.approx(rows, rel=1e-6)
    expected = scores[-3:].double().argmax(dim=1)
    assert torch.equal(sweep.labels(potential)[-3:], expected)
    total = torch.zeros_like(potential)
    for part in scores.split(2**15):
        total += torch.softmax(part.float() / 0.5, dim=1).sum(dim=0, dtype=torch.float64)
    torch.testing.assert_close(masses.log_columns, total.log(), atol=1e-5, rtol=0)


# Devices, streams, graphs


def papers_solves() -> list[Callable[[Tensor], ia.Assignment]]:
    return [
        lambda s: ia.mira(s, max_sweeps=12, **FIXED),
        lambda s: ia.sinkhorn(s, epsilon=0.5, start="columns", max_sweeps=3, **FIXED),
        lambda s: ia.assign(s, epsilon=0.5, strength=2.0, max_sweeps=5, **FIXED),
    ]


@pytest.fixture
def strict_about_waiting() -> Iterator[None]:
    """Have torch raise an error where the host would wait for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("solve", papers_solves())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_fixed_steps_do_not_wait(solve: Callable[..., Any], dtype: torch.dtype, request: Any) -> None:
    scores = there(some_scores()).to(dtype)
    expected = solve(scores).plan  # compiled
    request.getfixturevalue("strict_about_waiting")
    found = solve(scores)
    plan, labels, marginal = found.plan, found.labels, found.marginal
    torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(plan, expected)
    assert labels.shape == plan.shape[:1]
    assert marginal.shape == plan.shape[1:]


@pytest.mark.parametrize("solve", papers_solves())
@pytest.mark.parametrize("shape", [(300, 40), (3, 65, 40), (33, 9000)])
def test_a_graph_replays_on_other_scores(solve: Callable[..., Any], shape: tuple[int, ...]) -> None:
    scores = there(some_scores(*shape)).float()
    side = torch.cuda.Stream(DEVICE)
    side.wait_stream(torch.cuda.current_stream(DEVICE))
    with torch.cuda.stream(side):
        solve(scores).plan  # noqa: B018  (compiled)
    torch.cuda.current_stream(DEVICE).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = solve(scores)
        plan, labels = found.plan, found.labels
    for seed in (1, 2):
        other = there(some_scores(*shape, seed=seed)).float()
        scores.copy_(other)
        graph.replay()
        expected = solve(other)
        assert torch.equal(plan, expected.plan)
        assert torch.equal(labels, expected.labels)


def test_another_stream() -> None:
    scores = there(some_scores(4000, 100)).float()
    expected = ia.mira(scores).plan
    stream = torch.cuda.Stream(DEVICE)
    stream.wait_stream(torch.cuda.current_stream(DEVICE))
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # what is on the default stream would overtake it
        later = scores + 1 - 1
        found = ia.mira(later).plan
    torch.cuda.current_stream(DEVICE).wait_stream(stream)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_streams_side_by_side() -> None:
    given = [there(some_scores(2000, 100, seed=seed)).float() for seed in range(4)]
    expected = [ia.mira(scores, max_sweeps=8, **FIXED).plan for scores in given]
    torch.cuda.synchronize(DEVICE)
    found = []
    streams = [torch.cuda.Stream(DEVICE) for _ in given]
    for scores, stream in zip(given, streams, strict=True):
        with torch.cuda.stream(stream):
            found.append(ia.mira(scores, max_sweeps=8, **FIXED).plan)
    torch.cuda.synchronize(DEVICE)
    assert all(map(torch.equal, found, expected))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one CUDA device")
def test_another_device_than_the_current_one() -> None:
    scores, second = there(some_scores()).float(), torch.device("cuda", 1)
    assert torch.cuda.current_device() == 0
    found = ia.mira(scores.to(second))
    assert found.plan.device == found.labels.device == second
    assert torch.equal(found.plan.to(DEVICE), ia.mira(scores).plan)
    views = [scores.to(second).requires_grad_() for _ in range(2)]
    ia.imsvd_loss(*views, units=20).backward()
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_same_bits_twice(dtype: torch.dtype) -> None:
    scores = there(some_scores(5000, 300)).to(dtype)
    one, other = (ia.sinkhorn(scores, epsilon=0.3) for _ in range(2))
    assert torch.equal(one.plan, other.plan)
    assert torch.equal(one.potential, other.potential)
    losses = []
    for _ in range(2):
        views = [scores[:500].float().requires_grad_(), scores[500:1000].float().requires_grad_()]
        loss = ia.imsvd_loss(*views, units=20)
        losses.append((loss.detach(), *torch.autograd.grad(loss, views)))
    assert all(map(torch.equal, *losses))


# Memory


def peak(run: Callable[[], Any]) -> int:
    run()
    torch.cuda.synchronize(DEVICE)
    torch.cuda.reset_peak_memory_stats(DEVICE)
    before = torch.cuda.memory_allocated(DEVICE)
    run()
    return torch.cuda.max_memory_allocated(DEVICE) - before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_beside_the_scores_there_are_only_vectors(dtype: torch.dtype) -> None:
    scores = torch.randn((65_536, 3000), device=DEVICE).to(dtype)
    assert peak(lambda: ia.mira(scores).potential) < 0.25 * scores.nbytes
    # The plan is made in single precision, and then rounded.
    plans = 4 * scores.numel() + (2 * scores.numel() if dtype == torch.bfloat16 else 0)
    assert peak(lambda: ia.mira(scores).plan) < plans + 0.25 * scores.nbytes


def test_factored_scores_are_never_whole() -> None:
    features, prototypes = (torch.randn((n, 64), device=DEVICE) / 8 for n in (500_000, 1000))
    scores = ia.FactoredScores(features, prototypes)
    assert peak(lambda: ia.sinkhorn(scores, epsilon=0.5, tol=1e-3).labels) < 0.25 * 4 * 500_000 * 1000


# Errors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_no_score_is_said(dtype: torch.dtype) -> None:
    for value, message in ((np.nan, "nan at row 7, column 3"), (np.inf, "inf at row 7, column 3")):
        scores = there(some_scores()).to(dtype)
        scores[7, 3] = value
        with pytest.raises(ValueError, match=message):
            ia.mira(scores)
        assert torch.isnan(ia.mira(scores, check_finite=False).plan).any()
    scores = there(some_scores()).to(dtype)
    scores[7] = -np.inf
    with pytest.raises(ValueError, match="row 7 of scores is all -inf"):
        ia.mira(scores)
    scores = there(some_scores()).to(dtype)
    scores[:, 3] = -np.inf
    with pytest.raises(ValueError, match="column 3 of scores is all -inf"):
        ia.sinkhorn(scores)


def test_layouts_that_are_not_plain() -> None:
    wide = there(some_scores(300, 80)).float()
    for scores in (wide[:, ::2], wide[::3, 5:45], wide.T[:40].T, wide[:, :40].flip(0)):
        torch.testing.assert_close(ia.mira(scores).plan, ia.mira(scores.contiguous()).plan)
