"""IMSVD: softmax segments of two views, informative about the images and independent of the transformation."""

from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor, nn

import infoassign as ia
from infoassign_training.engine import ranks
from infoassign_training.methods import settings
from infoassign_training.methods.embeddings import Embeddings


class Imsvd(Embeddings):
    """The library's loss (theory, B) on the projections."""

    def __init__(self, encoder: nn.Module, projector: nn.Module, chosen: settings.Imsvd) -> None:
        super().__init__(encoder, projector)
        self.settings = chosen

    def terms(self, first: Tensor, second: Tensor) -> Mapping[str, Tensor]:
        """Return the loss of embeddings (B, D), in one."""
        loss: Tensor = ia.imsvd_loss(first, second, **asdict(self.settings), all_gather=ranks.all_gather())
        return {"entropies_and_invariance": loss}
