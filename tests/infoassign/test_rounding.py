"""Plans with exactly the prior's marginal."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from float64_oracles import mean_total_variation, primal
from random_scores import scores_of, with_forbidden_pairs

import infoassign as ia
from infoassign import rounding

Make = Callable[[Any], Any]


class TestExactMarginal:
    @pytest.mark.theorem("A11")
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


def test_the_distance_to_the_balanced_plan_is_small_when_the_marginal_error_is() -> None:
    assignment = ia.sinkhorn(scores_of(), epsilon=0.2, tol=1e-6)
    assert mean_total_variation(assignment.balanced_plan(), assignment.plan) < 1e-5
