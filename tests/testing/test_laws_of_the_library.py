"""Laws of the mathematics itself, and of the functions that state it."""

from math import inf, log
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

import infoassign as ia
from infoassign.testing import step_laws, strategies
from infoassign.testing.contract import STATEMENTS
from infoassign.testing.definitions import dual, duality_gap, log_mean, log_plan, log_target, mutual_information, primal
from infoassign.testing.problems import Problem, Transport, planted

few = settings(max_examples=settings.default.max_examples // 2)
epsilons = st.sampled_from([0.1, 0.5, 2.0])
strengths = st.sampled_from([0.1, 1.0, 10.0])


@st.composite
def members(draw: st.DrawFn, scores: Any = None) -> tuple[Any, dict[str, Any], Any]:
    """Scores, the options of a penalised member of the family, and a potential: any."""
    matrix = draw(strategies.scores() if scores is None else scores)
    size = matrix.shape[1]
    options = {"epsilon": draw(epsilons), "strength": draw(strengths), "prior": draw(strategies.priors(size))}
    return matrix, options, draw(strategies.numbers(size, 10))


def scale_of(scores: Any, v: Any, options: dict[str, Any]) -> float:
    """What rounding is relative to."""
    largest = np.max(np.abs(scores), where=scores > -inf, initial=0.0)
    return float(1 + largest + np.abs(v).max() + 10 * (options["epsilon"] + min(options["strength"], 1e3)))


@pytest.mark.theorem("A1")
@few
@given(members(), st.data())
def test_the_primal_is_strongly_convex_along_segments(member: Any, data: st.DataObject) -> None:
    """With modulus epsilon / B in the l2 norm: at the middle it is below the chord by that over 8 times the square."""
    scores, options, _ = member
    allowed = scores > -inf
    ends = [data.draw(strategies.plans(*scores.shape)) for _ in range(2)]
    first, second = (np.where(allowed, plan + 1e-3, 0) for plan in ends)
    first, second = (plan / plan.sum(axis=1, keepdims=True) for plan in (first, second))
    middle = ia.primal_objective((first + second) / 2, scores, **options)
    chord = sum(ia.primal_objective(plan, scores, **options) for plan in (first, second)) / 2
    below = options["epsilon"] / len(scores) / 8 * np.sum((first - second) ** 2)
    assert middle <= chord - below + 1e-13 * scale_of(scores, 0, options)


@pytest.mark.theorem("A3")
@few
@given(members(), st.data())
def test_no_dual_is_above_a_primal(member: Any, data: st.DataObject) -> None:
    scores, options, v = member
    allowed = scores > -inf
    v = np.where(allowed.any(axis=0), v, inf)
    plan = np.where(allowed, data.draw(strategies.plans(*scores.shape)) + 1e-9, 0)
    plan = plan / plan.sum(axis=1, keepdims=True)
    below = ia.dual_objective(v, scores, **options)
    assert below <= ia.primal_objective(plan, scores, **options) + 1e-13 * scale_of(scores, v[v < inf], options)
    assert ia.dual_objective(v + 3.0, scores, **options) == pytest.approx(
        below, abs=1e-13 * scale_of(scores, v[v < inf], options)
    )
    assert below == pytest.approx(dual(v, scores, **options), abs=1e-13 * scale_of(scores, v[v < inf], options))


@pytest.mark.theorem("A3")
@few
@given(members(), st.data())
def test_the_dual_is_concave(member: Any, data: st.DataObject) -> None:
    scores, options, v = member
    other = data.draw(strategies.numbers(len(v), 10))
    usable = (scores > -inf).any(axis=0)
    first, second, middle = (np.where(usable, x, inf) for x in (v, other, (v + other) / 2))
    ends = (ia.dual_objective(first, scores, **options) + ia.dual_objective(second, scores, **options)) / 2
    slack = 1e-13 * scale_of(scores, np.maximum(np.abs(v), np.abs(other)), options)
    assert ia.dual_objective(middle, scores, **options) >= ends - slack


@pytest.mark.theorem("A4")
@few
@given(members())
def test_the_gap_is_primal_minus_dual(member: Any) -> None:
    scores, options, v = member
    v = np.where((scores > -inf).any(axis=0), v, inf)
    plan = np.exp(log_plan(v, scores, options["epsilon"]))
    slack = 1e-13 * scale_of(scores, v[v < inf], options)
    difference = primal(plan, scores, **options) - dual(v, scores, **options)
    gap = ia.duality_gap(v, scores, **options)
    assert gap == pytest.approx(difference, abs=10 * slack)
    assert gap == pytest.approx(duality_gap(v, scores, **options), rel=1e-6, abs=1e-24)


@pytest.mark.theorem("A2")
@few
@given(members())
def test_a_small_residual_means_a_small_gap(member: Any) -> None:
    """With a spread R of ``v - rho log(wbar / r)``, rho KL(wbar || u) is at most ``R^2 / (8 rho)`` (Hoeffding)."""
    scores, options, v = member
    v = np.where((scores > -inf).any(axis=0), v, inf)
    residual = ia.kkt_residual(v, scores, **options)
    assert ia.duality_gap(v, scores, **options) <= residual**2 / (8 * options["strength"]) * (1 + 1e-6) + 1e-24


@pytest.mark.theorem("A2", "A4", "A5")
@few
@given(strategies.transports())
def test_certificates_of_a_planted_solution(problem: Transport) -> None:
    """KKT is sufficient: what satisfies it has no residual and no gap, and the solver finds it."""
    options: dict[str, Any] = {"epsilon": problem.epsilon, "strength": problem.strength, "prior": problem.prior}
    scale = np.abs(problem.scores[problem.scores > -inf]).max() + np.abs(problem.potential).max()
    rounding = 1e-13 * (1 + scale / problem.epsilon)
    assert ia.kkt_residual(problem.potential, problem.scores, **options) <= rounding * (
        1 if problem.strength == inf else 1 + problem.strength
    )
    found = ia.assign(problem.scores, tol=1e-8, max_sweeps=20_000, **options)
    assume(found.converged)
    bound = found.error_bound
    assert np.abs(found.plan - problem.plan).sum(axis=1).mean() / 2 <= bound + rounding
    if problem.strength < inf:
        assert ia.duality_gap(problem.potential, problem.scores, **options) <= rounding**2 * (1 + problem.strength)


@pytest.mark.theorem("A5")
@few
@given(strategies.transports(), st.data())
def test_the_gap_is_a_sum_of_divergences_to_the_optimum(problem: Transport, data: st.DataObject) -> None:
    """Exactly: so the distance bounds of A5 hold, and nothing is lost but by Pinsker and Jensen."""
    assume(problem.strength < inf)
    v = problem.potential + data.draw(strategies.numbers(len(problem.potential), 3))
    options: dict[str, Any] = {"epsilon": problem.epsilon, "strength": problem.strength, "prior": problem.prior}
    log_w, best = log_plan(v, problem.scores, problem.epsilon), problem.plan
    plan, wbar, wbar_best = np.exp(log_w), np.exp(log_mean(log_w)), best.mean(axis=0)
    u = np.exp(log_target(v, problem.scores, problem.strength, problem.prior))
    rows = (rel_entr(plan, best) + rel_entr(best, plan)).sum(axis=1).mean()
    columns = (rel_entr(wbar, wbar_best) + rel_entr(wbar_best, u)).sum()
    gap = ia.duality_gap(v, problem.scores, **options)
    expected = problem.epsilon * rows + problem.strength * columns
    assert gap == pytest.approx(expected, rel=1e-7, abs=1e-12 * scale_of(problem.scores, v, options))
    distances = np.abs(plan - best).sum(axis=1) / 2
    d = np.log(wbar) - np.log(u)
    assert distances.mean() <= np.sqrt(gap / (4 * problem.epsilon)) + 1e-12
    assert distances.max() <= np.tanh(problem.strength * np.ptp(d) / (4 * problem.epsilon)) + 1e-12


def library_step(v: Any, scores: Any, **options: Any) -> Any:
    """One plain step: of two sweeps, one update."""
    return ia.assign(scores, start=v, tol=0, max_sweeps=2, acceleration=None, **options).potential


@pytest.mark.parametrize(
    "law",
    [
        pytest.param(law, id=law.__name__, marks=pytest.mark.theorem(*STATEMENTS[law.__name__]))
        for law in step_laws.LAWS
    ],
)
def test_the_plain_step(law: Any) -> None:
    @few
    @given(strategies.transports())
    def keeps(problem: Transport) -> None:
        law(library_step, problem)

    keeps()


@pytest.mark.theorem("A8")
def test_sinkhorn_contracts_no_faster_than_hilberts_metric_allows() -> None:
    """For two rows and two labels the coefficient is nearly attained, so the law is not a loose one."""
    scores, prior = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.5, 0.5])
    first, second = np.array([0.0, 0.0]), np.array([1e-4, 0.0])
    moved = [library_step(v, scores, epsilon=0.5, strength=inf, prior=prior) for v in (first, second)]
    factor = step_laws.spread(moved[1] - moved[0]) / 1e-4
    assert factor == pytest.approx(np.tanh(step_laws.projective_diameter(scores, 0.5) / 4) ** 2, rel=1e-3)


@pytest.mark.theorem("A9")
@few
@given(strategies.finite_scores(6, 4))
def test_epsilon_to_zero_is_the_linear_program(scores: Any) -> None:
    """The linear value at epsilon misses the program's by ``epsilon log K`` at most."""
    from scipy.optimize import linprog

    rows, columns = scores.shape
    equal = np.concatenate([np.kron(np.eye(rows), np.ones(columns)), np.tile(np.eye(columns), rows)])
    right = np.concatenate([np.ones(rows), np.full(columns, rows / columns)])
    best = -linprog(-scores.ravel(), A_eq=equal, b_eq=right, method="highs").fun / rows
    for epsilon in (1.0, 0.1):
        found = ia.assign(scores, epsilon=epsilon, tol=1e-7, max_sweeps=20_000)
        assume(found.converged)
        value = np.sum(found.balanced_plan() * scores) / rows
        assert (
            best - epsilon * log(columns) - 1e-5 * (1 + np.ptp(scores)) <= value <= best + 1e-6 * (1 + np.ptp(scores))
        )


@pytest.mark.theorem("A9")
def test_without_scores_the_limit_is_the_middle_of_the_face() -> None:
    for epsilon in (1.0, 1e-3):
        np.testing.assert_allclose(ia.sinkhorn(np.zeros((2, 2)), epsilon=epsilon).plan, 0.5)


@pytest.mark.theorem("A2")
@few
@given(strategies.finite_scores())
def test_strength_to_infinity_meets_the_prior(scores: Any) -> None:
    """rho KL(wbar || r) is at most what equal shares cost more than the optimum without it: O(1) / rho."""
    columns = scores.shape[1]
    free = ia.primal_objective(softmax(scores, axis=1), scores, epsilon=1.0, strength=0)
    bound = ia.primal_objective(np.full_like(scores, 1 / columns), scores, epsilon=1.0) - free
    for strength in (1.0, 10.0, 1000.0):
        found = ia.assign(scores, epsilon=1.0, strength=strength, tol=1e-8, max_sweeps=20_000)
        divergence = rel_entr(np.asarray(found.marginal), 1 / columns).sum()
        assert divergence <= bound / strength + found.gap + 1e-9


@pytest.mark.theorem("A10")
@few
@given(strategies.finite_scores(), st.sampled_from([0.3, 0.8]))
def test_mira_with_equal_shares_is_swav(logits: Any, beta: float) -> None:
    """With wbar = r the penalty is 0, and on logits / tau the entropy weight is ``tau (1 - beta)`` on raw logits."""
    temperature = 0.5
    swav = ia.sinkhorn(logits, epsilon=temperature * (1 - beta), tol=1e-9, max_sweeps=20_000)
    mira = ia.assign(logits / temperature, epsilon=1 - beta, strength=inf, tol=1e-9, max_sweeps=20_000)
    assume(swav.converged and mira.converged)
    assert np.abs(swav.plan - mira.plan).sum(axis=1).mean() / 2 <= swav.error_bound + mira.error_bound


@pytest.mark.theorem("A13")
@few
@given(strategies.finite_scores())
def test_the_marginals_entropy_never_falls_in_the_strength(scores: Any) -> None:
    before = -1.0
    for strength in (0.0, 0.1, 1.0, 10.0):
        found = ia.assign(scores, epsilon=0.5, strength=strength, tol=1e-9, max_sweeps=5000)
        now = log(found.perplexity)
        assert now >= before - 1e-6
        before = now


@pytest.mark.theorem("A13")
def test_the_marginals_entropy_may_fall_in_beta() -> None:
    """Nine rows (.7, .3) and one (.3, .7): .641 falls to .612 as beta goes from 0 to .99."""
    scores = np.log([[0.7, 0.3]] * 9 + [[0.3, 0.7]])
    entropies = [log(ia.mira(scores, beta=beta, tol=1e-9).perplexity) for beta in (0.0, 0.5, 0.9, 0.99)]
    assert entropies[0] == pytest.approx(0.641, abs=5e-4)
    assert entropies[-1] == pytest.approx(0.612, abs=5e-4)


@pytest.mark.theorem("A13")
@few
@given(st.data(), st.integers(1, 6), st.integers(1, 5))
def test_information_of_any_plan_is_bounded(data: st.DataObject, rows: int, columns: int) -> None:
    plan = data.draw(strategies.plans(rows, columns))
    information = ia.mutual_information(plan)
    assert information == pytest.approx(mutual_information(plan), abs=1e-13)
    assert -1e-13 <= information <= log(min(rows, columns)) + 1e-13


@pytest.mark.theorem("A13")
@few
@given(strategies.finite_scores(3, 5))
def test_equal_shares_with_few_rows_cost_entropy(scores: Any) -> None:
    """mean H(w_i) is at least ``log(K / B)`` when wbar is uniform: the information is at most log B."""
    rows, columns = scores.shape
    plan = ia.sinkhorn(scores, epsilon=0.3).balanced_plan()
    assert np.mean(ia.entropy(plan)) >= log(columns / rows) - 1e-4


@pytest.mark.theorem("A2", "A13")
@few
@given(strategies.problems())
def test_problems_are_solved_by_what_is_said(problem: Problem) -> None:
    """Every known answer satisfies KKT, for any solver's absence: W is ``W(v)`` with ``v = rho log(K wbar)``."""
    marginal = problem.plan.mean(axis=0)
    if problem.beta > 0:
        assume((marginal[(problem.scores > -inf).any(axis=0)] > 1e-290).all())
    with np.errstate(divide="ignore"):
        v = problem.beta * np.log(marginal * len(marginal)) if problem.beta > 0 else np.zeros(len(marginal))
    plan = np.exp(log_plan(v, problem.scaled, problem.epsilon))
    assert np.abs(plan - problem.plan).sum(axis=1).mean() / 2 <= 10 * problem.rounding


@pytest.mark.theorem("A2")
def test_planted_problems_are_all_there_are() -> None:
    """Planting what the solver found gives back the scores, up to shifts of rows."""
    scores = np.random.default_rng(0).normal(size=(6, 4))
    found = ia.mira(scores, beta=0.6, tol=1e-10)
    again = planted((scores - found.potential) / 0.4, beta=0.6).scores
    shifts = again - scores
    assert np.ptp(shifts, axis=1).max() < 1e-8
