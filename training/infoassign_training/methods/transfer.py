"""Label transfer: a new network learns labels that another has found, and how images were turned."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import infoassign as ia
from infoassign_training.methods import settings
from infoassign_training.methods.labels import read_labels
from infoassign_training.methods.method import Batch, Method, Moment, Step, agreement
from infoassign_training.models.heads import ROTATIONS, MultiHead, rotation_head


class Transfer(Method):
    """An encoder whose heads learn given labels; by option another tells how an image was turned (SeLa, sec. 4.3, 4.6).

    The paper says no more of that than "one additional head for computing the RotNet loss". As in the released code,
    all four quarter turns of every view are in the batch, the labels are learnt from the views that were not turned,
    and the two losses are added.
    """

    targets: Tensor

    def __init__(self, encoder: nn.Module, features: int, images: int, chosen: settings.Transfer) -> None:
        super().__init__()
        self.settings = chosen
        self.labels = chosen.heads[0]
        self.encoder = encoder
        self.heads = MultiHead(features, chosen.heads)
        self.rotation = rotation_head(features) if chosen.rotation else None
        self.register_buffer("targets", torch.full((len(chosen.heads), images), -1))

    def prepare(self) -> None:
        """Read the labels.

        They are part of the state: a run that goes on from a checkpoint has those that it started with, and needs no
        file.

        Raises
        ------
        ValueError
            If no file is named, or it has no labels for these heads and images.
        """
        if not self.settings.labels:
            raise ValueError(
                "method transfer learns labels from a file: give --method.labels FILE, labels.npy of a run"
            )
        heads, images = self.settings.heads, self.targets.shape[1]
        found = read_labels(Path(self.settings.labels), sizes=heads, images=images)
        self.targets.copy_(torch.from_numpy(found))

    def outputs(self, views: list[Tensor]) -> list[Tensor]:
        """Return the features of the view, and of its turns if they are learnt, each (B, F)."""
        (images,) = views
        if self.rotation is None:
            return [self.encoder(images)]
        return list(self.encoder(turned(images)).chunk(ROTATIONS))

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the mean over heads of the cross-entropy with their labels, and that of the turns added to it."""
        logits = self.heads(outputs[0])
        targets = self.targets[:, batch.rows]
        labels = torch.stack([F.cross_entropy(some, row) for some, row in zip(logits, targets, strict=True)]).mean()
        agreed = torch.stack([agreement(some, row) for some, row in zip(logits, targets, strict=True)]).mean()
        watched = {"agreement": agreed}
        if self.rotation is None:
            return Step(labels, watched=watched)
        turns = torch.arange(ROTATIONS, device=labels.device).repeat_interleave(len(batch.rows))
        rotation = F.cross_entropy(self.rotation(torch.cat(outputs)), turns)
        parts = {"label_loss": labels.detach(), "rotation_loss": rotation.detach()}
        return Step(labels + rotation, parts=parts, watched=watched)

    @torch.no_grad()
    def logits(self, images: Tensor) -> list[Tensor]:
        """Score images (B, C, H, W) by every head, each (B, K_t)."""
        self.eval()
        found: list[Tensor] = self.heads(self.encoder(images))
        return found

    def label(self, images: Tensor) -> ia.Assignment:
        """Label images (B, C, H, W) by the first head's probabilities."""
        return ia.mira(self.logits(images)[0], beta=0)


def turned(images: Tensor) -> Tensor:
    """Turn square images (B, C, S, S) by none, one, two and three quarters, counter-clockwise: (4 B, C, S, S).

    Those of no turn come first, then those of one, and so on.

    Examples
    --------
    >>> turned(torch.tensor([[[[1, 2], [3, 4]]]])).flatten(1).tolist()
    [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]
    """
    return torch.cat([images.rot90(turns, (2, 3)) for turns in range(ROTATIONS)])
