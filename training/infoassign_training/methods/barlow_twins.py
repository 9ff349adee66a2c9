"""Barlow Twins: the correlations of one view's units with the other's are to be the identity."""

from collections.abc import Mapping

from torch import Tensor, nn

from infoassign_training.engine import ranks
from infoassign_training.methods import settings
from infoassign_training.methods.embeddings import Embeddings


class BarlowTwins(Embeddings):
    """``sum_i (1 - C_ii)^2 + lambda sum_(i != j) C_ij^2`` (Zbontar et al., eq. 1)."""

    def __init__(self, encoder: nn.Module, projector: nn.Module, chosen: settings.BarlowTwins) -> None:
        super().__init__(encoder, projector)
        self.settings = chosen

    def terms(self, first: Tensor, second: Tensor) -> Mapping[str, Tensor]:
        """Return both terms, of embeddings (B, D) and those of all ranks."""
        first, second = ranks.whole(first), ranks.whole(second)
        correlation = standardised(first).T @ standardised(second) / len(first)
        diagonal = correlation.diagonal()
        rest = correlation.square().sum() - diagonal.square().sum()
        return {"invariance": (1 - diagonal).square().sum(), "redundancy": self.settings.off_diagonal * rest}


def standardised(embeddings: Tensor) -> Tensor:
    """Return embeddings (B, D) with mean 0 and variance 1 in every unit, as batch normalisation would make them."""
    centred = embeddings - embeddings.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + 1e-5).sqrt()
