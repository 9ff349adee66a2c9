"""ia.mira: what it solves, what it certifies, and what it refuses."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import array_api_compat as api
import array_api_strict
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from float64_oracles import dual, family_optimum, mean_total_variation, mira_eq7, mira_optimum, primal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

import infoassign as ia

Make = Callable[[Any], Any]


def logits(rows: int = 40, columns: int = 12, scale: float = 3.0, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, columns)) * scale


scores_strategy = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(-30, 30, width=32),
)
betas = st.sampled_from([0.0, 0.3, 2 / 3, 0.9, 0.95])


class TestSolution:
    @pytest.mark.theorem("A2", "A6")
    @pytest.mark.parametrize("beta", [0.2, 2 / 3, 0.9])
    def test_is_the_converged_fixed_point_of_the_paper(self, make: Make, beta: float) -> None:
        scores = logits()
        assignment = ia.mira(make(scores), beta=beta, tol=1e-10, max_sweeps=5000)
        assert assignment.converged
        expected = mira_optimum(log_softmax(scores, axis=1), beta)
        assert mean_total_variation(np.asarray(assignment.plan), expected) <= 1e-10

    @pytest.mark.theorem("A1")
    @pytest.mark.parametrize("beta", [0.3, 0.8])
    def test_no_general_solver_finds_a_lower_objective(self, beta: float) -> None:
        scores = logits(5, 3, scale=1.0)
        assignment = ia.mira(scores, beta=beta, tol=1e-9)

        def objective_and_gradient(free: Any) -> tuple[float, Any]:
            plan = softmax(free.reshape(5, 3), axis=1)
            slope = -scores + (1 - beta) * (1 + np.log(plan)) + beta * (1 + np.log(3 * plan.mean(axis=0)))
            through_softmax = plan * (slope - np.sum(plan * slope, axis=1, keepdims=True)) / len(scores)
            return primal(plan, scores, 1 - beta, beta), through_softmax.ravel()

        found = minimize(objective_and_gradient, np.zeros(15), jac=True, method="BFGS", options={"gtol": 1e-8})
        assert found.success
        assert assignment.objective == pytest.approx(found.fun, abs=1e-12)
        assert mean_total_variation(assignment.plan, softmax(found.x.reshape(5, 3), axis=1)) <= 1e-6

    @pytest.mark.theorem("C2")
    def test_objective_is_equation_4_up_to_its_constant(self) -> None:
        scores, beta = logits(), 0.7
        assignment = ia.mira(scores, beta=beta)
        log_p, plan = log_softmax(scores, axis=1), assignment.plan
        wbar = plan.mean(axis=0)
        equation_4 = (
            -np.sum(plan * log_p) / len(plan)
            + (1 - beta) * np.sum(plan * np.log(plan)) / len(plan)
            + beta * np.sum(wbar * np.log(wbar))
        )
        on_log_p = ia.mira(log_p, beta=beta)
        assert on_log_p.objective - beta * np.log(scores.shape[1]) == pytest.approx(equation_4, abs=1e-12)

    @pytest.mark.theorem("A6")
    @pytest.mark.parametrize("updates", [1, 3, 31])
    def test_fixed_steps_are_the_updates_of_equation_7(self, updates: int) -> None:
        scores = logits(64, 20).astype(np.float32)
        assignment = ia.mira(scores, tol=0, max_sweeps=updates + 1, acceleration=None)
        expected = mira_eq7(log_softmax(scores.astype(float), axis=1), 2 / 3, updates)
        assert assignment.sweeps == updates + 1
        assert assignment.status is ia.Status.MAX_SWEEPS
        np.testing.assert_allclose(assignment.plan, expected, atol=1e-6)

    def test_beta_zero_gives_the_probabilities_in_one_sweep(self, make: Make) -> None:
        scores = logits()
        assignment = ia.mira(make(scores), beta=0, temperature=0.5)
        assert assignment.sweeps == 1
        assert assignment.converged
        assert assignment.gap == 0
        np.testing.assert_allclose(np.asarray(assignment.plan), softmax(scores / 0.5, axis=1), atol=1e-14)

    def test_temperature_divides_the_scores(self) -> None:
        scores = logits()
        divided, by_temperature = ia.mira(scores / 0.225), ia.mira(scores, temperature=0.225)
        np.testing.assert_allclose(by_temperature.plan, divided.plan, atol=1e-12)
        assert by_temperature.gap == pytest.approx(divided.gap, rel=1e-6)
        assert by_temperature.objective == pytest.approx(divided.objective, rel=1e-12)
        np.testing.assert_allclose(by_temperature.potential, divided.potential, atol=1e-12)

    @given(scores_strategy, betas, st.integers(0, 2**32 - 1))
    @settings(max_examples=50)
    def test_permuting_and_shifting_rows_changes_nothing_else(self, scores: Any, beta: float, seed: int) -> None:
        random = np.random.default_rng(seed)
        rows, columns = random.permutation(scores.shape[0]), random.permutation(scores.shape[1])
        scores = scores.astype(float)
        shifted = scores + random.normal(size=(len(scores), 1)) * 10
        plain = ia.mira(scores, beta=beta, tol=1e-7, max_sweeps=3000)
        moved = ia.mira(shifted[rows][:, columns], beta=beta, tol=1e-7, max_sweeps=3000)
        difference = mean_total_variation(moved.plan, plain.plan[rows][:, columns])
        assert difference <= plain.error_bound + moved.error_bound

    @pytest.mark.theorem("A7")
    def test_the_potential_has_a_fixed_gauge(self) -> None:
        """The common scale of u is removed in every step: mean exp(v / beta) = 1."""
        for sweeps in (2, 3, 50):
            potential = ia.mira(logits(), beta=0.7, tol=0, max_sweeps=sweeps, acceleration=None).potential
            assert np.mean(np.exp(potential / 0.7)) == pytest.approx(1, abs=1e-12)

    def test_perplexity_is_the_effective_number_of_labels(self) -> None:
        assert ia.mira(100 * np.eye(8)[[0, 1, 2]], beta=0).perplexity == pytest.approx(3)

    @pytest.mark.theorem("A13")
    def test_a_larger_beta_need_not_even_out_the_labels(self) -> None:
        """Theory, A13: the information grows, the entropy of the marginal may fall."""
        scores = np.log([[0.7, 0.3]] * 9 + [[0.3, 0.7]])
        few, many = (ia.mira(scores, beta=beta, tol=1e-6, max_sweeps=20_000) for beta in (0.0, 0.99))
        assert float(ia.entropy(few.marginal)) == pytest.approx(0.641, abs=1e-3)
        assert float(ia.entropy(many.marginal)) == pytest.approx(0.612, abs=1e-3)
        assert many.mutual_information > few.mutual_information

    @pytest.mark.theorem("A13")
    def test_labels_carry_more_information_than_the_probabilities(self) -> None:
        information = [ia.mira(logits(), beta=beta).mutual_information for beta in (0, 0.3, 0.6, 0.9)]
        assert information == sorted(information)
        assert information[-1] > information[0] + 0.1


class TestCertificate:
    @pytest.mark.theorem("A4")
    @given(scores_strategy, st.sampled_from([0.1, 2 / 3, 0.95]), st.integers(1, 30))
    @settings(max_examples=100)
    def test_gap_is_primal_minus_dual(self, scores: Any, beta: float, sweeps: int) -> None:
        scores = scores.astype(float)
        assignment = ia.mira(scores, beta=beta, tol=0, max_sweeps=sweeps, acceleration=None)
        above = primal(assignment.plan, scores, 1 - beta, beta)
        below = dual(assignment.potential, scores, 1 - beta, beta)
        scale = 1 + np.abs(scores).max()
        assert assignment.gap >= 0
        assert assignment.gap == pytest.approx(above - below, abs=1e-12 * scale)
        assert assignment.objective == pytest.approx(above, abs=1e-12 * scale)

    @pytest.mark.theorem("A5")
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @given(scores_strategy, betas, st.integers(1, 40), st.booleans())
    @settings(max_examples=100)
    def test_is_never_optimistic(self, dtype: Any, scores: Any, beta: float, sweeps: int, early: bool) -> None:
        optimum = mira_optimum(log_softmax(scores.astype(float), axis=1), beta)
        options: dict[str, Any] = {"tol": 0, "max_sweeps": sweeps} if early else {}
        assignment = ia.mira(scores.astype(dtype), beta=beta, **options)
        distances = np.abs(assignment.plan.astype(float) - optimum).sum(axis=1) / 2
        assert distances.mean() <= assignment.error_bound + 1e-13
        assert distances.max() <= assignment.row_error_bound + 1e-13
        if assignment.converged:
            assert assignment.error_bound <= 1e-5

    @pytest.mark.theorem("A5")
    def test_is_not_needlessly_loose(self) -> None:
        """Close to beta 0 both bounds come within a tenth of the truth (the row bound is sharp, theory A5)."""
        scores, beta = np.array([[0.262, -0.015], [-0.03, 0.2]]), 0.03
        assignment = ia.mira(scores, beta=beta, tol=0, max_sweeps=1, acceleration=None)
        distances = np.abs(assignment.plan - mira_optimum(log_softmax(scores, axis=1), beta)).sum(axis=1) / 2
        assert 0.9 * assignment.row_error_bound <= distances.max() <= assignment.row_error_bound
        assert 0.8 * assignment.error_bound <= distances.mean() <= assignment.error_bound

    @pytest.mark.parametrize("beta", [0.5, 2 / 3, 0.9])
    def test_float32_reaches_the_default_tolerance(self, beta: float) -> None:
        assert ia.mira(logits(512, 100).astype(np.float32), beta=beta).converged

    @pytest.mark.parametrize("beta", [0.0, 0.5])
    @pytest.mark.parametrize(("dtype", "low"), [(np.float32, -17.0), (np.float64, -37.0)])
    def test_holds_for_any_order_in_memory(self, beta: float, dtype: Any, low: float) -> None:
        """Sums of many numbers below the last digit of the largest; NumPy adds columns of this array one by one."""
        scores = np.full((8, 3000), low, dtype)
        scores[range(8), range(8)] = 0
        exact = mira_optimum(log_softmax(scores.astype(np.longdouble), axis=1), beta)
        for ordered in (scores, np.asfortranarray(scores)):
            assignment = ia.mira(ordered, beta=beta)
            distances = np.abs(assignment.plan - exact).sum(axis=1) / 2
            assert distances.mean() <= assignment.error_bound
            assert distances.max() <= assignment.row_error_bound

    @pytest.mark.parametrize("beta", [0.0, 0.9])
    def test_counts_the_rounding_that_is_left_when_nothing_else_is(self, beta: float) -> None:
        scores = logits(50, 30, scale=30).astype(np.float32)
        assignment = ia.mira(scores, beta=beta, tol=0, max_sweeps=2000, acceleration=None)
        exact = mira_optimum(log_softmax(scores.astype(float), axis=1), beta)
        distances = np.abs(assignment.plan - exact).sum(axis=1) / 2
        assert 1e-9 < distances.mean() <= assignment.error_bound
        assert distances.max() <= assignment.row_error_bound

    def test_holds_where_the_device_has_no_float64(self) -> None:
        device = array_api_strict.Device("no_float64")
        scores = logits(20_000, 3).astype(np.float32)
        assignment = ia.mira(
            array_api_strict.asarray(scores, device=device), beta=0.5, tol=0, max_sweeps=40, acceleration=None
        )
        assert assignment.marginal.dtype == array_api_strict.float32
        exact = mira_optimum(log_softmax(scores.astype(float), axis=1), 0.5)
        plan = np.asarray(array_api_strict.asarray(assignment.plan, device=array_api_strict.Device("CPU_DEVICE")))
        assert (np.abs(plan - exact).sum(axis=1) / 2).max() <= assignment.row_error_bound

    def test_slow_convergence_is_not_taken_for_a_stall(self) -> None:
        """Bounds stay at 1, which says nothing, for hundreds of sweeps while the gap falls."""
        scores = np.log([[0.7, 0.3]] * 9 + [[0.3, 0.7]])
        assignment = ia.mira(scores, beta=0.999, max_sweeps=20_000, acceleration=None)
        assert assignment.converged
        assert assignment.sweeps > 200
        np.testing.assert_allclose(assignment.plan, mira_optimum(scores, 0.999), atol=1e-4)

    def test_a_column_far_below_all_others_does_not_spoil_it(self) -> None:
        """-1e4 is a usual stand-in for -inf; such a column has no mass, so its rounding does not matter."""
        scores = logits(40, 12).astype(np.float32)
        scores[:, 3] = -1e4
        masked = scores.copy()
        masked[:, 3] = -np.inf
        low, forbidden = ia.mira(scores), ia.mira(masked)
        assert low.converged
        assert mean_total_variation(low.plan, forbidden.plan) <= low.error_bound + forbidden.error_bound

    def test_a_useless_bound_is_one_and_what_the_rows_of_the_plan_may_exceed_it_by(self) -> None:
        scores = logits(40, 12, scale=1e9).astype(np.float32)
        assignment = ia.mira(scores, tol=0, max_sweeps=2, acceleration=None)
        assert assignment.error_bound <= assignment.row_error_bound <= 1 + 1e-6
        # Far from the optimum a row can be at distance 1, and then as much more as its sum is above one.
        for seed in range(20):
            far = logits(30, 40, scale=40, seed=seed).astype(np.float32)
            assignment = ia.mira(far, beta=0.98, tol=0, max_sweeps=2, acceleration=None)
            optimum, _ = family_optimum(far.astype(float), 0.02, 0.98)
            assert assignment.row_error_bound >= np.abs(assignment.plan - optimum).sum(axis=1).max() / 2

    def test_float32_stalls_rather_than_claim_what_rounding_forbids(self) -> None:
        scores = logits().astype(np.float32)
        assignment = ia.mira(scores, tol=1e-9)
        assert assignment.status is ia.Status.STALLED
        assert not assignment.converged
        assert assignment.sweeps < 60  # as soon as rounding is most of the bound
        assert "float64" in assignment.status.advice
        assert ia.mira(scores.astype(float), tol=1e-9).converged

    def test_running_out_of_sweeps_is_said(self) -> None:
        assignment = ia.mira(logits(), beta=0.99, max_sweeps=3)
        assert assignment.status is ia.Status.MAX_SWEEPS
        assert assignment.error_bound > 1e-5
        assert "MAX_SWEEPS" in repr(assignment)

    def test_every_status_advises(self) -> None:
        assert all(status.advice.endswith(".") for status in ia.Status)


class TestExtremes:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        "scores",
        [
            np.zeros((1, 1)),
            np.zeros((7, 1)),
            np.array([[3.0, -2.0, 0.5]]),
            np.zeros((5, 4)),
            np.tile([[1.0, 2.0, 3.0]], (6, 1)),
            logits(8, 5, scale=1e6),
            logits(3, 50),
            logits(200, 2),
            np.array([[0.0, 1e6], [1e6, 0.0], [-1e6, 1e6]]),
        ],
        ids=["1x1", "K=1", "B=1", "constant", "alike", "1e6", "B<K", "B>K", "mixed"],
    )
    @pytest.mark.parametrize("beta", [0, 2 / 3, 0.99])
    def test_answers_finitely_and_truthfully(self, scores: Any, dtype: Any, beta: float) -> None:
        assignment = ia.mira(scores.astype(dtype), beta=beta)
        assert np.isfinite(assignment.plan).all()
        np.testing.assert_allclose(assignment.plan.sum(axis=1), 1, atol=1e-5)
        log_p = log_softmax(scores.astype(dtype).astype(float), axis=1)
        distance = mean_total_variation(assignment.plan, mira_optimum(log_p, beta))
        assert distance <= assignment.error_bound + 1e-11
        assert np.isfinite([assignment.gap, assignment.objective, assignment.perplexity]).all()

    @pytest.mark.theorem("C1", "C5")
    def test_identical_rows_keep_their_probabilities(self) -> None:
        """There is no information to be had; the optimum is p itself (theory, A13: I <= log B)."""
        scores = np.tile([[1.0, 2.0, 3.0]], (6, 1))
        assignment = ia.mira(scores, beta=0.5, tol=1e-9)
        np.testing.assert_allclose(assignment.plan, softmax(scores, axis=1), atol=1e-8)
        assert assignment.mutual_information == pytest.approx(0, abs=1e-12)

    def test_forbidden_pairs_get_nothing(self, make: Make) -> None:
        scores = logits(6, 4)
        scores[0, 1] = scores[3, 2] = -np.inf
        assignment = ia.mira(make(scores), tol=1e-9)
        plan = np.asarray(assignment.plan)
        assert plan[0, 1] == plan[3, 2] == 0
        nearly = np.where(np.isfinite(scores), scores, -1e3)
        assert mean_total_variation(plan, mira_optimum(log_softmax(nearly, axis=1), 2 / 3)) <= 1e-9
        assert assignment.gap == pytest.approx(
            primal(plan, scores, 1 / 3, 2 / 3) - dual(np.asarray(assignment.potential), scores, 1 / 3, 2 / 3), abs=1e-12
        )

    def test_a_label_that_no_row_may_use_is_removed(self, make: Make) -> None:
        scores = logits(6, 4)
        scores[:, 2] = -np.inf
        assignment = ia.mira(make(scores), tol=1e-9)
        without = ia.mira(make(np.delete(scores, 2, axis=1)), tol=1e-9)
        assert assignment.converged
        plan = np.asarray(assignment.plan)
        assert (plan[:, 2] == 0).all()
        np.testing.assert_allclose(np.delete(plan, 2, axis=1), np.asarray(without.plan), atol=1e-9)
        assert float(assignment.potential[2]) == np.inf
        assert float(assignment.marginal[2]) == 0
        assert np.isfinite([assignment.objective, assignment.perplexity, assignment.mutual_information]).all()

    @pytest.mark.filterwarnings("error")
    def test_the_lowest_number_of_a_dtype_is_as_good_as_minus_infinity(self, make: Make) -> None:
        scores = logits(6, 4).astype(np.float32)
        low, masked = scores.copy(), scores.copy()
        low[0, 1] = low[3, 2] = np.finfo(np.float32).min
        masked[0, 1] = masked[3, 2] = -np.inf
        np.testing.assert_array_equal(np.asarray(ia.mira(make(low)).plan), np.asarray(ia.mira(make(masked)).plan))

    def test_half_precision_at_its_maximum(self) -> None:
        scores = np.array([[65504, -65504], [-65504, 65504], [65504, 65504]], dtype=np.float16)
        assignment = ia.mira(scores)
        assert assignment.plan.dtype == np.float16
        np.testing.assert_allclose(assignment.plan, [[1, 0], [0, 1], [0.5, 0.5]])
        assert assignment.converged


class TestArrays:
    def test_answers_in_the_library_dtype_and_device_of_the_scores(self, make: Make) -> None:
        for dtype in (np.float32, np.float64):
            scores = make(logits().astype(dtype))
            assignment = ia.mira(scores)
            for array in (assignment.plan, assignment.labels, assignment.marginal, assignment.potential):
                assert type(array) is type(scores)
                assert api.device(array) == api.device(scores)
            assert assignment.plan.dtype == scores.dtype
            assert assignment.plan.shape == scores.shape
            assert assignment.labels.shape == (scores.shape[0],)
            np.testing.assert_array_equal(np.asarray(assignment.labels), np.asarray(assignment.plan).argmax(axis=1))

    def test_leaves_its_input_alone(self) -> None:
        scores = logits()[::2, ::-1]
        kept = scores.copy()
        scores.flags.writeable = False
        np.testing.assert_allclose(ia.mira(scores).plan, ia.mira(kept).plan, atol=1e-14)
        np.testing.assert_array_equal(scores, kept)

    def test_bfloat16(self) -> None:
        scores = torch.from_numpy(logits()).to(torch.bfloat16)
        assignment = ia.mira(scores)
        assert assignment.plan.dtype == torch.bfloat16
        expected = ia.mira(scores.to(torch.float64)).plan
        assert mean_total_variation(assignment.plan.to(torch.float64).numpy(), expected.numpy()) <= 4e-3

    def test_torch_scores_that_require_gradients_make_a_constant(self) -> None:
        scores = torch.from_numpy(logits()).requires_grad_()
        assert not ia.mira(scores).plan.requires_grad

    def test_it_is_a_constant_wherever_it_starts(self) -> None:
        scores = torch.from_numpy(logits()).requires_grad_()
        columns = scores.shape[-1]
        prior = torch.full((columns,), 1 / columns, dtype=torch.float64, requires_grad=True)
        for start in (ia.mira(scores), torch.zeros(columns, dtype=torch.float64, requires_grad=True), "columns"):
            assignment = ia.mira(scores, start=start, prior=prior)
            for array in (assignment.plan, assignment.potential, assignment.marginal):
                assert not array.requires_grad

    def test_half_precision_plans_do_not_blur_the_information(self) -> None:
        scores = torch.from_numpy(logits(512, 64, scale=0.1))
        exact = ia.mira(scores, beta=0).mutual_information
        assert ia.mira(scores.to(torch.bfloat16), beta=0).mutual_information == pytest.approx(exact, rel=0.02)

    def test_can_be_pickled_and_copied(self, make: Make) -> None:
        assignment = ia.mira(make(logits()))
        for twin in (pickle.loads(pickle.dumps(assignment)), copy.deepcopy(assignment)):
            np.testing.assert_array_equal(np.asarray(twin.plan), np.asarray(assignment.plan))
            assert twin.error_bound == assignment.error_bound

    def test_plan_is_computed_once(self) -> None:
        assignment = ia.mira(logits())
        assert assignment.plan is assignment.plan


class TestRefusals:
    @pytest.mark.parametrize(
        ("scores", "error", "message"),
        [
            ([[1.0, 2.0]], TypeError, "scores must be an array .* got list"),
            (np.array([[1, 2]]), TypeError, "real floating dtype of at most 64 bits; got int64"),
            (np.array([[1j, 2]]), TypeError, "real floating dtype of at most 64 bits; got complex128"),
            (np.zeros((1, 2), np.longdouble), TypeError, "of at most 64 bits; got"),
            (np.ma.masked_less(np.zeros((1, 2)), 1), TypeError, "must not be a masked array; forbid pairs by -inf"),
            (np.zeros(3), ValueError, r"shape \(rows, labels\) or .*; got 1 dimensions, shape \(3,\)"),
            (np.zeros((0, 3)), ValueError, r"must not be empty; got shape \(0, 3\)"),
            (np.zeros((3, 0)), ValueError, "must not be empty"),
            (np.array([[0.0, 1.0], [2.0, np.nan]]), ValueError, "first is nan at row 1, column 1"),
            (np.array([[0.0, 1.0], [np.inf, np.nan]]), ValueError, "first is inf at row 1, column 0"),
            (np.array([[0.0, 1.0], [-np.inf, -np.inf]]), ValueError, "row 1 of scores is all -inf"),
        ],
    )
    def test_scores(self, scores: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            ia.mira(scores)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"beta": 1}, ValueError, r"beta must be in \[0, 1\); got 1\.0"),
            ({"beta": -0.1}, ValueError, "beta must be in"),
            ({"beta": float("nan")}, ValueError, "beta must be in"),
            ({"beta": "high"}, TypeError, "beta must be a real number; got 'high'"),
            ({"temperature": 0}, ValueError, "temperature must be positive and finite; got 0"),
            ({"temperature": float("inf")}, ValueError, "temperature must be positive and finite"),
            ({"temperature": 1e-310}, ValueError, "too small for .*float64.*multiply the scores and epsilon"),
            ({"tol": -1e-5}, ValueError, "tol must not be negative"),
            ({"tol": float("nan")}, ValueError, "tol must not be negative"),
            ({"max_sweeps": 0}, ValueError, "max_sweeps must be at least 1; got 0"),
            ({"max_sweeps": 2.5}, TypeError, "max_sweeps must be an integer; got 2.5"),
            ({"max_sweeps": True}, TypeError, "max_sweeps must be an integer"),
        ],
    )
    def test_other_arguments(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            ia.mira(logits(), **options)

    def test_nan_is_found_in_every_library(self, make: Make) -> None:
        scores = logits(3, 4)
        scores[2, 1] = np.nan
        with pytest.raises(ValueError, match="row 2, column 1"):
            ia.mira(make(scores))

    def test_unchecked_nan_is_not_called_a_solution(self) -> None:
        scores = logits()
        scores[2, 1] = np.nan
        for beta in (0, 2 / 3):
            assignment = ia.mira(scores, beta=beta, check_finite=False)
            assert not assignment.converged
            assert np.isnan([assignment.error_bound, assignment.row_error_bound]).all()

    def test_nan_is_found_in_torch_scores_that_require_gradients(self) -> None:
        scores = torch.tensor([[0.0, float("nan")]], requires_grad=True)
        with pytest.raises(ValueError, match="first is nan at row 0, column 1"):
            ia.mira(scores)

    def test_numpy_scalars_are_numbers(self) -> None:
        assignment = ia.mira(logits(), beta=np.float32(0.5), max_sweeps=np.int64(20))
        assert assignment.sweeps <= 20

    def test_the_strict_library_is_strict(self) -> None:
        """Guards the fixture: what is not in the standard must fail there."""
        with pytest.raises(AttributeError):
            array_api_strict.asarray([1.0]).mean()

    def test_the_strict_arrays_are_immutable(self, make: Make, request: pytest.FixtureRequest) -> None:
        """Guards the fixture, too."""
        if "strict" in request.node.name.rpartition("[")[2]:
            array = make(np.zeros(3))
            with pytest.raises(TypeError, match="immutable"):
                array[0] = 1.0
            with pytest.raises(TypeError, match="immutable"):
                array += 1.0
