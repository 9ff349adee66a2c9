"""Part A of docs/theory: a test for each statement, on random problems, that would fail if it were false."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from family_problems import Problem, kl, osc, problem, random_plan, some, tv
from scipy.optimize import linprog
from scipy.special import log_softmax, logsumexp, softmax, xlogy

import infoassign as ia
from infoassign import rounding

INF = float("inf")
EVERY_RHO = [None, INF]


@pytest.mark.theorem("A1")
class TestConvexity:
    @pytest.mark.parametrize("given", some(20))
    def test_is_strong_with_modulus_epsilon_over_b(self, given: Problem) -> None:
        random = np.random.default_rng(0)
        for t in (0.2, 0.5, 0.9):
            one, other = random_plan(given.scores, random), random_plan(given.scores, random)
            f = [ia.primal_objective(w, given.scores, **given.options) for w in (one, other)]
            between = ia.primal_objective(t * one + (1 - t) * other, given.scores, **given.options)
            bend = given.epsilon / len(one) * t * (1 - t) / 2 * np.sum((one - other) ** 2)
            assert between <= t * f[0] + (1 - t) * f[1] - bend + 1e-13

    @pytest.mark.parametrize("rho", EVERY_RHO)
    def test_one_minimiser_from_every_start(self, rho: float | None) -> None:
        random = np.random.default_rng(0)
        for given in some(6, rho=rho):
            starts = random.normal(size=(2, len(given.prior))) * 5
            plans = [ia.assign(given.scores, **given.options, tol=1e-11, start=v).plan for v in starts]
            np.testing.assert_allclose(plans[0], plans[1], atol=1e-9)


@pytest.mark.theorem("A2")
class TestOptimality:
    @pytest.mark.parametrize("given", some(10))
    def test_necessary(self, given: Problem) -> None:
        plan = ia.assign(given.scores, **given.options, tol=1e-12, max_sweeps=5000).plan
        assert (plan[np.isfinite(given.scores)] > 0).all()
        v = given.rho * np.log(plan.mean(axis=0) / given.prior)
        np.testing.assert_allclose(plan, given.plan(v), atol=1e-10)

    @pytest.mark.parametrize("rho", EVERY_RHO)
    def test_sufficient(self, rho: float | None) -> None:
        """A plan that satisfies the conditions is better than all others that are feasible."""
        random = np.random.default_rng(1)
        for given in some(8, rho=rho):
            best = given.plan(given.optimal_potential())
            for size in (1e-3, 1e-1, 1.0):
                other = random_plan(given.scores, random)
                if np.isinf(given.rho):  # what keeps both marginals
                    move = _between_feasible(given.scores, random) * size
                    move *= min(1.0, 0.9 / np.max(np.abs(move) / np.where(best > 0, best, 1.0)))
                else:
                    move = (other - best) * size
                assert given.primal(best + move) > given.primal(best)

    def test_equations_5_and_6_of_mira(self) -> None:
        scores, beta = np.random.default_rng(0).normal(size=(20, 5)), 0.7
        p = softmax(scores, axis=1)
        wbar = ia.mira(scores, beta=beta, tol=1e-12).marginal
        plan = wbar ** (-beta / (1 - beta)) * p ** (1 / (1 - beta))
        bracket = np.mean(p ** (1 / (1 - beta)) / plan.sum(axis=1, keepdims=True), axis=0)
        np.testing.assert_allclose(wbar, bracket ** (1 - beta), rtol=1e-9)
        np.testing.assert_allclose((plan / plan.sum(axis=1, keepdims=True)).mean(axis=0), wbar, rtol=1e-9)

    def test_sublinear_where_every_feasible_plan_has_a_zero(self) -> None:
        """After n plain steps the marginal error is 1 / (2 n + 2), in exact arithmetic."""
        scores = np.array([[0.0, 0.0], [-np.inf, 0.0]])
        for sweeps in (1, 2, 10, 100):
            found = ia.sinkhorn(scores, epsilon=1.0, tol=0, max_sweeps=sweeps, acceleration=None)
            assert found.verify().marginal_error == pytest.approx(1 / (2 * sweeps), abs=1e-13)

    def test_the_dual_of_an_infeasible_problem_is_unbounded(self) -> None:
        """Columns J want more than the rows that may use them have: up along -1_J, at the rate of the excess."""
        scores = np.random.default_rng(0).normal(size=(10, 3))
        scores[2:, 0] = -np.inf  # 2 of 10 rows for a share of 1/3
        along = np.array([-1.0, 0.0, 0.0])
        values = [ia.dual_objective(t * along, scores, epsilon=0.5) for t in (100.0, 200.0)]
        assert values[1] - values[0] == pytest.approx(100 * (1 / 3 - 2 / 10), rel=1e-9)

    def test_along_sinkhorn_too(self) -> None:
        """It rises by at least eps KL(r || m) a step, for the nearest marginal m that there is."""
        scores = np.random.default_rng(0).normal(size=(10, 2))
        scores[2:, 0] = -np.inf  # at most 2 of 10 rows for a share of 1/2
        given = Problem(scores, 0.5, INF, np.array([0.5, 0.5]))
        least = given.epsilon * kl(given.prior, np.array([0.2, 0.8]))
        v = np.zeros(2)
        for _ in range(50):
            following = given.step(v)
            assert given.dual(following) - given.dual(v) >= least - 1e-12
            v = following


def _between_feasible(scores: Any, random: np.random.Generator) -> Any:
    """A random direction on the allowed pairs whose row and column sums are zero."""
    allowed = np.isfinite(scores)
    rows, columns = scores.shape
    sums = np.concatenate([np.kron(np.eye(rows), np.ones(columns)), np.tile(np.eye(columns), rows)])[:, allowed.ravel()]
    free = random.normal(size=allowed.sum())
    free = free - np.linalg.pinv(sums) @ (sums @ free)
    direction = np.zeros(scores.shape)
    direction[allowed] = free
    return direction / max(np.abs(direction).max(), 1e-300)


@pytest.mark.theorem("A3")
class TestDual:
    @pytest.mark.parametrize("given", [*some(20), *some(20, rho=INF)])
    def test_the_gap_of_any_pair_is_a_sum_of_divergences(self, given: Problem) -> None:
        """primal(W) - dual(v) = eps mean KL(w_i || w_i(v)) + rho KL(wbar || u): weak duality with its defect."""
        random = np.random.default_rng(2)
        plan, v = random_plan(given.scores, random), random.normal(size=len(given.prior))
        if np.isinf(given.rho):
            given = Problem(given.scores, given.epsilon, INF, plan.mean(axis=0))  # so that the plan is feasible
        expected = given.epsilon * kl(plan, given.plan(v)).mean()
        if np.isfinite(given.rho):
            expected += given.rho * kl(plan.mean(axis=0), given.target(v))
        primal = ia.primal_objective(plan, given.scores, **given.options)
        dual = ia.dual_objective(v, given.scores, **given.options)
        assert primal - dual == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("rho", EVERY_RHO)
    def test_is_concave_and_blind_to_shifts_and_meets_the_primal(self, rho: float | None) -> None:
        random = np.random.default_rng(3)
        for given in some(10, rho=rho):
            one, other = random.normal(size=(2, len(given.prior))) * 3

            def dual(v: Any, given: Problem = given) -> float:
                return float(ia.dual_objective(v, given.scores, **given.options))

            assert dual((one + other) / 2) >= (dual(one) + dual(other)) / 2 - 1e-13
            assert dual(one + 7.0) == pytest.approx(dual(one), abs=1e-12)
            best = given.optimal_potential()
            assert dual(best) == pytest.approx(given.primal(given.plan(best)), abs=1e-12)
            assert dual(best) >= max(dual(one), dual(other))

    def test_its_ends_are_limits(self) -> None:
        given = problem(0)
        v = np.random.default_rng(0).normal(size=len(given.prior))
        for end, near in ((0.0, 1e-6), (INF, 1e7)):
            limit = ia.dual_objective(v, given.scores, epsilon=given.epsilon, strength=end, prior=given.prior)
            close = ia.dual_objective(v, given.scores, epsilon=given.epsilon, strength=near, prior=given.prior)
            assert close == pytest.approx(limit, abs=1e-5)


@pytest.mark.theorem("A4")
@pytest.mark.parametrize("given", some(40))
def test_the_gap_is_rho_times_a_divergence(given: Problem) -> None:
    v = np.random.default_rng(4).normal(size=len(given.prior))
    plan = given.plan(v)
    gap = given.primal(plan) - given.dual(v)
    assert gap == pytest.approx(given.rho * kl(plan.mean(axis=0), given.target(v)), abs=1e-12)
    assert ia.duality_gap(v, given.scores, **given.options) == pytest.approx(gap, abs=1e-12)


@pytest.mark.theorem("A5")
class TestErrorBounds:
    @pytest.mark.parametrize("given", some(20))
    def test_for_a_finite_strength(self, given: Problem) -> None:
        best = given.plan(given.optimal_potential())
        for size in (0.01, 1.0, 5.0):
            v = given.optimal_potential() + np.random.default_rng(5).normal(size=len(given.prior)) * size
            plan, u, wbar = given.plan(v), given.target(v), given.plan(v).mean(axis=0)
            gap = ia.duality_gap(v, given.scores, **given.options)
            parts = given.epsilon * (kl(plan, best) + kl(best, plan)).mean()
            parts += given.rho * (kl(wbar, best.mean(axis=0)) + kl(best.mean(axis=0), u))
            assert gap == pytest.approx(parts, rel=1e-9, abs=1e-12)
            assert tv(plan, best).mean() <= np.sqrt(gap / (4 * given.epsilon)) + 1e-13
            spread = given.rho / given.epsilon * osc(np.log(wbar / u))
            allowed = np.isfinite(given.scores)
            assert np.abs(np.log(plan[allowed] / best[allowed])).max() <= spread + 1e-11
            assert tv(plan, best).max() <= np.tanh(spread / 4) + 1e-13

    def test_the_tanh_of_a_quarter_is_attained_between_two_distributions(self) -> None:
        for spread in (0.1, 1.0, 5.0):
            p = softmax([spread / 4, -spread / 4])
            q = p[::-1]
            assert osc(np.log(p / q)) == pytest.approx(spread)
            assert tv(p, q) == pytest.approx(np.tanh(spread / 4), abs=1e-14)

    def test_the_row_bound_is_approached_and_not_reached(self) -> None:
        """As rho / eps tends to 0, in rows that are halved by the columns at the two ends of d."""
        ratios = []
        for rho in (1e-1, 1e-2, 1e-3):
            given = Problem(np.array([[0.0, 0.0], [1.0, 0.0]]), 1.0, rho, np.array([0.5, 0.5]))
            best, plan = given.plan(given.optimal_potential()), given.plan(np.zeros(2))
            d = np.log(plan.mean(axis=0) / given.prior)
            ratios.append(tv(plan, best)[0] / np.tanh(rho * osc(d) / 4))
        assert all(ratio < 1 for ratio in ratios)
        assert 1 - ratios[2] < 1e-3 < 1 - ratios[1] < 1e-2

    @pytest.mark.parametrize("given", some(20, rho=INF))
    def test_for_an_exact_marginal(self, given: Problem) -> None:
        potential = given.optimal_potential()
        best = given.plan(potential)
        v = potential + np.random.default_rng(6).normal(size=len(given.prior))
        move = _between_feasible(given.scores, np.random.default_rng(6)) * best[best > 0].min() / 2
        plan, feasible = given.plan(v), best + move
        gap = given.primal(feasible) - given.dual(v)
        assert gap == pytest.approx(given.epsilon * kl(feasible, plan).mean(), abs=1e-12)
        parts = (kl(feasible, best) + kl(best, plan)).mean()
        assert gap == pytest.approx(given.epsilon * parts, abs=1e-12)
        squares = (tv(feasible, best) ** 2 + tv(plan, best) ** 2).mean()
        assert squares <= gap / (2 * given.epsilon) + 1e-13
        assert max(tv(feasible, best).mean(), tv(plan, best).mean()) <= np.sqrt(gap / (2 * given.epsilon)) + 1e-13

    def test_an_exact_marginal_needs_the_two_and_not_the_four(self) -> None:
        """The rounded plan is the optimum itself here, and all of the gap is the distance of W(v)."""
        given = Problem(np.zeros((4, 2)), 1.0, INF, np.array([0.5, 0.5]))
        v = np.array([1e-2, 0.0])
        plan, best = given.plan(v), np.full((4, 2), 0.5)
        gap = given.primal(best) - given.dual(v)
        assert tv(plan, best).mean() > 1.4 * np.sqrt(gap / 4)
        assert tv(plan, best).mean() <= np.sqrt(gap / 2)
        found = ia.assign(given.scores, epsilon=1.0, tol=0, max_sweeps=1, start=v)
        assert tv(plan, best).mean() <= found.error_bound

    @pytest.mark.parametrize("given", some(20, rho=INF))
    def test_a_plan_that_misses_the_prior_bounds_it_too(self, given: Problem) -> None:
        random = np.random.default_rng(15)
        best = given.optimal_potential()
        v, other = best + random.normal(size=len(best)), random_plan(given.scores, random)
        for t in (0.01, 1.0):
            near = (1 - t) * given.plan(best) + t * other
            missed = np.abs(near.mean(axis=0) - given.prior).sum()
            bound = kl(near, given.plan(v)).mean() + osc(best - v) * missed / (2 * given.epsilon)
            assert kl(given.plan(best), given.plan(v)).mean() <= bound + 1e-12

    def test_where_no_potential_is_optimal(self) -> None:
        """The only feasible plan is one-hot, and bounds its own distance."""
        given = Problem(np.array([[0.0, 0.0], [-np.inf, 0.0]]), 1.0, INF, np.array([0.5, 0.5]))
        best = np.eye(2)
        for price in (0.0, 1.0, 5.0):
            plan = given.plan(np.array([-price, 0.0]))
            gap = given.primal(best) - given.dual(np.array([-price, 0.0]))
            assert gap == pytest.approx(kl(best, plan).mean(), abs=1e-12)
            assert tv(best, plan).mean() <= np.sqrt(gap / 2)

    @pytest.mark.parametrize("seed", range(20))
    def test_after_one_plain_step(self, seed: int) -> None:
        given = problem(seed, rho=INF)
        diameter = _diameter(given)
        best = given.optimal_potential()
        v = given.step(np.random.default_rng(seed).normal(size=len(given.prior)) * 10)
        assert osc(v - best) / given.epsilon <= diameter + 1e-12
        plan = given.plan(v)
        bound = diameter * np.abs(plan.mean(axis=0) - given.prior).sum() / 2
        assert kl(given.plan(best), plan).mean() <= bound + 1e-13


def _diameter(given: Problem) -> float:
    """Delta: max (s_ij + s_i'j' - s_ij' - s_i'j) / eps."""
    return max(osc(given.scores[:, j] - given.scores[:, k]) for j, k in product(range(len(given.prior)), repeat=2)) / (
        given.epsilon
    )


@pytest.mark.theorem("A6")
class TestContraction:
    @staticmethod
    def in_logs(given: Problem, x: Any) -> Any:
        """Eq. 7 in x = log u, as it is printed: u+ = wbar^(1 - beta) u^beta."""
        wbar = given.plan(given.rho * (x - np.log(given.prior))).mean(axis=0)
        return (1 - given.beta) * np.log(wbar) + given.beta * x

    @pytest.mark.parametrize("given", some(20))
    def test_of_any_two_points_by_beta(self, given: Problem) -> None:
        random = np.random.default_rng(7)
        for size in (1e-3, 1.0, 30.0):
            x, y = random.normal(size=(2, len(given.prior))) * size
            before, after = x - y, self.in_logs(given, x) - self.in_logs(given, y)
            assert np.abs(after).max() <= given.beta * np.abs(before).max() * (1 + 1e-12) + 1e-14
            assert osc(after) <= given.beta * osc(before) * (1 + 1e-12) + 1e-14

    def test_the_modulus_is_attained_by_the_common_scale(self) -> None:
        given = problem(0)
        x = np.random.default_rng(0).normal(size=len(given.prior))
        np.testing.assert_allclose(self.in_logs(given, x + 3) - self.in_logs(given, x), 3 * given.beta, rtol=1e-12)

    @pytest.mark.parametrize("given", some(10))
    def test_the_bound_after_the_fact(self, given: Problem) -> None:
        best = np.log(given.plan(given.optimal_potential()).mean(axis=0))
        x = np.random.default_rng(8).normal(size=len(given.prior)) * 3
        for _ in range(20):
            following = self.in_logs(given, x)
            moved = np.abs(following - x).max()
            assert np.abs(following - best).max() <= given.beta / (1 - given.beta) * moved + 1e-12
            x = following

    def test_the_jacobian_is_beta_times_a_row_stochastic_matrix(self) -> None:
        for given in some(6):
            x, h = np.random.default_rng(9).normal(size=len(given.prior)), 1e-6
            eye = np.eye(len(x))
            measured = (
                np.array([self.in_logs(given, x + h * e) - self.in_logs(given, x - h * e) for e in eye]).T / 2 / h
            )
            averaging = given.averaging(given.plan(given.rho * (x - np.log(given.prior))))
            np.testing.assert_allclose(measured, given.beta * averaging, atol=1e-8)
            np.testing.assert_allclose(averaging.sum(axis=1), 1, atol=1e-13)

    def test_an_exact_marginal_does_not_expand(self) -> None:
        for given in some(10, rho=INF):
            one, other = np.random.default_rng(16).normal(size=(2, len(given.prior))) * 3
            assert np.abs(given.step(one) - given.step(other)).max() <= np.abs(one - other).max() + 1e-12

    @pytest.mark.parametrize(("beta", "diverges"), [(0.45, False), (0.55, True)])
    def test_without_the_power_it_diverges_above_one_half(self, beta: float, diverges: bool) -> None:
        """u <- wbar, on rows that are alike: distances grow by beta / (1 - beta)."""
        given = Problem(np.zeros((3, 2)), 1 - beta, beta, np.array([0.5, 0.5]))
        u = np.array([0.501, 0.499])
        for _ in range(60):
            u = given.plan(beta * np.log(u / given.prior)).mean(axis=0)
        assert (abs(u[0] - 0.5) > 0.001) == diverges


@pytest.mark.theorem("A7")
class TestSpectrum:
    @pytest.mark.parametrize("given", some(10))
    def test_of_the_averaging_matrix(self, given: Problem) -> None:
        plan = given.plan(np.random.default_rng(10).normal(size=len(given.prior)))
        averaging, wbar = given.averaging(plan), plan.mean(axis=0)
        symmetric = np.sqrt(wbar)[:, None] * averaging / np.sqrt(wbar)
        np.testing.assert_allclose(symmetric, symmetric.T, atol=1e-13)
        values = np.linalg.eigvalsh((symmetric + symmetric.T) / 2)
        assert values.min() >= -1e-13
        assert values.max() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(averaging @ np.ones(len(wbar)), 1, atol=1e-13)

    def test_what_is_left_of_one_is_the_mean_variance(self) -> None:
        for given in some(6):
            x, v = np.random.default_rng(17).normal(size=(2, len(given.prior)))
            plan = given.plan(v)
            left = plan.mean(axis=0) @ (x * (x - given.averaging(plan) @ x))
            variances = plan @ x**2 - (plan @ x) ** 2
            assert left == pytest.approx(variances.mean(), abs=1e-13)

    def test_the_eigenvalue_one_is_as_often_as_there_are_blocks(self) -> None:
        scores = np.random.default_rng(0).normal(size=(8, 4))
        scores[:4, 2:] = scores[4:, :2] = -np.inf
        given = Problem(scores, 0.5, 1.0, np.full(4, 0.25))
        values = np.sort(np.linalg.eigvals(given.averaging(given.plan(np.zeros(4)))).real)
        np.testing.assert_allclose(values[-2:], 1, atol=1e-12)
        assert values[-3] < 0.99

    @pytest.mark.parametrize("rho", [3.0, INF])
    def test_the_local_rate_is_beta_times_the_second_eigenvalue(self, rho: float) -> None:
        given = Problem(np.random.default_rng(0).normal(size=(30, 4)), 0.3, rho, np.full(4, 0.25))
        best = given.optimal_potential()
        values, vectors = np.linalg.eig(given.averaging(given.plan(best)))
        order = np.argsort(values.real)
        second, along = values.real[order[-2]], vectors.real[:, order[-2]]
        v, distances = best + 1e-5 * along, []
        for _ in range(10):
            v = given.step(v)
            distances.append(osc(v - best))
        assert distances[-1] / distances[-2] == pytest.approx(given.beta * second, rel=1e-4)
        options: dict[str, Any] = {"tol": 0, "acceleration": None, "start": best + 1e-5 * along}
        library = [ia.assign(given.scores, **given.options, max_sweeps=n, **options).potential for n in (5, 6)]
        ratio = osc(library[1] - best) / osc(library[0] - best)
        assert ratio == pytest.approx(given.beta * second, rel=1e-4)


@pytest.mark.theorem("A8")
class TestHilbertAndAscent:
    @pytest.mark.parametrize("seed", range(20))
    def test_half_steps_and_sweeps_contract(self, seed: int) -> None:
        """osc is Hilbert's metric of the exponentials; tanh(Delta / 4) for a half step, and its square for a sweep."""
        random = np.random.default_rng(seed)
        for rho in (INF, 2.0):
            given = problem(seed, rho=rho)
            factor = np.tanh(_diameter(given) / 4)
            one, other = random.normal(size=(2, len(given.prior))) * random.choice([0.01, 1.0, 10.0])
            assert osc(given.lse(one) - given.lse(other)) <= factor * osc(one - other) / given.epsilon + 1e-12
            after = osc(given.step(one) - given.step(other))
            assert after <= given.beta * factor**2 * osc(one - other) + 1e-12

    @pytest.mark.parametrize("seed", range(20))
    def test_plain_steps_end_within_the_diameter(self, seed: int) -> None:
        given = problem(seed, rho=INF, scale=3.0)
        diameter, best = _diameter(given), given.optimal_potential()
        assert given.epsilon * diameter <= 2 * np.ptp(given.scores, axis=1).max() + 1e-12
        ones = np.random.default_rng(seed).normal(size=(2, len(best))) * 20
        assert osc(given.step(ones[0]) - given.step(ones[1])) <= given.epsilon * (diameter + 1e-12)
        for v in ones:
            moved = given.epsilon * osc(np.log(given.plan(v).mean(axis=0) / given.prior))
            assert osc(v - best) <= given.epsilon * diameter + moved + 1e-10

    def test_the_coefficient_is_attained(self) -> None:
        """To first order, by the two by two matrix with the diameter's cross ratio."""
        given = Problem(np.array([[1.0, -1.0], [-1.0, 1.0]]), 1.0, INF, np.array([0.5, 0.5]))
        factor, h = np.tanh(_diameter(given) / 4), 1e-5
        assert _diameter(given) == 4
        v = np.array([h, -h])
        assert osc(given.lse(v) - given.lse(-v)) / osc(2 * v) == pytest.approx(factor, rel=1e-8)

    @pytest.mark.parametrize("given", [*some(15), *some(15, rho=INF)])
    def test_a_plain_step_raises_the_dual_by_two_divergences(self, given: Problem) -> None:
        v = np.random.default_rng(11).normal(size=len(given.prior)) * 2
        plan, u = given.plan(v), given.target(v)
        wbar, ascent = plan.mean(axis=0), given.dual(given.step(v)) - given.dual(v)
        masses = plan @ (u / wbar) ** given.beta
        rows = kl(np.full(len(plan), 1 / len(plan)), masses / masses.sum())
        renyi = kl(given.prior, wbar)
        if np.isfinite(given.rho):
            renyi = -np.log(np.sum(u**given.beta * wbar ** (1 - given.beta))) / (1 - given.beta)
        assert ascent == pytest.approx(given.epsilon * (renyi + rows), abs=1e-12)
        hellinger = np.sum((np.sqrt(wbar) - np.sqrt(u)) ** 2)
        assert renyi >= min(1.0, given.rho / given.epsilon) * hellinger - 1e-13


@pytest.mark.theorem("A9")
class TestSmallEpsilon:
    @pytest.mark.parametrize("seed", range(3))
    def test_the_limit_is_the_point_of_largest_entropy_of_the_optimal_face(self, seed: int) -> None:
        """Two kinds of rows: the optimal face holds every way of sharing labels among rows of a kind."""
        kinds = np.random.default_rng(seed).normal(size=(2, 4))
        scores = kinds[[0] * 6 + [1] * 2]
        equal = np.concatenate([np.eye(2).repeat(4, axis=1), np.tile(np.eye(4), 2)])
        right = [6, 2, 2, 2, 2, 2]
        program = linprog(-kinds.ravel(), A_eq=equal, b_eq=right, method="highs")
        by_kind = program.x.reshape(2, 4) / [[6], [2]]  # rows of a kind alike: the largest entropy
        found = ia.sinkhorn(scores, epsilon=2e-3, tol=1e-8, max_sweeps=20_000)
        np.testing.assert_allclose(found.plan, by_kind[[0] * 6 + [1] * 2], atol=1e-5)

    def test_a_limit_that_is_no_vertex(self) -> None:
        for epsilon in (1.0, 1e-3):
            np.testing.assert_allclose(ia.sinkhorn(np.zeros((2, 2)), epsilon=epsilon).plan, 0.5, atol=1e-12)

    @pytest.mark.parametrize(("shares", "integral"), [([2, 3, 1], True), ([2.5, 2.5, 1], False)])
    def test_vertices_are_integral_if_all_shares_are(self, shares: list[float], integral: bool) -> None:
        random = np.random.default_rng(0)
        equal = np.concatenate([np.eye(6).repeat(3, axis=1), np.tile(np.eye(3), 6)])
        right = np.concatenate([np.ones(6), shares])
        for _ in range(20):
            vertex = linprog(random.normal(size=18), A_eq=equal, b_eq=right, method="highs-ds").x
            assert (np.abs(vertex - vertex.round()).max() < 1e-9) == integral


@pytest.mark.theorem("A10")
def test_mira_under_equipartition_is_swav() -> None:
    logits, tau, beta = np.random.default_rng(0).normal(size=(40, 6)), 0.225, 0.6
    log_p = log_softmax(logits / tau, axis=1)
    swav = ia.sinkhorn(logits, epsilon=tau * (1 - beta), tol=1e-11)
    mira = ia.assign(log_p, epsilon=1 - beta, tol=1e-11)
    np.testing.assert_allclose(swav.plan, mira.plan, atol=1e-9)
    # Of all plans with equal shares none has a lower objective of MIRA (eq. 4).
    random = np.random.default_rng(1)
    member = Problem(log_p, 1 - beta, beta, np.full(6, 1 / 6))
    best = member.primal(mira.plan)
    for size in (1e-4, 1e-3):
        move = _between_feasible(log_p, random) * size
        other = mira.plan + move * min(1.0, mira.plan.min() / size)
        assert member.primal(other) >= best - 1e-10


@pytest.mark.theorem("A11")
class TestRounding:
    @pytest.mark.parametrize("seed", range(10))
    def test_moves_the_least_possible(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        plan, prior = random.dirichlet(np.ones(4), size=6), random.dirichlet(np.ones(4))
        moved = rounding.exact_marginal(plan, plan.mean(axis=0), prior)
        np.testing.assert_allclose(moved.mean(axis=0), prior, atol=1e-15)
        np.testing.assert_allclose(moved.sum(axis=1), 1, atol=1e-14)
        assert moved.min() >= 0
        least = _least_movement(plan, prior, np.ones(plan.shape, bool))
        assert np.abs(moved - plan).sum(axis=1).mean() == pytest.approx(least, abs=1e-9)
        assert least == pytest.approx(np.abs(plan.mean(axis=0) - prior).sum(), abs=1e-9)

    def test_the_rounded_plan_certifies_an_exact_marginal(self) -> None:
        given = problem(0, rho=INF)
        best = given.optimal_potential()
        v = best + np.random.default_rng(0).normal(size=len(best))
        plan = given.plan(v)
        moved = rounding.exact_marginal(plan, plan.mean(axis=0), given.prior)
        assert given.primal(moved) - given.dual(v) >= given.dual(best) - given.dual(v) >= 0

    def test_forbidden_pairs_may_cost_more(self) -> None:
        """From the first column to the third only through the second: twice the marginal error."""
        plan = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        allowed = np.array([[True, True, False], [False, True, True]])
        prior = np.array([0.4, 0.5, 0.1])
        assert np.abs(plan.mean(axis=0) - prior).sum() == pytest.approx(0.2)
        assert _least_movement(plan, prior, allowed) == pytest.approx(0.4, abs=1e-9)


def _least_movement(plan: Any, prior: Any, allowed: Any) -> float:
    """The least mean L1 distance to a plan with the given marginal, by linear programming: plan + up - down."""
    rows, columns = plan.shape
    sums = np.concatenate([np.eye(rows).repeat(columns, axis=1), np.tile(np.eye(columns), rows)])
    right = np.concatenate([np.zeros(rows), rows * prior - plan.sum(axis=0)])
    upper = np.concatenate([np.where(allowed, 1.0, 0.0).ravel(), plan.ravel()])
    bounds = np.stack([np.zeros(2 * plan.size), upper], axis=1)
    found = linprog(np.ones(2 * plan.size), A_eq=np.hstack([sums, -sums]), b_eq=right, bounds=bounds, method="highs")
    return float(found.fun) / rows


@pytest.mark.theorem("A12")
class TestAcceleration:
    @staticmethod
    def constants(beta: float) -> tuple[float, float]:
        root = np.sqrt(1 - beta)
        return 2 / (1 + root), (1 - root) / (1 + root)

    @pytest.mark.parametrize("given", some(10))
    def test_the_spectral_radius_of_over_relaxation(self, given: Problem) -> None:
        """Linearised at the optimum, row potentials first: every eigenvalue is on one circle."""
        omega, rate = self.constants(given.beta)
        plan = given.plan(given.optimal_potential())
        rows, columns = plan.shape
        to_rows = -plan  # d lse_i / d v_j, in units of eps
        to_columns = -given.beta * (plan / plan.mean(axis=0) / rows).T
        first = np.block([[(1 - omega) * np.eye(rows), omega * to_rows], [np.zeros((columns, rows)), np.eye(columns)]])
        second = np.block(
            [[np.eye(rows), np.zeros((rows, columns))], [omega * to_columns, (1 - omega) * np.eye(columns)]]
        )
        # All of them; the double eigenvalue of the common scale splits by the root of the rounding.
        np.testing.assert_allclose(np.abs(np.linalg.eigvals(second @ first)), rate, atol=1e-6)

    @pytest.mark.parametrize("given", some(10))
    def test_the_spectral_radius_of_heavy_ball(self, given: Problem) -> None:
        omega, rate = self.constants(given.beta)
        averaging = given.averaging(given.plan(given.optimal_potential()))
        eye = np.eye(len(averaging))
        step, momentum = 4 / (1 + np.sqrt(1 - given.beta)) ** 2, (omega - 1) ** 2
        moved = eye + step * (given.beta * averaging - eye) + momentum * eye
        both = np.block([[moved, -momentum * eye], [eye, 0 * eye]])
        np.testing.assert_allclose(np.abs(np.linalg.eigvals(both)), rate, atol=1e-6)

    def test_the_iterations_themselves(self) -> None:
        """From the optimum's neighbourhood the distance falls like the rate to the number of sweeps, and a power."""
        given = Problem(np.random.default_rng(0).normal(size=(20, 4)), 0.1, 4.0, np.full(4, 0.25))
        omega, rate = self.constants(given.beta)
        best = given.optimal_potential()
        best = given.step(best)
        for _ in range(3000):  # the representative that is a fixed point, its shift included
            best = given.step(best)
        step, momentum = 4 / (1 + np.sqrt(1 - given.beta)) ** 2, (omega - 1) ** 2
        v = ball = previous = best + 1e-3 * np.array([1.0, -1.0, 2.0, 0.0])
        f = given.epsilon * given.lse(v)
        log_r, log_b = np.log(given.prior), np.log(len(f))
        sweeps = 60
        for _ in range(sweeps):
            f = f + omega * (given.epsilon * given.lse(v) - f)
            columns = logsumexp((given.scores - f[:, None]) / given.epsilon, axis=0) - log_b
            v = v + omega * (given.beta * given.epsilon * (columns - log_r) - v)
            ball, previous = ball + step * (given.step(ball) - ball) + momentum * (ball - previous), ball
        for distance in (np.abs(v - best).max(), np.abs(ball - best).max()):
            assert distance <= 1e-2 * sweeps * rate**sweeps
        plain = given.beta**sweeps
        assert plain > 1e3 * sweeps * rate**sweeps

    @pytest.mark.parametrize("rho", [2.0, INF])
    def test_steps_that_rise_enough_converge(self, rho: float) -> None:
        """Random lengths along the gradient, kept if the dual rises by a tenth of what a plain step guarantees."""
        given, random = problem(2, rho=rho), np.random.default_rng(18)
        best, v, kept = given.optimal_potential(), np.zeros(len(given.prior)), 0
        for _ in range(500):
            wbar, u = given.plan(v).mean(axis=0), given.target(v)
            hellinger = np.sum((np.sqrt(wbar) - np.sqrt(u)) ** 2)
            required = given.dual(v) + 0.1 * given.epsilon * min(1.0, given.rho / given.epsilon) * hellinger
            tried = v + given.epsilon * random.uniform(-0.5, 2, size=len(v)) * (wbar - u) / u
            if given.dual(tried) >= required:
                v, kept = tried, kept + 1
            else:
                v = given.step(v)
        assert 10 < kept < 500
        np.testing.assert_allclose(given.plan(v), given.plan(best), atol=1e-6)

    def test_a_safeguard_that_asks_for_no_rise_is_none(self) -> None:
        """A step that stays where it is never lowers the dual; the library asks for a part of a plain step's rise."""
        given = problem(1)
        v = np.ones(len(given.prior)) * np.arange(len(given.prior))
        assert given.dual(v) >= given.dual(v)  # kept by "not worse", for ever
        assert given.dual(given.step(v)) > given.dual(v) + 1e-6


@pytest.mark.theorem("A13")
class TestMonotone:
    @pytest.mark.parametrize("seed", range(4))
    def test_information_in_beta_and_divergence_in_rho(self, seed: int) -> None:
        logits = np.random.default_rng(seed).normal(size=(20, 4)) * 2
        plans = [ia.mira(logits, beta=beta, tol=1e-9, max_sweeps=5000).plan for beta in (0, 0.2, 0.5, 0.8, 0.95)]
        information = [float(ia.mutual_information(plan)) for plan in plans]
        assert (np.diff(information) > 0).all()
        p = softmax(logits, axis=1)
        for beta, plan, found in zip((0.2, 0.5, 0.8, 0.95), plans[1:], information[1:], strict=True):
            assert found >= float(ia.mutual_information(p)) + kl(plan, p).mean() / beta - 1e-12
        for prior in (np.full(4, 0.25), np.array([0.4, 0.3, 0.2, 0.1])):
            marginals = [
                ia.assign(logits, epsilon=0.5, strength=rho, prior=prior, tol=1e-9).marginal for rho in (0, 0.5, 2, 8)
            ]
            assert (np.diff([kl(wbar, prior) for wbar in marginals]) < 0).all()
        uniform = [ia.assign(logits, epsilon=0.5, strength=rho, tol=1e-9).marginal for rho in (0, 0.5, 2, 8, INF)]
        assert (np.diff([float(ia.entropy(wbar)) for wbar in uniform]) > 0).all()

    def test_the_entropy_of_the_marginal_may_fall_in_beta(self) -> None:
        scores = np.log([[0.7, 0.3]] * 9 + [[0.3, 0.7]])
        entropies = [
            float(ia.entropy(ia.mira(scores, beta=beta, tol=1e-6, max_sweeps=20_000).marginal)) for beta in (0.0, 0.99)
        ]
        assert entropies == pytest.approx([0.641, 0.612], abs=1e-3)

    def test_the_marginals_entropy_rises_and_falls_with_beta(self) -> None:
        """One problem that does both."""
        log_p = np.log([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]])
        entropies = [float(ia.entropy(ia.mira(log_p, beta=beta, tol=1e-9).marginal)) for beta in (0, 0.5, 0.9)]
        assert entropies == pytest.approx([0.684, 0.692, 0.685], abs=5e-4)

    def test_equal_shares_of_more_labels_than_rows_leave_entropy_in_the_rows(self) -> None:
        scores = np.random.default_rng(0).normal(size=(5, 20)) * 10
        plan = ia.sinkhorn(scores, epsilon=0.05, tol=1e-9).plan
        remaining = xlogy(plan, plan).sum(axis=1).mean()
        assert -remaining >= np.log(20 / 5) - 1e-8


@pytest.mark.theorem("A14")
class TestImplicitDerivatives:
    @staticmethod
    def weights(given: Problem) -> Any:
        return np.random.default_rng(12).normal(size=given.scores.shape)

    def loss(self, given: Problem) -> float:
        """sin makes it nonlinear in the plan."""
        return float(np.sum(np.sin(2 * given.plan(given.optimal_potential())) * self.weights(given)))

    def formulas(self, given: Problem) -> dict[str, Any]:
        plan = given.plan(given.optimal_potential())
        wbar, averaging = plan.mean(axis=0), given.averaging(plan)
        slope = 2 * np.cos(2 * plan) * self.weights(given)
        g = plan * (slope - np.sum(plan * slope, axis=1, keepdims=True)) / given.epsilon
        right = given.beta * g.sum(axis=0) / wbar
        z = np.linalg.lstsq(np.eye(len(wbar)) - given.beta * averaging, right, rcond=1e-12)[0]
        if np.isinf(given.rho):
            z = z - given.prior @ z
        in_scores = g - plan * (z - (plan @ z)[:, None]) / len(plan)
        log_plan = np.log(np.where(plan > 0, plan, 1))
        found = {"scores": in_scores, "log_prior": given.epsilon * wbar * z, "epsilon": -np.sum(in_scores * log_plan)}
        if np.isfinite(given.rho):
            found["rho"] = -given.epsilon / given.rho * np.sum(wbar * z * np.log(wbar / given.prior))
        return found

    @pytest.mark.parametrize("given", [*some(8), *some(8, rho=INF)])
    def test_agree_with_finite_differences(self, given: Problem) -> None:
        h, random = 1e-5, np.random.default_rng(13)

        def moved(**changes: Any) -> Problem:
            return Problem(
                **({"scores": given.scores, "epsilon": given.epsilon, "rho": given.rho, "prior": given.prior} | changes)
            )

        def slope(change: Any) -> float:
            return (self.loss(moved(**change(h))) - self.loss(moved(**change(-h)))) / (2 * h)

        found = self.formulas(given)
        direction = np.where(np.isfinite(given.scores), random.normal(size=given.scores.shape), 0)
        shares = random.normal(size=len(given.prior))
        shares -= given.prior @ shares  # keeps the sum of the prior
        close = {"abs": 1e-7, "rel": 1e-6}
        assert slope(lambda t: {"scores": given.scores + t * direction}) == pytest.approx(
            np.sum(found["scores"] * direction), **close
        )
        assert slope(lambda t: {"epsilon": given.epsilon + t}) == pytest.approx(found["epsilon"], **close)
        assert slope(lambda t: {"prior": softmax(np.log(given.prior) + t * shares)}) == pytest.approx(
            found["log_prior"] @ shares, **close
        )
        if np.isfinite(given.rho):
            assert slope(lambda t: {"rho": given.rho + t}) == pytest.approx(found["rho"], **close)

    def test_of_mira_in_beta_and_temperature(self) -> None:
        logits, beta, tau, h = np.random.default_rng(14).normal(size=(8, 3)), 0.7, 0.5, 1e-5

        def member(beta: float, tau: float) -> Problem:
            return Problem(logits / tau, 1 - beta, beta, np.full(3, 1 / 3))

        found = self.formulas(member(beta, tau))
        by_beta = (self.loss(member(beta + h, tau)) - self.loss(member(beta - h, tau))) / (2 * h)
        by_tau = (self.loss(member(beta, tau + h)) - self.loss(member(beta, tau - h))) / (2 * h)
        assert by_beta == pytest.approx(found["rho"] - found["epsilon"], rel=1e-6)
        assert by_tau == pytest.approx(-np.sum(found["scores"] * logits / tau) / tau, rel=1e-6)

    @pytest.mark.parametrize("given", some(6))
    def test_the_condition_number(self, given: Problem) -> None:
        plan = given.plan(given.optimal_potential())
        wbar = plan.mean(axis=0)
        system = np.eye(len(wbar)) - given.beta * given.averaging(plan)
        symmetric = np.sqrt(wbar)[:, None] * system / np.sqrt(wbar)
        assert np.linalg.cond(symmetric) <= 1 / (1 - given.beta) * (1 + 1e-9)
