"""VICReg: views alike, units that vary, and no unit like another."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from infoassign_training.engine import ranks
from infoassign_training.methods import settings
from infoassign_training.methods.embeddings import Embeddings


class Vicreg(Embeddings):
    """Bardes et al., eq. 6, with the halved variance term and 1 / D of the released code."""

    def __init__(self, encoder: nn.Module, projector: nn.Module, chosen: settings.Vicreg) -> None:
        super().__init__(encoder, projector)
        self.settings = chosen

    def terms(self, first: Tensor, second: Tensor) -> Mapping[str, Tensor]:
        """Return the three terms, of embeddings (B, D) and those of all ranks."""
        first, second = ranks.whole(first), ranks.whole(second)
        chosen = self.settings
        return {
            "invariance": chosen.invariance * F.mse_loss(first, second),
            "variance": chosen.variance * (hinge(first) + hinge(second)) / 2,
            "covariance": chosen.covariance * (covariance(first) + covariance(second)),
        }


def hinge(embeddings: Tensor) -> Tensor:
    """Return what the standard deviations of the units lack of 1, on average."""
    return F.relu(1 - (embeddings.var(dim=0) + 1e-4).sqrt()).mean()


def covariance(embeddings: Tensor) -> Tensor:
    """Return the sum of the squared covariances of different units, over their number."""
    centred = embeddings - embeddings.mean(dim=0)
    matrix = centred.T @ centred / (len(embeddings) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / embeddings.shape[1]
