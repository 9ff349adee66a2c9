"""The class of every pixel: what fully convolutional networks are trained on, and scored by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from infoassign_training.data.images import ImagesError
from infoassign_training.dense.fcn import FCN
from infoassign_training.dense.loop import one_by_one
from infoassign_training.dense.pixels import NAMES, VOID, Pixels, PixelViews
from infoassign_training.dense.scenes import digest
from infoassign_training.dense.settings import Segmenter
from infoassign_training.models.pretrained import Pretrained


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A :class:`~infoassign_training.dense.challenge.Challenge` for fully convolutional networks."""

    train: Pixels
    test: Pixels
    chosen: Segmenter
    metric: str = "mean-iu"

    @property
    def counts(self) -> dict[str, int]:
        """How many images and classes there are, the background among them."""
        return {"train": len(self.train), "test": len(self.test), "classes": len(NAMES)}

    @property
    def digest(self) -> str:
        """A hash of the images' names."""
        return digest(*(str(one.classes) for part in (self.train, self.test) for one in part.files))

    def check(self) -> None:
        """Read an image of either part, and its classes."""
        for pixels in (self.train, self.test):
            pixels.labelled(0)

    def model(self, pretrained: Pretrained) -> FCN:
        """Return a network made of the encoder."""
        return FCN(pretrained.encoder, len(NAMES), self.chosen, pretrained.mean, pretrained.std)

    def views(self, seed: int) -> PixelViews:
        """Return images at their own sizes."""
        return PixelViews(self.train, self.chosen.mirrored, seed)

    @torch.no_grad()
    def found(self, model: nn.Module, rows: Sequence[int], *, workers: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the name of an image, and how many of its pixels of a class were taken for which.

        That is the image's part of the confusion matrix: triples of class, answer and count, where there are any.
        """
        assert isinstance(model, FCN)
        model.eval()
        device = model.mean.device
        for row, (image, target) in zip(rows, one_by_one(self.test, rows, workers, device), strict=True):
            (said,) = model([image.to(device)])
            table = confusion(target["classes"].numpy(), said.cpu().numpy())
            places = zip(*(axis.tolist() for axis in np.nonzero(table)), strict=True)
            triples = [[truth, answer, int(table[truth, answer])] for truth, answer in places]
            yield {"image": self.test.files[row].name, "pixels": triples}

    def scores(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """Score the pixels of all images together."""
        table = np.zeros((len(NAMES), len(NAMES)), dtype=np.int64)
        for one in found:
            for truth, answer, count in one["pixels"]:
                table[truth, answer] += count
        return measured(table)


def confusion(classes: NDArray[np.integer[Any]], said: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Count pixels by class and by what they were taken for, (21, 21); those of no class are left out.

    Examples
    --------
    >>> table = confusion(np.array([[1, 1], [0, 255]]), np.array([[1, 0], [0, 0]]))
    >>> table[:2, :2].tolist(), int(table.sum())
    ([[1, 0], [1, 1]], 3)
    """
    count, counted = len(NAMES), classes != VOID
    pairs = count * classes[counted].astype(np.int64) + said[counted]
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def measured(table: NDArray[np.int64]) -> dict[str, float]:
    """Score a confusion matrix as Long et al. (2015, sec. 5) do.

    Parameters
    ----------
    table
        Pixels by class and by what they were taken for.

    Returns
    -------
    dict
        ``mean-iu``: the mean over classes of the pixels that are of the class and were said to be, over those that
        are one or the other. A class that no pixel has and none was taken for is left out, as in their code; one that
        pixels were wrongly taken for counts with 0. ``pixel-accuracy``: the share of pixels that were told right.
        ``mean-accuracy``: the mean of that over the classes that there are.

    Raises
    ------
    ImagesError
        If there is no pixel of any class.

    Examples
    --------
    >>> scores = measured(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]]))
    >>> [round(scores[name], 3) for name in ("mean-iu", "pixel-accuracy", "mean-accuracy")]
    [0.5, 0.667, 0.75]
    """
    right, there, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    if not there.any():
        raise ImagesError("no pixel to be scored has a class")
    either = there + said - right
    return {
        "mean-iu": float((right[either > 0] / either[either > 0]).mean()),
        "pixel-accuracy": float(right.sum() / there.sum()),
        "mean-accuracy": float((right[there > 0] / there[there > 0]).mean()),
    }
