"""How long a run takes that nobody has timed: an estimate, and what it stands on.

The only numbers in it that were measured are others': FFCV-SSL trains a ResNet-50 on two views of 224 pixels at 371 to
542 images a second on an A100, and ffcv a supervised one at 3042. The smaller of the first is the speed of
multiply-adds that is assumed for all networks; the last is the most images that a device gets, however small the
network.
"""

IMAGENET = 1_281_167
"""Images of ImageNet's training set."""
IMAGENET_100 = 126_689
"""About as many are of a hundred classes; it depends on which."""
CIFAR = 50_000
"""Of CIFAR-10's, and of CIFAR-100's."""
SVHN = 73_257
"""Of SVHN's, without its extra images."""

RESNET50 = 4.1
"""Billions of multiply-adds (GMAC) that ResNet-50 takes, forwards, for an image of 224 x 224."""
RESNET18_256 = 2.4
"""ResNet-18's for an image of 256 x 256."""
RESNET18_32 = 0.56
"""ResNet-18's for an image of 32 x 32 without pooling at the start."""
ALEXNET = 1.1
"""SeLa's AlexNet's for an image of 224 x 224."""
ALEXNET_SMALL = 0.7
"""Those of its smaller variant."""
WITH_TEACHER = 4 / 3
"""How much more it takes if a second network sees the views that it learns from, too, but only forwards."""

SPEED = 371 * 2 * RESNET50
"""GMAC a second and A100 of forward passes, each with the backward pass that follows it."""
MOST = 3042
"""Images a second and A100."""


def estimate(images: int, epochs: float, gmac: float, gpus: int) -> str:
    """Say how long a run takes on A100s, in words that say that it is an estimate and of what.

    Parameters
    ----------
    images
        In an epoch.
    epochs
        Forward and backward; a pass over the images that is only forward counts as a third.
    gmac
        Billions of multiply-adds, forwards, of all views of an image.
    gpus
        A100s.

    Examples
    --------
    >>> estimate(IMAGENET, 100, 2 * RESNET50, 8).partition(";")[0]
    '12 h on 8 A100'
    >>> estimate(CIFAR, 400, 0.1, 1).partition(";")[0]
    '1.8 h on 1 A100'
    """
    rate = min(SPEED / gmac, MOST)
    hours = images * epochs / (rate * gpus) / 3600
    shown = f"{hours:.0f}" if hours >= 10 else f"{hours:.1f}"
    basis = f"from FFCV-SSL's speed of ResNet-50 and {gmac:.2g} GMAC an image" if rate < MOST else "ffcv's most"
    return f"{shown} h on {gpus} A100; estimate: {rate:.0f} images a second and GPU, {basis}"
