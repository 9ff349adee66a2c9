"""Linear support vector machines for every class of VOC07, each with its own penalty by cross-validation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC

from infoassign_training.evaluation.metrics import Presence


def machine(strength: float = 1.0) -> Pipeline:
    """Return a machine for features of any length: L2-normalised, squared hinge loss, presence with twice the weight.

    So it is in the code that PIRL's settings (Misra and van der Maaten, 2020), which MUSIC and IMSVD name, go back to.
    """
    return make_pipeline(
        Normalizer(), LinearSVC(C=strength, class_weight={1: 2.0, 0: 1.0}, max_iter=2000, random_state=0)
    )


def fitted(
    features: NDArray[np.floating], presence: Presence, strengths: Sequence[float], *, folds: int = 3
) -> tuple[Pipeline, float]:
    """Fit one class, with the penalty that has the best average precision in cross-validation.

    Parameters
    ----------
    features
        Of the training images, shape (N, F).
    presence
        Of the class in them, shape (N,); images where it does not count are left out.
    strengths
        The penalties C to choose from.
    folds
        Of the cross-validation; each has images with the class and without.

    Returns
    -------
    machine
        Fitted to all of the images; its ``decision_function`` gives scores.
    strength
        The chosen C.

    Raises
    ------
    ValueError
        If fewer images than folds have the class, or lack it.
    """
    counted = presence >= 0
    rare = min(int((presence == 1).sum()), int((presence == 0).sum()))
    if rare < folds:
        raise ValueError(f"{folds}-fold cross-validation needs {folds} images with every class and without; got {rare}")
    search = GridSearchCV(
        machine(), {"linearsvc__C": list(strengths)}, scoring="average_precision", cv=folds, error_score="raise"
    )
    search.fit(features[counted], presence[counted])
    return search.best_estimator_, float(search.best_params_["linearsvc__C"])
