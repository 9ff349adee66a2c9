"""From scores to an assignment: validate, choose, solve."""

from math import inf, log
from numbers import Integral, Real
from typing import Any

import array_api_compat as api
import numpy as np

from infoassign.objective import Family
from infoassign.result import Assignment
from infoassign.solver import solve
from infoassign_backends import backend_for
from infoassign_backends.protocol import Array


def mira(
    scores: Array,
    *,
    beta: float = 2 / 3,
    temperature: float = 1.0,
    tol: float = 1e-5,
    max_sweeps: int = 1000,
    check_finite: bool = True,
) -> Assignment:
    r"""Labels that carry as much information about their rows as a model's probabilities allow.

    Solves MIRA's problem (eq. 1 and 4 of the published paper) for the probabilities
    ``p_i = softmax(scores_i / temperature)``,

    .. math:: \min_W \; \frac1B \sum_i \mathrm{KL}(w_i \,\|\, p_i) - \beta\, I(Y_W; B),

    by its fixed point (eq. 7), renormalised in each step, and certifies the answer. The problem is strictly convex;
    the iteration converges to its one solution from everywhere, at rate beta or better.

    Parameters
    ----------
    scores
        Logits or log-probabilities, shape (B, K), real floating (half precision is computed in float32), of any
        array library. A row may be shifted by a constant. ``-inf`` forbids a label to a row. For torch tensors
        the assignment is a constant: no gradient flows through it.
    beta
        Weight of the mutual information, in [0, 1). At 0 the labels are the model's probabilities; the larger it is,
        the more information they carry.
    temperature
        What divides the scores, > 0.
    tol
        Bound to reach on the mean total variation to the optimal labels, that is on
        :attr:`Assignment.error_bound`; >= 0. With 0 exactly `max_sweeps` sweeps are made, as the papers do (one if
        beta is 0, where the first is exact); nothing is then read back from the device, if `check_finite` is off too.
    max_sweeps
        Passes over the scores at most, >= 1. n sweeps are n - 1 updates of eq. 7.
    check_finite
        Look for NaN, ``+inf`` and rows without a label before solving. Without it, such scores give a NaN plan.

    Returns
    -------
    Assignment
        Its `plan` is an array like `scores`; its `status` says whether `tol` was reached.

    Raises
    ------
    TypeError
        If `scores` is not an array, or not of a real floating dtype of at most double precision.
    ValueError
        If `scores` is not a matrix, is empty, has NaN, ``+inf`` or a row that is all ``-inf``; or if another
        argument is out of its range, temperature times 1 - beta too small for the dtype included.

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

    The papers' mode, thirty steps and no questions asked:

    >>> mira(logits, tol=0, max_sweeps=31).sweeps
    31
    """
    beta = _real("beta", beta)
    if not 0 <= beta < 1:
        raise ValueError(
            f"beta must be in [0, 1); got {beta!r} (beta = 1 asks for mutual information alone, which has no unique"
            " optimum; for sharper labels use a value such as 0.9)"
        )
    temperature = _real("temperature", temperature)
    if not 0 < temperature < inf:
        raise ValueError(f"temperature must be positive and finite; got {temperature!r}")
    tol = _real("tol", tol)
    if not tol >= 0:
        raise ValueError(f"tol must not be negative; got {tol!r}")
    max_sweeps = _integer("max_sweeps", max_sweeps)
    if max_sweeps < 1:
        raise ValueError(f"max_sweeps must be at least 1; got {max_sweeps!r}")
    xp = _validate_scores(scores, check_finite=check_finite)

    # In units of the raw scores everything is scaled by the temperature, so the scores need not be divided.
    epsilon = (1 - beta) * temperature
    sweep = backend_for(scores).prepare(scores, epsilon)
    rows, columns = scores.shape
    log_prior = xp.full((columns,), -log(columns), dtype=sweep.vector_dtype, device=api.device(scores))
    family = Family(epsilon=epsilon, strength=beta * temperature, log_prior=log_prior)
    solution = solve(sweep, family, tol=tol, max_sweeps=max_sweeps)
    return Assignment(
        _sweep=sweep, _family=family, _solution=solution, _unit=temperature, _dtype=scores.dtype, rows=rows
    )


def _integer(name: str, value: object) -> int:
    """Return an integral argument as an int, or say which one it was not."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    return int(value)


def _real(name: str, value: object) -> float:
    """Return a real argument as a float, or say which one it was not."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number; got {value!r}")
    return float(value)


def _validate_scores(scores: Array, *, check_finite: bool) -> Any:
    """Return the namespace of the scores, or say what is wrong with them."""
    if not api.is_array_api_obj(scores):
        raise TypeError(
            f"scores must be an array (NumPy, torch, CuPy, JAX, ...); got {type(scores).__name__};"
            " convert it first, for instance with numpy.asarray"
        )
    if isinstance(scores, np.ma.MaskedArray):
        raise TypeError(
            "scores must not be a masked array; forbid pairs by -inf, for instance scores.filled(-numpy.inf)"
        )
    xp = api.array_namespace(scores)
    if not xp.isdtype(scores.dtype, "real floating") or xp.finfo(scores.dtype).bits > 64:
        raise TypeError(f"scores must have a real floating dtype of at most 64 bits; got {scores.dtype}")
    if scores.ndim != 2:
        raise ValueError(
            f"scores must have shape (rows, labels); got {scores.ndim} dimensions, shape {tuple(scores.shape)}"
        )
    if 0 in scores.shape:
        raise ValueError(f"scores must not be empty; got shape {tuple(scores.shape)}")
    if check_finite:
        invalid = xp.isnan(scores) | (scores == xp.inf)
        if bool(xp.any(invalid)):
            row, column = divmod(_first(xp, xp.reshape(invalid, (-1,))), scores.shape[1])
            first = "nan" if bool(xp.isnan(scores[row, column])) else "inf"
            raise ValueError(f"scores must not hold NaN or +inf; the first is {first} at row {row}, column {column}")
        without_label = xp.all(scores == -xp.inf, axis=1)
        if bool(xp.any(without_label)):
            raise ValueError(
                f"row {_first(xp, without_label)} of scores is all -inf: every row needs a label that it may use"
            )
    return xp


def _first(xp: Any, mask: Array) -> int:
    """Return the index of the first true entry of a vector that has one."""
    return int(xp.argmax(xp.astype(mask, xp.int32)))
