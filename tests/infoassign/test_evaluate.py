"""Objective, dual, gap and residual of any plan and potential, against literal formulas."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from float64_oracles import family_optimum, softmin_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, rel_entr, xlogy

import infoassign as ia

Make = Callable[[Any], Any]
EPSILON = 0.4
STRENGTHS = [0.0, 0.7, np.inf]


def problem(seed: int = 0, rows: int = 9, columns: int = 4) -> tuple[Any, Any, Any]:
    """Scores, prior and a potential."""
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, columns)), random.dirichlet(np.ones(columns)), random.normal(size=columns)


def literal_primal(plan: Any, scores: Any, strength: float, prior: Any) -> float:
    wbar = plan.mean(axis=0)
    coupling = strength * rel_entr(wbar, prior).sum() if 0 < strength < np.inf else 0.0
    return float((-np.sum(plan * scores) + EPSILON * xlogy(plan, plan).sum()) / len(plan) + coupling)


def literal_dual(potential: Any, scores: Any, strength: float, prior: Any) -> float:
    lse = logsumexp((scores - potential) / EPSILON, axis=1).mean()
    if strength == 0:
        return float(-potential.max() - EPSILON * lse)
    if np.isinf(strength):
        return float(-potential @ prior - EPSILON * lse)
    return float(-strength * logsumexp(np.log(prior) + potential / strength) - EPSILON * lse)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_are_their_formulas(make: Make, strength: float) -> None:
    scores, prior, potential = problem()
    options: dict[str, Any] = {"epsilon": EPSILON, "strength": strength, "prior": make(prior)}
    plan = np.random.default_rng(1).dirichlet(np.ones(4), size=9)
    assert ia.primal_objective(make(plan), make(scores), **options) == pytest.approx(
        literal_primal(plan, scores, strength, prior), abs=1e-13
    )
    assert ia.dual_objective(make(potential), make(scores), **options) == pytest.approx(
        literal_dual(potential, scores, strength, prior), abs=1e-13
    )


@pytest.mark.theorem("A4")
@pytest.mark.parametrize("strength", [0.0, 0.7, 40.0])
def test_the_gap_is_primal_minus_dual(strength: float) -> None:
    scores, prior, potential = problem()
    options: dict[str, Any] = {"epsilon": EPSILON, "strength": strength, "prior": prior}
    plan = softmin_plan(potential, scores, EPSILON)
    difference = ia.primal_objective(plan, scores, **options) - ia.dual_objective(potential, scores, **options)
    assert ia.duality_gap(potential, scores, **options) == pytest.approx(difference, abs=1e-12)


@pytest.mark.theorem("A5")
def test_the_gap_of_an_exact_marginal_bounds_what_the_dual_lacks() -> None:
    scores, prior, _ = problem()
    options: dict[str, Any] = {"epsilon": EPSILON, "prior": prior}
    solved = ia.assign(scores, **options, tol=1e-10)
    random = np.random.default_rng(0)
    for size in (3.0, 1.0, 0.1, 0.01):
        potential = solved.potential + random.normal(size=4) * size
        lacking = solved.objective - ia.dual_objective(potential, scores, **options)
        gap = ia.duality_gap(potential, scores, **options)
        assert lacking <= gap + 1e-12
        if size < 0.1:
            assert gap <= 1.05 * lacking


@pytest.mark.theorem("A3")
@pytest.mark.parametrize("strength", STRENGTHS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=50)
def test_weak_duality(strength: float, seed: int) -> None:
    """No dual value is above the primal of a feasible plan."""
    scores, prior, potential = problem(seed)
    options: dict[str, Any] = {"epsilon": EPSILON, "strength": strength, "prior": prior}
    plan = np.random.default_rng(seed).dirichlet(np.ones(4) / 2, size=9)
    if np.isinf(strength):
        plan = np.tile(prior, (9, 1))
    assert ia.primal_objective(plan, scores, **options) >= ia.dual_objective(potential, scores, **options) - 1e-12


@pytest.mark.theorem("A1", "A3")
@pytest.mark.parametrize("strength", STRENGTHS)
@given(seed=st.integers(0, 10**6), weight=st.floats(0, 1))
@settings(max_examples=50)
def test_the_primal_is_convex_and_the_dual_concave(strength: float, seed: int, weight: float) -> None:
    scores, prior, one = problem(seed)
    options: dict[str, Any] = {"epsilon": EPSILON, "strength": strength, "prior": prior}
    random = np.random.default_rng(seed)
    other = random.normal(size=4)
    first, second = random.dirichlet(np.ones(4), size=(2, 9))

    def mixed(f: Any, a: Any, b: Any) -> tuple[float, float]:
        between = f(weight * a + (1 - weight) * b, scores, **options)
        return between, weight * f(a, scores, **options) + (1 - weight) * f(b, scores, **options)

    between, mean = mixed(ia.primal_objective, first, second)
    assert between <= mean + 1e-12
    between, mean = mixed(ia.dual_objective, one, other)
    assert between >= mean - 1e-12


@pytest.mark.theorem("A2")
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_residual_vanishes_at_the_solution_alone(make: Make, strength: float) -> None:
    scores, prior, elsewhere = problem()
    options: dict[str, Any] = {"epsilon": EPSILON, "strength": strength, "prior": make(prior)}
    solved = ia.assign(make(scores), **options, tol=1e-12)
    assert ia.kkt_residual(solved.potential, make(scores), **options) <= 1e-10
    assert ia.duality_gap(solved.potential, make(scores), **options) <= 1e-12
    assert ia.kkt_residual(make(elsewhere), make(scores), **options) > 0.01


@pytest.mark.theorem("A2")
def test_the_residual_is_the_spread_of_equation_5() -> None:
    scores, prior, potential = problem()
    wbar = softmin_plan(potential, scores, EPSILON).mean(axis=0)
    off = potential - 0.7 * np.log(wbar / prior)
    found = ia.kkt_residual(potential, scores, epsilon=EPSILON, strength=0.7, prior=prior)
    assert found == pytest.approx(np.ptp(off), rel=1e-12)


def test_a_plan_of_another_solver_can_be_judged() -> None:
    scores, prior, _ = problem()
    optimum, _ = family_optimum(scores, EPSILON, 0.7, prior)
    solved = ia.assign(scores, epsilon=EPSILON, strength=0.7, prior=prior, tol=1e-9)
    judged = ia.primal_objective(optimum, scores, epsilon=EPSILON, strength=0.7, prior=prior)
    assert judged == pytest.approx(solved.objective, abs=1e-12)


def test_forbidden_pairs() -> None:
    scores, _, potential = problem()
    scores[0, 1] = scores[3, 2] = -np.inf
    plan = np.where(np.isfinite(scores), 1.0, 0.0)
    plan /= plan.sum(axis=1, keepdims=True)
    assert np.isfinite(ia.primal_objective(plan, scores, epsilon=EPSILON, strength=1.0))
    assert ia.primal_objective(np.full((9, 4), 0.25), scores, epsilon=EPSILON, strength=1.0) == np.inf
    scores[:, 3] = -np.inf
    potential[3] = np.inf
    assert np.isfinite(ia.dual_objective(potential, scores, epsilon=EPSILON, strength=1.0))


def test_batches(make: Make) -> None:
    scores = np.stack([problem(0)[0], problem(1)[0]])
    potential = np.stack([problem(0)[2], problem(1)[2]])
    for function in (ia.dual_objective, ia.duality_gap, ia.kkt_residual):
        together = function(make(potential), make(scores), epsilon=EPSILON, strength=0.7)
        for i in range(2):
            alone = function(potential[i], scores[i], epsilon=EPSILON, strength=0.7)
            assert float(together[i]) == pytest.approx(alone, abs=1e-12)


def test_tensors_that_require_gradients() -> None:
    plan = torch.full((9, 4), 0.25, dtype=torch.float64, requires_grad=True)
    scores = torch.from_numpy(problem()[0]).requires_grad_()
    assert isinstance(ia.primal_objective(plan, scores, epsilon=EPSILON), float)
    assert isinstance(ia.dual_objective(scores[0], scores, epsilon=EPSILON), float)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s, v: ia.primal_objective(s[:3], s, epsilon=1), ValueError, r"plan must have the shape of scores"),
        (
            lambda s, v: ia.dual_objective(v[:2], s, epsilon=1),
            ValueError,
            r"potential must have a value for each label, shape \(4,\)",
        ),
        (lambda s, v: ia.duality_gap(v + np.inf, s, epsilon=1), ValueError, "potential must be finite"),
        (lambda s, v: ia.kkt_residual([0.0] * 4, s, epsilon=1), TypeError, "potential must be an array"),
        (lambda s, v: ia.kkt_residual(v, s, epsilon=-1), ValueError, "epsilon must be positive"),
        (lambda s, v: ia.kkt_residual(v, s + np.nan, epsilon=1), ValueError, "must not hold NaN"),
    ],
)
def test_refusals(call: Any, error: type[Exception], message: str) -> None:
    scores, _, potential = problem()
    with pytest.raises(error, match=message):
        call(scores, potential)
