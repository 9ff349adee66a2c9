"""One pass over the scores, in every library, against a literal transcription."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from infoassign_backends import backend_for

Make = Callable[[Any], Any]
EPSILON = 0.3


@pytest.fixture
def scores() -> Any:
    scores = np.random.default_rng(0).normal(size=(17, 6)) * 4
    scores[3, 2] = -np.inf
    return scores


def literal_log_plan(scores: Any, potential: Any) -> Any:
    scaled = (scores - potential) / EPSILON
    return scaled - logsumexp(scaled, axis=1, keepdims=True)


@pytest.mark.parametrize("spread", [0.0, 1.0, 300.0])
def test_masses_plan_and_labels(make: Make, scores: Any, spread: float) -> None:
    potential = np.random.default_rng(1).normal(size=6) * spread
    sweep = backend_for(make(scores)).prepare(make(scores), EPSILON)
    log_plan = literal_log_plan(scores, potential)
    masses = sweep(make(potential))
    np.testing.assert_allclose(np.asarray(masses.log_columns), logsumexp(log_plan, axis=0), rtol=1e-11, atol=1e-11)
    normalizers = logsumexp((scores - potential) / EPSILON, axis=1).sum()
    assert float(masses.log_normalizers) == pytest.approx(normalizers, rel=1e-12)
    assert masses.rows == 17
    np.testing.assert_allclose(np.asarray(sweep.plan(make(potential))), np.exp(log_plan), atol=1e-12)
    np.testing.assert_array_equal(np.asarray(sweep.labels(make(potential))), log_plan.argmax(axis=1))


def test_masses_far_below_what_a_float_can_hold_keep_their_logarithm(make: Make) -> None:
    scores = np.array([[0.0, -3000.0], [0.0, -4000.0]])
    masses = backend_for(make(scores)).prepare(make(scores), 1.0)(make(np.zeros(2)))
    np.testing.assert_allclose(np.asarray(masses.log_columns), [np.log(2), -3000.0])


def test_vectors_are_float64_and_plans_in_the_dtype_of_the_computation(make: Make, scores: Any) -> None:
    single = make(scores.astype(np.float32))
    sweep = backend_for(single).prepare(single, EPSILON)
    masses = sweep(make(np.zeros(6)))
    assert masses.log_columns.dtype == make(np.zeros(1)).dtype
    assert masses.log_normalizers.dtype == make(np.zeros(1)).dtype
    assert sweep.plan(make(np.zeros(6))).dtype == single.dtype


def test_a_large_common_offset_costs_no_accuracy(make: Make, scores: Any) -> None:
    shifted = scores + 2.0**40
    potential = np.zeros(6)
    expected = literal_log_plan(shifted - 2.0**40, potential)
    sweep = backend_for(make(shifted)).prepare(make(shifted), EPSILON)
    np.testing.assert_allclose(np.asarray(sweep.plan(make(potential))), np.exp(expected), atol=1e-12)


def test_a_large_common_potential_costs_no_accuracy(make: Make, scores: Any) -> None:
    """It cancels within each row; a difference of two numbers in the ten thousands would not."""
    single = make(scores.astype(np.float32))
    sweep = backend_for(single).prepare(single, EPSILON)
    expected = np.asarray(sweep.plan(make(np.zeros(6))))
    shifted = np.asarray(sweep.plan(make(np.full(6, 2.0**10 * EPSILON))))
    np.testing.assert_allclose(shifted, expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(shifted.sum(axis=1), 1, atol=2e-6)


def test_many_rows_are_summed_in_float64(make: Make) -> None:
    scores = np.random.default_rng(0).normal(size=(300_000, 2)).astype(np.float32)
    masses = backend_for(make(scores)).prepare(make(scores), 1.0)(make(np.zeros(2)))
    expected = logsumexp(scores - logsumexp(scores.astype(float), axis=1, keepdims=True), axis=0)
    np.testing.assert_allclose(np.asarray(masses.log_columns), expected, atol=2e-7)
