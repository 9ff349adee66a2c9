"""What methods have in common that compare the embeddings of two views and make no labels."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infoassign_training.methods.method import Batch, Method, Moment, Step


class Embeddings(Method):
    """An encoder and a projector, and a loss of two batches of embeddings."""

    def __init__(self, encoder: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector

    def outputs(self, views: list[Tensor]) -> list[Tensor]:
        """Return the embeddings of both views, each (B, D)."""
        # Both at once, as in the papers' code: batch normalisation sees all of them.
        return list(self.projector(self.encoder(torch.cat(views))).chunk(2))

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the loss of the embeddings."""
        first, second = outputs
        parts = self.terms(first, second)
        return Step(torch.stack(list(parts.values())).sum(), parts={k: v.detach() for k, v in parts.items()})

    @abstractmethod
    def terms(self, first: Tensor, second: Tensor) -> Mapping[str, Tensor]:
        """Return the terms of the loss, weighted, of embeddings (B, D)."""
