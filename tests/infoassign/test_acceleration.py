"""Accelerated steps: fewer sweeps on the problems that we measure on, and never many more."""

from typing import Any

import numpy as np
import pytest
from float64_oracles import family_optimum, mean_total_variation
from problems import suite, table

import infoassign as ia
from infoassign import solver, steps

TABLE = {problem.name: problem for problem in table()}
SUITE = {problem.name: problem for problem in suite()}
GOALS = {
    "MIRA beta 2/3": 8,
    "MIRA beta 0.9": 20,
    "MIRA beta 0.99": 85,
    "MIRA beta 0.999, 256 x 384": 230,  # 190 to 210 as measured, with the order in which sums are made
    "SwAV eps 0.05": 30,
    "SeLa lambda 25": 200,
}


@pytest.fixture
def sweeps_needed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that counts sweeps until the gap, or the marginal error, is at most 1e-8."""
    assess = solver.assess

    def by_measure(*args: Any) -> solver.Progress:
        found = assess(*args)
        return solver.Progress(error=found.measure, floor=0 * found.floor, measure=found.measure)

    monkeypatch.setattr(solver, "assess", by_measure)
    monkeypatch.setattr(solver, "PATIENCE", 10**6)

    def count(problem: Any, acceleration: str | None) -> int:
        assignment = ia.assign(
            problem.scores, epsilon=problem.epsilon, strength=problem.strength, prior=problem.prior,
            tol=1e-8, max_sweeps=6000, acceleration=acceleration,
        )  # fmt: skip
        assert assignment.converged
        return int(assignment.sweeps)

    return count


@pytest.mark.parametrize("name", TABLE)
def test_reaches_its_goal_on_the_table(sweeps_needed: Any, name: str) -> None:
    assert sweeps_needed(TABLE[name], "auto") <= GOALS[name]


def test_the_suite_has_thirty_problems() -> None:
    assert len(SUITE) == 30


@pytest.mark.parametrize("name", SUITE)
def test_never_needs_many_more_than_plain_steps(sweeps_needed: Any, name: str) -> None:
    assert sweeps_needed(SUITE[name], "auto") <= sweeps_needed(SUITE[name], None) + 10


@pytest.mark.theorem("A12")
def test_steps_that_lead_astray_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the quasi-Newton direction is, the solve ends where plain steps do."""
    random = np.random.default_rng(0)
    monkeypatch.setattr(steps, "direction", lambda point, *_: random.normal(size=point.potential.shape) * 50)
    scores = random.normal(size=(60, 12))
    for strength in (1.0, np.inf):
        assignment = ia.assign(scores, epsilon=0.3, strength=strength)
        assert assignment.converged
        optimum, _ = family_optimum(scores, 0.3, strength)
        assert mean_total_variation(assignment.plan, optimum) <= assignment.error_bound


@pytest.mark.parametrize("nonsense", [np.nan, np.inf, 1e300, 0.0])
def test_directions_that_are_no_numbers_do_no_harm(monkeypatch: pytest.MonkeyPatch, nonsense: float) -> None:
    monkeypatch.setattr(steps, "direction", lambda point, *_: np.full(point.potential.shape, nonsense))
    scores = np.random.default_rng(0).normal(size=(60, 12))
    assert ia.sinkhorn(scores, epsilon=0.5).converged


@pytest.mark.theorem("A8")
@pytest.mark.parametrize("strength", [0.05, 1.0, 20.0, np.inf])
def test_plain_steps_raise_the_dual_by_what_they_guarantee(strength: float) -> None:
    """Theory, A8: the bound that accelerated steps are measured by."""
    scores = np.random.default_rng(0).normal(size=(60, 12)) * 3
    epsilon = 0.2
    before = ia.assign(scores, epsilon=epsilon, strength=strength, tol=0, max_sweeps=1)
    for sweeps in range(2, 30):
        after = ia.assign(scores, epsilon=epsilon, strength=strength, tol=0, max_sweeps=sweeps, acceleration=None)
        guaranteed = float(steps.plain_ascent(before._family, before._solution.point))
        assert after._solution.point.dual - before._solution.point.dual >= guaranteed - 1e-14
        before = after


def test_the_inverse_hessian_satisfies_the_secant_equation() -> None:
    """L-BFGS maps the newest change of slope to the step that made it, where its metric is linear."""
    scores = np.random.default_rng(0).normal(size=(200, 12)) / 3
    assignment = ia.sinkhorn(scores, epsilon=0.5, tol=1e-3)
    point = assignment._solution.point
    random = np.random.default_rng(1)
    step = random.normal(size=12) * 1e-4
    step -= step.mean()
    there = ia.sinkhorn(scores, epsilon=0.5, tol=0, max_sweeps=1, start=assignment.potential + 0.5 * step)
    slope = steps.slope_of(there._solution.point) - steps.slope_of(point)
    scale = 1 / np.sqrt(step @ slope)
    pairs = scale * np.array([step[None], slope[None]])
    at_slope = there._solution.point._replace(marginal=point.target - slope)
    np.testing.assert_allclose(steps.direction(at_slope, *pairs, np.ones((1, 1)), 1.0), step, rtol=1e-6, atol=1e-12)
