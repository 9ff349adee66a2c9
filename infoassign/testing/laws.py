"""Laws that any solver of MIRA's problem, any plain step, any joint-entropy loss and any backend must keep.

:func:`assignment_solver`, :func:`plain_step` and :func:`entropy_objective` try all of them on fixed problems and on
those that hypothesis finds, :func:`backend` on fixed cases. Every law is also a function of its own, to be run on a
problem of one's own: see
:mod:`~infoassign.testing.assignment_laws`, :mod:`~infoassign.testing.step_laws`,
:mod:`~infoassign.testing.entropy_laws` and :mod:`~infoassign.testing.backend_laws`, which also state the contracts.
"""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

from infoassign.testing import assignment_laws, backend_laws, entropy_laws, step_laws, strategies
from infoassign.testing.contract import STATEMENTS
from infoassign.testing.problems import Codes, known_problems, linear_code, one_hot_logits, planted_transport

__all__ = ["STATEMENTS", "assignment_solver", "backend", "entropy_objective", "plain_step"]


def assignment_solver(
    solve: Callable[..., Any], *, tol: float = assignment_laws.TOL, settings: hypothesis_settings | None = None
) -> None:
    """Put a solver of MIRA's problem to the test.

    Parameters
    ----------
    solve
        Called as ``solve(scores, beta=..., temperature=..., tol=..., max_sweeps=...)`` with NumPy float64 scores of
        shape (B, K); its answer has the attributes of :class:`infoassign.testing.contract.Solved`, as an
        :class:`infoassign.Assignment` has. If it also has an argument ``start``, it is started from random potentials.
    tol
        What is asked for, and what is granted beyond the claimed bounds.
    settings
        How hypothesis searches, after some fixed problems. Default: as in the profile that is loaded, but always the
        same examples.

    Raises
    ------
    AssertionError
        If a law is broken; the message names it and the statement of the theory. Hypothesis shows the problem.

    Examples
    --------
    >>> import infoassign as ia
    >>> assignment_solver(ia.mira, settings=hypothesis_settings(max_examples=10))

    A solver that takes the temperature for one per cent more than it is:

    >>> def wrong(scores, *, temperature, **options):
    ...     return ia.mira(scores, temperature=1.01 * temperature, **options)
    >>> try:
    ...     assignment_solver(wrong)
    ... except AssertionError as broken:
    ...     print(broken)  # doctest: +ELLIPSIS
    plan_is_that_of_the_potential (A2) is broken: the plan and that of its potential differ by ...
    """
    laws: tuple[Callable[..., None], ...] = assignment_laws.LAWS
    if "start" in signature(solve).parameters:
        laws = (*laws, assignment_laws.every_start_leads_to_the_same_plan)

    def keeps_the_laws(problem: Any) -> None:
        for law in laws:
            law(solve, problem, tol)

    _granted(tol)
    for problem in known_problems():
        _shown(keeps_the_laws, problem)
    _search(keeps_the_laws, strategies.problems(), settings)


def plain_step(step: Callable[..., Any], *, settings: hypothesis_settings | None = None) -> None:
    """Put a plain step, the update of MIRA's eq. 7 or of Sinkhorn, to the test.

    Parameters
    ----------
    step
        Called as ``step(potential, scores, epsilon=..., strength=..., prior=...)``; returns the next potential.
    settings
        As in :func:`assignment_solver`.

    Raises
    ------
    AssertionError
        If a law is broken.

    Examples
    --------
    >>> from scipy.special import log_softmax, logsumexp
    >>> def step(v, scores, *, epsilon, strength, prior):
    ...     log_w = log_softmax((scores - v) / epsilon, axis=1)
    ...     moved = v + epsilon * (logsumexp(log_w, axis=0) - np.log(len(scores)) - np.log(prior))
    ...     return moved if strength == np.inf else strength / (strength + epsilon) * moved
    >>> plain_step(step, settings=hypothesis_settings(max_examples=30))
    """

    def keeps_the_laws(problem: Any) -> None:
        for law in step_laws.LAWS:
            law(step, problem)

    random = np.random.default_rng(0)
    for strength in (0.5, 5.0, np.inf):
        prior = random.dirichlet(np.ones(4))
        _shown(keeps_the_laws, planted_transport(random.normal(size=(6, 4)), 0.5, strength, prior))
    _search(keeps_the_laws, strategies.transports(), settings)


def entropy_objective(
    loss: Callable[..., Any], *, tol: float = entropy_laws.TOL, settings: hypothesis_settings | None = None
) -> None:
    """Put a joint-entropy loss, as MUSIC's and IMSVD's, to the test.

    Parameters
    ----------
    loss
        Called as ``loss(z1, z2, units)`` with NumPy float64 logits of shape (N, sum of units); returns ``(value,
        gradient1, gradient2)`` of ``DE / M + OE / (M (M - 1)) + TI``.
    tol
        The error that it may have, relative to 1 plus what is right.
    settings
        As in :func:`assignment_solver`.

    Raises
    ------
    AssertionError
        If a law is broken; the message names it and the statement of the theory.

    Examples
    --------
    >>> from infoassign.testing.definitions import joint_entropy_gradients, joint_entropy_loss
    >>> def loss(z1, z2, units):
    ...     return (joint_entropy_loss(z1, z2, units), *joint_entropy_gradients(z1, z2, units))
    >>> entropy_objective(loss, settings=hypothesis_settings(max_examples=30))
    """

    def keeps_the_laws(codes: Any) -> None:
        for law in entropy_laws.LAWS:
            law(loss, codes, tol)

    _granted(tol)
    random = np.random.default_rng(0)
    for units in ((3, 3), (1, 2, 4), (5,), (6, 2, 3, 1, 4, 2)):
        first, second = random.normal(size=(2, 7, sum(units)))
        _shown(keeps_the_laws, Codes(first, second, units))
    entropy_laws.orthogonal_arrays_attain_the_bound(loss, tol)
    hard = one_hot_logits(linear_code(3, 3)[:5], (3, 3, 3))
    _shown(keeps_the_laws, Codes(hard, hard, (3, 3, 3)))
    _search(keeps_the_laws, strategies.soft_codes(), settings)


def backend(
    module: Any, make: Callable[[Any], Any] = np.asarray, *, dtypes: Sequence[str] = ("float64", "float32")
) -> None:
    """Put a backend, a module that follows :class:`infoassign_backends.protocol.Backend`, to the test.

    Values are compared with the definitions, to what the sweep claims of its own rounding; library, device and dtype of
    all that is returned are asserted; scores come read-only, turned and with gaps, too.

    Parameters
    ----------
    module
        The backend.
    make
        Makes a NumPy array one of the backend's library, on the device that is to be tested.
    dtypes
        Those of the scores; ``"float16"`` for a backend that takes it.

    Raises
    ------
    AssertionError
        If a law is broken; the message names it, and a note the case.

    Examples
    --------
    >>> import array_api_strict
    >>> from infoassign_backends import reference
    >>> backend(reference, array_api_strict.asarray)
    """
    for dtype in dtypes:
        for name, case in backend_laws.cases():
            with np.errstate(over="ignore"):
                scores = case.scores.astype(dtype)
            if not np.array_equal(np.isfinite(scores), np.isfinite(case.scores)):
                continue  # too large for the dtype
            for keeps_the_law in backend_laws.LAWS:
                check = partial(keeps_the_law, module, make, case._replace(scores=scores))
                _noted(check, f"on the case {name!r} in {dtype}")
        for sizes in backend_laws.SIZES if dtype != "float16" else ():
            check = partial(backend_laws.joint_entropies_are_those_of_the_definition, module, make, sizes, dtype)
            _noted(check, f"with segments {sizes} in {dtype}")


def _granted(tol: float) -> None:
    """Say so if a tolerance would make laws void, or none can keep them."""
    if not 0 < tol < 0.1:
        raise ValueError(f"tol must be between 0 and 0.1; got {tol!r}")


def _shown(check: Callable[[Any], None], problem: Any) -> None:
    """Check a fixed problem; whatever is raised has it in a note, as hypothesis shows what it finds."""
    with np.printoptions(floatmode="unique", threshold=2000):
        _noted(lambda: check(problem), f"on the problem {problem!r}")


def _noted(check: Callable[[], None], where: str) -> None:
    """Check; whatever is raised says in a note where."""
    try:
        check()
    except Exception as error:
        error.add_note(where)
        raise


def _search(check: Callable[[Any], None], strategy: SearchStrategy[Any], settings: hypothesis_settings | None) -> None:
    """Let hypothesis look for an example that fails a check, which raises only AssertionError for one."""
    chosen = settings or hypothesis_settings(derandomize=True, database=None)
    chosen = hypothesis_settings(
        chosen, deadline=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck)
    )
    try:
        search: Callable[[], None] = given(strategy)(check)
        chosen(search)()
    except Flaky as unsteady:
        raise AssertionError(f"the same problem is answered differently the next time: {unsteady}") from unsteady
