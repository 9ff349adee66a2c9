"""From settings to a method with its initial weights."""

import torch
from torch import nn

from infoassign_training.config import Pretraining
from infoassign_training.methods import settings
from infoassign_training.methods.method import Method
from infoassign_training.models.build import encoder_of, projector_of


def build(chosen: Pretraining, *, images: int, classes: int) -> Method:
    """Make the networks and the method around them; the initial weights depend on the seed alone.

    On torch's meta device (``with torch.device("meta"):``) that takes no memory.

    Parameters
    ----------
    chosen
        What to train.
    images, classes
        How many there are in the training data; 0 classes if they are not known.

    Raises
    ------
    ValueError
        If the parts do not fit each other or the data.
    """
    if chosen.method.supervised and not classes:
        raise ValueError(f"method {chosen.method.kind} needs images with classes")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen.seed)
        encoder, features = encoder_of(chosen.encoder, chosen.image_size)
        projector = None if chosen.projector is None else projector_of(chosen.projector, features)
        projection = 0 if chosen.projector is None else chosen.projector.projection
        return method_of(
            chosen.method,
            encoder,
            projector or nn.Identity(),
            features=features,
            projection=projection,
            images=images,
            classes=classes,
        )


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
        Images to features (B, `features`); features to projections (B, `projection`), if the method compares those.
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
        case settings.Transfer():
            from infoassign_training.methods.transfer import Transfer

            return Transfer(encoder, features, images, chosen)
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
