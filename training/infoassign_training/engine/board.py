"""The log for TensorBoard, by option."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from infoassign_training.engine.run import Run
from infoassign_training.errors import UserError


class BoardError(UserError):
    """TensorBoard is not there."""


def require_tensorboard() -> None:
    """Make sure that events can be written.

    Raises
    ------
    BoardError
        If tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    except ImportError as error:
        raise BoardError(
            "--tensorboard needs the package tensorboard: `pip install tensorboard`, or leave the option out;"
            f" the same numbers are in log.jsonl ({error})"
        ) from error


@contextmanager
def board(run: Run, *, wanted: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Keep the run's folder of events the same as its log: first the lines that are there, then those to come.

    Yields
    ------
    callable
        Takes a line of the log; does nothing if none of this is wanted.
    """
    if not wanted:
        yield lambda record: None
        return
    from torch.utils.tensorboard import SummaryWriter

    # Anew from the log, so that a run that was resumed has every epoch once, with or without the option before.
    run.delete_events()
    with SummaryWriter(str(run.tensorboard)) as writer:

        def write(record: dict[str, Any]) -> None:
            for name, value in record.items():
                if name != "epoch":
                    writer.add_scalar(name, value, record["epoch"])
            writer.flush()

        for record in run.records():
            write(record)
        yield write
