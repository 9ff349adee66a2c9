"""Codes that minimise the joint-entropy losses exactly: orthogonal arrays; and the bounds that they reach."""

from collections.abc import Sequence
from itertools import product
from math import e, log

import numpy as np
from numpy.typing import NDArray

from infoassign import validation
from infoassign.segments import EntropyTerms, Normalization, Segments

Table = NDArray[np.int64]

LEVELS = 1024
"""Levels that an array is made for at most."""


def orthogonal_array(levels: int, factors: int) -> Table:
    """Return an orthogonal array of strength 2: in any two columns, every pair of symbols is in one row.

    Bush's linear construction over the field of D elements: a row for each ``(a, b)``, with the columns ``a`` and ``a x
    + b`` for the elements x. As one-hot codes, N = D^2 samples of M = `factors` segments of D units, it attains the
    lower bounds of :func:`entropy_lower_bounds` (theory, B4).

    Parameters
    ----------
    levels
        D, the number of symbols: a power of a prime, up to 1024.
    factors
        M, the number of columns, from 1 to D + 1.

    Returns
    -------
    NDArray
        Shape (D^2, M), int64, symbols from 0 to D - 1.

    Raises
    ------
    TypeError
        If an argument is no integer.
    ValueError
        If `levels` is not a power of a prime, or there are more factors than Rao's bound allows: an orthogonal array
        has at least ``1 + M (D - 1)`` rows, and this one has D^2.

    Examples
    --------
    >>> orthogonal_array(levels=3, factors=3).T
    array([[0, 0, 0, 1, 1, 1, 2, 2, 2],
           [0, 1, 2, 0, 1, 2, 0, 1, 2],
           [0, 1, 2, 1, 2, 0, 2, 0, 1]])
    """
    levels, factors = validation.count("levels", levels, least=2), validation.count("factors", factors)
    if levels > LEVELS:
        raise ValueError(f"levels must be at most {LEVELS} (an array has levels^2 rows); got {levels}")
    prime = next(number for number in range(2, levels + 1) if levels % number == 0)
    degree = round(log(levels, prime))
    if prime**degree != levels:
        raise ValueError(
            f"levels must be a power of a prime (2, 3, 4, 5, 7, 8, 9, 11, ...), whose field the construction needs;"
            f" got {levels}, which {prime} divides"
        )
    if factors > levels + 1:
        raise ValueError(
            f"factors must be at most levels + 1 = {levels + 1}; got {factors}: by Rao's bound an orthogonal array of"
            f" {factors} factors has at least 1 + {factors} * {levels - 1} = {1 + factors * (levels - 1)} rows, more"
            f" than {levels}^2 = {levels**2}"
        )
    add, multiply = _field(prime, degree)
    a, b = np.divmod(np.arange(levels**2), levels)
    return np.stack([a, *(add[multiply[a, x], b] for x in range(factors - 1))], axis=1)


def _field(prime: int, degree: int) -> tuple[Table, Table]:
    """Return the tables of addition and multiplication of the field of ``prime ** degree`` elements.

    An element is a polynomial, written as the number whose digits to the base of the prime are its coefficients.
    """
    order = prime**degree
    places = prime ** np.arange(degree)
    digits = np.arange(order)[:, None] // places % prime
    add = ((digits[:, None] + digits[None]) % prime) @ places
    powers = next(
        found for tail in product(range(prime), repeat=degree) if len(found := _powers(tail, prime)) == order - 1
    )
    exponents = np.array(powers) @ places
    logs = np.zeros(order, dtype=np.int64)
    logs[exponents] = np.arange(order - 1)
    multiply = exponents[(logs[:, None] + logs[None]) % (order - 1)]
    multiply[0, :] = multiply[:, 0] = 0
    return add, multiply


def _powers(tail: tuple[int, ...], prime: int) -> list[tuple[int, ...]]:
    """Return 1, x, x^2, ... up to the first that repeats or is 0, modulo ``x^n = tail``: all but 0 if x generates."""
    power = (1, *(0,) * (len(tail) - 1))
    found: list[tuple[int, ...]] = []
    while any(power) and power not in found[:1]:
        if len(found) >= prime ** len(tail):
            break
        found.append(power)
        carried = power[-1]
        power = tuple((low + carried * t) % prime for low, t in zip((0, *power[:-1]), tail, strict=True))
    return found


def entropy_lower_bounds(units: Sequence[int], *, normalization: Normalization = "block") -> EntropyTerms:
    """Return the least that :func:`infoassign.entropy_terms` can be (theory, B2 and B3).

    A segment's part of DE is at least ``-log D`` for D >= 3, and 0 for D = 1. For D = 2 it is ``-2 / e``, below
    ``-log 2``: x log x is least at 1/e, and DE alone does not keep two units from sharing less than all of the samples
    (an erratum to MUSIC's appendix B). A pair's part of OE is at least ``-log D_m - log D_n``. Transform invariance is
    at least 0.

    Parameters
    ----------
    units
        The sizes of all segments, for instance ``[80] * 102``.
    normalization
        As :func:`infoassign.entropy_terms`.

    Returns
    -------
    EntropyTerms
        Numbers, in nats. Where all D >= 3, and there are at least two segments, both are reached at once by the one-hot
        codes of an orthogonal array of strength 2, and by no others (theory, B4).

    Raises
    ------
    TypeError, ValueError
        If `units` are no sizes of segments.

    Examples
    --------
    >>> import infoassign as ia
    >>> import numpy as np
    >>> codes = np.eye(3)[orthogonal_array(levels=3, factors=4)].reshape(9, 12)
    >>> terms, bounds = ia.entropy_terms(codes, codes, units=3), entropy_lower_bounds([3] * 4)
    >>> bool(np.allclose(terms, bounds))
    True
    """
    validation.check_choice("normalization", normalization, ("block", "grid"))
    sizes = validation.check_sizes("units", units)
    segments = Segments(sizes)
    on, off = segments.weights(normalization)
    diagonal = sum(-2 / e if size == 2 else -log(size) for size in sizes)
    off_diagonal = 0.0 - 2 * (segments.count - 1) * sum(map(log, sizes))
    return EntropyTerms(on * diagonal, off * off_diagonal)
