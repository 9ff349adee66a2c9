"""What a run is fed with: the batches of an epoch, and passes over all images; a pure function of settings and time."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from infoassign_training import timing
from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import Distortions, MultiCrop
from infoassign_training.data.batched_colours import coloured
from infoassign_training.data.build import images_of
from infoassign_training.data.digit_views import random_view
from infoassign_training.data.digits import LabelledImages, digits
from infoassign_training.data.images import Images, TaggedImages
from infoassign_training.data.loader import Batches, ViewLoader
from infoassign_training.data.subsets import Selection
from infoassign_training.data.views import Views, normalised, seed_of
from infoassign_training.engine.ranks import Place
from infoassign_training.methods.method import Batch

CHUNK = 1024
"""Images in memory at a time of a pass over all of them."""


class Feed(Protocol):
    """Images and their views for one rank, on the device of the run."""

    images: int
    """How many there are, over all ranks."""
    classes: int
    """How many; 0 if they are not known."""
    true_classes: Tensor
    """Those of all images, (N,), int64, on the CPU; -1 where they are not known. To look at, never to train on."""
    steps_per_epoch: int

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of every batch of an epoch, from batch `first` on."""

    def everything(self, step: int, views: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Go once over this rank's part of all images, with random views that depend on the seed and the step alone.

        Yields
        ------
        Tensor
            Which images they are, shape (B,), int64. Every rank is given equally many parts.
        list of Tensor
            The views, `views` of each.
        """

    def sample(self, count: int) -> Iterator[Batch]:
        """Yield this rank's part of at least `count` images, or of all, one view of each, always the same ones.

        Digits as they are; of other images a random view, as training has it.
        """


class DigitFeed:
    """Grey images in memory, distorted a batch at a time.

    Parameters
    ----------
    images
        Shape (N, 1, S, S), and their classes.
    settings
        Of the run; the augmentation is Distortions.
    place
        The rank.
    device
        Where batches go.

    Raises
    ------
    ValueError
        If the images do not fill a batch.

    Examples
    --------
    >>> feed = DigitFeed(digits()[0], Pretraining(), Place(), torch.device("cpu"))
    >>> batch = next(feed.epoch(0))
    >>> feed.steps_per_epoch, [view.shape for view in batch.views]
    (10, [torch.Size([128, 1, 8, 8]), torch.Size([128, 1, 8, 8])])
    >>> sum(len(rows) for rows, _ in feed.everything(step=0, views=1)), len(next(feed.sample(100)).rows)
    (1347, 100)
    """

    def __init__(self, images: LabelledImages, settings: Pretraining, place: Place, device: torch.device) -> None:
        assert isinstance(settings.augmentation, Distortions)
        self.augmentation = settings.augmentation
        self.seed = settings.seed
        self.views = settings.method.views
        self.batch_size = settings.batch_size
        self.source = images
        self.place = place
        self.device = device
        self.images = len(images.images)
        self.classes = int(images.classes.max()) + 1
        self.true_classes = images.classes
        self.steps_per_epoch = self.images // settings.batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(f"batch_size {settings.batch_size} is larger than the {self.images} images")

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of every batch of an epoch, from batch `first` on.

        Parameters
        ----------
        number
            The epoch, from 0.
        first
            The batch to begin with.
        """
        # A generator of its own for every epoch: nothing to save, and resuming is exact.
        generator = Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(self.images, generator=generator)
        batches = order[: self.steps_per_epoch * self.batch_size].split(self.batch_size)
        for step, rows in enumerate(batches):
            views = self._drawn(rows, self.views, generator)  # also of those before the first: the generator goes on
            if step >= first:
                yield self._batch(rows, views)

    def everything(self, step: int, views: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Go once over this rank's part of all images, in their order.

        Parameters
        ----------
        step
            What the views depend on, besides the seed.
        views
            How many of each image.

        Yields
        ------
        Tensor
            Which images they are, shape (B,), int64.
        list of Tensor
            The views, each of shape (B, C, H, W).
        """
        generator = Generator().manual_seed((self.seed * 1_000_003 + step) * 2 + 1)
        for rows in torch.arange(self.images).split(CHUNK):
            mine = self._batch(rows, self._drawn(rows, views, generator))
            yield mine.rows, mine.views

    def sample(self, count: int) -> Iterator[Batch]:
        """Yield this rank's part of the first images, without distortions.

        Parameters
        ----------
        count
            Images over all ranks, at least.
        """
        for rows in torch.arange(min(count, self.images)).split(CHUNK):
            yield self._batch(rows, [self.source.images[rows]])

    def _drawn(self, rows: Tensor, views: int, generator: Generator) -> list[Tensor]:
        with timing.part(timing.AUGMENTATION):
            return [random_view(self.source.images[rows], self.augmentation, generator) for _ in range(views)]

    def _batch(self, rows: Tensor, views: list[Tensor]) -> Batch:
        # Every rank draws the whole batch, so that its views do not depend on their number, and keeps its part.
        mine = self.place.part(len(rows))
        return Batch(
            [view[mine].to(self.device) for view in views],
            rows[mine].to(self.device),
            self.source.classes[rows[mine]].to(self.device),
        )


class ViewFeed:
    """Images from anywhere, each view drawn by a worker process and normalised, perhaps also coloured, on the device.

    Parameters
    ----------
    images
        The source.
    settings
        Of the run; the augmentation is a multi-crop.
    place
        The rank.
    device
        Where batches go.

    Raises
    ------
    ValueError
        If the images do not fill a batch.

    Examples
    --------
    >>> from infoassign_training.data.augmentations import Dino
    >>> from infoassign_training.data.settings import Synthetic
    >>> from infoassign_training.models.settings import ResNet
    >>> settings = Pretraining(
    ...     batch_size=4, data=Synthetic(count=10, size=32), augmentation=Dino.cifar(), encoder=ResNet(name="resnet18")
    ... )
    >>> feed = ViewFeed(images_of(settings.data), settings, Place(), torch.device("cpu"))
    >>> batch = next(feed.epoch(0))
    >>> feed.steps_per_epoch, [view.shape for view in batch.views]
    (2, [torch.Size([4, 3, 32, 32]), torch.Size([4, 3, 32, 32])])
    >>> sum(len(rows) for rows, _ in feed.everything(step=0, views=1)), len(next(feed.sample(5)).rows)
    (10, 10)
    """

    def __init__(self, images: Images, settings: Pretraining, place: Place, device: torch.device) -> None:
        assert isinstance(settings.augmentation, MultiCrop)
        self.augmentation = settings.augmentation
        self.settings = settings
        self.source = images
        self.place = place
        self.device = device
        self.images = len(images)
        self.classes = len(images.names)
        self.true_classes = _truth(images)
        batches = Batches(
            count=self.images, batch_size=settings.batch_size, seed=settings.seed, rank=place.rank, world=place.world
        )
        self.steps_per_epoch = len(batches)
        self._training = self._loader(Views(images, self.augmentation, settings.seed, settings.colours), batches)
        self._passes: dict[int, ViewLoader] = {}

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of every batch of an epoch, from batch `first` on.

        Parameters
        ----------
        number
            The epoch, from 0.
        first
            The batch to begin with.
        """
        for views, rows in self._training.epoch(number, first):
            yield Batch(self._on_device(views), rows.to(self.device), self.true_classes[rows].to(self.device))

    def everything(self, step: int, views: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Go once over this rank's part of all images, shuffled.

        In their own order, by class, they would give batch normalisation one class at a time.

        Parameters
        ----------
        step
            What the views depend on, besides the seed.
        views
            How many of each image.

        Yields
        ------
        Tensor
            Which images they are, shape (B,), int64.
        list of Tensor
            The views, each of shape (B, C, H, W).
        """
        if views not in self._passes:
            # Other views than those of any step: a seed of their own.
            seed = seed_of(self.settings.seed, 1) % 2**31
            alike = replace(self.augmentation, global_views=views, local_views=0)
            self._passes[views] = self._loader(Views(self.source, alike, seed, self.settings.colours), self._chunks())
        for found, rows in self._passes[views].epoch(step):
            yield rows.to(self.device), self._on_device(found)

    def sample(self, count: int) -> Iterator[Batch]:
        """Yield this rank's part of some images, in the views of a pass at step 0.

        Parameters
        ----------
        count
            Images over all ranks, at least.
        """
        batches = self._chunks()
        enough = -(-count // batches.batch_size)
        # The number first: otherwise a part would be loaded only to be left.
        for _, (rows, views) in zip(range(enough), self.everything(0, 1), strict=False):
            yield Batch(views, rows, self.true_classes[rows.cpu()].to(self.device))

    def _chunks(self) -> Batches:
        # The largest chunks of which the last gives every rank an image, too.
        sizes = range(min(CHUNK, self.images), 0, -1)
        size = next(size for size in sizes if self.images % size == 0 or self.images % size >= self.place.world)
        return Batches(
            count=self.images,
            batch_size=size,
            seed=self.settings.seed,
            rank=self.place.rank,
            world=self.place.world,
            drop_last=False,
        )

    def _loader(self, views: Views, batches: Batches) -> ViewLoader:
        cuda = self.device.type == "cuda"
        # A process that has used CUDA, or has threads, had better not fork.
        return ViewLoader(
            views, batches, workers=self.settings.workers, pin_memory=cuda, context="spawn" if cuda else None
        )

    def _on_device(self, views: list[Tensor]) -> list[Tensor]:
        with timing.part(timing.AUGMENTATION):
            if self.settings.colours == "device":
                *crops, drawn = views
                there = [crop.to(self.device, non_blocking=True) for crop in crops]
                views = [coloured(crop, drawn[:, number], self.augmentation) for number, crop in enumerate(there)]
            return [normalised(view.to(self.device, non_blocking=True), self.augmentation) for view in views]


def _truth(images: Images) -> Tensor:
    """Return the classes (N,), int64, -1 where they are not known; of tagged images which they have, (N, C), int8."""
    known = images.presence if isinstance(images, TaggedImages) else images.classes
    return torch.full((len(images),), -1) if known is None else torch.from_numpy(known)


def _digits(settings: Pretraining) -> LabelledImages:
    """Return the training digits, or those of them that take part."""
    whole, _ = digits()
    some = images_of(settings.data)
    if not isinstance(some, Selection):
        return whole
    rows = torch.from_numpy(some.rows)
    return LabelledImages(whole.images[rows], whole.classes[rows])


def feed_of(
    settings: Pretraining,
    place: Place,
    device: torch.device,
    *,
    most: int | None = None,
    images: Images | None = None,
) -> Feed:
    """Open the images of a run.

    Parameters
    ----------
    settings
        Of the run.
    place
        The rank.
    device
        Where batches go.
    most
        Images that take part, spread evenly over all there are; None for all.
    images
        Those of the settings, where they are open already: to list a million files takes minutes.

    Returns
    -------
    Feed
        A :class:`DigitFeed` for distortions, else a :class:`ViewFeed`.

    Raises
    ------
    ImagesError
        If they cannot be read where they were said to be.
    ValueError
        If they do not fill a batch, or a batch does not divide over the ranks.

    Examples
    --------
    >>> feed = feed_of(Pretraining(), Place(), torch.device("cpu"))
    >>> feed.images, feed.classes, feed.steps_per_epoch
    (1347, 10, 10)
    >>> feed_of(Pretraining(batch_size=5), Place(rank=0, world=2), torch.device("cpu"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: batch_size 5 is that of all 2 processes together and does not divide over them; take 4 or 6
    """
    parts = place.world * settings.accumulate
    if settings.batch_size % parts:
        near = settings.batch_size // parts * parts
        pieces = f" in {settings.accumulate} pieces each" if settings.accumulate > 1 else ""
        raise ValueError(
            f"batch_size {settings.batch_size} is that of all {place.world} processes together and does not divide over"
            f" them{pieces}; take {near or parts} or {near + parts}"
        )
    if settings.batch_size // parts < 2 and device.type == "cpu":
        raise ValueError(
            f"batch_size {settings.batch_size} leaves batch normalisation one image at a time; take {2 * parts} or more"
        )
    if isinstance(settings.augmentation, Distortions):
        return DigitFeed(_digits(settings), settings, place, device)
    images = images_of(settings.data) if images is None else images
    if most is not None and len(images) > most:
        rows = np.arange(most) * len(images) // most
        known = images.classes
        images = Selection(images, rows, None if known is None else known[rows], images.names)
    return ViewFeed(images, settings, place, device)
