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

from infoassign.files import write_text
from infoassign_training.config import Pretraining
from infoassign_training.data.digit_views import random_view
from infoassign_training.engine import checkpoint
from infoassign_training.engine.run import Run
from infoassign_training.engine.schedule import values_at
from infoassign_training.engine.summary import Summary
from infoassign_training.errors import UserError
from infoassign_training.methods.mira import Mira, Step
from infoassign_training.models.resnet import SmallResNet


class TrainingError(UserError):
    """Training cannot start or go on."""


class DivergenceError(Exception):
    """A value is no longer finite; the loop turns this into a `TrainingError` that says what is kept."""


ALARM_AFTER = 0.3
"""Share of the epochs (at least 10) after which labels without information are no longer a beginning."""


def build(settings: Pretraining, images: Tensor) -> Mira:
    """Make the model with its initial weights, which depend on the seed alone.

    Raises
    ------
    TrainingError
        If training could not start: the images, shape (N, 1, S, S), do not fit the model or do not fill a batch, or
        several processes were started.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("this version trains in one process; start torchrun with --nproc-per-node 1")
    if settings.batch_size > len(images):
        raise TrainingError(f"batch_size {settings.batch_size} is larger than the {len(images)} training images")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            encoder = SmallResNet(settings.model.widths, settings.model.features, images.shape[-1])
        except ValueError as error:
            raise TrainingError(f"model.widths do not fit the images: {error}") from error
        return Mira(encoder, settings.model.features, settings.model, settings.mira)


def train(method: Mira, settings: Pretraining, images: Tensor, run: Run) -> Mira:
    """Train on images without their classes, from where the run's checkpoint stands, to the end.

    After every epoch a checkpoint is written and a line added to the log. A run that is killed and started
    again ends with the same weights, to the bit, as one that was not.

    Parameters
    ----------
    method
        What :func:`build` made of the settings and the images.
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
        If the loss or the model's outputs are no longer finite; the last checkpoint is kept.
    CheckpointError
        If the run's checkpoint cannot be used.
    """
    steps_per_epoch = len(images) // settings.batch_size
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
            try:
                record = _train_epoch(settings, images, method, optimizer, epoch, bar)
            except DivergenceError as error:
                kept = f"the checkpoint after epoch {epoch} is kept" if epoch else "there is no checkpoint yet"
                raise TrainingError(
                    f"training diverged in epoch {epoch + 1}: {error}; {kept}."
                    " Start anew with a lower optimizer.learning-rate (--overwrite)"
                ) from error
            # The line first: resuming drops lines that go beyond the checkpoint, but could not make one up.
            with run.log.open("a") as log:
                log.write(json.dumps(record) + "\n")
                log.flush()
                os.fsync(log.fileno())
            checkpoint.save(run.checkpoint, epoch + 1, method, optimizer)
            if epoch + 1 == max(10, round(ALARM_AFTER * settings.epochs)):
                warning = alarm(record, settings)
                if warning is not None:
                    bar.write(f"warning: {warning}", file=sys.stderr)
    return method.eval()


def alarm(record: dict[str, Any], settings: Pretraining) -> str | None:
    """Return a warning with advice if this line of the log is of a run that learns nothing."""
    if 0.98 <= record["loss_over_log_k"] <= 1.02:
        finding = "the loss is still ln K: the student predicts all prototypes alike"
    elif record["mutual_information"] < 0.1:
        finding = (
            f"the labels carry {record['mutual_information']:.2g} nats: all images are labelled nearly alike"
            f" (loss / ln K is {record['loss_over_log_k']:.2f})"
        )
    else:
        return None
    return (
        f"after {record['epoch']} epochs {finding}. The targets are {settings.mira.target_sharpness:.2g} times as sharp"
        " as the student, tau_s / (tau_t (1 - beta)); raise mira.beta-start and mira.beta-end to make them sharper"
        " (0.9 is a good start), or take smaller batches."
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
        outcome = _finite_step(method, views, now.beta)
        optimizer.zero_grad()
        outcome.loss.backward()
        if epoch < settings.mira.freeze_prototypes_epochs:
            method.prototypes.weight.grad = None
        optimizer.step()
        summary.add(outcome)
        bar.set_postfix(summary.headline(), refresh=False)
        bar.update()
    try:
        method.label(batch)
    except ValueError as error:
        raise DivergenceError(f"its last step left weights that give no finite logits ({error})") from error
    return {
        "epoch": epoch + 1,
        "step": first_step + steps_per_epoch,
        **summary.record(),
        **asdict(now),
        "seconds": time.perf_counter() - started,
    }


def _finite_step(method: Mira, views: list[Tensor], beta: float) -> Step:
    """Do the forward pass, or stop before a value that is not finite reaches the weights."""
    try:
        outcome = method(views[0], views[1], beta)
    except ValueError as error:  # the solver refuses logits that are not finite
        raise DivergenceError(str(error)) from error
    if not bool(outcome.loss.isfinite()):
        raise DivergenceError(f"the loss became {float(outcome.loss.detach())}")
    return cast(Step, outcome)
