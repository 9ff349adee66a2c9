"""The residual encoders of the papers: torchvision's networks without their classifier."""

from torch import nn
from torchvision.models import resnet as networks

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
"""Networks that :func:`resnet` makes."""


def resnet(name: str, *, cifar_stem: bool, zero_init_residual: bool) -> tuple[nn.Module, int]:
    """Make a residual network that ends in its average-pooled features.

    The keys of its state are torchvision's, so that, but for the ``fc`` that it lacks and the convolution of
    `cifar_stem`, the weights load there and back.

    Parameters
    ----------
    name
        One of `NAMES`: ``resnet50`` in MIRA (sec. 4.1), MUSIC (sec. 3), IMSVD (sec. IV) and, beside AlexNet, SeLa
        (sec. 4.1), ``resnet18`` for MIRA's and IMSVD's smaller images.
    cifar_stem
        For images of 32 x 32: start with a 3 x 3 convolution of stride 1 and without pooling, as the released code
        of MIRA and of IMSVD does. It is padded by 1, as in IMSVD's code, so that the maps have the size of the images;
        MIRA's pads by 2.
    zero_init_residual
        Start every block as the identity, by a last scale of 0 in its branch; MIRA's and VICReg's code do.

    Returns
    -------
    encoder
        Images (B, 3, H, W) in, features (B, `features`) out.
    features
        Length of the features: 512 up to ``resnet34``, else 2048.

    Raises
    ------
    ValueError
        If there is no such network.

    Examples
    --------
    >>> import torch
    >>> encoder, features = resnet("resnet18", cifar_stem=True, zero_init_residual=True)
    >>> features, encoder(torch.zeros(2, 3, 32, 32)).shape
    (512, torch.Size([2, 512]))
    """
    if name not in NAMES:
        raise ValueError(f"there is no residual network {name!r}; choose one of {', '.join(NAMES)}")
    encoder = getattr(networks, name)(zero_init_residual=zero_init_residual)
    features = encoder.fc.in_features
    encoder.fc = nn.Identity()
    if cifar_stem:
        encoder.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        # As torchvision does for every convolution.
        nn.init.kaiming_normal_(encoder.conv1.weight, mode="fan_out", nonlinearity="relu")
        encoder.maxpool = nn.Identity()
    return encoder, features
