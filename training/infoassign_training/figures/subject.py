"""What figures are about: a run, its images, and what its model makes of them, each made once."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

import infoassign as ia
from infoassign_training.data.augmentations import Distortions
from infoassign_training.data.build import images_of
from infoassign_training.data.digits import grey
from infoassign_training.data.evaluation_views import centred, in_order, shorter_side
from infoassign_training.data.images import Images
from infoassign_training.data.subsets import Selection
from infoassign_training.data.views import normalised
from infoassign_training.engine.feed import feed_of
from infoassign_training.engine.ranks import Place
from infoassign_training.errors import UserError
from infoassign_training.labelling.models import Model, logits, restored
from infoassign_training.methods.embeddings import Embeddings
from infoassign_training.methods.settings import Imsvd, Music

AT_ONCE = 256
"""Images of a forward pass."""


class Subject:
    """A run.

    Parameters
    ----------
    where
        Its folder, or a checkpoint in it.
    most
        Images that are looked at, spread evenly over those it was trained on.
    device
        Where the model computes.
    """

    def __init__(self, where: Path, *, most: int, device: torch.device) -> None:
        self.where = where
        self.most = most
        self.device = device

    @cached_property
    def model(self) -> Model:
        """What the run has learnt."""
        return restored(self.where)

    @cached_property
    def images(self) -> Images:
        """The images of the run, or some of them."""
        whole, known = self._whole, self._whole.classes
        return Selection(whole, self._rows, None if known is None else known[self._rows], whole.names)

    @cached_property
    def _whole(self) -> Images:
        return images_of(self.model.settings.data)

    @property
    def _rows(self) -> NDArray[np.int64]:
        number = min(len(self._whole), self.most)
        return np.arange(number) * len(self._whole) // number

    @property
    def classes(self) -> NDArray[np.int64]:
        """The true classes (N,), which a figure compares with.

        Raises
        ------
        UserError
            If they are not known.
        """
        if self.images.classes is None:
            raise UserError(f"the images of {self.where} have no classes to compare clusters with")
        return self.images.classes

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The scores of the images for the labels of the first head, (N, K).

        Raises
        ------
        UserError
            If the method makes no labels.
        """
        if self.model.method.labels is None:
            kind = self.model.settings.method.kind
            raise UserError(f"{self.where} was trained by {kind}, which makes no labels; this figure is about labels")
        return np.concatenate(list(logits(self.model, self._batches(), len(self.images), self.device)))

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """The labels of the images, (N,): those that the run kept, or else the likeliest by its model."""
        kept = self.model.method.pseudo_labels()
        if kept is not None and kept.shape[1] == len(self._whole):
            chosen: NDArray[np.int64] = kept[0].cpu().numpy()[self._rows]
            return chosen
        likeliest: NDArray[np.int64] = self.logits.argmax(axis=1)
        return likeliest

    @property
    def segment_size(self) -> int:
        """The units of a segment.

        Raises
        ------
        UserError
            If the method has no segments.
        """
        match self.model.settings.method:
            case Imsvd(units=units) | Music(segment_size=units):
                return units
        kind = self.model.settings.method.kind
        raise UserError(f"{self.where} was trained by {kind}, which has no segments; take a run of music or imsvd")

    @cached_property
    def codes(self) -> NDArray[np.float32]:
        """The soft codes of the images as they are, (N, sum D)."""
        return np.concatenate(list(map(self._coded, self._batches())))

    @cached_property
    def two_views(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The soft codes of two random views of the images, drawn as in training, (N, sum D) each."""
        feed = feed_of(self.model.settings, Place(), self.device, most=self.most)
        first, second = zip(*(map(self._coded, views) for _, views in feed.everything(0, 2)), strict=True)
        return np.concatenate(first), np.concatenate(second)

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
        augmentation = self.model.settings.augmentation
        if isinstance(augmentation, Distortions):
            found = self._digits(rows).repeat(1, 3, 1, 1)
        else:
            look = centred(augmentation.global_size, shorter_side(augmentation.global_size))
            found = torch.stack([look(self.images.image(int(row))) for row in rows]).float() / 255
        if found.shape[-1] > size:
            found = transforms.resize(found, [size], antialias=True)
        array: NDArray[np.float32] = found.clamp(0, 1).permute(0, 2, 3, 1).numpy()
        return array

    def _digits(self, rows: Any) -> Tensor:
        pixels = [self.images.image(int(row)) for row in rows]
        return grey(torch.stack([torch.as_tensor(one) for one in pixels]))

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        """Return some images as the encoder takes them, on the device."""
        augmentation = self.model.settings.augmentation
        if isinstance(augmentation, Distortions):
            return self._digits(rows).to(self.device)
        look = centred(augmentation.global_size, shorter_side(augmentation.global_size))
        pixels = torch.stack([look(self.images.image(int(row))) for row in rows])
        return normalised(pixels.to(self.device), augmentation)

    def _batches(self) -> Iterator[Tensor]:
        """Yield the images as the encoder takes them."""
        augmentation = self.model.settings.augmentation
        count = len(self.images)
        if isinstance(augmentation, Distortions):
            yield from (self._digits(range(first, min(first + AT_ONCE, count))) for first in range(0, count, AT_ONCE))
            return
        look = centred(augmentation.global_size, shorter_side(augmentation.global_size))
        for images, _ in in_order(self.images, look, range(count), batch_size=AT_ONCE):
            yield normalised(images, augmentation)
