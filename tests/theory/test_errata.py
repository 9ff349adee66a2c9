"""What docs/theory/errata says of the papers, shown on small examples."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from family_problems import kl
from scipy.special import entr, log_softmax, softmax, xlogy
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

import infoassign as ia


def probabilities(rows: int = 12, columns: int = 3, seed: int = 0) -> Any:
    return softmax(2 * np.random.default_rng(seed).normal(size=(rows, columns)), axis=1)


@pytest.mark.theorem("E1")
def test_the_cross_entropy_is_linear_in_q() -> None:
    p = probabilities()
    cross_entropy = {"p": -np.sum(p * np.log(p)), "argmax": -np.log(p.max(axis=1)).sum()}
    assert cross_entropy["argmax"] < cross_entropy["p"] - 1  # q = p is not the minimum over q
    for other in np.random.default_rng(0).dirichlet(np.ones(3), size=(20, 12)):
        assert -np.sum(p * np.log(other)) > cross_entropy["p"]  # but p = q is the one over p


@pytest.mark.theorem("E2")
def test_selas_regulariser_lowers_the_information() -> None:
    log_p = np.log(probabilities())
    information = [ia.sinkhorn(log_p, epsilon=1 / rate, tol=1e-9).mutual_information for rate in (25, 5, 1, 0.2)]
    assert (np.diff(information) < 0).all()


@pytest.mark.theorem("E3")
def test_selas_updates_do_not_keep_the_total_mass() -> None:
    """Kernel and vectors as printed, with K labels by N samples: the mass is K after one update, N after the other."""
    kernel = probabilities().T ** 5
    labels, samples = kernel.shape
    beta = np.ones(samples)
    for _ in range(200):
        alpha = 1 / (kernel @ beta)
        assert (alpha[:, None] * kernel * beta).sum() == pytest.approx(labels)
        beta = 1 / (alpha @ kernel)
        assert (alpha[:, None] * kernel * beta).sum() == pytest.approx(samples)
    # With equal shares only the scale is wrong; with others the plan would be.
    plan = (alpha[:, None] * kernel * beta).T
    found = ia.sinkhorn(np.log(probabilities()), epsilon=1 / 5, tol=1e-12)
    np.testing.assert_allclose(plan, found.plan, atol=1e-10)
    other = ia.sinkhorn(np.log(probabilities()), epsilon=1 / 5, prior=[0.5, 0.3, 0.2], tol=1e-12).plan
    assert np.abs(plan / plan.sum() - other / other.sum()).max() > 0.01


@pytest.mark.theorem("E4")
def test_an_optimal_solution_need_not_be_integral() -> None:
    """K does not divide N; or it does, and all plans are optimal."""
    uneven = ia.sinkhorn(np.log(probabilities(rows=4)), epsilon=1e-3, tol=1e-6, max_sweeps=50_000).plan
    assert np.abs(uneven - uneven.round()).max() > 0.3
    alike = np.zeros((2, 2))
    assert np.sum(np.eye(2) * alike) == np.sum(np.full((2, 2), 0.5) * alike)


@pytest.mark.theorem("E5")
def test_log_probabilities_have_to_be_exponentiated() -> None:
    p, rate = probabilities(), 25
    assert (np.log(p) ** rate < 0).all()  # no kernel of a plan
    mean_log = (np.log(p) + np.log(probabilities(seed=1))) / 2
    kernel = np.exp(rate * mean_log)
    assert (kernel > 0).all()
    np.testing.assert_allclose(np.log(kernel) / rate, mean_log, rtol=1e-12)


@pytest.mark.theorem("E6")
def test_selas_schedule_ends_late_and_is_quadratic() -> None:
    number = 80
    times = (np.arange(1, number + 1) / (number - 1)) ** 2
    assert times[-1] > 1
    np.testing.assert_allclose(np.diff(times, n=2), 2 / (number - 1) ** 2, atol=1e-14)


@pytest.mark.theorem("E8")
def test_musics_equation_4_as_printed_asks_for_the_uniform_code() -> None:
    def as_printed(first: Any, second: Any) -> float:
        return float(-np.log(first * second).sum(axis=-1).mean())

    uniform = np.full((6, 2, 3), 1 / 3)
    for seed in range(20):
        first, second = soft_code(6, 2, 3, seed), soft_code(6, 2, 3, seed + 100)
        assert as_printed(first, second) > as_printed(uniform, uniform) == pytest.approx(6 * np.log(3))
        assert invariance(first, second) < invariance(uniform, uniform) + 1
    sharp = softmax(100 * one_hot(bush(3, 2), 3), axis=-1)
    assert as_printed(sharp, sharp) > 100  # and without bound, where the listing's term is 0
    assert invariance(sharp, sharp) < 1e-10


@pytest.mark.theorem("E9", "E18")
def test_the_weights_of_the_entropies_differ_by_m_minus_one() -> None:
    """IMSVD's averages (eq. 5 and 7 at r = 2) are those of MUSIC's eq. 5; MUSIC's eq. 3 and IMSVD's eq. 11 are not."""
    code = one_hot(np.random.default_rng(0).integers(3, size=(9, 4)), 3)  # hard, so that DE is minus an entropy
    diagonal, off_diagonal = diagonal_entropies(code, code), off_diagonal_entropies(code, code)
    p = joint(code, code)
    pairs = [entr(p[a, b]).sum() for a, b in combinations(range(4), 2)]
    assert -np.mean(pairs) == pytest.approx(off_diagonal.sum() / (4 * 3), abs=1e-14)
    assert -entr(code.mean(axis=0)).sum(axis=-1).mean() == pytest.approx(diagonal.sum() / 4, abs=1e-14)
    by_eq_5 = np.array([1 / 4, 1 / (4 * 3)])
    by_eq_3 = np.array([1 / 16, 1 / 16])
    assert (by_eq_5[0] / by_eq_5[1]) / (by_eq_3[0] / by_eq_3[1]) == pytest.approx(4 - 1)


@pytest.mark.theorem("E11")
def test_a_code_between_the_claim_and_its_printed_negation() -> None:
    """One-hot rows but for one: not all are, nor is every product below one; the sum falls short all the same."""
    code = one_hot([[0], [1], [2]], 3)
    code[2, 0] = [0.2, 0.2, 0.6]
    product = code * code
    all_one_hot = (product.max(axis=-1) == 1).all()
    none_one_hot = (product.max(axis=-1) < 1).all()
    assert not all_one_hot
    assert not none_one_hot
    assert np.trace(joint(code, code)[0, 0]) < 1


@pytest.mark.theorem("E12")
def test_the_diagonal_entropy_of_two_units_is_not_lowest_at_one_half() -> None:
    assert 2 * xlogy(1 / np.e, 1 / np.e) < 2 * xlogy(0.5, 0.5) - 0.04


@pytest.mark.theorem("E13")
def test_pairwise_independent_segments_may_determine_one_another() -> None:
    symbols = bush(3, 3)
    code = one_hot(symbols, 3)
    np.testing.assert_allclose(off_diagonal_entropies(code, code), -2 * np.log(3), atol=1e-13)
    np.testing.assert_array_equal(symbols[:, 2], (2 * symbols[:, 1] - symbols[:, 0]) % 3)


@pytest.mark.theorem("E15")
def test_fewer_samples_than_pairs_of_symbols_are_an_obstacle() -> None:
    """With 6 samples for 9 cells an off-diagonal block cannot be uniform, whatever the code."""
    for seed in range(50):
        code = one_hot(np.random.default_rng(seed).integers(3, size=(6, 2)), 3)
        assert block_loss(code, code) > -3 * np.log(3) + 0.4


def averages(code: Any) -> tuple[float, float]:
    """S_1 and S_2 of IMSVD's eq. 5 to 7."""
    single = entr(code.mean(axis=0)).sum(axis=-1)
    pairs = [entr(joint(code, code)[a, b]).sum() for a, b in combinations(range(code.shape[1]), 2)]
    return float(single.mean()), float(np.mean(pairs))


@pytest.mark.theorem("E17")
def test_imsvds_equation_9_is_not_its_equation_4() -> None:
    """At the defaults one loses by the entropy that the other gains by, so they rank codes differently."""
    rich, poor = one_hot([[0, 0], [1, 1], [2, 2], [3, 3]], 4), one_hot([[0, 0], [0, 0], [0, 0], [0, 0]], 4)

    def equation_4(code: Any) -> float:
        single, pairs = averages(code)
        return single - (2 * single - pairs)

    def equation_9(code: Any) -> float:
        return sum(averages(code))

    assert equation_9(rich) > equation_9(poor) + 2
    assert equation_4(rich) == pytest.approx(equation_4(poor), abs=1e-14)  # collapse costs nothing
    half = one_hot([[0, 0], [1, 0], [0, 0], [1, 0]], 4)
    single, pairs = averages(half)
    assert equation_4(half) == pytest.approx(-single + pairs, abs=1e-14)


@pytest.mark.theorem("E19")
def test_the_two_balances_agree_at_one_alone() -> None:
    first, second = soft_code(6, 2, 3, 0), soft_code(6, 2, 3, 1)
    entropies, similarity = block_loss(first, second, 0.0), invariance(first, second)
    for weight in (0.5, 1.0, 2.0):
        music, imsvd = entropies + weight * similarity, weight * entropies + similarity
        assert (abs(music - imsvd) < 1e-12) == (weight == 1.0)


@pytest.mark.theorem("E20")
def test_the_sign_of_equation_5_is_one_too_many() -> None:
    """For r = 1 it must be eq. 7, which is an entropy and so not negative."""
    code = soft_code(6, 3, 4)
    single = [float(entr(p).sum()) for p in code.mean(axis=0)]  # eq. 6, with its minus sign
    equation_7 = float(np.mean(single))
    as_printed = -sum(single) / 3
    assert equation_7 > 0 > as_printed
    assert as_printed == pytest.approx(-equation_7)


@pytest.mark.theorem("E21")
def test_a_condition_that_holds_at_convergence_does_not_bring_it_about() -> None:
    """u <- wbar has the same fixed point as eq. 7, and runs away from it."""
    log_p, beta = np.zeros((3, 2)), 0.7
    u = np.array([0.501, 0.499])
    fixed = softmax((log_p - beta * np.log(np.full(2, 0.5))) / (1 - beta), axis=1).mean(axis=0)
    np.testing.assert_allclose(fixed, 0.5)
    for _ in range(10):
        u = softmax((log_p - beta * np.log(u)) / (1 - beta), axis=1).mean(axis=0)
    assert abs(u[0] - 0.5) > 0.4


@pytest.mark.theorem("E22")
def test_the_information_vanishes_for_any_identical_rows() -> None:
    spread = np.full((5, 4), 0.25)  # every label is used: nothing has collapsed
    assert float(ia.mutual_information(spread)) == pytest.approx(0, abs=1e-15)
    assert float(ia.entropy(spread.mean(axis=0))) == pytest.approx(np.log(4))
    assert ia.mira(np.log(spread), beta=0.9).mutual_information == pytest.approx(0, abs=1e-12)


@pytest.mark.theorem("E23")
def test_mira_does_not_maximise_the_information() -> None:
    p = probabilities()
    plan = ia.mira(np.log(p), beta=2 / 3, tol=1e-9).plan
    information = float(ia.mutual_information(plan))
    assert float(ia.mutual_information(p)) + kl(plan, p).mean() / (2 / 3) <= information
    assert information < np.log(3) - 0.2
    assert float(ia.mutual_information(np.eye(3)[np.arange(12) % 3])) == pytest.approx(np.log(3))


@pytest.mark.theorem("E24")
def test_the_problem_is_strongly_convex() -> None:
    """As the draft says, and not only strictly, as the published version does: the curvature is at least eps / B."""
    log_p, beta = log_softmax(np.random.default_rng(0).normal(size=(6, 3)), axis=1), 0.9
    one, other = np.random.default_rng(1).dirichlet(np.ones(3), size=(2, 6))
    values = [ia.primal_objective(w, log_p, epsilon=1 - beta, strength=beta) for w in (one, (one + other) / 2, other)]
    assert (values[0] + values[2]) / 2 - values[1] >= (1 - beta) / 6 / 8 * np.sum((one - other) ** 2)
