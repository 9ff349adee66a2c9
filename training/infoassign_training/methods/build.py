"""From settings to a method with its initial weights."""

from torch import nn

from infoassign_training.methods import settings
from infoassign_training.methods.method import Method


def method_of(
    chosen: settings.Settings,
    encoder: nn.Module,
    projector: nn.Module,
    *,
    features: int,
    projection: int,
    images: int,
    classes: int,
) -> Method:
    """Put a method around an encoder.

    Parameters
    ----------
    chosen
        Which method, and how.
    encoder, projector
        Images to features (B, `features`); features to projections (B, `projection`).
    images, classes
        How many there are in the training data.
    """
    # Only what is asked for is imported.
    match chosen:
        case settings.Mira():
            from infoassign_training.methods.mira import Mira

            return Mira(encoder, projector, projection, chosen)
        case settings.Swav():
            from infoassign_training.methods.swav import Swav

            return Swav(encoder, projector, projection, chosen)
        case settings.Sela():
            from infoassign_training.methods.sela import Sela

            return Sela(encoder, features, images, chosen)
        case settings.DeepCluster():
            from infoassign_training.methods.deepcluster import DeepCluster

            return DeepCluster(encoder, features, images, chosen)
        case settings.Music():
            from infoassign_training.methods.music import Music

            return Music(encoder, projector, chosen)
        case settings.Imsvd():
            from infoassign_training.methods.imsvd import Imsvd

            return Imsvd(encoder, projector, chosen)
        case settings.BarlowTwins():
            from infoassign_training.methods.barlow_twins import BarlowTwins

            return BarlowTwins(encoder, projector, chosen)
        case settings.Vicreg():
            from infoassign_training.methods.vicreg import Vicreg

            return Vicreg(encoder, projector, chosen)
        case settings.Supervised():
            from infoassign_training.methods.supervised import Supervised

            return Supervised(encoder, features, classes)
