"""Which networks there are, and how they are told apart: frozen, checked when made, without torch.

Examples
--------
>>> ResNet(name="resnet18", cifar_stem=True).kind, AlexNet(size="small").kind
('resnet', 'alexnet')
>>> SmallResNet(widths=())
Traceback (most recent call last):
    ...
ValueError: encoder.widths must name at least one stage
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from infoassign_training.checks import require


@dataclass(frozen=True, kw_only=True)
class SmallResNet:
    """A small residual network for grey images of a few pixels."""

    kind: ClassVar[str] = "small-resnet"
    widths: tuple[int, ...] = (16, 32, 64)
    """Channels of the residual stages; every stage after the first halves the image."""
    features: int = 128
    """Length of the representation that is evaluated."""

    def __post_init__(self) -> None:
        require(len(self.widths) > 0, "encoder.widths must name at least one stage")
        sizes = (*self.widths, self.features)
        require(min(sizes) >= 1, f"encoder sizes must be positive; got {sizes}")


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """A residual network of torchvision's."""

    kind: ClassVar[str] = "resnet"
    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = "resnet50"
    """Which."""
    cifar_stem: bool = False
    """Start with a 3 x 3 convolution of stride 1 and without pooling, for images of 32 x 32."""
    zero_init_residual: bool = False
    """Start every block as the identity."""


@dataclass(frozen=True, kw_only=True)
class AlexNet:
    """SeLa's AlexNet with batch normalisation, for images of 224 x 224."""

    kind: ClassVar[str] = "alexnet"
    size: Literal["large", "small"] = "large"
    """(96, 256) filters in the first two convolutions, or (64, 192)."""


@dataclass(frozen=True, kw_only=True)
class Projector:
    """Linear layers with batch normalisation and ReLU between them, after the encoder; only training uses them."""

    hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers."""
    projection: int = 64
    """Length of the projection, which methods compare with prototypes, or that of another view."""
    hidden_bias: bool = False
    """Whether hidden layers have a bias, which the normalisation takes out again."""
    last_bias: bool = True
    """Whether the last layer has one."""

    def __post_init__(self) -> None:
        sizes = (*self.hidden, self.projection)
        require(min(sizes) >= 1, f"projector sizes must be positive; got {sizes}")


Encoder: TypeAlias = SmallResNet | ResNet | AlexNet
"""Those of some encoder."""
KINDS: Mapping[str, type[Encoder]] = {kind.kind: kind for kind in (SmallResNet, ResNet, AlexNet)}
"""All of them by name."""
