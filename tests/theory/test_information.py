"""Part C of docs/theory: identities between entropies, on random plans and codes."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from family_problems import Problem, kl, problem
from scipy.special import entr, log_softmax
from soft_codes import soft_code

import infoassign as ia


def plans(rows: int = 7, columns: int = 4) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.dirichlet(np.full(columns, a), size=rows) for a in (0.1, 1.0, 10.0) for _ in range(5)]


def with_equal_shares(columns: int = 3) -> Any:
    """A plan of an exact marginal."""
    return ia.sinkhorn(np.random.default_rng(0).normal(size=(9, columns)), epsilon=0.5, tol=1e-12).plan


@pytest.mark.theorem("C1")
@pytest.mark.parametrize("plan", plans())
def test_mutual_information_has_four_forms(plan: Any) -> None:
    wbar, joint = plan.mean(axis=0), plan / len(plan)
    information = float(ia.mutual_information(plan))
    assert information == pytest.approx(float(ia.entropy(wbar) - ia.entropy(plan).mean()), abs=1e-13)
    assert information == pytest.approx(kl(plan, wbar).mean(), abs=1e-13)
    assert information == pytest.approx(kl(joint.ravel(), np.tile(wbar / len(plan), len(plan))), abs=1e-13)
    other = np.random.default_rng(1).dirichlet(np.ones(plan.shape[1]))
    # Of all distributions the mean of the rows is nearest to them, by the compensation identity.
    assert kl(plan, other).mean() == pytest.approx(information + kl(wbar, other), abs=1e-13)
    assert information > 0
    assert float(ia.mutual_information(np.tile(wbar, (5, 1)))) == pytest.approx(0, abs=1e-14)


@pytest.mark.theorem("C2")
@pytest.mark.parametrize("plan", plans())
def test_miras_objective_in_three_forms(plan: Any) -> None:
    log_p, beta = log_softmax(np.random.default_rng(2).normal(size=plan.shape), axis=1), 0.6
    wbar = plan.mean(axis=0)
    equation_1 = kl(plan, np.exp(log_p)).mean() - beta * float(ia.mutual_information(plan))
    rows, marginal = -entr(plan).sum(axis=1).mean(), -entr(wbar).sum()
    equation_4 = -np.sum(plan * log_p) / len(plan) + (1 - beta) * rows + beta * marginal
    assert equation_1 == pytest.approx(equation_4, abs=1e-13)
    member = ia.primal_objective(plan, log_p, epsilon=1 - beta, strength=beta)
    assert equation_4 == pytest.approx(member - beta * np.log(plan.shape[1]), abs=1e-13)


@pytest.mark.theorem("C3")
class TestSelasIdentity:
    def test_the_minimum_over_p_is_a_constant_minus_the_information(self) -> None:
        q = with_equal_shares()
        rows, columns = q.shape

        def cross_entropy(p: Any) -> float:
            return float(-np.sum(q * np.log(p)) / rows + np.log(rows))

        least = np.log(columns) + np.log(rows) - float(ia.mutual_information(q))
        assert cross_entropy(q) == pytest.approx(least, abs=1e-10)
        for p in np.random.default_rng(3).dirichlet(np.ones(columns), size=(20, rows)):
            assert cross_entropy(p) == pytest.approx(least + kl(q, p).mean(), abs=1e-10)

    def test_for_a_fixed_p_the_lower_cross_entropy_may_have_the_less_information(self) -> None:
        """Two plans with equal shares: the one that p prefers says nothing, the other everything."""
        p, nothing, everything = np.array([[0.4, 0.6], [0.6, 0.4]]), np.full((2, 2), 0.5), np.eye(2)
        assert -np.sum(nothing * np.log(p)) < -np.sum(everything * np.log(p)) - 0.1
        assert float(ia.mutual_information(nothing)) < float(ia.mutual_information(everything)) - 0.69


@pytest.mark.theorem("C4")
def test_selas_regulariser_is_the_mutual_information() -> None:
    for prior in (None, np.array([0.5, 0.3, 0.2])):
        plan = ia.sinkhorn(np.random.default_rng(4).normal(size=(8, 3)), epsilon=0.4, prior=prior, tol=1e-12).plan
        r, c = np.full(3, 1 / 3) if prior is None else prior, np.full(8, 1 / 8)
        q = plan.T / 8
        regulariser = kl(q.ravel(), np.outer(r, c).ravel())
        assert regulariser == pytest.approx(float(ia.mutual_information(plan)), abs=1e-10)


@pytest.mark.theorem("C5")
class TestBounds:
    @pytest.mark.parametrize(("rows", "columns"), [(3, 6), (6, 3), (4, 4)])
    def test_by_the_smaller_number(self, rows: int, columns: int) -> None:
        for plan in plans(rows, columns):
            assert float(ia.mutual_information(plan)) <= np.log(min(rows, columns)) + 1e-13
        hard = np.eye(columns)[np.arange(rows) % columns]
        assert float(ia.mutual_information(hard)) == pytest.approx(np.log(min(rows, columns)), abs=1e-13)

    def test_what_the_rows_must_keep(self) -> None:
        for plan in plans(3, 8):
            left = float(ia.entropy(plan.mean(axis=0))) - np.log(3)
            assert float(ia.entropy(plan).mean()) >= left - 1e-13


def joint_of_all(code: Any) -> Any:
    """The joint distribution of all segments, an array of M axes."""
    p = code[:, 0]
    for m in range(1, code.shape[1]):
        p = np.einsum("n...,nd->n...d", p, code[:, m])
    return p.mean(axis=0)


@pytest.mark.theorem("C6")
def test_total_correlation_is_a_divergence() -> None:
    for seed in range(10):
        p = np.random.default_rng(seed).dirichlet(np.full(24, 0.5)).reshape(2, 3, 4)
        marginals = [p.sum(axis=(1, 2)), p.sum(axis=(0, 2)), p.sum(axis=(0, 1))]
        correlation = sum(entr(q).sum() for q in marginals) - entr(p).sum()
        product = np.einsum("a,b,c->abc", *marginals)
        assert correlation == pytest.approx(kl(p.ravel(), product.ravel()), abs=1e-13)
        assert correlation > 0
        assert abs(sum(entr(q).sum() for q in marginals) - entr(product).sum()) < 1e-13
        # Leaving a variable out can only lower it.
        pair = p.sum(axis=2)
        assert entr(marginals[0]).sum() + entr(marginals[1]).sum() - entr(pair).sum() <= correlation + 1e-13


@pytest.mark.theorem("C7")
@pytest.mark.parametrize("size", [1, 2, 3])
def test_average_total_correlation_of_subsets(size: int) -> None:
    p = joint_of_all(soft_code(5, 3, 3, seed=1, sharpness=5.0))

    def entropy_of(subset: tuple[int, ...]) -> float:
        return float(entr(p.sum(axis=tuple(set(range(3)) - set(subset)))).sum())

    subsets = list(combinations(range(3), size))
    correlations = [sum(entropy_of((m,)) for m in subset) - entropy_of(subset) for subset in subsets]
    single, whole = (np.mean([entropy_of(s) for s in combinations(range(3), n)]) for n in (1, size))
    assert np.mean(correlations) == pytest.approx(size * single - whole, abs=1e-13)
    assert np.mean(correlations) >= -1e-13


@pytest.mark.theorem("C8")
class TestExchange:
    def test_the_weighted_term_falls_and_the_other_rises(self) -> None:
        """argmin a + t b over any set: here finite, and chosen at random."""
        for seed in range(50):
            a, b = np.random.default_rng(seed).normal(size=(2, 30))
            chosen = [int(np.argmin(a + t * b)) for t in np.linspace(0, 5, 40)]
            assert (np.diff(b[chosen]) <= 0).all()
            assert (np.diff(a[chosen]) >= 0).all()

    def test_along_mira(self) -> None:
        given = problem(0)
        log_p = log_softmax(given.scores, axis=1)
        fits = []
        for beta in (0.1, 0.4, 0.7, 0.9):
            member = Problem(log_p, 1 - beta, beta, np.full(len(given.prior), 1 / len(given.prior)))
            fits.append(kl(member.plan(member.optimal_potential()), np.exp(log_p)).mean())
        assert (np.diff(fits) > 0).all()
