"""A classifier of the true classes, as a baseline."""

from torch import Tensor, nn
from torch.nn import functional as F

from infoassign_training.methods.method import Batch, Method, Moment, Step, agreement


class Supervised(Method):
    """An encoder and a linear head."""

    def __init__(self, encoder: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(features, classes)

    def outputs(self, views: list[Tensor]) -> list[Tensor]:
        """Return the features of the view, (B, F)."""
        return [self.encoder(views[0])]

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the cross-entropy with the classes."""
        logits = self.head(outputs[0])
        return Step(F.cross_entropy(logits, batch.classes), watched={"agreement": agreement(logits, batch.classes)})
