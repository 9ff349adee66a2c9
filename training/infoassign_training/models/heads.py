"""What stands between the features and the labels during pretraining."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def projector(features: int, hidden: int, projection: int) -> nn.Sequential:
    """Two layers with batch normalisation on the hidden one (MIRA, sec. 4.1, one layer fewer)."""
    return nn.Sequential(
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, projection),
    )


class Prototypes(nn.Module):
    """Cosine of a projection with K unit vectors: L2-normalisation, then weight-normalisation of gain 1.

    Projections (B, D) in, logits (B, K) in [-1, 1] out.
    """

    def __init__(self, projection: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, projection))

    def forward(self, projections: Tensor) -> Tensor:
        """Return the logits, not yet divided by a temperature."""
        return F.linear(F.normalize(projections), F.normalize(self.weight))
