r"""Gradients through an assignment, by the implicit function theorem: for torch, loaded when they are asked for.

What a sweep cannot give is how the optimum moves with the problem. The optimal potential solves ``wbar = u``, the
column marginal that there is and the one that the potential asks for, ``u ∝ r exp(v / rho)`` (``u = r`` for rho =
inf). Differentiated, with ``D = diag(wbar)``, ``S = W^T W / B`` and ``beta = rho / (rho + epsilon)``, that is

    (beta / (1 - beta) (D - S) + diag(u) - u u^T) dv / rho = what the rest of the problem changes in wbar - u:

two passes over the scores for a product with the matrix, and K numbers to solve for by conjugate gradients. It is
symmetric, 0 on the constants only (a common shift of v is invisible; the gauge fixes it), and serves every strength
if it is multiplied by ``1 - beta``. For a loss L of the potential v in its gauge, of the marginal and of the
objective, with derivatives a, c and b, let

    (beta (D - S) + (1 - beta) (diag(u) - u u^T)) z = a - u sum(a) - (D - S) c / epsilon,      p = beta z + c / epsilon.

Then, with the objective's derivatives those of the dual at a fixed potential (the envelope theorem),

    dL/ds_ij    = w_ij (p_j - <w_i, p> - b) / B
    dL/depsilon = -sum_ij dL/ds_ij log w_ij
    dL/drho     = sum_j u_j log(u_j / r_j) ((1 - beta) (z_j - <u, z>) + b + sum(a))
    dL/dlog r_j = -epsilon beta u_j (z_j - <u, z>) - rho (b + sum(a)) u_j              (... r_j v_j for rho = inf).

This is A14 of the theory; its z is ``-beta`` times this one, so that none of this is singular at rho = 0 or
inf. (The last line is up to a multiple of r, which the shares' sum to one removes.) The plan is the softmax of
``(s - v) / epsilon``, differentiated as any other; so are units, temperatures and what MIRA's beta means.

Scores are met a tile of rows at a time, as a function of what they are made of (:class:`RowScores`): so memory does
not depend on how the potential was found, and nothing of the size of the scores is kept but what the caller made.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from infoassign.conjugate import conjugate_gradients
from infoassign.factored import Factors
from infoassign.objective import Family, Point
from infoassign.result import NO_PLAN, Assignment
from infoassign.scores import DenseScores
from infoassign_backends.autograd import first_order_only
from infoassign_backends.protocol import Sweep

TILE = 2**20
"""Entries of the scores that are pulled back at a time."""
ITERATIONS = 2000
"""Steps of conjugate gradients at most."""
ROUNDS = 4
"""How often they are started from what is truly left, at most, where rounding has led them astray."""
UNSOLVED = 1e-5
"""What may be left of the linear system before a warning says so, relative to its right-hand side."""
ONCE = (
    'gradient="implicit" has first derivatives only: its gradient cannot be differentiated again; detach the'
    " gradient (create_graph=False), or solve with plain torch operations for a second derivative"
)


class GradientWarning(RuntimeWarning):
    """The derivative of the potential could not be solved for: rounding hides how the optimum moves.

    That is so where (nearly) one-hot rows leave the potential undetermined under an exact marginal or a strength far
    above epsilon. The gradient is finite, but some of it is missing.
    """


@dataclass(frozen=True)
class RowScores:
    """Scores as a function of tensors, of which any rows can be made without the others.

    Examples
    --------
    >>> features, prototypes = torch.ones(6, 2), torch.ones(3, 2)
    >>> RowScores((features,), (prototypes,), lambda rows, centres: rows @ centres.T).whole().shape
    torch.Size([6, 3])
    """

    by_row: tuple[Tensor, ...]
    """Those of shape (..., B, any), whose last axis but one is that of the rows."""
    shared: tuple[Tensor, ...]
    """Those that all rows have in common, of any shape."""
    make: Callable[..., Tensor]
    """From rows of the first and all of the second, in this order, to the scores of these rows, (..., rows, K)."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """All that they are made of."""
        return (*self.by_row, *self.shared)

    def whole(self) -> Tensor:
        """Return all scores, shape (..., B, K), on the graph of what they are made of.

        Examples
        --------
        >>> RowScores((torch.eye(2),), (torch.tensor(3.0),), lambda rows, factor: factor * rows).whole()
        tensor([[3., 0.],
                [0., 3.]])
        """
        return self.make(*self.inputs)


def row_by_row(scores: Tensor) -> RowScores:
    """Return scores that are one tensor (..., B, K)."""
    return RowScores((scores,), (), lambda rows: rows)


def factored(given: Factors) -> RowScores:
    """Return scores that are products of factors; see :class:`infoassign.FactoredScores`."""
    features, prototypes, temperature, bias = given
    single = torch.promote_types(features.dtype, torch.float32)
    shared = [prototypes, on_graph(temperature).to(features.device, single)]

    def make(rows: Tensor, prototypes: Tensor, temperature: Tensor, *bias: Tensor) -> Tensor:
        product = rows.to(single) @ (prototypes.to(single) / temperature).mT
        return product + bias[0].to(single) if bias else product

    return RowScores((features,), tuple(shared if bias is None else [*shared, bias]), make)


class Optimum(NamedTuple):
    """A solved problem, as constants."""

    sweep: Sweep
    family: Family
    point: Point
    objective: Tensor
    """Shape (...,)."""
    scores: RowScores
    """Only their shape and how they are made are used of them; values come from the tensors that autograd saved."""


class Linked(NamedTuple):
    """What an assignment offers with a graph behind it; energies are in units of the raw scores."""

    scores: RowScores
    epsilon: Tensor
    temperature: Tensor
    potential: Tensor
    marginal: Tensor
    objective: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class DifferentiableAssignment(Assignment):
    """An :class:`infoassign.Assignment` whose plan is a differentiable function of the scores and the weights.

    Made by ``gradient="implicit"``. `plan`, `potential`, `marginal`, `objective` and what `assign_new` returns have a
    graph; all else (bounds, labels, `balanced_plan`, ...) is constant, as without it. The gradient is that of the
    optimum to the extent that the solve came near it; where `tol` was not reached it is that of the problem which the
    plan at hand solves, one whose marginal misses its target by as much.

    Examples
    --------
    How the labels' information changes with how hard they are, for three rows that all favour the first label:

    >>> import infoassign as ia
    >>> scores = torch.tensor([[2.0, 0.0], [1.5, 0.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    >>> epsilon = torch.tensor(0.5, requires_grad=True)
    >>> assignment = ia.sinkhorn(scores, epsilon=epsilon, gradient="implicit")
    >>> ia.mutual_information(assignment.plan).backward()
    >>> print(f"{epsilon.grad:.2f}")
    -0.26
    >>> scores.grad.sum(dim=1).abs().max() < 1e-12  # a shift of a row changes nothing
    tensor(True)
    """

    _linked: Linked = field(repr=False)

    def _labelled(self, scores: Tensor) -> Tensor:
        linked, dtype = self._linked, self._sweep.compute_dtype
        return exponents(scores, linked.potential, linked.epsilon, dtype).softmax(dim=-1).to(scores.dtype)

    @cached_property
    def plan(self) -> Tensor:
        """Soft labels, as :attr:`infoassign.Assignment.plan`, with a graph."""
        if not isinstance(self._scores, DenseScores):
            raise AttributeError(NO_PLAN)
        return self._labelled(self._linked.scores.whole())

    def iter_plan(self) -> Iterator[Tensor]:
        """Yield the plan in pieces, as :meth:`infoassign.Assignment.iter_plan`, with a graph."""
        if isinstance(self._scores, DenseScores):
            yield self.plan
            return
        scores = self._linked.scores
        for rows in tiles(self.rows, self._linked.potential.numel()):
            yield self._labelled(scores.make(*(x[..., rows, :] for x in scores.by_row), *scores.shared))

    @property
    def potential(self) -> Tensor:
        """``v``, as :attr:`infoassign.Assignment.potential`, with a graph; constant for a label that no row may use."""
        linked = self._linked
        return torch.where(self._solution.point.usable, linked.potential / linked.temperature, float("inf"))

    @property
    def marginal(self) -> Tensor:
        """Share of every label, as :attr:`infoassign.Assignment.marginal`, with a graph, but without passing over it.

        ``plan.mean(-2)`` says the same. For an exact marginal it is the prior, and moves with nothing else.
        """
        return self._linked.marginal

    @property
    def objective(self) -> Tensor:
        """The primal objective, as :attr:`infoassign.Assignment.objective`: a tensor of shape (...,) with a graph.

        Its gradient needs no linear system; it is exact at the optimum, and near it off by as much as the potential.
        """
        return self._linked.objective / self._linked.temperature


def attach(
    assignment: Assignment,
    scores: RowScores,
    *,
    epsilon: Tensor | float,
    strength: Tensor | float,
    temperature: Tensor | float,
    log_prior: Tensor,
) -> DifferentiableAssignment:
    """Give an assignment the graph of what it was solved for.

    This is what ``gradient="implicit"`` of the solvers does; the theory is A14.

    Parameters
    ----------
    assignment
        What was solved, of the values of the others.
    scores
        The raw scores.
    epsilon, strength
        The weights in units of the raw scores: numbers, or 0-d tensors.
    temperature
        What energies are shown in units of.
    log_prior
        ``log r`` with ``sum r = 1``, shape (K,) or (..., K).

    Returns
    -------
    DifferentiableAssignment
        Of the same values, with a graph.

    Examples
    --------
    >>> import infoassign as ia
    >>> scores = torch.tensor([[2.0, 0.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    >>> solved = ia.sinkhorn(scores.detach(), epsilon=0.5)
    >>> rows, prior = RowScores((scores,), (), lambda rows: rows), torch.full((2,), 0.5, dtype=torch.float64)
    >>> linked = attach(solved, rows, epsilon=0.5, strength=float("inf"), temperature=1.0, log_prior=prior.log())
    >>> linked.objective.backward()
    >>> torch.allclose(scores.grad, -solved.plan / 2)  # of the objective it is minus the plan, over B
    True
    """
    point, family = assignment._solution.point, assignment._family
    optimum = Optimum(assignment._sweep, family, point, assignment._objective, scores)
    weights = [on_graph(weight) for weight in (epsilon, strength, temperature)]
    shares = log_prior.expand(point.potential.shape)
    potential, marginal, objective = _Solution.apply(optimum, *weights[:2], shares, *scores.inputs)
    kept = {each.name: getattr(assignment, each.name) for each in fields(Assignment)}
    linked = Linked(scores, weights[0], weights[2], potential, marginal, objective)
    return DifferentiableAssignment(**kept, _linked=linked)


def on_graph(weight: Tensor | float) -> Tensor:
    """Return a number or a 0-d tensor as one in double precision on the host, where every device can use it."""
    if isinstance(weight, Tensor):
        return weight.to("cpu", torch.float64)
    return torch.tensor(weight, dtype=torch.float64)


def exponents(scores: Tensor, potential: Tensor, epsilon: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``(s - v) / epsilon`` up to a constant for every row, shape (..., rows, K), all finite.

    As the sweep computes it: rows shifted so that their largest is 0, and divided then. Forbidden pairs are so far
    down that their exponential is 0; finite, so that no derivative is 0 times infinity.
    """
    scores = scores.to(dtype)
    value = epsilon.detach()
    lowest = -torch.finfo(dtype).max * min(float(value), 1.0) / 4
    shifted = scores - scores.detach().amax(dim=-1, keepdim=True)
    scaled = torch.where(shifted < lowest, lowest, shifted) / value
    # What depends on epsilon is a factor of 1, since a division by it would, backwards, divide twice and overflow.
    return scaled * (value / epsilon) - (potential / epsilon).to(dtype)[..., None, :]


class _Solution(torch.autograd.Function):
    """From the problem to its potential in its gauge, its marginal and its objective; see the module."""

    @staticmethod
    def forward(
        ctx: Any, optimum: Optimum, epsilon: Tensor, strength: Tensor, log_prior: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.optimum = optimum
        ctx.save_for_backward(epsilon, strength, log_prior, *inputs)
        ctx.set_materialize_grads(False)
        # Copies, or the solution itself would get a history.
        return optimum.point.potential.clone(), optimum.point.marginal.clone(), optimum.objective.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        with torch.no_grad():
            gradients = pull_back(ctx.optimum, saved, ctx.needs_input_grad[1:], slopes)
        return None, *first_order_only(ONCE, gradients, saved)


def pull_back(
    optimum: Optimum, saved: tuple[Tensor, ...], needed: tuple[bool, ...], slopes: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """Return the derivatives in epsilon, strength, log r and what the scores are made of, from those in the solution.

    `slopes` are the derivatives a in the potential, c in the marginal and b in the objective, None where there is none.
    """
    (_, family, point, _, _), (_, _, log_prior, *inputs) = optimum, saved
    a, c, b = slopes
    zero = torch.zeros_like(point.potential)
    u = torch.where(point.usable, point.target, 0.0)
    a = zero if a is None else torch.where(point.usable, a, 0.0)
    b = zero[..., 0] if b is None else b
    common = a.sum(dim=-1, keepdim=True)
    right = a - u * common
    p = z = zero
    if slopes[0] is not None or c is not None:  # the objective alone asks for no linear system
        # D is taken as S 1, not as the marginal, which is the same up to rounding: where rows are nearly one-hot, D - S
        # is no larger than that, and only so is it a Laplacian, positive and 0 on the constants.
        mass = smoothed(optimum, torch.ones_like(zero))
        if c is not None:
            p = c / family.epsilon
            right = right - (mass * p - smoothed(optimum, p))
        z = solve_curvature(optimum, mass, u, right)
    p = p + family.beta * z
    along_epsilon, along_inputs = pull_back_rows(optimum, p, b, inputs, needed[3:], epsilon=needed[0])

    level = b[..., None] + common
    log_tilt = torch.where(point.usable, point.log_target - log_prior, 0.0)
    centred = u * (z - (u * z).sum(dim=-1, keepdim=True))
    along_strength = (log_tilt * ((1 - family.beta) * centred + level * u)).sum()
    if family.exact:
        priced = log_prior.exp() * point.potential
    else:
        # rho (u - r) in the place of rho u, since a multiple of r is free, and rho may be large.
        priced = family.strength * log_prior.exp() * torch.where(point.usable, torch.expm1(log_tilt), -1.0)
    along_prior = -family.epsilon * family.beta * centred - level * priced
    weights = zip((along_epsilon, along_strength, along_prior), saved[:3], needed[:3], strict=True)
    return [*(slope.to(of.device, of.dtype) if need else None for slope, of, need in weights), *along_inputs]


def smoothed(optimum: Optimum, x: Tensor) -> Tensor:
    """Return ``S x``, shape (..., K), by two passes over the scores."""
    sweep, v = optimum.sweep, optimum.point.potential
    result: Tensor = sweep.apply_transpose(v, sweep.apply(v, x)) / sweep.rows
    return result


def solve_curvature(optimum: Optimum, mass: Tensor, u: Tensor, right: Tensor) -> Tensor:
    """Solve ``(beta (D - S) + (1 - beta) (diag(u) - u u^T)) z = right``, D = diag(mass), for a right that sums to 0."""
    beta, tiny = optimum.family.beta, torch.finfo(right.dtype).tiny
    metric = beta * mass + (1 - beta) * u
    kept = metric > 1e8 * tiny
    metric = torch.where(kept, metric, 1.0)

    def average(x: Tensor) -> Tensor:  # diag(metric) less the matrix
        x = torch.where(kept, x, 0.0)
        return beta * smoothed(optimum, x) + (1 - beta) * u * (u * x).sum(dim=-1, keepdim=True)

    def product(x: Tensor) -> Tensor:
        return torch.where(kept, metric * x - average(x), 0.0)

    def without_constant(x: Tensor) -> Tensor:
        total = torch.where(kept, metric, 0.0).sum(dim=-1, keepdim=True)
        return torch.where(kept, x - metric * (torch.where(kept, x, 0.0).sum(dim=-1, keepdim=True) / total), 0.0)

    # A label with next to no mass may have a slope as large as any, which would drown the others in the residual's
    # norm. One step of the fixed point takes it out: what is left is an average, in each label as small as its mass.
    first = torch.where(kept, right, 0.0) / metric
    z, rest = first, without_constant(average(first))
    left = torch.ones_like(right[..., 0])
    for _ in range(ROUNDS):
        scale = (rest.square() / metric).sum(dim=-1, keepdim=True).sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        step = scale * conjugate_gradients(product, rest / scale, metric, kept, iterations=ITERATIONS).z
        # Measured, not believed: the recursion's residual drifts from the true one.
        missed = right - product(z + step)
        following = missed.abs().sum(dim=-1) / right.abs().sum(dim=-1).clamp(min=tiny)
        better = following < left
        z = torch.where(better[..., None], z + step, z)
        left = torch.where(better, following, left)
        if float(left.max()) <= UNSOLVED:
            break
        rest = without_constant(right - product(z))
    worst = float(left.max())
    if worst > UNSOLVED:
        warnings.warn(
            f"the derivative of the potential is off by {worst:.0e} of what it was solved for: (nearly) one-hot rows"
            " hardly say what the potential is; raise epsilon, or lower strength (beta)",
            GradientWarning,
            stacklevel=2,
        )
    return torch.where(kept, z, 0.0)


def pull_back_rows(
    optimum: Optimum, p: Tensor, b: Tensor, inputs: list[Tensor], needed: tuple[bool, ...], *, epsilon: bool
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the derivatives in epsilon and in what the scores are made of, from ``dL/ds`` tile by tile."""
    sweep, family, point, _, scores = optimum
    along_epsilon = torch.zeros((), dtype=p.dtype, device=p.device)
    gradients = [torch.zeros_like(x) if need else None for x, need in zip(inputs, needed, strict=True)]
    if not epsilon and not any(needed):
        return along_epsilon, gradients
    weight = torch.tensor(family.epsilon, dtype=torch.float64)
    for rows in tiles(inputs[0].shape[-2], p.numel()):
        parts = [x[..., rows, :] if of < len(scores.by_row) else x for of, x in enumerate(inputs)]
        parts = [part.detach().requires_grad_(need) for part, need in zip(parts, needed, strict=True)]
        with torch.enable_grad():
            tile = scores.make(*parts)
        log_w = torch.log_softmax(exponents(tile, point.potential, weight, sweep.compute_dtype), dim=-1)
        w = log_w.exp()
        along = p[..., None, :]
        slope = w * (along - (w * along).sum(dim=-1, keepdim=True) - b[..., None, None]) / sweep.rows
        along_epsilon -= (slope * log_w).sum()
        wanted = [part for part, need in zip(parts, needed, strict=True) if need]
        found = iter(torch.autograd.grad(tile, wanted, slope.to(tile.dtype), allow_unused=True) if wanted else ())
        for of, gradient in enumerate(gradients):
            part = next(found) if gradient is not None else None
            if gradient is not None and part is not None:
                if of < len(scores.by_row):
                    gradient[..., rows, :] = part
                else:
                    gradient += part
    return along_epsilon, gradients


def tiles(rows: int, entries: int) -> Iterator[slice]:
    """Yield some rows at a time, of so many entries each."""
    step = max(1, TILE // entries)
    return (slice(start, start + step) for start in range(0, rows, step))
