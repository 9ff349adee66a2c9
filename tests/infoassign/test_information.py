"""Entropy and mutual information against scipy and closed forms."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

import infoassign as ia

Make = Callable[[Any], Any]


def test_entropy_is_scipys(make: Make) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=(3, 4))
    np.testing.assert_allclose(np.asarray(ia.entropy(make(p))), scipy.stats.entropy(p, axis=-1), rtol=1e-13)
    np.testing.assert_allclose(np.asarray(ia.entropy(make(p), axis=0)), -np.sum(p * np.log(p), axis=0), rtol=1e-13)


def test_entropy_counts_nothing_for_zeros() -> None:
    assert float(ia.entropy(np.array([1.0, 0.0]))) == 0


@pytest.mark.theorem("C5")
@pytest.mark.parametrize("labels", [2, 5])
def test_mutual_information_of_distinct_hard_labels_is_the_log_of_their_number(make: Make, labels: int) -> None:
    assert float(ia.mutual_information(make(np.eye(labels)))) == pytest.approx(np.log(labels))


@pytest.mark.theorem("C1")
def test_mutual_information_of_identical_rows_is_zero(make: Make) -> None:
    plan = np.tile([[0.2, 0.3, 0.5]], (7, 1))
    assert float(ia.mutual_information(make(plan))) == pytest.approx(0, abs=1e-15)


@pytest.mark.theorem("C1")
def test_mutual_information_is_the_divergence_from_independence() -> None:
    """I = KL(joint || product), with the joint distribution w_ij / B."""
    plan = np.random.default_rng(1).dirichlet(np.ones(4), size=9)
    joint = plan / len(plan)
    product = np.full((9, 1), 1 / 9) * plan.mean(axis=0)
    assert float(ia.mutual_information(plan)) == pytest.approx(scipy.stats.entropy(joint.ravel(), product.ravel()))


@pytest.mark.parametrize("plan", [np.ones(3) / 3, np.zeros((0, 3))])
def test_mutual_information_needs_a_matrix(plan: Any) -> None:
    with pytest.raises(ValueError, match="plan must be a matrix"):
        ia.mutual_information(plan)


def test_kl_divergence_is_scipys(make: Make) -> None:
    random = np.random.default_rng(2)
    p, q = random.dirichlet(np.ones(5), size=(3, 4)), random.dirichlet(np.ones(5), size=4)
    p[0, 0, :2] = [p[0, 0, :2].sum(), 0]
    found = ia.kl_divergence(make(p), make(q))
    np.testing.assert_allclose(np.asarray(found), scipy.stats.entropy(p, q, axis=-1), rtol=1e-12)
    swapped = ia.kl_divergence(make(p.swapaxes(0, 2)), make(q.T[..., None]), axis=0)
    np.testing.assert_allclose(np.asarray(swapped), np.asarray(found).T, rtol=1e-12)


def test_what_the_reference_excludes_diverges(make: Make) -> None:
    p, q = make(np.array([[0.5, 0.5], [1.0, 0.0]])), make(np.array([1.0, 0.0]))
    np.testing.assert_array_equal(np.asarray(ia.kl_divergence(p, q)), [np.inf, 0.0])


def test_kl_divergence_has_finite_slopes_at_zero() -> None:
    p = torch.tensor([1.0, 0.0], requires_grad=True)
    q = torch.tensor([0.5, 0.5], requires_grad=True)
    ia.kl_divergence(p, q).backward()
    torch.testing.assert_close(p.grad, torch.tensor([1 + np.log(2), 0.0], dtype=torch.float32))
    torch.testing.assert_close(q.grad, torch.tensor([-2.0, 0.0]))


@pytest.mark.theorem("C1")
def test_information_is_what_the_row_tells_about_the_label(make: Make) -> None:
    plan = make(np.random.default_rng(3).dirichlet(np.ones(4), size=(2, 9)))
    xp_mean = np.asarray(plan).mean(axis=-2)
    found = ia.entropy(make(xp_mean)) - ia.conditional_entropy(plan)
    np.testing.assert_allclose(np.asarray(found), np.asarray(ia.mutual_information(plan)), rtol=1e-12)


def test_conditional_entropy_needs_a_matrix() -> None:
    with pytest.raises(ValueError, match="plan must be a matrix"):
        ia.conditional_entropy(np.ones(3) / 3)
