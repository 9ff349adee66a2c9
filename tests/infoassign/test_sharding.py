"""Rows spread over ranks: the same answer, the same sweeps, and nobody waits for a rank that failed."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks

import infoassign as ia
from infoassign import sharding

MEMBERS: list[dict[str, Any]] = [{"epsilon": 0.5}, {"epsilon": 0.3, "strength": 2.0}, {"epsilon": 1.0, "strength": 0.0}]


def scores_of(rows: int = 60, columns: int = 7, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, columns)) * 2


def parts(scores: Any, cuts: list[int]) -> list[Any]:
    edges = [0, *sorted(cuts), len(scores)]
    return [scores[start:stop] for start, stop in pairwise(edges)]


def good(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


@settings(max_examples=25)
@given(
    rows=st.integers(1, 200),
    columns=st.integers(1, 30),
    cuts=st.lists(st.integers(0, 200), max_size=3),
    member=st.sampled_from(MEMBERS),
    single=st.booleans(),
    streamed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_answer_is_that_of_all_rows_together(
    rows: int, columns: int, cuts: list[int], member: dict[str, Any], single: bool, streamed: bool, seed: int
) -> None:
    """Uneven shards and empty ones."""
    scores = scores_of(rows, columns, seed).astype(np.float32 if single else np.float64)
    options = {**member, "tol": 1e-5}
    dense = ia.assign(scores, **options)
    shards = parts(scores, [min(cut, rows) for cut in cuts])

    def work(rank: int, all_sum: Any) -> Any:
        shard = shards[rank]
        given_scores = ia.StreamedScores(lambda: iter([shard[:3], shard[3:]])) if streamed else shard
        found = ia.assign(given_scores, all_sum=all_sum, **options)
        return found, found.verify()

    results = good(on_ranks(len(shards), work))
    assert len({found.sweeps for found, _ in results}) == 1
    plan = np.concatenate(
        [np.concatenate([shard[:0], *found.iter_plan()]) for (found, _), shard in zip(results, shards, strict=True)]
    )
    np.testing.assert_allclose(plan, dense.plan, rtol=0, atol=1e-5 if single else 1e-10)
    labels = np.concatenate([found.labels for found, _ in results])
    np.testing.assert_allclose(plan[np.arange(rows), labels], plan.max(axis=1), rtol=1e-5 if single else 1e-10)
    for found, verified in results:
        assert abs(found.sweeps - dense.sweeps) <= 1
        assert found.rows == rows
        np.testing.assert_array_equal(found.potential, results[0][0].potential)  # to the bit
        assert verified.error_bound <= dense.verify().error_bound * 2 + (1e-4 if single else 1e-5)
        assert verified.marginal_error == pytest.approx(dense.verify().marginal_error, abs=1e-6)


def test_batches_warm_starts_and_columns() -> None:
    scores = np.stack([scores_of(seed=1), scores_of(seed=2)])
    prior = np.arange(1.0, 8) / 28
    for start in ("columns", np.linspace(0, 1, 7)):
        dense = ia.sinkhorn(scores, epsilon=0.5, prior=prior, start=start)

        def work(rank: int, all_sum: Any, start: Any = start) -> Any:
            shard = scores[:, :23] if rank else scores[:, 23:]
            return ia.sinkhorn(shard, epsilon=0.5, prior=prior, start=start, all_sum=all_sum)

        first, second = good(on_ranks(2, work))
        np.testing.assert_allclose(np.concatenate([second.plan, first.plan], axis=1), dense.plan, atol=1e-10)
        np.testing.assert_array_equal(first.sweeps, dense.sweeps)


def test_balanced_plan() -> None:
    scores = scores_of()

    def work(rank: int, all_sum: Any) -> Any:
        return ia.sinkhorn(parts(scores, [11])[rank], epsilon=0.5, tol=1e-2, all_sum=all_sum).balanced_plan()

    plan = np.concatenate(good(on_ranks(2, work)))
    np.testing.assert_allclose(plan.mean(axis=0), 1 / 7, atol=1e-14)


def test_masses_that_underflow_on_all_ranks_keep_their_logarithm() -> None:
    scores = scores_of(40, 9)
    scores[:, 3] -= 1e5
    scores[:, 5] = -np.inf
    scores[:20, 7] -= 3000
    options: dict[str, Any] = {"epsilon": 1.0, "strength": 2.0, "tol": 0, "max_sweeps": 4, "acceleration": None}
    dense = ia.assign(scores, **options)
    found = good(on_ranks(3, lambda rank, all_sum: ia.assign(parts(scores, [5, 20])[rank], all_sum=all_sum, **options)))
    for one in found:
        np.testing.assert_allclose(one.potential, dense.potential, rtol=1e-10)


def test_a_pass_sends_k_plus_two_numbers() -> None:
    sizes: list[int] = []

    def counting(values: Any) -> Any:
        sizes.append(int(np.prod(values.shape)))
        return values

    found = ia.sinkhorn(scores_of(), epsilon=0.5, all_sum=counting)
    assert sizes.count(7 + 2) == found.sweeps
    assert max(sizes) < 100


def test_torch() -> None:
    scores = torch.from_numpy(scores_of())
    dense = ia.mira(scores)
    found = good(on_ranks(2, lambda rank, all_sum: ia.mira(parts(scores, [11])[rank], all_sum=all_sum)))
    np.testing.assert_allclose(torch.cat([one.plan for one in found]), dense.plan, atol=1e-12)


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("differ", "name"),
        [
            (lambda rank: {"scores": scores_of(columns=5 + rank)}, r"the number of labels \(here [56]\)"),
            (lambda rank: {"scores": scores_of().astype([np.float32, np.float64][rank])}, "the dtype"),
            (lambda rank: {"scores": ia.StreamedScores(scores_of()) if rank else scores_of()}, "the kind of scores"),
            (lambda rank: {"epsilon": 0.5 + rank}, "epsilon"),
            (lambda rank: {"strength": 1.0 + rank}, "strength"),
            (lambda rank: {"tol": 1e-3 * (1 + rank)}, "tol"),
            (lambda rank: {"max_sweeps": 5 + rank}, "max_sweeps"),
            (lambda rank: {"acceleration": None if rank else "auto"}, "acceleration"),
            (lambda rank: {"prior": np.full(7, 1 / 7) if rank else None}, "prior"),
            (lambda rank: {"start": np.full(7, float(rank))}, "start"),
            (lambda rank: {"check_finite": bool(rank)}, "check_finite"),
        ],
    )
    def test_mismatched_shards_are_named_on_all_ranks(self, differ: Callable[[int], dict[str, Any]], name: str) -> None:
        options: dict[str, Any] = {"scores": scores_of(), "epsilon": 0.5, "strength": 1.0}
        found = on_ranks(2, lambda rank, all_sum: ia.assign(**{**options, **differ(rank)}, all_sum=all_sum))
        for error in found:
            assert isinstance(error, ia.ShardMismatchError)
            with pytest.raises(ia.ShardMismatchError, match=rf"the ranks differ in {name}"):
                raise error

    def test_a_rank_with_bad_scores_stops_all(self) -> None:
        shards = parts(scores_of(), [20, 40])
        shards[1][3, 2] = np.nan
        found = on_ranks(3, lambda rank, all_sum: ia.mira(shards[rank], all_sum=all_sum))
        with pytest.raises(ValueError, match="the first is nan at row 3, column 2"):
            raise found[1]
        for error in (found[0], found[2]):
            with pytest.raises(ia.ShardMismatchError, match="1 of 3 ranks refused their part"):
                raise error

    @pytest.mark.parametrize(
        "ask",
        [
            lambda source, all_sum, breaks: (breaks(4), ia.mira(source, all_sum=all_sum, tol=1e-12)),
            lambda source, all_sum, breaks: (breaks(2), ia.mira(source, all_sum=all_sum, start="columns")),
            lambda source, all_sum, breaks: (ia.mira(source, all_sum=all_sum), breaks(0))[0].verify(),
            lambda source, all_sum, breaks: (ia.mira(source, all_sum=all_sum), breaks(0))[0].balanced_labels(),
            # As other threads would hold the lock of a cached property, its function is called.
            lambda source, all_sum, breaks: ia.Assignment.mutual_information.func(  # type: ignore[attr-defined]
                (ia.mira(source, all_sum=all_sum), breaks(0))[0]
            ),
            lambda source, all_sum, breaks: ia.Assignment._certificate.func(  # type: ignore[attr-defined]
                (ia.sinkhorn(source, epsilon=2.0, all_sum=all_sum), breaks(0))[0]
            ),
        ],
        ids=["pass", "columns", "verify", "balanced_labels", "mutual_information", "error_bound"],
    )
    def test_a_rank_that_fails_in_a_pass_stops_all(self, ask: Callable[..., Any]) -> None:
        scores = scores_of()

        def work(rank: int, all_sum: Any) -> Any:
            left: list[int] = []

            def chunks() -> Iterator[Any]:
                if left and left.pop() == 0:
                    raise OSError("the disk is gone")
                yield scores[20:] if rank else scores[:20]

            def breaks(after: int) -> None:
                if rank:
                    left.extend(range(after + 1))

            return ask(ia.StreamedScores(chunks), all_sum, breaks)

        first, second = on_ranks(2, work, timeout=5)
        with pytest.raises(RuntimeError, match="another rank failed in this pass"):
            raise first
        with pytest.raises(OSError, match="the disk is gone"):
            raise second

    def test_what_cannot_be_prepared_stops_all(self) -> None:
        shards: list[Any] = [scores_of(), scores_of()[:0]]
        for error in on_ranks(2, lambda k, all_sum: ia.sinkhorn(shards[k], epsilon=1e-310, all_sum=all_sum), timeout=5):
            with pytest.raises(ValueError, match="too small for float64"):
                raise error
        broken = [ia.FactoredScores(scores_of() * (np.nan if k else 1.0), np.eye(7)) for k in range(2)]
        first, second = on_ranks(
            2, lambda k, all_sum: ia.mira(broken[k], check_finite=False, all_sum=all_sum), timeout=5
        )
        assert isinstance(first, ia.ShardMismatchError)
        with pytest.raises(ValueError, match="features and prototypes must be finite"):
            raise second

    def test_mutual_information_with_a_rank_that_has_no_rows(self) -> None:
        scores = scores_of()

        def work(rank: int, all_sum: Any) -> Any:
            found = ia.mira(scores if rank else scores[:0], all_sum=all_sum)
            return ia.Assignment.mutual_information.func(found)  # type: ignore[attr-defined]

        assert good(on_ranks(2, work)) == pytest.approx([ia.mira(scores).mutual_information] * 2, rel=1e-9)

    def test_no_rows_at_all(self) -> None:
        for error in on_ranks(2, lambda rank, all_sum: ia.mira(scores_of()[:0], all_sum=all_sum)):
            with pytest.raises(ValueError, match="scores must not be empty; no rank has a row"):
                raise error

    def test_a_label_that_no_rank_may_use(self) -> None:
        scores = scores_of()
        scores[:30, 2] = -np.inf
        options: dict[str, Any] = {"epsilon": 2.0}
        halves = parts(scores, [30])
        good(on_ranks(2, lambda rank, all_sum: ia.sinkhorn(halves[rank], all_sum=all_sum, **options)))
        scores[30:, 2] = -np.inf
        for error in on_ranks(2, lambda rank, all_sum: ia.sinkhorn(halves[rank], all_sum=all_sum, **options)):
            with pytest.raises(ValueError, match="column 2 of scores is all -inf"):
                raise error


@pytest.mark.parametrize("values", [[3.0, 0.0, 2.9], [0.0, 0.0, 0.0], [1e-200, 5.0, 1e200], [np.inf, 1.0, 0.0]])
def test_a_largest_from_sums(values: list[float]) -> None:
    found = good(on_ranks(3, lambda rank, all_sum: sharding.Ranks(all_sum).bound(np.array([values[rank]]))))
    for one in found:
        assert max(values) <= one[0] <= max(values) * 1.05 or one[0] == max(values)
