"""Plans with exactly the prior's marginal, and hard labels with balanced clusters."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from float64_oracles import mean_total_variation, primal
from scipy.optimize import linear_sum_assignment

import infoassign as ia
from infoassign import rounding

Make = Callable[[Any], Any]


def scores_of(rows: int = 60, columns: int = 12, scale: float = 1.0, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, columns)) * scale


def with_forbidden_pairs(rows: int = 60, columns: int = 6, seed: int = 0) -> Any:
    scores = scores_of(rows, columns, seed=seed)
    scores[np.random.default_rng(seed).random(scores.shape) < 0.4] = -np.inf
    scores[np.arange(rows), np.arange(rows) % columns] = 0
    return scores


class TestExactMarginal:
    @pytest.mark.parametrize("seed", range(5))
    def test_moves_no_further_than_it_must(self, make: Make, seed: int) -> None:
        """Theory, A11."""
        random = np.random.default_rng(seed)
        plan, prior = random.dirichlet(np.ones(5), size=(2, 30)), random.dirichlet(np.ones(5))
        moved = np.asarray(rounding.exact_marginal(make(plan), make(plan.mean(axis=1)), make(prior)))
        np.testing.assert_allclose(moved.mean(axis=1), np.stack([prior, prior]), atol=1e-15)
        np.testing.assert_allclose(moved.sum(axis=-1), 1, atol=1e-14)
        assert moved.min() >= 0
        distance = np.abs(moved - plan).sum(axis=-1).mean(axis=-1)
        np.testing.assert_allclose(distance, np.abs(plan.mean(axis=1) - prior).sum(axis=-1), atol=1e-14)

    def test_leaves_a_plan_that_has_it(self) -> None:
        plan = np.full((4, 4), 0.25)
        np.testing.assert_array_equal(rounding.exact_marginal(plan, plan.mean(axis=0), np.full(4, 0.25)), plan)


class TestBalancedPlan:
    @pytest.mark.parametrize("tol", [1e-2, 1e-6])
    def test_has_the_marginal_and_costs_next_to_nothing(self, make: Make, tol: float) -> None:
        scores = scores_of()
        assignment = ia.sinkhorn(make(scores), epsilon=0.2, tol=tol)
        balanced = np.asarray(assignment.balanced_plan())
        np.testing.assert_allclose(balanced.mean(axis=0), 1 / 12, atol=1e-15)
        np.testing.assert_allclose(balanced.sum(axis=1), 1, atol=1e-13)
        assert balanced.min() >= 0
        dual = ia.dual_objective(np.asarray(assignment.potential), scores, epsilon=0.2)
        loss = primal(balanced, scores, 0.2, 0) - dual
        assert -1e-12 <= loss <= assignment.gap + 1e-12  # the gap is that of this very plan
        plan = np.asarray(assignment.plan)
        simple = rounding.exact_marginal(plan, plan.mean(axis=0), np.full(12, 1 / 12))
        assert loss <= primal(simple, scores, 0.2, 0) - dual + 1e-12

    def test_heeds_forbidden_pairs(self) -> None:
        scores = with_forbidden_pairs()
        balanced = ia.sinkhorn(scores, epsilon=0.3).balanced_plan()
        np.testing.assert_allclose(balanced.mean(axis=0), 1 / 6, atol=1e-13)
        assert (balanced[np.isinf(scores)] == 0).all()
        assert balanced.min() >= 0

    def test_says_when_forbidden_pairs_are_in_the_way(self) -> None:
        with pytest.raises(ValueError, match="solve with an exact marginal"):
            ia.sinkhorn(with_forbidden_pairs(), tol=0, max_sweeps=1).balanced_plan()

    def test_is_not_made_up_where_no_plan_has_the_marginal(self) -> None:
        """Two blocks of pairs, each half of the rows, and shares of .51 and .49."""
        scores = scores_of(8, 4)
        scores[:4, 2:] = scores[4:, :2] = -np.inf
        with pytest.raises(ValueError, match="if there is a solution"):
            ia.assign(scores, epsilon=1.0, strength=1.0, prior=[0.26, 0.25, 0.25, 0.24]).balanced_plan()

    def test_of_a_penalised_assignment(self) -> None:
        prior = np.array([0.5, 0.3, 0.2])
        assignment = ia.mira(scores_of(50, 3), prior=prior)
        np.testing.assert_allclose(assignment.balanced_plan().mean(axis=0), prior, atol=1e-14)


def best_by_enumeration(scores: Any, prior: Any) -> float:
    """The largest sum of scores over all labellings whose clusters have the floor or ceiling of their share."""
    rows, columns = scores.shape
    share = rows * prior
    best = -np.inf
    for labels in product(range(columns), repeat=rows):
        sizes = np.bincount(labels, minlength=columns)
        if (sizes >= np.floor(share + 1e-9)).all() and (sizes <= np.ceil(share - 1e-9)).all():
            best = max(best, scores[np.arange(rows), list(labels)].sum())
    return float(best)


class TestBalancedLabels:
    @pytest.mark.parametrize(
        ("rows", "prior"), [(6, [1 / 3] * 3), (7, [1 / 3] * 3), (7, [0.5, 0.3, 0.2]), (3, [0.2] * 5)]
    )
    @pytest.mark.parametrize("seed", range(3))
    def test_no_labelling_is_better(self, rows: int, prior: list[float], seed: int) -> None:
        scores = scores_of(rows, len(prior), seed=seed)
        found = ia.sinkhorn(scores, epsilon=0.5, prior=prior).balanced_labels()
        assert found.optimality_loss == 0
        reached = scores[np.arange(rows), found.labels].sum()
        assert reached == pytest.approx(best_by_enumeration(scores, np.array(prior)), abs=1e-12)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("prior", [None, [0.5] + [0.05] * 10])
    def test_the_auction_is_near_optimal_and_says_how_near(self, seed: int, prior: Any, monkeypatch: Any) -> None:
        scores = scores_of(500, 11, seed=seed)
        assignment = ia.sinkhorn(scores, epsilon=0.1, prior=prior)
        exact = assignment.balanced_labels().labels
        monkeypatch.setattr(rounding, "EXACT_UP_TO", 0)
        found = assignment.balanced_labels()
        share = 500 * (np.full(11, 1 / 11) if prior is None else np.array(prior))
        sizes = np.bincount(found.labels, minlength=11)
        assert (sizes >= np.floor(share + 1e-9)).all()
        assert (sizes <= np.ceil(share - 1e-9)).all()
        rows = np.arange(500)
        loss = scores[rows, exact].mean() - scores[rows, found.labels].mean()
        assert -1e-12 <= loss <= found.optimality_loss + 1e-12
        assert found.optimality_loss <= 1e-3  # epsilon / 100

    def test_of_twenty_thousand_rows(self, make: Make) -> None:
        scores = scores_of(20_000, 30)
        assignment = ia.sinkhorn(make(scores), epsilon=0.1)
        found = assignment.balanced_labels()
        labels = np.asarray(found.labels)
        sizes = np.bincount(labels, minlength=30)
        assert set(sizes) <= {666, 667}
        assert 0 <= found.optimality_loss <= 1e-3
        assert (labels == np.asarray(assignment.labels)).mean() > 0.9

    def test_agrees_with_the_hungarian_method_on_a_square(self) -> None:
        scores = scores_of(40, 40)
        found = ia.sinkhorn(scores).balanced_labels()
        rows, columns = linear_sum_assignment(scores, maximize=True)
        np.testing.assert_array_equal(found.labels, columns[np.argsort(rows)])

    @pytest.mark.parametrize("exact_up_to", [0, 2000])
    def test_heed_forbidden_pairs(self, exact_up_to: int, monkeypatch: Any) -> None:
        monkeypatch.setattr(rounding, "EXACT_UP_TO", exact_up_to)
        scores = with_forbidden_pairs()
        found = ia.sinkhorn(scores, epsilon=0.3).balanced_labels()
        assert np.isfinite(scores[np.arange(60), found.labels]).all()
        assert set(np.bincount(found.labels)) == {10}

    @pytest.mark.parametrize("exact_up_to", [0, 2000])
    def test_say_when_there_are_none(self, exact_up_to: int, monkeypatch: Any) -> None:
        monkeypatch.setattr(rounding, "EXACT_UP_TO", exact_up_to)
        scores = scores_of(12, 3)
        scores[:8, 1:] = -np.inf
        with pytest.raises(ValueError, match="no labels without a forbidden pair have balanced clusters"):
            ia.assign(scores, epsilon=0.5, strength=1.0).balanced_labels()

    def test_more_labels_than_rows(self, monkeypatch: Any) -> None:
        assignment = ia.sinkhorn(scores_of(50, 60), epsilon=0.1)
        exact = assignment.balanced_labels()
        assert np.bincount(exact.labels).max() == 1
        monkeypatch.setattr(rounding, "EXACT_UP_TO", 0)
        found = assignment.balanced_labels()
        assert np.bincount(found.labels).max() == 1
        reached = [scores_of(50, 60)[np.arange(50), labels].mean() for labels in (exact.labels, found.labels)]
        assert 0 <= reached[0] - reached[1] <= found.optimality_loss + 1e-12

    def test_shares_below_one_row(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(rounding, "EXACT_UP_TO", 0)
        prior = [6e-4, 4e-4, 0.5, 0.499]
        sizes = np.bincount(ia.sinkhorn(scores_of(1000, 4), prior=prior).balanced_labels().labels, minlength=4)
        assert sizes[2:].tolist() in ([500, 499], [500, 500])
        assert sizes[:2].max() <= 1

    def test_many_rows_alike(self, monkeypatch: Any) -> None:
        """Ties are not fought over in steps of the tolerance from the start."""
        monkeypatch.setattr(rounding, "EXACT_UP_TO", 0)
        steps = []
        bid = rounding._bid

        def recorded(*arguments: Any) -> Any:
            steps.append(arguments[-1])
            return bid(*arguments)

        monkeypatch.setattr(rounding, "_bid", recorded)
        scores = np.tile(scores_of(5, 20), (200, 1))
        found = ia.sinkhorn(scores, epsilon=0.1).balanced_labels()
        assert set(np.bincount(found.labels)) == {50}
        assert found.optimality_loss <= 1e-3
        assert steps == sorted(steps, reverse=True)
        assert steps[0] == pytest.approx(np.ptp(scores) / 10)
        assert steps[-1] == pytest.approx(1e-4)

    @pytest.mark.parametrize("scale", [0.0, 1e-3])
    def test_scores_that_are_flat_beside_the_entropy(self, scale: float) -> None:
        """The potential is then that of the prior, which the prices of hard labels have no use for."""
        prior = [0.7, 0.2, 0.09, 0.01]
        found = ia.sinkhorn(scores_of(5000, 4, scale), epsilon=1.0, prior=prior).balanced_labels()
        assert np.bincount(found.labels).tolist() == [3500, 1000, 450, 50]
        assert found.optimality_loss <= 1e-3

    def test_one_label_and_equal_scores(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(rounding, "EXACT_UP_TO", 0)
        assert (ia.sinkhorn(scores_of(5, 1)).balanced_labels().labels == 0).all()
        labels = ia.sinkhorn(np.zeros((30, 7))).balanced_labels().labels
        assert set(np.bincount(labels)) == {4, 5}

    def test_refuse_a_tolerance_of_zero(self) -> None:
        with pytest.raises(ValueError, match="tol must be positive"):
            ia.sinkhorn(scores_of()).balanced_labels(tol=0)


class TestFeasibility:
    @pytest.mark.parametrize("seed", range(30))
    def test_is_that_of_halls_condition(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        allowed = random.random((8, 4)) < 0.35
        allowed[np.arange(8), random.integers(4, size=8)] = True
        prior = random.dirichlet(np.ones(4)) if seed % 2 else np.full(4, 0.25)
        subsets = [np.array(subset) for subset in product([False, True], repeat=4)]
        hall = all(prior[subset].sum() <= allowed[:, subset].any(axis=1).mean() + 1e-12 for subset in subsets)
        assert rounding.feasible(allowed, prior) == hall

    def test_both_answers_occur(self) -> None:
        answers = set()
        for seed in range(30):
            random = np.random.default_rng(seed)
            allowed = random.random((8, 4)) < 0.35
            allowed[np.arange(8), random.integers(4, size=8)] = True
            answers.add(rounding.feasible(allowed, np.full(4, 0.25)))
        assert answers == {True, False}


def test_the_distance_to_the_balanced_plan_is_small_when_the_marginal_error_is() -> None:
    assignment = ia.sinkhorn(scores_of(), epsilon=0.2, tol=1e-6)
    assert mean_total_variation(assignment.balanced_plan(), assignment.plan) < 1e-5
