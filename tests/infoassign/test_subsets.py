"""Joint entropies and total correlations of subsets of segments, against sums over all cells."""

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
import torch

import infoassign as ia
from infoassign.subsets import _combination

Make = Callable[[Any], Any]
SIZES = [2, 3, 2, 4, 1]
LETTERS = "abcde"


def some_codes(rows: int = 20, scale: float = 2.0) -> Any:
    return ia.soft_discretize(np.random.default_rng(0).normal(size=(rows, sum(SIZES))) * scale, SIZES)


def literal(q: Any, subset: tuple[int, ...]) -> float:
    """IMSVD, eq. 3 and 6."""
    parts = np.split(q, np.cumsum(SIZES)[:-1], axis=1)
    letters = LETTERS[: len(subset)]
    joint = np.einsum(f"{','.join('i' + x for x in letters)}->{letters}", *(parts[m] for m in subset)) / len(q)
    return float(-(joint * np.log(joint)).sum())


@pytest.mark.theorem("B6")
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_subset_entropy_is_the_mean_over_subsets(make: Make, order: int) -> None:
    q = some_codes()
    expected = np.mean([literal(q, subset) for subset in combinations(range(5), order)])
    found = ia.subset_entropy(make(q), SIZES, order)
    assert float(found.value) == pytest.approx(expected, rel=1e-12)
    assert type(found.value) is type(ia.entropy(make(q[0])))
    assert found.standard_error == 0
    assert found.subsets == comb(5, order)


@pytest.mark.theorem("B6", "C7")
@pytest.mark.parametrize("order", [2, 3, 5])
def test_total_correlation_is_what_entropies_leave(make: Make, order: int) -> None:
    """IMSVD, eq. 8: C_r = r S_1 - S_r."""
    q = make(some_codes())
    single, joint = (float(ia.subset_entropy(q, SIZES, r).value) for r in (1, order))
    assert float(ia.total_correlation(q, SIZES, order).value) == pytest.approx(order * single - joint, abs=1e-12)


@pytest.mark.theorem("C6")
def test_total_correlation_of_two_segments_is_their_mutual_information() -> None:
    q = some_codes()[:, :5]
    joint = ia.joint_distribution(q[:, :2], q[:, 2:])
    information = ia.kl_divergence(joint.ravel(), np.outer(joint.sum(axis=1), joint.sum(axis=0)).ravel())
    assert float(ia.total_correlation(q, [2, 3], 2).value) == pytest.approx(float(information), abs=1e-13)


@pytest.mark.theorem("B5")
def test_pairwise_independence_is_not_independence() -> None:
    """Two bits and their exclusive or: no pair of segments shares information, the three share a bit."""
    bits = np.array([[a, b, a ^ b] for a in (0, 1) for b in (0, 1)])
    codes = np.eye(2)[bits].reshape(4, 6)
    terms = ia.entropy_terms(codes, codes, 2)
    assert float(terms.off_diagonal) == pytest.approx(ia.entropy_lower_bounds([2] * 3).off_diagonal)
    assert float(ia.total_correlation(codes, 2, 2).value) == pytest.approx(0, abs=1e-15)
    assert float(ia.total_correlation(codes, 2, 3).value) == pytest.approx(np.log(2))


@pytest.mark.theorem("B5")
@pytest.mark.parametrize("levels", [3, 5])
def test_orthogonal_arrays_share_log_d_by_threes(levels: int) -> None:
    """Optimal for the loss, and yet dependent: any two columns of the linear array determine a third (theory, B5)."""
    codes = np.eye(levels)[ia.orthogonal_array(levels, 4)].reshape(levels**2, -1)
    assert float(ia.total_correlation(codes, levels, 2).value) == pytest.approx(0, abs=1e-13)
    assert float(ia.total_correlation(codes, levels, 3).value) == pytest.approx(np.log(levels))


@pytest.mark.parametrize("function", [ia.subset_entropy, ia.total_correlation])
@pytest.mark.parametrize("order", [2, 3])
def test_samples_estimate_the_mean_and_say_how_well(function: Any, order: int) -> None:
    """Over many draws the estimates scatter around the mean, as far as their standard errors say."""
    q = ia.soft_discretize(np.random.default_rng(1).normal(size=(10, 24)) * 3, 3)
    exact = float(function(q, 3, order).value)
    draws = [function(q, 3, order, samples=10, seed=seed) for seed in range(300)]
    values = np.array([float(draw.value) for draw in draws])
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(300)
    assert np.mean([draw.standard_error**2 for draw in draws]) == pytest.approx(values.var(), rel=0.25)
    assert {draw.subsets for draw in draws} == {10}


def test_a_seed_is_a_sample() -> None:
    first, again, other = (ia.subset_entropy(some_codes(), SIZES, 3, samples=4, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_as_many_samples_as_subsets_are_all() -> None:
    assert ia.subset_entropy(some_codes(), SIZES, 3, samples=50) == ia.subset_entropy(some_codes(), SIZES, 3)


def test_marginals_of_a_sample_are_its_own() -> None:
    """So the estimate of total correlation varies less than that of the joint entropy."""
    random = np.random.default_rng(1)
    q = ia.soft_discretize(random.normal(size=(400, 24)) + 2 * random.normal(size=24), 3)
    correlation, joint = (f(q, 3, 3, samples=10).standard_error for f in (ia.total_correlation, ia.subset_entropy))
    assert correlation < joint / 2


@pytest.mark.parametrize("order", [1, 2, 3])
def test_differentiable(order: int) -> None:
    z = torch.randn(5, sum(SIZES), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: ia.subset_entropy(ia.soft_discretize(z, SIZES), SIZES, order).value, z, atol=1e-7
    )


def test_pieces_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ia.subset_entropy(some_codes(), SIZES, 4).value
    monkeypatch.setattr("infoassign.subsets.PIECE", 30)
    assert float(ia.subset_entropy(some_codes(), SIZES, 4).value) == pytest.approx(float(expected), rel=1e-13)


def test_combinations_have_the_rank_that_itertools_gives() -> None:
    for count, order in ((6, 3), (5, 5), (7, 1)):
        assert [_combination(rank, count, order) for rank in range(comb(count, order))] == list(
            combinations(range(count), order)
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"order": 6}, ValueError, "order must be at most the number of segments, 5; got 6"),
        ({"order": 0}, ValueError, "order must be at least"),
        ({"order": 2.0}, TypeError, "order must be an integer"),
        ({"order": 3, "samples": 1}, ValueError, "samples must be at least 2"),
        ({"order": 3, "samples": 4, "seed": -1}, ValueError, "seed must be at least 0"),
        ({"order": 2, "seed": "abc"}, TypeError, "seed must be an integer"),
        ({"order": 5, "samples": -5}, ValueError, "samples must be at least 2"),
    ],
)
@pytest.mark.parametrize("function", [ia.subset_entropy, ia.total_correlation])
def test_wrong_arguments_are_named(
    function: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        function(some_codes(), SIZES, **arguments)


def test_too_much_work_is_refused_with_a_way_out() -> None:
    codes = np.full((1000, 8160), 1 / 80, dtype=np.float32)
    with pytest.raises(ValueError, match=r"171700 subsets of up to 512000 cells.*give samples="):
        ia.subset_entropy(codes, 80, 3)
    with pytest.raises(ValueError, match="up to 3276800000 cells"):
        ia.subset_entropy(codes, 80, 5, samples=2)
    with pytest.raises(ValueError, match="20708500 subsets of up to 8 cells"):  # so many take long, however small
        ia.subset_entropy(np.full((4, 1000), 0.5), 2, 3)


def test_samples_of_more_subsets_than_an_index_counts() -> None:
    q = ia.soft_discretize(np.random.default_rng(0).normal(size=(4, 204)), 2)
    found = ia.total_correlation(q, 2, 20, samples=3)
    assert 0 < float(found.standard_error) < float(found.value)


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("function", [ia.subset_entropy, ia.total_correlation])
def test_estimates_are_differentiable_too(function: Any, samples: int | None) -> None:
    jax = pytest.importorskip("jax")
    q = some_codes().astype(np.float32)
    by_jax = jax.grad(lambda q: function(q, SIZES, 2, samples=samples).value)(jax.numpy.asarray(q))
    by_torch = torch.from_numpy(q.copy()).requires_grad_()
    function(by_torch, SIZES, 2, samples=samples).value.backward()
    np.testing.assert_allclose(np.asarray(by_jax), by_torch.grad, rtol=1e-4, atol=1e-6)


def test_marginals_of_many_rows_in_single_precision() -> None:
    """Added up one by one, a million rows are off by 3 % in float32."""
    q = np.tile(np.array([[0.3, 0.7] * 2], dtype=np.float32), (1_000_000, 1))
    assert float(ia.subset_entropy(q, 2, 1).value) == pytest.approx(ia.entropy(np.array([0.3, 0.7])), rel=1e-6)
    assert float(ia.entropy_terms(q, q, 2).diagonal) == pytest.approx(-ia.entropy(np.array([0.09, 0.49])), rel=1e-6)


@pytest.mark.parametrize("similarity", ["inner-product", "cross-entropy"])
@pytest.mark.parametrize("order", [2, 3])
def test_the_information_objective_is_equation_4(make: Make, order: int, similarity: Any) -> None:
    q1, q2 = some_codes(), some_codes(scale=1.0)
    expected = -float(ia.transform_invariance(q1, q2, SIZES, kind=similarity))
    for q in (q1, q2):
        expected += 0.7 / 2 * float(ia.subset_entropy(q, SIZES, 1).value)
        expected -= 0.4 / 2 * float(ia.total_correlation(q, SIZES, order).value)
    weights = {"order": order, "entropy_weight": 0.7, "correlation_weight": 0.4}
    found = ia.information_objective(make(q1), make(q2), SIZES, similarity=similarity, **weights)
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.theorem("B6")
def test_equation_9_is_not_equation_4_but_another_lambda() -> None:
    """An erratum: with eq. 4's lambda the coefficient of S_1 is lambda - r beta, -1 at the defaults."""
    q1, q2 = some_codes(), some_codes(scale=1.0)
    four, nine, nine_with_less = (
        float(ia.information_objective(q1, q2, SIZES, order=3, entropy_weight=weight, equation=equation))
        for weight, equation in ((5.0, 4), (5.0, 9), (2.0, 9))
    )
    assert abs(four - nine) > 1
    assert four == pytest.approx(nine_with_less)


def test_for_hard_codes_the_loss_is_minus_the_objective() -> None:
    """Where views agree, -DE is S_1 and -OE is S_2: eq. 4 with 3 for lambda, 1 for beta (docs/entropies.md)."""
    symbols = np.random.default_rng(0).integers(3, size=(20, 4))
    codes = np.eye(3)[symbols].reshape(20, 12)
    objective = ia.information_objective(codes, codes, 3, entropy_weight=3.0)
    assert float(sum(ia.entropy_terms(codes, codes, 3))) == pytest.approx(-float(objective), rel=1e-13)


def test_other_equations_there_are_none() -> None:
    with pytest.raises(ValueError, match="equation must be 4 or 9"):
        ia.information_objective(some_codes(), some_codes(), SIZES, equation=11)  # type: ignore[arg-type]
