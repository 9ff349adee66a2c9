"""A residual encoder for grey images of a few pixels."""

from itertools import pairwise

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3


class SmallResNet(nn.Module):
    """A ResNet whose last maps are flattened, not averaged: in 8 x 8 images the place of a stroke matters.

    Parameters
    ----------
    widths
        Channels of the stages, one basic block each; every stage after the first halves the image.
    features
        Length of the representation.
    image_size
        Height and width of the images, a multiple of ``2 ** (len(widths) - 1)``.

    Notes
    -----
    Images (B, 1, S, S) in, features (B, `features`) out.
    """

    def __init__(self, widths: tuple[int, ...], features: int, image_size: int) -> None:
        super().__init__()
        shrink = 2 ** (len(widths) - 1)
        if image_size % shrink:
            raise ValueError(
                f"the {len(widths)} stages of encoder.widths need an image size that is a multiple of {shrink};"
                f" got {image_size}"
            )
        stem = [conv3x3(1, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        stages = [BasicBlock(widths[0], widths[0])]
        for before, after in pairwise(widths):
            shortcut = nn.Sequential(conv1x1(before, after, stride=2), nn.BatchNorm2d(after))
            stages.append(BasicBlock(before, after, stride=2, downsample=shortcut))
        flat = widths[-1] * (image_size // shrink) ** 2
        head = [
            nn.Flatten(),
            nn.Linear(flat, features, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(inplace=True),
        ]
        self.layers = nn.Sequential(*stem, *stages, *head)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of a batch of images."""
        features: Tensor = self.layers(images)
        return features
