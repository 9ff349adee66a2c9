"""What predictions are worth, against scikit-learn and definitions written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from infoassign_training.evaluation.metrics import eleven_point_precision, mean_per_class, measured, precisions, top

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=(60, 7))
CLASSES = RANDOM.integers(0, 7, 60)


def literal_eleven_points(scores: list[float], present: list[int]) -> float:
    """As the challenge's development kit computes it, VOCevalcls.m, step by step."""
    ranked = [truth for _, truth in sorted(zip(scores, present, strict=True), key=lambda pair: -pair[0]) if truth >= 0]
    positives = sum(ranked)
    points, right = [], 0
    for number, truth in enumerate(ranked, start=1):
        right += truth
        points.append((right / positives, right / number))
    total = 0.0
    for tenth in range(11):
        total += max((precision for recall, precision in points if recall >= tenth / 10 - 1e-12), default=0.0) / 11
    return total


@pytest.mark.parametrize("count", [1, 3, 5])
def test_top_k_is_scikit_learns(count: int) -> None:
    assert top(SCORES, CLASSES, count) == pytest.approx(top_k_accuracy_score(CLASSES, SCORES, k=count, labels=range(7)))


def test_mean_per_class_is_scikit_learns() -> None:
    assert mean_per_class(SCORES, CLASSES) == pytest.approx(balanced_accuracy_score(CLASSES, SCORES.argmax(axis=1)))


@pytest.mark.parametrize("classes", [2, 10])
def test_scores_that_are_all_alike_are_no_better_than_guessing(classes: int) -> None:
    truth = np.arange(40) % classes
    assert top(np.zeros((40, classes)), truth) == pytest.approx(1 / classes)
    assert top(np.zeros((40, classes)), truth, 2) == pytest.approx(2 / classes)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        top(np.array([[np.nan, 0.0]]), np.array([0]))


@given(
    st.lists(
        st.tuples(st.integers(-50, 50), st.sampled_from([-1, 0, 1])), min_size=1, max_size=40, unique_by=lambda p: p[0]
    )
)
def test_eleven_points_are_those_of_the_definition(pairs: list[tuple[int, int]]) -> None:
    scores, present = [float(score) for score, _ in pairs], [truth for _, truth in pairs]
    found = eleven_point_precision(np.array(scores), np.array(present, dtype=np.int8))
    if 1 in present:
        assert found == pytest.approx(literal_eleven_points(scores, present))
    else:
        assert np.isnan(found)


def test_what_does_not_count_changes_nothing() -> None:
    presence = (RANDOM.random((50, 3)) < 0.4).astype(np.int8)
    scores = RANDOM.normal(size=(50, 3))
    with_more = np.concatenate([presence, np.full((20, 3), -1, dtype=np.int8)])
    assert precisions(np.concatenate([scores, RANDOM.normal(size=(20, 3))]), with_more) == precisions(scores, presence)


def test_perfect_scores_are_worth_one_and_classes_without_images_nothing() -> None:
    presence = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.int8)
    assert precisions(presence.astype(float), presence) == {"11-point-map": 1.0, "map": 1.0}
    with pytest.raises(ValueError, match="no class is present"):
        precisions(np.zeros((2, 1)), np.zeros((2, 1), dtype=np.int8))


def test_the_metric_that_counts_comes_first() -> None:
    assert list(measured(SCORES, CLASSES, "top-1")) == ["top-1", "top-5"]
    assert next(iter(measured(SCORES, CLASSES, "mean-per-class"))) == "mean-per-class"
    assert list(measured(SCORES[:, :5], CLASSES % 5, "top-1")) == ["top-1"]
