"""What the laws of an assignment solver are told, and how a broken law says so."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol

import numpy as np

from infoassign.arrays import on_host
from infoassign.testing.definitions import Matrix

P = ParamSpec("P")

STATEMENTS: dict[str, tuple[str, ...]] = {}
"""The numbers of the statements of the theory that each law, by its name, is about."""


def law(*statements: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a function a law: what it raises names it and its statements.

    Examples
    --------
    >>> @law("A4")
    ... def two_is_two(number: int) -> None:
    ...     require(number == 2, f"it is {number}")
    >>> two_is_two(3)
    Traceback (most recent call last):
        ...
    AssertionError: two_is_two (A4) is broken: it is 3
    """

    def decorate(check: Callable[P, None]) -> Callable[P, None]:
        STATEMENTS[check.__name__] = statements

        @wraps(check)
        def checked(*args: P.args, **options: P.kwargs) -> None:
            try:
                check(*args, **options)
            except AssertionError as broken:
                of = f" ({', '.join(statements)})" if statements else ""
                raise AssertionError(f"{check.__name__}{of} is broken: {broken}") from None

        return checked

    return decorate


def require(holds: Any, message: str) -> None:
    """Raise AssertionError with a message unless something holds; also under ``python -O``."""
    if not holds:
        raise AssertionError(message)


class Solved(Protocol):
    """What a solver has to answer: these attributes, of the same meaning as in :class:`infoassign.Assignment`.

    Arrays may be of any library; they are copied to NumPy float64. Laws read ``row_error_bound`` and
    ``mutual_information``, too, where they are there.
    """

    @property
    def plan(self) -> Any:
        """The plan, shape (B, K)."""

    @property
    def potential(self) -> Any:
        """The potential v of the plan, shape (K,), in units of scores / temperature; anything for an unusable label."""

    @property
    def gap(self) -> Any:
        """What the plan's objective is claimed to be above the dual's at most, in units of scores / temperature."""

    @property
    def error_bound(self) -> Any:
        """What the mean total variation to the optimal plan is claimed to be at most."""

    @property
    def sweeps(self) -> Any:
        """How many times the scores were passed over."""

    @property
    def converged(self) -> Any:
        """Whether it is claimed that `error_bound` is within `tol`."""


class Solver(Protocol):
    """A function that solves MIRA's problem, on NumPy float64 scores of shape (B, K)."""

    def __call__(self, scores: Matrix, /, *, beta: float, temperature: float, tol: float, max_sweeps: int) -> Solved:
        """Solve to `tol`, in `max_sweeps` sweeps at most; at `tol` 0 make all of them, or fewer if nothing is left."""


@dataclass(frozen=True)
class Answer:
    """What a solver answered, on the host in float64."""

    plan: Matrix
    potential: Matrix
    gap: float
    error_bound: float
    sweeps: int
    converged: bool
    row_error_bound: float
    """``inf`` where the solver claims none."""
    mutual_information: float | None


def host(array: Any) -> Matrix:
    """Copy an array of any library, or a list, to NumPy float64."""
    known = hasattr(array, "__array_namespace__") or hasattr(array, "device")
    return np.asarray(on_host(array) if known else np.asarray(array, dtype=float))


def ask(
    solve: Callable[..., Any],
    scores: Matrix,
    beta: float,
    temperature: float,
    tol: float,
    max_sweeps: int = 5000,
    **options: Any,
) -> Answer:
    """Call a solver with a copy of the scores, and read its answer.

    Raises
    ------
    AssertionError
        If what it claims is no number.
    """
    given = scores.copy()
    found = solve(given, beta=beta, temperature=temperature, tol=tol, max_sweeps=max_sweeps, **options)
    require(np.array_equal(given, scores), "the scores that were given have been written to")
    information = getattr(found, "mutual_information", None)
    answer = Answer(
        host(found.plan),
        host(found.potential),
        float(found.gap),
        float(found.error_bound),
        int(found.sweeps),
        bool(found.converged),
        float(getattr(found, "row_error_bound", np.inf)),
        None if information is None else float(information),
    )
    shape = (*answer.plan.shape, *answer.potential.shape)
    require(shape == (*scores.shape, scores.shape[1]), f"plan and potential have shapes {shape} for {scores.shape}")
    claims = np.array([answer.gap, answer.error_bound, answer.row_error_bound])
    require(not np.isnan(claims).any() and (claims >= 0).all(), f"gap and bounds are claimed to be {claims}")
    require(np.isfinite(answer.gap), "the gap is claimed to be infinite")
    require(answer.sweeps >= 1, f"{answer.sweeps} sweeps are claimed")
    return answer
