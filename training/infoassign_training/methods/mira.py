"""MIRA: predict, from one view, the information-maximising labels of the other."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

import infoassign as ia
from infoassign_training import timing
from infoassign_training.engine import ema, ranks
from infoassign_training.engine.schedule import cosine
from infoassign_training.methods import settings
from infoassign_training.methods.crops import GLOBAL, by_size, swapped_agreement, swapped_prediction
from infoassign_training.methods.method import Batch, Method, Moment, Pass, Step
from infoassign_training.models.heads import Prototypes


class Mira(Method):
    """A student that learns and a teacher, its moving average, that labels.

    As in the released code, the teacher's average covers the parameters alone (its batch normalisation keeps
    statistics of its own), and it is compared with the student's prototypes.
    """

    def __init__(self, encoder: nn.Module, projector: nn.Module, projection: int, chosen: settings.Mira) -> None:
        super().__init__()
        self.settings = chosen
        self.labels = chosen.prototypes
        self.encoder = encoder
        self.projector = projector
        self.prototypes = Prototypes(projection, chosen.prototypes)
        self.teacher = deepcopy(nn.Sequential(self.encoder, self.projector)).requires_grad_(False)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student; `momentum` 1 leaves it where it is."""
        ema.update(self.teacher, nn.Sequential(self.encoder, self.projector), momentum, buffers=False)

    def before(self, now: Moment, images: Pass) -> tuple[ia.Assignment, ...]:
        """Update the average, before the teacher labels, as in the released code."""
        with timing.part(timing.OPTIMISER):
            self.update_teacher(self._momentum(now))
        return ()

    def outputs(self, views: list[Tensor]) -> list[Tensor]:
        """Return the student's projections of all views, each (B, D)."""
        return by_size(nn.Sequential(self.encoder, self.projector), views)

    @torch.no_grad()
    def constants(self, views: list[Tensor]) -> list[Tensor]:
        """Return the teacher's projections of the two global views, each (B, D)."""
        return list(self.teacher(torch.cat(views[:GLOBAL])).chunk(GLOBAL))

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the swapped-prediction loss: two global views, labelled each on its own, and perhaps local ones.

        The loss is the mean of the terms of eq. 8, so that it is ln K where all labels are predicted alike.
        """
        beta = cosine(self.settings.beta_start, self.settings.beta_end, now.progress)
        with torch.no_grad():
            targets = self.prototypes(torch.cat(constants)).chunk(GLOBAL)
            labels = tuple(self.assign(view, beta) for view in targets)
        logits = [self.prototypes(view) / self.settings.student_temperature for view in outputs]
        loss = swapped_prediction(logits, [assignment.plan for assignment in labels])
        agreed = swapped_agreement(logits, [assignment.labels for assignment in labels])
        schedules = {"beta": beta, "teacher_momentum": self._momentum(now)}
        return Step(loss, labels, watched={"agreement": agreed}, schedules=schedules)

    def after_backward(self, now: Moment) -> None:
        """Leave the prototypes as they are in the first epochs."""
        if now.epoch < self.settings.freeze_prototypes_epochs:
            self.prototypes.weight.grad = None

    def assign(self, logits: Tensor, beta: float) -> ia.Assignment:
        """Label a batch of teacher logits (B, K), each view on its own (sec. 3.3), with those of all ranks."""
        return ia.mira(
            logits,
            beta=beta,
            temperature=self.settings.teacher_temperature,
            **self._until(),
            all_sum=ranks.all_sum(),
        )

    @torch.no_grad()
    def logits(self, images: Tensor) -> list[Tensor]:
        """Score images (B, C, H, W) by the student, with running statistics: cosines, (B, K)."""
        self.eval()
        return [self.prototypes(self.projector(self.encoder(images)))]

    def label(self, images: Tensor) -> ia.Assignment:
        """Label images (B, C, H, W) as a finished model does: student, running statistics, last beta."""
        return self.assign(self.logits(images)[0], self.settings.beta_end)

    def _until(self) -> dict[str, Any]:
        steps = self.settings.iterations
        if steps:  # a sweep more than updates: the plan is that of the last potential
            return {"tol": 0, "max_sweeps": steps + 1, "acceleration": None}
        return {"tol": self.settings.tolerance}

    def _momentum(self, now: Moment) -> float:
        start = self.settings.teacher_momentum
        return cosine(start, 1.0, now.progress) if start else 0.0
