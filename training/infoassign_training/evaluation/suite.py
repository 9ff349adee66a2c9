"""What every run on the digits is scored by, beside the same measures on raw pixels.

Fitting is scikit-learn's but for the neighbours; what is ours is the choice of settings.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm import tqdm

from infoassign_training.data.digits import LabelledImages
from infoassign_training.evaluation.clusters import k_means
from infoassign_training.evaluation.knn import weighted_votes
from infoassign_training.evaluation.metrics import top

CHUNK = 1024
"""Images per forward pass."""

Scores = dict[str, float]
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
    votes = weighted_votes(
        torch.from_numpy(features.train),
        torch.from_numpy(features.train_classes),
        torch.from_numpy(features.held_out),
        neighbours=(neighbors,),
        temperature=temperature,
        count=1 + int(max(features.train_classes.max(), features.held_out_classes.max())),
    )
    return top(votes[0].numpy(), features.held_out_classes)


def linear_probe(features: Features) -> float:
    """Accuracy of a logistic regression on standardised features, with scikit-learn's L2 penalty of C = 1."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    probe.fit(features.train, features.train_classes)
    return float(probe.score(features.held_out, features.held_out_classes))


def kmeans_agreement(features: Features, *, clusters: int, seed: int = 0) -> tuple[float, float]:
    """NMI and ARI between true classes and :func:`~infoassign_training.evaluation.clusters.k_means`."""
    found = k_means(features.train, features.held_out, clusters, seed=seed)
    truth = features.held_out_classes
    return float(normalized_mutual_info_score(truth, found)), float(adjusted_rand_score(truth, found))


@torch.no_grad()
def encoded(encoder: Callable[[Tensor], Tensor], images: Tensor) -> NDArray[np.float32]:
    """Return the features (N, F) of images (N, C, H, W), in evaluation mode if the encoder is a module."""
    if isinstance(encoder, nn.Module):
        encoder.eval()
    features: NDArray[np.float32] = torch.cat([encoder(chunk) for chunk in images.split(CHUNK)]).numpy()
    return features


def extract(encoder: Callable[[Tensor], Tensor], train: LabelledImages, held_out: LabelledImages) -> Features:
    """Apply an encoder, in evaluation mode if it is a module, to both splits."""
    return Features(
        encoded(encoder, train.images),
        train.classes.numpy(),
        encoded(encoder, held_out.images),
        held_out.classes.numpy(),
    )


def score(features: Features) -> Scores:
    """Run every protocol; the keys are the rows of the report's table."""
    nmi, ari = kmeans_agreement(features, clusters=len(set(features.train_classes.tolist())))
    return {
        "knn": weighted_knn(features),
        "linear": linear_probe(features),
        "kmeans_nmi": nmi,
        "kmeans_ari": ari,
    }


def evaluate(encoder: nn.Module, train: LabelledImages, held_out: LabelledImages) -> dict[str, Scores]:
    """Score the encoder's features and the raw pixels by the same protocols."""
    subjects: dict[str, Callable[[Tensor], Tensor]] = {"features": encoder, "pixels": lambda x: x.flatten(1)}
    progress = tqdm(subjects.items(), desc="evaluate", unit="representation")
    return {name: score(extract(subject, train, held_out)) for name, subject in progress}
