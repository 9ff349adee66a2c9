"""Checkpoints: everything that the rest of a run depends on, in one file, written atomically."""

import shutil
from dataclasses import MISSING, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import nn

from infoassign.files import replacing
from infoassign_training.errors import UserError

FORMAT = "infoassign-checkpoint"
VERSION = 2
PREVIOUS, GOOD = "checkpoint-previous.pt", "checkpoint-good.pt"
"""The one before, and that of the last epoch that nothing was wrong with."""
KEPT = (PREVIOUS, GOOD)
"""What stands beside the last one."""


class CheckpointError(UserError):
    """A checkpoint that cannot be used."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after some steps.

    Order and views of the images depend on seed and epoch alone, and dropout on seed, step and rank, so no state of a
    generator is needed; and nothing depends on the number of ranks.
    """

    step: int
    """Steps done."""
    method: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    """Of gradients in float16; empty otherwise."""
    summary: dict[str, Any]
    """Of the steps of the epoch that is not at its end."""
    course: dict[str, Any] = field(default_factory=dict)
    """The labels of the training images, to compare the next ones with; checkpoints of before have none."""

    def restore_method(self, method: nn.Module) -> None:
        """Put the weights back.

        Raises
        ------
        CheckpointError
            If they belong to a model of another shape.
        """
        try:
            method.load_state_dict(self.method)
        except RuntimeError as error:
            raise CheckpointError(f"the checkpoint belongs to another model: {error}") from error


def save(path: Path, state: Checkpoint) -> None:
    """Write a checkpoint; if that fails, the one that was there stays."""
    write(path, {"format": FORMAT, "version": VERSION, **vars(state)})


def write(path: Path, tree: dict[str, Any]) -> None:
    """Write tensors and plain values whole or not at all.

    Raises
    ------
    OSError
        If the folder cannot be written or the disk is full.
    """
    # Serialised in memory first: torch's writer hides a full disk behind an error of its own.
    buffer = BytesIO()
    torch.save(tree, buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def keep(path: Path, name: str) -> None:
    """Give the checkpoint that is there a second name, so that it stays when the next takes its place."""
    if not path.exists():
        return
    temporary = path.with_name(f".{name}.{uuid4().hex[:8]}")
    try:
        temporary.hardlink_to(path)
    except OSError:  # a file system without links
        shutil.copyfile(path, temporary)
    temporary.replace(path.with_name(name))


def load(path: Path, *, to_train: bool = False) -> Checkpoint | None:
    """Read a checkpoint, or return None if there is no file.

    Only tensors and plain values are unpickled, so a file cannot run code.

    Parameters
    ----------
    path
        The file.
    to_train
        Whether training goes on from it: then a bad one may as well be deleted, and errors say so.

    Raises
    ------
    CheckpointError
        If the file is damaged, foreign, or from a newer version. Nothing is overwritten.
    """
    if not path.exists():
        return None
    others = [name for name in KEPT if path.with_name(name).exists()]
    if to_train:
        start = "delete it to train from the start"
        advice = f"put {' or '.join(others)} in its place, or {start}" if others else start
    else:
        advice = f"there is also {' and '.join(others)}" if others else "if it is a copy, copy it again"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint, it is damaged or foreign; {advice} ({type(error).__name__})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of infoassign; {advice}")
    version = state.get("version", 0)
    if version > VERSION:
        raise CheckpointError(
            f"{path} has format version {version} and this program reads up to {VERSION}; update infoassign"
        )
    missing = [item.name for item in fields(Checkpoint) if item.default_factory is MISSING and item.name not in state]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}; {advice}")
    return Checkpoint(**{item.name: state[item.name] for item in fields(Checkpoint) if item.name in state})
