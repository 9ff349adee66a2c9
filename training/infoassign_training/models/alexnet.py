"""SeLa's AlexNet with batch normalisation, and what its layers give to linear probes."""

from math import isqrt

from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = {"large": (96, 256, 384, 384, 256), "small": (64, 192, 384, 256, 256)}
"""Filters of the five convolutions: the original network, and the later one for a single device (SeLa, table 4)."""
SIZE = 224
"""Height and width of the images."""
FEATURES = 4096
"""Length of the features before the heads."""
PROBED = 9600
"""Most values of a layer that a probe sees."""


class AlexNet(nn.Module):
    """Five convolutions and two wide linear layers (SeLa, sec. 4.1).

    Images (B, 3, 224, 224) in, features (B, 4096) out. CIFAR and SVHN, too, are enlarged to 224 (app. A.1: "on the
    resized images"), so that there is one network for all.

    The paper names the filters of the first two convolutions and batch normalisation. Kernels, strides, padding,
    biases, dropout of 1/2 before either linear layer, and the initial weights (He's for convolutions, N(0, 0.01^2) for
    linear layers, no biases) are those of the released code, which is DeepCluster's without its Sobel filter. The keys
    of the state are that code's, but for the heads.

    Parameters
    ----------
    size
        ``"large"`` or ``"small"``, a key of `CHANNELS`.
    """

    def __init__(self, size: str) -> None:
        super().__init__()
        if size not in CHANNELS:
            raise ValueError(f"there is no AlexNet {size!r}; choose one of {', '.join(CHANNELS)}")
        first, second, third, fourth, fifth = CHANNELS[size]
        self.features = nn.Sequential(
            *_convolution(3, first, 11, stride=4, padding=2),
            nn.MaxPool2d(3, stride=2),
            *_convolution(first, second, 5, padding=2),
            nn.MaxPool2d(3, stride=2),
            *_convolution(second, third, 3, padding=1),
            *_convolution(third, fourth, 3, padding=1),
            *_convolution(fourth, fifth, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(fifth * 6 * 6, FEATURES),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(FEATURES, FEATURES),
            nn.ReLU(inplace=True),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of a batch of images."""
        features: Tensor = self.classifier(self.features(images).flatten(1))
        return features

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return what conv1 to conv5 give, each after its ReLU (SeLa, sec. 4.1).

        Shapes (B, C, H, W) with H = W = 55, 27, 13, 13, 13. Absorbing the batch normalisation into the convolutions, as
        app. A.1 does, changes nothing in evaluation mode.
        """
        maps = []
        for layer in self.features:
            images = layer(images)
            if isinstance(layer, nn.ReLU):
                maps.append(images)
        return maps


def probe_features(maps: Tensor) -> Tensor:
    """Shrink a layer's maps to what its linear probe sees (SeLa, app. A.1; Zhang et al., 2017).

    Maps (B, C, H, W) in, features (B, C g^2) out: the maxima over the largest g x g grid of adaptive windows that keeps
    at most 9600 values. Conv1 to conv5 of the large network give 9600, 9216, 9600, 9600 and 9216; those of the small
    one, of which the paper does not speak, 9216, 9408, 9600, 9216 and 9216.

    The released code pools by windows of fixed size and stride instead, to the same sizes for the large network.

    Examples
    --------
    >>> import torch
    >>> probe_features(torch.zeros(2, 96, 55, 55)).shape
    torch.Size([2, 9600])
    """
    return F.adaptive_max_pool2d(maps, _grid(maps.shape[1])).flatten(1)


def probed(channels: int) -> int:
    """Return how many values :func:`probe_features` leaves of maps with so many channels.

    Examples
    --------
    >>> [probed(channels) for channels in CHANNELS["large"]]
    [9600, 9216, 9600, 9600, 9216]
    """
    return channels * _grid(channels) ** 2


def _grid(channels: int) -> int:
    return isqrt(PROBED // channels)


def _convolution(channels: int, filters: int, kernel: int, *, stride: int = 1, padding: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, filters, kernel, stride=stride, padding=padding)
    return [convolution, nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
