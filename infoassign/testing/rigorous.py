"""Proofs about single answers: the duality gap of a potential, enclosed in ball arithmetic.

Every operation is python-flint's (Arb), whose results contain the exact value. (mpmath's intervals do not always: their
``exp`` misses it in one of some thousand cases, by less than a unit in the last place.) The numbers given are taken
for exactly what they are, so that what is returned is a theorem about these very floats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from infoassign.testing.contract import host
from infoassign.testing.definitions import Matrix

if TYPE_CHECKING:
    from flint import arb

LARGEST = 10_000
"""Entries of the scores at most; a thousand take some hundredths of a second."""
BITS = (128, 256, 512, 1024, 2048)
"""The precisions that are tried in turn."""
RELATIVE_WIDTH = 1e-16
NOTHING = 1e-300
"""A gap below this is not told from 0."""


class Enclosure(NamedTuple):
    """Two floats with the exact value between them.

    Examples
    --------
    >>> found = certify(np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2), epsilon=0.5, strength=0.5)
    >>> found.lower <= 0 <= found.upper  # equal prices are optimal here
    True
    """

    lower: float
    """Rounded down."""
    upper: float
    """Rounded up."""


def certify(scores: Any, potential: Any, *, epsilon: float, strength: float, prior: Any = None) -> Enclosure:
    """Enclose the duality gap of a potential: primal of the plan ``W(v)`` minus dual of v, in exact arithmetic.

    For a finite strength that is ``rho KL(wbar || u)`` (theory, A4): the suboptimality of the plan is at most the upper
    end, and a claimed gap below the lower end is wrong. For an infinite strength ``W(v)`` misses the prior, and the
    plan is that moved onto it (theory, A11): the upper end bounds ``dual(v*) - dual(v)``.

    Parameters
    ----------
    scores
        Shape (B, K), of any library; ``-inf`` forbids a pair, which an infinite strength does not allow here. At most
        10,000 entries.
    potential
        Shape (K,), in units of the scores; ``+inf``, or anything, for a label that no row may use.
    epsilon, strength
        As in :func:`infoassign.assign`. For :func:`infoassign.mira` these are ``1 - beta`` and ``beta``, and the scores
        are divided by the temperature.
    prior
        Positive, shape (K,); it is divided by its sum, exactly. Default: equal shares.

    Returns
    -------
    Enclosure
        Floats, rounded outwards.

    Raises
    ------
    ImportError
        Without python-flint, which the extra ``testing`` installs.
    ValueError
        If an argument is out of its range or too large, or if pairs are forbidden under an infinite strength.

    Examples
    --------
    >>> import infoassign as ia
    >>> scores = np.random.default_rng(0).normal(size=(12, 4))
    >>> found = ia.mira(scores, beta=0.75)
    >>> gap = certify(scores, found.potential, epsilon=0.25, strength=0.75)
    >>> 0 < gap.lower <= gap.upper <= 1e-9, (gap.upper - gap.lower) / gap.upper < 1e-15
    (True, True)
    """
    return _enclosed(_gap, _exact(scores, potential, epsilon, strength, prior))


def certify_error_bound(
    scores: Any, potential: Any, *, epsilon: float, strength: float, prior: Any = None
) -> Enclosure:
    """Enclose the bound of A5 on the mean total variation between the plan ``W(v)`` and the optimal one.

    It is ``sqrt(gap / (4 epsilon))``, or ``tanh(rho osc(log wbar - log u) / (4 epsilon))`` where that is smaller; for
    an infinite strength ``sqrt(gap / (2 epsilon))``. A claimed error bound that is not below the upper end is proved.

    Parameters
    ----------
    scores, potential, epsilon, strength, prior
        As in :func:`certify`.

    Returns
    -------
    Enclosure
        Of the bound, not of the distance, which is between 0 and it.

    Raises
    ------
    ImportError, ValueError
        As :func:`certify`.

    Examples
    --------
    >>> import infoassign as ia
    >>> scores = np.random.default_rng(0).normal(size=(12, 4))
    >>> found = ia.mira(scores, beta=0.75, tol=1e-6)
    >>> certify_error_bound(scores, found.potential, epsilon=0.25, strength=0.75).upper <= found.error_bound
    True
    """
    return _enclosed(_error_bound, _exact(scores, potential, epsilon, strength, prior))


@dataclass(frozen=True)
class _Given:
    """The arguments as they are, without the labels that no row may use."""

    scores: list[list[float]]
    potential: list[float]
    prior: list[float]
    epsilon: float
    strength: float


def _floats(name: str, given: Any) -> Matrix:
    """Return an array as float64 if that is what it is exactly: a proof about other numbers would be none."""
    if isinstance(given, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be a masked array; forbid pairs by -inf")
    array = given if hasattr(given, "__array_namespace__") or hasattr(given, "device") else np.asarray(given)
    if "complex" in str(array.dtype):
        raise ValueError(f"{name} must be real; got {array.dtype}")
    found = host(array)
    if isinstance(array, np.ndarray) and not np.array_equal(
        found.astype(array.dtype), array, equal_nan=array.dtype.kind == "f"
    ):
        raise ValueError(f"{name} must be numbers that double precision has; some of {array.dtype} are not")
    return found


def _exact(scores: Any, potential: Any, epsilon: float, strength: float, prior: Any) -> _Given:
    s, v = _floats("scores", scores), _floats("potential", potential)
    for name, number in (("epsilon", epsilon), ("strength", strength)):
        if isinstance(number, complex | str) or float(number) != number:
            raise ValueError(f"{name} must be a number that double precision has; got {number!r}")
    if s.ndim != 2 or s.size == 0:
        raise ValueError(f"scores must have shape (B, K), not empty; got {s.shape}")
    if s.size > LARGEST:
        raise ValueError(f"scores may have {LARGEST} entries for a proof; got {s.size}: take fewer rows")
    if np.isnan(s).any() or (s == inf).any() or (s == -inf).all(axis=1).any():
        raise ValueError("scores must not hold NaN, +inf or a row that is all -inf")
    r = np.ones(s.shape[1]) if prior is None else _floats("prior", prior)
    if v.shape != (s.shape[1],) or r.shape != v.shape:
        raise ValueError(f"potential and prior must have shape {(s.shape[1],)}; got {v.shape} and {r.shape}")
    if not 0 < epsilon < inf or not strength >= 0:
        raise ValueError(f"epsilon must be positive and finite, strength not negative; got {epsilon!r}, {strength!r}")
    usable = (s > -inf).any(axis=0)
    if not np.isfinite(v[usable]).all() or not (np.isfinite(r) & (r > 0)).all():
        raise ValueError("potential must be finite for every label that some row may use, prior finite and positive")
    if strength == inf and (s == -inf).any():
        raise ValueError("with an infinite strength and forbidden pairs, no plan that meets the prior is made here")
    # Leaving labels out leaves the scale of r open, which KL does not see: u is normalised over the others.
    return _Given(s[:, usable].tolist(), v[usable].tolist(), r[usable].tolist(), float(epsilon), float(strength))


def _enclosed(quantity: Callable[[_Given], "arb"], given: _Given) -> Enclosure:
    """Evaluate what is not negative, with more and more bits, until floats are the coarser ones."""
    try:
        from flint import ctx
    except ImportError as missing:
        raise ImportError("this needs python-flint; install it with: pip install infoassign[testing]") from missing
    before = ctx.prec
    try:
        for bits in BITS:
            ctx.prec = bits
            value = quantity(given)
            if not value.is_finite():
                continue
            lower, upper = _outwards(value)
            if upper - lower <= RELATIVE_WIDTH * upper or upper <= NOTHING:
                break
        if not value.is_finite():
            raise ValueError(f"a label's share cannot be told from 0 in {bits} bits: the scores are too far apart")
        return Enclosure(max(lower, 0.0), upper)
    finally:
        ctx.prec = before


def _outwards(value: "arb") -> tuple[float, float]:
    """Return the ends of a ball as floats, the nearest that lie not inside."""
    low, high = value.lower(), value.upper()
    lower, upper = float(low), float(high)
    return lower if low >= lower else nextafter(lower, -inf), upper if high <= upper else nextafter(upper, inf)


def _sum(terms: Sequence["arb"]) -> "arb":
    from flint import arb

    return sum(terms, arb(0))


def _largest(terms: Sequence["arb"]) -> "arb":
    return reduce(lambda a, b: a.max(b), terms)


def _log_w(given: _Given) -> list[list["arb | None"]]:
    """Return ``log W(v)``, None for forbidden pairs."""
    from flint import arb

    v, epsilon = [arb(x) for x in given.potential], arb(given.epsilon)
    rows: list[list[arb | None]] = []
    for row in given.scores:
        raw = [None if s == -inf else (arb(s) - v[j]) / epsilon for j, s in enumerate(row)]
        top = _largest([x for x in raw if x is not None])
        lse = top + _sum([(x - top).exp() for x in raw if x is not None]).log()
        rows.append([None if x is None else x - lse for x in raw])
    return rows


def _marginal(log_w: list[list["arb | None"]]) -> list["arb"]:
    return [_sum([x.exp() for x in column if x is not None]) / len(log_w) for column in zip(*log_w, strict=True)]


def _prior(given: _Given) -> list["arb"]:
    from flint import arb

    r = [arb(x) for x in given.prior]
    total = _sum(r)
    return [x / total for x in r]


def _log_ratio(given: _Given, marginal: list["arb"]) -> list["arb"]:
    """Return ``log wbar - log u`` with ``u ∝ r exp(v / rho)``."""
    from flint import arb

    raw = [r.log() + arb(v) / arb(given.strength) for r, v in zip(_prior(given), given.potential, strict=True)]
    top = _largest(raw)
    scale = top + _sum([(x - top).exp() for x in raw]).log()
    return [w.log() - (x - scale) for w, x in zip(marginal, raw, strict=True)]


def _gap(given: _Given) -> "arb":
    from flint import arb

    log_w = _log_w(given)
    marginal = _marginal(log_w)
    if given.strength == inf:
        return _rounded_gap(given, [[x for x in row if x is not None] for row in log_w], marginal)
    if given.strength == 0:  # the marginal is free, and v is to be constant where it is
        v = [arb(x) for x in given.potential]
        return _largest(v) - _sum([w * x for w, x in zip(marginal, v, strict=True)])
    d = _log_ratio(given, marginal)
    return arb(given.strength) * _sum([w * x for w, x in zip(marginal, d, strict=True)])


def _rounded_gap(given: _Given, log_w: list[list["arb"]], marginal: list["arb"]) -> "arb":
    """``epsilon mean_i KL(w'_i || w_i)`` of the plan moved onto the prior; columns with too much give to the others."""
    from flint import arb

    prior = _prior(given)
    one, zero = arb(1), arb(0)
    keep = [one.min(r / w) for r, w in zip(prior, marginal, strict=True)]
    missing = [zero.max(r - w) for r, w in zip(prior, marginal, strict=True)]
    total = _sum(missing)
    # Where the marginal may be the prior, of what is given a label gets something between nothing and all.
    shares = [zero.union(one) if total.contains(0) else x / total for x in missing]
    divergence = zero
    for row in log_w:
        w = [x.exp() for x in row]
        given_up = _sum([p * (one - k) for p, k in zip(w, keep, strict=True)])
        for j, log_p in enumerate(row):
            moved = w[j] * keep[j] + given_up * shares[j]
            divergence += moved * (moved.log() - log_p)
    return arb(given.epsilon) * divergence / len(log_w)


def _error_bound(given: _Given) -> "arb":
    from flint import arb

    if given.strength == 0:  # the plan is the softmax for v = 0 alone
        raise ValueError("at strength 0 the optimal plan is the softmax; there is nothing to bound")
    gap, epsilon = _gap(given), arb(given.epsilon)
    if given.strength == inf:
        return _root(gap / (2 * epsilon))
    d = _log_ratio(given, _marginal(_log_w(given)))
    oscillation = _largest(d) + _largest([-x for x in d])
    return _root(gap / (4 * epsilon)).min((arb(given.strength) * oscillation / (4 * epsilon)).tanh())


def _root(value: "arb") -> "arb":
    """Return the square root of what is not negative, though its ball may not know that."""
    from flint import arb

    return arb(0).union(value.upper().sqrt()) if value.lower() <= 0 else value.sqrt()
