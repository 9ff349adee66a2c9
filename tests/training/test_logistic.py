"""Logistic regression by L-BFGS, against scikit-learn's optimum."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from infoassign_training.data.digits import digits
from infoassign_training.evaluation.logistic import Classifier, Regression

RANDOM = np.random.default_rng(0)


def digit_features() -> tuple[torch.Tensor, torch.Tensor]:
    train, _ = digits()
    return train.images.flatten(1).double(), train.classes


def objective(found: Classifier, features: torch.Tensor, classes: torch.Tensor, strength: float) -> float:
    """As the docstring has it."""
    loss = F.cross_entropy(found(features), classes)
    return float(loss + found.weight.square().sum() / (2 * len(features) * strength))


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0, 100.0])
def test_the_optimum_is_scikit_learns(strength: float) -> None:
    features, classes = digit_features()
    found = Regression(features, classes, 10).fit(strength)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=20_000).fit(features.numpy(), classes.numpy())
    other = Classifier(torch.from_numpy(theirs.coef_), torch.from_numpy(theirs.intercept_), 0.0, 0.0)
    ours, reference = (objective(one, features, classes, strength) for one in (found, other))
    assert found.objective == pytest.approx(ours, abs=1e-12)
    assert abs(ours - reference) < 1e-6
    assert found.slope <= 1e-6


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_features_of_very_different_sizes_take_fewer_iterations() -> None:
    """After a hundred iterations it is nearer to the optimum than scikit-learn's search after three hundred."""
    features, classes = digit_features()
    features = features * torch.from_numpy(10 ** RANDOM.uniform(-2, 2, 64))
    theirs = LogisticRegression(C=1.0, tol=1e-12, max_iter=300).fit(features.numpy(), classes.numpy())
    other = Classifier(torch.from_numpy(theirs.coef_), torch.from_numpy(theirs.intercept_), 0.0, 0.0)
    found = Regression(features, classes, 10).fit(1.0, max_iterations=100)
    assert found.objective < objective(other, features, classes, 1.0)


def test_a_start_changes_how_long_it_takes_and_not_what_is_found() -> None:
    features, classes = digit_features()
    regression = Regression(features, classes, 10)
    first = regression.fit(0.1)
    assert regression.fit(1.0, first).objective == pytest.approx(regression.fit(1.0).objective, abs=1e-8)
    # From the solution itself there is nothing to do.
    again = regression.fit(0.1, first, max_iterations=1)
    assert again.objective == pytest.approx(first.objective, abs=1e-12)


def test_in_float32_the_loss_is_good_to_four_digits() -> None:
    features, classes = digit_features()
    exact = Regression(features, classes, 10).fit(1.0)
    assert abs(Regression(features.float(), classes, 10).fit(1.0).objective - exact.objective) < 1e-4


def test_of_several_classes_an_image_each_has_a_regression_of_its_own() -> None:
    features = torch.from_numpy(RANDOM.normal(size=(80, 5)))
    presence = torch.from_numpy((RANDOM.random((80, 3)) < 0.4).astype(np.int8))
    presence[:20, 1] = -1
    found = Regression(features, presence, 3).fit(0.5)
    for number in range(3):
        counted = presence[:, number] >= 0
        # Ours divides by all rows, whether they count or not: the penalty is the same number.
        theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(
            features[counted].numpy(), presence[counted, number].numpy()
        )
        np.testing.assert_allclose(found.weight[number], theirs.coef_[0], atol=1e-4)
        np.testing.assert_allclose(found.bias[number], theirs.intercept_[0], atol=1e-4)


def test_constant_features_are_left_alone() -> None:
    features, classes = digit_features()
    constant = torch.cat([features, torch.full((len(features), 1), 7.0, dtype=torch.float64)], dim=1)
    found = Regression(constant, classes, 10).fit(1.0)
    assert float(found.weight[:, -1].abs().max()) < 1e-6
