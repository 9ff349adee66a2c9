"""What ranks of a process group do together; without one, the one rank there is does it alone."""

from collections.abc import Callable

import torch.distributed as dist
from torch import Tensor


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
