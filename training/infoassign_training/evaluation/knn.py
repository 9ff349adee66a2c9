"""The vote of the nearest neighbours, a chunk of queries at a time, the bank spread over ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from infoassign_training.engine import ranks

COSINES = 2**28
"""How many are in memory at a time, on each rank: a gibibyte of them."""


@torch.no_grad()
def weighted_votes(
    bank: Tensor,
    classes: Tensor,
    queries: Tensor,
    *,
    neighbours: Sequence[int],
    temperature: float,
    count: int,
    cosines: int = COSINES,
) -> list[Tensor]:
    r"""Let the nearest neighbours by cosine vote for their classes, each with weight :math:`e^{\cos / \tau}`.

    All ranks call this together, each with its part of the bank and with the same queries. A part may be empty.

    Parameters
    ----------
    bank
        This rank's part of the features that vote, shape (n_r, F), on any device.
    classes
        Their classes, shape (n_r,), int64.
    queries
        All features that are asked, shape (Q, F).
    neighbours
        How many vote, each number on its own; of a bank that has fewer, all do.
    temperature
        The tau of the weights (Wu et al., 2018, have sigma).
    count
        Number of classes C.
    cosines
        How many are in memory at a time, on each rank; one query's with the rank's part of the bank at least.

    Returns
    -------
    list of Tensor
        For each number of neighbours the votes, shape (Q, C), float64 on the CPU; those of a row sum to one.

    Raises
    ------
    ValueError
        If a feature is not finite.

    Examples
    --------
    >>> bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> votes = weighted_votes(
    ...     bank, torch.tensor([0, 0, 1]), torch.tensor([[1.0, 0.2]]), neighbours=(3,), temperature=0.07, count=2
    ... )
    >>> votes[0].argmax(dim=1)
    tensor([0])
    """
    if ranks.any_of(not bool(bank.isfinite().all()) or not bool(queries.isfinite().all())):
        raise ValueError("features are not finite: the encoder gives NaN or infinity for some image")
    directions = F.normalize(bank)
    most = max(neighbours)
    found: list[list[Tensor]] = [[] for _ in neighbours]
    # All ranks take as many queries at a time.
    largest = int(ranks.together(torch.tensor([[len(bank)]], device=bank.device)).max())
    for some in queries.split(max(1, cosines // max(1, largest))):
        nearest, order = (F.normalize(some) @ directions.T).topk(min(most, len(bank)), dim=1)
        # The nearest of all are among the nearest of each rank.
        near, order = _of_all(nearest, classes[order], most)
        for votes, number in zip(found, neighbours, strict=True):
            weights = ((near[:, :number].double() - 1) / temperature).exp()
            weights = weights / weights.sum(dim=1, keepdim=True)
            votes.append(weights.new_zeros(len(some), count).scatter_add_(1, order[:, :number], weights).cpu())
    return [torch.cat(votes) for votes in found]


def _of_all(cosines: Tensor, classes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the nearest over all ranks, the nearest first, and their classes; shapes (B, k)."""
    # By rows, since ranks may differ in how many they have.
    candidates, theirs = ranks.together(cosines.T).T, ranks.together(classes.T).T
    near, order = candidates.topk(min(most, candidates.shape[1]), dim=1)
    return near, theirs.gather(1, order)
