"""Random problems of the family, and its maps written out in NumPy float64; shares no code with the library."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp, rel_entr, softmax, xlogy


@dataclass(frozen=True)
class Problem:
    """Scores, weights and a prior; the notation of docs/theory."""

    scores: Any
    epsilon: float
    rho: float
    prior: Any

    @property
    def beta(self) -> float:
        return 1.0 if np.isinf(self.rho) else self.rho / (self.rho + self.epsilon)

    @property
    def options(self) -> dict[str, Any]:
        """What the library's functions are to be called with, besides the scores."""
        return {"epsilon": self.epsilon, "strength": self.rho, "prior": self.prior}

    def lse(self, v: Any) -> Any:
        return logsumexp((self.scores - v) / self.epsilon, axis=1)

    def plan(self, v: Any) -> Any:
        """W(v)."""
        return softmax((self.scores - v) / self.epsilon, axis=1)

    def target(self, v: Any) -> Any:
        """The marginal that a potential asks for: r exp(v / rho), normalised; r itself for rho = inf."""
        return self.prior if np.isinf(self.rho) else softmax(np.log(self.prior) + v / self.rho)

    def primal(self, plan: Any) -> float:
        allowed = np.where(np.isfinite(self.scores), self.scores, 0)
        value = (-np.sum(plan * allowed) + self.epsilon * xlogy(plan, plan).sum()) / len(plan)
        coupling = 0.0 if np.isinf(self.rho) else self.rho * rel_entr(plan.mean(axis=0), self.prior).sum()
        return float(value + coupling)

    def dual(self, v: Any) -> float:
        if np.isinf(self.rho):
            first = v @ self.prior
        else:
            first = self.rho * logsumexp(np.log(self.prior) + v / self.rho)
        return float(-first - self.epsilon * self.lse(v).mean())

    def step(self, v: Any) -> Any:
        """A plain step, without the shift."""
        return self.beta * (v + self.epsilon * np.log(self.plan(v).mean(axis=0) / self.prior))

    def optimal_potential(self) -> Any:
        """Plain steps, then Newton's method on the dual; the residual is checked."""
        v = np.zeros(len(self.prior))
        for _ in range(200):
            v = self.step(v)
            v -= v.mean()
        for _ in range(30):
            plan, u = self.plan(v), self.target(v)
            wbar = plan.mean(axis=0)
            curvature = np.diag(wbar) - plan.T @ plan / len(plan) + np.outer(u, u)
            if np.isfinite(self.rho):
                curvature += self.epsilon / self.rho * (np.diag(u) - np.outer(u, u))
            v = v + self.epsilon * np.linalg.lstsq(curvature, wbar - u, rcond=1e-14)[0]
            v -= v.mean()
        assert np.abs(self.plan(v).mean(axis=0) - self.target(v)).sum() < 1e-13
        return v

    def averaging(self, plan: Any) -> Any:
        """S, with S_jl = sum_i w_ij w_il / (B wbar_j)."""
        return plan.T @ plan / len(plan) / plan.mean(axis=0)[:, None]


def problem(seed: int, rho: float | None = None, masked: bool = False, scale: float = 1.0) -> Problem:
    """One of many; with forbidden pairs the problem stays feasible for an exact marginal, with a finite potential."""
    random = np.random.default_rng(seed)
    rows, columns = int(random.integers(6, 15)), int(random.integers(2, 6))
    scores = random.normal(size=(rows, columns)) * scale
    prior = random.dirichlet(np.full(columns, 3.0))
    if masked:
        # Forbidden pairs, and a prior that is the marginal of a plan which is positive on all others.
        forbidden = random.random(scores.shape) < 0.3
        forbidden[np.arange(rows), np.arange(rows) % columns] = False
        scores[forbidden] = -np.inf
        prior = softmax(np.where(forbidden, -np.inf, random.normal(size=scores.shape)), axis=1).mean(axis=0)
    epsilon = 10 ** random.uniform(-0.7, 0.3)
    return Problem(scores, epsilon, epsilon * 10 ** random.uniform(-1, 1.5) if rho is None else rho, prior)


def some(count: int, **settings: Any) -> list[Problem]:
    """Half of them with forbidden pairs."""
    return [problem(seed, masked=seed % 2 == 1, **settings) for seed in range(count)]


def random_plan(scores: Any, random: np.random.Generator) -> Any:
    """A plan on the allowed pairs."""
    return softmax(np.where(np.isfinite(scores), 3 * random.normal(size=scores.shape), -np.inf), axis=1)


def kl(p: Any, q: Any) -> Any:
    """Along the last axis."""
    return rel_entr(p, q).sum(axis=-1)


def tv(p: Any, q: Any) -> Any:
    """Total variation along the last axis."""
    return np.abs(p - q).sum(axis=-1) / 2


def osc(x: Any) -> float:
    """Largest minus smallest."""
    return float(np.ptp(x))
