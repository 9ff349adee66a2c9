"""MIRA: predict, from one view, the information-maximising labels of the other."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import infoassign as ia
from infoassign_training import config
from infoassign_training.engine import ranks
from infoassign_training.models.heads import Prototypes, projector


@dataclass(frozen=True)
class Step:
    """What one step of the method yields."""

    loss: Tensor
    """Shape (), differentiable."""
    assignments: tuple[ia.Assignment, ia.Assignment]
    """The labels of either view."""


class Mira(nn.Module):
    """A student that learns and a teacher, its moving average, that labels.

    As in the released code, the teacher's average covers the parameters alone (its batch normalisation keeps
    statistics of its own), and it is compared with the student's prototypes.
    """

    def __init__(self, encoder: nn.Module, features: int, model: config.Model, settings: config.Mira) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder
        self.projector = projector(
            features, (model.projector_hidden,), model.projection, hidden_bias=False, last_bias=True
        )
        self.prototypes = Prototypes(model.projection, settings.prototypes)
        self.teacher = deepcopy(nn.Sequential(self.encoder, self.projector)).requires_grad_(False)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student; `momentum` 1 leaves it where it is."""
        student = [*self.encoder.parameters(), *self.projector.parameters()]
        for kept, new in zip(self.teacher.parameters(), student, strict=True):
            kept.lerp_(new, 1 - momentum)

    def forward(self, first: Tensor, second: Tensor, beta: float) -> Step:
        """Return the swapped-prediction loss of two views, each (B, C, H, W).

        The loss is the mean of the two terms of eq. 8, so that it is ln K where all labels are predicted alike.
        """
        views = torch.cat([first, second])
        with torch.no_grad():
            targets = self.prototypes(self.teacher(views)).chunk(2)
        logits = self.prototypes(self.projector(self.encoder(views))) / self.settings.student_temperature
        ours, theirs = (self.assign(view, beta) for view in targets)
        from_first, from_second = logits.chunk(2)
        loss = (F.cross_entropy(from_second, ours.plan) + F.cross_entropy(from_first, theirs.plan)) / 2
        return Step(loss, (ours, theirs))

    def assign(self, logits: Tensor, beta: float) -> ia.Assignment:
        """Label a batch of teacher logits (B, K), each view on its own (sec. 3.3), with those of all ranks."""
        settings = self.settings
        return ia.mira(
            logits,
            beta=beta,
            temperature=settings.teacher_temperature,
            tol=settings.tolerance,
            all_sum=ranks.all_sum(),
        )

    @torch.no_grad()
    def label(self, images: Tensor) -> ia.Assignment:
        """Label images (B, C, H, W) as a finished model does: student, running statistics, last beta."""
        self.eval()
        return self.assign(self.prototypes(self.projector(self.encoder(images))), self.settings.beta_end)
