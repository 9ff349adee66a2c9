"""What ranks of a process group do together; without one, the one rank there is does it alone."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from infoassign_training import timing
from infoassign_training.errors import UserError


class LostRankError(UserError):
    """Another process of the group is no longer there."""


@dataclass(frozen=True)
class Place:
    """Which rank a process is.

    Examples
    --------
    >>> Place(), Place(1, 2, 1)
    (Place(rank=0, world=1, local=0), Place(rank=1, world=2, local=1))
    """

    rank: int = 0
    """Its number among all."""
    world: int = 1
    """How many ranks there are."""
    local: int = 0
    """Its number on its machine, and that of its device."""

    def part(self, count: int) -> slice:
        """Say which of `count` rows are this rank's; of uneven parts the later ones are longer.

        Parameters
        ----------
        count
            Of all ranks.

        Examples
        --------
        >>> [Place(rank, 2).part(5) for rank in (0, 1)]
        [slice(0, 2, None), slice(2, 5, None)]
        """
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)


@contextmanager
def joined(device: Literal["auto", "cpu", "cuda"]) -> Iterator[tuple[Place, torch.device]]:
    """Join the process group that torchrun started this process for, and leave it in the end.

    Without torchrun, or with it and one process, there is no group.

    Parameters
    ----------
    device
        What to compute on: auto for CUDA where there is a device. Every rank takes the one of its local number.

    Yields
    ------
    Place
        Which rank this is.
    torch.device
        What to compute on.

    Raises
    ------
    ValueError
        If CUDA is asked for where there is none, or there are fewer devices than processes.
    """
    numbers = (
        int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    place = Place(*numbers)
    chosen = torch.device("cpu")
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        count = torch.cuda.device_count()
        if count != 1 and place.local >= count:
            raise ValueError(f"process {place.local} has no CUDA device; this machine has {count}")
        # One alone: each process was given one of its own, or there is one process.
        chosen = torch.device("cuda", place.local if count > 1 else 0)
        torch.cuda.set_device(chosen)
    if place.world == 1:
        yield place, chosen
        return
    # Numbers for the log are summed on the CPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield place, chosen
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "closed by peer" in str(error) or "reset by peer" in str(error):
            raise LostRankError(
                f"process {place.rank} of {place.world} cannot reach the others; one of them has ended, and its own"
                f" message says why. The run goes on from its last checkpoint with --resume ({error})"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def any_of(condition: bool) -> bool:
    """Say whether a condition holds on some rank; all call this together."""
    if not _grouped():
        return condition
    flag = torch.tensor([int(condition)])
    dist.all_reduce(flag)
    return bool(flag)


def wait() -> None:
    """Wait for all other ranks."""
    if _grouped():
        dist.barrier()


def spread(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Give all ranks the values of every rank.

    Parameters
    ----------
    values
        This rank's, shape (n_r, ...).
    rows
        Where they belong, shape (n_r,), int64; every row is some rank's.
    count
        How many rows there are over all ranks.

    Returns
    -------
    Tensor
        Shape (count, ...).
    """
    whole = values.new_zeros((count, *values.shape[1:]))
    whole[rows] = values
    if _grouped():
        with timing.part(timing.COMMUNICATION):
            dist.all_reduce(whole)
    return whole


def largest(values: Tensor) -> Tensor:
    """Return, entry by entry, the largest values of all ranks, of tensors of the same shape and dtype.

    Examples
    --------
    >>> largest(torch.tensor([3, -1]))
    tensor([ 3, -1])
    """
    if _grouped():
        with timing.part(timing.COMMUNICATION):
            dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def share(count: int) -> slice:
    """Say which of `count` rows, which all ranks have, this rank is to work on."""
    place = Place(dist.get_rank(), dist.get_world_size()) if _grouped() else Place()
    return place.part(count)


def together(rows: Tensor) -> Tensor:
    """Return the rows (n_r, D) of all ranks, those of the first rank first, as constants."""
    return torch.cat(_gathered(rows)) if _grouped() else rows


def whole(rows: Tensor) -> Tensor:
    """Return the rows (n_r, D) of all ranks, those of the first rank first; a loss of them is that of the whole batch.

    All ranks compute the same loss, and each its gradient in its own rows alone: that is multiplied by the number of
    ranks, since gradients are averaged over them.
    """
    if not _grouped():
        return rows
    parts = _gathered(rows)
    number = len(parts)
    # The value of the rows, and as many times their gradient as there are ranks.
    parts[dist.get_rank()] = number * rows - (number - 1) * rows.detach()
    return torch.cat(parts)


def of_first(values: Tensor) -> Tensor:
    """Return the first rank's values, a tensor of the same shape and dtype on all ranks."""
    if _grouped():
        with timing.part(timing.COMMUNICATION):
            dist.broadcast(values, 0)
    return values


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


def all_sum() -> Callable[[Tensor], Tensor] | None:
    """Return the sum over ranks that :func:`infoassign.assign` takes, or None without a process group.

    Examples
    --------
    >>> all_sum() is None
    True
    """
    if not _grouped():
        return None

    def summed(values: Tensor) -> Tensor:
        with timing.part(timing.COMMUNICATION):
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
    if not _grouped():
        return None
    return _gathered


def _gathered(rows: Tensor) -> list[Tensor]:
    """Return the rows of every rank, shapes (n_r, D), as constants."""
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    with timing.part(timing.COMMUNICATION):
        dist.all_gather(counts, count)
    numbers = [int(number) for number in counts]
    padded = F.pad(rows.detach(), (0, 0, 0, max(numbers) - len(rows))).contiguous()
    parts = [torch.empty_like(padded) for _ in numbers]
    with timing.part(timing.COMMUNICATION):
        dist.all_gather(parts, padded)
    return [part[:number] for part, number in zip(parts, numbers, strict=True)]
