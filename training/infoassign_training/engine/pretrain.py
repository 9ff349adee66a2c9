"""The training loop."""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import infoassign as ia
from infoassign.files import write_text
from infoassign_training import timing
from infoassign_training.config import Pretraining
from infoassign_training.data.views import seed_of
from infoassign_training.engine import alarms, checkpoint, ranks, watching
from infoassign_training.engine.board import board
from infoassign_training.engine.checkpoint import Checkpoint
from infoassign_training.engine.course import Course
from infoassign_training.engine.divergence import DivergenceError, dump
from infoassign_training.engine.feed import Feed
from infoassign_training.engine.optim import optimizer_of
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run
from infoassign_training.engine.schedule import rate_at
from infoassign_training.engine.step import Stepper, backward
from infoassign_training.engine.summary import Summary
from infoassign_training.errors import UserError
from infoassign_training.methods.method import Batch, Method, Moment
from infoassign_training.stopping import heard


class TrainingError(UserError):
    """Training cannot start or go on."""


class StoppedError(UserError):
    """Training was asked to stop, and can go on."""


def train(
    method: Method,
    settings: Pretraining,
    feed: Feed,
    run: Run,
    place: Place,
    *,
    tensorboard: bool = False,
    quiet: bool = False,
) -> Method:
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
    tensorboard
        Whether lines of the log are written for TensorBoard, too.
    quiet
        Whether to show no progress.

    Returns
    -------
    Method
        The trained method, in evaluation mode.

    Raises
    ------
    TrainingError
        If the loss or the model's outputs are no longer finite; the last checkpoint and the batch are kept.
    CheckpointError
        If the run's checkpoint cannot be used.
    """
    device = next(method.parameters()).device
    with heard() as asked, torch.random.fork_rng([device] if device.type == "cuda" else []):
        loop = _Loop(method, settings, feed, run, place, asked, quiet=quiet)
        with loop.bar, board(run, wanted=tensorboard and place.rank == 0) as loop.show:
            loop.warn(alarms.beforehand(settings))
            for epoch in range(loop.steps // feed.steps_per_epoch, settings.epochs):
                with timing.running(loop.unit.device) as watch:
                    loop.epoch(epoch, watch)
                if epoch + 1 < settings.epochs:
                    loop.stop_if_asked()
    return method.eval()


class _Loop:
    """What changes from step to step, and what is done with it."""

    show: Callable[[dict[str, Any]], None]
    """Takes a line of the log."""

    def __init__(
        self,
        method: Method,
        settings: Pretraining,
        feed: Feed,
        run: Run,
        place: Place,
        asked: Callable[[], str],
        *,
        quiet: bool,
    ) -> None:
        self.method, self.settings, self.feed, self.run, self.place, self.asked = (
            method,
            settings,
            feed,
            run,
            place,
            asked,
        )
        device = next(method.parameters()).device
        if device.type == "cuda":
            method.to(memory_format=torch.channels_last)
        if settings.compile:
            method.encoder.compile()
        self.total = settings.epochs * feed.steps_per_epoch
        self.optimizer = optimizer_of(method, settings.optimizer, method.rate_factor)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        self.unit = torch.ones((), device=device)
        self.steps = 0
        self.summary = Summary(method.labels)
        self.course = Course(feed.true_classes, device)
        self.seconds = 0.0
        self._restore()
        self.module = shared(Stepper(method, settings.precision), place)
        self.bar = tqdm(
            total=self.total,
            initial=self.steps,
            desc="train",
            unit="step",
            mininterval=0.2 if sys.stderr.isatty() else 10,
            disable=quiet or place.rank > 0,
        )

    def _restore(self) -> None:
        """Go on from the run's checkpoint, if there is one."""
        state = checkpoint.load(self.run.checkpoint, to_train=True)
        if state is not None:
            state.restore_method(self.method)
            self.optimizer.load_state_dict(state.optimizer)
            self.scaler.load_state_dict(state.scaler)
            self.steps = state.step
            if state.course:
                self.course.load_state_dict(state.course)
            if state.summary:
                self.seconds = state.summary["seconds"]
                self.summary.load_state_dict(state.summary["means"])
        if self.place.rank == 0:
            # A line of an epoch whose checkpoint was not written any more is not part of the run.
            lines = self.run.records()[: self.steps // self.feed.steps_per_epoch]
            write_text(self.run.log, "".join(json.dumps(record) + "\n" for record in lines))

    def epoch(self, number: int, watch: timing.Stopwatch) -> None:
        """Train to the end of an epoch, from wherever in it the run is; write its line and a checkpoint."""
        started = saved = time.perf_counter()
        self.method.train()
        batch: Batch | None = None
        first = self.steps - number * self.feed.steps_per_epoch
        try:
            for batch in timing.timed(timing.DATA, self.feed.epoch(number, first)):
                self._step(batch)
                elapsed = time.perf_counter() - started
                due = time.perf_counter() - saved > 60 * self.settings.checkpoint_minutes
                if self.steps % self.feed.steps_per_epoch and ranks.any_of(due or bool(self.asked())):
                    self._save({"seconds": self.seconds + elapsed})
                    saved = time.perf_counter()
                    self.stop_if_asked()
            record = self._finished(number, batch)
        except DivergenceError as error:
            step = self._kept()
            kept = f"the checkpoint after step {step} is kept" if step else "there is no checkpoint yet"
            raise TrainingError(
                f"training diverged in epoch {number + 1}: {error}; {kept}; {dump(error, self.run, self.place)}."
                " Start anew with a lower optimizer.learning-rate (--overwrite)"
            ) from error
        record |= timing.logged(watch.shares())
        record["seconds"] = self.seconds + time.perf_counter() - started
        self.summary, self.seconds = Summary(self.method.labels), 0.0
        self._write(record)

    def stop_if_asked(self) -> None:
        """End here if a signal came to any rank; what is done is saved."""
        signal = self.asked()
        if ranks.any_of(bool(signal)):
            raise StoppedError(
                f"stopped by {signal or 'a signal'} after step {self.steps} of {self.total}, which is saved;"
                " --resume goes on from there"
            )

    def _step(self, batch: Batch) -> None:
        settings, method = self.settings, self.method
        now = Moment(self.steps, self.total, self.feed.steps_per_epoch)
        rate = rate_at(settings.optimizer, settings.batch_size, now.step, now.steps, now.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)  # checkpoints of before have none
        # What is drawn at random depends on seed, step and rank: nothing to save, and resuming is exact.
        seed = seed_of(settings.seed, now.step, self.place.rank)
        torch.manual_seed(seed)
        with timing.part(timing.ASSIGNMENT):
            self._labelled(method.before(now, partial(self._everything, now.step)))
        self.optimizer.zero_grad()
        try:
            outcome = backward(
                self.module, batch, now, pieces=settings.accumulate, scale=self.scaler.scale(self.unit), seed=seed
            )
        except ValueError as error:  # the solver refuses logits that are not finite
            raise DivergenceError(str(error), batch, now.step) from error
        if ranks.any_of(not bool(outcome.loss.isfinite())):
            found = float(outcome.loss)
            what = "the loss of another process is not finite" if isfinite(found) else f"the loss became {found}"
            raise DivergenceError(what, batch, now.step)
        with timing.part(timing.OPTIMISER):
            method.after_backward(now)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.steps += 1
        self.rate = rate
        self.summary.add(outcome)
        if outcome.assignments:
            self.course.add(batch.rows, outcome.assignments[0].labels[: len(batch.rows)])
        self.bar.set_postfix(self.summary.headline(), refresh=False)
        self.bar.update()

    def _labelled(self, assignments: tuple[ia.Assignment, ...]) -> None:
        """Take in labels that were made for all images."""
        for assignment in assignments:
            self.summary.add_labels(assignment)
        kept = self.method.pseudo_labels() if assignments else None
        if kept is not None:
            self.course.add(torch.arange(kept.shape[1]), kept[0])

    def _everything(self, step: int, views: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Go once over all images; the wait for them is no part of what is made of them."""
        return timing.timed(timing.DATA, self.feed.everything(step, views))

    def _finished(self, number: int, batch: Batch | None) -> dict[str, Any]:
        """Do what is due at the end of an epoch, and return its line of the log."""
        assert batch is not None
        if number + 1 == self.settings.epochs:
            with timing.part(timing.ASSIGNMENT):
                self._labelled(self.method.finish(partial(self._everything, self.total)))
        seen = watching.seen(self.method, batch, self.settings.accumulate)
        if not all(bool(values.isfinite().all()) for values in seen):
            raise DivergenceError("its last step left weights that give no finite features", batch, self.steps - 1)
        record = {"epoch": number + 1, "step": self.steps, **self.summary.record(), **self.course.record()}
        record |= watching.spread(*seen)
        if self.settings.knn_every and (number + 1) % self.settings.knn_every == 0:
            record |= watching.knn(self.method.encoder, self.feed, self.place)
        return record | {"learning_rate": self.rate}

    def _write(self, record: dict[str, Any]) -> None:
        """Write the line of an epoch, and its checkpoint."""
        if self.place.rank == 0:
            # The line first: resuming drops lines that go beyond the checkpoint, but could not make one up.
            with self.run.log.open("a") as log:
                log.write(json.dumps(record) + "\n")
                log.flush()
                os.fsync(log.fileno())
        self._save({})
        if self.place.rank > 0:
            return
        self.show(record)
        if not alarms.alarms(record, self.settings):
            checkpoint.keep(self.run.checkpoint, checkpoint.GOOD)
        self.warn(alarms.due(self.run.records(), self.settings))

    def warn(self, warnings: list[str]) -> None:
        """Say, once for all ranks, what may go wrong or has."""
        for warning in warnings if self.place.rank == 0 else ():
            self.bar.write(f"warning: {warning}", file=sys.stderr)

    def _save(self, summary: dict[str, Any]) -> None:
        """Write a checkpoint; within an epoch `summary` has what its line is made of."""
        if summary:
            self.summary.pool()
            self.course.pool()
            summary["means"] = self.summary.state_dict()
        if self.place.rank == 0:
            checkpoint.keep(self.run.checkpoint, checkpoint.PREVIOUS)
            checkpoint.save(
                self.run.checkpoint,
                Checkpoint(
                    self.steps,
                    self.method.state_dict(),
                    self.optimizer.state_dict(),
                    self.scaler.state_dict(),
                    summary,
                    self.course.state_dict() if self.method.labels else {},
                ),
            )

    def _kept(self) -> int:
        state = checkpoint.load(self.run.checkpoint, to_train=True)
        return 0 if state is None else state.step


def shared(module: nn.Module, place: Place) -> nn.Module:
    """Return what to call for a step: on several ranks gradients are averaged, and on CUDA normalisation sees all."""
    if place.world == 1:
        return module
    device = next(module.parameters()).device
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    with warnings.catch_warnings():
        # Newer torch has another name for it, which older ones do not know.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        # Buffers are alike on all ranks, or the rank's own: nothing to send.
        return DistributedDataParallel(
            module, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
        )
