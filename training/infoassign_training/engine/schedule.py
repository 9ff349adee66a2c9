"""Values that change over training, as pure functions of the step."""

from dataclasses import dataclass
from math import cos, pi

from infoassign_training.config import Pretraining


def cosine(start: float, end: float, progress: float) -> float:
    """Go from `start` at progress 0 to `end` at progress 1 on half a cosine.

    Examples
    --------
    >>> cosine(1.0, 0.0, 0.0), cosine(1.0, 0.0, 0.5), cosine(1.0, 0.0, 1.0)
    (1.0, 0.5, 0.0)
    """
    return end + (start - end) * (1 + cos(pi * progress)) / 2


def warmup_cosine(peak: float, step: int, steps: int, warmup: float) -> float:
    """Rise linearly over the first ``warmup * steps`` steps, then fall to zero on a cosine.

    `step` counts from 0; the first step already moves, the last one still does.

    Examples
    --------
    >>> [round(warmup_cosine(1.0, step, 10, 0.2), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    return cosine(peak, 0.0, (step - rising) / (steps - rising))


@dataclass(frozen=True)
class Values:
    """What the schedules say at one step."""

    learning_rate: float
    beta: float
    teacher_momentum: float


def values_at(settings: Pretraining, step: int, steps: int) -> Values:
    """Evaluate all schedules at `step` of `steps`, counted from 0."""
    progress = step / steps
    optimizer, mira = settings.optimizer, settings.mira
    return Values(
        learning_rate=warmup_cosine(optimizer.learning_rate * settings.batch_size / 256, step, steps, optimizer.warmup),
        beta=cosine(mira.beta_start, mira.beta_end, progress),
        teacher_momentum=cosine(mira.teacher_momentum, 1.0, progress),
    )
