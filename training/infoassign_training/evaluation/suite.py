"""All protocols on a trained encoder's features, each beside the same measure on raw pixels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from infoassign_training.data.digits import LabelledImages
from infoassign_training.evaluation.protocols import Features, kmeans_agreement, linear_probe, weighted_knn

CHUNK = 1024
"""Images per forward pass."""

Scores = dict[str, float]


@torch.no_grad()
def extract(encoder: Callable[[Tensor], Tensor], train: LabelledImages, held_out: LabelledImages) -> Features:
    """Apply an encoder, in evaluation mode if it is a module, to both splits."""
    if isinstance(encoder, nn.Module):
        encoder.eval()

    def encode(images: Tensor) -> Tensor:
        return torch.cat([encoder(chunk) for chunk in images.split(CHUNK)])

    return Features(
        encode(train.images).numpy(),
        train.classes.numpy(),
        encode(held_out.images).numpy(),
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
