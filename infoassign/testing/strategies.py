"""Hypothesis strategies for what the library works on: scores, points of the simplex, plans, problems, codes.

Arrays are NumPy float64; ``.map(torch.from_numpy)`` or the like makes others of them. Problems come with their answer.

Examples
--------
>>> from hypothesis import given
>>> import infoassign as ia
>>> @given(problems())
... def mira_finds_what_was_planted(problem):
...     found = ia.mira(problem.scores, beta=problem.beta, temperature=problem.temperature, tol=1e-8)
...     distance = np.abs(found.plan - problem.plan).sum(axis=1).mean() / 2
...     assert distance <= found.error_bound + problem.rounding
>>> mira_finds_what_was_planted()
"""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from infoassign.testing.definitions import Matrix
from infoassign.testing.problems import (
    Codes,
    Problem,
    Transport,
    block_diagonal,
    identical_rows,
    linear_code,
    one_hot_logits,
    one_label,
    permuted,
    planted,
    planted_transport,
)

Scores = st.SearchStrategy[Matrix]


def shapes(max_rows: int = 7, max_columns: int = 5) -> st.SearchStrategy[tuple[int, int]]:
    """Shapes (B, K), both at least 1.

    Parameters
    ----------
    max_rows, max_columns
        What B and K are at most.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(shapes(), lambda shape: shape[0] > 2 * shape[1])
    (3, 1)
    """
    return st.tuples(st.integers(1, max_rows), st.integers(1, max_columns))


def numbers(shape: int | tuple[int, ...], largest: float) -> Scores:
    """Arrays of numbers up to `largest` in size, every entry drawn by itself: they shrink well.

    Parameters
    ----------
    shape
        Of the arrays; a number for vectors.
    largest
        Bound on the absolute value.

    Returns
    -------
    SearchStrategy
        Of float64 arrays of that shape.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(numbers(3, 5.0), lambda values: values.sum() >= 2).sum() >= 2
    np.True_
    """
    return hnp.arrays(np.float64, shape, elements=st.floats(-largest, largest), fill=st.nothing())


def generic_scores(shape: tuple[int, int]) -> Scores:
    """Normal variables of some scale: nothing is equal, and nothing special.

    Parameters
    ----------
    shape
        (B, K), both at least 1.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (B, K).

    Examples
    --------
    >>> from hypothesis import find
    >>> len(np.unique(find(generic_scores((2, 3)), lambda scores: True)))
    6
    """

    def drawn(seed: int, scale: float) -> Matrix:
        return np.random.default_rng(seed).normal(size=shape) * scale

    return st.builds(drawn, st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 4.0]))


def degenerate_scores(shape: tuple[int, int]) -> Scores:
    """Equal rows, equal labels, few distinct values: what ties and zero information are made of.

    Parameters
    ----------
    shape
        (B, K), both at least 1.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (B, K).

    Examples
    --------
    >>> from hypothesis import find
    >>> find(degenerate_scores((2, 2)), lambda scores: scores[0, 0] == 1)
    array([[1., 1.],
           [1., 1.]])
    """
    rows, columns = shape
    return st.one_of(
        st.floats(-5, 5).map(lambda value: np.full(shape, value)),
        numbers((1, columns), 5).map(lambda row: np.tile(row, (rows, 1))),
        numbers((rows, 1), 5).map(lambda column: np.tile(column, (1, columns))),
        hnp.arrays(np.float64, shape, elements=st.sampled_from([-1.0, 0.0, 1.0])),
    )


def extreme_scores(shape: tuple[int, int], largest: float = 300.0) -> Scores:
    """Scores that make plans all but one-hot, beside tiny ones.

    Parameters
    ----------
    shape
        (B, K), both at least 1.
    largest
        Bound on the absolute value.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (B, K).

    Examples
    --------
    >>> from hypothesis import find
    >>> find(extreme_scores((1, 2)), lambda scores: np.ptp(scores) == 600).shape
    (1, 2)
    """
    return hnp.arrays(
        np.float64,
        shape,
        elements=st.one_of(st.floats(-largest, largest), st.sampled_from([0.0, 1e-12, -largest, largest])),
    )


def clustered_scores(shape: tuple[int, int]) -> Scores:
    """Every row prefers one of the labels, with some noise: what a trained model's look like.

    Parameters
    ----------
    shape
        (B, K), both at least 1.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (B, K).

    Examples
    --------
    >>> from hypothesis import find
    >>> find(clustered_scores((3, 2)), lambda scores: (scores.argmax(axis=1) == 1).all()).shape
    (3, 2)
    """

    def drawn(owners: NDArray[np.int64], noise: Matrix, contrast: float) -> Matrix:
        return np.asarray(np.eye(shape[1])[owners] * contrast + noise)

    owners = hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1))
    return st.builds(drawn, owners, numbers(shape, 0.5), st.floats(0, 12))


def masked_scores(shape: tuple[int, int]) -> Scores:
    """Scores with forbidden pairs (``-inf``); every row keeps a label, but a label may lose all its rows.

    Parameters
    ----------
    shape
        (B, K), both at least 1.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (B, K).

    Examples
    --------
    >>> from hypothesis import find
    >>> find(masked_scores((1, 2)), lambda scores: scores[0, 1] == -np.inf)
    array([[  0., -inf]])
    """

    def forbid(scores: Matrix, forbidden: NDArray[np.bool_], kept: NDArray[np.int64]) -> Matrix:
        allowed = ~forbidden
        allowed[np.arange(shape[0]), kept] = True
        return np.where(allowed, scores, -np.inf)

    kept = hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1))
    return st.builds(forbid, numbers(shape, 5), hnp.arrays(np.bool_, shape), kept)


def scores(max_rows: int = 7, max_columns: int = 5) -> Scores:
    """Score matrices of all these kinds.

    Parameters
    ----------
    max_rows, max_columns
        Their size at most.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (B, K).

    Examples
    --------
    >>> from hypothesis import find
    >>> find(scores(max_rows=1), lambda found: True).shape
    (1, 1)
    """
    kinds = (generic_scores, degenerate_scores, clustered_scores, extreme_scores, masked_scores)
    return shapes(max_rows, max_columns).flatmap(lambda shape: st.one_of(*(kind(shape) for kind in kinds)))


def finite_scores(max_rows: int = 7, max_columns: int = 5) -> Scores:
    """Those of them in which nothing is forbidden and no number is extreme.

    Parameters
    ----------
    max_rows, max_columns
        Their size at most.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (B, K).

    Examples
    --------
    >>> from hypothesis import find
    >>> find(finite_scores(), lambda found: found.size >= 2 and np.ptp(found) == 0).size
    2
    """
    kinds = (generic_scores, degenerate_scores, clustered_scores)
    return shapes(max_rows, max_columns).flatmap(lambda shape: st.one_of(*(kind(shape) for kind in kinds)))


def simplex_points(size: int, log_range: float = 20.0) -> Scores:
    """Positive vectors that sum to one; from uniform to all but a vertex.

    Parameters
    ----------
    size
        Their length.
    log_range
        What the logarithms of two entries differ by at most.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (K,).

    Examples
    --------
    >>> from hypothesis import find
    >>> find(simplex_points(4), lambda point: True)
    array([0.25, 0.25, 0.25, 0.25])
    """
    return numbers(size, log_range / 2).map(softmax)


def priors(size: int) -> Scores:
    """Shares of labels: points of the simplex, equal shares among them, whose logarithms differ by 5 at most.

    Parameters
    ----------
    size
        The number of labels K.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (K,).

    Examples
    --------
    >>> from hypothesis import find
    >>> find(priors(2), lambda prior: True)
    array([0.5, 0.5])
    """
    return st.one_of(st.just(np.full(size, 1 / size)), simplex_points(size, 5.0))


def plans(rows: int, columns: int) -> Scores:
    """Plans: every row a distribution over the labels, soft or one-hot.

    Parameters
    ----------
    rows, columns
        B and K.

    Returns
    -------
    SearchStrategy
        Of float64 arrays, shape (B, K).

    Examples
    --------
    >>> from hypothesis import find
    >>> find(plans(1, 2), lambda plan: plan.max() == 1).max()
    np.float64(1.0)
    """
    one_hot = hnp.arrays(np.int64, rows, elements=st.integers(0, columns - 1)).map(
        lambda labels: np.eye(columns)[labels]
    )
    return st.one_of(numbers((rows, columns), 20).map(lambda z: softmax(z, axis=1)), one_hot)


def betas() -> st.SearchStrategy[float]:
    """Weights of the mutual information, up to 0.9.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(betas(), lambda beta: True)
    0.0
    """
    return st.one_of(st.sampled_from([0.0, 0.1, 0.5, 2 / 3, 0.9]), st.floats(0.01, 0.9))


def temperatures() -> st.SearchStrategy[float]:
    """What scores are divided by.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(temperatures(), lambda temperature: temperature < 1)
    0.1
    """
    return st.sampled_from([1.0, 0.1, 0.225, 3.0])


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Problems of :func:`infoassign.mira` with their solutions, of all kinds of :mod:`infoassign.testing.problems`.

    Examples
    --------
    >>> from hypothesis import find
    >>> problem = find(problems(), lambda problem: problem.beta == 0.5)
    >>> problem.plan.shape == problem.scores.shape
    True
    """
    beta, temperature = draw(betas()), draw(temperatures())
    kind = draw(st.sampled_from(["planted", "planted", "planted", "identical", "blocks", "one label"]))
    if kind == "identical":
        logits = draw(st.integers(1, 5).flatmap(lambda size: numbers(size, 5)))
        problem = identical_rows(logits, draw(st.integers(1, 6)), beta, temperature)
    elif kind == "blocks":
        sizes = draw(st.tuples(st.integers(2, 3), st.integers(1, 3), st.integers(1, 2)))
        contrast = draw(st.one_of(st.floats(0, 8), st.just(np.inf)))
        problem = block_diagonal(*sizes, contrast, beta, temperature)
    elif kind == "one label":
        problem = one_label(draw(st.integers(1, 6)), beta)
    else:
        problem = planted(draw(scores()), beta, temperature)
    if draw(st.booleans()):
        rows, columns = (draw(st.permutations(range(size))) for size in problem.scores.shape)
        problem = permuted(problem, rows, columns)
    return problem


@st.composite
def transports(draw: st.DrawFn) -> Transport:
    """Problems of :func:`infoassign.assign`, penalised and exact, with a prior and with their solutions.

    Examples
    --------
    >>> from hypothesis import find
    >>> exact = find(transports(), lambda problem: problem.strength == np.inf)
    >>> bool(np.allclose(exact.plan.mean(axis=0), exact.prior))
    True
    """
    logits = draw(finite_scores())
    if draw(st.booleans()):
        # Forbid pairs, but leave every row and every label something: in a cycle that visits all of both.
        rows, columns = logits.shape
        steps = np.arange(max(rows, columns))
        forbidden = draw(hnp.arrays(np.bool_, logits.shape))
        forbidden[steps % rows, steps % columns] = False
        logits = np.where(forbidden, -np.inf, logits)
    strength = draw(st.sampled_from([0.1, 1.0, 10.0, np.inf]))
    return planted_transport(logits, draw(st.sampled_from([0.1, 0.5, 2.0])), strength, draw(priors(logits.shape[1])))


def segment_sizes(max_segments: int = 4, max_units: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Sizes of the segments of a code, equal or not, ones and twos among them.

    Parameters
    ----------
    max_segments, max_units
        How many segments, and units of one, there are at most.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(segment_sizes(), lambda sizes: len(sizes) == 3)
    (1, 1, 1)
    """
    return st.lists(st.integers(1, max_units), min_size=1, max_size=max_segments).map(tuple)


@st.composite
def soft_codes(draw: st.DrawFn) -> Codes:
    """Logits of two views in segments of unequal sizes: alike or not, soft or nearly one-hot.

    Examples
    --------
    >>> from hypothesis import find
    >>> codes = find(soft_codes(), lambda codes: len(codes.units) == 2)
    >>> codes.z1.shape == codes.z2.shape == (len(codes.z1), sum(codes.units))
    True
    """
    units = draw(segment_sizes())
    shape = (draw(st.integers(1, 6)), sum(units))
    first, noise = draw(numbers(shape, 1)), draw(numbers(shape, 1))
    scale, alike = draw(st.sampled_from([0.3, 3.0, 30.0])), draw(st.sampled_from([0.0, 0.1, 1.0]))
    return Codes(scale * first, scale * ((1 - alike) * first + alike * noise), units)


@st.composite
def optimal_codes(draw: st.DrawFn) -> Codes:
    """Codes whose words form an orthogonal array of three or more levels, which no code can beat (theory, B4).

    In any order of words, factors and symbols, each word once or more often.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(optimal_codes(), lambda codes: True).units
    (3, 3)
    """
    levels = draw(st.sampled_from([3, 5]))
    factors = draw(st.integers(2, levels + 1))
    words = linear_code(levels, levels + 1)[:, draw(st.permutations(range(levels + 1)))[:factors]]
    symbols = np.array([draw(st.permutations(range(levels))) for _ in range(factors)])
    words = np.tile(symbols[np.arange(factors), words], (draw(st.integers(1, 2)), 1))
    z = one_hot_logits(words, (levels,) * factors)
    return Codes(z, z, (levels,) * factors)
