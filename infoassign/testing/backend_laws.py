"""What a backend has to keep: the sweep and the joint entropy of :mod:`infoassign_backends.protocol`, by definition.

Every law takes

- `backend`, the module;
- `make`, which makes NumPy arrays its library's;
- `case`, the :class:`Case`; for joint entropies `sizes`, those of the segments, and `dtype`, that of the codes.

Examples
--------
>>> from infoassign_backends import numpy_backend
>>> name, case = cases()[0]
>>> passes_return_masses_and_normalizers(numpy_backend, np.asarray, case)
"""

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import array_api_compat as api
import numpy as np
from scipy.special import logsumexp

from infoassign.arrays import on_host
from infoassign.testing.contract import law, require
from infoassign.testing.definitions import Matrix, log_plan
from infoassign_backends.protocol import Array, Backend, Views

Make = Callable[[Any], Array]


class Case(NamedTuple):
    """Scores, and a sequence of potentials at which to pass over them.

    Examples
    --------
    >>> case = Case(np.zeros((3, 2)), np.zeros((1, 2)), 0.5)
    >>> np.exp(case.log_plan(case.potentials[0]))[0]
    array([0.5, 0.5])
    """

    scores: Any
    """NumPy, shape (..., B, K), of any real floating dtype; ``-inf`` forbids a pair."""
    potentials: Matrix
    """Shape (n, ..., K)."""
    epsilon: float
    """What divides both, > 0."""

    def log_plan(self, potential: Matrix) -> Matrix:
        """Return ``log W(v)`` by definition, in float64; ``-inf`` where forbidden.

        Parameters
        ----------
        potential
            Shape (..., K), such as one of `potentials`.

        Returns
        -------
        ndarray
            Shape (..., B, K).
        """
        scores = self.scores.astype(float)
        scores = scores - scores.max(axis=-1, keepdims=True)  # which the definition would lose digits to
        plans = [log_plan(potential[i], scores[i], self.epsilon) for i in np.ndindex(scores.shape[:-2])]
        return np.array(plans).reshape(scores.shape)


def cases() -> list[tuple[str, Case]]:
    """Return cases by name: batches, one row, one label, forbidden pairs and labels, far potentials, faint labels.

    Examples
    --------
    >>> dict(cases())["one label"].scores.shape
    (17, 1)
    """
    random = np.random.default_rng(0)

    def potentials(scores: Any, *spreads: float) -> Matrix:
        shape = (*scores.shape[:-2], scores.shape[-1])
        return np.array([random.normal(size=shape) * spread for spread in spreads])

    def case(scores: Any, *spreads: float, epsilon: float = 0.3) -> Case:
        return Case(scores, potentials(scores, *(spreads or (0.0, 1.0, 2.0))), epsilon)

    normal = random.normal(size=(17, 6)) * 4
    masked = normal.copy()
    masked[3, 2] = -np.inf
    unusable = normal.copy()
    unusable[:, 4] = -np.inf
    faint = normal.copy()
    faint[:, 1] -= 3000 * np.arange(1, 18)
    large = random.normal(size=(140, 1000)) * 3
    # Label 2 weighs exp(-80) in the first row and less in the others, until their favourite, label 1, is dear.
    fading = np.full((2, 17, 3), -60.0)
    fading[0] = 0
    fading[1, 0] = 0, -60, -80
    fading[1, 1:, 1:] = 0, -110
    dear = np.zeros((2, 2, 3))
    dear[1, 1, 1] = 38
    return [
        ("normal", case(normal)),
        ("one row", case(normal[:1])),
        ("one label", case(normal[:, :1])),
        ("masked", case(masked)),
        ("a label that no row may use", case(unusable)),
        ("a label with next to no mass", case(faint)),
        ("far potentials", case(masked, 0.0, 300.0, 300.0, 1.0)),
        ("a batch", case(random.normal(size=(3, 17, 6)) * 4, 0.0, 1.0, 300.0)),
        ("a batch of batches", case(random.normal(size=(2, 2, 33, 30)) * 4)),
        ("a batch with a label that is not as faint at another potential", Case(0.3 * fading + 1, dear * 0.3, 0.3)),
        ("more than a tile", case(large)),
        ("rows far apart", case(np.round(normal, 2) + 2.0**20 * np.arange(17)[:, None])),
        ("scores of 1e30", case(normal * 1e30, epsilon=1e30)),
        ("a small epsilon", case(normal, 0.0, 1.0, epsilon=1e-3)),
    ]


def host(array: Array) -> Matrix:
    """Copy to NumPy float64.

    Parameters
    ----------
    array
        Of any library.

    Returns
    -------
    ndarray
        Of the same shape.

    Examples
    --------
    >>> host(np.float32([1, 2])).dtype
    dtype('float64')
    """
    return np.asarray(on_host(array))


def close(found: Array, expected: Any, unit: float, what: str) -> None:
    """Require an array's values, to `unit` relative to 1 or more.

    Parameters
    ----------
    found
        Of any library.
    expected
        Its values.
    unit
        What the largest error may be.
    what
        What it is, for the message.

    Raises
    ------
    AssertionError
        If shape or values are others.

    Examples
    --------
    >>> close(np.array([1.0, 2.5]), [1.0, 2.0], 1e-6, "the sum")
    Traceback (most recent call last):
        ...
    AssertionError: the sum is off by 0.25, more than 1e-06
    """
    values, wanted = host(found), np.asarray(expected, dtype=float)
    require(values.shape == wanted.shape, f"{what} has shape {values.shape}, not {wanted.shape}")
    same = values == wanted  # infinities
    with np.errstate(invalid="ignore"):
        off = np.where(same, 0.0, np.abs(values - wanted) / np.maximum(1.0, np.abs(wanted)))
    require(np.all(off <= unit), f"{what} is off by {np.max(off)}, more than {unit}")


def alike(found: Array, like: Array, dtype: Any, what: str) -> None:
    """Require an array to be of another's library and device, and of a dtype.

    Parameters
    ----------
    found, like
        Arrays of any libraries.
    dtype
        That of `found`, to be.
    what
        What it is, for the message.

    Raises
    ------
    AssertionError
        If library, device or dtype are others.

    Examples
    --------
    >>> alike(np.zeros(2, dtype=np.float32), np.zeros(2), np.dtype("float64"), "the sum")
    Traceback (most recent call last):
        ...
    AssertionError: the sum is of float32, not of float64
    """
    one, other = api.array_namespace(found), api.array_namespace(like)
    require(one is other, f"{what} is an array of {one.__name__}, not of {other.__name__}")
    require(api.device(found) == api.device(like), f"{what} is on {api.device(found)}, not on {api.device(like)}")
    require(found.dtype == dtype, f"{what} is of {found.dtype}, not of {dtype}")


def _units(case: Case, sweep: Any, xp: Any) -> float:
    """Return how far off what a sweep computes may be: a few units of its dtype for each power of e."""
    unit = float(xp.finfo(sweep.compute_dtype).eps)
    spread = np.ptp(np.where(np.isfinite(case.scores), case.scores, 0.0).astype(float), axis=-1).max()
    reach = min(spread + np.ptp(case.potentials), 1e3 * case.epsilon) / case.epsilon
    return float((16 + 4 * min(reach, 1e4)) * unit + 2 * sweep.sum_error + 2 * sweep.entry_error)


@law("A3", "A4")
def passes_return_masses_and_normalizers(backend: Backend, make: Make, case: Case) -> None:
    """A pass returns the logarithms of the columns' masses and the sum of the rows' normalisers."""
    scores = make(case.scores)
    xp = api.array_namespace(scores)
    sweep = backend.prepare(scores, case.epsilon)
    unit = _units(case, sweep, xp)
    wide = case.scores.astype(float)
    largest = wide.max(axis=-1)
    alike(sweep.offset, scores, sweep.vector_dtype, "offset")
    most = float(np.abs(largest).max())
    close(sweep.offset / most, largest.mean(axis=-1) / most, unit, "offset")
    alike(sweep.span, scores, sweep.vector_dtype, "span")
    span = ((largest - wide.min(axis=-1)) / case.epsilon).max(axis=-1)
    close(sweep.span, span, 1e-6, "span")
    require(sweep.rows == wide.shape[-2], f"rows is {sweep.rows}")
    for potential in case.potentials:
        expected = case.log_plan(potential)
        masses = sweep(xp.astype(make(potential), sweep.vector_dtype, copy=False))
        alike(masses.log_columns, scores, sweep.vector_dtype, "log_columns")
        alike(masses.log_normalizers, scores, sweep.vector_dtype, "log_normalizers")
        with np.errstate(divide="ignore"):
            close(masses.log_columns, logsumexp(expected, axis=-2), unit, "log_columns")
        usable = np.isfinite(wide).any(axis=-2)
        shifted = (wide - largest[..., None] - np.where(usable, potential, 0.0)[..., None, :]) / case.epsilon
        close(
            masses.log_normalizers / wide.shape[-2], logsumexp(shifted, axis=-1).mean(axis=-1), unit, "log_normalizers"
        )
        require(masses.rows == wide.shape[-2], f"a pass counts {masses.rows} rows")


@law("A2")
def plans_and_labels_are_those_of_the_potential(backend: Backend, make: Make, case: Case) -> None:
    """The plan is ``W(v)``, entry by entry, forbidden pairs get nothing, and labels are where it is largest."""
    scores = make(case.scores)
    xp = api.array_namespace(scores)
    sweep = backend.prepare(scores, case.epsilon)
    unit = _units(case, sweep, xp)
    for potential in case.potentials:
        given = xp.astype(make(potential), sweep.vector_dtype, copy=False)
        expected = case.log_plan(potential)
        # Twice, since making the plan may use up what was prepared.
        for plan in [*sweep.iter_plan(given), *sweep.iter_plan(given)]:
            alike(plan, scores, sweep.plan_dtype, "the plan")
            close(plan, np.exp(expected), unit, "the plan")
            require(np.all(host(plan)[case.scores == -np.inf] == 0), "the plan has mass on forbidden pairs")
        labels = sweep.labels(given)
        require(api.array_namespace(labels).isdtype(labels.dtype, "integral"), f"labels are of {labels.dtype}")
        found = np.take_along_axis(expected, host(labels).astype(int)[..., None], axis=-1)[..., 0]
        close(make(np.exp(found)), np.exp(expected.max(axis=-1)), unit, "the likelihood of the labels")


@law("A14")
def products_are_those_of_the_plan(backend: Backend, make: Make, case: Case) -> None:
    """``apply`` and ``apply_transpose`` multiply with the plan; the sums over rows and columns are what they say."""
    random = np.random.default_rng(1)
    scores = make(case.scores)
    xp = api.array_namespace(scores)
    sweep = backend.prepare(scores, case.epsilon)
    unit = _units(case, sweep, xp)
    rows = case.scores.shape[-2]
    x = random.normal(size=(*case.scores.shape[:-2], case.scores.shape[-1]))
    y = random.normal(size=case.scores.shape[:-1])
    given_x, given_y = (xp.astype(make(vector), sweep.vector_dtype, copy=False) for vector in (x, y))
    for potential in case.potentials:
        plan = np.exp(case.log_plan(potential))
        given = xp.astype(make(potential), sweep.vector_dtype, copy=False)
        there, back = sweep.apply(given, given_x), sweep.apply_transpose(given, given_y)
        alike(there, scores, sweep.vector_dtype, "W x")
        alike(back, scores, sweep.vector_dtype, "W^T y")
        close(there, (plan @ x[..., None])[..., 0], 8 * unit, "W x")
        close(back, (np.swapaxes(plan, -1, -2) @ y[..., None])[..., 0], 8 * unit * rows, "W^T y")
    close(sweep.sum_rows(given_y), y.sum(axis=-1), rows * unit, "the sum over rows")
    bound = host(sweep.bound_rows(xp.abs(given_y)))
    require(np.all(bound >= np.abs(y).max(axis=-1) * (1 - unit)), "the bound over rows is below the largest")


@law()
def sums_of_columns_are_of_the_scores_as_they_came(backend: Backend, make: Make, case: Case) -> None:
    """``log_column_sums`` is ``log sum_i exp(s_ij / epsilon)``: shifts of the rows count."""
    scores = make(case.scores)
    sweep = backend.prepare(scores, case.epsilon)
    with np.errstate(divide="ignore"):
        expected = logsumexp(case.scores.astype(float) / case.epsilon, axis=-2)
    unit = _units(case, sweep, api.array_namespace(scores))
    close(sweep.log_column_sums(), expected, 4 * unit, "log_column_sums")


@law()
def unkept_scores_are_passed_over_alike(backend: Backend, make: Make, case: Case) -> None:
    """``masses`` and ``plan`` of the module are those of a prepared sweep, for scores that are not kept."""
    if case.scores.ndim != 2:
        return
    scores = make(case.scores)
    xp = api.array_namespace(scores)
    sweep = backend.prepare(scores, case.epsilon)
    unit = _units(case, sweep, xp)
    offset = float(np.round(case.scores.astype(float).max(axis=-1).mean()))
    rows, largest = case.scores.shape[0], case.scores.astype(float).max(axis=-1)
    unit += 8 * float(xp.finfo(sweep.compute_dtype).eps) * float(np.abs(largest - offset).max()) / case.epsilon
    for potential in case.potentials:
        given = xp.astype(make(potential), sweep.vector_dtype, copy=False)
        nothing = xp.full_like(given, -xp.inf)
        masses = backend.masses(scores, given, case.epsilon, offset, nothing)
        expected = sweep(given)
        close(masses.log_columns, host(expected.log_columns), 2 * unit, "log_columns of unkept scores")
        shift = (largest.mean() - offset) / case.epsilon
        close(
            masses.log_normalizers / rows,
            host(expected.log_normalizers) / rows + shift,
            2 * unit,
            "log_normalizers of unkept scores",
        )
        plan = backend.plan(scores, given, case.epsilon)
        alike(plan, scores, sweep.plan_dtype, "the plan of unkept scores")
        close(plan, np.exp(case.log_plan(potential)), 2 * unit, "the plan of unkept scores")


@law()
def nothing_is_written_to(backend: Backend, make: Make, case: Case) -> None:
    """Scores and potentials are as they were, plans that were given out too, and layouts in memory do not matter."""
    turned = np.swapaxes(np.ascontiguousarray(np.swapaxes(case.scores, -1, -2)), -1, -2)
    apart = np.repeat(case.scores, 2, axis=-1)[..., ::2]
    frozen = case.scores.copy()
    frozen.flags.writeable = False
    plans = []
    for layout in (frozen, turned, apart):
        scores = make(layout)
        xp = api.array_namespace(scores)
        sweep = backend.prepare(scores, case.epsilon)
        potentials = [xp.astype(make(v.copy()), sweep.vector_dtype, copy=False) for v in case.potentials]
        for given in potentials:
            (plan,) = sweep.iter_plan(given)
            before = host(plan).copy()
            sweep(given)
            sweep.apply_transpose(given, sweep.apply(given, given))
            require(np.array_equal(before, host(plan)), "a plan that was given out has been written to")
            plans.append(before)
        same = [np.array_equal(host(given), v) for given, v in zip(potentials, case.potentials, strict=True)]
        require(sweep.vector_dtype != xp.float64 or all(same), "a potential has been written to")
        require(np.array_equal(host(scores), case.scores.astype(float)), "the scores have been written to")
    unit = _units(case, sweep, xp)
    for first, *others in (plans[i :: len(case.potentials)] for i in range(len(case.potentials))):
        require(all(np.allclose(first, other, rtol=0, atol=unit) for other in others), "the layout changes the plan")


@law("B7")
def joint_entropies_are_those_of_the_definition(
    backend: Backend, make: Make, sizes: tuple[int, ...], dtype: str
) -> None:
    """OE and its gradients equal a sum over P whole; zeros of P count nothing."""
    random = np.random.default_rng(len(sizes))
    q = random.random((2, 11, sum(sizes))) * (random.random((2, 11, sum(sizes))) < 0.3)
    for here in (slice(None), slice(2, 7)):
        views = Views(*(make(view.astype(dtype)) for view in (q[0, here], q[1, here], q[0], q[1])))
        p = q[0].T @ q[1] / 11
        edges = [0, *accumulate(sizes)]
        for start, stop in pairwise(edges):
            p[start:stop, start:stop] = 0
        log_p = np.log(np.where(p > 0, p, 1))
        slope = np.where(p > 0, 1 + log_p, 0) / 11
        found = backend.off_diagonal_and_gradients(views, sizes)
        expected = ((p * log_p).sum(), q[1, here] @ slope.T, q[0, here] @ slope)
        unit = 500 * float(api.array_namespace(views.first).finfo(views.first.dtype).eps)
        for one, other, what in zip(found, expected, ("OE", "its first gradient", "its second gradient"), strict=True):
            alike(one, views.first, views.first.dtype, what)
            close(one, other, unit, what)
        close(backend.off_diagonal(views, sizes), expected[0], unit, "OE alone")
        close(backend.product(views.first, views.second), q[0, here].T @ q[1, here], unit, "the product")


LAWS: tuple[Callable[[Backend, Make, Case], None], ...] = (
    passes_return_masses_and_normalizers,
    plans_and_labels_are_those_of_the_potential,
    products_are_those_of_the_plan,
    sums_of_columns_are_of_the_scores_as_they_came,
    unkept_scores_are_passed_over_alike,
    nothing_is_written_to,
)
"""Those about scores; :func:`joint_entropies_are_those_of_the_definition` takes segments instead."""
SIZES = ((3, 3), (1, 4, 2, 2, 5), (1, 1), (7,), (2,) * 40)
"""Segments that the joint entropy is tried on."""
