"""Soft codes, their joint distribution and the terms of the losses, in every library."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

import infoassign as ia

Make = Callable[[Any], Any]
SIZES = [2, 3, 3, 1]


def codes(rows: int = 12, seed: int = 0) -> Any:
    """Two views' soft codes in NumPy."""
    random = np.random.default_rng(seed)
    return [ia.soft_discretize(random.normal(size=(rows, sum(SIZES))) * 2, SIZES) for _ in range(2)]


def test_soft_discretize_is_scipys_softmax_of_each_segment(make: Make) -> None:
    z = np.random.default_rng(0).normal(size=(5, 9)) * 3
    expected = np.concatenate([softmax(part / 0.7, axis=1) for part in np.split(z, [2, 5, 8], axis=1)], axis=1)
    found = ia.soft_discretize(make(z), SIZES, temperature=0.7)
    assert type(found) is type(make(z))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-13)


def test_one_size_is_a_list_of_it(make: Make) -> None:
    z = make(np.random.default_rng(0).normal(size=(5, 9)))
    np.testing.assert_array_equal(
        np.asarray(ia.soft_discretize(z, 3)), np.asarray(ia.soft_discretize(z, np.array([3, 3, 3])))
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_become_single_precision(dtype: torch.dtype) -> None:
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    q = ia.soft_discretize(z, 3)
    assert q.dtype == ia.joint_distribution(z, z).dtype == torch.float32
    torch.testing.assert_close(q, ia.soft_discretize(z.float(), 3))


def test_enormous_logits_are_one_hot_codes(make: Make) -> None:
    q = ia.soft_discretize(make(np.array([[1e150, -1e150, 0.0]])), 3)
    np.testing.assert_array_equal(np.asarray(q), [[1.0, 0.0, 0.0]])


def test_joint_distribution_is_the_mean_of_outer_products(make: Make) -> None:
    q1, q2 = codes()
    expected = np.mean([np.outer(a, b) for a, b in zip(q1, q2[:, :5], strict=True)], axis=0)
    np.testing.assert_allclose(np.asarray(ia.joint_distribution(make(q1), make(q2[:, :5]))), expected, rtol=1e-13)


def test_joint_distribution_is_in_single_precision_under_autocast() -> None:
    q = torch.rand(300, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        joint = ia.joint_distribution(q, q)
    assert joint.dtype == torch.float32
    torch.testing.assert_close(joint, q.T @ q / 300)
    joint.sum().backward()
    torch.testing.assert_close(q.grad, 2 * q.detach().sum(dim=1, keepdim=True).expand(-1, 8) / 300)


@pytest.mark.parametrize("normalization", ["block", "grid"])
def test_entropy_terms_are_sums_over_blocks(make: Make, normalization: Any) -> None:
    q1, q2 = codes()
    joint, count = ia.joint_distribution(q1, q2), len(SIZES)
    edges = np.cumsum([0, *SIZES])
    units = [slice(*edge) for edge in pairwise(edges)]
    on = -sum(ia.entropy(np.diag(joint[m, m])) for m in units)
    off = -sum(ia.entropy(joint[a, b].ravel()) for a in units for b in units if a != b)
    weights = (count, count * (count - 1)) if normalization == "block" else (count**2, count**2)
    found = ia.entropy_terms(make(q1), make(q2), SIZES, normalization=normalization)
    np.testing.assert_allclose([float(term) for term in found], [on / weights[0], off / weights[1]], rtol=1e-13)
    assert found.diagonal.shape == found.off_diagonal.shape == ()


def test_one_segment_has_no_pairs(make: Make) -> None:
    q = make(ia.soft_discretize(np.random.default_rng(0).normal(size=(4, 3)), 3))
    terms = ia.entropy_terms(q, q, 3)
    assert float(terms.off_diagonal) == 0
    assert type(terms.off_diagonal) is type(terms.diagonal)


def test_transform_invariance_of_either_kind(make: Make) -> None:
    q1, q2 = codes()
    edges = np.cumsum([0, *SIZES])
    parts = [(q1[:, a:b], q2[:, a:b]) for a, b in pairwise(edges)]
    inner = -np.mean([np.log((a * b).sum(axis=1)) for a, b in parts])
    cross = -np.mean([(a * np.log(b)).sum(axis=1) for a, b in parts])
    found = [
        float(ia.transform_invariance(make(q1), make(q2), SIZES, kind=kind))
        for kind in ("inner-product", "cross-entropy")
    ]
    np.testing.assert_allclose(found, [inner, cross], rtol=1e-13)


def test_transform_invariance_of_hard_codes() -> None:
    """Nothing where they agree, infinite where they exclude each other, never a NaN."""
    q = np.eye(3)
    for kind in ("inner-product", "cross-entropy"):
        assert ia.transform_invariance(q, q, 3, kind=kind) == 0  # type: ignore[arg-type]
        assert ia.transform_invariance(q, q[::-1].copy(), 3, kind=kind) == np.inf  # type: ignore[arg-type]
    assert ia.transform_invariance(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]), 2) == pytest.approx(np.log(2))


def test_cross_entropy_is_linear_in_the_first_view() -> None:
    """Also where it is zero."""
    q1 = torch.tensor([[0.0, 1.0]], requires_grad=True)
    ia.transform_invariance(q1, torch.tensor([[0.25, 0.75]]), 2, kind="cross-entropy").backward()
    torch.testing.assert_close(q1.grad, -torch.tensor([[0.25, 0.75]]).log())


def test_musics_printed_equation_4_prefers_uniform_codes() -> None:
    """With the logarithm inside the sum (erratum) the uniform code is best and a one-hot code infinitely bad."""

    def printed(q: Any) -> float:
        with np.errstate(divide="ignore"):
            return float(-np.log(q * q).sum(axis=1).mean())

    uniform, sure = np.full((2, 4), 0.25), ia.soft_discretize(np.eye(4)[:2] * 5, 4)
    assert printed(uniform) < printed(sure) < printed(np.eye(4)[:2]) == np.inf
    ours = [ia.transform_invariance(q, q, 4) for q in (uniform, sure, np.eye(4)[:2])]
    assert ours == sorted(ours, reverse=True)


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda q: ia.entropy_terms(np.log(q), q, SIZES), ValueError, "q1 must hold a distribution in every segment"),
    (lambda q: ia.entropy_terms(q, 2 * q, SIZES), ValueError, "q2 must hold a distribution in every segment"),
    (lambda q: ia.transform_invariance(q, q[:, ::-1].copy(), SIZES), ValueError, "soft_discretize makes such codes"),
    (lambda q: ia.transform_invariance(q, q, SIZES, kind="TIC"), ValueError, "kind must be 'inner-product' or"),
    (lambda q: ia.joint_distribution(q, q[:3]), ValueError, r"q2 must have shape \(12, 9\), to go with q1"),
    (lambda q: ia.joint_distribution(q, q[0]), ValueError, r"q2 must have shape \(rows, units\)"),
    (lambda q: ia.soft_discretize(q, 4), ValueError, "units must divide the width of the embeddings, 9; got 4"),
    (lambda q: ia.soft_discretize(q, 3, temperature=-1), ValueError, "temperature must be positive"),
    (lambda q: ia.soft_discretize(q, True), TypeError, "units must be an integer"),
    (lambda q: ia.soft_discretize(q * np.nan, 3), ValueError, "z must be finite"),
    (lambda q: ia.soft_discretize(q.astype("f4"), 3, temperature=1e-50), ValueError, "temperature must be at least"),
    (lambda q: ia.soft_discretize(np.ma.masked_array(q), 3), TypeError, "z must not be a masked array; leave"),
    (lambda q: ia.soft_discretize(q, np.array([3.0, 6.0])), TypeError, "units must be an integer"),
    (lambda q: ia.music_loss(q, q, segment_size=4), ValueError, "segment_size must divide the width"),
    (lambda q: ia.information_objective(q, q, 3, similarity="x"), ValueError, "similarity must be 'inner-product'"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(codes()[0])
