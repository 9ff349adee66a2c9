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


def swav(scores: Matrix, epsilon: float, iterations: int) -> Matrix:
    """SwAV's listing (appendix A), for one process: its Q is prototypes x samples."""
    q = np.exp((scores - scores.max()) / epsilon).T
    prototypes, samples = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(axis=1, keepdims=True) / prototypes
        q = q / q.sum(axis=0, keepdims=True) / samples
    return np.asarray((q * samples).T)


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


def softmin_plan(potential: Matrix, scores: Matrix, epsilon: float) -> Matrix:
    """W(v)."""
    return softmax((scores - potential) / epsilon, axis=1)


def family_optimum(
    scores: Matrix, epsilon: float, strength: float, prior: Matrix | None = None, plain: int = 300
) -> tuple[Matrix, float]:
    """The optimal plan of theory, part A, by plain steps and then Newton's method on the dual; and its residual.

    The residual is the L1 distance of wbar from r, or from the marginal that the potential asks for (finite rho):
    zero at the optimum. Labels that no row may use must not be there.
    """
    if strength == 0:
        return softmax(scores / epsilon, axis=1), 0.0
    rows, columns = scores.shape
    log_r = np.full(columns, -np.log(columns)) if prior is None else np.log(prior)
    beta = 1.0 if np.isinf(strength) else strength / (strength + epsilon)

    def target(v: Matrix) -> Matrix:
        return np.exp(log_r) if np.isinf(strength) else softmax(log_r + v / strength)

    def dual_of(v: Matrix) -> float:
        first = np.exp(log_r) @ v if np.isinf(strength) else strength * logsumexp(log_r + v / strength)
        return float(-first - epsilon * logsumexp((scores - v) / epsilon, axis=1).mean())

    def log_marginal(v: Matrix) -> Matrix:
        scaled = (scores - v) / epsilon
        return logsumexp(scaled - logsumexp(scaled, axis=1, keepdims=True), axis=0) - np.log(rows)

    v = np.zeros(columns)
    for _ in range(plain):
        v = beta * (v + epsilon * (log_marginal(v) - log_r))
        v -= v.mean()
    best = v, np.abs(np.exp(log_marginal(v)) - target(v)).sum()
    for _ in range(200):
        plan, u = softmin_plan(v, scores, epsilon), target(v)
        wbar = plan.mean(axis=0)
        hessian = np.diag(wbar) - plan.T @ plan / rows
        if np.isfinite(strength):
            hessian += epsilon / strength * (np.diag(u) - np.outer(u, u))
        hessian += np.outer(u, u)  # fixes the free constant
        move = epsilon * np.linalg.lstsq(hessian, wbar - u, rcond=1e-15)[0]
        here, length = dual_of(v), 1.0
        while dual_of(v + length * move) < here - 1e-13 * (1 + abs(here)) and length > 1e-6:
            length /= 2
        if length > 1e-6:
            v = v + length * move
        else:
            v = beta * (v + epsilon * (log_marginal(v) - log_r))
        v -= v.mean()
        residual = np.abs(np.exp(log_marginal(v)) - target(v)).sum()
        if residual < best[1]:
            best = v, residual
        if residual < 1e-15:
            break
    return softmin_plan(best[0], scores, epsilon), float(best[1])
