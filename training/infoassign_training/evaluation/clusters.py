"""Whether labels that were found without classes say what the classes say."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.preprocessing import normalize

Features = NDArray[np.floating[Any]]
"""Shape (N, F)."""


def k_means(train: Features, test: Features, count: int, *, seed: int) -> NDArray[np.int64]:
    """Return the k-means cluster of every row of `test`, (N,); the clusters are those of `train`.

    Rows are brought to length 1. No class is seen; the best of 20 starts by its own criterion is taken.
    """
    found = KMeans(count, n_init=20, random_state=seed).fit(normalize(train))
    labels: NDArray[np.int64] = found.predict(normalize(test)).astype(np.int64)
    return labels


def agreement(classes: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, float]:
    """Compare labels with classes (SeLa, table A.1).

    Parameters
    ----------
    classes
        The true ones, shape (N,).
    labels
        Those that were found, shape (N,).

    Returns
    -------
    dict
        ``nmi``, ``ami`` and ``ari``, scikit-learn's, and ``matched-accuracy``, see :func:`matched_accuracy`.

    Examples
    --------
    >>> found = agreement(np.array([0, 0, 1, 1]), np.array([5, 5, 3, 3]))  # the names of labels do not matter
    >>> {name: round(value, 6) for name, value in found.items()}
    {'nmi': 1.0, 'ami': 1.0, 'ari': 1.0, 'matched-accuracy': 1.0}
    """
    return {
        "nmi": float(normalized_mutual_info_score(classes, labels)),
        "ami": float(adjusted_mutual_info_score(classes, labels)),
        "ari": float(adjusted_rand_score(classes, labels)),
        "matched-accuracy": matched_accuracy(classes, labels),
    }


def matched_accuracy(classes: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Return the share of rows that are right when every class is given a label of its own, as favourably as can be.

    With more labels than classes some are given to none, and all of their rows are wrong.

    Parameters
    ----------
    classes
        The true ones, shape (N,).
    labels
        Those that were found, shape (N,), of any number.

    Examples
    --------
    >>> matched_accuracy(np.array([0, 0, 1, 1]), np.array([5, 5, 3, 5]))
    0.75
    """
    table = contingency_matrix(classes, labels)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / len(classes))
