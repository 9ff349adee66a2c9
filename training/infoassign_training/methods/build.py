"""From settings to a method with its initial weights."""

import torch
from torch import nn

from infoassign_training.config import Pretraining
from infoassign_training.methods.method import Method, Parts
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
        projector: nn.Module = nn.Identity()
        projection = features
        if chosen.projector is not None:
            projector, projection = projector_of(chosen.projector, features), chosen.projector.projection
        return chosen.method.method(Parts(encoder, projector, features, projection, images, classes))
