"""SwAV: predict, from one view, the labels of the other by optimal transport under equipartition."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import infoassign as ia
from infoassign_training.engine import ranks
from infoassign_training.methods import settings
from infoassign_training.methods.crops import GLOBAL, by_size, swapped_agreement, swapped_prediction
from infoassign_training.methods.method import Batch, Method, Moment, Step
from infoassign_training.models.heads import Prototypes


class Swav(Method):
    """One network for both views; projections of earlier batches may help to label the present one."""

    queue: Tensor

    def __init__(self, encoder: nn.Module, projector: nn.Module, projection: int, chosen: settings.Swav) -> None:
        super().__init__()
        self.settings = chosen
        self.labels = chosen.prototypes
        self.encoder = encoder
        self.projector = projector
        self.prototypes = Prototypes(projection, chosen.prototypes)
        # The same on every rank, which labels its share of it. Empty at first; rows of zeros are not used.
        self.register_buffer("queue", torch.zeros(GLOBAL, chosen.queue, projection))

    def outputs(self, views: list[Tensor]) -> list[Tensor]:
        """Return the projections of all views, each (B, D)."""
        return by_size(nn.Sequential(self.encoder, self.projector), views)

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the mean of the swapped predictions: two global views are labelled, and all predict."""
        with torch.no_grad():
            use = now.epoch >= self.settings.queue_from_epoch
            labels = tuple(self._labelled(view, number, use=use) for number, view in enumerate(outputs[:GLOBAL]))
            self._remember(outputs[:GLOBAL])
        logits = [self.prototypes(view) / self.settings.temperature for view in outputs]
        count = len(batch.rows)  # those of the queue come after
        loss = swapped_prediction(logits, [found.plan[:count] for found in labels])
        agreed = swapped_agreement(logits, [found.labels[:count] for found in labels])
        return Step(loss, labels, watched={"agreement": agreed})

    def after_backward(self, now: Moment) -> None:
        """Leave the prototypes as they are in the first epochs."""
        if now.epoch < self.settings.freeze_prototypes_epochs:
            self.prototypes.weight.grad = None

    def assign(self, cosines: Tensor) -> ia.Assignment:
        """Label cosines (B, K) by a few iterations, with those of all ranks: the first half step is on the columns."""
        return ia.sinkhorn(
            cosines,
            epsilon=self.settings.epsilon,
            start="columns",
            tol=0,
            max_sweeps=self.settings.iterations,
            acceleration=None,
            all_sum=ranks.all_sum(),
        )

    @torch.no_grad()
    def logits(self, images: Tensor) -> list[Tensor]:
        """Score images (B, C, H, W) with running statistics: cosines, (B, K)."""
        self.eval()
        return [self.prototypes(self.projector(self.encoder(images)))]

    def label(self, images: Tensor) -> ia.Assignment:
        """Label images (B, C, H, W) as in training, with running statistics."""
        return self.assign(self.logits(images)[0])

    def _labelled(self, projections: Tensor, view: int, *, use: bool) -> ia.Assignment:
        kept = self.queue[view]
        # Whole or not at all: zeros stand in for batches that have not been.
        if use and len(kept) and bool(kept[-1].any()):
            projections = torch.cat([projections, kept[ranks.share(len(kept))]])
        return self.assign(self.prototypes(projections))

    def _remember(self, projections: Sequence[Tensor]) -> None:
        """Put the newest projections before the others."""
        if self.settings.queue:
            both = torch.stack([ranks.together(view) for view in projections])
            self.queue.copy_(torch.cat([both, self.queue], dim=1)[:, : self.settings.queue])
