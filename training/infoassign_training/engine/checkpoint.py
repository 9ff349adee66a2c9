"""Checkpoints: everything that the rest of a run depends on, in one file, written atomically."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from infoassign.files import replacing
from infoassign_training.errors import UserError

FORMAT = "infoassign-checkpoint"
VERSION = 1


class CheckpointError(UserError):
    """A checkpoint that cannot be used."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after some whole epochs.

    Order and views of the images depend on seed and epoch alone, so no state of a generator is needed.
    """

    epochs: int
    """Epochs done."""
    method: dict[str, Any]
    optimizer: dict[str, Any]

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


def save(path: Path, epochs: int, method: nn.Module, optimizer: Optimizer) -> None:
    """Write a checkpoint; if that fails, the one that was there stays."""
    state = {
        "format": FORMAT,
        "version": VERSION,
        "epochs": epochs,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    write(path, state)


def write(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values whole or not at all.

    Raises
    ------
    OSError
        If the folder cannot be written or the disk is full.
    """
    # Serialised in memory first: torch's writer hides a full disk behind an error of its own.
    buffer = BytesIO()
    torch.save(state, buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def load(path: Path) -> Checkpoint | None:
    """Read a checkpoint, or return None if there is no file.

    Only tensors and plain values are unpickled, so a file cannot run code.

    Raises
    ------
    CheckpointError
        If the file is damaged, foreign, or from a newer version.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint, it is damaged or foreign; delete it to train from the start"
            f" ({type(error).__name__})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of infoassign; delete it to train from the start")
    missing = {"version", "epochs", "method", "optimizer"} - state.keys()
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}; delete it to train from the start")
    if state["version"] > VERSION:
        raise CheckpointError(
            f"{path} has format version {state['version']} and this program reads up to {VERSION}; update infoassign"
        )
    return Checkpoint(state["epochs"], state["method"], state["optimizer"])
