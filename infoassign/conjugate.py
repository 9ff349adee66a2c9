"""Conjugate gradients for the curvature of the dual: K numbers, two passes over the scores an iteration."""

from collections.abc import Callable
from typing import NamedTuple

import array_api_compat as api

from infoassign_backends.protocol import Array

ENOUGH = 1e-20
"""The part of the residual's squared norm at which to stop."""


class Solved(NamedTuple):
    """What conjugate gradients found."""

    z: Array
    """Shape (..., K)."""
    least: Array
    """The least Rayleigh quotient of the directions, at most 1, shape (..., 1)."""


def conjugate_gradients(
    product: Callable[[Array], Array], right: Array, metric: Array, usable: Array, *, iterations: int
) -> Solved:
    """Solve ``product(z) = right``, problem by problem, preconditioned by a diagonal.

    Parameters
    ----------
    product
        A positive semi-definite map of (..., K) to itself, at most the metric, 0 on the constants.
    right
        Orthogonal to the constants, shape (..., K); what is left of it at ``eps**2`` in the inverse metric's squared
        norm is taken to be rounding.
    metric
        The diagonal, shape (..., K), positive where `usable`.
    usable
        Which entries there are, shape (..., K).
    iterations
        At most so many.

    Returns
    -------
    Solved
        Always finite for finite input: where no curvature is left above rounding, it stops.

    Examples
    --------
    >>> import numpy as np
    >>> laplacian = np.array([[0.5, -0.5], [-0.5, 0.5]])
    >>> ones = np.ones(2)
    >>> conjugate_gradients(lambda x: laplacian @ x, np.array([1.0, -1.0]), ones, ones > 0, iterations=2).z
    array([ 1., -1.])
    """
    xp = api.array_namespace(right)
    unit = float(xp.finfo(right.dtype).eps)

    def dot(a: Array, b: Array) -> Array:
        return xp.sum(xp.where(usable, a * b, 0.0), axis=-1)[..., None]

    residual = right
    z = xp.zeros_like(residual)
    direction = residual / metric
    size = first = dot(residual, direction)
    least = xp.ones_like(size)
    going = size > unit**2
    for _ in range(iterations):
        if not bool(xp.any(going)):
            break
        along = product(direction)
        bend, norm = dot(direction, along), dot(direction, metric * direction)
        least = xp.where(going, xp.minimum(least, xp.maximum(bend, unit * norm) / xp.where(going, norm, 1.0)), least)
        # Rows that use one label each leave no curvature, and nothing to move.
        going = going & (bend > 4 * unit * norm)
        length = xp.where(going, size / xp.where(going, bend, 1.0), 0.0)
        z = z + length * direction
        residual = residual - length * along
        following = dot(residual, residual / metric)
        ratio = xp.where(going, following / xp.where(going, size, 1.0), 0.0)
        direction = residual / metric + ratio * direction
        size = following
        going = going & (size > xp.maximum(ENOUGH * first, xp.full_like(first, unit**2)))
    return Solved(z, least)
