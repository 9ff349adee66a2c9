"""Part B of docs/theory: discretised embeddings, in plain NumPy."""

from itertools import combinations, combinations_with_replacement, product
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import entr, softmax, xlogy
from soft_codes import (
    block_loss,
    bush,
    diagonal_entropies,
    invariance,
    joint,
    off_diagonal_entropies,
    one_hot,
    soft_code,
)


@pytest.mark.theorem("B1")
class TestWeights:
    def test_of_the_printed_equations(self) -> None:
        """MUSIC's eq. 3 (and IMSVD's eq. 11) against MUSIC's eq. 5, summed element by element."""
        segments, units = 3, 4
        first, second = soft_code(9, segments, units, seed=0), soft_code(9, segments, units, seed=1)
        p = joint(first, second)
        grid = block = 0.0
        for m1, m2, d1, d2 in product(range(segments), range(segments), range(units), range(units)):
            term = xlogy(p[m1, m2, d1, d2], p[m1, m2, d1, d2])
            grid += (1 - (m1 == m2 and d1 != d2)) * term / segments**2
            if m1 == m2:
                block += (d1 == d2) * term / segments
            else:
                block += term / (segments * (segments - 1))
        diagonal = diagonal_entropies(first, second).mean()
        off_diagonal = off_diagonal_entropies(first, second).mean()
        assert block == pytest.approx(diagonal + off_diagonal, abs=1e-13)
        assert grid == pytest.approx(diagonal / segments + (segments - 1) / segments * off_diagonal, abs=1e-13)
        assert abs(grid - block) > 0.5


@pytest.mark.theorem("B2")
class TestLowerBounds:
    @pytest.mark.parametrize("units", [1, 2, 3, 5])
    @pytest.mark.parametrize("sharpness", [0.3, 3.0, 30.0])
    def test_hold_for_random_codes(self, units: int, sharpness: float) -> None:
        lowest = {1: 0.0, 2: -2 / np.e}.get(units, -np.log(units))
        for seed in range(30):
            first = soft_code(7, 3, units, seed, sharpness)
            for second in (first, soft_code(7, 3, units, seed + 1000, sharpness)):
                assert diagonal_entropies(first, second).min() >= lowest - 1e-13
                assert off_diagonal_entropies(first, second).min() >= -2 * np.log(units) - 1e-13
                assert invariance(first, second) >= -1e-13

    @pytest.mark.parametrize(("units", "lowest"), [(2, -2 / np.e), (3, -np.log(3)), (4, -np.log(4))])
    def test_the_diagonal_one_is_the_minimum(self, units: int, lowest: float) -> None:
        """A minimiser over the free diagonal: non-negative numbers with a sum of at most one."""

        def value(x: Any) -> tuple[float, Any]:
            return float(xlogy(x, x).sum()), 1 + np.log(x)

        below_one = {"type": "ineq", "fun": lambda x: 1 - x.sum(), "jac": lambda x: -np.ones(units)}
        start = np.linspace(0.05, 0.1, units)
        found = minimize(value, start, jac=True, bounds=[(1e-9, 1)] * units, constraints=below_one, method="SLSQP")
        assert found.fun == pytest.approx(lowest, abs=1e-6)


@pytest.mark.theorem("B3")
class TestTwoUnits:
    @staticmethod
    def mirrored(agreement: float) -> Any:
        """Two samples, (x, 1 - x) and (1 - x, x), whose squared norm is the agreement, in [1/2, 1]."""
        x = (1 + np.sqrt(2 * agreement - 1)) / 2
        return np.array([[[x, 1 - x]], [[1 - x, x]]])

    def test_the_diagonal_alone_is_lowest_at_one_over_e(self) -> None:
        code = self.mirrored(2 / np.e)
        np.testing.assert_allclose(np.diag(joint(code, code)[0, 0]), 1 / np.e, rtol=1e-12)
        assert diagonal_entropies(code, code)[0] == pytest.approx(-2 / np.e, abs=1e-14)
        one_hot_code = self.mirrored(1.0)
        assert diagonal_entropies(one_hot_code, one_hot_code)[0] == pytest.approx(-np.log(2), abs=1e-14)
        assert -2 / np.e < -np.log(2) - 0.04

    def test_invariance_must_weigh_at_least_one_minus_log_two(self) -> None:
        def value(agreement: float, weight: float) -> float:
            code = self.mirrored(agreement)
            return float(diagonal_entropies(code, code)[0] + weight * invariance(code, code))

        threshold = 1 - np.log(2)
        assert value(0.999, threshold - 0.01) < value(1.0, threshold - 0.01)
        for agreement in np.linspace(0.5, 0.9999, 200):
            assert value(agreement, threshold) > value(1.0, threshold)
        for seed in range(200):
            first, second = (soft_code(5, 1, 2, seed + by, sharpness=4.0) for by in (0, 1000))
            for code in (first, second):
                found = diagonal_entropies(first, code)[0] + threshold * invariance(first, code)
                assert found > -np.log(2)


@pytest.mark.theorem("B4")
class TestOrthogonalArrays:
    @pytest.mark.parametrize("units", [2, 3, 4, 5])
    @pytest.mark.parametrize("times", [1, 2])
    def test_reach_every_lower_bound(self, units: int, times: int) -> None:
        symbols = np.tile(bush(units, units + 1), (times, 1))
        for one, other in combinations(range(units + 1), 2):
            counts = np.bincount(symbols[:, one] * units + symbols[:, other], minlength=units**2)
            assert (counts == times).all()
        code = one_hot(symbols, units)
        np.testing.assert_allclose(diagonal_entropies(code, code), -np.log(units), atol=1e-13)
        np.testing.assert_allclose(off_diagonal_entropies(code, code), -2 * np.log(units), atol=1e-13)
        assert invariance(code, code) == 0
        assert block_loss(code, code) == pytest.approx(-3 * np.log(units), abs=1e-13)

    @pytest.mark.parametrize("units", [2, 3])
    def test_nothing_else_does(self, units: int) -> None:
        """One symbol of an orthogonal array changed; one row softened; other codes; views that differ."""
        symbols = bush(units, 3)
        lowest = -3 * np.log(units)
        changed = symbols.copy()
        changed[0, 0] = (changed[0, 0] + 1) % units
        code = one_hot(symbols, units)
        soft = code.copy()
        soft[0, 0] = softmax(5 * soft[0, 0])
        others = [(one_hot(changed, units), one_hot(changed, units)), (soft, soft), (code, soft)]
        random = np.random.default_rng(1)
        others += [(c, c) for c in (one_hot(random.integers(units, size=symbols.shape), units) for _ in range(20))]
        assert all(block_loss(*pair) > lowest + 1e-4 for pair in others)

    def test_of_three_units_the_diagonal_alone_asks_for_one_hot_rows(self) -> None:
        """Equality in DE forces an agreement of one; a soft code with equal shares has less."""
        soft = np.tile(np.full(3, 1 / 3), (3, 1, 1))
        assert diagonal_entropies(soft, soft)[0] > -np.log(3) + 0.1

    @pytest.mark.parametrize(("units", "factors"), [(2, 3), (3, 4), (4, 5), (5, 6), (3, 2)])
    def test_raos_bound_is_a_rank(self, units: int, factors: int) -> None:
        """The indicator columns of an orthogonal array span 1 + M (D - 1) dimensions of the N there are."""
        symbols = bush(units, factors)
        columns = one_hot(symbols, units).reshape(len(symbols), -1)
        rank = np.linalg.matrix_rank(columns)
        assert rank == 1 + factors * (units - 1) <= len(symbols)

    def test_the_papers_defaults_need_12800_samples(self) -> None:
        units, segments = 80, 102
        rao = 1 + segments * (units - 1)
        assert rao == 8059
        assert -(-rao // units**2) * units**2 == 12_800

    def test_below_d_squared_samples_the_best_hard_code_is_not_a_minimum(self) -> None:
        """N 6, M 2, D 3, all hard codes up to the order of their samples; from the best a descent leads below."""
        cells = list(product(range(3), repeat=2))
        codes = [one_hot(rows, 3) for rows in combinations_with_replacement(cells, 6)]
        best = min(codes, key=lambda code: block_loss(code, code))
        assert block_loss(best, best) == pytest.approx(-np.log(3) - np.log(6), abs=1e-12)

        def value(logits: Any) -> tuple[float, Any]:
            """The loss of one code for both views, and its gradient."""
            q = softmax(logits.reshape(best.shape), axis=-1)
            p = joint(q, q)
            weight = np.zeros_like(p)
            weight[0, 1] = weight[1, 0] = 1 / 2
            weight[[0, 1], [0, 1]] = np.eye(3) / 2
            slope = weight * (1 + np.log(p))
            both = np.einsum("abde,nbe->nad", slope, q) + np.einsum("abde,nad->nbe", slope, q)
            agreement = np.sum(q * q, axis=-1, keepdims=True)
            gradient = both / len(q) - 2 * q / agreement / agreement.size
            gradient = q * (gradient - np.sum(q * gradient, axis=-1, keepdims=True))
            return block_loss(q, q), gradient.ravel()

        start = 8 * best + np.random.default_rng(0).normal(size=best.shape)
        found = minimize(value, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
        assert found.fun < -3.041 < block_loss(best, best) - 0.15

    def test_below_d_squared_samples_no_hard_code_is_a_minimum(self) -> None:
        """Every one of them is improved by a little mass in an empty cell of a pair."""
        cells = list(product(range(3), repeat=2))
        for rows in combinations_with_replacement(cells, 6):
            code = one_hot(rows, 3)
            p = joint(code, code)[0, 1]
            used = p.sum(axis=1) > 0, p.sum(axis=0) > 0
            d1, d2 = next((a, b) for a, b in cells if p[a, b] == 0 and (used[0][a] or used[1][b]))
            moved = code.copy()
            if used[1][d2]:  # a sample that shows d2 in the second segment gets some of d1 in the first
                i = int(np.argmax(code[:, 1, d2]))
                moved[i, 0] = (1 - 1e-6) * code[i, 0] + 1e-6 * np.eye(3)[d1]
            else:
                i = int(np.argmax(code[:, 0, d1]))
                moved[i, 1] = (1 - 1e-6) * code[i, 1] + 1e-6 * np.eye(3)[d2]
            assert block_loss(moved, moved) < block_loss(code, code) - 1e-7
            assert block_loss(moved, code) < block_loss(code, code) - 1e-7

    def test_finite_logits_approach_it(self) -> None:
        symbols = one_hot(bush(3, 4), 3)
        above = [
            block_loss(softmax(s * symbols, axis=-1), softmax(s * symbols, axis=-1)) + 3 * np.log(3)
            for s in (5, 10, 20)
        ]
        assert above[0] > above[1] > above[2] > 0
        assert above[2] < 1e-6


@pytest.mark.theorem("B5")
class TestOptimum:
    @pytest.mark.parametrize("units", [2, 3, 4])
    def test_covariances_and_information(self, units: int) -> None:
        code = one_hot(bush(units, units + 1), units)
        flat = code.reshape(len(code), -1)
        within = np.where(np.eye(units), 1 / units - 1 / units**2, -1 / units**2)
        np.testing.assert_allclose(np.cov(flat.T, bias=True), np.kron(np.eye(units + 1), within), atol=1e-14)
        p = joint(code, code)
        marginal = code.mean(axis=0)
        for one, other in combinations(range(units + 1), 2):
            information = entr(marginal[[one, other]]).sum() - entr(p[one, other]).sum()
            assert information == pytest.approx(0, abs=1e-13)

    @pytest.mark.parametrize("units", [2, 3, 4])
    def test_three_segments_are_not_independent(self, units: int) -> None:
        symbols = bush(units, 3)
        counts = np.unique(symbols, axis=0, return_counts=True)[1] / len(symbols)
        assert 3 * np.log(units) - entr(counts).sum() == pytest.approx(np.log(units), abs=1e-13)


def subset_entropies(code: Any, size: int) -> list[float]:
    """Joint entropies of all subsets of segments (IMSVD, eq. 3 and 6)."""
    found = []
    for subset in combinations(range(code.shape[1]), size):
        p = code[:, subset[0]]
        for m in subset[1:]:
            p = np.einsum("na,nb->nab", p, code[:, m]).reshape(len(code), -1)
        found.append(float(entr(p.mean(axis=0)).sum()))
    return found


@pytest.mark.theorem("B6")
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_average_total_correlation_of_subsets(size: int) -> None:
    code = soft_code(6, 4, 3, seed=size, sharpness=4.0)
    single = subset_entropies(code, 1)
    subsets = list(combinations(range(4), size))
    correlations = [
        sum(single[m] for m in subset) - whole
        for subset, whole in zip(subsets, subset_entropies(code, size), strict=True)
    ]
    assert min(correlations) >= -1e-13
    expected = size * np.mean(single) - np.mean(subset_entropies(code, size))
    assert np.mean(correlations) == pytest.approx(expected, abs=1e-13)


@pytest.mark.theorem("B7")
def test_one_tile_of_the_joint_distribution_at_a_time() -> None:
    """Value and both gradients in one pass over tiles, against the whole and finite differences."""
    shape = rows, segments, units = 5, 4, 3
    first, second = soft_code(*shape, seed=0), soft_code(*shape, seed=1)

    def entropies(a: Any, b: Any) -> float:
        return float(diagonal_entropies(a, b).mean() + off_diagonal_entropies(a, b).mean())

    flat = first.reshape(rows, -1), second.reshape(rows, -1)
    value, gradients = 0.0, (np.zeros_like(flat[0]), np.zeros_like(flat[1]))
    for m1, m2 in product(range(segments), repeat=2):  # tiles that are blocks
        one, other = (slice(m * units, (m + 1) * units) for m in (m1, m2))
        p = flat[0][:, one].T @ flat[1][:, other] / rows
        weight = np.eye(units) / segments if m1 == m2 else np.full((units, units), 1 / (segments * (segments - 1)))
        value += float(np.sum(weight * xlogy(p, p)))
        slope = weight * (1 + np.log(p))
        gradients[0][:, one] += flat[1][:, other] @ slope.T / rows
        gradients[1][:, other] += flat[0][:, one] @ slope / rows
    assert value == pytest.approx(entropies(first, second), abs=1e-13)
    random, h = np.random.default_rng(2), 1e-6
    for which in (0, 1):
        direction = random.normal(size=shape)
        ends = [
            entropies(first + t * direction, second) if which == 0 else entropies(first, second + t * direction)
            for t in (h, -h)
        ]
        assert np.sum(gradients[which] * direction.reshape(rows, -1)) == pytest.approx(
            (ends[0] - ends[1]) / (2 * h), rel=1e-7
        )
