"""What ranks of a process group do together; without one, the one rank there is does it alone."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


def all_sum() -> Callable[[Tensor], Tensor] | None:
    """Return the sum over ranks that :func:`infoassign.assign` takes, or None without a process group.

    Examples
    --------
    >>> all_sum() is None
    True
    """
    if not (dist.is_available() and dist.is_initialized()):
        return None

    def summed(values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    return summed


def all_gather() -> Callable[[Tensor], list[Tensor]] | None:
    """Return the gather that :func:`infoassign.imsvd_loss` takes, or None without a process group.

    Ranks may differ in their number of rows: they tell each other how many, and pad to the most.

    Examples
    --------
    >>> all_gather() is None
    True
    """
    if not (dist.is_available() and dist.is_initialized()):
        return None
    return _gathered


def _gathered(rows: Tensor) -> list[Tensor]:
    """Return the rows of every rank, shapes (n_r, D), as constants."""
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    numbers = [int(number) for number in counts]
    padded = F.pad(rows.detach(), (0, 0, 0, max(numbers) - len(rows))).contiguous()
    parts = [torch.empty_like(padded) for _ in numbers]
    dist.all_gather(parts, padded)
    return [part[:number] for part, number in zip(parts, numbers, strict=True)]
