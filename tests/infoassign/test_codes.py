"""Orthogonal arrays, and the losses that they minimise."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

import infoassign as ia

LEVELS = [3, 4, 5, 7, 8, 9]


def one_hot(symbols: Any, levels: int) -> Any:
    return np.eye(levels)[symbols].reshape(len(symbols), -1)


def entropies(symbols: Any, levels: int) -> float:
    codes = one_hot(symbols, levels)
    return float(sum(ia.entropy_terms(codes, codes, levels)))


@pytest.mark.theorem("B4")
@pytest.mark.parametrize("levels", [2, *LEVELS, 11, 16, 25, 27])
def test_any_two_columns_hold_every_pair_once(levels: int) -> None:
    array = ia.orthogonal_array(levels, levels + 1)
    assert array.shape == (levels**2, levels + 1)
    assert array.dtype == np.int64
    for first, second in combinations(array.T, 2):
        assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == levels**2
    assert set(array.ravel().tolist()) == set(range(levels))


@pytest.mark.theorem("B2", "B4")
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("normalization", ["block", "grid"])
def test_they_reach_the_lower_bounds(levels: int, normalization: Any) -> None:
    for factors in {2, levels + 1}:
        codes = one_hot(ia.orthogonal_array(levels, factors), levels)
        terms = ia.entropy_terms(codes, codes, levels, normalization=normalization)
        bounds = ia.entropy_lower_bounds([levels] * factors, normalization=normalization)
        np.testing.assert_allclose(terms, bounds, rtol=1e-13)
        assert ia.transform_invariance(codes, codes, levels) == 0


@pytest.mark.theorem("B4")
@pytest.mark.parametrize("levels", LEVELS)
def test_any_changed_symbol_raises_the_loss(levels: int) -> None:
    """In both views; in one alone the views exclude each other, which is infinitely bad."""
    array = ia.orthogonal_array(levels, min(levels + 1, 4))
    best = entropies(array, levels)
    random = np.random.default_rng(0)
    for _ in range(40):
        changed = array.copy()
        row, column = random.integers(len(array)), random.integers(array.shape[1])
        changed[row, column] = (changed[row, column] + random.integers(1, levels)) % levels
        assert entropies(changed, levels) > best + 1e-6
        codes = one_hot(array, levels), one_hot(changed, levels)
        assert ia.transform_invariance(*codes, levels) == np.inf


@pytest.mark.theorem("B2")
@pytest.mark.parametrize("sizes", [[3, 3, 3], [3, 5], [1, 4, 3], [2, 2], [2, 3]])
def test_no_codes_are_below_the_bounds(sizes: list[int]) -> None:
    bounds = ia.entropy_lower_bounds(sizes)
    random = np.random.default_rng(0)
    for scale in (0.1, 1, 5, 50):
        for rows in (1, 6, 60):
            q = [ia.soft_discretize(random.normal(size=(rows, sum(sizes))) * scale, sizes) for _ in range(2)]
            for second in q:
                terms = ia.entropy_terms(q[0], second, sizes)
                assert terms.diagonal >= bounds.diagonal - 1e-12
                assert terms.off_diagonal >= bounds.off_diagonal - 1e-12


@pytest.mark.theorem("B3")
def test_two_units_would_rather_not_agree() -> None:
    """Erratum to MUSIC's appendix B: x log x is least at 1/e, so for D = 2 the diagonal term alone ends below -log 2.

    With transform invariance at .307 of its weight or more, one-hot codes are best again (theory, B3).
    """
    two = np.array([[1.0, 0.0], [0.0, 1.0]])
    share = 2 / np.e  # of agreement: each diagonal cell is half of it
    rest = np.sqrt(2 * share - 1)
    unsure = np.array([[(1 + rest) / 2, (1 - rest) / 2], [(1 - rest) / 2, (1 + rest) / 2]])
    bound = ia.entropy_lower_bounds([2]).diagonal
    assert bound == pytest.approx(-2 / np.e)
    assert float(ia.entropy_terms(unsure, unsure, 2).diagonal) == pytest.approx(bound)
    assert float(ia.entropy_terms(two, two, 2).diagonal) == pytest.approx(-np.log(2))
    assert bound < -np.log(2)

    def loss(q: Any, weight: float) -> float:
        return float(ia.entropy_terms(q, q, 2).diagonal + weight * ia.transform_invariance(q, q, 2))

    def least(weight: float) -> float:
        """The smallest loss of codes (a, 1 - a), (1 - a, a)."""
        sure = np.linspace(0.5, 1, 2001)
        return min((loss(np.array([[a, 1 - a], [1 - a, a]]), weight), a) for a in sure)[1]

    assert least(0.25) < 0.999
    assert least(0.31) == 1


def test_unequal_segments_have_bounds_that_mixed_arrays_reach() -> None:
    """A full factorial design is an orthogonal array of any levels."""
    sizes = [3, 4, 5]
    symbols = np.stack([x.ravel() for x in np.meshgrid(*map(np.arange, sizes), indexing="ij")], axis=1)
    codes = np.concatenate([np.eye(size)[symbols[:, m]] for m, size in enumerate(sizes)], axis=1)
    np.testing.assert_allclose(ia.entropy_terms(codes, codes, sizes), ia.entropy_lower_bounds(sizes), rtol=1e-13)


def test_one_segment_and_one_unit_have_bounds_too() -> None:
    assert ia.entropy_lower_bounds([5]) == pytest.approx((-np.log(5), 0))
    assert ia.entropy_lower_bounds([1, 1]) == (0, 0)
    assert str(ia.entropy_lower_bounds([5]).off_diagonal) == "0.0"


@pytest.mark.theorem("B4")
def test_a_small_batch_has_no_hard_optimum() -> None:
    """Theory, B4: with fewer rows than D^2, soft codes beat every hard one (N 6, M 2, D 3)."""
    random = np.random.default_rng(0)
    hard = min(entropies(random.integers(3, size=(6, 2)), 3) for _ in range(4000))
    hard = min(hard, entropies(np.array([[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [2, 0]]), 3))
    z = random.normal(size=(6, 6)) + 3 * one_hot(np.array([[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [2, 0]]), 3)
    for _ in range(3000):
        found = ia.imsvd_loss_and_gradient(z, z, units=3)
        z = z - 0.5 * (found.gradient1 + found.gradient2)
    assert hard == pytest.approx(-2.890, abs=1e-3)
    assert float(found.value) < hard - 0.05


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((6, 3), ValueError, "levels must be a power of a prime .* got 6, which 2 divides"),
        ((12, 2), ValueError, "levels must be a power of a prime"),
        ((1, 2), ValueError, "levels must be at least 2"),
        ((4, 6), ValueError, r"factors must be at most levels \+ 1 = 5; got 6: by Rao's bound .* 19 rows.* 4\^2 = 16"),
        ((4, 0), ValueError, "factors must be at least 1"),
        ((2147483647, 2), ValueError, "levels must be at most 1024"),
        ((4.0, 2), TypeError, "levels must be an integer"),
    ],
)
def test_arrays_that_cannot_be_made(arguments: tuple[Any, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ia.orthogonal_array(*arguments)


@pytest.mark.parametrize(
    ("units", "error"), [([0, 2], ValueError), ([2.5], TypeError), ([], ValueError), (80, TypeError)]
)
def test_bounds_need_sizes(units: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="units must"):
        ia.entropy_lower_bounds(units)
