"""From one point to the next: plain steps, and quasi-Newton steps that fall back on them.

Both are functions of a memory (None before the first step) and the point just swept; they return the next potential.
"""

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple, TypeAlias

import array_api_compat as api

from infoassign.arrays import choose, clipped, dot, either
from infoassign.objective import Family, Point, dual_noise, gauged
from infoassign_backends.protocol import Array

DEPTH = 20
"""Pairs of steps and changes of slope that are remembered."""
LONGEST = 4.0
"""A quasi-Newton step without memory is at most so many steps by the metric long, and a plain step at least."""
SUFFICIENT = 1e-3
"""The part of a plain step's guaranteed ascent that an accelerated one must make."""

SHRINK, GROW = 0.25, 4.0
"""What an accelerated step that failed, or was good, says about the length of the next."""

Step: TypeAlias = Callable[[Family, Point, Any], tuple[Array, Any]]


class Memory(NamedTuple):
    """What accelerated steps know of the problem: L-BFGS's pairs, and the way back."""

    point: Point
    """The last point that was kept."""
    required: Array
    """The dual value that an accelerated step from there must reach, shape (...,)."""
    accelerated: Array
    """Whether the step from there was one, shape (...,)."""
    radius: Array
    """How far, in units of epsilon, an accelerated step may move a label's potential, shape (...,)."""
    steps: Array
    """Differences of the potential, in units of epsilon, shape (..., m, K), oldest first."""
    slopes: Array
    """The differences of ``u - wbar`` that belong to them, scaled so that each pair's product is 1, or 0 if unused."""
    products: Array
    """Those of the steps with the slopes of the same age and later, shape (..., m, m); the others are 0."""


def plain_step(family: Family, point: Point) -> Array:
    """Return the next potential by the fixed point, with the common scale of ``u`` removed.

    ``v+ = rho / (rho + epsilon) (v + epsilon log(wbar / r))``. For MIRA and ``u = r exp(v / rho)`` this is eq. 7,
    ``u+ = wbar^(1 - beta) u^beta``, a contraction of modulus beta = rho / (rho + epsilon) in ``log u`` (A6); for
    rho = inf it is Sinkhorn's iteration. Without the common scale its local rate is beta lambda_2 (A7). It never
    lowers the dual (A8).
    """
    return plain_step_from(family, point.potential, point.log_marginal)


def plain_step_from(family: Family, potential: Array, log_marginal: Array) -> Array:
    """Make a plain step from a potential with the given ``log wbar``, both of shape (..., K)."""
    xp = api.array_namespace(potential)
    usable = log_marginal != -xp.inf
    log_shift = xp.where(usable, log_marginal - family.log_prior, 0.0)
    return gauged(family, family.beta * (potential + family.epsilon * log_shift), usable)


def plain_ascent(family: Family, point: Point) -> Array:
    """Return what a plain step adds to ``dual / epsilon`` at least, shape (...,).

    By A8 that is the Renyi divergence of order beta of u from wbar, which is at least ``min(1, beta / (1 - beta))``
    times their squared Hellinger distance.
    """
    xp = api.array_namespace(point.potential)
    roots = xp.where(point.usable, xp.sqrt(point.marginal) - xp.sqrt(point.target), 0.0)
    factor = 1.0 if family.exact else min(1.0, family.strength / family.epsilon)
    return factor * dot(roots, roots)


def plain(family: Family, point: Point, memory: None) -> tuple[Array, None]:
    """Make a plain step; it needs no memory."""
    return plain_step(family, point), memory


def quasi_newton(family: Family, point: Point, memory: Memory | None) -> tuple[Array, Memory]:
    """Make a step of L-BFGS on the dual, or a plain step where the last one was not good enough.

    In units of epsilon the dual's gradient is ``wbar - u`` and the diagonal of its Hessian about ``-u``, so that
    ``1 / u`` is the metric to start from; the plain step is then about beta times the gradient step. The step that led
    here is kept if the dual rose by a fixed part of what a plain step guarantees, up to rounding. Otherwise what was
    remembered is forgotten, a plain step is made from where it left, and the next accelerated step is kept short. So
    the guaranteed rises add up, which a bounded dual allows only if they vanish: this converges from everywhere, as
    plain steps do (A12).
    """
    xp = api.array_namespace(point.potential)
    required = point.dual + SUFFICIENT * plain_ascent(family, point) - dual_noise(point)
    if memory is None:
        device = api.device(point.dual)
        pairs = point.potential[..., None, :][..., :0, :]
        none = xp.zeros(point.dual.shape, dtype=xp.bool, device=device)
        anything = xp.full_like(point.dual, inf)
        return plain_step(family, point), Memory(point, required, none, anything, pairs, pairs, pairs[..., :0])
    # So written, neither a NaN nor an overflow is good enough.
    failed = memory.accelerated & ~((point.dual >= memory.required) & (point.dual < inf))
    step = (point.potential - memory.point.potential) / family.epsilon
    length = xp.max(xp.abs(step), axis=-1)
    grown = xp.where(memory.accelerated, xp.maximum(memory.radius, GROW * length), memory.radius)
    radius = xp.where(failed, SHRINK * length, grown)
    slope = slope_of(point) - slope_of(memory.point)
    product = dot(step, slope)
    unit = float(xp.finfo(product.dtype).eps)
    curved = product > 64 * unit * xp.sqrt(dot(step, step) * dot(slope, slope))
    scale = xp.where(curved, 1 / xp.sqrt(xp.where(curved, product, 1.0)), 0.0)[..., None]
    steps = remember(memory.steps, scale * step, ~failed)
    slopes = remember(memory.slopes, scale * slope, ~failed)
    products = with_products(memory.products, steps, slopes[..., -1, :], ~failed)
    point = choose(failed, memory.point, point)
    required = choose(failed, memory.required, required)
    move = direction(point, steps, slopes, products, family.beta)
    longest = xp.max(xp.abs(move), axis=-1)
    accelerated = xp.any(used(products), axis=-1) & xp.isfinite(longest)

    def accelerate() -> Array:
        shortened = longest > radius
        part = xp.where(shortened, radius / xp.where(shortened, longest, 1.0), 1.0)[..., None]
        usable = point.usable & accelerated[..., None]
        return gauged(family, point.potential - family.epsilon * part * xp.where(usable, move, 0.0), point.usable)

    following = either(accelerated, accelerate, lambda: plain_step(family, point))
    return following, Memory(point, required, accelerated, radius, steps, slopes, products)


def remember(pairs: Array, newest: Array, keep: Array) -> Array:
    """Append to what is remembered and drop the oldest if there are many; forget all where `keep` is false."""
    xp = api.array_namespace(pairs)
    older = pairs[..., 1:, :] if pairs.shape[-2] == DEPTH else pairs
    pairs = xp.concat([older, newest[..., None, :]], axis=-2)
    return choose(keep, pairs, xp.zeros_like(pairs))


def with_products(products: Array, steps: Array, newest: Array, keep: Array) -> Array:
    """Append the products of all steps with the newest slope; forget the others where `keep` is false."""
    xp = api.array_namespace(products)
    older = products[..., 1:, 1:] if products.shape[-1] == steps.shape[-2] else products
    older = choose(keep, older, xp.zeros_like(older))
    row = xp.zeros((*older.shape[:-2], 1, older.shape[-1]), dtype=older.dtype, device=api.device(older))
    older = xp.concat([older, row], axis=-2)
    return xp.concat([older, dot(steps, newest[..., None, :])[..., None]], axis=-1)


def used(products: Array) -> Array:
    """Return which pairs there are, shape (..., m): those with the product 1, and not 0."""
    return api.array_namespace(products).linalg.diagonal(products) > 0.5


def slope_of(point: Point) -> Array:
    """Return the gradient of minus the dual in ``v / epsilon``, shape (..., K)."""
    return api.array_namespace(point.potential).where(point.usable, point.target - point.marginal, 0.0)


def compressed(t: Array, linear: Array) -> Array:
    """Return t up to `linear`, and from there on a logarithm of the same slope; t >= 0."""
    xp = api.array_namespace(t)
    return xp.minimum(t, linear) + xp.log1p(xp.maximum(t - linear, xp.zeros_like(t)))


def direction(point: Point, steps: Array, slopes: Array, products: Array, shortest: float) -> Array:
    """Return L-BFGS's approximation of the inverse Hessian times the slope, shape (..., K).

    Its two loops over the pairs are the two triangular systems below, so that a batch is solved at once. Between
    them a slope g becomes a step by the metric: g / u, but for columns that have more than they should, where it is
    negative and may be huge, the plain step's logarithm of ``wbar / u = 1 - g / u``. It is at least `shortest` times
    that: beta for finite rho, where the Hessian is ``diag(u) / beta - W^T W / B`` at the optimum, so that its inverse
    is between beta and ``beta / (1 - beta)`` of the metric.
    """
    # Without products of matrices: the threads that libraries have for them linger, and these are small.
    xp = api.array_namespace(point.potential)
    slope = slope_of(point)
    # Used pairs have the product 1; a row of zeros gets it, too, so that the systems can be solved.
    identity = xp.eye(steps.shape[-2], dtype=products.dtype, device=api.device(products))
    upper = xp.where(used(products)[..., None], products, identity)
    alpha = xp.linalg.solve(upper, dot(steps, slope[..., None, :])[..., None])
    relative = slope - xp.sum(slopes * alpha, axis=-2)
    # Kept away from 0, so that no quotient overflows: such columns weigh nothing.
    least = xp.full_like(slope, float(xp.finfo(slope.dtype).smallest_normal) ** 0.5)
    u = xp.maximum(xp.where(point.usable, point.target, 1.0), least)
    relative = relative / u
    curvature = xp.sum(slopes[..., -1, :] ** 2 / u, axis=-1)
    length = clipped(1 / xp.where(curvature > 0, curvature, 1.0), shortest, LONGEST)
    step = (
        length[..., None] * xp.sign(relative) * compressed(xp.abs(relative), xp.astype(relative >= 0, relative.dtype))
    )
    beta = alpha - dot(slopes, step[..., None, :])[..., None]
    correction = xp.linalg.solve(xp.matrix_transpose(upper), beta)
    return step + xp.sum(steps * correction, axis=-2)
