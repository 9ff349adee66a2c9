"""The library's solver keeps the laws, whatever holds the scores and whichever library they are arrays of."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from plain_solvers import altered
from ranks import on_ranks

import infoassign as ia
from infoassign.testing import assignment_laws, laws, strategies
from infoassign.testing.contract import STATEMENTS
from infoassign.testing.problems import Problem, known_problems, planted

ALL = (*assignment_laws.LAWS, assignment_laws.every_start_leads_to_the_same_plan)


def named(law: Any) -> Any:
    """A parameter that carries the statements of its law."""
    return pytest.param(law, id=law.__name__, marks=pytest.mark.theorem(*STATEMENTS[law.__name__]))


@pytest.mark.parametrize("law", [named(law) for law in ALL])
def test_mira_keeps_them(law: Callable[..., None]) -> None:
    @settings(max_examples=settings.default.max_examples // 2)
    @given(strategies.problems())
    def keeps(problem: Problem) -> None:
        law(ia.mira, problem)

    keeps()


@pytest.mark.parametrize("law", [named(law) for law in ALL])
def test_plain_steps_keep_them(law: Callable[..., None]) -> None:
    def plain(scores: Any, **options: Any) -> Any:
        return ia.mira(scores, acceleration=None, **options)

    for problem in known_problems():
        law(plain, problem)


@pytest.mark.theorem("A6")
@settings(max_examples=settings.default.max_examples // 2)
@given(strategies.problems())
def test_plain_steps_converge_at_the_proved_rate(problem: Problem) -> None:
    def plain(scores: Any, **options: Any) -> Any:
        return ia.mira(scores, acceleration=None, **options)

    assignment_laws.converges_at_the_proved_rate(plain, problem)


@pytest.mark.theorem("A6")
def test_accelerated_steps_may_need_more_sweeps_than_plain_ones() -> None:
    """At a small beta, where plain steps are fast: why the laws of any solver grant it twice their sweeps."""
    problem = planted(np.log([[0.07, 0.01, 0.92], [0.01, 0.01, 0.98]]), beta=0.05)
    plain, accelerated = (
        ia.mira(problem.scores, beta=problem.beta, tol=1e-9, acceleration=name) for name in (None, "auto")
    )
    assert plain.sweeps < accelerated.sweeps <= 2 * assignment_laws.guaranteed_sweeps(problem, 1e-9)


def streamed(scores: Any, **options: Any) -> Any:
    found = ia.mira(ia.StreamedScores(scores, chunk_rows=2), **options)
    return altered(found, plan=np.concatenate(list(found.iter_plan())))


def factored(scores: Any, **options: Any) -> Any:
    """The scores as a product with the identity, where no pair is forbidden."""
    if not np.isfinite(scores).all():
        return ia.mira(scores, **options)
    found = ia.mira(ia.FactoredScores(scores, np.eye(scores.shape[1])), **options)
    return altered(found, plan=np.concatenate(list(found.iter_plan())))


def sharded(scores: Any, **options: Any) -> Any:
    """On two ranks, of which one may have no rows."""
    cut = len(scores) // 3
    parts = (scores[:cut], scores[cut:])
    found = on_ranks(2, lambda rank, all_sum: ia.mira(parts[rank], all_sum=all_sum, **options))
    for answer in found:
        if isinstance(answer, Exception):
            raise answer
    return altered(found[0], plan=np.concatenate([answer.plan for answer in found]))


def on_torch(scores: Any, **options: Any) -> Any:
    return ia.mira(torch.from_numpy(scores), **options)


def on_the_strict_library(scores: Any, **options: Any) -> Any:
    return ia.mira(array_api_strict.asarray(scores), **options)


def on_cuda(scores: Any, **options: Any) -> Any:
    return ia.mira(torch.from_numpy(scores).cuda(), **options)


def on_cupy(scores: Any, **options: Any) -> Any:
    return ia.mira(pytest.importorskip("cupy").asarray(scores), **options)


ON_GPUS = [pytest.param(solve, marks=pytest.mark.gpu) for solve in (on_cuda, on_cupy)]


@pytest.mark.parametrize("solve", [on_torch, on_the_strict_library, streamed, factored, sharded, *ON_GPUS])
def test_the_same_whatever_holds_the_scores(solve: Callable[..., Any]) -> None:
    laws_of_one_answer = (
        assignment_laws.converged_means_within_tol,
        assignment_laws.error_bound_holds_when_stopped_early,
        assignment_laws.plan_is_that_of_the_potential,
        assignment_laws.gap_is_not_understated,
        assignment_laws.converges_in_twice_the_proved_sweeps,
    )
    for problem in known_problems()[::3]:
        for law in laws_of_one_answer:
            law(solve, problem)


def test_single_precision_keeps_them_to_its_own_tolerance() -> None:
    def single(scores: Any, **options: Any) -> Any:
        return ia.mira(scores.astype(np.float32), **options)

    for problem in known_problems():
        if np.abs(problem.scores[problem.scores > -np.inf]).max() < 30:
            for law in assignment_laws.LAWS:
                law(single, problem, tol=1e-4)


def test_what_is_read_of_an_answer_is_documented() -> None:
    """No more than the contract names, so that a solver of one's own need not know of the rest."""
    problem = known_problems()[1]
    found = ia.mira(problem.scores, beta=problem.beta, temperature=problem.temperature, tol=1e-9)
    needed = ("plan", "potential", "gap", "error_bound", "sweeps", "converged")
    answer = SimpleNamespace(**{name: getattr(found, name) for name in needed})
    assignment_laws.no_plan_is_better(lambda scores, **_: answer, problem)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": np.ones((2, 2))}, "plan and potential have shapes"),
        ({"gap": float("nan")}, "gap and bounds are claimed to be"),
        ({"error_bound": -1e-12}, "gap and bounds are claimed to be"),
    ],
)
def test_answers_out_of_form_are_rejected(changes: dict[str, Any], message: str) -> None:
    def solve(scores: Any, **options: Any) -> Any:
        return altered(ia.mira(scores, **options), **changes)

    with pytest.raises(AssertionError, match=message):
        laws.assignment_solver(solve)


def test_lists_are_answers_too() -> None:
    def solve(scores: Any, **options: Any) -> Any:
        found = ia.mira(scores, **options)
        return altered(found, plan=found.plan.tolist(), potential=found.potential.tolist())

    assignment_laws.converged_means_within_tol(solve, known_problems()[1])
