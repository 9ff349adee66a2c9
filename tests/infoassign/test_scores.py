"""Scores bigger than memory: streamed and factored, against the same scores in one array."""

import logging
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks

import infoassign as ia
from infoassign import factored as factored_scores
from infoassign import scores as where
from infoassign_backends import blocked, host, kernel, numpy_backend

Make = Callable[[Any], Any]

MEMBERS: list[dict[str, Any]] = [{"epsilon": 0.5}, {"epsilon": 0.3, "strength": 2.0}, {"epsilon": 1.0, "strength": 0.0}]


def factors(rows: int, columns: int, dtype: Any = np.float64, seed: int = 0) -> tuple[Any, Any, Any]:
    """Features, prototypes and their scores at temperature 0.7."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, 8)).astype(dtype)
    prototypes = random.normal(size=(columns, 8)).astype(dtype)
    return features, prototypes, (features @ prototypes.T / dtype(0.7)).astype(dtype)


def whole(assignment: ia.Assignment) -> Any:
    return np.concatenate([np.asarray(piece) for piece in assignment.iter_plan()])


@settings(max_examples=25)
@given(
    rows=st.integers(1, 400),
    columns=st.integers(1, 40),
    chunk=st.integers(1, 500),
    member=st.sampled_from(MEMBERS),
    single=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_answer_is_that_of_one_array(
    rows: int, columns: int, chunk: int, member: dict[str, Any], single: bool, seed: int
) -> None:
    dtype: Any = np.float32 if single else np.float64
    features, prototypes, scores = factors(rows, columns, dtype, seed)
    options = {**member, "tol": 1e-5}
    dense = ia.assign(scores, **options)
    for other in (ia.StreamedScores(scores, chunk_rows=chunk), ia.FactoredScores(features, prototypes, 0.7)):
        found = ia.assign(other, **options)
        np.testing.assert_allclose(whole(found), dense.plan, rtol=0, atol=1e-5 if single else 1e-10)
        assert whole(found).dtype == dtype
        assert abs(found.sweeps - dense.sweeps) <= 1
        assert found.converged == dense.converged
        assert found.rows == rows
        for name in ("objective", "mutual_information", "perplexity"):
            assert getattr(found, name) == pytest.approx(getattr(dense, name), rel=1e-4 if single else 1e-9, abs=1e-6)
        if not single:  # where differences of the dual drown in rounding, steps are refused in one and not in the other
            tight = [ia.assign(each, **{**member, "tol": 1e-11}) for each in (scores, other)]
            np.testing.assert_allclose(whole(tight[1]), tight[0].plan, rtol=0, atol=1e-10)
        assert found.verify().error_bound <= dense.verify().error_bound * 1.5 + (1e-4 if single else 2e-6)


@pytest.mark.parametrize("member", MEMBERS)
def test_in_every_library(make: Make, member: dict[str, Any]) -> None:
    features, prototypes, scores = factors(60, 7)
    prior = make(np.arange(1, 8) / 28)
    member = {**member, "tol": 1e-9}
    dense = ia.assign(scores, prior=np.arange(1, 8) / 28, **member)
    for other in (
        ia.StreamedScores(lambda: (make(part) for part in np.split(scores, [13, 13, 50]))),
        ia.StreamedScores(make(scores), chunk_rows=11),
        ia.FactoredScores(make(features), make(prototypes), 0.7),
    ):
        found = ia.assign(other, prior=prior, start="columns" if member.get("strength") != 0 else None, **member)
        assert type(found.marginal) is type(prior)
        np.testing.assert_allclose(whole(found), dense.plan, atol=1e-8)
        np.testing.assert_array_equal(np.asarray(found.labels), dense.labels)
        np.testing.assert_allclose(np.asarray(found.assign_new(make(scores[:3]))), dense.plan[:3], atol=1e-8)


@pytest.mark.parametrize("kind", [">f8", ">f4"])
def test_numbers_of_another_byte_order(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "COMPILE_FROM", 0)
    scores = factors(50, 6)[2]
    native = scores.astype(kind).astype(kind[1:])
    for other in (scores.astype(kind), ia.StreamedScores(scores.astype(kind), chunk_rows=9)):
        found = ia.sinkhorn(other, epsilon=0.5)
        np.testing.assert_allclose(whole(found), ia.sinkhorn(native, epsilon=0.5).plan, atol=1e-6)
        assert found.potential.dtype == np.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_more(dtype: torch.dtype) -> None:
    scores = torch.randn(300, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    dense = ia.sinkhorn(scores, epsilon=0.5)
    found = ia.sinkhorn(ia.StreamedScores(scores, chunk_rows=77), epsilon=0.5)
    pieces = list(found.iter_plan())
    assert {piece.dtype for piece in pieces} == {dtype}
    assert (torch.cat(pieces).float() - dense.plan.float()).abs().max() < 1e-2
    np.testing.assert_allclose(found.potential, dense.potential, atol=1e-6)
    factored = ia.FactoredScores(scores, scores[:5])
    assert ia.sinkhorn(factored).converged
    assert next(ia.sinkhorn(factored).iter_plan()).dtype == dtype


def test_forbidden_pairs_and_labels() -> None:
    scores = factors(90, 6)[2]
    scores[np.random.default_rng(0).random(scores.shape) < 0.3] = -np.inf
    scores[:, 0] = 0.0
    scores[:, 4] = -np.inf
    dense = ia.assign(scores, epsilon=0.5, strength=1.0)
    found = ia.assign(ia.StreamedScores(scores, chunk_rows=17), epsilon=0.5, strength=1.0)
    np.testing.assert_allclose(whole(found), dense.plan, atol=1e-12)
    np.testing.assert_array_equal(np.isposinf(found.potential), np.isposinf(dense.potential))
    with pytest.raises(ValueError, match="column 4 of scores is all -inf"):
        ia.sinkhorn(ia.StreamedScores(scores, chunk_rows=17))
    features, prototypes, scores = factors(90, 6)
    bias = np.array([0.0, 1.0, -np.inf, 0.0, 2.0, 0.0])
    found = ia.assign(ia.FactoredScores(features, prototypes, 0.7, bias), epsilon=0.5, strength=1.0)
    np.testing.assert_allclose(whole(found), ia.assign(scores + bias, epsilon=0.5, strength=1.0).plan, atol=1e-10)
    with pytest.raises(ValueError, match="column 2 of scores is all -inf"):
        ia.sinkhorn(ia.FactoredScores(features, prototypes, 0.7, bias))


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_masses_that_underflow_are_found_by_their_logarithm(scale: float) -> None:
    """At the start a column may have next to nothing in every chunk."""
    scores = np.random.default_rng(0).normal(size=(40, 9)) * scale
    scores[:, 3] -= 30 * scale
    for start in (None, "columns"):
        dense = ia.sinkhorn(scores, epsilon=1.0, tol=0, max_sweeps=6, acceleration=None, start=start)
        streamed = ia.StreamedScores(scores, chunk_rows=7)
        found = ia.sinkhorn(streamed, epsilon=1.0, tol=0, max_sweeps=6, acceleration=None, start=start)
        np.testing.assert_allclose(found.potential, dense.potential, rtol=1e-9)


def test_rows_far_apart_are_not_lost() -> None:
    """Rows are shifted by one number together; by how much they differ counts as rounding."""
    scores = factors(200, 5)[2]
    shifts = np.random.default_rng(1).normal(size=(200, 1)) * 1e9
    dense = ia.sinkhorn(scores, epsilon=0.5)
    found = ia.sinkhorn(ia.StreamedScores(scores + shifts), epsilon=0.5)
    assert np.abs(whole(found) - dense.plan).sum(axis=1).mean() / 2 <= found.error_bound
    assert np.abs(whole(found).mean(axis=0) - 0.2).sum() <= found.marginal_error


def test_a_pass_reads_every_chunk_once_and_one_ahead() -> None:
    scores = factors(100, 5)[2]
    reads: list[int] = []

    def chunks() -> Iterator[Any]:
        reads.append(0)
        for start in range(0, 100, 10):
            reads[-1] += 1
            yield scores[start : start + 10]

    found = ia.assign(ia.StreamedScores(chunks), epsilon=0.5, strength=1.0)
    # The first looks at one chunk to know of what kind they are, the second at all before the solve.
    assert reads == [1, *[10] * (found.sweeps + 1)]


def test_reading_and_computing_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is slow: while one chunk is worked on in a thread, the next is made in the caller's."""
    made: list[tuple[int, str]] = []
    computing = threading.Event()
    original = numpy_backend.masses

    def masses(chunk: Any, *rest: Any) -> Any:
        computing.set()
        assert release.wait(10)  # until the next chunk has been asked for
        return original(chunk, *rest)

    def chunks() -> Iterator[Any]:
        for number in range(3):
            if number == 1 and watched:
                assert computing.wait(10)
                release.set()
            made.append((number, threading.current_thread().name))
            yield scores[number]

    scores, release, watched = factors(30, 4)[2].reshape(3, 10, 4), threading.Event(), []
    sweep = ia.StreamedScores(chunks).prepare(1.0)
    monkeypatch.setattr(numpy_backend, "masses", masses)
    watched.append(True)
    sweep(np.zeros(4))
    assert {name for _, name in made} == {threading.current_thread().name}


def test_the_iterator_runs_in_the_callers_mode() -> None:
    model = torch.nn.Linear(6, 3, dtype=torch.float64)
    batches = torch.randn(4, 10, 6, dtype=torch.float64)
    recorded: list[bool] = []

    def chunks() -> Iterator[Any]:
        for batch in batches:
            made = model(batch)
            recorded.append(made.requires_grad)
            yield made

    with torch.no_grad():
        ia.mira(ia.StreamedScores(chunks))
    assert not any(recorded)
    ia.mira(ia.StreamedScores(chunks))
    assert recorded[-1]


def test_no_thread_is_left_by_a_pass_that_is_broken_off() -> None:
    scores = factors(30, 4)[2]
    before = threading.active_count()
    found = ia.mira(ia.StreamedScores(scores, chunk_rows=7))
    next(found.iter_plan())
    assert threading.active_count() <= before + host.threads()


def test_a_start_from_a_sample_saves_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    scores = np.repeat(random.normal(size=(20, 4)) * 4, 2500, axis=0) + random.normal(size=(50_000, 4))
    assert 500 < ia.StreamedScores(scores).sample().shape[0] < 1100
    found = ia.sinkhorn(ia.StreamedScores(scores, chunk_rows=9999), epsilon=0.1)
    cold = ia.sinkhorn(ia.StreamedScores(scores, chunk_rows=9999), epsilon=0.1, start=np.zeros(4))
    assert found.converged
    assert found.sweeps < cold.sweeps
    np.testing.assert_allclose(found.potential, cold.potential, atol=1e-3)
    factored = ia.FactoredScores(scores, np.eye(4))
    assert ia.sinkhorn(factored, epsilon=0.1).sweeps < cold.sweeps
    # The papers' mode starts where the papers do.
    fixed: dict[str, Any] = {"epsilon": 0.1, "tol": 0, "max_sweeps": 3, "acceleration": None}
    dense = ia.sinkhorn(scores, **fixed)
    np.testing.assert_allclose(ia.sinkhorn(factored, **fixed).potential, dense.potential, atol=1e-12)
    # With few rows for each label a sample tells less than the sweeps that it saves.
    few = ia.StreamedScores(scores[::10])
    assert ia.sinkhorn(few, epsilon=0.1).sweeps == ia.sinkhorn(few, epsilon=0.1, start=np.zeros(4)).sweeps
    # The sample is kept small, however many rows there are.
    monkeypatch.setattr(where, "SAMPLE", 4 * 50)
    assert 20 <= ia.StreamedScores(scores, chunk_rows=100).sample().shape[0] <= 50


class TestFiles:
    def test_memory_mapped(self, tmp_path: Path) -> None:
        scores = factors(300, 8, np.float32)[2]
        np.save(tmp_path / "scores.npy", scores)
        mapped = np.load(tmp_path / "scores.npy", mmap_mode="r")
        found = ia.mira(ia.StreamedScores(mapped, chunk_rows=64))
        np.testing.assert_allclose(whole(found), ia.mira(scores).plan, atol=1e-6)
        features, prototypes, _ = factors(300, 8, np.float32)
        np.save(tmp_path / "features.npy", features)
        factored = ia.FactoredScores(np.load(tmp_path / "features.npy", mmap_mode="r"), prototypes, 0.7)
        np.testing.assert_allclose(whole(ia.mira(factored)), ia.mira(scores).plan, atol=1e-5)

    @pytest.mark.parametrize("of", ["scores", "a view of them", "features"])
    def test_a_truncated_file_is_named(self, tmp_path: Path, of: str) -> None:
        path = tmp_path / "scores.npy"
        np.save(path, factors(300, 8)[2])
        mapped: Any = np.load(path, mmap_mode="r")
        given_scores: Any = {
            "scores": lambda: ia.StreamedScores(mapped),
            "a view of them": lambda: ia.StreamedScores(np.asarray(mapped)[:250]),
            "features": lambda: ia.FactoredScores(mapped, np.eye(8)),
        }[of]()
        ia.sinkhorn(given_scores)
        os.truncate(path, 5000)
        with pytest.raises(ia.ScoresChangedError, match=r"scores\.npy was cut to 5000 bytes, of 19328"):
            ia.sinkhorn(given_scores)

    def test_stored_in_half_precision(self, tmp_path: Path) -> None:
        scores = factors(300, 8)[2]
        scores[5, 3] = -np.inf
        stored = ia.StreamedScores(lambda: iter(np.split(scores, 3))).store(tmp_path / "half.npy")
        assert (tmp_path / "half.npy").stat().st_size == 128 + 2 * 300 * 8
        found = ia.mira(stored)
        np.testing.assert_allclose(found.potential, ia.mira(scores.astype(np.float16)).potential, atol=1e-6)
        assert float(next(found.iter_plan())[5, 3]) == 0
        with pytest.raises(ValueError, match=r"beyond the range of float16, 65504"):
            ia.StreamedScores(scores * 1e5).store(tmp_path / "no.npy")
        assert not (tmp_path / "no.npy").exists()
        with pytest.raises(ValueError, match=r'dtype must be "float16".*got \'int8\''):
            stored.store(tmp_path / "no.npy", dtype="int8")

    @pytest.mark.parametrize("kind", ["dense", "streamed", "factored"])
    def test_write_plan(self, tmp_path: Path, kind: str) -> None:
        features, prototypes, scores = factors(300, 8, np.float32)
        given = {
            "dense": scores,
            "streamed": ia.StreamedScores(scores, chunk_rows=31),
            "factored": ia.FactoredScores(features, prototypes, 0.7),
        }[kind]
        found = ia.mira(given)
        found.write_plan(tmp_path / "plan.npy")
        written = np.load(tmp_path / "plan.npy")
        assert written.dtype == np.float32
        np.testing.assert_array_equal(written, whole(found))
        assert [path.name for path in tmp_path.iterdir()] == ["plan.npy"]

    def test_an_error_while_writing_leaves_nothing(self, tmp_path: Path) -> None:
        scores, broken = factors(300, 8)[2], []

        def chunks() -> Iterator[Any]:
            yield scores[:100]
            if broken:
                raise ZeroDivisionError
            yield scores[100:]

        found = ia.mira(ia.StreamedScores(chunks))
        broken.append(True)
        with pytest.raises(ZeroDivisionError):
            found.write_plan(tmp_path / "plan.npy")
        assert not list(tmp_path.iterdir())

    def test_a_killed_write_leaves_nothing(self, tmp_path: Path) -> None:
        script = """
import os, sys
import numpy as np
import infoassign as ia
scores = np.random.default_rng(0).normal(size=(300, 8))
ready = []
def chunks():
    yield scores[:200]
    if ready:
        os.kill(os.getpid(), 9)
    yield scores[200:]
found = ia.mira(ia.StreamedScores(chunks))
ready.append(True)
found.write_plan(sys.argv[1])
"""
        (tmp_path / "plan.npy").write_text("old")
        finished = subprocess.run([sys.executable, "-c", script, str(tmp_path / "plan.npy")], check=False)
        assert finished.returncode == -9
        assert (tmp_path / "plan.npy").read_text() == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["plan.npy"]

    def test_a_batch_is_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"single problem; got a batch \(2,\)"):
            ia.mira(np.zeros((2, 3, 4))).write_plan(tmp_path / "plan.npy")


class TestBadScores:
    def test_no_whole_plan(self) -> None:
        found = ia.mira(ia.StreamedScores(factors(9, 3)[2]))
        with pytest.raises(AttributeError, match=r"use iter_plan\(\).*write_plan\(path\)"):
            found.plan  # noqa: B018
        assert not hasattr(found, "plan")

    def test_values(self) -> None:
        scores = factors(100, 4)[2]
        for value, name in ((np.nan, "nan"), (np.inf, "inf")):
            wrong = scores.copy()
            wrong[77, 2] = value
            message = rf"first is {name} at row 77, column 2 \(in chunk 2\)"
            with pytest.raises(ValueError, match=message):
                ia.mira(ia.StreamedScores(wrong, chunk_rows=30))
        wrong = scores.copy()
        wrong[40] = -np.inf
        with pytest.raises(ValueError, match=r"row 40 of scores is all -inf.*\(in chunk 1\)"):
            ia.mira(ia.StreamedScores(wrong, chunk_rows=30))

    def test_sources(self) -> None:
        scores = factors(10, 3)[2]
        with pytest.raises(TypeError, match="got generator, which could be read only once"):
            ia.StreamedScores(row for row in scores)
        with pytest.raises(TypeError, match=r"source must be an indexable array, or a function.*got list"):
            ia.StreamedScores([1, 2])
        with pytest.raises(TypeError, match=r"got str; open a file with numpy\.load\(path, mmap_mode="):
            ia.StreamedScores("scores.npy")
        with pytest.raises(ValueError, match=r"source must have shape \(rows, labels\).*got \(10,\)"):
            ia.StreamedScores(scores[:, 0])
        with pytest.raises(ValueError, match="chunk_rows is for an indexable source"):
            ia.StreamedScores(lambda: iter([scores]), chunk_rows=3)
        with pytest.raises(ValueError, match="chunk_rows must be at least 1"):
            ia.StreamedScores(scores, chunk_rows=0)
        with pytest.raises(ValueError, match="the iterator gave nothing"):
            ia.mira(ia.StreamedScores(lambda: iter([])))
        for empty in (lambda: iter([scores[:0]]), scores[:0]):
            with pytest.raises(ValueError, match=r"scores must not be empty; got shape \(0, 3\)"):
                ia.mira(ia.StreamedScores(empty))
        with pytest.raises(TypeError, match=r"chunk 1 of scores must be an array.*got NoneType"):
            ia.mira(ia.StreamedScores(lambda: iter([scores, None, scores])))
        buffer = scores.copy()
        with pytest.raises(ValueError, match="chunk 1 of scores is in the memory of the one before; yield copies"):
            ia.mira(ia.StreamedScores(lambda: iter([buffer, buffer])))
        for given_scores in (scores, ia.StreamedScores(scores), ia.FactoredScores(scores, scores)):
            with pytest.raises(ValueError, match=r"epsilon .* is 1e-310, too small"):
                ia.sinkhorn(given_scores, epsilon=1e-310)
        with pytest.raises(TypeError, match="chunk 0 of scores must have a real floating dtype"):
            ia.mira(ia.StreamedScores(lambda: iter([np.ones((2, 2), int)])))
        with pytest.raises(ValueError, match=r"chunk 1 of scores must have the 3 labels.*got 2 of float64"):
            ia.mira(ia.StreamedScores(lambda: iter([scores, scores[:, :2]])))
        with pytest.raises(TypeError, match="chunk 1 of scores must be an array of the same library"):
            ia.mira(ia.StreamedScores(lambda: iter([scores, torch.zeros(2, 3)])))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda parts: [parts[0], parts[1] + 1, parts[2]], "chunk 1 of the scores, now with 10 rows, is not"),
            (lambda parts: [parts[0], parts[1][:9], parts[2]], "chunk 1 of the scores, now with 9 rows, is not"),
            (lambda parts: parts[:2], "end after 2 chunks; the first pass saw 3"),
            (lambda parts: [*parts, parts[0]], "more than the 3 chunks of the first pass"),
        ],
    )
    def test_a_stream_that_changes(self, change: Callable[[list[Any]], list[Any]], message: str) -> None:
        parts, passes = np.split(factors(30, 4)[2], 3), []

        def chunks() -> Iterator[Any]:
            passes.append(0)
            yield from (change(parts) if len(passes) > 3 else parts)

        with pytest.raises(ia.ScoresChangedError, match=message):
            ia.mira(ia.StreamedScores(chunks), tol=1e-12)

    def test_factors(self) -> None:
        features, prototypes, _ = factors(10, 3)
        for arguments, message in (
            ((features, prototypes[:, :5]), "as many columns and the same dtype; got 8 of float64 and 5"),
            ((features, prototypes.astype(np.float32)), "got 8 of float64 and 8 of float32"),
            ((features, prototypes[0]), r"prototypes must be a matrix, not empty; got shape \(8,\)"),
            ((features, prototypes, 0.0), "temperature must be positive"),
            ((features, prototypes, 1.0, np.zeros(4)), r"bias must have shape \(3,\)"),
            ((features, prototypes, 1.0, np.full(3, -np.inf)), "bias must be finite, or -inf"),
        ):
            with pytest.raises(ValueError, match=message):
                ia.FactoredScores(*arguments)
        with pytest.raises(TypeError, match="prototypes must be an array of the same library as features"):
            ia.FactoredScores(features, torch.zeros(3, 8))
        for large in (features.astype(np.float32) * 1e20, features.astype(np.float32)):
            few = prototypes.astype(np.float32) * (1e20 if large.max() > 1e9 else 1.0)
            with pytest.raises(ValueError, match="their products in range"):
                ia.mira(ia.FactoredScores(large, few, 1.0 if large.max() > 1e9 else 1e-39))
        features[3, 3] = np.nan
        with pytest.raises(ValueError, match="features and prototypes must be finite"):
            ia.mira(ia.FactoredScores(features, prototypes))

    @pytest.mark.parametrize("noise", [0.0, 1.0])
    def test_an_infeasible_problem(self, noise: float) -> None:
        """Without a flow through all pairs at once: by a dual value above that of any plan."""
        scores = np.random.default_rng(0).normal(size=(40, 3)) * noise
        scores[:30, 1:] = -np.inf
        found = ia.sinkhorn(ia.StreamedScores(scores, chunk_rows=9), epsilon=0.5)
        assert found.status is ia.Status.INFEASIBLE
        assert found.sweeps < 100
        for one in on_ranks(2, lambda k, a: ia.sinkhorn(scores[k * 15 : 15 + k * 25], epsilon=0.5, all_sum=a)):
            assert one.status is ia.Status.INFEASIBLE
        feasible = scores.copy()
        feasible[:10, 1] = feasible[10:20, 2] = 0.0
        assert ia.sinkhorn(ia.StreamedScores(feasible, chunk_rows=9), epsilon=0.5).converged


def test_evaluates_a_potential() -> None:
    features, prototypes, scores = factors(40, 5)
    potential = np.linspace(0, 1, 5)
    for strength in (1.0, np.inf):
        problem: dict[str, Any] = {"epsilon": 0.5, "strength": strength}
        for other in (ia.StreamedScores(scores, chunk_rows=9), ia.FactoredScores(features, prototypes, 0.7)):
            for function in (ia.dual_objective, ia.kkt_residual):
                expected = function(potential, scores, **problem)
                assert function(potential, other, **problem) == pytest.approx(expected, rel=1e-9)
            # Far from an exact marginal it uses a bound on the scores' span, which factors do not have exactly.
            expected = ia.duality_gap(potential, scores, **problem)
            assert ia.duality_gap(potential, other, **problem) >= expected * (1 - 1e-9)


def test_the_compiled_pass_is_used_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "COMPILE_FROM", 100)
    scores = factors(300, 20)[2]
    dense = ia.sinkhorn(scores, epsilon=0.1)
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setattr(kernel, "UNKEPT", 400)
        found = ia.sinkhorn(ia.StreamedScores(scores, chunk_rows=45), epsilon=0.1)
        np.testing.assert_allclose(whole(found), dense.plan, atol=1e-10)


def test_progress_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="infoassign"):
        found = ia.sinkhorn(ia.StreamedScores(factors(60, 5)[2]), epsilon=0.5)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == found.sweeps
    assert "sweep 1: marginal error" in lines[0]


def test_memory_is_that_of_the_chunk_and_reading_that_of_the_file() -> None:
    """The cost model of docs/scale.md."""
    rows, columns, chunk = 20_000, 100, 500
    scores = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    read: list[int] = []

    def chunks() -> Iterator[Any]:
        for start in range(0, rows, chunk):
            made = scores[start : start + chunk].copy()
            read.append(made.nbytes)
            yield made

    streamed = ia.StreamedScores(chunks)
    assert streamed.rows == rows
    sweep, potential = streamed.prepare(1.0), np.zeros(columns)
    sweep(potential)
    read.clear()
    tracemalloc.start()
    sweep(potential)
    peak = tracemalloc.get_traced_memory()[1]
    factored = ia.FactoredScores(scores, scores[:columns]).prepare(1.0)
    factored(potential)
    tracemalloc.reset_peak()
    factored(potential)
    of_factors = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(read) == scores.nbytes
    # Two chunks, what the threads work on, and vectors.
    assert peak < 2 * chunk * columns * 4 + 3 * 8 * chunk * columns * host.threads() + 100 * columns * 8
    assert of_factors < 1.5 * 4 * min(rows * columns, factored_scores.PRODUCT) + 3 * 8 * blocked.TILE * host.threads()
