"""The protocols: features in, a number out. Each fits on the training images and scores the held-out ones.

Fitting and scoring are scikit-learn's; what is ours is the choice of settings.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """Features (N, D) and true classes (N,) of the training images and of the held-out ones."""

    train: Floats
    train_classes: Integers
    held_out: Floats
    held_out_classes: Integers


def weighted_knn(features: Features, *, neighbors: int = 20, temperature: float = 0.07) -> float:
    """Accuracy of the vote of the nearest neighbours by cosine, weighted by exp(cosine / temperature).

    The settings are MIRA's (sec. 4.2, after DINO).
    """
    voters = KNeighborsClassifier(
        min(neighbors, len(features.train)),
        metric="cosine",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    voters.fit(features.train, features.train_classes)
    return float(voters.score(features.held_out, features.held_out_classes))


def linear_probe(features: Features) -> float:
    """Accuracy of a logistic regression on standardised features, with scikit-learn's L2 penalty of C = 1."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    probe.fit(features.train, features.train_classes)
    return float(probe.score(features.held_out, features.held_out_classes))


def kmeans_agreement(features: Features, *, clusters: int, seed: int = 0) -> tuple[float, float]:
    """NMI and ARI between true classes and k-means clusters of the L2-normalised features.

    k-means sees no class; the best of 20 starts by its own criterion is taken.
    """
    kmeans = KMeans(clusters, n_init=20, random_state=seed).fit(normalize(features.train))
    found = kmeans.predict(normalize(features.held_out))
    truth = features.held_out_classes
    return float(normalized_mutual_info_score(truth, found)), float(adjusted_rand_score(truth, found))
