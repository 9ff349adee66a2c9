"""All protocols on a trained encoder's features, each beside the same measure on raw pixels."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from infoassign_training.data.digits import LabelledImages
from infoassign_training.evaluation.protocols import Features, kmeans_agreement, linear_probe, weighted_knn

CHUNK = 1024
"""Images per forward pass."""

Scores = dict[str, float]


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
