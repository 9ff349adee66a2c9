"""Values that change over training, as pure functions of the step."""

from collections.abc import Sequence
from math import cos, pi

from infoassign_training.config import Optimizer


def cosine(start: float, end: float, progress: float) -> float:
    """Go from `start` at progress 0 to `end` at progress 1 on half a cosine.

    Examples
    --------
    >>> cosine(1.0, 0.0, 0.0), cosine(1.0, 0.0, 0.5), cosine(1.0, 0.0, 1.0)
    (1.0, 0.5, 0.0)
    """
    return end + (start - end) * (1 + cos(pi * progress)) / 2


def warmup_cosine(
    peak: float, step: int, steps: int, warmup: float, *, start: float = 0.0, final: float = 0.0
) -> float:
    """Rise linearly from `start` over the first ``warmup * steps`` steps, then fall to `final` on a cosine.

    `step` counts from 0; the first step already moves, the last one still does. `start` and `final` are rates, not
    shares of the peak: 0.3 and 0 in MIRA's code, 0 and 0.002 in MUSIC (sec. 3).

    Where this has ``(step + 1) / rising``, VICReg's and IMSVD's code has ``step / rising``, whose first step does not
    move, and MIRA's ``(step + 1) / (rising + 1)``: at most one step's rise apart.

    Examples
    --------
    >>> [round(warmup_cosine(1.0, step, 10, 0.2), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    >>> [round(warmup_cosine(1.0, step, 10, 0.2, start=0.2, final=0.1), 3) for step in (0, 1, 2, 6, 10)]
    [0.6, 1.0, 1.0, 0.55, 0.1]
    """
    rising = round(warmup * steps)
    if step < rising:
        return start + (peak - start) * (step + 1) / rising
    return cosine(peak, final, (step - rising) / (steps - rising))


def divided(start: float, epoch: int, *, at: Sequence[int], by: float = 10.0) -> float:
    """Divide `start` by `by` before each of the epochs `at`, which count from 0 as `epoch` does.

    SeLa divides by ten at 150, 300 and 350 (app. A.1), its layer probes by five at 5, 15 and 25. With no epoch in `at`
    the value is constant.

    Examples
    --------
    >>> [divided(1.0, epoch, at=(150, 300, 350)) for epoch in (0, 149, 150, 300, 399)]
    [1.0, 1.0, 0.1, 0.01, 0.001]
    """
    return start / by ** sum(epoch >= drop for drop in at)


def rate_at(chosen: Optimizer, batch_size: int, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0.

    Examples
    --------
    >>> rate_at(Optimizer(learning_rate=0.05, drops=(2, 4)), 256, 25, 100, 10)
    0.005
    """
    peak = chosen.learning_rate * batch_size / 256
    if chosen.drops:
        return divided(peak, step // steps_per_epoch, at=chosen.drops, by=chosen.drop_by)
    return warmup_cosine(peak, step, steps, chosen.warmup, start=chosen.warmup_start, final=chosen.final)


def relabelling_times(count: int, total: int) -> tuple[int, ...]:
    """Say when to label the whole data set anew: close together at the start, ever farther apart (SeLa, app. A.1).

    The i-th of `count` times falls at ``((i - 1) / (count - 1)) ** 2`` of the training. (The paper has i for i - 1,
    which would put the last one beyond the end; the released code counts as here.) So the first is before anything
    is learned, and the last after everything is: it gives the final labels, of which nothing is learned any more.

    Parameters
    ----------
    count
        How often, M in the paper; 1 labels once, before the training.
    total
        Length of the training. Times are whole units of it, the first at or after the exact one: in epochs there is
        at most one relabelling in each, as sec. 4.2 says, and the early ones that fall into the same become one.

    Returns
    -------
    tuple of int
        Rising numbers of epochs (or steps) done before each relabelling, from 0 to `total`; `count` of them, or fewer.

    Examples
    --------
    >>> relabelling_times(5, 400), relabelling_times(9, 10)
    ((0, 25, 100, 225, 400), (0, 1, 2, 3, 4, 6, 8, 10))
    """
    if count <= 1:
        return (0,) * count
    # In integers, and rounded up: the end is `total` exactly.
    times = (-(-(index**2) * total // (count - 1) ** 2) for index in range(count))
    return tuple(dict.fromkeys(times))
