"""The training loop."""

import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from infoassign.files import write_text
from infoassign_training.config import Pretraining
from infoassign_training.data.digit_views import random_view
from infoassign_training.data.digits import LabelledImages
from infoassign_training.engine import checkpoint
from infoassign_training.engine.optim import optimizer_of
from infoassign_training.engine.run import Run
from infoassign_training.engine.schedule import rate_at
from infoassign_training.engine.summary import Summary
from infoassign_training.errors import UserError
from infoassign_training.methods.build import method_of
from infoassign_training.methods.method import Batch, Method, Moment, Step
from infoassign_training.models.heads import projector
from infoassign_training.models.small import SmallResNet


class TrainingError(UserError):
    """Training cannot start or go on."""


class DivergenceError(Exception):
    """A value is no longer finite; the loop turns this into a `TrainingError` that says what is kept."""


CHUNK = 1024
"""Images at a time of a pass over all of them."""
ALARM_AFTER = 0.3
"""Share of the epochs (at least 10) after which labels without information are no longer a beginning."""


def build(settings: Pretraining, train_images: LabelledImages) -> Method:
    """Make the model with its initial weights, which depend on the seed alone.

    Raises
    ------
    TrainingError
        If training could not start: the images, shape (N, 1, S, S), do not fit the model or do not fill a batch, or
        several processes were started.
    """
    images, model = train_images.images, settings.model
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("this version trains in one process; start torchrun with --nproc-per-node 1")
    if settings.batch_size > len(images):
        raise TrainingError(f"batch_size {settings.batch_size} is larger than the {len(images)} training images")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            encoder = SmallResNet(model.widths, model.features, images.shape[-1])
        except ValueError as error:
            raise TrainingError(f"model.widths do not fit the images: {error}") from error
        try:
            return method_of(
                settings.method,
                encoder,
                projector(
                    model.features, (model.projector_hidden,), model.projection, hidden_bias=False, last_bias=True
                ),
                features=model.features,
                projection=model.projection,
                images=len(images),
                classes=int(train_images.classes.max()) + 1,
            )
        except ValueError as error:
            raise TrainingError(str(error)) from error


def train(method: Method, settings: Pretraining, images: LabelledImages, run: Run) -> Method:
    """Train on images, from where the run's checkpoint stands, to the end.

    After every epoch a checkpoint is written and a line added to the log. A run that is killed and started
    again ends with the same weights, to the bit, as one that was not.

    Parameters
    ----------
    method
        What :func:`build` made of the settings and the images.
    settings
        What to do.
    images
        What to train on; no method but the supervised baseline looks at the classes.
    run
        The run folder, opened.

    Returns
    -------
    Method
        The trained method, in evaluation mode.

    Raises
    ------
    TrainingError
        If the loss or the model's outputs are no longer finite; the last checkpoint is kept.
    CheckpointError
        If the run's checkpoint cannot be used.
    """
    steps_per_epoch = len(images.images) // settings.batch_size
    optimizer = optimizer_of(method, settings.optimizer)
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
    if "mutual_information" not in record:
        return None
    if 0.98 <= record["loss_over_log_k"] <= 1.02:
        finding = "the loss is still ln K: all labels are predicted alike"
    elif record["mutual_information"] < 0.1:
        finding = (
            f"the labels carry {record['mutual_information']:.2g} nats: all images are labelled nearly alike"
            f" (loss / ln K is {record['loss_over_log_k']:.2f})"
        )
    else:
        return None
    return f"after {record['epoch']} epochs {finding}. {getattr(settings.method, 'advice', '')}".rstrip()


def _train_epoch(
    settings: Pretraining,
    images: LabelledImages,
    method: Method,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    bar: "tqdm[Any]",
) -> dict[str, Any]:
    """Train for one epoch and return its line of the log."""
    started = time.perf_counter()
    steps_per_epoch = len(images.images) // settings.batch_size
    first_step, total = epoch * steps_per_epoch, settings.epochs * steps_per_epoch
    # A generator of its own for every epoch: nothing to save, and resuming is exact.
    generator = Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = torch.randperm(len(images.images), generator=generator)
    batches = order[: steps_per_epoch * settings.batch_size].split(settings.batch_size)
    summary = Summary(method.labels)
    method.train()
    for step, rows in enumerate(batches, start=first_step):
        now = Moment(step, total, steps_per_epoch)
        rate = rate_at(settings.optimizer, settings.batch_size, step, total, steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        for assignment in method.before(now, partial(_pass, images.images, settings, now)):
            summary.add_labels(assignment)
        views = [random_view(images.images[rows], settings.augmentation, generator) for _ in range(method.views)]
        outcome = _finite_step(method, Batch(views, rows, images.classes[rows]), now)
        optimizer.zero_grad()
        outcome.loss.backward()
        method.after_backward(now)
        optimizer.step()
        summary.add(outcome)
        bar.set_postfix(summary.headline(), refresh=False)
        bar.update()
    with torch.no_grad():
        if not bool(method.eval().encoder(views[0]).isfinite().all()):
            raise DivergenceError("its last step left weights that give no finite features")
    return {
        "epoch": epoch + 1,
        "step": first_step + steps_per_epoch,
        **summary.record(),
        "learning_rate": rate,
        "seconds": time.perf_counter() - started,
    }


def _pass(images: Tensor, settings: Pretraining, now: Moment, views: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Go once over all images, with random views that depend on the seed and the step alone."""
    generator = Generator().manual_seed((settings.seed * 1_000_003 + now.step) * 2 + 1)
    for rows in torch.arange(len(images)).split(CHUNK):
        yield rows, [random_view(images[rows], settings.augmentation, generator) for _ in range(views)]


def _finite_step(method: Method, batch: Batch, now: Moment) -> Step:
    """Do the forward pass, or stop before a value that is not finite reaches the weights."""
    try:
        outcome: Step = method(batch, now)
    except ValueError as error:  # the solver refuses logits that are not finite
        raise DivergenceError(str(error)) from error
    if not bool(outcome.loss.isfinite()):
        raise DivergenceError(f"the loss became {float(outcome.loss.detach())}")
    return outcome
