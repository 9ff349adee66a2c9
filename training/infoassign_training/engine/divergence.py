"""Values that are no longer finite: training stops, and what led there is kept to be looked at."""

from pathlib import Path

from infoassign_training.engine import checkpoint
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run
from infoassign_training.methods.method import Batch


class DivergenceError(Exception):
    """A value is no longer finite; the loop turns this into a `TrainingError` that says what is kept.

    Parameters
    ----------
    message
        What is not finite.
    batch
        What was given to the network, this rank's part.
    step
        Steps done before.
    """

    def __init__(self, message: str, batch: Batch, step: int) -> None:
        super().__init__(message)
        self.batch = batch
        self.step = step


def dump(error: DivergenceError, run: Run, place: Place) -> str:
    """Write the batch to the run folder, and return where it is, or why it could not be written.

    The file is a dict with ``views`` (a list of tensors of shape (B, C, H, W)), ``rows`` (which images, shape (B,)),
    ``step`` and ``message``; ``torch.load(path, weights_only=True)`` reads it.
    """
    path: Path = run.diverged(place.rank if place.world > 1 else None)
    state = {
        "message": str(error),
        "step": error.step,
        "rows": error.batch.rows.cpu(),
        "views": [view.cpu() for view in error.batch.views],
    }
    try:
        checkpoint.write(path, state)
    except OSError as problem:
        return f"the batch could not be written ({problem})"
    return f"the batch is in {path}"
