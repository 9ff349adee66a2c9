"""MUSIC: softmax segments of two views, of which the diagonal joint entropies are to be low and the others high."""

from collections.abc import Mapping

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
        loss: Tensor = ia.music_loss(
            first,
            second,
            segment_size=self.settings.segment_size,
            invariance_weight=self.settings.invariance_weight,
            temperature=self.settings.temperature,
            all_gather=ranks.all_gather(),
        )
        return {"entropies_and_invariance": loss}
