"""The training loop."""

import json
import os
import sys
import time
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from infoassign_training.config import Pretraining
from infoassign_training.data.views import random_view
from infoassign_training.engine import checkpoint
from infoassign_training.engine.files import write_text
from infoassign_training.engine.run import Run
from infoassign_training.engine.schedule import values_at
from infoassign_training.engine.summary import Summary
from infoassign_training.errors import UserError
from infoassign_training.methods.mira import Mira, Step
from infoassign_training.models.resnet import SmallResNet


class TrainingError(UserError):
    """Training cannot start or go on."""


ALARM_AFTER = 0.3
"""Share of the epochs after which a loss of ln K is no longer a beginning."""


def build(settings: Pretraining, image_size: int) -> Mira:
    """Make the model with its initial weights, which depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = SmallResNet(settings.model.widths, settings.model.features, image_size)
        return Mira(encoder, settings.model.features, settings.model, settings.mira)


def train(settings: Pretraining, images: Tensor, run: Run) -> Mira:
    """Train on images without their classes, from where the run's checkpoint stands, to the end.

    After every epoch a checkpoint is written and a line added to the log. A run that is killed and started
    again ends with the same weights, to the bit, as one that was not.

    Parameters
    ----------
    settings
        What to do.
    images
        Shape (N, 1, S, S), float32 in [0, 1].
    run
        The run folder, opened.

    Returns
    -------
    Mira
        The trained method, in evaluation mode.

    Raises
    ------
    TrainingError
        If there are fewer images than a batch holds, if several processes were started, or if the loss is
        no longer finite; the last checkpoint is kept.
    CheckpointError
        If the run's checkpoint cannot be used.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("this version trains in one process; start torchrun with --nproc-per-node 1")
    steps_per_epoch = len(images) // settings.batch_size
    if steps_per_epoch == 0:
        raise TrainingError(f"batch_size {settings.batch_size} is larger than the {len(images)} training images")
    method = build(settings, images.shape[-1])
    optimizer = torch.optim.SGD(
        [p for p in method.parameters() if p.requires_grad],
        lr=settings.optimizer.learning_rate,
        momentum=settings.optimizer.momentum,
        weight_decay=settings.optimizer.weight_decay,
    )
    done = 0
    state = checkpoint.load(run.checkpoint)
    if state is not None:
        state.restore_method(method)
        optimizer.load_state_dict(state.optimizer)
        done = state.epochs
    # A line of an epoch whose checkpoint was not written any more is not part of the run.
    write_text(run.log, "".join(json.dumps(record) + "\n" for record in run.records()[:done]))

    interactive = sys.stderr.isatty()
    total = settings.epochs * steps_per_epoch
    with tqdm(
        total=total,
        initial=done * steps_per_epoch,
        desc="pretrain",
        unit="step",
        mininterval=0.2 if interactive else 10,
    ) as bar:
        for epoch in range(done, settings.epochs):
            record = _train_epoch(settings, images, method, optimizer, epoch, bar)
            # The line first: resuming drops lines that go beyond the checkpoint, but could not make one up.
            with run.log.open("a") as log:
                log.write(json.dumps(record) + "\n")
            checkpoint.save(run.checkpoint, epoch + 1, method, optimizer)
            if epoch + 1 == round(ALARM_AFTER * settings.epochs):
                alarm = plateau_alarm(record, settings)
                if alarm is not None:
                    bar.write(f"warning: {alarm}", file=sys.stderr)
    return method.eval()


def plateau_alarm(record: dict[str, Any], settings: Pretraining) -> str | None:
    """Return a warning with advice if, in this line of the log, the loss is still ln K."""
    if record["loss_over_log_k"] < 0.98:
        return None
    return (
        f"after {record['epoch']} epochs the loss is still ln K: the student predicts all prototypes alike. The targets"
        f" are {settings.mira.target_sharpness:.2g} times as sharp as the student, tau_s / (tau_t (1 - beta)); raise"
        " mira.beta-start and mira.beta-end to make them sharper (0.9 is a good start), or take smaller batches."
    )


def _train_epoch(
    settings: Pretraining,
    images: Tensor,
    method: Mira,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    bar: "tqdm[Any]",
) -> dict[str, Any]:
    """Train for one epoch and return its line of the log."""
    started = time.perf_counter()
    steps_per_epoch = len(images) // settings.batch_size
    first_step, total = epoch * steps_per_epoch, settings.epochs * steps_per_epoch
    # A generator of its own for every epoch: nothing to save, and resuming is exact.
    generator = Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = torch.randperm(len(images), generator=generator)
    batches = order[: steps_per_epoch * settings.batch_size].split(settings.batch_size)
    summary = Summary(settings.mira.prototypes)
    method.train()
    for step, rows in enumerate(batches, start=first_step):
        now = values_at(settings, step, total)
        for group in optimizer.param_groups:
            group["lr"] = now.learning_rate
        # The average is updated before the teacher labels, as in the released code.
        method.update_teacher(now.teacher_momentum)
        batch = images[rows]
        views = [random_view(batch, settings.augmentation, generator) for _ in range(2)]
        outcome = _finite_step(method, views, now.beta, epoch, step)
        optimizer.zero_grad()
        outcome.loss.backward()
        if epoch < settings.mira.freeze_prototypes_epochs:
            method.prototypes.weight.grad = None
        optimizer.step()
        summary.add(outcome)
        bar.set_postfix(summary.headline(), refresh=False)
        bar.update()
    return {
        "epoch": epoch + 1,
        "step": first_step + steps_per_epoch,
        **summary.record(),
        **asdict(now),
        "seconds": time.perf_counter() - started,
    }


def _finite_step(method: Mira, views: list[Tensor], beta: float, epoch: int, step: int) -> Step:
    """Do the forward pass, or stop training before a value that is not finite reaches the weights."""
    where = f"in epoch {epoch + 1}, step {step + 1}"
    advice = "the checkpoint of the epoch before is kept. Lower optimizer.learning_rate or raise optimizer.warmup"
    try:
        outcome = method(views[0], views[1], beta)
    except ValueError as error:  # the solver refuses logits that are not finite
        raise TrainingError(f"training diverged {where} ({error}); {advice}") from error
    if not bool(outcome.loss.isfinite()):
        raise TrainingError(f"the loss became {float(outcome.loss.detach())} {where}; {advice}")
    return cast(Step, outcome)
