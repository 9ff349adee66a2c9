"""How fast MIRA's fixed point, Sinkhorn's and the accelerated solver come to their solutions (MIRA, figure 2)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import softmax
from tqdm import tqdm

import infoassign as ia
from infoassign.problem import prepare
from infoassign.scores import DenseScores
from infoassign.solver import solve
from infoassign.steps import Step, plain, plain_step_from, quasi_newton
from infoassign_training.checks import require, require_positive
from infoassign_training.figures.style import BLUE, ORANGE, clean, title

TOL = 1e-12
"""How exactly the solutions are known that all is compared with."""
FEW = (1, 3, 10, 30)
"""Updates after which labels are looked at, up to MIRA's default."""
CLOSE = 1e-6
"""The squared error, summed over a batch, at which two methods are compared."""
LEVELS = (1e-2, CLOSE, 1e-10)

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """What is solved, and on what; the defaults are the papers', for cosines."""

    beta: float = 2 / 3
    """MIRA's weight of the mutual information, in (0, 1): with 0 there is nothing to update."""
    temperature: float = 0.225
    """What divides the scores for MIRA."""
    epsilon: float = 0.05
    """Sinkhorn's weight of the entropy, in units of the scores. At temperature (1 - beta) both have the same weight."""
    batch_size: int = 512
    """Rows of a batch."""
    batches: int = 100
    """Drawn at random, each without repetition; the paper has 1000."""
    updates: int = 50
    """Updates of the potential, each a pass over the batch."""
    seed: int = 0
    """Of the batches."""

    def __post_init__(self) -> None:
        require(0 < self.beta < 1, f"beta must be in (0, 1); got {self.beta}")
        require_positive(self, "convergence", "temperature", "epsilon", "batch_size", "batches")
        require(self.updates >= max(FEW), f"updates must be at least {max(FEW)}; got {self.updates}")


@dataclass(frozen=True)
class Curve:
    """How far one method is from its own solution, mean over batches, after 0, 1, 2, ... updates."""

    method: str
    accelerated: bool
    sse: Floats
    """Squared error of the plan, summed over rows and labels (rows sum to one)."""
    total_variation: Floats
    """Mean over rows of the distance of the labels."""
    changed: Floats
    """Share of the rows whose likeliest label is another one than in the solution."""

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.method}, {'accelerated' if self.accelerated else 'plain'}"

    def reaches(self, level: float) -> int | None:
        """Return after how many updates the squared error stays at most at a level; None if it does not.

        Examples
        --------
        >>> errors = np.array([1.0, 0.1, 0.2, 0.1])
        >>> curve = Curve("MIRA", False, errors, errors, errors)
        >>> curve.reaches(0.1), curve.reaches(0.3), curve.reaches(0.01)
        (3, 1, None)
        """
        above = np.flatnonzero(~(self.sse <= level))
        after = int(above[-1]) + 1 if len(above) else 0
        return after if after < len(self.sse) else None

    @property
    def rate(self) -> float | None:
        """By what the error (not squared) is multiplied per update, over the last ten updates well above rounding."""
        above = np.flatnonzero(self.sse > 1e-20)
        last = int(above[-1]) if len(above) else 0
        first = max(last - 10, 0)
        return float((self.sse[last] / self.sse[first]) ** (0.5 / (last - first))) if last > first else None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "method": self.method,
            "accelerated": self.accelerated,
            "sse": self.sse.tolist(),
            "updates_to_sse": {f"{level:g}": self.reaches(level) for level in LEVELS},
            "rate": self.rate,
            "after": {
                str(number): {
                    "sse": float(self.sse[number]),
                    "total_variation": float(self.total_variation[number]),
                    "likeliest_label_changed": float(self.changed[number]),
                }
                for number in FEW
            },
        }


@dataclass(frozen=True)
class Known:
    """How well the solutions of a method are known."""

    converged: float
    """Share of the batches on which the tolerance was reached."""
    error: float
    """The largest error that was left: MIRA's bound on the mean total variation, Sinkhorn's distance of the shares."""


@dataclass(frozen=True)
class Compared:
    """All curves, and how well the solutions are known."""

    settings: Convergence
    rows: int
    labels: int
    curves: tuple[Curve, ...]
    known: dict[str, Known]
    """By method."""

    @property
    def faster(self) -> bool | None:
        """Whether MIRA's fixed point gets close in fewer updates than Sinkhorn's; None if neither does."""
        mira, sinkhorn = (curve.reaches(CLOSE) for curve in self.curves if not curve.accelerated)
        if mira is None or sinkhorn is None:
            return None if mira is sinkhorn else sinkhorn is None
        return mira < sinkhorn

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "settings": vars(self.settings),
            "rows": self.rows,
            "labels": self.labels,
            "solutions": {"tol": TOL, "dtype": "float64"} | {of: vars(known) for of, known in self.known.items()},
            "mira_converges_faster": self.faster,
            "compared_at_sse": CLOSE,
            "curves": [curve.to_dict() for curve in self.curves],
        }


def compare(scores: NDArray[Any], settings: Convergence) -> Compared:
    """Follow both methods, plain and accelerated, on batches of scores (N, K), in float64.

    Parameters
    ----------
    scores
        Logits or cosines, finite; may be memory-mapped.
    settings
        What is solved, and on what.

    Raises
    ------
    ValueError
        If there are fewer rows than a batch has.
    """
    require(
        scores.ndim == 2 and len(scores) >= settings.batch_size,
        f"scores must be a matrix of at least batch_size = {settings.batch_size} rows; got shape {scores.shape}",
    )
    unit, beta = settings.temperature, settings.beta
    weights = {"MIRA": ((1 - beta) * unit, beta * unit), "Sinkhorn": (settings.epsilon, np.inf)}
    kinds = [(method, step) for method in weights for step in (plain, quasi_newton)]
    errors = np.zeros((len(kinds), 3, settings.updates + 1))
    left: dict[str, list[float]] = {method: [] for method in weights}
    for batch in tqdm(_batches(scores, settings), desc="converge", unit="batch", total=settings.batches):
        for method, (epsilon, strength) in weights.items():
            found = ia.assign(batch, epsilon=epsilon, strength=strength, tol=TOL, max_sweeps=10_000)
            left[method].append(float(found.marginal_error if strength == np.inf else found.error_bound))
            solution: Floats = found.plan
            for place, (of, step) in enumerate(kinds):
                if of == method:
                    path = potentials(batch, epsilon, strength, step, settings.updates)
                    errors[place] += _errors(batch, path, epsilon, solution)
    errors /= settings.batches
    curves = tuple(
        Curve(method, step is quasi_newton, *found) for (method, step), found in zip(kinds, errors, strict=True)
    )
    known = {of: Known(float(np.mean(np.array(found) <= TOL)), max(found)) for of, found in left.items()}
    return Compared(settings, len(scores), scores.shape[1], curves, known)


def potentials(scores: Floats, epsilon: float, strength: float, step: Step, updates: int) -> list[Floats]:
    """Return the potentials (K,) that a solver comes to on scores (B, K) after 0, 1, ... updates.

    Plain Sinkhorn is SwAV's: its first update balances the columns of ``exp(scores / epsilon)``.
    """
    family, sweep = prepare(DenseScores(scores), epsilon, strength, None, check_finite=False)
    zero = np.zeros(scores.shape[1])
    path: list[Floats] = []

    def recorded(*state: Any) -> Any:
        path.append(state[1].potential)
        return step(*state)

    start = zero
    if family.exact and step is plain:
        path.append(zero)
        start = plain_step_from(family, zero, sweep.log_column_sums() - log(len(scores)))
    # The step is asked for after every sweep but the last, whose potential is that of the solution.
    path_end = solve(sweep, family, start, recorded, tol=0, max_sweeps=updates + 1 - len(path))
    return [*path, path_end.point.potential]


def _batches(scores: NDArray[Any], settings: Convergence) -> Iterator[Floats]:
    random = np.random.default_rng(settings.seed)
    for _ in range(settings.batches):
        rows = np.sort(random.choice(len(scores), settings.batch_size, replace=False))
        yield np.asarray(scores[rows], dtype=np.float64)


def _errors(scores: Floats, path: Sequence[Floats], epsilon: float, solution: Floats) -> Floats:
    """Return squared errors, mean total variations and shares of changed labels along a path, shape (3, updates)."""
    likeliest = solution.argmax(axis=1)
    found = []
    for potential in path:
        plan: Floats = softmax((scores - potential) / epsilon, axis=1)
        apart = plan - solution
        changed = np.mean(plan.argmax(axis=1) != likeliest)
        found.append(((apart**2).sum(), np.abs(apart).sum() / (2 * len(plan)), changed))
    return np.array(found).T


def draw(found: Compared) -> Figure:
    """Draw squared errors by update on a logarithmic axis, and the labels after a few updates."""
    settings = found.settings
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(2, 1.2, 1.2))
    panels: list[tuple[Any, Callable[[Curve], tuple[Any, Any]]]] = [
        (left, lambda curve: (np.arange(len(curve.sse)), curve.sse)),
        (middle, lambda curve: (range(len(FEW)), curve.total_variation[list(FEW)])),
        (right, lambda curve: (range(len(FEW)), 100 * curve.changed[list(FEW)])),
    ]
    for axes, points in panels:
        for curve in found.curves:
            color = BLUE if curve.method == "MIRA" else ORANGE
            style = partial(axes.plot, color=color, linestyle="--" if curve.accelerated else "-", label=curve.name)
            style(*points(curve), marker=None if axes is left else "o", markersize=4)
        clean(axes)
    left.set_yscale("log")
    left.set_xlim(0, settings.updates)
    left.set_xlabel("updates (passes over the batch)")
    left.set_ylabel("sum of squared errors of the plan")
    title(left, f"To the solution: mean of {settings.batches} batches of {settings.batch_size}, K = {found.labels}")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    middle.set_yscale("log")
    middle.set_ylabel("mean total variation to the solution")
    title(middle, "Labels after few updates")
    right.set_ylabel("rows with another likeliest label (%)")
    right.set_ylim(bottom=0)
    title(right, "Hard labels")
    for axes in (middle, right):
        axes.set_xticks(range(len(FEW)), [str(number) for number in FEW])
        axes.set_xlabel("updates")
    figure.supxlabel(
        f"MIRA: beta {settings.beta:.3g}, temperature {settings.temperature:.3g};  Sinkhorn: epsilon"
        f" {settings.epsilon:.3g}",
        fontsize=9,
        color="#5b6570",
    )
    return figure
