"""SeLa: label all images by optimal transport under equipartition, learn the labels, and label anew."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import infoassign as ia
from infoassign_training.engine.schedule import relabelling_times
from infoassign_training.methods import settings
from infoassign_training.methods.method import Batch, Method, Moment, Pass, Step
from infoassign_training.models.heads import MultiHead


class Sela(Method):
    """An encoder with several heads, each of which learns labels of its own."""

    targets: Tensor
    potentials: Tensor

    def __init__(self, encoder: nn.Module, features: int, images: int, chosen: settings.Sela) -> None:
        super().__init__()
        self.settings = chosen
        self.labels = chosen.heads[0]
        self.encoder = encoder
        self.heads = MultiHead(features, chosen.heads)
        self.register_buffer("targets", torch.full((len(chosen.heads), images), -1))
        self.register_buffer("potentials", torch.zeros(sum(chosen.heads), dtype=torch.float64))

    def before(self, now: Moment, images: Pass) -> tuple[ia.Assignment, ...]:
        """Label all images anew where the schedule says so (sec. 3.3: ever more rarely)."""
        if now.step not in relabelling_times(self.settings.relabellings, now.steps):
            return ()
        # Each head starts from where its last solution was.
        potentials = self.potentials.split(self.settings.heads)
        found = tuple(map(self._solved, self._log_probabilities(images), potentials))
        for head, assignment in enumerate(found):
            self.targets[head] = assignment.labels
            potentials[head].copy_(assignment.potential)
        return found

    def forward(self, batch: Batch, now: Moment) -> Step:
        """Return the mean over heads of the cross-entropy with their labels."""
        logits = self.heads(self.encoder(batch.views[0]))
        targets = self.targets[:, batch.rows]
        losses = [F.cross_entropy(some, labels) for some, labels in zip(logits, targets, strict=True)]
        return Step(torch.stack(losses).mean())

    @torch.no_grad()
    def label(self, images: Tensor) -> ia.Assignment:
        """Label images (B, C, H, W) by the first head, with equal shares."""
        self.eval()
        logits = self.heads(self.encoder(images))[0]
        return self._solved(F.log_softmax(logits, dim=1), torch.zeros(self.settings.heads[0], dtype=torch.float64))

    def _solved(self, log_probabilities: Tensor, start: Tensor) -> ia.Assignment:
        return ia.sinkhorn(
            log_probabilities, epsilon=1 / self.settings.sharpness, tol=self.settings.tolerance, start=start
        )

    @torch.no_grad()
    def _log_probabilities(self, images: Pass) -> list[Tensor]:
        """Return those of all images, averaged over views, a tensor (N, K) for each head; in training mode."""
        views = self.settings.label_views
        found = [torch.empty(self.targets.shape[1], size) for size in self.settings.heads]
        for rows, some in images(views):
            for view in some:
                for mean, logits in zip(found, self.heads(self.encoder(view)), strict=True):
                    part = F.log_softmax(logits, dim=1) / views
                    mean[rows] = part if view is some[0] else mean[rows] + part
        return found
