"""From settings to networks with their initial weights."""

from torch import nn

from infoassign_training.models import settings
from infoassign_training.models.heads import projector
from infoassign_training.models.small import SmallResNet


def encoder_of(chosen: settings.Encoder, image_size: int) -> tuple[nn.Module, int]:
    """Make an encoder.

    Parameters
    ----------
    chosen
        Which, and how.
    image_size
        Height and width of the views, the global ones if there are several sizes.

    Returns
    -------
    encoder
        Views (B, C, H, W) in, features (B, `features`) out.
    features
        Length of the features.

    Raises
    ------
    ValueError
        If the encoder cannot be made for views of this size.
    """
    # Only what is asked for is imported.
    match chosen:
        case settings.SmallResNet():
            return SmallResNet(chosen.widths, chosen.features, image_size), chosen.features
        case settings.ResNet():
            from infoassign_training.models.resnet import resnet

            return resnet(chosen.name, cifar_stem=chosen.cifar_stem, zero_init_residual=chosen.zero_init_residual)
        case settings.AlexNet():
            from infoassign_training.models.alexnet import FEATURES, SIZE, AlexNet

            if image_size != SIZE:
                raise ValueError(f"AlexNet takes images of {SIZE} x {SIZE}; the views are of {image_size}")
            return AlexNet(chosen.size), FEATURES


def projector_of(chosen: settings.Projector, features: int) -> nn.Module:
    """Make what stands between features (B, `features`) and projections (B, `chosen.projection`)."""
    return projector(
        features, chosen.hidden, chosen.projection, hidden_bias=chosen.hidden_bias, last_bias=chosen.last_bias
    )
