"""The training loop."""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from infoassign.files import write_text
from infoassign_training.config import Pretraining
from infoassign_training.data.views import seed_of
from infoassign_training.engine import checkpoint, timing
from infoassign_training.engine.feed import Feed
from infoassign_training.engine.optim import optimizer_of
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run
from infoassign_training.engine.schedule import rate_at
from infoassign_training.engine.summary import Summary
from infoassign_training.errors import UserError
from infoassign_training.methods.method import Batch, Method, Moment, Step


class TrainingError(UserError):
    """Training cannot start or go on."""


class DivergenceError(Exception):
    """A value is no longer finite; the loop turns this into a `TrainingError` that says what is kept."""


ALARM_AFTER = 0.3
"""Share of the epochs (at least 10) after which labels without information are no longer a beginning."""


def train(method: Method, settings: Pretraining, feed: Feed, run: Run, place: Place, *, quiet: bool = False) -> Method:
    """Train on images, from where the run's checkpoint stands, to the end.

    After every epoch a checkpoint is written and a line added to the log. A run that is killed and started
    again ends with the same weights, to the bit, as one that was not.

    Parameters
    ----------
    method
        What :func:`~infoassign_training.methods.build.build` made of the settings, on the device of the feed.
    settings
        What to do.
    feed
        What to train on; no method but the supervised baseline looks at the classes.
    run
        The run folder, opened; the first rank alone writes to it.
    place
        Which rank this is. All ranks call this together.
    quiet
        Whether to show no progress.

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
    first = place.rank == 0
    optimizer = optimizer_of(method, settings.optimizer)
    done = 0
    state = checkpoint.load(run.checkpoint)
    if state is not None:
        state.restore_method(method)
        optimizer.load_state_dict(state.optimizer)
        done = state.epochs
    if first:
        # A line of an epoch whose checkpoint was not written any more is not part of the run.
        write_text(run.log, "".join(json.dumps(record) + "\n" for record in run.records()[:done]))
    module = shared(method, place)

    interactive = sys.stderr.isatty()
    with (
        tqdm(
            total=settings.epochs * feed.steps_per_epoch,
            initial=done * feed.steps_per_epoch,
            desc="pretrain",
            unit="step",
            mininterval=0.2 if interactive else 10,
            disable=quiet or not first,
        ) as bar,
        torch.random.fork_rng(),
    ):
        for epoch in range(done, settings.epochs):
            try:
                with timing.running(next(method.parameters()).device) as watch:
                    record = _train_epoch(settings, feed, method, module, optimizer, epoch, place, bar)
                    record |= timing.logged(watch.shares())
            except DivergenceError as error:
                kept = f"the checkpoint after epoch {epoch} is kept" if epoch else "there is no checkpoint yet"
                raise TrainingError(
                    f"training diverged in epoch {epoch + 1}: {error}; {kept}."
                    " Start anew with a lower optimizer.learning-rate (--overwrite)"
                ) from error
            if not first:
                continue
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


def shared(method: Method, place: Place) -> nn.Module:
    """Return what to call for a step: on several ranks gradients are averaged, and on CUDA normalisation sees all."""
    if place.world == 1:
        return method
    on_cuda = next(method.parameters()).is_cuda
    if on_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(method)
    if not any(parameter.requires_grad for parameter in method.parameters()):
        return method
    with warnings.catch_warnings():
        # Newer torch has another name for it, which older ones do not know.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        # Buffers are alike on all ranks, or the rank's own: nothing to send.
        return DistributedDataParallel(method, device_ids=[place.local] if on_cuda else None, broadcast_buffers=False)


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
    return f"after {record['epoch']} epochs {finding}. {settings.method.advice}".rstrip()


def _train_epoch(
    settings: Pretraining,
    feed: Feed,
    method: Method,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    place: Place,
    bar: "tqdm[Any]",
) -> dict[str, Any]:
    """Train for one epoch and return its line of the log."""
    started = time.perf_counter()
    first_step, total = epoch * feed.steps_per_epoch, settings.epochs * feed.steps_per_epoch
    summary = Summary(method.labels)
    method.train()
    for step, batch in enumerate(timing.timed(timing.DATA, feed.epoch(epoch)), start=first_step):
        # Dropout draws from torch's own generator: nothing to save, and resuming is exact.
        torch.manual_seed(seed_of(settings.seed, step, place.rank))
        now = Moment(step, total, feed.steps_per_epoch)
        rate = rate_at(settings.optimizer, settings.batch_size, step, total, feed.steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with timing.part(timing.ASSIGNMENT):
            for assignment in method.before(now, partial(_everything, feed, step)):
                summary.add_labels(assignment)
        outcome = _finite_step(module, batch, now)
        optimizer.zero_grad()
        with timing.part(timing.COMPUTE):
            outcome.loss.backward()
        with timing.part(timing.OPTIMISER):
            method.after_backward(now)
            optimizer.step()
        summary.add(outcome)
        bar.set_postfix(summary.headline(), refresh=False)
        bar.update()
    if epoch + 1 == settings.epochs:
        with timing.part(timing.ASSIGNMENT):
            for assignment in method.finish(partial(_everything, feed, total)):
                summary.add_labels(assignment)
    with torch.no_grad():
        if not bool(method.eval().encoder(batch.views[0]).isfinite().all()):
            raise DivergenceError("its last step left weights that give no finite features")
    return {
        "epoch": epoch + 1,
        "step": first_step + feed.steps_per_epoch,
        **summary.record(),
        "learning_rate": rate,
        "seconds": time.perf_counter() - started,
    }


def _everything(feed: Feed, step: int, views: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Go once over all images; the wait for them is no part of what is made of them."""
    return timing.timed(timing.DATA, feed.everything(step, views))


def _finite_step(module: nn.Module, batch: Batch, now: Moment) -> Step:
    """Do the forward pass, or stop before a value that is not finite reaches the weights."""
    try:
        outcome: Step = module(batch, now)
    except ValueError as error:  # the solver refuses logits that are not finite
        raise DivergenceError(str(error)) from error
    if not bool(outcome.loss.isfinite()):
        raise DivergenceError(f"the loss became {float(outcome.loss.detach())}")
    return outcome
