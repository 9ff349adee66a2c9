"""Batches of views, in an order that depends on the seed and the epoch alone."""

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from infoassign_training.data.images import ImagesError
from infoassign_training.data.views import Views, seed_of
from infoassign_training.stopping import SIGNALS

Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Which images make up every batch of an epoch, on every rank: a pure function of its fields and the epoch.

    Batches are global: the images of an epoch are shuffled, batch b has the next `batch_size` of them, and each rank
    takes a contiguous piece of it, the first where they do not divide evenly being the shorter by one. So the images of
    a step do not depend on the number of ranks, none is seen twice in an epoch, and all ranks do equally many steps.
    """

    count: int
    """Number of images."""
    batch_size: int
    """Of the global batch, over all ranks."""
    seed: int
    """Of the order."""
    rank: int = 0
    world: int = 1
    drop_last: bool = True
    """Whether the last, smaller batch is left out; otherwise it is shared out like any other."""
    shuffle: bool = True
    """Whether images are shuffled; otherwise they come in their own order."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank must be in [0, world); got {self.rank} of {self.world}")
        if self.batch_size < self.world:
            raise ValueError(f"batch_size {self.batch_size} leaves some of {self.world} ranks without images")
        last = self.count % self.batch_size
        if len(self) == 0:
            raise ValueError(f"batch_size {self.batch_size} is larger than the {self.count} images")
        if not self.drop_last and 0 < last < self.world:
            raise ValueError(
                f"the last batch has {last} images for {self.world} ranks; change batch_size, or drop_last=True"
            )

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def epoch(self, number: int, first: int = 0) -> Iterator[list[int]]:
        """Yield this rank's images of every batch of an epoch, from batch `first` on.

        Examples
        --------
        >>> ranks = [Batches(count=10, batch_size=5, seed=0, rank=rank, world=2, shuffle=False) for rank in (0, 1)]
        >>> [list(batches.epoch(0)) for batches in ranks]
        [[[0, 1], [5, 6]], [[2, 3, 4], [7, 8, 9]]]
        """
        if self.shuffle:
            generator = Generator().manual_seed(seed_of(self.seed, number))
            order = torch.randperm(self.count, generator=generator)
        else:
            order = torch.arange(self.count)
        for batch in range(first, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            start, stop = (len(rows) * place // self.world for place in (self.rank, self.rank + 1))
            yield rows[start:stop].tolist()


class _Keys:
    """What a `DataLoader` asks for: the batches of whichever epoch is next, each image with the epoch."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.epoch = 0
        self.first = 0

    def __len__(self) -> int:
        return len(self.batches) - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        for rows in self.batches.epoch(epoch, self.first):
            yield [(epoch, row) for row in rows]


def deaf(_: int) -> None:
    """Leave it to the parent to end on signals that whole process groups are sent; a worker ends with its parent."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def in_one_line(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Pass on what a `DataLoader` yields, and of an image that cannot be read the message alone.

    Raises
    ------
    ImagesError
        If an image cannot be read; from a worker process it comes with that process's traceback, which ends in the
        message.
    """
    try:
        yield from batches
    except ImagesError as error:
        raise ImagesError(str(error).strip().rpartition(f"{ImagesError.__name__}: ")[2]) from error


class ViewLoader:
    """Loads batches of views, in worker processes that live on from epoch to epoch.

    What comes out does not depend on the number of workers, and nothing is drawn from torch's global generator.

    Parameters
    ----------
    views
        The views, which also hold the seed.
    batches
        Their grouping; made for as many images.
    workers
        Processes; 0 to do the work in this one, as it is needed.
    pin_memory
        Whether batches are put where a CUDA device can fetch them by itself.
    context
        How processes start: fork, forkserver or spawn; None for Python's default. A process that has used CUDA or has
        threads had better not fork.

    Examples
    --------
    >>> from infoassign_training.data.augmentations import Vicreg
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> views = Views(SyntheticImages(10, size=32), Vicreg.cifar(), seed=0)
    >>> loader = ViewLoader(views, Batches(count=10, batch_size=4, seed=0))
    >>> for crops, rows in loader.epoch(0):
    ...     print([tuple(crop.shape) for crop in crops], len(rows))
    [(4, 3, 32, 32), (4, 3, 32, 32)] 4
    [(4, 3, 32, 32), (4, 3, 32, 32)] 4
    """

    def __init__(
        self,
        views: Views,
        batches: Batches,
        *,
        workers: int = 0,
        pin_memory: bool = False,
        context: str | None = None,
    ) -> None:
        if batches.count != len(views):
            raise ValueError(f"the batches are of {batches.count} images, the views of {len(views)}")
        self._keys = _Keys(batches)
        self._loader = DataLoader(
            views,
            batch_sampler=cast("list[list[int]]", self._keys),
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            multiprocessing_context=context if workers else None,
            generator=Generator(),  # for seeds of the workers, which they do not use
            worker_init_fn=deaf,
        )

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield the batches of an epoch, from batch `first` on.

        One epoch at a time: a new one ends the one before.

        Raises
        ------
        ImagesError
            If an image cannot be decoded; the message names it.

        Yields
        ------
        list of Tensor
            The views, of shape (B, 3, S, S), uint8, the global ones first; after them what is to be done to their
            colours, (B, views, 11), if that is left to the device.
        Tensor
            The images' numbers, shape (B,), int64.
        """
        self._keys.epoch, self._keys.first = number, first
        yield from in_one_line(self._loader)
