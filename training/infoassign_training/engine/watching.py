"""What is looked at between epochs, and changes nothing: how far features spread, and whether classes are near."""

from math import exp, sqrt

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import infoassign as ia
from infoassign_training.engine import ranks
from infoassign_training.engine.feed import Feed
from infoassign_training.engine.ranks import Place
from infoassign_training.evaluation.knn import weighted_votes
from infoassign_training.evaluation.metrics import top
from infoassign_training.methods.method import Batch, Method

SAMPLE = 10_000
"""Images, at least, that neighbours are looked for among, or all there are."""
ASKED = 5
"""One in so many of them is asked for its class; the others vote."""


NEIGHBOURS, TEMPERATURE = 20, 0.07
"""Of the vote: MIRA's (sec. 4.2, after DINO)."""
LARGEST = 256
"""Images at a time of the sample."""


@torch.no_grad()
def seen(method: Method, batch: Batch, pieces: int) -> tuple[Tensor, Tensor]:
    """Return what the encoder gives of the first view, and what the loss is made of, in evaluation mode.

    Parameters
    ----------
    method
        Is left in evaluation mode.
    batch
        This rank's part.
    pieces
        In how many it goes through the network, as in training, where more at once may not fit.

    Returns
    -------
    tuple of Tensor
        The features and, of the first view, the outputs, each (B, ...).
    """
    method.eval()
    parts = [list(part) for part in zip(*(view.chunk(pieces) for view in batch.views), strict=True)]
    found = [(method.encoder(part[0]), method.outputs(part)[0]) for part in parts]
    features, outputs = (torch.cat(some) for some in zip(*found, strict=True))
    return features, outputs


def spread(features: Tensor, outputs: Tensor) -> dict[str, float]:
    """Say how far a batch spreads; all ranks call this together, each with its part of the batch.

    Parameters
    ----------
    features
        What the encoder gives, shape (B, ...).
    outputs
        What the loss is made of, shape (B, ...).

    Returns
    -------
    dict
        ``feature_rank`` and ``output_std``, see :func:`effective_rank` and :func:`direction_std`.
    """
    together = [ranks.together(values.detach().flatten(1)) for values in (features, outputs)]
    return {"feature_rank": effective_rank(together[0]), "output_std": direction_std(together[1])}


def effective_rank(features: Tensor) -> float:
    """Return the effective rank of features (B, F): the exponential of the entropy of their singular values' shares.

    So many directions the features use, from 1 to ``min(B - 1, F)`` (Roy and Vetterli, 2007, of the centred features).

    Examples
    --------
    >>> square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(effective_rank(square), 6), round(effective_rank(square[:, :1]), 6)
    (2.0, 1.0)
    """
    wide = features.double()
    centred = wide - wide.mean(dim=0)
    # The squares of the singular values, from whichever of the two products is the smaller matrix.
    product = centred.T @ centred if centred.shape[0] > centred.shape[1] else centred @ centred.T
    values = torch.linalg.eigvalsh(product).clamp(min=0).sqrt()
    # Features that are all the same differ by their rounding, which has every rank.
    values = values[values > torch.finfo(features.dtype).eps * float(wide.norm())]
    return exp(float(ia.entropy(values / values.sum()))) if len(values) else 1.0


def direction_std(outputs: Tensor) -> float:
    """Return the standard deviation of outputs (B, D), each brought to length 1: from 0, all the same, to 1.

    Its square is the sum over units of their variances. Outputs that are even in all directions have nearly 1.

    Examples
    --------
    >>> direction_std(torch.tensor([[2.0, 0.0], [-1.0, 0.0]])), direction_std(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    (1.0, 0.0)
    """
    mean = F.normalize(outputs.double()).mean(dim=0)
    return sqrt(max(0.0, 1 - float(mean.square().sum())))


@torch.no_grad()
def knn(encoder: nn.Module, feed: Feed, place: Place) -> dict[str, float]:
    """Say, as ``knn``, how often training images are of the class of those near them.

    Nothing is said where classes are unknown. The vote of
    :func:`~infoassign_training.evaluation.knn.weighted_votes`, by the features, in evaluation mode, of
    :meth:`~infoassign_training.engine.feed.Feed.sample`; which images are asked and which vote stays the same. It is
    there to be looked at: nothing is trained on it. All ranks call this together.
    """
    if not feed.classes:
        return {}
    encoder.eval()
    parts = [
        (encoder(view).flatten(1), rows[:, None], classes[:, None])
        for batch in feed.sample(SAMPLE)
        for view, rows, classes in zip(
            *(some.split(LARGEST) for some in (batch.views[0], batch.rows, batch.classes)), strict=True
        )
    ]
    features, rows, classes = (ranks.together(torch.cat(some)).cpu() for some in zip(*parts, strict=True))
    # The same of however many ranks. Dealt out, since classes may go by number.
    order = rows[:, 0].argsort()
    order = order[torch.randperm(len(order), generator=Generator().manual_seed(0))]
    asked, voters = order[::ASKED], order[torch.arange(len(order)) % ASKED > 0]
    mine = voters[place.part(len(voters))]
    votes = weighted_votes(
        features[mine].float(),
        classes[mine, 0],
        features[asked].float(),
        neighbours=(NEIGHBOURS,),
        temperature=TEMPERATURE,
        count=feed.classes,
    )
    return {"knn": top(votes[0].numpy(), classes[asked, 0].numpy())}
