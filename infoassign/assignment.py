"""From scores to an assignment: validate, choose, solve."""

from dataclasses import replace
from math import inf, log
from typing import Any, Literal, TypeAlias
from zlib import crc32

import array_api_compat as api
import numpy as np

from infoassign.arrays import clipped, constant, on_host
from infoassign.auction import feasible
from infoassign.factored import FactoredScores
from infoassign.objective import Family, gauged
from infoassign.problem import prepare
from infoassign.result import Assignment, Solution
from infoassign.scores import DenseScores, NoRows, Scores, as_scores
from infoassign.sharding import AllSum, Ranks, ShardedSweep
from infoassign.solver import LOG, solve
from infoassign.steps import Step, plain, plain_step_from, quasi_newton
from infoassign.validation import (
    check_gradient,
    check_potential,
    check_prior,
    count,
    first,
    in_problem,
    not_negative,
    positive,
    real,
    weight,
)
from infoassign_backends.protocol import Array, Sweep

ACCELERATIONS: dict[str | None, Step] = {None: plain, "auto": quasi_newton, "quasi-newton": quasi_newton}
"""The steps that can be asked for by name; "auto" is what needed the fewest sweeps (see tests/benchmarks)."""

ROWS_FOR_A_LABEL = 128
"""How many rows of a sample there must be for each label, for a start from it."""
SAMPLE_TOL, SAMPLE_SWEEPS = 1e-2, 300
"""How exactly the sample's problem is solved; more would be lost in the sample's own error."""
Gradient: TypeAlias = Literal["none", "implicit"]
Weight: TypeAlias = Any
"""A number; with gradients, it may be a 0-d torch tensor."""


def assign(
    scores: Array | Scores,
    *,
    epsilon: Weight,
    strength: Weight = inf,
    prior: Array | None = None,
    tol: float = 1e-5,
    max_sweeps: int = 1000,
    acceleration: str | None = "auto",
    start: Array | Assignment | str | None = None,
    all_sum: AllSum | None = None,
    check_finite: bool = True,
    gradient: Gradient = "none",
) -> Assignment:
    r"""Soft labels for a batch of scores, by entropic transport with a penalised or an exact marginal.

    Solves, over plans W whose rows are distributions over the K labels,

    .. math:: \min_W \; -\frac1B \langle W, s \rangle + \varepsilon \, \frac1B \sum_{ij} w_{ij} \log w_{ij}
              + \rho \, \mathrm{KL}(\bar w \,\|\, r), \qquad \bar w = \frac1B \sum_i w_i,

    and certifies the answer. Strength 0 is the softmax of ``scores / epsilon``; :func:`mira` is ``epsilon = 1 - beta``,
    ``strength = beta`` on log-probabilities; an infinite strength, the default, makes the marginal equal the prior
    (SwAV, SeLa: :func:`sinkhorn`).

    Parameters
    ----------
    scores
        Shape (..., B, K), real floating (half precision is computed in float32), of any array library: the larger
        ``s_ij``, the better label j is for row i. Leading axes are a batch of problems. A row may be shifted by a
        constant. ``-inf`` forbids a label to a row. Or :class:`StreamedScores`, :class:`FactoredScores`, for those
        bigger than memory.
    epsilon
        Weight of the rows' entropy, in units of the scores, > 0: the smaller, the harder the labels.
    strength
        Weight rho of the marginal's divergence from the prior, in units of the scores, in [0, inf].
    prior
        The share r of every label: positive, summing to one, shape (K,) or one for each problem (..., K), an array like
        `scores` or a list of numbers. Default: equal shares.
    tol
        What to reach; >= 0. For a finite strength a bound on the mean total variation to the optimal labels
        (:attr:`Assignment.error_bound`), for an exact marginal the L1 distance of the marginal from the prior
        (:attr:`Assignment.marginal_error`), rounding included. With 0 exactly `max_sweeps` sweeps are made, one at
        strength 0, where the first is exact; nothing is then read back from the device, if `check_finite` is off too.
    max_sweeps
        Passes over the scores at most, >= 1. n sweeps are n - 1 updates of the potential.
    acceleration
        "auto", which is "quasi-newton" (L-BFGS on the dual, safeguarded by plain steps), or None for plain steps: the
        iterations of the papers.
    start
        Where to start: a potential, shape (K,) or (..., K), in units of the scores; an earlier `Assignment`; "columns",
        SwAV's first half step, which balances the columns of ``exp(scores / epsilon)``; or None for ``v = 0``. For
        streamed and factored scores with many rows, and a `tol`, None is the solution for a sample of the rows.
    all_sum
        For rows spread over ranks: a function that takes an array and returns its sum over all ranks, the same on
        each. `scores` are then the rows of this rank (none is allowed: shape (0, K)), and so are the plan and the
        labels of the answer; everything else in it is about all rows. All ranks call this with the same arguments.
    check_finite
        Look for NaN, ``+inf``, rows without a label and a wrong prior before solving. Without it, such scores give a
        NaN plan.
    gradient
        "none": the assignment is a constant, and no gradient flows through it. "implicit", for torch: its plan,
        potential, marginal and objective have gradients in the scores, `prior`, `epsilon` and `strength`, of which the
        last two may then be 0-d tensors (see :class:`infoassign.implicit.DifferentiableAssignment`). Memory does not
        depend on the number of sweeps; backwards, a linear system is solved by conjugate gradients.

    Returns
    -------
    Assignment
        Its `plan` is an array like `scores`; its `status` says whether `tol` was reached. With gradients it is an
        :class:`infoassign.implicit.DifferentiableAssignment`.

    Raises
    ------
    TypeError
        If `scores` is not an array, or not of a real floating dtype of at most double precision; if another array is
        of another library; if gradients are asked for and `scores` is not a torch tensor.
    ValueError
        If `scores` has fewer than two axes, is empty, has NaN, ``+inf`` or a row that is all ``-inf``, or under an
        exact marginal a column that is; or if another argument is out of its range, epsilon too small for the dtype
        included.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.random.default_rng(0).normal(size=(512, 10))
    >>> assignment = assign(scores, epsilon=0.1)
    >>> assignment.plan.shape, assignment.converged
    ((512, 10), True)
    >>> bool(np.abs(assignment.marginal - 0.1).sum() <= 1e-5)
    True

    Labels near a known, long-tailed distribution of the classes:

    >>> prior = np.arange(10, 0, -1) / 55
    >>> assign(scores, epsilon=0.1, prior=prior, strength=10.0).marginal.round(2)[:3]
    array([0.18, 0.16, 0.14])
    """
    check_gradient(gradient, _graphed(scores), all_sum)
    epsilon, linked_epsilon = weight("epsilon", epsilon, positive, gradient)
    strength, linked_strength = weight("strength", strength, not_negative, gradient)
    assignment = _assign(
        scores, epsilon, strength, 1.0, prior, tol, max_sweeps, acceleration, start, all_sum, check_finite
    )
    if gradient == "none":
        return assignment
    return _differentiable(assignment, scores, prior, linked_epsilon, linked_strength, 1.0)


def mira(
    scores: Array | Scores,
    *,
    beta: Weight = 2 / 3,
    temperature: Weight = 1.0,
    prior: Array | None = None,
    tol: float = 1e-5,
    max_sweeps: int = 1000,
    acceleration: str | None = "auto",
    start: Array | Assignment | str | None = None,
    all_sum: AllSum | None = None,
    check_finite: bool = True,
    gradient: Gradient = "none",
) -> Assignment:
    r"""Labels that carry as much information about their rows as a model's probabilities allow.

    Solves MIRA's problem (eq. 1 and 4 of the published paper) for the probabilities
    ``p_i = softmax(scores_i / temperature)``,

    .. math:: \min_W \; \frac1B \sum_i \mathrm{KL}(w_i \,\|\, p_i) - \beta\, I(Y_W; B).

    It is the family's objective up to a constant (theory, C2), and strictly convex. The paper's fixed point (eq. 7)
    converges to its one solution from everywhere, at rate beta or better; the accelerated solver needs far
    fewer passes where beta is large, and may need a few more where it is small.

    Parameters
    ----------
    scores
        Logits or log-probabilities, shape (..., B, K); see :func:`assign`.
    beta
        Weight of the mutual information, in [0, 1). At 0 the labels are the model's probabilities; the larger it is,
        the more information they carry (theory, A13).
    temperature
        What divides the scores, > 0.
    prior
        With a prior r, ``beta KL(wbar || r)`` stands in the place of ``beta KL(wbar || uniform)``; see :func:`assign`.
    tol, max_sweeps, acceleration, all_sum, check_finite
        See :func:`assign`.
    start
        See :func:`assign`; a potential is in units of scores / temperature.
    gradient
        See :func:`assign`; with "implicit" `beta` and `temperature` may be 0-d tensors.

    Returns
    -------
    Assignment
        Its `plan` is an array like `scores`; its `status` says whether `tol` was reached.

    Raises
    ------
    TypeError, ValueError
        As :func:`assign`.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.random.default_rng(0).normal(size=(512, 10)) * 3
    >>> assignment = mira(logits, beta=2 / 3)
    >>> assignment.plan.shape, assignment.converged
    ((512, 10), True)
    >>> probabilities = mira(logits, beta=0)
    >>> assignment.mutual_information > probabilities.mutual_information
    True

    The papers' mode, thirty-one updates of eq. 7 and no questions asked:

    >>> mira(logits, tol=0, max_sweeps=32, acceleration=None).sweeps
    32
    """
    check_gradient(gradient, _graphed(scores), all_sum)
    beta, linked_beta = weight("beta", beta, real, gradient)
    if not 0 <= beta < 1:
        raise ValueError(
            f"beta must be in [0, 1); got {beta!r} (beta = 1 asks for mutual information alone, which has no unique"
            " optimum; for sharper labels use a value such as 0.9)"
        )
    # In units of the raw scores everything is scaled by the temperature, so the scores need not be divided.
    unit, linked_unit = weight("temperature", temperature, positive, gradient)
    assignment = _assign(
        scores, (1 - beta) * unit, beta * unit, unit, prior, tol, max_sweeps, acceleration, start, all_sum, check_finite
    )
    if gradient == "none":
        return assignment
    return _differentiable(
        assignment, scores, prior, (1 - linked_beta) * linked_unit, linked_beta * linked_unit, linked_unit
    )


def sinkhorn(
    scores: Array | Scores,
    *,
    epsilon: Weight = 0.05,
    prior: Array | None = None,
    tol: float = 1e-5,
    max_sweeps: int = 1000,
    acceleration: str | None = "auto",
    start: Array | Assignment | str | None = None,
    all_sum: AllSum | None = None,
    check_finite: bool = True,
    gradient: Gradient = "none",
) -> Assignment:
    r"""Labels under equipartition: every label gets an equal share of the rows, or the share that a prior gives it.

    This is SwAV's and SeLa's optimal transport (SeLa, eq. 7, with ``epsilon = 1 / lambda`` on log-probabilities),
    solved until the shares are met rather than for a few steps. Their regulariser is the mutual information (theory,
    C4). On logits, ``epsilon = temperature (1 - beta)`` is MIRA with equal shares imposed (theory, A10).

    Parameters
    ----------
    scores
        Similarities, logits or log-probabilities, shape (..., B, K); see :func:`assign`.
    epsilon
        Weight of the entropy, in units of the scores, > 0; SwAV's 0.05 is for cosine similarities.
    prior
        See :func:`assign`.
    tol
        Bound on the L1 distance of the marginal from the prior; see :func:`assign`.
    max_sweeps, acceleration, start, all_sum, check_finite, gradient
        See :func:`assign`.

    Returns
    -------
    Assignment
        Its `plan` is an array like `scores`, rows in the simplex (the papers' Q divided by 1 / B).

    Raises
    ------
    TypeError, ValueError
        As :func:`assign`.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.random.default_rng(0).normal(size=(512, 10)) / 3
    >>> assignment = sinkhorn(scores)
    >>> bool(assignment.marginal_error <= 1e-5)
    True

    SwAV's three iterations:

    >>> sinkhorn(scores, start="columns", tol=0, max_sweeps=3, acceleration=None).sweeps
    3
    """
    check_gradient(gradient, _graphed(scores), all_sum)
    epsilon, linked_epsilon = weight("epsilon", epsilon, positive, gradient)
    assignment = _assign(scores, epsilon, inf, 1.0, prior, tol, max_sweeps, acceleration, start, all_sum, check_finite)
    return assignment if gradient == "none" else _differentiable(assignment, scores, prior, linked_epsilon, inf, 1.0)


def _assign(
    scores: Array | Scores,
    epsilon: float,
    strength: float,
    unit: float,
    prior: Array | None,
    tol: float,
    max_sweeps: int,
    acceleration: str | None,
    start: Array | Assignment | str | None,
    all_sum: AllSum | None,
    check_finite: bool,
) -> Assignment:
    """Validate what the three have in common, and solve; epsilon and strength are in units of the raw scores."""
    tol = not_negative("tol", tol)
    max_sweeps = count("max_sweeps", max_sweeps)
    if not isinstance(acceleration, str | None) or acceleration not in ACCELERATIONS:
        names = ", ".join(repr(name) for name in ACCELERATIONS)
        raise ValueError(f"acceleration must be one of {names}; got {acceleration!r}")
    prior = constant(prior)
    source, ranks = as_scores(scores), Ranks(all_sum)
    found: list[tuple[Family, Sweep]] = []

    def check() -> None:
        source.check(check_finite=check_finite)
        found.append(prepare(source, epsilon, strength, prior, check_finite=check_finite))

    settings = (epsilon, strength, unit, tol, max_sweeps, acceleration, check_finite)
    ranks.agree(source.like, check, lambda: _said(source, settings, prior, start))
    ((family, local),) = found
    sweep = local
    if ranks.several:
        sweep = ShardedSweep(local, source.usable(), epsilon, ranks)
    elif source.rows == 0:
        raise ValueError(f"scores must not be empty; got shape {(0, *source.like.shape[-1:])}")
    if family.exact and check_finite and not _all_allowed(local):
        _refuse_unusable(sweep.usable if isinstance(sweep, ShardedSweep) else source.usable())
    potential = _start(start, source, sweep, family, unit, ranks, tol, check_finite=check_finite)
    dense_alone = isinstance(source, DenseScores) and not ranks.several
    solution = _solve(
        sweep,
        family,
        potential,
        ACCELERATIONS[acceleration],
        tol=tol,
        max_sweeps=max_sweeps,
        ceiling=_ceiling(source, local, sweep, ranks) if family.exact and tol > 0 else inf,
        feasible=(lambda: _feasible(source.like, family)) if family.exact and dense_alone else None,
    )
    return Assignment(_scores=source, _sweep=sweep, _family=family, _solution=solution, _unit=unit, _ranks=ranks)


def _solve(sweep: Sweep, family: Family, start: Array, step: Step, **limits: Any) -> Solution:
    """Solve, with NumPy's vectors where the sweep has them: its small operations cost half of torch's."""
    native: Sweep | None = getattr(sweep, "numpy", None)
    if native is None:
        return solve(sweep, family, start, step, **limits)
    xp, device = api.array_namespace(start), api.device(start)

    def given(found: Any) -> Any:
        return type(found)(*map(given, found)) if isinstance(found, tuple) else xp.asarray(found, device=device)

    ask, ceiling = limits["feasible"], limits["ceiling"]
    limits["feasible"] = ask and (lambda: on_host(ask(), bool))
    limits["ceiling"] = on_host(ceiling) if api.is_array_api_obj(ceiling) else ceiling
    there = replace(family, log_prior=on_host(family.log_prior))
    solution: Solution = given(solve(native, there, on_host(start), step, **limits))
    return solution


def _said(source: Scores, settings: tuple[Any, ...], prior: Any, start: Any) -> dict[str, Any]:
    """Return what has to be the same on all ranks."""
    like = source.like
    start = start.potential if isinstance(start, Assignment) else start
    prior, start = (crc32(on_host(x).tobytes()) if api.is_array_api_obj(x) else x for x in (prior, start))
    names = ("epsilon", "strength", "temperature", "tol", "max_sweeps", "acceleration", "check_finite")
    return {
        "the number of labels": int(like.shape[-1]),
        "the batch": tuple(like.shape[:-2]),
        "the dtype": str(like.dtype),
        "the kind of scores": "array" if isinstance(source, DenseScores | NoRows) else type(source).__name__,
        "prior": prior,
        "start": start,
        **dict(zip(names, settings, strict=True)),
    }


def _ceiling(source: Scores, local: Sweep, sweep: Sweep, ranks: Ranks) -> Array:
    """Return what no plan's objective is above, relative to the sweep's offset; ``inf`` where a plan is sure to exist.

    A plan's score in a row is at least the least that is allowed there, and its entropy term is at most 0.
    """
    xp = api.array_namespace(sweep.span)
    if _all_allowed(sweep):
        return xp.full_like(sweep.span, xp.inf)
    highest = ranks.bound((source.depth + xp.abs(local.offset - sweep.offset))[..., None])[..., 0]
    return xp.where(xp.isfinite(sweep.span), xp.inf, highest)


def _all_allowed(sweep: Sweep) -> bool:
    """Return whether no pair is forbidden."""
    xp = api.array_namespace(sweep.span)
    return bool(xp.all(xp.isfinite(sweep.span)))


def _refuse_unusable(usable: Array) -> None:
    """Say so if an exact marginal asks for a share of a label that no row may use."""
    xp = api.array_namespace(usable)
    if not bool(xp.all(usable)):
        index = first(xp, ~usable)
        raise ValueError(
            f"column {index[-1]} of scores{in_problem(index[:-1])} is all -inf, so no plan can give it its share;"
            " leave it out, or give a finite strength"
        )


def _graphed(scores: Array | Scores) -> Array | Scores:
    """Return the array that tells whether scores can have gradients."""
    return scores.given.features if isinstance(scores, FactoredScores) else scores


def _differentiable(
    assignment: Assignment,
    scores: Array | FactoredScores,
    prior: Array | None,
    epsilon: Weight,
    strength: Weight,
    unit: Weight,
) -> Assignment:
    """Give an assignment of torch tensors the graph of what it was solved for, which loads torch."""
    from infoassign.implicit import attach, factored, row_by_row

    log_prior = assignment._family.log_prior
    if prior is not None:
        log_prior = check_prior(prior, assignment._scores.like, log_prior.dtype, check_finite=False)
    rows = factored(scores.given) if isinstance(scores, FactoredScores) else row_by_row(scores)
    return attach(assignment, rows, epsilon=epsilon, strength=strength, temperature=unit, log_prior=log_prior)


def _start(
    start: Array | Assignment | str | None,
    source: Scores,
    sweep: Sweep,
    family: Family,
    unit: float,
    ranks: Ranks,
    tol: float,
    *,
    check_finite: bool,
) -> Array:
    """Return the potential to start from, shape (..., K), in units of the raw scores."""
    like = source.like
    xp, device = api.array_namespace(like), api.device(like)
    shape = (*like.shape[:-2], like.shape[-1])
    zero = xp.zeros(shape, dtype=sweep.vector_dtype, device=device)
    if family.strength == 0:  # where the potential is 0
        return zero
    if start is None:
        return zero if tol == 0 else _from_sample(source, zero, family, ranks, tol)
    if isinstance(start, str):
        if start != "columns":
            raise ValueError(f'start must be None, "columns", a potential or an Assignment; got {start!r}')
        # The columns of exp(s / epsilon) as if they were those of a plan.
        return plain_step_from(family, zero, sweep.log_column_sums() - log(sweep.rows))
    potential: Array = start.potential if isinstance(start, Assignment) else start
    potential = unit * check_potential("start", constant(potential), like, sweep.vector_dtype)
    if check_finite and bool(xp.any(xp.isnan(potential) | (potential == -xp.inf))):
        raise ValueError("start must not hold NaN or -inf")
    # +inf is the price of a label that could not be used; here it may be usable, at the highest price there is.
    priced = potential < xp.inf
    highest = xp.max(xp.where(priced, potential, -xp.inf), axis=-1, keepdims=True)
    potential = xp.where(priced, potential, xp.where(highest > -xp.inf, highest, 0.0))
    # No solution's potential is spread much further than the scores; a wild one would drown them in its rounding.
    limit = float(xp.finfo(potential.dtype).max) / 4
    potential = clipped(potential, -limit, limit)
    potential = potential - xp.min(potential, axis=-1, keepdims=True)
    spread = xp.astype(xp.asarray(source.spread, device=device), potential.dtype)[..., None] + 0 * potential[..., :1]
    return gauged(family, xp.minimum(potential, 10 * ranks.bound(spread) + 100 * family.epsilon), potential < xp.inf)


def _from_sample(source: Scores, zero: Array, family: Family, ranks: Ranks, tol: float) -> Array:
    """Return the solution for a sample of the rows where there are enough of them, otherwise v = 0.

    A start like this saves the sweeps over all rows that it takes to come so near; see docs/scale.md.
    """
    rows = source.sample()
    if rows is None:
        return zero
    if float(ranks.sum(zero[..., :1] + rows.shape[0])[0]) < ROWS_FOR_A_LABEL * zero.shape[-1]:
        return zero
    some: Scores = DenseScores(rows) if rows.shape[0] else NoRows(rows)
    sweep = some.prepare(family.epsilon)
    if ranks.several:
        sweep = ShardedSweep(sweep, some.usable(), family.epsilon, ranks)
    LOG.info("first for a sample of %d rows, to start from", sweep.rows)
    near = max(tol, SAMPLE_TOL)
    found = solve(sweep, family, zero, quasi_newton, tol=near, max_sweeps=SAMPLE_SWEEPS)
    return found.point.potential


def _feasible(scores: Array, family: Family) -> Array:
    """Return which problems of a batch have a plan on the allowed pairs with the prior as its marginal."""
    xp = api.array_namespace(scores)
    allowed = on_host(scores) > -inf
    batch = allowed.shape[:-2]
    prior = np.broadcast_to(np.exp(on_host(family.log_prior)), (*batch, allowed.shape[-1]))
    answers = [bool(allowed[i].all()) or feasible(allowed[i], prior[i]) for i in np.ndindex(batch)]
    return xp.asarray(np.array(answers).reshape(batch), dtype=xp.bool, device=api.device(scores))
