"""What predictions are worth: shares and precisions from 0 to 1, on the CPU in float64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

Scores = NDArray[np.floating[Any]]
"""Shape (N, C): the larger, the likelier the class."""
Classes = NDArray[np.int64]
"""Shape (N,): the true ones."""
Presence = NDArray[np.int8]
"""Shape (N, C): 1 where a class is present, 0 where it is not, -1 where that does not count."""
RECALLS = np.arange(11) / 10
"""The recalls at which the PASCAL VOC challenge of 2007 reads off precisions."""


def top(scores: Scores, classes: Classes, count: int = 1) -> float:
    """Return the share of rows whose true class is among the `count` of the highest scores.

    Ties count as if they were broken at random: equal scores for all classes are no better than guessing.

    Parameters
    ----------
    scores
        Shape (N, C): the larger, the likelier the class.
    classes
        The true ones, shape (N,), int64.
    count
        How many of the highest scores count.

    Raises
    ------
    ValueError
        If a score is NaN.

    Examples
    --------
    >>> scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
    >>> top(scores, np.array([1, 2])), top(scores, np.array([1, 2]), 2)
    (0.5, 1.0)
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    own = np.take_along_axis(scores, classes[:, None], axis=1)
    above = (scores > own).sum(axis=1)
    tied = (scores == own).sum(axis=1) - 1
    share = np.clip((count - above) / (tied + 1), 0, 1)
    return float(share.mean())


def mean_per_class(scores: Scores, classes: Classes) -> float:
    """Return the mean over the classes that occur of the share of their rows that is predicted right.

    Parameters
    ----------
    scores
        Shape (N, C): the larger, the likelier the class.
    classes
        The true ones, shape (N,), int64.

    Examples
    --------
    >>> mean_per_class(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), np.array([0, 0, 1]))
    0.5
    """
    return float(np.mean([top(scores[classes == number], classes[classes == number]) for number in np.unique(classes)]))


def eleven_point_precision(scores: NDArray[Any], presence: Presence) -> float:
    """Return PASCAL VOC 2007's average precision of one class, scores and presence of shape (N,).

    The mean over the recalls 0, 0.1, ..., 1 of the highest precision at that recall or a higher one (Everingham et al.,
    2010, sec. 4.2). Rows that do not count are left out; without a row where the class is present it is NaN.

    Parameters
    ----------
    scores
        Of the class, shape (N,).
    presence
        Shape (N,): 1 where it is, 0 where it is not, -1 where that does not count.

    Examples
    --------
    >>> round(eleven_point_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0], dtype=np.int8)), 4)
    0.8485
    """
    counted = presence >= 0
    order = np.argsort(-scores[counted], kind="stable")
    right = presence[counted][order] == 1
    if not right.any():
        return float("nan")
    found = right.cumsum()
    precision, recall = found / np.arange(1, len(found) + 1), found / found[-1]
    # A recall of 3 of 10 is reached, whatever the last bit of .3.
    reached = [precision[recall >= level - 1e-12] for level in RECALLS]
    return float(np.mean([some.max() if len(some) else 0.0 for some in reached]))


def precisions(scores: Scores, presence: Presence) -> dict[str, float]:
    """Return the means over classes of two average precisions: of eleven points, and scikit-learn's.

    Classes that are present nowhere are left out.

    Parameters
    ----------
    scores
        Shape (N, C): the larger, the likelier the class.
    presence
        Shape (N, C), int8: 1, 0, or -1 for what does not count.

    Returns
    -------
    dict
        ``11-point-map``, the mean of :func:`eleven_point_precision`, and ``map``.

    Raises
    ------
    ValueError
        If no class is present in any image.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.7]])
    >>> precisions(scores, np.array([[1, 0], [0, 1], [-1, 1]], dtype=np.int8))
    {'11-point-map': 1.0, 'map': 1.0}
    """
    eleven, area = [], []
    for number in range(scores.shape[1]):
        counted = presence[:, number] >= 0
        truth = presence[counted, number] == 1
        if truth.any():
            eleven.append(eleven_point_precision(scores[:, number], presence[:, number]))
            area.append(float(average_precision_score(truth, scores[counted, number])))
    if not eleven:
        raise ValueError("no class is present in any image")
    return {"11-point-map": float(np.mean(eleven)), "map": float(np.mean(area))}


def measured(scores: Scores, truth: NDArray[Any], metric: str) -> dict[str, float]:
    """Return what counts for a data set, its metric first, and what is usually told beside it.

    Parameters
    ----------
    scores
        Shape (N, C).
    truth
        Classes (N,), or presence (N, C) for several classes an image.
    metric
        ``top-1``, ``mean-per-class`` or ``11-point-map``.

    Returns
    -------
    dict
        Values by name.

    Examples
    --------
    >>> scores = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> {name: round(value, 3) for name, value in measured(scores, np.array([0, 0, 1]), "mean-per-class").items()}
    {'mean-per-class': 0.5, 'top-1': 0.667}
    """
    if metric == "11-point-map":
        return precisions(scores, truth)
    found = {"top-1": top(scores, truth)}
    if scores.shape[1] > 5:
        found["top-5"] = top(scores, truth, 5)
    return {"mean-per-class": mean_per_class(scores, truth), **found} if metric == "mean-per-class" else found
