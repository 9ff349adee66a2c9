"""JAX arrays: eagerly as any other, and a fixed number of steps under jit."""

from typing import Any

import numpy as np
import pytest
from float64_oracles import family_optimum, mean_total_variation

import infoassign as ia

jax = pytest.importorskip("jax")
jnp = jax.numpy


@pytest.fixture(scope="module")
def scores() -> Any:
    return (np.random.default_rng(0).normal(size=(300, 20)) * 2).astype(np.float32)


@pytest.mark.parametrize(
    "options", [{"strength": 2 / 3, "epsilon": 1 / 3}, {"strength": 0.9, "epsilon": 0.1}, {"epsilon": 0.5}]
)
def test_eagerly(scores: Any, options: dict[str, Any]) -> None:
    """Without float64, as JAX comes, the default tolerance is in reach and the bound still holds."""
    assignment = ia.assign(jnp.asarray(scores), **options)
    assert isinstance(assignment.plan, jax.Array)
    assert assignment.marginal.dtype == jnp.float32
    assert assignment.converged
    optimum, _ = family_optimum(scores.astype(float), options["epsilon"], options.get("strength", np.inf))
    distance = mean_total_variation(np.asarray(assignment.plan), optimum)
    assert distance <= assignment.error_bound
    assert distance <= assignment.verify().error_bound
    np.testing.assert_array_equal(np.asarray(assignment.labels), np.asarray(assignment.plan).argmax(axis=1))
    assert set(np.bincount(np.asarray(assignment.balanced_labels().labels))) == {15}


@pytest.mark.parametrize("acceleration", [None, "auto"])
def test_fixed_steps_under_jit(scores: Any, acceleration: str | None) -> None:
    def labels(x: Any) -> Any:
        mira = ia.mira(x, tol=0, max_sweeps=5, acceleration=acceleration, check_finite=False)
        swav = ia.sinkhorn(
            x, epsilon=0.5, start="columns", tol=0, max_sweeps=3, acceleration=acceleration, check_finite=False
        )
        return mira.plan, swav.plan, swav.labels

    compiled = jax.jit(labels)(jnp.asarray(scores))
    for found, expected in zip(compiled, labels(scores), strict=True):
        np.testing.assert_allclose(np.asarray(found), expected, atol=2e-6)


def test_batches_under_vmap(scores: Any) -> None:
    batch = np.stack([scores, scores[::-1] * 2])
    mapped = jax.vmap(lambda x: ia.mira(x, tol=0, max_sweeps=4, acceleration=None, check_finite=False).plan)
    together = ia.mira(jnp.asarray(batch), tol=0, max_sweeps=4, acceleration=None)
    np.testing.assert_allclose(np.asarray(mapped(jnp.asarray(batch))), np.asarray(together.plan), atol=2e-6)


def test_refused_as_a_companion_of_numpy(scores: Any) -> None:
    with pytest.raises(TypeError, match="prior must be an array of the same library as scores"):
        ia.sinkhorn(scores, prior=jnp.full(20, 0.05))
