"""From features and prototypes to scores, without a matrix of all of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import infoassign as ia
from infoassign_training.errors import UserError
from infoassign_training.labelling.problem import Metric
from infoassign_training.labelling.tables import pieces


def scores_of(features: Any, prototypes: NDArray[Any], metric: Metric) -> ia.FactoredScores | ia.StreamedScores:
    """Score rows for prototypes; the scores are made anew on every pass.

    Parameters
    ----------
    features
        Shape (N, D), finite: an array, or what `open_table` gives.
    prototypes
        Shape (K, D).
    metric
        See `Metric`. For "euclidean" a constant is left out of every row, to which assignments are blind.

    Raises
    ------
    UserError
        If they do not fit each other, or for "cosine" a row is zero.

    Examples
    --------
    >>> scores = scores_of(np.array([[1.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 2.0]]), "cosine")
    >>> next(scores.chunks())
    array([[0.6, 0. ]])
    """
    if prototypes.shape[1] != features.shape[1]:
        raise UserError(
            f"features have {features.shape[1]} columns and prototypes {prototypes.shape[1]}; both must have as many"
        )
    wide: Any = np.float64 if features.dtype == np.float64 else np.float32
    factors: Any = prototypes.astype(wide)
    bias: Any = np.zeros(len(factors), dtype=wide)
    if metric == "cosine":
        factors = directions(factors, "prototypes")
    if metric == "euclidean":
        # About the mean of the prototypes, where the squares are smallest.
        middle = prototypes.mean(axis=0, dtype=np.float64)
        apart = prototypes - middle
        factors = (2 * apart).astype(wide)
        bias = -(2 * apart @ middle + np.sum(apart**2, axis=1)).astype(wide)
    if isinstance(features, np.ndarray) and features.dtype == wide and metric != "cosine":
        return ia.FactoredScores(features, factors, bias=bias)

    def products() -> Iterator[NDArray[Any]]:
        for first, rows in pieces(features, len(factors)):
            placed: NDArray[Any] = rows.astype(wide)
            if metric == "cosine":
                placed = directions(placed, "features", first)
            yield placed @ factors.T + bias

    return ia.StreamedScores(products)


def directions(rows: NDArray[Any], what: str, first: int = 0) -> NDArray[Any]:
    """Return rows divided by their lengths.

    Examples
    --------
    >>> directions(np.array([[3.0, 4.0]]), "features")
    array([[0.6, 0.8]])
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not lengths.all():
        raise UserError(f"row {first + int(np.argmin(lengths))} of {what} is zero and has no direction; leave it out")
    divided: NDArray[Any] = rows / lengths
    return divided
