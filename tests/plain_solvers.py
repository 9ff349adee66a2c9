"""An honest solver of the plainest kind, and ways to spoil it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp


def fixed_point(
    scores: Any,
    *,
    beta: float,
    temperature: float,
    tol: float,
    max_sweeps: int,
    start: Any = None,
    exponent: bool = True,
) -> Any:
    """MIRA's eq. 7 in the log domain, with the certificate of A4 and A5; optionally without its exponent."""
    rows, columns = scores.shape
    usable = (scores > -np.inf).any(axis=0)
    s, epsilon = scores[:, usable] / temperature, 1 - beta
    v = np.zeros(s.shape[1]) if start is None or beta == 0 else start[usable]
    sweeps, converged = 0, False
    while True:
        log_w = log_softmax((s - v) / epsilon, axis=1)
        log_marginal = logsumexp(log_w, axis=0) - np.log(rows)
        sweeps += 1
        gap = error = row_error = 0.0
        if beta > 0:
            log_u = v / beta - logsumexp(v / beta)
            d = log_marginal - log_u
            terms = np.where(np.abs(d) < 1, d * np.exp(np.minimum(d, 1)) - np.expm1(np.minimum(d, 1)), np.inf)
            far = np.exp(log_u + d) * (d - 1) + np.exp(log_u)
            gap = beta * np.where(np.abs(d) < 1, np.exp(log_u) * np.where(np.abs(d) < 1, terms, 0), far).sum()
            row_error = np.tanh(beta * np.ptp(d) / (4 * epsilon))
            error = min(np.sqrt(gap / (4 * epsilon)), row_error)
        rounding = 8 * np.finfo(float).eps * (1 + np.abs(s[s > -np.inf]).max() / epsilon)
        converged = error + rounding <= tol
        if converged or sweeps == max_sweeps or beta == 0:
            break
        v = (beta if exponent else 1.0) * (v + epsilon * (log_marginal + np.log(columns)))
        if not exponent:
            v = v - v.mean()
    plan, potential = np.zeros(scores.shape), np.full(columns, np.inf)
    plan[:, usable], potential[usable] = np.exp(log_w), v
    return SimpleNamespace(
        plan=plan, potential=potential, gap=gap, error_bound=error + rounding, row_error_bound=row_error + rounding,
        sweeps=sweeps, converged=converged,
    )  # fmt: skip


def altered(found: Any, **changes: Any) -> Any:
    """Return what a solver found, with some of it changed."""
    names = ("plan", "potential", "gap", "error_bound", "row_error_bound", "sweeps", "converged")
    return SimpleNamespace(**{name: getattr(found, name) for name in names if name not in changes}, **changes)
