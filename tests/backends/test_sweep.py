"""One pass over the scores: both sweeps, in every library, against a literal transcription."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from infoassign_backends import backend_for, kernel, reference, sums

Make = Callable[[Any], Any]
EPSILON = 0.3
SHAPES = [(17, 6), (3, 17, 6), (2, 2, 400, 300)]


@pytest.fixture(params=[kernel, reference], ids=["kernel", "log"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def some_scores(shape: tuple[int, ...] = (17, 6), scale: float = 4.0) -> Any:
    scores = np.random.default_rng(0).normal(size=shape) * scale
    scores[..., 3, 2] = -np.inf
    return scores


def literal_log_plan(scores: Any, potential: Any) -> Any:
    scaled = (scores - potential[..., None, :]) / EPSILON
    return scaled - logsumexp(scaled, axis=-1, keepdims=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spreads", [[0.0], [0.0, 1.0, 2.0], [0.0, 300.0, 300.0, 1.0]])
def test_what_a_pass_returns(backend: ModuleType, make: Make, shape: tuple[int, ...], spreads: list[float]) -> None:
    """At a sequence of potentials, near each other and far, as the solver makes."""
    scores = some_scores(shape)
    sweep = backend.prepare(make(scores), EPSILON)
    random = np.random.default_rng(1)
    largest = scores.max(axis=-1)
    np.testing.assert_allclose(np.asarray(sweep.offset), largest.mean(axis=-1), rtol=1e-12)
    assert np.isposinf(np.asarray(sweep.span)).all()
    for spread in spreads:
        potential, x = random.normal(size=(2, *shape[:-2], shape[-1]))
        potential, y = potential * spread, random.normal(size=shape[:-1])
        log_plan = literal_log_plan(scores, potential)
        masses = sweep(make(potential))
        np.testing.assert_allclose(np.asarray(masses.log_columns), logsumexp(log_plan, axis=-2), rtol=1e-11, atol=1e-11)
        shifted = (scores - largest[..., None] - potential[..., None, :]) / EPSILON
        np.testing.assert_allclose(
            np.asarray(masses.log_normalizers), logsumexp(shifted, axis=-1).sum(axis=-1), rtol=1e-11, atol=1e-10
        )
        assert masses.rows == shape[-2]
        plan = np.exp(log_plan)
        np.testing.assert_allclose(np.asarray(sweep.plan(make(potential))), plan, atol=1e-12)
        np.testing.assert_array_equal(np.asarray(sweep.labels(make(potential))), plan.argmax(axis=-1))
        applied = np.asarray(sweep.apply(make(potential), make(x)))
        np.testing.assert_allclose(applied, (plan @ x[..., None])[..., 0], atol=1e-11)
        back = np.asarray(sweep.apply_transpose(make(potential), make(y)))
        np.testing.assert_allclose(back, (np.swapaxes(plan, -1, -2) @ y[..., None])[..., 0], atol=1e-11)


def test_sums_of_the_columns_as_they_came(backend: ModuleType, make: Make) -> None:
    scores = some_scores() + np.arange(17)[:, None]  # shifts of the rows count here
    sums = backend.prepare(make(scores), EPSILON).log_column_sums()
    np.testing.assert_allclose(np.asarray(sums), logsumexp(scores / EPSILON, axis=0), rtol=1e-12)


def test_the_span_is_that_of_the_scores(backend: ModuleType, make: Make) -> None:
    scores = np.array([[0.0, 3.0, 1.0], [5.0, 5.0, 4.0]])
    assert float(backend.prepare(make(scores), EPSILON).span) == pytest.approx(3 / EPSILON)


def test_masses_far_below_what_a_float_can_hold_keep_their_logarithm(backend: ModuleType, make: Make) -> None:
    scores = np.array([[0.0, -3000.0], [0.0, -4000.0]])
    sweep = backend.prepare(make(scores), 1.0)
    for potential in ([0.0, 0.0], [0.0, 1.0]):
        expected = [np.log(2), -3000.0 - potential[1]]
        np.testing.assert_allclose(np.asarray(sweep(make(np.array(potential))).log_columns), expected)


def test_vectors_are_float64_and_plans_single_for_single_scores(backend: ModuleType, make: Make) -> None:
    single = make(some_scores().astype(np.float32))
    sweep = backend.prepare(single, EPSILON)
    wide = make(np.zeros(1)).dtype
    potential = make(np.zeros(6))
    masses = sweep(potential)
    assert masses.log_columns.dtype == masses.log_normalizers.dtype == sweep.vector_dtype == wide
    assert sweep.plan(potential).dtype == sweep.plan_dtype == single.dtype
    assert sweep.apply(potential, potential).dtype == wide
    assert sweep.apply_transpose(potential, make(np.zeros(17))).dtype == wide


def test_single_scores_are_computed_in_double_precision_on_the_host() -> None:
    single = some_scores((50, 300), scale=10).astype(np.float32)
    potential = np.random.default_rng(1).normal(size=300)
    sweep = kernel.prepare(single, EPSILON)
    sweep(np.zeros(300))
    exact = np.exp(literal_log_plan(single.astype(float), potential))
    np.testing.assert_allclose(sweep.plan(potential), exact, rtol=3e-7, atol=1e-30)


def test_a_large_common_offset_costs_no_accuracy(backend: ModuleType, make: Make) -> None:
    shifted = some_scores() + 2.0**40
    potential = np.zeros(6)
    expected = literal_log_plan(shifted - 2.0**40, potential)
    sweep = backend.prepare(make(shifted), EPSILON)
    np.testing.assert_allclose(np.asarray(sweep.plan(make(potential))), np.exp(expected), atol=1e-12)


def test_a_large_common_potential_costs_no_accuracy(backend: ModuleType, make: Make) -> None:
    """It cancels within each row; a difference of two numbers in the ten thousands would not."""
    single = make(some_scores().astype(np.float32))
    sweep = backend.prepare(single, EPSILON)
    expected = np.asarray(sweep.plan(make(np.zeros(6))))
    shifted = np.asarray(sweep.plan(make(np.full(6, 2.0**10 * EPSILON))))
    np.testing.assert_allclose(shifted, expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(shifted.sum(axis=1), 1, atol=2e-6)


def test_many_rows_are_summed_in_float64(backend: ModuleType, make: Make) -> None:
    scores = np.random.default_rng(0).normal(size=(300_000, 2)).astype(np.float32)
    masses = backend.prepare(make(scores), 1.0)(make(np.zeros(2)))
    expected = logsumexp(scores - logsumexp(scores.astype(float), axis=1, keepdims=True), axis=0)
    np.testing.assert_allclose(np.asarray(masses.log_columns), expected, atol=2e-7)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000, 4097])
def test_tree_sums_add_all_up(length: int) -> None:
    x = np.random.default_rng(0).random((3, length)).astype(np.float32)
    np.testing.assert_allclose(sums.accurate_sum(x, np.float32), x.astype(float).sum(axis=-1), rtol=13 * 6e-8)


def test_tree_sums_are_better_than_one_by_one() -> None:
    x = np.full(2**20, 0.1, np.float32)
    one_by_one = np.add.accumulate(x)[-1]
    assert abs(sums.accurate_sum(x, np.float32) - x[0] * 2.0**20) < 1 < abs(one_by_one - x[0] * 2.0**20)


def test_the_backend_of_an_array(make: Make) -> None:
    expected = {"ndarray": "kernel", "Tensor": "torch_backend"}
    scores = make(some_scores())
    found = backend_for(scores).__name__.rpartition(".")[2]
    assert found == expected.get(type(scores).__name__, "reference")


def test_torch_off_the_host_works_in_the_log_domain() -> None:
    """The kernel's sweep reads values, which a device would have to wait for."""
    sweep = backend_for(torch.zeros(0)).prepare(torch.zeros(2, 3, device="meta"), 1.0)
    assert isinstance(sweep, reference.LogSweep)


def test_an_epsilon_too_small_for_the_dtype_is_refused(backend: ModuleType, make: Make) -> None:
    with pytest.raises(ValueError, match=r"epsilon .* is 1e-310, too small for .*float64"):
        backend.prepare(make(some_scores()), 1e-310)
