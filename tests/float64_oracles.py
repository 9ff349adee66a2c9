"""Literal transcriptions of the papers' formulas in NumPy float64, which share no code with the library."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, rel_entr, softmax, xlogy

Matrix = NDArray[np.float64]


def mira_eq7(log_p: Matrix, beta: float, updates: int) -> Matrix:
    """MIRA's pseudo-labels after some updates of eq. 7 from u = 1/K, by eq. 5, in the log domain."""
    rows, columns = log_p.shape
    log_u = np.full(columns, -np.log(columns))
    for _ in range(updates):
        log_terms = (log_p - beta * log_u) / (1 - beta)
        inside = log_p / (1 - beta) - logsumexp(log_terms, axis=1, keepdims=True)
        log_u = (1 - beta) * (logsumexp(inside, axis=0) - np.log(rows))
    return softmax((log_p - beta * log_u) / (1 - beta), axis=1)


def mira_optimum(log_p: Matrix, beta: float) -> Matrix:
    """The converged eq. 7; its own check is a fixed point to 1e-13 (sup-norm contraction of modulus beta)."""
    return mira_eq7(log_p, beta, updates=int(np.ceil(np.log(1e-15) / np.log(max(beta, 1e-3)))) + 10)


def primal(plan: Matrix, scores: Matrix, epsilon: float, strength: float) -> float:
    """-<w, s> + eps sum w log w + rho KL(wbar || uniform), all as means over rows (theory, part A)."""
    rows, columns = scores.shape
    allowed = np.where(np.isfinite(scores), scores, 0)
    wbar = plan.mean(axis=0)
    linear = -np.sum(plan * allowed) / rows
    return float(linear + epsilon * np.sum(xlogy(plan, plan)) / rows + strength * np.sum(rel_entr(wbar, 1 / columns)))


def dual(potential: Matrix, scores: Matrix, epsilon: float, strength: float) -> float:
    """-rho log sum r exp(v / rho) - eps mean lse_i (theory, A3), with a uniform prior."""
    usable = np.isfinite(potential)
    v, columns = potential[usable], len(potential)
    lse = logsumexp((scores[:, usable] - v) / epsilon, axis=1)
    return float(-strength * (logsumexp(v / strength) - np.log(columns)) - epsilon * np.mean(lse))


def mean_total_variation(first: Matrix, second: Matrix) -> float:
    """Mean over rows of half the L1 distance."""
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).sum(axis=1).mean() / 2)
