"""Laws of a solver of MIRA's problem, whatever it is written with.

Each is a function ``law(solve, problem, tol=1e-9)``. It asks `solve` for an answer to `tol` (see
:class:`infoassign.testing.contract.Solver`) and raises AssertionError, naming itself and the statement of the theory,
if the answer cannot be right. Only claims are believed in one direction: two answers may differ by the sum of their
claimed error bounds, by `tol`, and by what rounding of float64 scores does. A solver in single precision is tested
with a `tol` of, say, 1e-4.

- `solve` is what is tested;
- `problem` is a :class:`infoassign.testing.problems.Problem`, whose solution is known;
- `tol` is what `solve` is asked for, and what it is granted beyond its own bounds.

Examples
--------
>>> import infoassign as ia
>>> from infoassign.testing.problems import planted
>>> problem = planted(np.array([[2.0, 0.0], [1.0, 0.0]]), beta=0.5)
>>> error_bound_holds_when_stopped_early(ia.mira, problem)
>>> def certain(scores, **options):
...     found = ia.mira(scores, **options)
...     return Answer(found.plan, found.potential, found.gap, 0.0, found.sweeps, True, np.inf, None)
>>> error_bound_holds_when_stopped_early(certain, problem)  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
AssertionError: error_bound_holds_when_stopped_early (A5) is broken: ...
"""

from collections.abc import Callable
from math import ceil, log
from typing import Any

import numpy as np
from scipy.special import rel_entr, softmax

from infoassign.testing.contract import Answer, ask, law, require
from infoassign.testing.definitions import (
    Matrix,
    duality_gap,
    log_mean,
    log_plan,
    log_target,
    mean_total_variation,
    mutual_information,
    primal,
    usable,
)
from infoassign.testing.problems import Problem

TOL = 1e-9
"""What is asked for unless something else is said."""
EARLY = (1, 2, 3, 5, 10, 30)
"""After how many sweeps a solver is stopped, to hold its claims against the truth."""
Solve = Callable[..., Any]


def _solution(solve: Solve, problem: Problem, tol: float, max_sweeps: int = 5000, **options: Any) -> Answer:
    return ask(solve, problem.scores, problem.beta, problem.temperature, tol, max_sweeps, **options)


def _early(solve: Solve, problem: Problem, sweeps: int) -> Answer:
    """Stop after some sweeps, whatever the error."""
    return _solution(solve, problem, 0.0, sweeps)


def _agree(first: Matrix, second: Matrix, claimed: float, what: str) -> None:
    """Require that two plans differ by no more than is claimed."""
    distance = mean_total_variation(first, second)
    require(
        distance <= claimed,
        f"{what} differ by {distance:.3g} in mean total variation, at most {claimed:.3g} is claimed",
    )


@law("A2")
def rows_are_distributions(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """Every row of the plan lies in the simplex, and forbidden pairs get nothing; stopped early, too."""
    for answer in (_solution(solve, problem, tol), _early(solve, problem, 1)):
        require(np.isfinite(answer.plan).all(), "the plan is not finite")
        require((answer.plan >= 0).all(), f"the plan has an entry of {answer.plan.min():.3g}")
        off = np.abs(answer.plan.sum(axis=1) - 1).max()
        require(off <= tol + problem.rounding, f"a row sums to 1 up to {off:.3g}")
        require((answer.plan[problem.scores == -np.inf] == 0).all(), "a forbidden pair got something")


@law("A2")
def plan_is_that_of_the_potential(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """``w_ij ∝ exp((s_ij - v_j) / epsilon)``, at the end and wherever the solver is stopped."""
    for answer in (_solution(solve, problem, tol), _early(solve, problem, 1), _early(solve, problem, 3)):
        right = np.exp(log_plan(answer.potential, problem.scaled, problem.epsilon))
        _agree(answer.plan, right, tol + problem.rounding, "the plan and that of its potential")


@law("A2")
def marginal_is_what_the_potential_asks_for(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """At the solution ``wbar`` is u, with ``u ∝ exp(v / rho)`` (MIRA, eq. 5); by A4 and Pinsker up to the gap."""
    if problem.beta == 0:
        return
    answer = _solution(solve, problem, tol)
    u = np.exp(log_target(answer.potential, problem.scaled, problem.beta))
    off = float(np.abs(answer.plan.mean(axis=0) - u).sum())
    allowed = np.sqrt(2 * answer.gap / problem.beta) + 2 * (tol + problem.rounding)
    require(
        off <= allowed, f"the marginal is {off:.3g} from what the potential asks for, by the gap at most {allowed:.3g}"
    )


@law("A1", "A2")
def no_plan_is_better(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """No plan has a lower objective, and each is as much above as strong convexity (modulus epsilon / B) demands.

    Tried are the way to the softmax, to the uniform plan, to a single label for all, and random ways, short and long.
    """
    answer = _solution(solve, problem, tol)
    allowed = problem.scores > -np.inf
    random = np.random.default_rng(0)
    ends = [softmax(problem.scaled, axis=1), allowed / allowed.sum(axis=1, keepdims=True)]
    ends += [softmax(np.where(allowed, random.normal(size=allowed.shape) * 3, -np.inf), axis=1) for _ in range(3)]
    ends += [np.eye(allowed.shape[1])[np.full(len(allowed), j)] for j in np.nonzero(allowed.all(axis=0))[0][:3]]
    value = primal(answer.plan, problem.scaled, problem.epsilon, problem.beta)
    scale = 1 + float(np.max(np.abs(problem.scaled), where=allowed, initial=0.0))
    slack = answer.gap + 4 * (tol + problem.rounding) * scale
    # A total variation e is a root mean square of at most 2 sqrt(e): so far the optimum may be from the plan.
    near = 2 * float(np.sqrt(answer.error_bound + tol + problem.rounding))
    for end in ends:
        for step in (1.0, 0.1, 0.01):
            move = step * (end - answer.plan)
            higher = primal(answer.plan + move, problem.scaled, problem.epsilon, problem.beta) - value
            length = float(np.sqrt((move**2).sum() / len(move)))
            least = problem.epsilon / 2 * max(0.0, length - near) ** 2 - slack
            require(higher >= least, f"a plan is above by {higher:.3g}, where convexity demands {least:.3g}")


@law("A4")
def gap_is_not_understated(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """The claimed gap is at least ``rho KL(wbar || u)``, which is primal minus dual exactly; wherever it is stopped."""
    answers = [_early(solve, problem, sweeps) for sweeps in EARLY]
    for answer in (*answers, _solution(solve, problem, tol)):
        right = duality_gap(answer.potential, problem.scaled, problem.epsilon, problem.beta)
        floor = 4 * problem.epsilon * (tol + problem.rounding) ** 2
        require(answer.gap >= right * (1 - 1e-6) - floor, f"the gap is {right:.6g}, claimed is {answer.gap:.6g}")


@law("A5")
def error_bound_holds_when_stopped_early(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """After any number of sweeps the optimum is within the claimed bound, for the mean and the worst row."""
    for sweeps in EARLY:
        answer = _early(solve, problem, sweeps)
        require(answer.sweeps <= sweeps, f"{answer.sweeps} sweeps were made, allowed were {sweeps}")
        slack = tol + problem.rounding
        _agree(answer.plan, problem.plan, answer.error_bound + slack, "the plan and the optimum")
        worst = float(np.abs(answer.plan - problem.plan).sum(axis=1).max() / 2)
        bound = answer.row_error_bound
        require(worst <= bound + slack, f"a row is {worst:.3g} from the optimum, at most {bound:.3g} is claimed")


@law("A5")
def converged_means_within_tol(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """Who claims to have converged claims an error within `tol`, and is right; however few sweeps were allowed."""
    for sweeps in (1, 2, 4, 5000):
        answer = _solution(solve, problem, tol, sweeps)
        require(answer.sweeps <= sweeps, f"{answer.sweeps} sweeps were made, allowed were {sweeps}")
        if answer.converged:
            require(
                answer.error_bound <= tol, f"converged with an error bound of {answer.error_bound:.3g}, tol {tol:.3g}"
            )
            _agree(answer.plan, problem.plan, tol + problem.rounding, "the converged plan and the optimum")


@law("A6")
def converges_at_the_proved_rate(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """It converges in the sweeps that plain steps need at worst, where rounding lets it: a law of plain steps alone.

    In log u they contract the sup norm by beta, so that after n of them ``osc(d) <= 2 beta^n max|d_0|``, and A5 makes
    an error bound of it: ``tanh(rho osc(d) / (4 epsilon))``, or ``sqrt(rho osc(d)^2 / (32 epsilon))`` by the gap.
    """
    _converges_in(guaranteed_sweeps(problem, tol / 2), solve, problem, tol)


@law("A6")
def converges_in_twice_the_proved_sweeps(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """It converges in twice as many sweeps as plain steps need at worst, and five: where rounding lets it.

    Accelerated steps are not bound by the rate of plain ones. A solver that tries one and falls back on a plain step
    when it fails makes two sweeps for one; it should need no more than that.
    """
    _converges_in(2 * guaranteed_sweeps(problem, tol / 2) + 5, solve, problem, tol)


def _converges_in(sweeps: int, solve: Solve, problem: Problem, tol: float) -> None:
    if problem.rounding * 100 > tol:
        return
    answer = _solution(solve, problem, tol, sweeps)
    require(
        answer.converged, f"not converged in {answer.sweeps} sweeps, with an error bound of {answer.error_bound:.3g}"
    )


def guaranteed_sweeps(problem: Problem, tol: float) -> int:
    """Return in how many sweeps plain steps from ``v = 0`` certify an error of at most `tol` (theory, A5 and A6).

    Parameters
    ----------
    problem
        What is solved.
    tol
        On the mean total variation, as everywhere.

    Examples
    --------
    >>> from infoassign.testing.problems import identical_rows
    >>> guaranteed_sweeps(identical_rows(np.array([1.0, 0.0]), 3, beta=0.5), tol=1e-6)
    22
    """
    if problem.beta == 0:
        return 1
    columns = usable(problem.scores)
    start = log_mean(log_plan(np.zeros(len(columns)), problem.scaled, problem.epsilon))[columns]
    d = start - log_target(np.zeros(len(columns)), problem.scores, problem.beta)[columns]
    ratio = problem.epsilon / problem.beta
    target = tol * min(2 * ratio, np.sqrt(32 * ratio))
    first = 2 * float(np.abs(d).max())
    return 1 + max(1, ceil(log(max(first, target) / target) / -log(problem.beta)))


@law("A1")
def order_of_rows_and_labels_does_not_matter(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """Permuted scores have the permuted plan."""
    rows, columns = problem.scores.shape
    answer = _solution(solve, problem, tol)
    for order in (np.ix_(np.arange(rows)[::-1], np.arange(columns)), np.ix_(np.arange(rows), np.arange(columns)[::-1])):
        other = ask(solve, problem.scores[order], problem.beta, problem.temperature, tol)
        claimed = answer.error_bound + other.error_bound + tol + problem.rounding
        _agree(other.plan, answer.plan[order], claimed, "the plan of permuted scores and the permuted plan")


@law("A1")
def shifts_of_rows_do_not_matter(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """A constant added to a row's scores changes nothing."""
    answer = _solution(solve, problem, tol)
    shifts = problem.temperature * np.linspace(-3, 5, len(problem.scores))[:, None]
    other = ask(solve, problem.scores + shifts, problem.beta, problem.temperature, tol)
    claimed = answer.error_bound + other.error_bound + tol + 8 * problem.rounding
    _agree(other.plan, answer.plan, claimed, "the plans of scores and shifted scores")


@law("A1")
def temperature_divides_the_scores(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """Scores and temperature in another unit have the same plan, as have scores already divided, at temperature 1."""
    answer = _solution(solve, problem, tol)
    for scores, temperature in ((problem.scores * 3, problem.temperature * 3), (problem.scaled, 1.0)):
        other = ask(solve, scores, problem.beta, temperature, tol)
        claimed = answer.error_bound + other.error_bound + tol + problem.rounding
        _agree(other.plan, answer.plan, claimed, "the plans at two temperatures")


@law("A1")
def repeating_the_batch_changes_nothing(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """A batch in which every row is there twice has every row's plan twice: all terms are means over rows."""
    answer = _solution(solve, problem, tol)
    other = ask(solve, np.concatenate([problem.scores] * 2), problem.beta, problem.temperature, tol)
    claimed = answer.error_bound + other.error_bound + tol + problem.rounding
    _agree(
        other.plan, np.concatenate([answer.plan] * 2), claimed, "the plan of the repeated batch and the repeated plan"
    )


@law("A1")
def equal_labels_share_equally(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """Two labels with the same scores get equal shares of every row: the solution is one, no index breaks a tie."""
    tied = np.concatenate([problem.scores, problem.scores[:, :1]], axis=1)
    answer = ask(solve, tied, problem.beta, problem.temperature, tol)
    # Swapping the two changes the optimum not at all, and the plan by twice its error at most.
    difference = float(np.abs(answer.plan[:, 0] - answer.plan[:, -1]).mean())
    claimed = 2 * answer.error_bound + tol + problem.rounding
    require(difference <= claimed, f"two equal labels differ by {difference:.3g}, at most {claimed:.3g} is claimed")


@law("A3", "A5")
def small_beta_is_the_softmax(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """At beta = 0 the plan is the softmax; near 0 it is as near as A5 says of the potential 0."""
    for beta in (0.0, 1e-3):
        answer = ask(solve, problem.scores, beta, problem.temperature, tol)
        at_zero = log_plan(np.zeros(problem.scores.shape[1]), problem.scaled, 1 - beta)
        marginal = log_mean(at_zero)[usable(problem.scores)]
        row_bound = np.tanh(beta / (1 - beta) / 4 * (marginal.max() - marginal.min()))
        claimed = row_bound + answer.error_bound + tol + problem.rounding
        _agree(answer.plan, np.exp(at_zero), claimed, f"the plan for beta {beta} and the softmax")


def _entropy_slack(answer: Answer, problem: Problem, tol: float) -> float:
    """What an information may be off by, for a plan that is off by e: two entropies by ``e log K + h(e)`` each."""
    error = answer.error_bound + tol + problem.rounding
    return 8 * error * (log(problem.scores.shape[1]) - log(min(error, 0.5)))


@law("A13")
def information_is_within_its_bounds(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """``I(P) + mean KL(W || P) / beta <= I(W) <= log min(B, K)``, and what the solver says I(W) is, it is."""
    answer = _solution(solve, problem, tol)
    information = mutual_information(answer.plan)
    p = softmax(problem.scaled, axis=1)
    slack = _entropy_slack(answer, problem, tol)
    require(information <= log(min(problem.scores.shape)) + slack, f"the information is {information:.6g}")
    if problem.beta > 0:
        least = mutual_information(p) + float(rel_entr(answer.plan, p).sum()) / len(p) / problem.beta
        # log p varies over a row by the spread of its scores at most, each of which counts with the plan's error.
        largest = float(np.max(np.abs(problem.scaled), where=problem.scores > -np.inf, initial=0.0))
        cross = 4 * largest * (answer.error_bound + tol + problem.rounding)
        require(
            information >= least - (slack + cross) / problem.beta,
            f"the information is {information:.6g}, at least {least:.6g} was to be had",
        )
    said = answer.mutual_information
    require(
        said is None or abs(said - information) <= slack, f"the information is {information:.6g}, claimed is {said}"
    )


@law("A13")
def information_never_decreases_in_beta(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """The more weight the information has, the more of it the plan carries."""
    before = -np.inf
    for beta in (0.0, 0.2, 0.5, 0.7):
        answer = ask(solve, problem.scores, beta, problem.temperature, tol)
        slack = _entropy_slack(answer, problem, tol)
        information = mutual_information(answer.plan)
        require(information >= before - slack, f"it falls from {before:.9g} to {information:.9g} at beta {beta}")
        before = information


@law("A1", "A6")
def every_start_leads_to_the_same_plan(solve: Solve, problem: Problem, tol: float = TOL) -> None:
    """For a solver with a further argument ``start``, a potential: wherever it starts, the plan is the one solution."""
    random = np.random.default_rng(0)
    for spread in (0.1, 1.0, 10.0):
        start = random.normal(size=problem.scores.shape[1]) * spread
        answer = _solution(solve, problem, tol, start=start)
        claimed = answer.error_bound + tol + problem.rounding
        _agree(answer.plan, problem.plan, claimed, "the plan from a random start and the optimum")
        require(answer.converged or problem.rounding * 100 > tol, "from a random start it did not converge")


LAWS = (
    rows_are_distributions,
    plan_is_that_of_the_potential,
    converged_means_within_tol,
    error_bound_holds_when_stopped_early,
    gap_is_not_understated,
    marginal_is_what_the_potential_asks_for,
    no_plan_is_better,
    order_of_rows_and_labels_does_not_matter,
    shifts_of_rows_do_not_matter,
    temperature_divides_the_scores,
    repeating_the_batch_changes_nothing,
    equal_labels_share_equally,
    small_beta_is_the_softmax,
    information_is_within_its_bounds,
    information_never_decreases_in_beta,
    converges_in_twice_the_proved_sweeps,
)
"""All laws of any solver that keeps the contract."""
