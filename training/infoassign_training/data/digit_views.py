"""Random views of a whole batch at once, each image with a distortion of its own.

torchvision's transforms draw one set of parameters per call, hence one call per image; for images of
64 pixels that overhead would be nearly all of the time. Here the parameters are vectors over the batch and
the interpolation is torch's.
"""

from math import log, radians

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from infoassign_training.data.augmentations import Distortions

_KNOTS = 4
_BLUR = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16


def random_view(images: Tensor, settings: Distortions, generator: Generator) -> Tensor:
    """Return one random view of every image.

    Parameters
    ----------
    images
        Shape (B, 1, H, W), float32 in [0, 1], on the CPU.
    settings
        How far to go.
    generator
        The source of all randomness, on the CPU.

    Returns
    -------
    Tensor
        Shape and dtype of `images`; the noise may leave [0, 1].
    """
    count = len(images)

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * limit

    angle, shear = uniform(radians(settings.rotation)), uniform(settings.shear)
    zoom, aspect = uniform(log(settings.scale)), uniform(settings.aspect) / 2
    cos, sin = angle.cos(), angle.sin()
    wide, high = (zoom + aspect).exp(), (zoom - aspect).exp()
    # Output coordinates to input coordinates: rotation after shear after scaling, then a shift.
    affine = torch.stack(
        [
            torch.stack([cos * wide, (cos * shear - sin) * high, uniform(settings.shift)], dim=1),
            torch.stack([sin * wide, (sin * shear + cos) * high, uniform(settings.shift)], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    knots = settings.elastic * torch.randn(count, 2, _KNOTS, _KNOTS, generator=generator)
    field = F.interpolate(knots, size=images.shape[-2:], mode="bicubic", align_corners=True)
    view = F.grid_sample(images, grid + field.permute(0, 2, 3, 1), align_corners=False)

    def per_image(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    view = view.clamp(0, 1) ** per_image(uniform(settings.gamma).exp())
    blurred = F.conv2d(view, _BLUR.view(1, 1, 3, 3), padding=1)
    view = torch.where(per_image(torch.rand(count, generator=generator) < settings.blur), blurred, view)
    view = view * per_image(1 + uniform(settings.gain))
    return view + settings.noise * torch.randn(view.shape, generator=generator)
