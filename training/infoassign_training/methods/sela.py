"""SeLa: label all images by optimal transport under equipartition, learn the labels, and label anew."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import infoassign as ia
from infoassign_training.engine import ranks
from infoassign_training.engine.schedule import relabelling_times
from infoassign_training.methods import settings
from infoassign_training.methods.method import Batch, Method, Moment, Pass, Step, agreement
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
        if self.settings.relabellings == 0 and now.step == 0:
            self._label_at_random()
        due = now.step in relabelling_times(self.settings.relabellings, now.steps)
        return self._relabel(images) if due else ()

    def finish(self, images: Pass) -> tuple[ia.Assignment, ...]:
        """Label all images once more, for use elsewhere: the last of the schedule's times is the end."""
        return self._relabel(images) if self.settings.relabellings > 1 else ()

    def outputs(self, views: list[Tensor]) -> list[Tensor]:
        """Return the features of the view, (B, F)."""
        return [self.encoder(views[0])]

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the mean over heads of the cross-entropy with their labels."""
        logits = self.heads(outputs[0])
        targets = self.targets[:, batch.rows]
        losses = [F.cross_entropy(some, labels) for some, labels in zip(logits, targets, strict=True)]
        agreed = [agreement(some, labels) for some, labels in zip(logits, targets, strict=True)]
        return Step(torch.stack(losses).mean(), watched={"agreement": torch.stack(agreed).mean()})

    def pseudo_labels(self) -> Tensor:
        """Return the labels that are being learnt, shape (T, N)."""
        return self.targets

    @torch.no_grad()
    def logits(self, images: Tensor) -> list[Tensor]:
        """Score images (B, C, H, W) by every head, each (B, K_t)."""
        self.eval()
        found: list[Tensor] = self.heads(self.encoder(images))
        return found

    def label(self, images: Tensor) -> ia.Assignment:
        """Label images (B, C, H, W) by the first head, with equal shares."""
        return self._solved(self.logits(images)[0], self.potentials.new_zeros(self.settings.heads[0]))

    def _label_at_random(self) -> None:
        """Deal every label out as often as any other, the same to all ranks."""
        count = self.targets.shape[1]
        for number, size in enumerate(self.settings.heads):
            dealt = torch.arange(count, device=self.targets.device) % size
            self.targets[number] = ranks.of_first(dealt[torch.randperm(count).to(dealt.device)])

    @torch.no_grad()
    def _relabel(self, images: Pass) -> tuple[ia.Assignment, ...]:
        """Label all images by every head, each from where its last solution was."""
        rows, features = self._features(images)
        found = []
        for number, (head, potential) in enumerate(
            zip(self.heads.heads, self.potentials.split(self.settings.heads), strict=True)
        ):
            assert isinstance(head, nn.Linear)
            weights = torch.cat([head.weight, head.bias[:, None]], dim=1)
            assignment = self._solved(ia.FactoredScores(features, weights), potential, ranks.all_sum())
            self.targets[number] = ranks.spread(assignment.labels, rows, self.targets.shape[1])
            potential.copy_(assignment.potential)
            found.append(assignment)
        return tuple(found)

    def _features(self, images: Pass) -> tuple[Tensor, Tensor]:
        """Return this rank's images and, averaged over views, their features and a one, shape (n_r, F + 1).

        The mean of log-probabilities over views (sec. 3.4) is the head of the mean features but for a constant by row,
        to which assignments are blind; so one pass does for all heads, and nothing of images x labels is kept. In
        training mode, as in the released code.
        """
        rows, features = [], []
        for some, views in images(self.settings.label_views):
            mean = torch.stack([self.encoder(view) for view in views]).mean(dim=0)
            rows.append(some)
            features.append(F.pad(mean, (0, 1), value=1.0))
        return torch.cat(rows), torch.cat(features)

    def _solved(self, scores: Any, start: Tensor, all_sum: Callable[[Tensor], Tensor] | None = None) -> ia.Assignment:
        return ia.sinkhorn(
            scores, epsilon=1 / self.settings.sharpness, tol=self.settings.tolerance, start=start, all_sum=all_sum
        )
