"""Entropy, divergence and mutual information of discrete distributions, in nats."""

import array_api_compat as api

from infoassign_backends.protocol import Array


def entropy(p: Array, *, axis: int = -1) -> Array:
    """Shannon entropy ``-sum p log p``, in nats, with ``0 log 0 = 0``.

    Parameters
    ----------
    p
        Distributions along `axis`: any shape, real floating, not negative. They are taken as they
        are, not normalised.
    axis
        The axis of the outcomes.

    Returns
    -------
    Array
        The shape of `p` without `axis`, in its dtype.

    Examples
    --------
    >>> import numpy as np
    >>> float(entropy(np.array([0.5, 0.5, 0.0])) / np.log(2))
    1.0
    """
    xp = api.array_namespace(p)
    positive = p > 0
    log_p = xp.log(xp.where(positive, p, xp.ones_like(p)))
    return -xp.sum(p * log_p, axis=axis)


def kl_divergence(p: Array, q: Array, *, axis: int = -1) -> Array:
    """Kullback-Leibler divergence ``KL(p || q) = sum p log(p / q)``, in nats, with ``0 log 0 = 0``.

    Parameters
    ----------
    p, q
        Distributions along `axis`: shapes that broadcast, real floating, not negative. They are taken as they are, not
        normalised.
    axis
        The axis of the outcomes.

    Returns
    -------
    Array
        The broadcast shape without `axis`; ``inf`` where `q` excludes what `p` allows.

    Examples
    --------
    >>> import numpy as np
    >>> p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    >>> float(kl_divergence(p, q) / np.log(2)), float(kl_divergence(q, p))
    (1.0, inf)
    """
    xp = api.array_namespace(p, q)
    p, q = xp.broadcast_arrays(p, q)
    counts, allowed = p > 0, q > 0
    one = xp.ones_like(q)
    # Each factor is made finite before the logarithm, so that autograd's slopes are.
    log_ratio = xp.log(xp.where(counts, p, one)) - xp.log(xp.where(allowed, q, one))
    terms = xp.where(counts, p * log_ratio, xp.zeros_like(p))
    return xp.sum(xp.where(counts & ~allowed, xp.inf, terms), axis=axis)


def conditional_entropy(plan: Array) -> Array:
    """Entropy of the label given the row that it was drawn for, in nats.

    ``H(Y | B) = mean_i H(w_i)`` for a row index drawn uniformly: how unsure the labels are.

    Parameters
    ----------
    plan
        Soft labels, shape (..., B, K), real floating; each row a distribution over K labels.

    Returns
    -------
    Array
        Shape (...,), in the dtype of `plan`, from 0 (hard labels) to ``log K``.

    Raises
    ------
    ValueError
        If `plan` has fewer than two axes, or an empty one.

    Examples
    --------
    >>> import numpy as np
    >>> float(conditional_entropy(np.array([[0.5, 0.5], [1.0, 0.0]])) / np.log(2))
    0.5
    """
    _check_plan(plan)
    return api.array_namespace(plan).mean(entropy(plan), axis=-1)


def mutual_information(plan: Array) -> Array:
    """Mutual information between the label and the row that it was drawn for, in nats.

    ``I(Y; B) = H(mean_i w_i) - mean_i H(w_i)`` (MIRA, eq. 2), for a row index drawn uniformly. It lies
    between 0 (all rows alike; theory, C1) and ``log min(B, K)`` (C5).

    Parameters
    ----------
    plan
        Soft labels, shape (..., B, K), real floating; each row a distribution over K labels.

    Returns
    -------
    Array
        Shape (...,), in the dtype of `plan`.

    Raises
    ------
    ValueError
        If `plan` has fewer than two axes, or an empty one.

    Examples
    --------
    Two rows that name different labels carry one bit:

    >>> import numpy as np
    >>> float(mutual_information(np.eye(2)) / np.log(2))
    1.0
    """
    _check_plan(plan)
    return entropy(api.array_namespace(plan).mean(plan, axis=-2)) - conditional_entropy(plan)


def _check_plan(plan: Array) -> None:
    if plan.ndim < 2 or 0 in plan.shape:
        raise ValueError(f"plan must be a matrix (rows, labels) without empty axes; got shape {tuple(plan.shape)}")
