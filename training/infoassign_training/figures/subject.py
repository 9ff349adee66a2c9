"""What figures are about: a run, its images, and what its model makes of them, each made once."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

import infoassign as ia
from infoassign_training.data.augmentations import Distortions
from infoassign_training.data.benchmarks import open_benchmark
from infoassign_training.data.build import images_of
from infoassign_training.data.digits import LabelledImages
from infoassign_training.data.images import Images
from infoassign_training.data.subsets import Selection
from infoassign_training.engine.feed import DigitFeed, Feed, feed_of
from infoassign_training.engine.ranks import Place
from infoassign_training.errors import UserError
from infoassign_training.evaluation.features import Looking, chunks
from infoassign_training.labelling.models import logits, looking_of
from infoassign_training.methods.embeddings import Embeddings
from infoassign_training.methods.finished import Model, restored
from infoassign_training.methods.settings import Imsvd, Music

AT_ONCE = 256
"""Images of a forward pass."""
KEPT = 3
"""Images of a pass whose views are kept to look at."""


class UnfitError(UserError):
    """A figure that cannot be made of this run."""


@dataclass(frozen=True)
class TwoViews:
    """What a network with segments makes of two random views of the images, drawn as in training."""

    codes: tuple[NDArray[np.float32], NDArray[np.float32]]
    """The soft codes, (N, sum D) each."""
    pictures: tuple[NDArray[np.float32], NDArray[np.float32]]
    """The views of the first few images, (n, S, S, 3) in [0, 1] each."""


class Subject:
    """A run.

    Parameters
    ----------
    where
        Its folder, or a checkpoint in it.
    most
        Images that are looked at, spread evenly over all there are.
    device
        Where the model computes.
    data
        A set whose test part is looked at, as `open_benchmark` takes it; empty for what it was trained on.
    """

    def __init__(self, where: Path, *, most: int, device: torch.device, data: str = "") -> None:
        self.where = where
        self.most = most
        self.device = device
        self.data = data

    @cached_property
    def model(self) -> Model:
        """What the run has learnt."""
        return restored(self.where)

    @cached_property
    def images(self) -> Images:
        """The images, or some of them."""
        whole, known = self._whole, self._whole.classes
        return Selection(whole, self._rows, None if known is None else known[self._rows], whole.names)

    @cached_property
    def _whole(self) -> Images:
        return open_benchmark(self.data).test if self.data else images_of(self.model.settings.data)

    @property
    def _rows(self) -> NDArray[np.int64]:
        number = min(len(self._whole), self.most)
        return np.arange(number) * len(self._whole) // number

    @property
    def classes(self) -> NDArray[np.int64]:
        """The true classes (N,), which a figure compares with.

        Raises
        ------
        UnfitError
            If they are not known.
        """
        if self.images.classes is None:
            raise UnfitError(f"the images of {self.data or self.where} have no classes to compare clusters with")
        return self.images.classes

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The scores of the images for the labels of the first head, (N, K).

        Raises
        ------
        UnfitError
            If the method makes no labels.
        """
        if self.model.method.labels is None:
            kind = self.model.settings.method.kind
            raise UnfitError(f"{self.where} was trained by {kind}, which makes no labels; this figure is about labels")
        return np.concatenate(list(logits(self.model, self.images, self.device, AT_ONCE, 0)))

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """The labels of the images, (N,): those that the run kept, or else the likeliest by its model."""
        kept = self.model.method.pseudo_labels()
        if kept is not None and not self.data and kept.shape[1] == len(self._whole):
            chosen: NDArray[np.int64] = kept[0].cpu().numpy()[self._rows]
            return chosen
        likeliest: NDArray[np.int64] = self.logits.argmax(axis=1)
        return likeliest

    @property
    def segment_size(self) -> int:
        """The units of a segment.

        Raises
        ------
        UnfitError
            If the method has no segments.
        """
        match self.model.settings.method:
            case Imsvd(units=units) | Music(segment_size=units):
                return units
        kind = self.model.settings.method.kind
        raise UnfitError(f"{self.where} was trained by {kind}, which has no segments; take a run of music or imsvd")

    @cached_property
    def codes(self) -> NDArray[np.float32]:
        """The soft codes of the images as they are, (N, sum D)."""
        return np.concatenate([self._coded(images) for _, images in chunks(self.images, self._looking, "images")])

    @cached_property
    def two_views(self) -> TwoViews:
        """Two random views of the images, drawn as in training."""
        codes: tuple[list[NDArray[np.float32]], ...] = [], []
        pictures: list[NDArray[np.float32]] = []
        for _, views in self._feed.everything(0, 2):
            pictures = pictures or [self._pixels(view[:KEPT]) for view in views]
            for some, view in zip(codes, views, strict=True):
                some.append(self._coded(view))
        first, second = map(np.concatenate, codes)
        return TwoViews((first, second), (pictures[0], pictures[1]))

    @property
    def _feed(self) -> Feed:
        settings, count = self.model.settings, len(self.images)
        # A pass over the images has no batches, which need not be filled then.
        alone = replace(settings, batch_size=min(settings.batch_size, count), accumulate=1)
        if isinstance(settings.augmentation, Distortions):
            grey = LabelledImages(self.inputs(np.arange(count)).cpu(), torch.full((count,), -1))
            return DigitFeed(grey, alone, Place(), self.device)
        return feed_of(alone, Place(), self.device, images=self.images)

    def _pixels(self, views: Tensor) -> NDArray[np.float32]:
        """Return views (n, C, S, S), as the network takes them, as pictures (n, S, S, 3) in [0, 1]."""
        augmentation, found = self.model.settings.augmentation, views.float().cpu()
        if not isinstance(augmentation, Distortions):
            mean, std = (torch.tensor(values)[:, None, None] for values in (augmentation.mean, augmentation.std))
            found = found * std + mean
        array: NDArray[np.float32] = found.expand(-1, 3, -1, -1).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        return array

    @torch.no_grad()
    def _coded(self, images: Tensor) -> NDArray[np.float32]:
        size, network, chosen = self.segment_size, self.network, self.model.settings.method
        assert isinstance(chosen, Imsvd | Music)
        # A pass over all images comes in large parts.
        parts = [network(some.to(self.device)) for some in images.split(AT_ONCE)]
        codes: Tensor = ia.soft_discretize(torch.cat(parts).float(), size, chosen.temperature)
        array: NDArray[np.float32] = codes.cpu().numpy()
        return array

    @property
    def network(self) -> nn.Sequential:
        """From images to the embeddings of a method with segments, in evaluation mode."""
        method = self.model.method
        assert isinstance(method, Embeddings)
        return nn.Sequential(method.encoder, method.projector).to(self.device).eval()

    def pictures(self, rows: NDArray[np.int64], size: int = 64) -> NDArray[np.float32]:
        """Return images to look at, (n, S, S, 3) in [0, 1], S at most `size`."""
        found = self._shown(rows).float() / 255
        if found.shape[-1] > size:
            found = transforms.resize(found, [size], antialias=True)
        array: NDArray[np.float32] = found.clamp(0, 1).permute(0, 2, 3, 1).numpy()
        return array

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        """Return some images as the encoder takes them, on the device."""
        return self._looking.scaled(self._shown(rows).to(self.device))

    def _shown(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.stack([self._looking.transform(self.images.image(int(row))) for row in rows])

    @property
    def _looking(self) -> Looking:
        return looking_of(self.model.settings, self.device, AT_ONCE)
