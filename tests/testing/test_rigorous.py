"""Enclosures contain the exact value, are tight, and tell a bound that is too small from one that holds."""

from decimal import Decimal, localcontext
from fractions import Fraction
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import infoassign as ia
from infoassign.testing import certify, certify_error_bound, strategies

ONE = Decimal(1)


def in_decimals(scores: Any, potential: Any, epsilon: float, strength: float, prior: Any) -> tuple[Decimal, Decimal]:
    """Primal of ``W(v)`` minus dual of v, from the definitions, and mean KL to the rounded plan; in 80 digits."""
    with localcontext() as context:
        context.prec = 80
        eps, v = Decimal(epsilon), [Decimal(x) for x in potential]
        r = [Decimal(x) for x in prior]
        r = [x / sum(r) for x in r]
        rows = len(scores)
        primal, lse_sum, plan = Decimal(0), Decimal(0), []
        for row in scores:
            powers = [((Decimal(s) - v[j]) / eps).exp() if s > -inf else Decimal(0) for j, s in enumerate(row)]
            w = [power / sum(powers) for power in powers]
            plan.append(w)
            lse_sum += sum(powers).ln()
            for p, s in zip(w, row, strict=True):
                if p > 0:
                    primal += (eps * p * p.ln() - p * Decimal(s)) / rows
        wbar = [sum(column) / rows for column in zip(*plan, strict=True)]
        if strength == inf:
            keep = [min(ONE, q / w) for q, w in zip(r, wbar, strict=True)]
            missing = [max(Decimal(0), q - w) for q, w in zip(r, wbar, strict=True)]
            divergence = Decimal(0)
            for w in plan:
                given_up = sum(p * (1 - k) for p, k in zip(w, keep, strict=True))
                for p, k, m in zip(w, keep, missing, strict=True):
                    moved = p * k + given_up * m / (sum(missing) or ONE)
                    divergence += moved * (moved / p).ln() / rows
            return eps * divergence, Decimal(0)
        rho = Decimal(strength)
        primal += rho * sum(w * (w / q).ln() for w, q in zip(wbar, r, strict=True))
        dual = -rho * sum(q * (x / rho).exp() for q, x in zip(r, v, strict=True)).ln() - eps * lse_sum / rows
        raw = [q * (x / rho).exp() for q, x in zip(r, v, strict=True)]
        d = [(w / (x / sum(raw))).ln() for w, x in zip(wbar, raw, strict=True)]
        return primal - dual, rho * (max(d) - min(d)) / (4 * eps)


@pytest.mark.theorem("A4", "A5")
@pytest.mark.parametrize("strength", [0.3, 2 / 3, 20.0, inf])
@pytest.mark.parametrize("seed", range(4))
def test_they_contain_the_value_and_are_tight(strength: float, seed: int) -> None:
    """The reference is primal minus dual from the definitions: A4 itself is checked to 80 digits with it."""
    random, epsilon = np.random.default_rng(seed), 0.3
    scores, prior = random.normal(size=(6, 4)) * 3, random.dirichlet(np.ones(4))
    if strength < inf and seed == 3:
        scores[0, 1] = scores[2, 3] = -inf
    near = ia.assign(scores, epsilon=epsilon, strength=strength, prior=prior, tol=1e-10, max_sweeps=10_000).potential
    for v in (near, near + 0.1 * random.normal(size=4), np.zeros(4)):
        gap = certify(scores, v, epsilon=epsilon, strength=strength, prior=prior)
        exact, oscillation = in_decimals(scores.tolist(), v.tolist(), epsilon, strength, prior.tolist())
        assert Decimal(gap.lower) <= exact <= Decimal(gap.upper)
        assert gap.upper - gap.lower <= 3e-16 * gap.upper
        bound = certify_error_bound(scores, v, epsilon=epsilon, strength=strength, prior=prior)
        with localcontext() as context:
            context.prec = 50
            root = (exact / ((2 if strength == inf else 4) * Decimal(epsilon))).sqrt()
            if strength < inf:
                grown = (2 * oscillation).exp()
                root = min(root, (grown - 1) / (grown + 1))
        assert Decimal(bound.lower) <= root <= Decimal(bound.upper)
        assert bound.upper - bound.lower <= 3e-16 * bound.upper


@pytest.mark.theorem("A4", "A5")
@given(strategies.scores(6, 4), st.sampled_from([0.3, 2 / 3, 0.9]))
def test_what_mira_claims_is_proved(scores: Any, beta: float) -> None:
    found = ia.mira(scores, beta=beta, tol=1e-6)
    options = {"epsilon": 1 - beta, "strength": beta}
    gap = certify(scores, found.potential, **options)
    bound = certify_error_bound(scores, found.potential, **options)
    assert bound.upper <= found.error_bound
    # The gap is claimed without its rounding, which counts to second order near 0.
    assert gap.lower <= found.gap * (1 + 1e-6) + 1e-20 * (1 + np.abs(scores[scores > -inf]).max()) ** 2


def test_a_bound_that_is_too_small_is_caught() -> None:
    scores = np.random.default_rng(0).normal(size=(8, 3))
    found = ia.mira(scores, tol=0, max_sweeps=2)
    options: dict[str, Any] = {"epsilon": 1 / 3, "strength": 2 / 3}
    assert certify(scores, found.potential, **options).lower > 0.999 * found.gap
    assert certify(scores, found.potential, **options).upper < 1.001 * found.gap
    assert certify_error_bound(scores, found.potential, **options).lower > 0.99 * found.error_bound


def test_a_gap_of_nothing_is_nothing() -> None:
    for strength in (0.5, inf):
        gap = certify(np.zeros((2, 2)), np.zeros(2), epsilon=0.5, strength=strength)
        assert gap.lower == 0
        assert gap.upper <= 1e-300
    assert certify_error_bound(np.zeros((2, 1)), np.zeros(1), epsilon=0.5, strength=0.5).upper < 1e-150


def test_strength_zero_and_unusable_labels() -> None:
    scores = np.array([[1.0, 0.0, -inf], [0.0, 0.5, -inf]])
    assert certify(scores, [0.25, 0.25, inf], epsilon=1.0, strength=0.0).upper <= 1e-300
    three = certify(scores, [0.1, 0.2, inf], epsilon=1.0, strength=1.0)
    two = certify(scores[:, :2], [0.1, 0.2], epsilon=1.0, strength=1.0)
    assert three == two


def test_sharp_and_foreign_scores() -> None:
    scores = np.array([[4e4, 0.0], [0.0, 4e4], [4e4, 1.0]])
    gap = certify(scores, [0.2, 0.0], epsilon=1.0, strength=1.0)
    assert gap == certify(
        torch.from_numpy(scores), torch.tensor([0.2, 0.0], dtype=torch.float64), epsilon=1.0, strength=1.0
    )
    assert 0 < gap.lower <= gap.upper


@pytest.mark.parametrize(
    ("scores", "potential", "options", "message"),
    [
        (np.zeros((101, 100)), np.zeros(100), {}, "10000 entries for a proof; got 10100"),
        (np.zeros(3), np.zeros(3), {}, r"shape \(B, K\)"),
        (np.zeros((2, 3)), np.zeros(2), {}, r"must have shape \(3,\); got \(2,\) and \(3,\)"),
        (np.array([[0.0, np.nan]]), np.zeros(2), {}, "must not hold NaN"),
        (np.array([[0.0, 1.0]]), np.array([0.0, inf]), {}, "potential must be finite"),
        (np.array([[0.0, -inf], [0.0, 0.0]]), np.zeros(2), {"strength": inf}, "forbidden pairs"),
        (np.zeros((2, 2)), np.zeros(2), {"epsilon": 0.0}, "epsilon must be positive"),
        (np.zeros((2, 2)), np.zeros(2), {"prior": np.array([1.0, 0.0])}, "prior finite and positive"),
    ],
)
def test_refusals(scores: Any, potential: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certify(scores, potential, **{"epsilon": 0.5, "strength": 0.5} | options)


def test_the_bound_is_about_a_strength() -> None:
    with pytest.raises(ValueError, match="at strength 0"):
        certify_error_bound(np.zeros((2, 2)), np.zeros(2), epsilon=1.0, strength=0.0)


def test_the_precision_of_others_is_left_alone() -> None:
    from flint import ctx

    before = ctx.prec
    certify(np.zeros((2, 2)), np.zeros(2), epsilon=0.5, strength=0.5)
    assert ctx.prec == before


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.array([[2**53 + 1, 2**53]]), "numbers that double precision has"),
        (np.array([[1 + 1j, 0]]), "scores must be real"),
        (np.ma.array([[5.0, 0.0]], mask=[[1, 0]]), "must not be a masked array"),
    ],
)
def test_other_numbers_than_were_given_are_not_certified(scores: Any, message: str) -> None:
    """They would be rounded, or read without their mask, and the proof be about something else."""
    with pytest.raises(ValueError, match=message):
        certify(scores, np.zeros(2), epsilon=0.5, strength=0.5)
    with pytest.raises(ValueError, match="epsilon must be a number that double precision has"):
        certify(np.zeros((1, 2)), np.zeros(2), epsilon=Fraction(1, 3), strength=0.5)  # type: ignore[arg-type]
