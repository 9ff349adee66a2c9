"""CuPy's kernels: what they compute, by the very source on the host; that they compile; and on a device, all of it."""

import logging
import pickle
import shutil
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import cupy_on_cpu
import numpy as np
import pytest
import torch
from scipy.special import logsumexp

import infoassign as ia
from infoassign.arrays import clipped
from infoassign.testing import laws
from infoassign_backends import BACKENDS, reference

EPSILON = 0.3
try:
    HALVES = (np.float16, import_module("ml_dtypes").bfloat16)
except ImportError:  # it comes with JAX and CuPy
    HALVES = (np.float16,)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The backend for NumPy arrays; kernels are compiled when a test first needs them."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not there, to compile the kernels for the host")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "kernels"  # one for pytest's processes
    folder.mkdir(exist_ok=True)
    return cupy_on_cpu.load(folder)


@pytest.fixture
def numpy_by_kernels(backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The backend, which serves NumPy's arrays in all of the library."""
    monkeypatch.setitem(sys.modules, "kernels_on_the_host", backend)
    monkeypatch.setitem(BACKENDS, "numpy", "kernels_on_the_host")
    return backend


def some(shape: tuple[int, ...], dtype: Any = np.float32, scale: float = 4.0) -> Any:
    return (np.random.default_rng(0).normal(size=shape) * scale).astype(dtype)


def literal_log_plan(scores: Any, potential: Any, epsilon: float = EPSILON) -> Any:
    wide = scores.astype(float)
    scaled = (wide - wide.max(axis=-1, keepdims=True) - potential[..., None, :]) / epsilon
    return scaled - logsumexp(scaled, axis=-1, keepdims=True)


def keeps_its_word(backend: ModuleType, scores: Any, potential: Any, epsilon: float = EPSILON) -> None:
    """Require masses and plan to be as good as the sweep says, and the same the second time."""
    sweep = backend.prepare(scores, epsilon)
    expected = literal_log_plan(scores, potential, epsilon)
    found = sweep(potential)
    granted = sweep.sum_error + sweep.entry_error
    np.testing.assert_allclose(found.log_columns, logsumexp(expected, axis=-2), rtol=1e-12, atol=granted)
    (plan,) = sweep.iter_plan(potential)
    seen = expected > -60
    np.testing.assert_allclose(plan[seen], np.exp(expected[seen]), rtol=granted)
    again = sweep(potential)
    np.testing.assert_array_equal(again.log_columns, found.log_columns)
    np.testing.assert_array_equal(again.log_normalizers, found.log_normalizers)


@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(of, marks=pytest.mark.deep) for of in ("float64", "float16"))]
)
def test_the_kernels_keep_the_laws(backend: ModuleType, dtype: str) -> None:
    laws.backend(backend, dtypes=(dtype,))


@pytest.mark.parametrize("columns", [8, 300, 2800, pytest.param(9000, id="wider than registers hold")])
def test_single_scores_are_as_good_as_is_said(backend: ModuleType, columns: int) -> None:
    """By teams of any kind; with and without columns by fours."""
    random = np.random.default_rng(1)
    for scores in (some((21, columns)), some((21, columns - 1))):
        keeps_its_word(backend, scores, random.normal(size=scores.shape[1]))


@pytest.mark.deep
@pytest.mark.parametrize("dtype", [np.float32, *HALVES])
def test_every_team_is_as_good_as_it_says(backend: ModuleType, dtype: Any) -> None:
    for team in backend.TEAMS:
        for columns in (team.columns, team.columns - 3, team.columns // 2 + 1):
            for rows in (1, 2 * team.together + 1):
                scores = some((rows, columns), dtype)
                assert backend.prepare(scores, EPSILON)._team is not None
                keeps_its_word(backend, scores, np.random.default_rng(2).normal(size=columns))


@pytest.mark.parametrize("dtype", HALVES)
def test_halves(backend: ModuleType, dtype: Any) -> None:
    scores = some((17, 30), dtype)
    scores[3, 2] = -np.inf
    keeps_its_word(backend, scores, np.random.default_rng(1).normal(size=30))
    assert backend.prepare(scores, EPSILON).plan_dtype == np.float32


@pytest.mark.parametrize("columns", [6, 1100])
def test_rows_that_single_precision_has_no_exponents_for(backend: ModuleType, columns: int) -> None:
    """Among those that it has, in one problem of a batch, or in all, by their scores or by the prices."""
    random = np.random.default_rng(1)
    scores, potential = some((2, 19, columns)), random.normal(size=(2, columns))
    keeps_its_word(backend, scores[0], 1e4 * potential[0])
    scores[1, 5:9] += 2.0**14
    keeps_its_word(backend, scores, potential)
    # At the last exponents that are made in single precision, those of other rows being beyond.
    edge = backend.LOG2E / EPSILON
    rising = np.linspace(-1.02, 1.02, 19, dtype=np.float32)[:, None] * np.float32(3900 / edge)
    keeps_its_word(backend, scores[0] + rising, potential[0])


def test_scales_that_single_precision_has_not(backend: ModuleType) -> None:
    for unit in (1e-39, 1e-33, 1e30, 1e37):
        scores = (np.random.default_rng(0).normal(size=(17, 6)) * unit).astype(np.float32)
        keeps_its_word(backend, scores, np.random.default_rng(1).normal(size=6) * unit, unit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_faint_columns(backend: ModuleType, dtype: Any) -> None:
    """Below what a sum of exponentials can hold, and beside what is known of them from elsewhere."""
    scores = some((40, 70), dtype)
    scores[:, 3] -= 300
    scores[:, 69] = -np.inf
    potential = np.random.default_rng(1).normal(size=70)
    expected = logsumexp(literal_log_plan(scores, potential), axis=0)
    found = backend.prepare(scores, EPSILON)(potential).log_columns
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)
    assert found[69] == -np.inf
    known = np.zeros(70)
    beside = backend.masses(scores, potential, EPSILON, 0.0, known).log_columns
    np.testing.assert_allclose(np.logaddexp(beside, known), np.logaddexp(expected, known), atol=1e-6)


def test_what_is_no_score_shows_and_harms_no_other_problem(backend: ModuleType) -> None:
    scores = some((4, 9, 5))
    scores[0, 1, 2], scores[1, 3, 0], scores[2, 4] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        sweep = backend.prepare(scores, EPSILON)
    assert np.isfinite(sweep.offset).tolist() == [False, False, False, True]
    found = sweep(np.zeros((4, 5)))
    assert np.isnan(found.log_columns[:3]).all()
    (plan,) = sweep.iter_plan(np.zeros((4, 5)))
    assert np.isnan(plan[0, 1]).all()
    np.testing.assert_allclose(plan[3], np.exp(literal_log_plan(scores[3], np.zeros(5))), atol=1e-6)
    assert sweep.labels(np.zeros((4, 5))).max() < 5
    wrong = np.zeros((4, 5))
    wrong[3, 0] = np.nan
    assert np.isnan(sweep(wrong).log_columns[3]).all()


def test_a_price_that_is_no_number_is_not_lost_among_many(backend: ModuleType) -> None:
    potential = np.zeros(600)
    potential[5] = np.nan  # and the same thread has a number after it
    found = backend.prepare(some((20, 600)), EPSILON)(potential)
    assert np.isnan(found.log_columns).all()
    assert np.isnan(found.log_normalizers)


@pytest.mark.parametrize("problems", [1, 3])
def test_faint_columns_are_summed_slab_by_slab(
    backend: ModuleType, problems: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "RESIDENT", 1000)  # room for as many slabs as there are rows for
    scores = np.random.default_rng(0).normal(size=(problems, 700, 40)).astype(np.float32)
    scores[:, :, 3] -= np.linspace(200, 300, 700, dtype=np.float32)
    scores[:, :, 35] = -np.inf
    found = backend.prepare(scores, EPSILON)(np.zeros((problems, 40))).log_columns
    expected = logsumexp(literal_log_plan(scores.astype(float), np.zeros((problems, 40))), axis=-2)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_many_rows_are_summed_as_in_float64(backend: ModuleType) -> None:
    scores = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    keeps_its_word(backend, scores, np.zeros(2), 1.0)


def test_the_library_solves_by_them(numpy_by_kernels: ModuleType) -> None:
    """To the default tolerance in single precision at 3000 labels, with a certificate that holds."""
    scores = some((96, 3000), scale=2.0)
    mira = ia.mira(scores)
    assert isinstance(mira._sweep, numpy_by_kernels.CupySweep)
    assert mira.converged
    assert mira.error_bound <= 1e-5
    sinkhorn = ia.sinkhorn(some((64, 12)), epsilon=0.5)
    assert sinkhorn.converged
    assert sinkhorn.verify().error_bound < 1e-2
    assert mira.verify().error_bound <= 1.1e-5
    papers = ia.sinkhorn(scores, start="columns", tol=0, max_sweeps=3, acceleration=None)
    plain = reference.prepare(scores.astype(float), 0.05)
    np.testing.assert_allclose(papers.plan, next(plain.iter_plan(papers.potential)), atol=1e-5)


def test_chunks_are_passed_over_by_them(numpy_by_kernels: ModuleType) -> None:
    scores = some((90, 11))
    found = ia.mira(ia.StreamedScores(scores, chunk_rows=40))
    assert found.converged
    np.testing.assert_allclose(np.concatenate(list(found.iter_plan())), ia.mira(scores).plan, atol=1e-4)


def test_sweeps_can_be_pickled(backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, cupy_on_cpu.NAME, backend)
    sweep = backend.prepare(some((2, 9, 5)), EPSILON)
    copy = pickle.loads(pickle.dumps(sweep))
    np.testing.assert_array_equal(copy(np.zeros((2, 5))).log_columns, sweep(np.zeros((2, 5))).log_columns)


def test_what_has_no_kernels_is_said_once(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backend.cupy.cuda.runtime, "is_hip", True)
    with caplog.at_level(logging.WARNING, "infoassign"):
        for _ in range(2):
            assert isinstance(backend.prepare(some((3, 2)), EPSILON), reference.LogSweep)
    assert [record.message for record in caplog.records] == [
        "CuPy arrays are passed over in the array-API standard, which is slower: the kernels are for CUDA, and this"
        " CuPy is for ROCm"
    ]


def test_bfloat16_of_numpy_is_refused_and_small_helpers_keep_nan() -> None:
    if len(HALVES) > 1:
        with pytest.raises(TypeError, match="real floating dtype of at most 64 bits; got bfloat16"):
            ia.mira(some((3, 2), HALVES[1]))
    np.testing.assert_array_equal(clipped(np.array([-2.0, 0.5, np.nan, 3.0]), -1.0, 1.0), [-1, 0.5, np.nan, 1])


def test_an_epsilon_too_small_is_refused(backend: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"epsilon .* is 1e-310, too small for .*float64"):
        backend.prepare(some((3, 2)), 1e-310)


def expressions(backend: ModuleType) -> list[str]:
    """All kernels that the backend may ask for."""
    found = ["prices", "finish", "exact_sums"]
    for kind in backend.KINDS.values():
        sums = "Wide" if kind == "double" else "Pair"
        names = ("extremes", "normalizers", "exact_columns", "plan", "labels")
        found += [f"{name}<{kind}>" for name in names]
        found += [f"row_sums<{kind}, {weighted}>" for weighted in ("false", "true")]
        found += [f"column_sums<{kind}, false, {sums}>", f"column_sums<{kind}, true, Wide>"]
        if kind != "double":
            found += [f"sweep<{kind}, {', '.join(map(str, team))}>" for team in backend.TEAMS]
    return found


@pytest.mark.parametrize("architecture", [*(pytest.param(old, marks=pytest.mark.deep) for old in (75, 80)), 90])
def test_they_compile_for_devices(tmp_path: Path, architecture: int) -> None:
    """Without a register spilled to memory; blocks fit as many as are said to be resident."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC comes with torch for CUDA")
    backend = cupy_on_cpu.load(tmp_path)
    source = files("infoassign_backends").joinpath("cupy_sweep.cu").read_bytes()
    try:
        _, program = nvrtc.nvrtcCreateProgram(source, b"cupy_sweep.cu", 0, [], [])
    except RuntimeError as error:  # the bindings without the library
        pytest.skip(f"NVRTC cannot be loaded: {error}")
    for expression in expressions(backend):
        nvrtc.nvrtcAddNameExpression(program, expression.encode())
    options = [*backend.OPTIONS, f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    log = b" " * nvrtc.nvrtcGetProgramLogSize(program)[1]
    nvrtc.nvrtcGetProgramLog(program, log)
    said = log.decode()
    assert int(status) == 0, said
    assert "warning" not in said, said
    assert said.count("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") == said.count("stack frame")
    registers: dict[str, int] = {}
    entry = ""
    for line in said.splitlines():
        if "Compiling entry function" in line:
            entry = line.split("'")[1]
        elif "Used" in line:
            registers[entry] = int(line.partition("Used ")[2].split()[0])
    assert len(registers) == len(expressions(backend))
    for team in backend.TEAMS:
        mark = "E".join(f"Li{number}" for number in team)
        threads = max(backend.THREADS, team.threads)
        worst = max(used for name, used in registers.items() if mark in name)
        assert team.resident * threads * -(-worst // 8) * 8 <= 2**16, (team, worst)


@pytest.fixture(scope="module")
def cupy() -> Any:
    """CuPy, where it has a device."""
    found = pytest.importorskip("cupy")
    try:
        found.cuda.runtime.getDeviceCount()
    except found.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"CuPy has no device: {error}")
    return found


@pytest.mark.gpu
class TestOnADevice:
    """What only a device can show."""

    def test_the_laws(self, cupy: Any) -> None:
        from infoassign_backends import cupy_backend

        laws.backend(cupy_backend, cupy.asarray, dtypes=("float64", "float32", "float16"))

    def test_errors_are_within_their_bounds(self, cupy: Any) -> None:
        from infoassign_backends import cupy_backend

        for team in (*cupy_backend.TEAMS, None):
            columns = 10_000 if team is None else team.columns - 3
            for dtype in (np.float32, np.float16):
                scores, potential = some((1000, columns), dtype), np.random.default_rng(1).normal(size=columns)
                sweep = cupy_backend.prepare(cupy.asarray(scores), EPSILON)
                expected = literal_log_plan(scores, potential)
                given = cupy.asarray(potential)
                granted = sweep.sum_error + sweep.entry_error
                found = cupy.asnumpy(sweep(given).log_columns)
                np.testing.assert_allclose(found, logsumexp(expected, axis=0), atol=granted)
                plan, seen = cupy.asnumpy(next(sweep.iter_plan(given))), expected > -60
                np.testing.assert_allclose(plan[seen], np.exp(expected[seen]), rtol=granted)
                np.testing.assert_array_equal(cupy.asnumpy(sweep(given).log_columns), found)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
    def test_every_dtype(self, cupy: Any, dtype: str) -> None:
        kind = HALVES[-1] if dtype == "bfloat16" else dtype
        scores = cupy.asarray(some((300, 40), kind))
        found = ia.mira(scores)
        assert isinstance(found.plan, cupy.ndarray)
        assert found.plan.dtype == scores.dtype
        assert found.converged
        exact = ia.mira(some((300, 40), kind).astype(float))
        off = np.abs(cupy.asnumpy(found.plan).astype(float) - exact.plan).max()
        assert off <= {"float16": 1e-3, "bfloat16": 8e-3}.get(dtype, 1e-4)

    def test_forbidden_pairs_batches_and_layouts(self, cupy: Any) -> None:
        scores = some((3, 50, 9), np.float64)
        scores[:, 4, 2] = -np.inf
        expected = ia.sinkhorn(scores, epsilon=0.5).plan
        for given in (cupy.asarray(scores), cupy.asarray(scores.swapaxes(0, 2).copy()).swapaxes(0, 2)):
            found = ia.sinkhorn(given, epsilon=0.5)
            np.testing.assert_allclose(cupy.asnumpy(found.plan), expected, atol=1e-4)
        with pytest.raises(ValueError, match="the first is nan at row 1, column 2"):
            ia.mira(cupy.asarray(np.where(np.arange(8).reshape(2, 4) == 6, np.nan, 0.0)))

    def test_answers_about_an_assignment(self, cupy: Any) -> None:
        scores = some((400, 30))
        found = ia.sinkhorn(cupy.asarray(scores), epsilon=0.5)
        assert found.converged
        assert found.error_bound < 1e-3
        assert found.verify().error_bound < 1e-3
        assert found.balanced_labels().labels.shape == (400,)
        np.testing.assert_allclose(cupy.asnumpy(found.balanced_plan().mean(axis=0)), 1 / 30, atol=1e-6)
        assert found.assign_new(cupy.asarray(scores[:7])).shape == (7, 30)
        assert float(found.mutual_information) > 0
        streamed = ia.sinkhorn(ia.StreamedScores(cupy.asarray(scores), chunk_rows=128), epsilon=0.5)
        assert streamed.converged
        factored = ia.sinkhorn(ia.FactoredScores(cupy.asarray(scores), cupy.eye(30, dtype=np.float32)), epsilon=0.5)
        assert factored.converged

    def test_losses(self, cupy: Any) -> None:
        z = some((2, 64, 24), scale=1.0)
        found = ia.music_loss_and_gradient(*cupy.asarray(z), segment_size=4)
        expected = ia.music_loss_and_gradient(*z.astype(float), segment_size=4)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(cupy.asnumpy(one), other, rtol=1e-4, atol=1e-6)

    def test_on_other_streams(self, cupy: Any) -> None:
        scores = cupy.asarray(some((500, 60)))
        cupy.cuda.Device().synchronize()
        expected = cupy.asnumpy(ia.mira(scores).plan)
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            found = ia.mira(scores).plan
        stream.synchronize()
        np.testing.assert_array_equal(cupy.asnumpy(found), expected)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_fixed_number_of_steps_can_be_captured(self, cupy: Any, dtype: str) -> None:
        from infoassign_backends import cupy_backend

        given = some((500, 60), dtype)
        scores, potential = cupy.asarray(given), cupy.zeros(60)
        stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()

        def steps() -> Any:
            sweep, v = cupy_backend.prepare(scores, EPSILON), potential
            for _ in range(3):
                v = v + EPSILON * (sweep(v).log_columns - np.log(500 / 60))
            return v, next(sweep.iter_plan(v))

        with cupy.cuda.using_allocator(pool.malloc), stream:
            steps()  # compiles, and fills the pool
            stream.synchronize()
            stream.begin_capture()
            v, plan = steps()
            graph = stream.end_capture()
            scores[...] = cupy.asarray(given[::-1].copy())
            graph.launch(stream)
        stream.synchronize()
        np.testing.assert_allclose(
            cupy.asnumpy(plan), np.exp(literal_log_plan(given[::-1], cupy.asnumpy(v))), atol=1e-6
        )

    @pytest.mark.parametrize("solve", [ia.mira, ia.sinkhorn])
    def test_the_papers_mode_can_be_captured(self, cupy: Any, solve: Any) -> None:
        """Where CuPy calls cuBLAS while it captures, it raises an error: there is none of it in such a solve."""
        scores = cupy.asarray(some((500, 60)))
        mode: dict[str, Any] = {"tol": 0, "max_sweeps": 4, "acceleration": None, "check_finite": False}
        stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
        expected = cupy.asnumpy(solve(scores, **mode).plan)
        with cupy.cuda.using_allocator(pool.malloc), stream:
            first = solve(scores, **mode).plan
            stream.synchronize()
            del first
            stream.begin_capture()
            plan = solve(scores, **mode).plan
            graph = stream.end_capture()
            graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(cupy.asnumpy(plan), expected)

    def test_exchange_with_torch_without_a_copy(self, cupy: Any) -> None:
        scores = cupy.asarray(some((700, 90)))
        tensor = torch.from_dlpack(scores)
        assert tensor.data_ptr() == scores.data.ptr
        ours, theirs = ia.mira(scores), ia.mira(tensor)
        plan = torch.from_dlpack(ours.plan)
        assert plan.data_ptr() == ours.plan.data.ptr
        assert (plan - theirs.plan).abs().max() <= ours.row_error_bound + theirs.row_error_bound
        assert cupy.from_dlpack(theirs.plan).device == scores.device

    def test_mixed_devices_and_libraries_are_refused(self, cupy: Any) -> None:
        with pytest.raises(TypeError, match="prior must be an array of the same library as scores"):
            ia.mira(cupy.asarray(some((9, 3))), prior=np.full(3, 1 / 3))
        if cupy.cuda.runtime.getDeviceCount() > 1:
            with cupy.cuda.Device(1):
                prior = cupy.full(3, 1 / 3)
            with pytest.raises(ValueError, match="prior must be on the device of scores"):
                ia.mira(cupy.asarray(some((9, 3))), prior=prior)
