"""Clusters against classes, and support vector machines, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from infoassign_training.data.digits import digits
from infoassign_training.evaluation.clusters import agreement, matched_accuracy
from infoassign_training.evaluation.svm import fitted

RANDOM = np.random.default_rng(0)
CLASSES, LABELS = RANDOM.integers(0, 4, 100), RANDOM.integers(0, 9, 100)


def test_agreement_is_scikit_learns() -> None:
    found = agreement(CLASSES, LABELS)
    assert found["nmi"] == metrics.normalized_mutual_info_score(CLASSES, LABELS)
    assert found["ami"] == metrics.adjusted_mutual_info_score(CLASSES, LABELS)
    assert found["ari"] == metrics.adjusted_rand_score(CLASSES, LABELS)


def test_names_of_labels_do_not_matter() -> None:
    renamed = (7 * CLASSES + 3) % 11
    assert set(agreement(CLASSES, renamed).values()) == {1.0}


def test_the_best_matching_is_the_best_of_all() -> None:
    """Every one-to-one naming of three labels, tried."""
    from itertools import permutations

    classes, labels = RANDOM.integers(0, 3, 30), RANDOM.integers(0, 3, 30)
    best = max(float(np.mean(np.array(names)[labels] == classes)) for names in permutations(range(3)))
    assert matched_accuracy(classes, labels) == pytest.approx(best)


def test_labels_beyond_the_classes_are_wrong() -> None:
    assert matched_accuracy(np.zeros(4, dtype=np.int64), np.arange(4)) == 0.25


def test_the_machine_is_scikit_learns_with_the_best_penalty() -> None:
    train, held_out = digits()
    features, queries = (some.images.flatten(1).numpy().astype(float) for some in (train, held_out))
    presence = (train.classes.numpy() == 3).astype(np.int8)
    presence[:30] = -1
    strengths = (1e-3, 1e-1, 10.0)
    machine, strength = fitted(features, presence, strengths)
    counted = presence >= 0
    directions, truth = normalize(features[counted]), presence[counted]

    def theirs(cost: float) -> LinearSVC:
        return LinearSVC(C=cost, class_weight={1: 2.0, 0: 1.0}, max_iter=2000, random_state=0)

    scores = [
        cross_val_score(theirs(cost), directions, truth, cv=3, scoring="average_precision").mean() for cost in strengths
    ]
    assert strength == strengths[int(np.argmax(scores))]
    expected = theirs(strength).fit(directions, truth).decision_function(normalize(queries))
    np.testing.assert_allclose(machine.decision_function(queries), expected)


def test_a_class_that_is_too_rare_to_choose_by_is_refused() -> None:
    with pytest.raises(ValueError, match="got 2"):
        fitted(RANDOM.normal(size=(20, 3)), np.array([1, 1] + [0] * 18, dtype=np.int8), (1.0,))
