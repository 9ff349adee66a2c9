"""Problems whose answer is known without a solver, and codes that are known to be optimal."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax

from infoassign.testing.definitions import Matrix, log_mean, usable


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem of :func:`infoassign.mira` and its one solution.

    Examples
    --------
    >>> Problem(np.zeros((1, 2)), beta=0.5, temperature=0.1, plan=np.array([[0.5, 0.5]]))
    Problem('problem', beta=0.5, temperature=0.1, scores=[[0., 0.]])
    """

    scores: Matrix
    """Shape (B, K), float64; ``-inf`` forbids a label to a row."""
    beta: float
    """In [0, 1)."""
    temperature: float
    """What the solver divides the scores by."""
    plan: Matrix
    """The optimal plan, shape (B, K), exact up to :attr:`rounding`."""
    name: str = "problem"
    """What kind it is of."""

    @property
    def epsilon(self) -> float:
        """Weight of the rows' entropy, ``1 - beta``; energies are in units of scores / temperature."""
        return 1 - self.beta

    @property
    def scaled(self) -> Matrix:
        """The scores divided by the temperature."""
        return self.scores / self.temperature

    @property
    def rounding(self) -> float:
        """How far, in total variation, float64 scores can be expected to leave any solver from `plan`."""
        largest = np.max(np.abs(self.scaled), where=self.scores > -np.inf, initial=0.0)
        return float(16 * np.finfo(float).eps * (1 + largest / self.epsilon) / self.epsilon)

    def __repr__(self) -> str:
        return (
            f"Problem({self.name!r}, beta={self.beta!r}, temperature={self.temperature!r},"
            f" scores={np.array2string(self.scores, separator=', ', floatmode='unique')})"
        )


@dataclass(frozen=True, eq=False)
class Transport:
    """A problem of :func:`infoassign.assign` with its solution.

    Examples
    --------
    >>> problem = planted_transport(np.zeros((2, 2)), 0.5, np.inf, np.array([0.5, 0.5]))
    >>> bool(np.ptp(problem.potential) == 0), problem.modulus
    (True, 1.0)
    """

    scores: Matrix
    """Shape (B, K), float64; ``-inf`` forbids a label to a row."""
    epsilon: float
    """Weight of the rows' entropy, in units of the scores."""
    strength: float
    """In (0, inf]."""
    prior: Matrix
    """Shape (K,)."""
    potential: Matrix
    """The optimal potential, shape (K,), up to a constant."""
    plan: Matrix
    """The optimal plan, shape (B, K)."""

    @property
    def modulus(self) -> float:
        """What the plain step contracts by at least, ``rho / (rho + epsilon)`` (theory, A6)."""
        return 1.0 if self.strength == np.inf else self.strength / (self.strength + self.epsilon)


class Codes(NamedTuple):
    """Logits of two views, shape (N, sum of units), and the sizes of the segments.

    Examples
    --------
    >>> from infoassign.testing.definitions import joint_entropy_loss
    >>> codes = Codes(np.zeros((5, 4)), np.zeros((5, 4)), (2, 2))
    >>> round(float(joint_entropy_loss(*codes)), 3)
    -1.386
    """

    z1: Matrix
    """Of the first view, float64."""
    z2: Matrix
    """Of the second."""
    units: tuple[int, ...]
    """The number of units of every segment."""


def planted(logits: Matrix, beta: float, temperature: float = 1.0) -> Problem:
    """Return the problem that is solved by ``softmax(logits)``.

    A plan is optimal iff ``w_ij ∝ exp((s_ij - v_j) / epsilon)`` with ``v_j = rho log(K wbar_j)`` (theory, A2): so for
    any logits t the scores ``epsilon t_ij + v_j`` have the optimum ``softmax(t)``. Every problem is of this form.

    Parameters
    ----------
    logits
        Shape (B, K); ``-inf`` forbids a label to a row, and each row may use at least one.
    beta
        In [0, 1).
    temperature
        What the solver will divide the scores by.

    Examples
    --------
    >>> import infoassign as ia
    >>> problem = planted(np.array([[2.0, 0.0], [1.0, 0.0]]), beta=0.5)
    >>> found = ia.mira(problem.scores, beta=0.5, tol=1e-9)
    >>> bool(np.abs(found.plan - problem.plan).max() < 1e-8)
    True
    """
    columns = usable(logits)
    log_w = log_softmax(logits, axis=1)
    v = beta * (np.where(columns, log_mean(np.where(columns, log_w, 0.0)), 0.0) + log(logits.shape[1]))
    return Problem(temperature * ((1 - beta) * logits + v), beta, temperature, np.exp(log_w), "planted")


def planted_transport(logits: Matrix, epsilon: float, strength: float, prior: Matrix) -> Transport:
    """Return the member of the family that is solved by ``softmax(logits)``; see :func:`planted`.

    Parameters
    ----------
    logits
        Shape (B, K), finite, or ``-inf`` for a forbidden pair; every label is allowed to some row.
    epsilon
        The entropy weight.
    strength
        In (0, inf]. For ``inf`` the prior of the problem is the planted plan's own marginal and the potential is
        ``log prior``: any will do.
    prior
        Positive, summing to one.

    Examples
    --------
    >>> import infoassign as ia
    >>> problem = planted_transport(np.array([[2.0, 0.0], [1.0, 0.0]]), 0.5, np.inf, np.array([0.5, 0.5]))
    >>> found = ia.assign(problem.scores, epsilon=0.5, prior=problem.prior, tol=1e-9)
    >>> bool(np.abs(found.plan - problem.plan).max() < 1e-8)
    True
    """
    log_w = log_softmax(logits, axis=1)
    log_wbar = log_mean(log_w)
    if strength == np.inf:
        wbar, v = np.exp(log_wbar), np.log(prior)
        return Transport(epsilon * logits + v, epsilon, strength, wbar / wbar.sum(), v, np.exp(log_w))
    v = strength * (log_wbar - np.log(prior))
    return Transport(epsilon * logits + v, epsilon, strength, prior, v, np.exp(log_w))


def identical_rows(logits: Matrix, rows: int, beta: float, temperature: float = 1.0) -> Problem:
    """Return a problem without information: its optimum is the model's own probabilities (theory, A13).

    Parameters
    ----------
    logits
        Of each row, shape (K,).
    rows
        How many of them.
    beta, temperature
        As in :func:`planted`.

    Examples
    --------
    >>> identical_rows(np.zeros(2), 3, beta=0.9).plan
    array([[0.5, 0.5],
           [0.5, 0.5],
           [0.5, 0.5]])
    """
    plan = np.tile(softmax(logits / temperature), (rows, 1))
    return Problem(np.tile(logits, (rows, 1)), beta, temperature, plan, "identical rows")


def one_label(rows: int, beta: float) -> Problem:
    """Return a problem with a single label, K = 1.

    Parameters
    ----------
    rows
        How many.
    beta
        In [0, 1).

    Examples
    --------
    >>> one_label(3, beta=0.5).plan.T
    array([[1., 1., 1.]])
    """
    return Problem(np.linspace(-1, 1, rows)[:, None], beta, 1.0, np.ones((rows, 1)), "one label")


def block_diagonal(
    blocks: int, rows: int, columns: int, contrast: float, beta: float, temperature: float = 1.0
) -> Problem:
    """Return a problem in which each block of rows prefers its own block of labels.

    All labels are alike up to a permutation of rows and labels, so the potential is constant and the optimum is the
    softmax at ``epsilon = 1 - beta``.

    Parameters
    ----------
    blocks
        How many; two blocks of one column each are two clusters.
    rows, columns
        Of one block.
    contrast
        What the own labels' scores are above the others'; ``inf`` forbids the others.
    beta, temperature
        As in :func:`planted`.

    Examples
    --------
    >>> block_diagonal(2, 1, 1, np.inf, beta=0.5).plan
    array([[1., 0.],
           [0., 1.]])
    """
    same = np.kron(np.eye(blocks), np.ones((rows, columns))) > 0
    scores = np.where(same, 0.0, -contrast)
    plan = softmax(scores / temperature / (1 - beta), axis=1)
    name = "two clusters" if (blocks, columns) == (2, 1) else "block-diagonal"
    return Problem(scores, beta, temperature, plan, name)


def permuted(problem: Problem, rows: Sequence[int], columns: Sequence[int]) -> Problem:
    """Return a problem with its rows and its labels in another order, and its answer likewise.

    Parameters
    ----------
    problem
        In its own order.
    rows, columns
        Permutations: row i is the problem's row ``rows[i]``, and so for labels.

    Examples
    --------
    >>> permuted(block_diagonal(2, 1, 1, np.inf, beta=0.5), [0, 1], [1, 0]).plan
    array([[0., 1.],
           [1., 0.]])
    """
    order = np.ix_(rows, columns)
    name = f"permuted {problem.name}"
    return Problem(problem.scores[order], problem.beta, problem.temperature, problem.plan[order], name)


def known_problems() -> list[Problem]:
    """Return some problems of every kind, always the same.

    Examples
    --------
    >>> sorted({problem.name for problem in known_problems()})[:3]
    ['block-diagonal', 'identical rows', 'one label']
    """
    random = np.random.default_rng(0)
    problems = [one_label(3, 0.5)]
    for beta in (0.0, 0.1, 0.5, 0.9):
        problems += [
            planted(random.normal(size=(6, 4)) * 2, beta, temperature=0.5),
            planted(random.normal(size=(3, 5)), beta),
            identical_rows(np.array([0.2, 0.0, -0.1]), 4, beta, temperature=0.7),
            identical_rows(np.array([0.3, 0.0]), 2, beta),
            block_diagonal(2, 2, 2, 1.5, beta),
            block_diagonal(2, 3, 1, 0.4, beta, temperature=0.1),
        ]
    masked = random.normal(size=(7, 4))
    masked[random.random(masked.shape) < 0.4] = -np.inf
    masked[np.arange(7), np.arange(7) % 3] = 0
    unusable = masked.copy()
    unusable[:, 3] = -np.inf
    sharp = random.normal(size=(5, 4)) * 40
    return [
        *problems,
        planted(masked, 2 / 3),
        planted(unusable, 2 / 3),
        planted(sharp, 2 / 3),
        block_diagonal(3, 2, 1, np.inf, 0.5),
        permuted(planted(random.normal(size=(4, 3)), 0.5), [2, 0, 3, 1], [1, 2, 0]),
    ]


def linear_code(levels: int, factors: int, strength: int = 2) -> Matrix:
    """Return an orthogonal array over a prime number of levels by the linear construction (theory, B4; Bush).

    Its words are the values of all polynomials of degree below `strength` at the levels, and their leading
    coefficients: any `strength` columns show every combination of symbols exactly once.

    Parameters
    ----------
    levels
        A prime.
    factors
        The number of columns, at most ``levels + 1``.
    strength
        The number of columns that are jointly uniform.

    Returns
    -------
    ndarray
        Symbols, shape ``(levels ** strength, factors)``, integer.

    Raises
    ------
    ValueError
        If `levels` is no prime, or `factors` is out of its range.

    Examples
    --------
    >>> linear_code(2, 3)
    array([[0, 0, 0],
           [0, 1, 1],
           [1, 1, 0],
           [1, 0, 1]])
    """
    if levels < 2 or any(levels % divisor == 0 for divisor in range(2, levels)):
        raise ValueError(f"levels must be a prime; got {levels}")
    if not 1 <= factors <= levels + 1:
        raise ValueError(f"factors must be from 1 to levels + 1 = {levels + 1}; got {factors}")
    coefficients = np.indices((levels,) * strength).reshape(strength, -1)
    values = [sum(c * point**power for power, c in enumerate(coefficients)) % levels for point in range(levels)]
    return np.stack([*values, coefficients[-1]], axis=1)[:, :factors]


def one_hot_logits(words: Matrix, units: Sequence[int], height: float = 1e4) -> Matrix:
    """Return logits of code words: their softmax is one-hot, in floating point exactly so.

    Parameters
    ----------
    words
        Symbols, shape (N, M), integer.
    units
        The number of symbols of each segment.
    height
        What a word's own units are above the others.

    Returns
    -------
    ndarray
        Shape (N, sum of `units`), float64.

    Examples
    --------
    >>> one_hot_logits(np.array([[1, 0]]), [2, 3], height=9.0)
    array([[0., 9., 9., 0., 0.]])
    """
    return height * np.concatenate([np.eye(size)[words[:, m]] for m, size in enumerate(units)], axis=1)
