"""ia.assign and ia.sinkhorn: the whole family against independent solvers, and every way to start and to fail."""

from collections.abc import Callable
from itertools import product
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch
from float64_oracles import family_optimum, mean_total_variation, mira_eq7, primal, swav
from scipy.optimize import LinearConstraint, linprog, minimize
from scipy.special import log_softmax, softmax

import infoassign as ia
from infoassign_backends.kernel import KernelSweep

Make = Callable[[Any], Any]


def scores_of(rows: int = 60, columns: int = 12, scale: float = 1.0, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, columns)) * scale


def tailed(columns: int) -> Any:
    prior = 1 / np.arange(1, columns + 1)
    return prior / prior.sum()


class TestFamily:
    @pytest.mark.theorem("C2")
    def test_mira_is_a_member(self) -> None:
        scores, beta, temperature = scores_of(), 0.8, 0.4
        mira = ia.mira(scores, beta=beta, temperature=temperature, tol=1e-9)
        member = ia.assign(scores / temperature, epsilon=1 - beta, strength=beta, tol=1e-9)
        assert mean_total_variation(mira.plan, member.plan) <= mira.error_bound + member.error_bound
        assert mira.objective == pytest.approx(member.objective, abs=1e-12)

    def test_strength_zero_is_the_softmax(self, make: Make) -> None:
        assignment = ia.assign(make(scores_of()), epsilon=0.3, strength=0)
        assert assignment.sweeps == 1
        assert assignment.converged
        np.testing.assert_allclose(np.asarray(assignment.plan), softmax(scores_of() / 0.3, axis=1), atol=1e-14)

    @pytest.mark.theorem("A3")
    def test_sinkhorn_is_the_limit_of_large_strength(self) -> None:
        exact = ia.sinkhorn(scores_of(), epsilon=0.3, tol=1e-10)
        distances = [
            mean_total_variation(ia.assign(scores_of(), epsilon=0.3, strength=rho, tol=1e-7).plan, exact.plan)
            for rho in (1.0, 1e2, 1e4)
        ]
        assert distances[0] > 10 * distances[1] > 100 * distances[2] > 0

    @pytest.mark.parametrize("prior", [None, tailed(12)])
    @pytest.mark.parametrize("epsilon", [0.05, 1.0])
    def test_sinkhorn_meets_the_prior(self, make: Make, epsilon: float, prior: Any) -> None:
        given = None if prior is None else make(prior)
        assignment = ia.sinkhorn(make(scores_of()), epsilon=epsilon, prior=given, tol=1e-9)
        expected = np.full(12, 1 / 12) if prior is None else prior
        assert assignment.converged
        assert np.abs(np.asarray(assignment.plan).mean(axis=0) - expected).sum() <= 1e-9
        assert assignment.marginal_error <= 1e-9
        np.testing.assert_allclose(np.asarray(assignment.plan).sum(axis=1), 1, atol=1e-13)

    def test_a_prior_pulls_the_marginal(self) -> None:
        prior = tailed(12)
        errors = [
            ia.assign(scores_of(), epsilon=0.3, strength=rho, prior=prior).marginal_error for rho in (0, 0.1, 1, 10)
        ]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.1 * errors[0]

    def test_a_prior_may_be_a_list_and_in_single_precision(self) -> None:
        exact = ia.sinkhorn(scores_of(), prior=tailed(12), tol=1e-9)
        for prior in (tailed(12).tolist(), tailed(12).astype(np.float32)):
            assert mean_total_variation(ia.sinkhorn(scores_of(), prior=prior, tol=1e-9).plan, exact.plan) < 1e-6

    def test_the_potential_of_an_exact_marginal_has_a_fixed_gauge(self) -> None:
        assignment = ia.sinkhorn(scores_of(), prior=tailed(12))
        assert tailed(12) @ assignment.potential == pytest.approx(0, abs=1e-13)


class TestOracles:
    @pytest.mark.theorem("A1")
    @pytest.mark.parametrize("strength", [0.7, np.inf])
    @pytest.mark.parametrize("seed", range(5))
    def test_a_general_convex_solver(self, strength: float, seed: int) -> None:
        """scipy on the primal, which knows of neither dual nor fixed point."""
        rows, columns, epsilon = 5, 3, 0.5
        scores, prior = scores_of(rows, columns, seed=seed), np.array([0.5, 0.3, 0.2])
        assignment = ia.assign(scores, epsilon=epsilon, strength=strength, prior=prior, tol=1e-8)

        def objective(flat: Any) -> tuple[float, Any]:
            plan = flat.reshape(rows, columns)
            wbar = plan.mean(axis=0)
            slope = -scores + epsilon * (1 + np.log(plan))
            value = (np.sum(plan * -scores) + epsilon * np.sum(plan * np.log(plan))) / rows
            if np.isfinite(strength):
                value += strength * np.sum(wbar * np.log(wbar / prior))
                slope = slope + strength * (1 + np.log(wbar / prior))
            return value, slope.ravel() / rows

        sums = np.kron(np.eye(rows), np.ones(columns))
        constraints = [LinearConstraint(sums, 1, 1)]
        if np.isinf(strength):
            constraints.append(LinearConstraint(np.tile(np.eye(columns), rows)[:-1] / rows, prior[:-1], prior[:-1]))
        start = np.tile(prior, rows)
        found = minimize(
            objective, start, jac=True, bounds=[(1e-9, 1)] * len(start), constraints=constraints,
            method="SLSQP", options={"ftol": 1e-13, "maxiter": 1000},
        )  # fmt: skip
        assert found.success
        # The 2e-5 are SLSQP's own: it finds the objective to 1e-13, and with it the plan to the root of that.
        assert mean_total_variation(assignment.plan, found.x.reshape(rows, columns)) <= assignment.error_bound + 2e-5
        assert assignment.objective <= found.fun + 1e-7

    @pytest.mark.theorem("A9")
    @pytest.mark.parametrize("seed", range(3))
    def test_the_linear_program_for_a_small_epsilon(self, seed: int) -> None:
        rows, columns = 12, 4
        scores = scores_of(rows, columns, seed=seed)
        equal = np.concatenate([np.kron(np.eye(rows), np.ones(columns)), np.tile(np.eye(columns), rows)])
        right = np.concatenate([np.ones(rows), np.full(columns, rows / columns)])
        program = linprog(-scores.ravel(), A_eq=equal, b_eq=right, method="highs")
        assignment = ia.sinkhorn(scores, epsilon=1e-3, tol=1e-8, max_sweeps=20_000)
        assert assignment.converged
        np.testing.assert_allclose(assignment.plan, program.x.reshape(rows, columns), atol=1e-3)

    @pytest.mark.theorem("A6", "A8")
    @pytest.mark.parametrize("strength", [0.3, 5.0, np.inf])
    @pytest.mark.parametrize("prior", [None, tailed(6)])
    def test_twenty_thousand_plain_steps(self, strength: float, prior: Any) -> None:
        scores = scores_of(30, 6)
        plain = ia.assign(
            scores, epsilon=0.2, strength=strength, prior=prior, tol=0, max_sweeps=20_000, acceleration=None
        )
        fast = ia.assign(scores, epsilon=0.2, strength=strength, prior=prior, tol=1e-9)
        assert fast.sweeps < 40
        assert mean_total_variation(plain.plan, fast.plan) <= fast.error_bound + plain.error_bound
        expected, residual = family_optimum(scores, 0.2, strength, prior)
        assert residual < 1e-14
        assert mean_total_variation(plain.plan, expected) < 1e-13


class TestCertificate:
    @pytest.mark.theorem("A5")
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        ("problems", "largest"),
        [(60, 1.3), (60, 4.0), *(pytest.param(500, x, marks=pytest.mark.deep) for x in (1.3, 4))],
    )
    def test_is_never_optimistic(self, dtype: Any, problems: int, largest: float) -> None:
        """Stopped early or late, with and without forbidden pairs, priors and acceleration, soft or all but hard."""
        random = np.random.default_rng(problems)
        checked = 0
        for _ in range(problems):
            rows, columns = random.choice([1, 2, 5, 20, 60]), random.choice([1, 2, 5, 20])
            scores = random.normal(size=(rows, columns)) * 10 ** random.uniform(-1, largest)
            if random.random() < 0.3:
                forbidden = random.random(scores.shape) < 0.3
                forbidden[np.arange(rows), random.integers(columns, size=rows)] = False
                forbidden[random.integers(rows), forbidden.all(axis=0)] = False
                scores[forbidden] = -np.inf
            epsilon = 10 ** random.uniform(-1, 0.5)
            strength = np.inf if random.random() < 0.4 else epsilon * 10 ** random.uniform(-1, 2.5)
            prior = random.dirichlet(np.ones(columns)) if random.random() < 0.5 else np.full(columns, 1 / columns)
            options: dict[str, Any] = {"acceleration": random.choice([None, "auto"])}
            if random.random() < 0.6:
                options |= {"tol": 0, "max_sweeps": int(random.integers(1, 40))}
            assignment = ia.assign(scores.astype(dtype), epsilon=epsilon, strength=strength, prior=prior, **options)
            optimum, residual = family_optimum(scores.astype(dtype).astype(float), epsilon, strength, prior)
            if assignment.status is ia.Status.INFEASIBLE or residual > 1e-12:
                continue
            distances = np.abs(assignment.plan - optimum).sum(axis=1) / 2
            assert distances.mean() <= assignment.error_bound + 1e-12
            assert distances.max() <= assignment.row_error_bound + 1e-12
            verified = assignment.verify()
            assert distances.mean() <= verified.error_bound + 1e-12
            assert distances.max() <= verified.row_error_bound + 1e-12
            checked += 1
        assert checked > 0.6 * problems

    @pytest.mark.theorem("A5")
    def test_of_an_exact_marginal_is_tight_near_the_solution(self) -> None:
        scores = scores_of(200, 20)
        assignment = ia.sinkhorn(scores, epsilon=0.2, tol=1e-4)
        optimum, _ = family_optimum(scores, 0.2, np.inf)
        distance = mean_total_variation(assignment.plan, optimum)
        assert distance <= assignment.error_bound <= 3 * distance
        assert assignment.gap == pytest.approx(
            primal(optimum, scores, 0.2, 0) - ia.dual_objective(assignment.potential, scores, epsilon=0.2),
            rel=1e-2,
        )

    @pytest.mark.parametrize("elsewhere", [-1e4, -np.inf])
    @pytest.mark.parametrize(("columns", "moved"), [(100, 0.001), (60, 0.5)])
    def test_of_an_exact_marginal_where_the_plan_is_one_hot(self, columns: int, moved: float, elsewhere: float) -> None:
        """A tiny excess at one end of a chain of labels moves every row by it: the plan has no curvature to show it."""
        scores = np.full((columns, columns), elsewhere)
        here = np.arange(columns)
        scores[here, here] = 0
        scores[here[:-1], here[1:]] = -100
        prior = np.full(columns, 1 / columns)
        prior[0] -= moved / columns
        prior[-1] += moved / columns
        assignment = ia.assign(scores, epsilon=1.0, prior=prior, tol=0.1)
        assert assignment.sweeps == 1
        for certificate in (assignment, assignment.verify()):
            assert certificate.error_bound >= 0.99 * moved
            assert certificate.gap >= 0.99 * 100 * moved * (columns - 1) / columns
        one_hot = np.array([[0.0, -1000.0], [-1000.0, 0.0]])
        early = ia.assign(one_hot, epsilon=1.0, prior=[0.6, 0.4], tol=0, max_sweeps=5, acceleration=None)
        assert early.gap >= 0.1 * 1000 * 0.99

    def test_of_an_exact_marginal_counts_entries_that_all_but_vanish(self) -> None:
        """Without scores the Newton step leads to the solution, the prior; one label loses nearly all of its mass."""
        prior = np.array([1e-3, *[(1 - 1e-3) / 9] * 9])
        assignment = ia.sinkhorn(np.zeros((20, 10)), epsilon=1.0, prior=prior, tol=0, max_sweeps=1)
        divergence = np.sum(prior * np.log(prior * 10))
        assert divergence <= assignment.gap <= 2 * divergence

    def test_verify_measures_what_rounding_did(self, make: Make) -> None:
        for solve in (ia.mira, ia.sinkhorn):
            assignment = solve(make(scores_of(300, 40).astype(np.float32)), tol=1e-6)
            verified = assignment.verify()
            assert verified.error_bound <= assignment.error_bound
            assert 0 <= verified.gap <= assignment.gap + 1e-10

    def test_verify_is_about_the_plan_that_is_shown(self) -> None:
        assignment = ia.mira(torch.from_numpy(scores_of()).to(torch.bfloat16))
        exact = ia.mira(torch.from_numpy(scores_of()).to(torch.bfloat16).double(), tol=1e-10).plan
        distance = mean_total_variation(assignment.plan.double().numpy(), exact.numpy())
        assert 1e-4 < distance <= assignment.verify().error_bound

    def test_the_marginal_error_includes_what_rounding_may_do(self) -> None:
        assignment = ia.sinkhorn(scores_of().astype(np.float32), tol=1e-8)
        assert assignment.status is ia.Status.STALLED
        assert assignment.sweeps < 60
        assert assignment.marginal_error > 1e-8
        assert assignment.verify().marginal_error <= assignment.marginal_error


class TestFixedSteps:
    @pytest.mark.parametrize("updates", [1, 3, 30])
    def test_swavs_iterations(self, make: Make, updates: int) -> None:
        """k iterations of its listing are the first half step and k - 1 updates."""
        scores = scores_of(64, 20, 0.3).astype(np.float32)
        assignment = ia.sinkhorn(
            make(scores), epsilon=0.05, start="columns", tol=0, max_sweeps=updates, acceleration=None
        )
        np.testing.assert_allclose(np.asarray(assignment.plan), swav(scores.astype(float), 0.05, updates), atol=1e-6)
        assert assignment.sweeps == updates
        assert assignment.status is ia.Status.MAX_SWEEPS

    def test_miras_released_iterations(self, make: Make) -> None:
        scores = scores_of(64, 20, 3).astype(np.float32)
        assignment = ia.mira(make(scores), tol=0, max_sweeps=32, acceleration=None)
        expected = mira_eq7(log_softmax(scores.astype(float), axis=1), 2 / 3, updates=31)
        np.testing.assert_allclose(np.asarray(assignment.plan), expected, atol=1e-6)

    def test_accelerated_steps_are_made_as_often_as_asked(self) -> None:
        for sweeps in (1, 2, 7):
            assert ia.sinkhorn(scores_of(), tol=0, max_sweeps=sweeps).sweeps == sweeps
        plain = ia.sinkhorn(scores_of(), tol=0, max_sweeps=12, acceleration=None)
        assert ia.sinkhorn(scores_of(), tol=0, max_sweeps=12).marginal_error < 0.1 * plain.marginal_error


class TestStart:
    @pytest.mark.parametrize("strength", [1.0, np.inf])
    def test_does_not_change_the_answer(self, make: Make, strength: float) -> None:
        scores = make(scores_of())
        cold = ia.assign(scores, epsilon=0.2, strength=strength, tol=1e-9)
        random = np.random.default_rng(0)
        starts = [
            "columns",
            cold,
            cold.potential,
            make(random.normal(size=12) * 10),
            make(random.normal(size=12) * 500),
        ]
        for start in starts:
            warm = ia.assign(scores, epsilon=0.2, strength=strength, start=start, tol=1e-9)
            assert warm.converged
            assert mean_total_variation(warm.plan, cold.plan) <= warm.error_bound + cold.error_bound

    def test_at_the_solution_needs_one_sweep(self) -> None:
        for cold in (ia.mira(scores_of(), temperature=0.3, beta=0.9), ia.sinkhorn(scores_of())):
            options = {"temperature": 0.3, "beta": 0.9} if cold.status and cold._unit != 1 else {}
            solve = ia.mira if options else ia.sinkhorn
            assert solve(scores_of(), start=cold, **options).sweeps == 1
            assert solve(scores_of(), start=cold.potential, **options).sweeps == 1

    def test_near_the_solution_needs_fewer(self) -> None:
        """SeLa's warm start: the model moved a little between two labellings."""
        before, after = scores_of(500, 40), scores_of(500, 40) + scores_of(500, 40, 0.01, seed=1)
        earlier = ia.sinkhorn(before)
        assert ia.sinkhorn(after, start=earlier).sweeps <= 0.7 * ia.sinkhorn(after).sweeps

    def test_a_label_that_has_become_usable(self) -> None:
        scores = scores_of()
        masked = scores.copy()
        masked[:, 3] = -np.inf
        warm = ia.assign(scores, epsilon=0.5, strength=1.0, start=ia.assign(masked, epsilon=0.5, strength=1.0))
        cold = ia.assign(scores, epsilon=0.5, strength=1.0)
        assert mean_total_variation(warm.plan, cold.plan) <= warm.error_bound + cold.error_bound

    @pytest.mark.parametrize("value", [1e10, 1e20, 1e300, -1e308, np.inf])
    @pytest.mark.parametrize("strength", [0.0, 1.0, np.inf])
    def test_may_be_wild(self, value: float, strength: float) -> None:
        for dtype in (np.float32, np.float64):
            scores = scores_of(12, 4).astype(dtype)
            start = np.array([value, 0, 0, 0])
            assert ia.assign(scores, epsilon=0.5, strength=strength, start=start).converged

    def test_is_brought_to_the_gauge(self) -> None:
        assignment = ia.sinkhorn(scores_of(), start=np.full(12, 5.0), tol=0, max_sweeps=1)
        assert assignment.potential.sum() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize(
        ("start", "error", "message"),
        [
            ("rows", ValueError, "start must be None, \"columns\", a potential or an Assignment; got 'rows'"),
            (np.zeros(3), ValueError, r"start must have a value for each label, shape \(12,\); got \(3,\)"),
            (np.full(12, np.nan), ValueError, "start must not hold NaN"),
            (torch.zeros(12), TypeError, "start must be an array of the same library as scores"),
            (3.0, TypeError, "start must be an array"),
        ],
    )
    def test_refuses(self, start: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            ia.sinkhorn(scores_of(), start=start)


class TestBatches:
    @pytest.mark.parametrize("strength", [2.0, np.inf])
    @pytest.mark.parametrize("acceleration", [None, "auto"])
    def test_are_their_problems(self, make: Make, strength: float, acceleration: Any) -> None:
        batch = np.stack([scores_of(40, 7, scale, seed=3) for scale in (0.1, 1.0, 3.0, 0.5, 2.0, 0.01)]).reshape(
            2, 3, 40, 7
        )
        together = ia.assign(make(batch), epsilon=0.2, strength=strength, acceleration=acceleration)
        assert together.status.shape == (2, 3)
        for index in product(range(2), range(3)):
            alone = ia.assign(make(batch[index]), epsilon=0.2, strength=strength, acceleration=acceleration)
            assert together.status[index] is alone.status
            # The same but for the order in which a library's matrix products add up.
            assert abs(int(together.sweeps[index]) - alone.sweeps) <= (0 if acceleration is None else 3)
            distance = mean_total_variation(np.asarray(together.plan)[index], np.asarray(alone.plan))
            assert distance <= float(together.error_bound[index]) + alone.error_bound
            # Both are within 1e-5 of the optimum, each by a path of its own.
            for name in ("objective", "perplexity", "mutual_information", "gap", "marginal_error"):
                assert float(getattr(together, name)[index]) == pytest.approx(getattr(alone, name), abs=1e-4)

    def test_shapes(self, make: Make) -> None:
        assignment = ia.sinkhorn(make(np.random.default_rng(0).normal(size=(3, 20, 5))))
        assert tuple(assignment.labels.shape) == (3, 20)
        assert tuple(assignment.marginal.shape) == tuple(assignment.potential.shape) == (3, 5)
        assert tuple(assignment.converged.shape) == (3,)
        assert tuple(assignment.balanced_labels().labels.shape) == (3, 20)
        assert assignment.verify().error_bound.shape == (3,)
        assert "CONVERGED" in repr(assignment)

    def test_may_have_a_prior_and_a_start_each(self) -> None:
        scores = np.stack([scores_of(), scores_of(seed=1)])
        priors = np.stack([tailed(12), tailed(12)[::-1]])
        together = ia.sinkhorn(scores, prior=priors, start=np.ones((2, 12)))
        assert np.abs(together.plan.mean(axis=1) - priors).sum() <= 2e-5

    def test_a_batch_of_one_is_its_problem(self) -> None:
        """NumPy's reductions to a scalar are floats, to which a choice between two points must not fall."""
        for seed in range(5):
            scores = np.random.default_rng(seed).normal(size=(64, 8)) * 1e3
            alone = ia.assign(scores, epsilon=1.0, max_sweeps=40)
            batch = ia.assign(scores[None], epsilon=1.0, max_sweeps=40)
            assert alone.sweeps == int(batch.sweeps[0])
            assert alone.status is batch.status[0]
            assert alone.objective == pytest.approx(float(batch.objective[0]), rel=1e-12)
            expected = ia.primal_objective(alone.plan, scores, epsilon=1.0)
            assert alone.objective == pytest.approx(expected, rel=1e-9)

    def test_done_problems_are_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first is done after a few sweeps; the second goes on for many more."""
        potentials: list[Any] = []
        sweep = KernelSweep.__call__
        monkeypatch.setattr(KernelSweep, "__call__", lambda self, v: (potentials.append(v), sweep(self, v))[1])
        easy = ia.sinkhorn(np.stack([scores_of(40, 7, 0.01), scores_of(40, 7, 3.0)]))
        done = int(easy.sweeps[0])
        assert done + 10 < len(potentials) == int(easy.sweeps[1])
        assert all((v[0] == potentials[done - 1][0]).all() for v in potentials[done:])
        monkeypatch.undo()
        scores = np.stack([np.zeros((40, 7)), scores_of(40, 7, 3.0)])
        assignment = ia.sinkhorn(scores)
        assert assignment.sweeps[0] == 1
        assert assignment.sweeps[1] > 10
        np.testing.assert_allclose(assignment.plan[0], 1 / 7, rtol=1e-15)

    def test_an_infeasible_problem_does_not_hold_up_the_others(self) -> None:
        bad = scores_of(12, 3)
        bad[:8, 1:] = -np.inf
        assignment = ia.sinkhorn(np.stack([bad, scores_of(12, 3)]), epsilon=0.5)
        assert list(assignment.status) == [ia.Status.INFEASIBLE, ia.Status.CONVERGED]

    def test_errors_name_the_problem(self) -> None:
        scores = np.zeros((2, 3, 4, 5))
        scores[1, 2, 3, 4] = np.nan
        with pytest.raises(ValueError, match=r"first is nan at row 3, column 4 of problem \(1, 2\)"):
            ia.sinkhorn(scores)


class TestMasks:
    @pytest.mark.theorem("A2")
    def test_an_infeasible_mask_is_said(self, make: Make) -> None:
        """Eight of twelve rows can only use the label whose share is a third."""
        scores = scores_of(12, 3)
        scores[:8, 1:] = -np.inf
        assignment = ia.sinkhorn(make(scores), epsilon=0.5)
        assert assignment.status is ia.Status.INFEASIBLE
        assert not assignment.converged
        assert assignment.sweeps < 100
        assert "finite strength" in assignment.status.advice
        assert assignment.error_bound == pytest.approx(1)
        assert ia.assign(make(scores), epsilon=0.5, strength=5.0).converged

    @pytest.mark.parametrize("lacking", [1, 3, 10])
    def test_a_little_infeasible_is_infeasible(self, lacking: int) -> None:
        """Of 300 rows 100 + lacking can only use the first of three labels."""
        scores = scores_of(300, 3)
        scores[: 100 + lacking, 1:] = -np.inf
        assert ia.sinkhorn(scores, epsilon=0.5).status is ia.Status.INFEASIBLE

    def test_an_infeasible_mask_is_said_after_few_sweeps_too(self) -> None:
        scores = scores_of(12, 3)
        scores[:8, 1:] = -np.inf
        assert ia.sinkhorn(scores, epsilon=0.5, max_sweeps=5).status is ia.Status.INFEASIBLE

    def test_feasible_masks_are_solved(self) -> None:
        scores = scores_of(300, 10)
        scores[np.random.default_rng(0).random(scores.shape) < 0.5] = -np.inf
        scores[np.arange(300), np.arange(300) % 10] = 0
        assignment = ia.sinkhorn(scores, epsilon=0.2)
        optimum, residual = family_optimum(scores, 0.2, np.inf)
        assert assignment.converged
        assert residual < 1e-13
        assert (assignment.plan[np.isinf(scores)] == 0).all()
        assert mean_total_variation(assignment.plan, optimum) <= assignment.error_bound < 1e-3

    def test_a_dual_that_rises_is_progress(self) -> None:
        """For hundreds of plain steps nothing else changes: each row has its label until the price has risen by 200."""
        scores = np.array([[0.0, -100.0], [-100.0, 0.0]])
        assignment = ia.sinkhorn(scores, epsilon=1.0, prior=[0.6, 0.4], acceleration=None)
        assert assignment.converged
        assert assignment.sweeps > 200

    @pytest.mark.theorem("A2")
    def test_feasible_only_on_the_boundary_is_not_called_solved(self) -> None:
        """Theory, A2: no finite potential is optimal, the marginal error is about 1 / (2 n)."""
        scores = np.array([[0.0, 0.0], [-np.inf, 0.0]])
        plain = ia.sinkhorn(scores, epsilon=1.0, acceleration=None)
        assert plain.status is ia.Status.MAX_SWEEPS
        assert plain.marginal_error == pytest.approx(1 / 2000, rel=0.2)
        fast = ia.sinkhorn(scores, epsilon=1.0)
        assert fast.status is not ia.Status.INFEASIBLE
        assert not fast.converged or fast.plan[0, 1] <= 1e-5

    def test_a_column_that_no_row_may_use_is_refused_under_an_exact_marginal(self, make: Make) -> None:
        scores = scores_of(6, 4)
        scores[:, 2] = -np.inf
        with pytest.raises(ValueError, match="column 2 of scores is all -inf, so no plan can give it its share"):
            ia.sinkhorn(make(scores))
        unchecked = ia.sinkhorn(make(scores), check_finite=False)
        assert unchecked.status is ia.Status.INFEASIBLE
        assert ia.assign(make(scores), epsilon=0.1, strength=1.0).converged

    def test_a_single_allowed_pair_in_a_row(self) -> None:
        scores = scores_of(20, 5)
        scores[4, [0, 1, 2, 4]] = -np.inf
        for strength in (1.0, np.inf):
            assignment = ia.assign(scores, epsilon=0.3, strength=strength)
            assert assignment.converged
            np.testing.assert_array_equal(assignment.plan[4], np.eye(5)[3])


EXTREMES: dict[str, Any] = {
    "large": scores_of(40, 12, 1e6),
    "flat": scores_of(40, 12, 1e-8),
    "one row": scores_of(1, 12),
    "one label": scores_of(40, 1),
    "one of each": scores_of(1, 1),
    "few rows": scores_of(3, 50),
    "many rows": scores_of(2000, 3),
    "identical rows": np.tile(scores_of(1, 12), (40, 1)),
    "identical columns": np.tile(scores_of(40, 1), (1, 12)),
    "half precision at its maximum": np.where(scores_of(40, 12) > 0, 65504.0, -65504.0),
    "one allowed pair": np.where(np.eye(12)[3] + np.arange(40)[:, None] > 0, scores_of(40, 12), -np.inf),
}
MEMBERS: dict[str, dict[str, Any]] = {
    "softmax": {"epsilon": 1.0, "strength": 0.0},
    "beta .9999": {"epsilon": 1e-4, "strength": 0.9999},
    "beta 2/3": {"epsilon": 1 / 3, "strength": 2 / 3},
    "large epsilon": {"epsilon": 1e3, "strength": 1.0},
    "equal shares": {"epsilon": 0.05},
    "equal shares, small epsilon": {"epsilon": 1e-4},
}


class TestExtremes:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("member", MEMBERS)
    @pytest.mark.parametrize("name", EXTREMES)
    def test_are_answered_finitely_and_truthfully(self, name: str, member: str, dtype: Any) -> None:
        if dtype == np.float16 and np.abs(EXTREMES[name]).max(where=np.isfinite(EXTREMES[name]), initial=0) > 65504:
            pytest.skip("does not fit half precision")
        scores, options = EXTREMES[name].astype(dtype), MEMBERS[member]
        assignment = ia.assign(scores, **options)
        plan = assignment.plan.astype(float)
        assert np.isfinite(plan).all()
        np.testing.assert_allclose(plan.sum(axis=1), 1, atol=2e-3 if dtype == np.float16 else 1e-5)
        numbers = [assignment.gap, assignment.error_bound, assignment.objective, assignment.perplexity]
        assert not np.isnan(numbers).any()
        assert np.isfinite(assignment.error_bound)
        if assignment.status is not ia.Status.INFEASIBLE:
            optimum, residual = family_optimum(
                scores.astype(float), options["epsilon"], options.get("strength", np.inf), plain=50
            )
            if residual < 1e-12:  # otherwise the oracle gave up
                computed = np.asarray(assignment._computed_plan, float)
                assert mean_total_variation(computed, optimum) <= assignment.error_bound + 1e-11

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("strength", [1.0, np.inf])
    def test_a_rare_label(self, dtype: Any, strength: float) -> None:
        prior = np.array([0.9, 1e-12, 0.1 - 1e-12])
        scores = scores_of(50, 3).astype(dtype)
        assignment = ia.assign(scores, epsilon=0.1, strength=strength, prior=prior.astype(dtype))
        assert assignment.converged
        optimum, residual = family_optimum(scores.astype(float), 0.1, strength, prior)
        assert residual < 1e-13
        assert mean_total_variation(assignment.plan, optimum) <= assignment.error_bound + 2e-8  # the rounded prior

    @pytest.mark.parametrize("acceleration", [None, "auto"])
    def test_unchecked_nan_is_not_called_a_solution(self, make: Make, acceleration: Any) -> None:
        scores = scores_of()
        scores[2, 1] = np.nan
        for strength in (1.0, np.inf):
            assignment = ia.assign(
                make(scores), epsilon=0.1, strength=strength, acceleration=acceleration, check_finite=False
            )
            assert assignment.status is ia.Status.STALLED
            assert np.isnan(np.asarray(assignment.plan)).any()


class TestNewRows:
    def test_get_the_labels_that_they_had(self, make: Make) -> None:
        scores = make(scores_of())
        for assignment in (ia.mira(scores, temperature=0.3), ia.sinkhorn(scores)):
            again = assignment.assign_new(make(scores_of()[10:13]))
            np.testing.assert_allclose(np.asarray(again), np.asarray(assignment.plan)[10:13], atol=1e-12)

    def test_do_not_get_a_label_that_no_row_might_use(self) -> None:
        scores = scores_of(6, 4)
        scores[:, 2] = -np.inf
        assignment = ia.mira(scores)
        assert (assignment.assign_new(scores_of(5, 4))[:, 2] == 0).all()
        only = np.full((1, 4), -np.inf)
        only[0, 2] = 1.0
        with pytest.raises(ValueError, match="only labels that no row might use in the problem that was solved"):
            assignment.assign_new(only)
        with pytest.raises(ValueError, match="row 1 of scores is all -inf"):
            assignment.assign_new(np.array([[0.0] * 4, [-np.inf] * 4]))

    def test_must_be_of_the_same_library(self) -> None:
        with pytest.raises(TypeError, match="same library as those that were solved for"):
            ia.mira(scores_of()).assign_new(torch.zeros(5, 12))

    def test_must_have_the_same_labels(self) -> None:
        with pytest.raises(ValueError, match=r"scores must have shape \('any', 12\).*got \(5, 4\)"):
            ia.mira(scores_of()).assign_new(scores_of(5, 4))


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"epsilon": 0}, ValueError, "epsilon must be positive and finite; got 0"),
            ({"epsilon": np.inf}, ValueError, "epsilon must be positive and finite"),
            ({"epsilon": "1"}, TypeError, "epsilon must be a real number; got '1'"),
            ({"strength": -1}, ValueError, "strength must not be negative"),
            ({"strength": np.nan}, ValueError, "strength must not be negative; got nan"),
            ({"acceleration": "anderson"}, ValueError, "acceleration must be one of None, 'auto', 'quasi-newton'"),
            ({"acceleration": ["auto"]}, ValueError, r"acceleration must be one of .*; got \['auto'\]"),
            ({"prior": np.ones(3) / 3}, ValueError, r"share for each label, shape \(12,\); got shape \(3,\)"),
            ({"prior": np.ones(12)}, ValueError, "prior must sum to one; got 12.0; divide it by its sum"),
            ({"prior": np.eye(12)[0]}, ValueError, "prior must be positive; got 0.0 for label 1"),
            ({"prior": np.full(12, np.nan)}, ValueError, "prior must be positive; got nan for label 0"),
            ({"prior": torch.ones(12) / 12}, TypeError, "prior must be an array of the same library as scores"),
            ({"prior": np.ones(12, int)}, TypeError, "prior must have a real floating dtype"),
            ({"prior": "uniform"}, TypeError, "prior must be an array"),
            ({"prior": ["a"] * 12}, TypeError, "prior must be a real number; got 'a'"),
        ],
    )
    def test_arguments(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            ia.assign(scores_of(), **{"epsilon": 0.1, **options})

    @pytest.mark.parametrize("name", ["prior", "start"])
    def test_arrays_on_another_device(self, name: str) -> None:
        scores = array_api_strict.asarray(scores_of())
        other = array_api_strict.asarray(np.full(12, 1 / 12, np.float32), device=array_api_strict.Device("no_float64"))
        with pytest.raises(
            ValueError, match=f"{name} must be on the device of scores, .*CPU.*; got one on .*no_float64"
        ):
            ia.sinkhorn(scores, **{name: other})
