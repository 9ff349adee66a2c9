"""Views of different sizes: passed through a network together, and predicted from each other."""

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F

from infoassign_training.methods.method import agreement

GLOBAL = 2
"""How many views, the first ones, are labelled; the others are local crops, which only predict."""


def by_size(network: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """Pass views (B, C, H, W) through a network, those of one size together, and return what comes of each.

    Batch normalisation sees views of one size at a time, as in the released code of SwAV, MIRA and DINO.
    """
    found: list[Tensor] = []
    for _, group in groupby(views, key=lambda view: view.shape[-2:]):
        together = list(group)
        found += network(torch.cat(together)).chunk(len(together))
    return found


def swapped_prediction(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Return the mean cross-entropy of all views with the labels of the global views other than themselves.

    Parameters
    ----------
    logits
        Of all views, the global ones first, each of shape (B, K).
    labels
        Distributions of the global views, each of shape (B, K).
    """
    terms = [
        F.cross_entropy(predicted, target)
        for number, target in enumerate(labels)
        for view, predicted in enumerate(logits)
        if view != number
    ]
    return torch.stack(terms).mean()


def swapped_agreement(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Return the mean agreement of the views with the labels of the global views other than themselves, shape ().

    Parameters
    ----------
    logits
        Of all views, the global ones first, each of shape (B, K).
    labels
        The likeliest labels of the global views, each of shape (B,).
    """
    shares = [
        agreement(predicted, target)
        for number, target in enumerate(labels)
        for view, predicted in enumerate(logits)
        if view != number
    ]
    return torch.stack(shares).mean()
