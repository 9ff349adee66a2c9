"""What stands between the features and the labels or the loss during pretraining."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTATIONS = 4
"""Classes of :func:`rotation_head`: how many quarter turns an image was turned by."""


def projector(
    features: int, hidden: Sequence[int], projection: int, *, hidden_bias: bool, last_bias: bool
) -> nn.Sequential:
    """Make linear layers with batch normalisation and ReLU between them, and nothing after the last.

    Features (B, `features`) in, projections (B, `projection`) out. What the released codes have:

    ====================  ==============  ============  =============  ===========
    method                hidden          projection    hidden_bias    last_bias
    ====================  ==============  ============  =============  ===========
    MIRA                  (2048, 2048)    256           False          True
    SwAV                  (2048,)         128           True           True
    MUSIC, IMSVD          (8192,)         8160          True           False
    VICReg                (8192, 8192)    8192          True           False
    Barlow Twins          (8192, 8192)    8192          False          False
    ====================  ==============  ============  =============  ===========

    Parameters
    ----------
    hidden
        Widths of the hidden layers; none make a linear projection.
    hidden_bias
        Whether hidden layers have a bias. The normalisation takes it out again, but it is there to be decayed, saved
        and counted.
    last_bias
        Whether the last layer has one.

    Examples
    --------
    >>> [type(layer).__name__ for layer in projector(20, (30,), 10, hidden_bias=True, last_bias=False)]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    layers: list[nn.Module] = []
    width = features
    for wider in hidden:
        layers += [nn.Linear(width, wider, bias=hidden_bias), nn.BatchNorm1d(wider), nn.ReLU(inplace=True)]
        width = wider
    return nn.Sequential(*layers, nn.Linear(width, projection, bias=last_bias))


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


class MultiHead(nn.Module):
    """T clusterings of the same features, each by a linear head of its own (SeLa, sec. 3.5).

    Features (B, `features`) in, a list of T logits (B, K_t) out. One head alone, as in relabelling them one after the
    other, is ``heads[t]``. They start at N(0, 0.01^2) without bias, as in the released code.

    Parameters
    ----------
    features
        Length of the features.
    sizes
        Number of labels K_t of each head; they may differ.

    Examples
    --------
    >>> [logits.shape[1] for logits in MultiHead(8, (3, 5))(torch.zeros(2, 8))]
    [3, 5]
    """

    def __init__(self, features: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_head(features, size) for size in sizes)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Return the logits of every head."""
        return [head(features) for head in self.heads]


def rotation_head(features: int) -> nn.Linear:
    """Make the head that tells how an image was turned (RotNet; beside the labels in SeLa, sec. 4.6).

    Features (B, `features`) in, logits (B, 4) out, class r for r quarter turns.
    """
    return _head(features, ROTATIONS)


def _head(features: int, classes: int) -> nn.Linear:
    head = nn.Linear(features, classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head
