"""MUSIC: softmax segments of two views, whose joint entropies are to be high and which are to agree."""

from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor, nn

import infoassign as ia
from infoassign_training.engine import ranks
from infoassign_training.methods import settings
from infoassign_training.methods.embeddings import Embeddings


class Music(Embeddings):
    """The library's loss (theory, B) on the projections."""

    def __init__(self, encoder: nn.Module, projector: nn.Module, chosen: settings.Music) -> None:
        super().__init__(encoder, projector)
        self.settings = chosen

    def terms(self, first: Tensor, second: Tensor) -> Mapping[str, Tensor]:
        """Return the loss of embeddings (B, D), in one."""
        loss: Tensor = ia.music_loss(first, second, **asdict(self.settings), all_gather=ranks.all_gather())
        return {"entropies_and_invariance": loss}
