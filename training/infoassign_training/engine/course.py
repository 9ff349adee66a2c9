"""How the labels of the training images change from epoch to epoch (SeLa, fig. A.1)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor

from infoassign_training.engine import ranks


class Course:
    """The labels that images are given in an epoch, and those that they had before.

    Nothing is trained on what it says: the true classes are compared with, and no method sees them by it.

    Parameters
    ----------
    classes
        The true ones of all images, (N,), int64, on the CPU; -1 where they are not known. Of images with any number of
        classes each, (N, C), there is none to compare with.
    device
        Where labels are given; they stay there until the epoch's end, so that no step waits for them.
    """

    def __init__(self, classes: Tensor, device: torch.device | None = None) -> None:
        self._classes = classes if classes.ndim == 1 else torch.full((len(classes),), -1)
        self._now = torch.full((len(classes),), -1, dtype=torch.int32, device=device)
        self._before = torch.full((len(classes),), -1, dtype=torch.int32)

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Take in labels (B,) of images (B,); later ones replace earlier ones."""
        self._now[rows] = labels.to(self._now)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what :meth:`load_state_dict` takes."""
        return {"now": self._now.cpu(), "before": self._before}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self._now, self._before = state["now"].to(self._now.device), state["before"]

    def pool(self) -> None:
        """Take in what all ranks were given, which call this together."""
        self._now = ranks.largest(self._now)

    def record(self) -> dict[str, float]:
        """Return what there is to say of the epoch that ends; all ranks call this together, and get the same.

        Returns
        -------
        dict
            ``pseudo_label_change`` and ``pseudo_label_nmi_before``, the share of the images whose label is another than
            the one they had last, and the normalised mutual information of both; ``pseudo_label_nmi`` and
            ``pseudo_label_purity``, the normalised mutual information with the true classes, and the share of the
            images that are of the commonest class of their label. Without those for which there is nothing to compare
            with; nothing in an epoch that made no labels.
        """
        self.pool()
        labels = self._now.cpu()
        given = labels >= 0
        found: dict[str, float] = {}
        if bool((again := given & (self._before >= 0)).any()):
            before, now = self._before[again], labels[again]
            found["pseudo_label_change"] = float((before != now).double().mean())
            found["pseudo_label_nmi_before"] = _nmi(before, now)
        if bool((known := given & (self._classes >= 0)).any()):
            classes, now = self._classes[known], labels[known]
            found["pseudo_label_nmi"] = _nmi(classes, now)
            found["pseudo_label_purity"] = purity(classes.numpy(), now.numpy())
        self._before = torch.where(given, labels, self._before)
        self._now = torch.full_like(self._now, -1)
        return found


def _nmi(first: Tensor, second: Tensor) -> float:
    return float(normalized_mutual_info_score(first.numpy(), second.numpy()))


def purity(classes: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """Return the share of images that are of the commonest class of their label.

    Parameters
    ----------
    classes
        The true ones, (N,).
    labels
        Those that were found, (N,).

    Examples
    --------
    >>> purity(np.array([0, 0, 1, 1]), np.array([5, 5, 5, 3]))
    0.75
    """
    return float(contingency_matrix(classes, labels, sparse=True).max(axis=0).sum() / len(labels))
