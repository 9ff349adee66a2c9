"""How many sweeps each way of stepping needs, on the table and on the suite of problems.py.

    uv run python tests/benchmarks/acceleration.py [table | suite | choices]

Sweeps are counted until the gap (finite strength) or the L1 marginal error (exact marginal) is at most 1e-8, in
float64. The ways that lost are here, written as steps of the library's own loop, so that they can be measured again.
"""

import sys
from collections.abc import Callable
from math import sqrt
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from problems import Problem, suite, table

from infoassign import assignment, solver, steps
from infoassign.objective import Family, Point, dual_noise, gauged

CAP = 5000


class Kept(NamedTuple):
    """The last point that was kept, where a plain step leads from there, and what the proposals remember."""

    point: Point
    plain: Any
    accelerated: bool
    past: list[Any]


def guarded(propose: Callable[[Family, list[Point], list[Any]], Any], depth: int) -> steps.Step:
    """Take a proposal for the next potential if the dual does not fall, a plain step from where it left if it does."""

    def step(family: Family, point: Point, memory: Kept | None) -> tuple[Any, Kept]:
        if memory and memory.accelerated and point.dual < memory.point.dual - dual_noise(memory.point):
            return memory.plain, Kept(memory.point, memory.plain, False, memory.past[-1:])
        plain = steps.plain_step(family, point)
        past = [*(memory.past if memory else []), (point, plain)][-depth - 1 :]
        if len(past) < 2:
            return plain, Kept(point, plain, False, past)
        return propose(family, [p for p, _ in past], [x for _, x in past]), Kept(point, plain, True, past)

    return step


def anderson(family: Family, points: list[Point], images: list[Any]) -> Any:
    """Mix the last images so that the mixed residual is least in the metric of u, normal equations regularised."""
    inputs, outputs = np.array([p.potential for p in points]), np.array(images)
    u = np.exp(points[-1].log_target)
    residuals = outputs - inputs
    residuals = residuals - (residuals @ u)[:, None]
    change = np.diff(residuals, axis=0)
    gram = (change * u) @ change.T
    scale = np.sqrt(np.diag(gram)) + 1e-300
    gram = gram / np.outer(scale, scale) + 1e-10 * np.eye(len(gram))
    weights = np.linalg.solve(gram, (change * u) @ residuals[-1] / scale) / scale
    return gauged(family, outputs[-1] - weights @ np.diff(outputs, axis=0), points[-1].usable)


def heavy_ball(family: Family, points: list[Point], images: list[Any]) -> Any:
    """Theory, A12; for an exact marginal with lambda_2 as the last two steps show it in the place of beta."""
    beta = family.beta
    if family.exact:
        weight = np.exp(points[-1].log_target)
        before, last = (weight @ (x - p.potential) ** 2 for p, x in zip(points[-2:], images[-2:], strict=True))
        beta = float(np.clip(sqrt(last / before) if before > 0 else 0.9, 0.9, 0.999))
    root = sqrt(1 - beta)
    momentum = ((1 - root) / (1 + root)) ** 2
    here, before_here = points[-1].potential, points[-2].potential
    length = 4 / (1 + root) ** 2
    return gauged(family, here + length * (images[-1] - here) + momentum * (here - before_here), points[-1].usable)


def by_measure(family: Family, point: Point) -> solver.Progress:
    """Progress without rounding: what is counted is when the measure is small."""
    found = ASSESS(family, point)
    return solver.Progress(error=found.measure, floor=0 * found.floor, measure=found.measure)


ASSESS = solver.assess
STEPS: dict[str, steps.Step] = {
    "plain": steps.plain,
    "quasi-Newton": steps.quasi_newton,
    "Anderson 8": guarded(anderson, 8),
    "Anderson 20": guarded(anderson, 20),
    "heavy ball": guarded(heavy_ball, 1),
}


def solved(problem: Problem, step: steps.Step) -> tuple[int, bool, float]:
    """Return the sweeps, whether they were enough, and the seconds."""
    assignment.ACCELERATIONS["measured"] = step
    start = perf_counter()
    found = assignment.assign(
        problem.scores, epsilon=problem.epsilon, strength=problem.strength, prior=problem.prior,
        tol=1e-8, max_sweeps=CAP, acceleration="measured",
    )  # fmt: skip
    return found.sweeps, found.converged, perf_counter() - start


def shown(problem: Problem, step: steps.Step, repeats: int = 3) -> str:
    """Sweeps and the median time of a few runs."""
    runs = [solved(problem, step) for _ in range(repeats)]
    sweeps, enough, _ = runs[0]
    return f"{'' if enough else '> '}{sweeps} ({1000 * median(time for *_, time in runs):.0f} ms)"


def compare(problems: list[Problem], names: list[str]) -> None:
    """Print a table with a column for each way of stepping."""
    print("| problem |", " | ".join(names), "|")
    print("|---" * (len(names) + 1) + "|")
    for problem in problems:
        print(f"| {problem.name} |", " | ".join(shown(problem, STEPS[name]) for name in names), "|", flush=True)


def choices() -> None:
    """Print the sweeps on the table, over three seeds, as the constants of the quasi-Newton step change."""
    settings: list[dict[str, float]] = [
        {}, {"DEPTH": 5}, {"DEPTH": 10}, {"DEPTH": 40}, {"LONGEST": 1.0}, {"LONGEST": 16.0},
        {"SHRINK": 0.5, "GROW": 2.0}, {"SHRINK": 0.1, "GROW": 2.0}, {"SHRINK": 1e9, "GROW": 1e9}, {"SUFFICIENT": 0.1},
    ]  # fmt: skip
    tables = [table(seed) for seed in range(3)]
    print("| constants |", " | ".join(problem.name for problem in tables[0]), "|")
    print("|---" * (len(tables[0]) + 1) + "|")
    for changed in settings:
        kept = {name: getattr(steps, name) for name in changed}
        for name, value in changed.items():
            setattr(steps, name, value)
        cells = [", ".join(str(solved(p, steps.quasi_newton)[0]) for p in seeds) for seeds in zip(*tables, strict=True)]
        print(f"| {changed or 'as they are'} |", " | ".join(cells), "|", flush=True)
        for name, value in kept.items():
            setattr(steps, name, value)


if __name__ == "__main__":
    solver.assess = by_measure
    solver.PATIENCE = 10 * CAP
    wanted = sys.argv[1:] or ["table", "suite", "choices"]
    if "table" in wanted:
        compare(table(), list(STEPS))
    if "suite" in wanted:
        compare(suite(), ["plain", "quasi-Newton"])
    if "choices" in wanted:
        choices()
