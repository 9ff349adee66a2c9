"""The folder of a run: what is in it, and when it may be written."""

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import sklearn
import torch
import torchvision
from filelock import FileLock, Timeout

import infoassign
from infoassign.files import write_text
from infoassign_training.config import FREE, Pretraining
from infoassign_training.engine.checkpoint import KEPT
from infoassign_training.errors import UserError
from infoassign_training.figures.options import FIGURES as ON_DEMAND

LOCK = ".lock"
"""Held while a process works in the folder; let go of by the system when the process ends, however it ends."""
FIGURES = ("curves", "metrics", "marginal", "clusters")
"""The report's pictures."""


class RunError(UserError):
    """A run folder that cannot be used as asked."""


@dataclass(frozen=True)
class Run:
    """Where the files of a run lie."""

    folder: Path

    @property
    def settings(self) -> Path:
        """The resolved settings and the versions of the libraries; its presence makes a folder a run."""
        return self.folder / "settings.json"

    @property
    def checkpoint(self) -> Path:
        """The state after the last epoch, or after a step in it."""
        return self.folder / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """One JSON object a line, one line an epoch."""
        return self.folder / "log.jsonl"

    @property
    def labels(self) -> Path:
        """The labels of all training images, shape (T, N), of a method that keeps them."""
        return self.folder / "labels.npy"

    @property
    def metrics(self) -> Path:
        """The results of the evaluations."""
        return self.folder / "metrics.json"

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.folder / "report.html"

    @property
    def figures(self) -> Path:
        """The folder of what ``infoassign figures`` draws, which the report gathers."""
        return self.folder / "figures"

    @property
    def written(self) -> tuple[Path, ...]:
        """Everything that a run writes after its settings."""
        kept = (self.folder / name for name in KEPT)
        drawn = (self.figures / f"{name}.{ending}" for name in ON_DEMAND for ending in ("png", "svg", "json"))
        figures = (*map(self.figure, FIGURES), *drawn)
        diverged = (self.diverged(), *self.folder.glob("diverged-[0-9]*.pt"))
        return (self.report, self.metrics, self.labels, self.log, self.checkpoint, *kept, *figures, *diverged)

    @property
    def tensorboard(self) -> Path:
        """The log once more, as events for TensorBoard, if that was asked for."""
        return self.folder / "tensorboard"

    def diverged(self, rank: int | None = None) -> Path:
        """The batch at which a value was no longer finite; of several ranks each has a file of its own."""
        return self.folder / ("diverged.pt" if rank is None else f"diverged-{rank}.pt")

    def delete_events(self) -> None:
        """Delete what was written for TensorBoard, and the folder if there is nothing else in it."""
        for path in self.tensorboard.glob("events.out.tfevents.*"):
            path.unlink()
        if self.tensorboard.is_dir() and not any(self.tensorboard.iterdir()):
            self.tensorboard.rmdir()

    def figure(self, name: str) -> Path:
        """One of the report's pictures, by its name in `FIGURES`."""
        return self.folder / f"{name}.png"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder.

        Raises
        ------
        RunError
            If another process is at work in it.
        """
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                yield
        except Timeout:
            raise RunError(f"another process is at work in {self.folder}") from None

    def records(self) -> list[dict[str, Any]]:
        """Read the log, one dict an epoch; empty before the first, without a line that was cut off.

        Raises
        ------
        RunError
            If a line is not JSON.
        """
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="replace").splitlines(keepends=True)
        try:
            return [json.loads(line) for line in lines if line.endswith("\n")]
        except ValueError as error:
            raise RunError(f"{self.log} is damaged ({error}); delete the lines that are no JSON") from error

    def read(self) -> "Started":
        """Read what the run was started with.

        Raises
        ------
        RunError
            If the folder holds no run, or its settings cannot be read.
        """
        try:
            saved = json.loads(self.settings.read_text())
            return Started(saved["recipe"], Pretraining.from_dict(saved["settings"]), saved["versions"])
        except FileNotFoundError:
            raise RunError(f"{self.folder} holds no run (there is no {self.settings.name} in it)") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.settings} is damaged or from another version: {error!r}") from error


@dataclass(frozen=True)
class Started:
    """What a run was started with."""

    recipe: str
    settings: Pretraining
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        tree = {"recipe": self.recipe, "settings": self.settings.to_dict(), "versions": self.versions}
        write_text(path, json.dumps(tree, indent=2) + "\n")


@contextmanager
def open_run(
    folder: Path, recipe: str, settings: Pretraining, *, resume: bool = False, overwrite: bool = False
) -> Iterator[Run]:
    """Make a run folder ready, new, continued or emptied, and keep other processes out of it meanwhile.

    Raises
    ------
    RunError
        If `folder` holds a run and neither `resume` nor `overwrite` is asked for; if it holds files that are no
        run's; if the run to resume has other settings; or if another process is at work in it. Nothing has been
        written then.
    """
    run = Run(folder)
    _require_allowed(run, recipe, settings, resume=resume, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    with run.locked():
        # Once more: another process may have come and gone before the lock was ours.
        _require_allowed(run, recipe, settings, resume=resume, overwrite=overwrite)
        if not resume:
            for path in (*run.written, run.settings):
                path.unlink(missing_ok=True)
            run.delete_events()
            versions = {"python": platform.python_version()}
            modules = (infoassign, torch, torchvision, numpy, sklearn)
            versions |= {module.__name__: module.__version__ for module in modules}
            Started(recipe, settings, versions).write(run.settings)
        yield run


def _require_allowed(run: Run, recipe: str, settings: Pretraining, *, resume: bool, overwrite: bool) -> None:
    folder = run.folder
    if resume and overwrite:
        raise RunError("--resume and --overwrite exclude each other: one continues the run, the other deletes it")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; --out must name a folder")
    if run.settings.exists():
        if resume:
            _require_same(run, recipe, settings)
        elif not overwrite:
            raise RunError(f"{folder} already holds a run; continue it with --resume, or delete it with --overwrite")
    elif resume:
        raise RunError(f"{folder} holds no run to resume; leave --resume out to start one")
    elif folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise RunError(f"{folder} holds files that are not a run's; choose a folder that is empty or not there yet")


def _require_same(run: Run, recipe: str, settings: Pretraining) -> None:
    saved = run.read()
    before = {"recipe": saved.recipe, **saved.settings.flat()}
    now = {"recipe": recipe, **settings.flat()}
    missing = "not set"
    differing = [
        f"{key} was {before.get(key, missing)}, now {now.get(key, missing)}"
        for key in (before | now).keys() - FREE
        if before.get(key, missing) != now.get(key, missing)
    ]
    if differing:
        raise RunError(f"{run.folder} was started with other settings: {'; '.join(sorted(differing))}")
