"""MUSIC's and IMSVD's losses of two views' embeddings, and the objective that they stand for.

Both are the same three terms, weighed differently: see :mod:`infoassign.segments`. The losses start from logits, so the
invariance term is exact in the log domain however sure the views are of different symbols.
"""

from typing import Literal, NamedTuple

import array_api_compat as api

from infoassign import validation
from infoassign.arrays import constant, in_single
from infoassign.information import entropy
from infoassign.segments import (
    AllGather,
    Invariance,
    Normalization,
    Rows,
    Segments,
    Units,
    agreement,
    as_segments,
    check_autograd,
    diagonal,
    gathered,
    off_diagonal,
    transform_invariance,
)
from infoassign.subsets import subset_entropy
from infoassign_backends import backend_for
from infoassign_backends.protocol import Array


class LossAndGradient(NamedTuple):
    """A loss of two views' embeddings, with its gradients.

    What :func:`infoassign.music_loss_and_gradient` and :func:`infoassign.imsvd_loss_and_gradient` return.

    Examples
    --------
    >>> import numpy as np
    >>> z1, z2 = np.random.default_rng(0).normal(size=(2, 64, 12))
    >>> value, gradient1, gradient2 = music_loss_and_gradient(z1, z2, segment_size=4)
    >>> value.shape, gradient1.shape, gradient2.shape
    ((), (64, 12), (64, 12))
    """

    value: Array
    """Shape (), in the dtype of the embeddings, in single precision at least."""
    gradient1: Array
    """Shape (N, sum D): the derivative in the first view's embeddings, in the dtype of `value`."""
    gradient2: Array
    """The same in the second's."""


class _Weights(NamedTuple):
    """What the terms of a loss are multiplied by; arguments of the functions are called so, with ``_weight``."""

    diagonal: float
    off_diagonal: float
    invariance: float
    entropy: float = 1.0
    """Multiplies both of the first two."""


class _Loss(NamedTuple):
    """Everything that defines a loss but the embeddings."""

    segments: Segments
    diagonal: float
    off_diagonal: float
    invariance: float
    kind: Invariance
    temperature: float
    all_gather: AllGather | None


def music_loss(
    z1: Array,
    z2: Array,
    *,
    segment_size: Units = 80,
    diagonal_weight: float = 1.0,
    off_diagonal_weight: float = 1.0,
    invariance_weight: float = 1.0,
    temperature: float = 1.0,
    normalization: Normalization = "block",
    invariance: Invariance = "inner-product",
    all_gather: AllGather | None = None,
) -> Array:
    """Return MUSIC's loss of two views' embeddings: joint entropy terms plus weighted transform invariance.

    ``DE + OE + invariance_weight * TI`` of the soft codes of the embeddings: :func:`infoassign.entropy_terms` and
    :func:`infoassign.transform_invariance`, MUSIC's eq. 4 and 5 (its printed eq. 4 has a logarithm in the wrong place;
    this is what its listing computes). A weight of 0 leaves a term out, as in MUSIC's table 8.

    Parameters
    ----------
    z1, z2
        Embeddings of two views of the same samples, shape (N, sum D), real floating, finite: the logits of the codes.
    segment_size
        The size of every segment (80 in the paper), or the sizes of all.
    diagonal_weight, off_diagonal_weight
        Of DE and OE. What has the weight 0 is not computed.
    invariance_weight
        Lambda, the weight of TI; likewise.
    temperature
        Divides the embeddings; positive.
    normalization
        "block" divides DE by M and OE by M (M - 1), as the authors' code; "grid" both by M^2, as eq. 3.
    invariance
        "inner-product" for TI, "cross-entropy" for TIC of the paper's table 8: ``-mean_{i,m} <q'_i(m), log q''_i(m)>``,
        as sec. 2.3 has it, from the first view to the second alone, with the gradient in both.
    all_gather
        Where the samples are spread over ranks; see :func:`infoassign.entropy_terms`. Ranks may differ in their number
        of rows, and have none. The mean over ranks of the values is that of one process with all rows, too.

    Returns
    -------
    Array
        Shape (), in the dtype of `z1`, in single precision at least, also under torch's autocast. Differentiable where
        the library has autograd (once: a gradient of the gradient raises an error; ``torch.compile`` breaks its graph
        here); for libraries without, see :func:`infoassign.music_loss_and_gradient`.

    Raises
    ------
    TypeError
        If the embeddings are no arrays of real floating numbers of one library and dtype.
    ValueError
        If their shapes differ, `segment_size` does not cut them, a weight is out of range, or the weights leave no
        term; for arrays on the host also if they are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).normal(size=(2, 64, 12))
    >>> round(float(music_loss(*z, segment_size=4)), 3)
    -2.004
    """
    weights = _Weights(diagonal_weight, off_diagonal_weight, invariance_weight)
    cut = "segment_size", segment_size
    return _value(z1, z2, _loss(z1, z2, cut, weights, temperature, normalization, invariance, all_gather))


def music_loss_and_gradient(
    z1: Array,
    z2: Array,
    *,
    segment_size: Units = 80,
    diagonal_weight: float = 1.0,
    off_diagonal_weight: float = 1.0,
    invariance_weight: float = 1.0,
    temperature: float = 1.0,
    normalization: Normalization = "block",
    invariance: Invariance = "inner-product",
    all_gather: AllGather | None = None,
) -> LossAndGradient:
    """Return MUSIC's loss (eq. 4) with its gradients in both embeddings (theory, B7), for any array library.

    Parameters
    ----------
    z1, z2, segment_size, diagonal_weight, off_diagonal_weight, invariance_weight, temperature
        As :func:`infoassign.music_loss`.
    normalization, invariance, all_gather
        As :func:`infoassign.music_loss`.

    Returns
    -------
    LossAndGradient
        The value and the gradients, shape (N, sum D), as constants. With `all_gather` the gradients are those in this
        rank's rows, times the number of ranks: their mean over ranks, through what made the rows, is that of one
        process.

    Raises
    ------
    TypeError, ValueError
        As :func:`infoassign.music_loss`.

    Examples
    --------
    Gradients of logits do not change what a shift of a segment does not: they sum to zero over each.

    >>> import numpy as np
    >>> z = np.random.default_rng(0).normal(size=(2, 64, 12))
    >>> found = music_loss_and_gradient(*z, segment_size=4)
    >>> bool(np.allclose(found.gradient1.reshape(64, 3, 4).sum(axis=-1), 0))
    True
    """
    weights = _Weights(diagonal_weight, off_diagonal_weight, invariance_weight)
    cut = "segment_size", segment_size
    loss = _loss(z1, z2, cut, weights, temperature, normalization, invariance, all_gather)
    return _value_and_gradient(z1, z2, loss)


def imsvd_loss(
    z1: Array,
    z2: Array,
    *,
    units: Units = 80,
    entropy_weight: float = 1.0,
    diagonal_weight: float = 1.0,
    off_diagonal_weight: float = 1.0,
    invariance_weight: float = 1.0,
    temperature: float = 1.0,
    normalization: Normalization = "block",
    invariance: Invariance = "inner-product",
    all_gather: AllGather | None = None,
) -> Array:
    """Return IMSVD's loss of two views' embeddings: transform invariance plus weighted joint entropy terms.

    ``TI + entropy_weight * (DE + OE)`` of the soft codes of the embeddings, IMSVD's eq. 11: MUSIC's loss, with lambda
    on the other side. A weight of 0 leaves a term out, as in IMSVD's table VIII.

    Parameters
    ----------
    z1, z2
        Embeddings of two views of the same samples, shape (N, sum D), real floating, finite: the logits of the codes.
    units
        The number of units of every variable (80 in the paper), or those of all.
    entropy_weight
        Lambda, the weight of DE + OE. What has the weight 0 is not computed.
    diagonal_weight, off_diagonal_weight, invariance_weight
        Of DE and OE, times lambda, and of TI; likewise.
    temperature
        Divides the embeddings; positive.
    normalization
        "block" divides DE by M and OE by M (M - 1), as the authors' code, which presumably made the published numbers;
        "grid" both by M^2, as eq. 11.
    invariance
        "inner-product" for TI, "cross-entropy" for TIC of the paper's table VIII; see :func:`infoassign.music_loss`.
    all_gather
        Where the samples are spread over ranks; see :func:`infoassign.music_loss`.

    Returns
    -------
    Array
        Shape (); see :func:`infoassign.music_loss`.

    Raises
    ------
    TypeError, ValueError
        As :func:`infoassign.music_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).normal(size=(2, 64, 12))
    >>> float(imsvd_loss(*z, units=4) - music_loss(*z, segment_size=4))
    0.0
    """
    weights = _Weights(diagonal_weight, off_diagonal_weight, invariance_weight, entropy_weight)
    cut = "units", units
    return _value(z1, z2, _loss(z1, z2, cut, weights, temperature, normalization, invariance, all_gather))


def imsvd_loss_and_gradient(
    z1: Array,
    z2: Array,
    *,
    units: Units = 80,
    entropy_weight: float = 1.0,
    diagonal_weight: float = 1.0,
    off_diagonal_weight: float = 1.0,
    invariance_weight: float = 1.0,
    temperature: float = 1.0,
    normalization: Normalization = "block",
    invariance: Invariance = "inner-product",
    all_gather: AllGather | None = None,
) -> LossAndGradient:
    """Return IMSVD's loss (eq. 11) with its gradients in both embeddings (theory, B7), for any array library.

    Parameters
    ----------
    z1, z2, units, entropy_weight, diagonal_weight, off_diagonal_weight, invariance_weight, temperature
        As :func:`infoassign.imsvd_loss`.
    normalization, invariance, all_gather
        As :func:`infoassign.imsvd_loss`.

    Returns
    -------
    LossAndGradient
        See :func:`infoassign.music_loss_and_gradient`.

    Raises
    ------
    TypeError, ValueError
        As :func:`infoassign.music_loss`.

    Examples
    --------
    A step of gradient descent on the embeddings themselves:

    >>> import numpy as np
    >>> z1, z2 = np.random.default_rng(0).normal(size=(2, 64, 12))
    >>> before = imsvd_loss_and_gradient(z1, z2, units=4)
    >>> after = imsvd_loss(z1 - before.gradient1, z2 - before.gradient2, units=4)
    >>> bool(after < before.value)
    True
    """
    weights = _Weights(diagonal_weight, off_diagonal_weight, invariance_weight, entropy_weight)
    cut = "units", units
    loss = _loss(z1, z2, cut, weights, temperature, normalization, invariance, all_gather)
    return _value_and_gradient(z1, z2, loss)


def information_objective(
    q1: Array,
    q2: Array,
    units: Units,
    *,
    order: int = 2,
    entropy_weight: float = 1.0,
    correlation_weight: float = 1.0,
    similarity: Invariance = "inner-product",
    equation: Literal[4, 9] = 4,
) -> Array:
    """Return what IMSVD maximises, before its loss replaces each view's own entropies by those across views.

    Eq. 4 is ``similarity + lambda S_1 - beta C_r``, with the mean entropy of a variable ``S_1`` and the mean total
    correlation ``C_r = r S_1 - S_r`` of r variables, both averaged over the views. Eq. 9 is ``similarity + lambda S_1 +
    beta S_r``, which the paper calls equivalent; it is eq. 4 with ``lambda + r beta`` for lambda. (Both print the first
    view twice.) Exact, and for small problems: it looks at all subsets of r variables, ``prod D`` cells each.

    Parameters
    ----------
    q1, q2
        Soft codes of two views, shape (N, sum D), as of :func:`infoassign.soft_discretize`.
    units
        The number of units of every variable, or those of all.
    order
        r, the size of the subsets; from 2 to the number of variables.
    entropy_weight, correlation_weight
        Lambda and beta.
    similarity
        The kernel of the first term is minus :func:`infoassign.transform_invariance` of this kind.
    equation
        4 or 9.

    Returns
    -------
    Array
        Shape (), in the dtype of the codes, in single precision at least. Differentiable where the library has
        autograd.

    Raises
    ------
    TypeError, ValueError
        As :func:`infoassign.subset_entropy` and :func:`infoassign.transform_invariance`.

    Examples
    --------
    Independent, evenly used one-hot codes are the best there is:

    >>> import numpy as np
    >>> codes = np.eye(2)[[[0, 0], [0, 1], [1, 0], [1, 1]]].reshape(4, 4)
    >>> float(information_objective(codes, codes, units=2) / np.log(2))
    1.0
    """
    if equation not in (4, 9):
        raise ValueError(f"equation must be 4 or 9, of IMSVD; got {equation!r}")
    validation.count("order", order, least=2)
    validation.check_choice("similarity", similarity, ("inner-product", "cross-entropy"))
    lamda = validation.factor("entropy_weight", entropy_weight)
    beta = validation.factor("correlation_weight", correlation_weight)
    found = -transform_invariance(q1, q2, units, kind=similarity)
    for q in (q1, q2):
        single, joint = (subset_entropy(q, units, r).value for r in (1, order))
        found = found + (lamda - (beta * order if equation == 4 else 0)) * single / 2 + beta * joint / 2
    return found


def _loss(
    z1: Array,
    z2: Array,
    cut: tuple[str, Units],
    weights: _Weights,
    temperature: float,
    normalization: Normalization,
    invariance: Invariance,
    all_gather: AllGather | None,
) -> _Loss:
    """Check everything; `cut` is the argument that cuts embeddings, with its name."""
    weights = _Weights(*(validation.factor(f"{name}_weight", weight) for name, weight in weights._asdict().items()))
    validation.check_choice("normalization", normalization, ("block", "grid"))
    validation.check_choice("invariance", invariance, ("inner-product", "cross-entropy"))
    empty = all_gather is not None
    segments = as_segments(*cut, validation.check_embedding("z1", z1, empty=empty))
    validation.check_embedding("z2", z2, empty=empty)
    validation.check_like("z2", z2, "z1", z1, shape=tuple(z1.shape))
    temperature = validation.check_temperature(temperature, z1)
    for name, z in (("z1", z1), ("z2", z2)):
        validation.check_logits(name, z, temperature)
    on, off = segments.weights(normalization)
    on, off = on * weights.entropy * weights.diagonal, off * weights.entropy * weights.off_diagonal
    if not (on or off or weights.invariance):
        raise ValueError("the weights must leave a term of the loss (the off-diagonal entropy takes two segments)")
    return _Loss(segments, on, off, weights.invariance, invariance, temperature, all_gather)


def _log_codes(z1: Array, z2: Array, loss: _Loss) -> tuple[Array, Array]:
    first, second = (loss.segments.log_softmax(in_single(z) / loss.temperature) for z in (z1, z2))
    return first, second


def _share(loss: _Loss, rows: Rows) -> float:
    """What a row and segment of this rank weighs in the invariance; its mean over ranks is 1 / (N M)."""
    return loss.invariance * rows.ranks / (rows.total * loss.segments.count)


def _value(z1: Array, z2: Array, loss: _Loss) -> Array:
    check_autograd(z1, loss.all_gather)
    log1, log2 = _log_codes(z1, z2, loss)
    xp = api.array_namespace(log1)
    q1, q2 = xp.exp(log1), xp.exp(log2)
    rows = gathered(q1, q2, loss.all_gather)
    value = xp.zeros((), dtype=log1.dtype, device=api.device(log1))
    if loss.diagonal:
        value = value + loss.diagonal * diagonal(rows)
    if loss.off_diagonal:
        value = value + loss.off_diagonal * off_diagonal(rows, loss.segments)
    if loss.invariance:
        agreed = loss.segments.log_sums(log1 + log2) if loss.kind == "inner-product" else q1 * log2
        value = value - _share(loss, rows) * xp.sum(agreed)
    return value


def _value_and_gradient(z1: Array, z2: Array, loss: _Loss) -> LossAndGradient:
    """The loss with its derivatives, first in log q and then, by the softmax's, in z."""
    log1, log2 = _log_codes(constant(z1), constant(z2), loss)
    xp = api.array_namespace(log1)
    q1, q2 = xp.exp(log1), xp.exp(log2)
    rows = gathered(q1, q2, loss.all_gather)
    slope1, slope2 = xp.zeros_like(q1), xp.zeros_like(q2)
    value = xp.zeros((), dtype=log1.dtype, device=api.device(log1))
    if loss.diagonal:
        mass = agreement(rows)
        value = value - loss.diagonal * xp.astype(entropy(mass), value.dtype)
        logs = 1 + xp.log(xp.where(mass > 0, mass, xp.ones_like(mass)))
        slope = xp.astype(xp.where(mass > 0, logs, xp.zeros_like(mass)), q1.dtype)
        slope = slope * (loss.diagonal * rows.ranks / rows.total)
        slope1, slope2 = slope1 + slope * q2, slope2 + slope * q1
    if loss.off_diagonal:
        backend = backend_for(q1)
        joint, to_first, to_second = backend.off_diagonal_and_gradients(rows.views, loss.segments.sizes)
        value, scale = value + loss.off_diagonal * joint, loss.off_diagonal * rows.ranks
        slope1, slope2 = slope1 + scale * to_first, slope2 + scale * to_second
    slope1, slope2 = q1 * slope1, q2 * slope2
    if loss.invariance:
        share = _share(loss, rows)
        if loss.kind == "inner-product":
            value = value - share * xp.sum(loss.segments.log_sums(log1 + log2))
            where_shared = xp.exp(loss.segments.log_softmax(log1 + log2))
            slope1, slope2 = slope1 - share * where_shared, slope2 - share * where_shared
        else:
            value = value - share * xp.sum(q1 * log2)
            slope1, slope2 = slope1 - share * q1 * log2, slope2 - share * q1

    def in_logits(q: Array, slope: Array) -> Array:
        return slope - q * api.array_namespace(q).sum(slope, axis=-1, keepdims=True)

    gradients = (loss.segments.each(in_logits, q, s) / loss.temperature for q, s in ((q1, slope1), (q2, slope2)))
    return LossAndGradient(value, *gradients)
