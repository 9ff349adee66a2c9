"""The protocols, against transcriptions and cases with known answers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from infoassign_training.data.digits import digits
from infoassign_training.evaluation.suite import (
    Features,
    evaluate,
    extract,
    kmeans_agreement,
    linear_probe,
    score,
    weighted_knn,
)


def random_features(dimensions: int = 6) -> Features:
    random = np.random.default_rng(0)

    def features(count: int) -> Any:
        return random.normal(size=(count, dimensions)).astype(np.float32)

    return Features(features(200), random.integers(0, 4, 200), features(50), random.integers(0, 4, 50))


def blobs() -> Features:
    """Four classes far apart in direction."""
    random = np.random.default_rng(0)
    classes = np.tile(np.arange(4), 30)
    points = (10 * np.eye(4)[classes] + random.normal(size=(120, 4))).astype(np.float32)
    return Features(points[:80], classes[:80], points[80:], classes[80:])


@pytest.mark.parametrize(("neighbors", "temperature"), [(20, 0.07), (5, 1.0)])
def test_weighted_knn_is_the_brute_force_vote(neighbors: int, temperature: float) -> None:
    features = random_features()
    train = features.train.astype(float) / np.linalg.norm(features.train, axis=1, keepdims=True)
    test = features.held_out.astype(float) / np.linalg.norm(features.held_out, axis=1, keepdims=True)
    correct = 0
    for row, truth in zip(test @ train.T, features.held_out_classes, strict=True):
        nearest = np.argsort(-row)[:neighbors]
        votes = np.zeros(4)
        for index in nearest:
            votes[features.train_classes[index]] += np.exp(row[index] / temperature)
        correct += int(votes.argmax() == truth)
    assert weighted_knn(features, neighbors=neighbors, temperature=temperature) == correct / 50


def test_separated_classes_score_one() -> None:
    assert set(score(blobs()).values()) == {1.0}


def test_labels_without_relation_to_the_features_score_like_guessing() -> None:
    scores = score(random_features())
    assert scores["knn"] < 0.5
    assert scores["linear"] < 0.5
    assert scores["kmeans_nmi"] < 0.2
    assert abs(scores["kmeans_ari"]) < 0.1


def test_fitting_never_sees_the_held_out_classes() -> None:
    """Turning the held-out classes over turns accuracies over, so nothing was learnt from them."""
    features = blobs()
    other = Features(features.train, features.train_classes, features.held_out, (features.held_out_classes + 1) % 4)
    assert weighted_knn(other) == linear_probe(other) == 0
    assert kmeans_agreement(other, clusters=4) == (1.0, 1.0)


def test_clusters_are_found_on_the_training_images_alone() -> None:
    """Held-out images in four groups do not help when the training images lie in a single one."""
    grouped, random = blobs(), np.random.default_rng(0)
    lump = (10 + random.normal(size=(80, 4))).astype(np.float32)
    features = Features(lump, grouped.train_classes, grouped.held_out, grouped.held_out_classes)
    nmi, ari = kmeans_agreement(features, clusters=4)
    assert nmi < 0.99
    assert ari < 0.99


def test_the_linear_probe_does_not_depend_on_the_units_of_a_feature() -> None:
    features = random_features()
    units = np.array([1e-4, 1e-2, 1, 1, 1e2, 1e4], dtype=np.float32)
    rescaled = Features(
        features.train * units, features.train_classes, features.held_out * units, features.held_out_classes
    )
    assert linear_probe(rescaled) == linear_probe(features)


def test_extraction_is_in_evaluation_mode_and_in_order() -> None:
    train, held_out = digits()
    encoder = nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train()
    features = extract(encoder, train, held_out)
    np.testing.assert_array_equal(features.train, train.images.flatten(1).numpy())
    np.testing.assert_array_equal(features.held_out_classes, held_out.classes.numpy())


def test_pixels_beside_features() -> None:
    """Raw pixels as known from elsewhere: kNN and linear about .97, NMI about .74."""
    train, held_out = digits()
    scores = evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), train, held_out)
    assert scores["pixels"]["knn"] == pytest.approx(0.978, abs=0.01)
    assert scores["pixels"]["linear"] == pytest.approx(0.970, abs=0.01)
    assert scores["pixels"]["kmeans_nmi"] == pytest.approx(0.74, abs=0.02)
    assert scores["features"]["knn"] < 0.9
    assert scores["features"].keys() == scores["pixels"].keys()


def test_extraction_makes_no_graph() -> None:
    train, held_out = digits()
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    assert extract(linear, train, held_out).train.dtype == np.float32
    assert all(p.grad is None for p in linear.parameters())
    assert torch.is_grad_enabled()
