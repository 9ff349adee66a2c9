"""From scores to labels: solved for all rows, the likeliest, or at the potential of labels that were made before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import INFO, Handler, LogRecord
from math import exp, inf, isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from tqdm import tqdm

import infoassign as ia
from infoassign.solver import LOG
from infoassign_training.labelling.problem import Problem

Scores = ia.StreamedScores | ia.FactoredScores


class Made(NamedTuple):
    """Labels, and what is known of them."""

    labels: NDArray[np.int64]
    """Shape (N,)."""
    potential: NDArray[np.float64]
    """Shape (K,), in units of scores / temperature."""
    plan: Callable[[], Iterator[NDArray[Any]]]
    """Makes the soft labels, rows in order, some at a time."""
    said: dict[str, Any]
    """The certificate, for JSON."""


def solved(scores: Scores, problem: Problem, *, tol: float, max_sweeps: int, balanced: bool, bounds: bool) -> Made:
    """Solve an assignment for all rows together.

    Parameters
    ----------
    scores
        Of N rows and K labels.
    problem
        What to solve.
    tol, max_sweeps
        See :func:`infoassign.assign`.
    balanced
        Whether the hard labels have the shares exactly, floor or ceiling.
    bounds
        Whether to have the gap and the error bounds of an exact marginal, too, which take many passes; those of a
        finite strength take none.

    Raises
    ------
    ValueError
        If scores or shares are such as :func:`infoassign.assign` refuses.
    """
    unit = problem.temperature
    prior = None if problem.prior is None else list(problem.prior)
    with shown_sweeps():
        found = ia.assign(
            scores,
            epsilon=problem.epsilon * unit,
            strength=problem.strength * unit,
            prior=prior,
            tol=tol,
            max_sweeps=max_sweeps,
        )
    said = {
        "status": found.status.value,
        "advice": found.status.advice,
        "converged": found.converged,
        "tol": tol,
        "max_sweeps": max_sweeps,
        "sweeps": found.sweeps,
        "marginal_error": found.marginal_error,
        "objective": found.objective / unit,
        "perplexity": found.perplexity,
        "problem": problem.to_dict(),
    }
    with tqdm(desc="pass over the scores again for", unit="part") as bar:
        bar.set_postfix_str("labels")
        if balanced:
            labels, loss = found.balanced_labels()
            hard: dict[str, Any] = {"kind": "balanced", "optimality_loss": loss / unit}
        else:
            labels, hard = found.labels, {"kind": "likeliest"}
        bar.update()
        bar.set_postfix_str("mutual information")
        said["mutual_information"] = found.mutual_information
        bar.update()
        if bounds or problem.strength < inf:
            bar.set_postfix_str("bounds")
            said["gap"] = found.gap / unit
            said |= {"error_bound": found.error_bound, "row_error_bound": found.row_error_bound}
            bar.update()
    labels = np.asarray(labels, dtype=np.int64)
    potential = np.asarray(found.potential, dtype=np.float64) / unit
    said["hard_labels"] = hard | sizes(labels, len(potential))
    return Made(labels, potential, found.iter_plan, said)


def at_potential(scores: Scores, potential: NDArray[np.float64], epsilon: float, temperature: float) -> Made:
    """Label every row alone, as :meth:`infoassign.Assignment.assign_new`: ``w ∝ exp((s / temperature - v) / epsilon)``.

    With ``v = 0`` the hard labels are the likeliest, and at ``epsilon = 1`` the soft ones the softmax.

    Raises
    ------
    ValueError
        If the scores hold NaN or ``+inf``, or have not as many labels as the potential.

    Examples
    --------
    >>> scores = ia.StreamedScores(np.array([[1.0, 0.0], [0.2, 0.0]]))
    >>> at_potential(scores, np.array([0.5, 0.0]), 1.0, 1.0).labels
    array([0, 1])
    """
    columns = scores.like.shape[-1]
    if columns != len(potential):
        raise ValueError(f"there are scores for {columns} labels, and the potential is of {len(potential)}")
    scores.check(check_finite=True)

    def energies() -> Iterator[NDArray[Any]]:
        for chunk in scores.chunks():
            # Half precision would round what is compared.
            yield np.asarray(chunk, dtype=np.float64) / temperature - potential

    def plans() -> Iterator[NDArray[Any]]:
        return (softmax(energy / epsilon, axis=1) for energy in energies())

    found, mass, entropy = [], np.zeros(columns), 0.0
    for energy in energies():
        if bool((energy.max(axis=1) == -inf).any()):
            raise ValueError("a row of scores may use only labels that no row might use when the potential was solved")
        found.append(energy.argmax(axis=1))
        plan = softmax(energy / epsilon, axis=1)
        mass += plan.sum(axis=0)
        entropy += float(np.sum(ia.entropy(plan)))
    labels = np.concatenate(found).astype(np.int64)
    marginal = float(ia.entropy(mass / len(labels)))
    said = {
        "mutual_information": marginal - entropy / len(labels),
        "perplexity": exp(marginal),
        "problem": {"epsilon": epsilon, "temperature": temperature},
        "hard_labels": {"kind": "likeliest"} | sizes(labels, columns),
    }
    return Made(labels, potential, plans, said)


def sizes(labels: NDArray[np.int64], columns: int) -> dict[str, int]:
    """Return how many labels are in use, and how often the rarest and the commonest of all are.

    Examples
    --------
    >>> sizes(np.array([0, 0, 2]), 3)
    {'used': 2, 'smallest': 0, 'largest': 2}
    """
    counts = np.bincount(labels, minlength=columns)
    return {"used": int((counts > 0).sum()), "smallest": int(counts.min()), "largest": int(counts.max())}


def for_json(value: Any) -> Any:
    """Return a tree in which numbers that JSON has not are words.

    Examples
    --------
    >>> for_json({"gap": float("inf"), "sweeps": 3})
    {'gap': 'inf', 'sweeps': 3}
    """
    if isinstance(value, dict):
        return {name: for_json(item) for name, item in value.items()}
    return str(value) if isinstance(value, float) and not isfinite(value) else value


@contextmanager
def shown_sweeps() -> Iterator[None]:
    """Show the sweeps that the solver logs, and how far it is."""

    class Shown(Handler):
        def emit(self, record: LogRecord) -> None:
            bar.set_postfix_str(record.getMessage().partition(": ")[2])
            bar.update()

    level = LOG.level
    with tqdm(desc="solve", unit="sweep") as bar:
        handler = Shown()
        LOG.addHandler(handler)
        LOG.setLevel(INFO)
        try:
            yield
        finally:
            LOG.setLevel(level)
            LOG.removeHandler(handler)
