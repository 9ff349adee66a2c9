"""Embeddings cut into segments, each a soft symbol, and the terms that MUSIC and IMSVD train them by.

A segment of D units holds a distribution, the softmax of its part of an embedding (MUSIC, eq. 1). Two views of N
samples have the joint distribution ``P(d', d'') = mean_i q'_i(d') q''_i(d'')`` of any two of their units (MUSIC eq. 2,
IMSVD eq. 10). It is kept to what is needed of it: the diagonal entropy takes D cells, the off-diagonal one a tile at a
time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any, Literal, NamedTuple, TypeAlias

import array_api_compat as api

from infoassign import validation
from infoassign.arrays import constant, in_single
from infoassign.information import entropy
from infoassign_backends import backend_for
from infoassign_backends.protocol import Array, Views
from infoassign_backends.sums import sum_of_rows

Units: TypeAlias = int | Sequence[int]
"""The size of every segment, or the sizes of all of them."""
Normalization: TypeAlias = Literal["block", "grid"]
Invariance: TypeAlias = Literal["inner-product", "cross-entropy"]
AllGather: TypeAlias = Callable[[Array], Sequence[Array]]
"""From this rank's rows, (n, any), to those of every rank, in one order on all ranks; they may differ in number."""


@dataclass(frozen=True)
class Segments:
    """How the units of an embedding are cut.

    Examples
    --------
    >>> Segments((2, 2, 3)).count, Segments((2, 2, 3)).width
    (3, 7)
    """

    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of segments, M."""
        return len(self.sizes)

    @property
    def width(self) -> int:
        """The number of units of all of them, sum D."""
        return sum(self.sizes)

    def each(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """Return what a function makes of the segments of arrays (n, sum D), side by side.

        It gets m segments of one size D at a time, (n, m, D), and keeps as much or (n, m, 1).
        """
        xp = api.array_namespace(*arrays)
        parts, start = [], 0
        for size, alike in groupby(self.sizes):
            count = len(list(alike))
            units = slice(start, start + count * size)
            part = function(*(xp.reshape(array[:, units], (array.shape[0], count, size)) for array in arrays))
            parts.append(xp.reshape(part, (part.shape[0], prod(part.shape[1:]))))
            start = units.stop
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)

    def sums(self, array: Array) -> Array:
        """Return the sums over segments, shape (n, M), of an array (n, sum D)."""
        return self.each(lambda x: api.array_namespace(x).sum(x, axis=-1, keepdims=True), array)

    def log_softmax(self, array: Array) -> Array:
        """Return the log-probabilities of an array (n, sum D) of logits."""

        def of(x: Array) -> Array:
            xp = api.array_namespace(x)
            x = x - constant(xp.max(x, axis=-1, keepdims=True))
            return x - xp.log(xp.sum(xp.exp(x), axis=-1, keepdims=True))

        return self.each(of, array)

    def log_sums(self, array: Array) -> Array:
        """Return ``log sum exp`` over segments, shape (n, M), of an array (n, sum D)."""

        def of(x: Array) -> Array:
            xp = api.array_namespace(x)
            largest = constant(xp.max(x, axis=-1, keepdims=True))
            return largest + xp.log(xp.sum(xp.exp(x - largest), axis=-1, keepdims=True))

        return self.each(of, array)

    def weights(self, normalization: Normalization) -> tuple[float, float]:
        """Return what multiplies the sums of P log P on and off the diagonal (theory, B1)."""
        on, off = (self.count**2,) * 2 if normalization == "grid" else (self.count, self.count * (self.count - 1))
        return 1 / on, 1 / off if off else 0.0


class EntropyTerms(NamedTuple):
    """What MUSIC and IMSVD minimise of a joint distribution (theory, B1): sums of P log P, so entropies with a minus.

    Both in nats; what :func:`infoassign.entropy_terms` and :func:`infoassign.entropy_lower_bounds` return.

    Examples
    --------
    Two independent, evenly used segments of two units have two bits together (the mean over both orders of the pair):

    >>> import numpy as np
    >>> codes = np.eye(2)[[[0, 0], [0, 1], [1, 0], [1, 1]]].reshape(4, 4)
    >>> float(entropy_terms(codes, codes, units=2).off_diagonal / np.log(2))
    -2.0
    """

    diagonal: Any
    """DE, of the cells on the diagonal of the blocks of a segment with itself; an array of shape (), or a number."""
    off_diagonal: Any
    """OE, of all cells of the blocks of two segments."""


def soft_discretize(z: Array, units: Units, temperature: float = 1.0) -> Array:
    """Turn embeddings into a distribution for each segment: softmax, segment by segment (MUSIC eq. 1, IMSVD eq. 1).

    Parameters
    ----------
    z
        Embeddings, shape (N, sum D), real floating, finite; N may be 0.
    units
        The size D of every segment, which must divide sum D, or the sizes of all of them, which must sum to it.
    temperature
        Divides the embeddings; positive.

    Returns
    -------
    Array
        Shape (N, sum D), in the dtype of `z`, or in single precision if that is half: small probabilities would
        vanish. Differentiable where the library has autograd.

    Raises
    ------
    TypeError
        If `z` is no array of real floating numbers or `units` are not integers.
    ValueError
        If `z` has another shape than (N, sum D), or `units` do not cut it; for arrays on the host also if it is not
        finite.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.log([[1.0, 3.0, 2.0, 2.0, 4.0]])
    >>> soft_discretize(z, units=[2, 3])
    array([[0.25, 0.75, 0.25, 0.25, 0.5 ]])
    """
    segments = as_segments("units", units, validation.check_embedding("z", z, empty=True))
    temperature = validation.check_temperature(temperature, z)
    validation.check_logits("z", z, temperature)
    return api.array_namespace(z).exp(segments.log_softmax(in_single(z) / temperature))


def joint_distribution(q1: Array, q2: Array) -> Array:
    """Return ``P = mean_i q1_i^T q2_i``, the joint distribution of the units of two views (MUSIC eq. 2, IMSVD eq. 10).

    This is the whole matrix. :func:`entropy_terms` and the losses never make it.

    Parameters
    ----------
    q1, q2
        Soft codes, shapes (N, sum D) and (N, sum D'), of one dtype.

    Returns
    -------
    Array
        Shape (sum D, sum D'), in the dtype of the codes, in single precision at least, also under torch's autocast.
        A block of two segments sums to one. Differentiable where the library has autograd.

    Raises
    ------
    TypeError, ValueError
        If `q1` and `q2` are not matrices of the same library, dtype, device and number of rows.

    Examples
    --------
    >>> import numpy as np
    >>> joint_distribution(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    array([[0.5 , 0.  ],
           [0.25, 0.25]])
    """
    validation.check_embedding("q1", q1)
    validation.check_embedding("q2", q2)
    validation.check_like("q2", q2, "q1", q1, shape=(q1.shape[0], q2.shape[1]))
    return backend_for(q1).product(in_single(q1), in_single(q2)) / q1.shape[0]


def entropy_terms(
    q1: Array,
    q2: Array,
    units: Units,
    *,
    normalization: Normalization = "block",
    all_gather: AllGather | None = None,
) -> EntropyTerms:
    """Return the diagonal and the off-diagonal entropy term of two views' soft codes (MUSIC eq. 5, IMSVD eq. 11).

    With the joint distribution P of the views, DE sums ``P log P`` over the diagonals of the blocks of a segment with
    itself, and OE over all cells of the blocks of two different segments; ``0 log 0 = 0``, exactly. The losses are
    ``DE + OE`` plus :func:`transform_invariance`. See :func:`infoassign.entropy_lower_bounds` for how low they can get.

    P is never whole in memory: it is made a tile at a time, with both gradients (theory, B7), in O(N sum D) memory.
    (Under ``jax.jit`` the compiler may keep the tiles.)

    Parameters
    ----------
    q1, q2
        Soft codes of two views of the same samples, shape (N, sum D), as of :func:`soft_discretize`.
    units
        The size of every segment, or the sizes of all.
    normalization
        "block": DE is the mean over the M segments and OE that over the M (M - 1) ordered pairs, as in the authors'
        code and MUSIC's eq. 5. "grid": both are divided by M^2, as in MUSIC's eq. 3 and IMSVD's eq. 11.
    all_gather
        Where the samples are spread over ranks: a function that takes the rows of this rank, shape (n, any), and
        returns a list of those of every rank. P is then that of all rows. The gradient is scaled by the number of
        ranks, so that the mean over ranks, which data-parallel training takes, is the gradient of one process with all
        rows. It need not be differentiable.

    Returns
    -------
    EntropyTerms
        `diagonal` and `off_diagonal`, of shape () and the dtype of the codes, in single precision at least.
        Differentiable, once, where the library has autograd (with `all_gather` in torch alone); ``torch.compile``
        breaks its graph here, and ``torch.func`` cannot transform it.

    Raises
    ------
    TypeError, ValueError
        If the codes are not alike, or `units` do not cut them; on the host also if they are no distributions.

    Examples
    --------
    Two segments of two units, independent and evenly used, by one-hot codes:

    >>> import numpy as np
    >>> codes = np.eye(2)[[[0, 0], [0, 1], [1, 0], [1, 1]]].reshape(4, 4)
    >>> terms = entropy_terms(codes, codes, units=2)
    >>> float(terms.diagonal / np.log(2)), float(terms.off_diagonal / np.log(2))
    (-1.0, -2.0)
    """
    segments = check_codes(q1, q2, units, empty=all_gather is not None)
    validation.check_choice("normalization", normalization, ("block", "grid"))
    check_autograd(q1, all_gather)
    rows = gathered(in_single(q1), in_single(q2), all_gather)
    on, off = segments.weights(normalization)
    return EntropyTerms(diagonal(rows) * on, off_diagonal(rows, segments) * off)


def transform_invariance(q1: Array, q2: Array, units: Units, *, kind: Invariance = "inner-product") -> Array:
    """Return how much the codes of two views of the same samples disagree.

    Parameters
    ----------
    q1, q2
        Soft codes, shape (N, sum D), as of :func:`soft_discretize`.
    units
        The size of every segment, or the sizes of all.
    kind
        "inner-product": ``-mean_{i,m} log <q1_i(m), q2_i(m)>``, TI of the papers' listings and IMSVD's eq. 11.
        (MUSIC's eq. 4 has the logarithm inside the sum, which no one-hot code survives.) "cross-entropy":
        ``-mean_{i,m} <q1_i(m), log q2_i(m)>``, TIC of their ablations.

    Returns
    -------
    Array
        Shape (), not negative, in the dtype of the codes, in single precision at least; ``inf`` where the views exclude
        each other (the losses work with logits and stay finite). Differentiable where the library has autograd. With
        rows spread over ranks it is the mean over those at hand.

    Raises
    ------
    TypeError, ValueError
        As :func:`entropy_terms`.

    Examples
    --------
    >>> import numpy as np
    >>> q1, q2 = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    >>> float(np.exp(-transform_invariance(q1, q2, units=2)))
    0.5
    """
    segments = check_codes(q1, q2, units)
    validation.check_choice("kind", kind, ("inner-product", "cross-entropy"))
    q1, q2 = in_single(q1), in_single(q2)
    if kind == "inner-product":
        return -_mean_log(segments.sums(q1 * q2))
    return -_mean_product_with_log(q1, q2) * (segments.width / segments.count)


def _mean_log(x: Array) -> Array:
    """Return the mean of logarithms, ``-inf`` with slope 0 for those of 0."""
    xp = api.array_namespace(x)
    positive = x > 0
    return xp.mean(xp.where(positive, xp.log(xp.where(positive, x, xp.ones_like(x))), -xp.inf))


def _mean_product_with_log(weight: Array, x: Array) -> Array:
    """Return the mean of ``w log x``, 0 where the weight is."""
    xp = api.array_namespace(x)
    positive = x > 0
    log = xp.log(xp.where(positive, x, xp.ones_like(x)))
    return xp.mean(weight * xp.where(positive | (weight == 0), log, -xp.inf))


def as_segments(name: str, units: Units, width: int) -> Segments:
    """Return the segments that so many units are cut into by an argument of some name."""
    return Segments(validation.check_units(name, units, width))


def check_codes(q1: Array, q2: Array, units: Units, *, empty: bool = False) -> Segments:
    """Return the segments of two views' soft codes, or say what is wrong with them."""
    segments = as_segments("units", units, validation.check_embedding("q1", q1, empty=empty))
    validation.check_like("q2", q2, "q1", q1, shape=tuple(q1.shape))
    for name, q in (("q1", q1), ("q2", q2)):
        validation.check_distributions(name, q, segments.sums)
    return segments


class Rows(NamedTuple):
    """Soft codes of two views, at hand and on all ranks."""

    views: Views
    ranks: int
    total: int
    """The number of rows of all ranks, N."""


def check_autograd(array: Array, all_gather: AllGather | None) -> None:
    """Say so if gradients through a gather would be asked of a library whose autograd is not stopped here."""
    if all_gather is not None and api.is_jax_array(array):
        raise TypeError(
            "all_gather is not for JAX's autograd, whose gradients would be wrong; imsvd_loss_and_gradient and"
            " music_loss_and_gradient have values and gradients over ranks"
        )


def gathered(first: Array, second: Array, all_gather: AllGather | None) -> Rows:
    """Return soft codes (n, sum D) with those of all ranks: both views at once, as constants."""
    if all_gather is None:
        return Rows(Views(first, second, first, second), 1, first.shape[0])
    xp = api.array_namespace(first)
    mine = xp.concat([constant(first), constant(second)], axis=1)
    parts = validation.check_gathered(all_gather(mine), mine)
    everyone = xp.concat([constant(part) for part in parts], axis=0)
    width = first.shape[1]
    views = Views(first, second, everyone[:, :width], everyone[:, width:])
    return Rows(views, len(parts), everyone.shape[0])


def agreement(rows: Rows) -> Array:
    """Return the diagonal of P, shape (sum D,), with the slope of this rank's rows; summed in the widest dtype."""
    first, second, all_first, all_second = rows.views
    mass = sum_of_rows(first * second)
    if rows.ranks > 1:
        mass = sum_of_rows(all_first * all_second) + (mass - constant(mass))
    return mass / rows.total


def diagonal(rows: Rows) -> Array:
    """Return the sum of P log P over the diagonal, with the slope of all ranks."""
    value = api.array_namespace(rows.views.first).astype(-entropy(agreement(rows)), rows.views.first.dtype)
    return _steeper(value, rows.ranks)


def off_diagonal(rows: Rows, segments: Segments) -> Array:
    """Return the sum of P log P over the blocks of two segments, with the slope of all ranks."""
    first = rows.views.first
    if segments.count == 1:
        return api.array_namespace(first).zeros((), dtype=first.dtype, device=api.device(first))
    return _steeper(backend_for(first).off_diagonal(rows.views, segments.sizes), rows.ranks)


def _steeper(value: Array, factor: int) -> Array:
    """Return a value as it is, with so many times its gradient.

    Each rank adds its own rows' share to a gradient that is then averaged over the ranks.
    """
    return value if factor == 1 else constant(value) + factor * (value - constant(value))
