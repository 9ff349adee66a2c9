"""One pass over the scores: every backend keeps the laws of backends, and what each has of its own."""

import pickle
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

import infoassign as ia
from infoassign.testing import backend_laws, laws
from infoassign_backends import (
    BACKENDS,
    backend_for,
    blocked,
    host,
    kernel,
    numpy_backend,
    reference,
    sums,
    torch_backend,
)

Make = Callable[[Any], Any]
EPSILON = 0.3


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The compiled passes, used for everything, cut into many pieces."""
    module = pytest.importorskip("infoassign_backends.compiled")
    monkeypatch.setattr(host, "COMPILE_FROM", 0)
    monkeypatch.setattr(host, "THREADED_FROM", 64)
    monkeypatch.setattr(host, "TASK", 64)
    monkeypatch.setattr(kernel, "UNKEPT", 400)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    return module


def some_scores(shape: tuple[int, ...] = (17, 6), scale: float = 4.0) -> Any:
    scores = np.random.default_rng(0).normal(size=shape) * scale
    scores[..., 3, 2] = -np.inf
    return scores


def literal_log_plan(scores: Any, potential: Any, epsilon: float = EPSILON) -> Any:
    scaled = (scores - potential[..., None, :]) / epsilon
    return scaled - logsumexp(scaled, axis=-1, keepdims=True)


@pytest.mark.parametrize("backend", [numpy_backend, reference], ids=lambda backend: backend.__name__)
def test_numpy_arrays(backend: ModuleType) -> None:
    laws.backend(backend, dtypes=("float64", "float32", "float16"))


@pytest.mark.parametrize("backend", [torch_backend, reference], ids=lambda backend: backend.__name__)
def test_torch_tensors(backend: ModuleType) -> None:
    laws.backend(backend, lambda x: torch.from_numpy(np.array(x)), dtypes=("float64", "float32", "float16"))


@pytest.mark.parametrize("make", ["strict"], indirect=True)
def test_the_standard_alone_will_do(make: Make) -> None:
    laws.backend(reference, make)


def test_compiled_passes(compiled: ModuleType) -> None:
    laws.backend(numpy_backend, dtypes=("float64", "float32", "float16"))
    assert host.passes(1) is compiled


@pytest.mark.parametrize("threads", ["1", "5"])
def test_threads_change_nothing(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(host, "THREADED_FROM", 1)
    monkeypatch.setattr(host, "TASK", 40)
    laws.backend(numpy_backend, dtypes=("float32",))


def test_bfloat16() -> None:
    case = dict(backend_laws.cases())["masked"]
    given = torch.from_numpy(case.scores).bfloat16()
    sweep = torch_backend.prepare(given, case.epsilon)
    expected = literal_log_plan(given.double().numpy(), case.potentials[1])
    (plan,) = sweep.iter_plan(torch.from_numpy(case.potentials[1]))
    assert plan.dtype == torch.float32
    np.testing.assert_allclose(plan, np.exp(expected), atol=3e-7)


@pytest.mark.parametrize("scale", [1.0, 40.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_compiled_passes_are_those_of_numpy(compiled: Any, dtype: Any, scale: float) -> None:
    """Each pass by itself, on numbers of rows that are no multiple of what is worked on together."""
    random = np.random.default_rng(0)
    kind = np.float64 if dtype == np.float64 else np.float32
    unit = 1e-12 if dtype == np.float64 else 3e-7
    for rows in (1, 7, 8, 37):
        with np.errstate(over="ignore"):
            scores = np.clip(random.normal(size=(2, rows, 515)) * scale, -6e4, 6e4).astype(dtype)
        scores[0, 0, 5] = -np.inf
        price, start, x = random.normal(size=(3, 2, 515)) * min(scale, 40)
        start = np.maximum(-np.abs(start), -20)  # rows' sums are not to be so small that what underflows matters
        found, ends = [], []
        for passes in (blocked, compiled):
            entries, of = np.empty(scores.shape, kind), blocked.Rows(*np.empty((4, 2, rows)))
            mass = passes.fill(scores, price, EPSILON, start, entries, of)
            again = blocked.Rows(*np.empty((4, 2, rows)))
            unkept = passes.fill(scores, price, EPSILON, start, None, again)
            np.testing.assert_allclose(unkept, mass, rtol=3 * unit, atol=1e-14 if kind == np.float32 else 1e-200)
            tops = passes.tops(scores, price, EPSILON, of)
            sums_there = np.empty((2, rows))
            swept = passes.sweep(entries, np.exp(start), sums_there)
            np.testing.assert_allclose(swept, mass, rtol=1e-12)
            np.testing.assert_allclose(sums_there, of.sums, rtol=1e-12)
            there, back = passes.times_columns(entries, x), passes.times_rows(entries, of.sums)
            passes.normalize(entries, np.exp(start), of.sums)
            lse = of.shift + np.log(of.sums)
            found.append((of.largest, np.maximum(of.least, -1e9), lse, there / of.sums, entries))
            assert np.isfinite(back).all()
            ends.append(tops)
        np.testing.assert_allclose(*ends, atol=0.35)  # up to how their rows are shifted
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=4 * unit, atol=4 * unit * np.abs(other).max())


def test_single_scores_are_as_good_as_single_entries_can_be(compiled: Any) -> None:
    """The exponent costs nothing, however large: entries are off by their own and the plan's rounding."""
    for scale, epsilon in ((1.0, 0.3), (10.0, 0.3), (1.0, 1e-3), (300.0, 0.3)):
        single = some_scores((50, 300), scale=scale).astype(np.float32)
        potential = np.random.default_rng(1).normal(size=300) * epsilon
        sweep = kernel.KernelSweep(single, epsilon)
        exact = np.exp(literal_log_plan(single.astype(float), potential, epsilon))
        (plan,) = sweep.iter_plan(potential)
        off = np.abs(plan - exact) / np.maximum(exact, 1e-30)
        assert off.max() <= sweep.entry_error + sweep.sum_error


@pytest.mark.parametrize("passes", ["blocked", "compiled"])
def test_a_kernel_serves_potentials_as_far_as_it_says(passes: str, request: pytest.FixtureRequest) -> None:
    """Also columns that are all but empty, at the furthest drift that is granted."""
    if passes == "compiled":
        request.getfixturevalue("compiled")
    random = np.random.default_rng(0)
    for poverty in (0.0, 8.0, 14.0, 20.0, 30.0, 1000.0):
        scores = random.normal(size=(40, 12)).astype(np.float32)
        scores[:, 3] -= np.float32(poverty)
        sweep = kernel.KernelSweep(scores, 1.0)
        made = sweep._made
        assert made is not None
        assert 20 <= made.reach <= 40
        for sign in (1, -1):
            potential = made.potential[0] + random.uniform(size=12) * made.reach
            potential[3] = potential.min() if sign > 0 else potential.max()
            masses = sweep(potential)
            assert sweep._made is made
            expected = logsumexp(literal_log_plan(scores.astype(float), potential, 1.0), axis=0)
            np.testing.assert_allclose(masses.log_columns, expected, atol=3e-7)
        sweep(made.potential[0] + np.linspace(0, 1.01 * made.reach, 12))
        assert sweep._made is not made


@pytest.fixture(params=["blocked", "compiled"])
def either_passes(request: pytest.FixtureRequest) -> None:
    """Both kinds of passes, one after the other."""
    if request.param == "compiled":
        request.getfixturevalue("compiled")


@pytest.mark.usefixtures("either_passes")
def test_a_problem_with_a_nan_leaves_the_others_alone() -> None:
    """Also one with a label whose entries vanish unless they are made with care."""
    scores = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32)
    scores[1, :, 2] -= 300
    alone = ia.sinkhorn(scores[1])
    scores[0, 0, 0] = np.nan
    found = ia.sinkhorn(scores, check_finite=False)
    assert np.isnan(found.plan[0]).any()
    assert found.converged[1]
    np.testing.assert_allclose(found.plan[1], alone.plan, atol=1e-4)


@pytest.mark.usefixtures("either_passes")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_potential_is_too_far(dtype: Any) -> None:
    """Not even where the rounding of a price is more than exp() can take."""
    random = np.random.default_rng(0)
    scores = (random.normal(size=(14, 6)) * 200).astype(dtype)
    scores[random.random(scores.shape) < 0.3] = -np.inf
    scores[:, 0] = 0
    sweep = kernel.KernelSweep(scores, 1.0)
    for far in (1e12, 1e17, 1e22, 1e30, 1e100):
        potential = random.normal(size=6) * far
        found = sweep(potential)
        expected = logsumexp(literal_log_plan(scores.astype(float), potential, 1.0), axis=0)
        np.testing.assert_allclose(found.log_columns, expected, atol=1e-14 * far)
        assert np.isfinite(found.log_normalizers)
        np.testing.assert_allclose(next(sweep.iter_plan(potential)).sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(sweep.apply(potential, np.ones(6)), 1, atol=1e-12)


def test_a_label_that_is_all_but_forbidden_is_no_proof() -> None:
    scores = np.random.default_rng(0).normal(size=(20, 5))
    scores[:, 2], scores[:, 3] = -1e30, -1e30 / 3
    assert ia.sinkhorn(scores).status is ia.Status.STALLED


@pytest.mark.usefixtures("either_passes")
@pytest.mark.parametrize("unit", [1e-39, 1e-30, 1e30, 1e37])
def test_units_at_the_ends_of_single_precision(unit: float) -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(17, 6)) * unit
    scores = (scores - scores.max(axis=1, keepdims=True)).astype(np.float32)
    potential = random.normal(size=6) * unit
    exact = np.exp(literal_log_plan(scores.astype(float), potential, unit))
    (plan,) = kernel.KernelSweep(scores, unit).iter_plan(potential)
    np.testing.assert_allclose(plan, exact, rtol=3e-7)


@pytest.mark.filterwarnings("error")
def test_scores_near_the_largest_number() -> None:
    scores = np.array([[1e308, 0.0], [1e308, -1e308], [1.2e308, 1.0]])
    np.testing.assert_allclose(ia.mira(scores).objective, -(scores[:, 0] / 3).sum())


def test_labels_of_rows_that_are_far_up() -> None:
    """There prices are below the rounding of a score."""
    scores = np.full((6, 2), 1e16)
    for given in (scores, scores.astype(np.float32), ia.StreamedScores(scores, chunk_rows=4)):
        found = ia.assign(given, epsilon=0.1, prior=np.array([0.2, 0.8], getattr(given, "dtype", float)), strength=1)
        np.testing.assert_array_equal(found.labels, 1)


def test_a_potential_may_be_written_to_afterwards() -> None:
    scores, potential = some_scores(), np.zeros(6)
    sweep = kernel.KernelSweep(scores, EPSILON)
    for i in range(6):
        potential[i] += i / 2
        expected = np.exp(literal_log_plan(scores, potential))
        np.testing.assert_allclose(sweep.apply(potential, np.arange(6.0)), expected @ np.arange(6.0), atol=1e-12)


@pytest.mark.usefixtures("either_passes")
@pytest.mark.parametrize("name", ["fill", "sweep", "normalize"])
def test_an_interrupted_pass_is_made_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = some_scores((40, 6))
    sweep = kernel.KernelSweep(scores, EPSILON)
    here, there = np.random.default_rng(0).normal(size=(2, 6))
    expected = sweep(here).log_columns
    passes = host.passes(scores.size)
    whole = getattr(passes, name)

    def interrupted(*given: Any) -> None:
        whole(*given)
        raise KeyboardInterrupt

    far = 1e3 * there if name == "fill" else there
    with monkeypatch.context() as patch:
        patch.setattr(passes, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(sweep.iter_plan(far))
    np.testing.assert_allclose(sweep.apply(here, np.ones(6)), 1, rtol=1e-12)
    np.testing.assert_allclose(sweep(here).log_columns, expected, rtol=1e-12)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_no_thread_works_on(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    begun: list[int] = []
    ended: list[int] = []

    def work(task: int) -> int:
        begun.append(task)
        if task == 3:
            raise error(task)
        time.sleep(0.02)
        ended.append(task)
        return task

    with pytest.raises(error, match="3"):
        host.in_threads(work, list(range(50)))
    assert sorted([3, *ended]) == sorted(begun)
    assert len(begun) < 10
    assert host.in_threads(lambda task: -task, list(range(50))) == [-task for task in range(50)]


def test_torch_with_a_default_device() -> None:
    """What is made on the way is where the scores are."""
    scores = torch.from_numpy(some_scores())
    try:
        torch.set_default_device("meta")
        found = ia.mira(scores)
        devices = {found.plan.device.type, found.potential.device.type, found.labels.device.type}
    finally:
        torch.set_default_device(None)
    assert devices == {"cpu"}


def test_torch_views_that_are_negated_when_read() -> None:
    scores = torch.view_as_complex(torch.from_numpy(np.random.default_rng(0).normal(size=(9, 4, 2)))).conj().imag
    assert scores.is_neg()
    found = ia.mira(scores)
    torch.testing.assert_close(found.plan, ia.mira(scores.resolve_neg()).plan)
    assert found.verify().error_bound < 1e-4


def test_the_plan_is_made_where_the_kernel_was() -> None:
    """Beside the scores there is one matrix of their size; a later pass makes the kernel again."""
    scores = np.random.default_rng(0).normal(size=(2000, 500)).astype(np.float32)
    ia.mira(scores)  # whose passes are compiled now, if they have not been
    tracemalloc.start()
    found = ia.mira(scores)
    plan = found.plan
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * scores.nbytes
    before = plan.copy()
    assert found.verify().error_bound < 1e-5
    assert ia.sinkhorn(scores, epsilon=0.5, start=found).error_bound < 1e-3
    found._sweep.apply(found._solution.point.potential, np.ones(500))
    np.testing.assert_array_equal(found.plan, before)


@pytest.mark.usefixtures("compiled")
def test_many_threads_may_ask_the_same_assignment() -> None:
    scores = np.random.default_rng(0).normal(size=(300, 40))
    found = ia.sinkhorn(scores, epsilon=0.1)
    v = found._solution.point.potential
    expected = np.exp(literal_log_plan(scores, v, 0.1))
    wrong: list[str] = []

    def ask(number: int) -> None:
        for turn in range(6):
            if (number + turn) % 3 == 0:
                right = np.allclose(next(found._sweep.iter_plan(v)), expected, atol=1e-12)
            elif (number + turn) % 3 == 1:
                right = np.allclose(found._sweep.apply(v, np.ones(40)), 1, atol=1e-12)
            else:
                right = np.allclose(np.exp(found._sweep(v).log_columns), expected.sum(axis=0), atol=1e-12)
            if not right:
                wrong.append(f"thread {number}, turn {turn}")

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert not wrong


def test_can_be_pickled() -> None:
    sweep = kernel.KernelSweep(some_scores((3, 17, 6)), EPSILON)
    copy = pickle.loads(pickle.dumps(sweep))
    np.testing.assert_array_equal(copy(np.zeros((3, 6))).log_columns, sweep(np.zeros((3, 6))).log_columns)


def _in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


SOLVE = """
import numpy as np, infoassign as ia
scores = np.random.default_rng(0).normal(size=(600, 500)).astype(np.float32)
print(ia.mira(scores).converged)
"""


def test_without_numba_numpy_does_it() -> None:
    hidden = "import sys; sys.modules['numba'] = None\n"
    printed = _in_a_new_process(hidden + SOLVE + "print('infoassign_backends.compiled' in sys.modules)")
    assert printed.split() == ["True", "False"]


def test_a_numba_that_cannot_be_used_is_said_and_done_without() -> None:
    broken = """
import builtins
real = builtins.__import__
def refuse(name, *rest):
    if name.partition(".")[0] in ("numba", "llvmlite"):
        raise ImportError("Numba needs NumPy 1.0 or less")
    return real(name, *rest)
builtins.__import__ = refuse
"""
    printed = _in_a_new_process(broken + SOLVE)
    assert "True" in printed
    assert printed.count("numba cannot be used (Numba needs NumPy 1.0 or less)") == 1


@pytest.mark.deep
def test_no_folder_to_keep_what_was_compiled_is_needed(tmp_path: Path) -> None:
    """Compiled anew in every process then: some seconds."""
    pytest.importorskip("numba")
    code = """
from numba.core import caching
for locator in caching.CacheImpl._locator_classes:
    locator.from_function = classmethod(lambda *_: None)
"""
    assert "True" in _in_a_new_process(code + SOLVE)


def test_many_rows_are_summed_in_float64() -> None:
    scores = np.random.default_rng(0).normal(size=(300_000, 2)).astype(np.float32)
    expected = logsumexp(scores - logsumexp(scores.astype(float), axis=1, keepdims=True), axis=0)
    for backend in (numpy_backend, reference):
        masses = backend.prepare(scores, 1.0)(np.zeros(2))
        np.testing.assert_allclose(masses.log_columns, expected, atol=2e-7)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000, 4097])
def test_tree_sums_add_all_up(length: int) -> None:
    x = np.random.default_rng(0).random((3, length)).astype(np.float32)
    np.testing.assert_allclose(sums.accurate_sum(x, np.float32), x.astype(float).sum(axis=-1), rtol=13 * 6e-8)


def test_tree_sums_are_better_than_one_by_one() -> None:
    x = np.full(2**20, 0.1, np.float32)
    one_by_one = np.add.accumulate(x)[-1]
    assert abs(sums.accurate_sum(x, np.float32) - x[0] * 2.0**20) < 1 < abs(one_by_one - x[0] * 2.0**20)


def test_the_backend_of_an_array(make: Make) -> None:
    expected = {"ndarray": "numpy_backend", "Tensor": "torch_backend"}
    scores = make(some_scores())
    found = backend_for(scores).__name__.rpartition(".")[2]
    assert found == expected.get(type(scores).__name__, "reference")


def test_the_backend_of_a_subclass(tmp_path: Path) -> None:
    stored = np.lib.format.open_memmap(tmp_path / "scores.npy", mode="w+", shape=(3, 2), dtype=np.float32)
    assert backend_for(stored) is numpy_backend
    assert backend_for(torch.nn.Parameter(torch.zeros(2, 2))) is torch_backend


def test_a_backend_of_ones_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by the package that the array's type is of."""
    array = make(np.zeros((2, 2)))
    monkeypatch.setitem(BACKENDS, type(array).__module__.partition(".")[0], "infoassign_backends.reference")
    assert backend_for(array) is reference
    assert ia.mira(array).converged


def test_torch_off_the_host_works_in_the_log_domain() -> None:
    """The kernel's sweep reads values, which a device would have to wait for."""
    sweep = backend_for(torch.zeros(0)).prepare(torch.zeros(2, 3, device="meta"), 1.0)
    assert isinstance(sweep, reference.LogSweep)


@pytest.mark.parametrize("backend", [numpy_backend, reference], ids=lambda backend: backend.__name__)
def test_an_epsilon_too_small_for_the_dtype_is_refused(backend: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"epsilon .* is 1e-310, too small for .*float64"):
        backend.prepare(some_scores(), 1e-310)
