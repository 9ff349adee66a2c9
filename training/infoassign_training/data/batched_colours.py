"""Colours and blur of a whole batch at once, on the device that holds it, each image with parameters of its own.

The other way to make the views of `views`: there PIL changes one image at a time, in bytes. Here a worker process only
crops and draws what is to be done, as numbers; the device does it, in floating point and without rounding in between.
Every change is that of torchvision's function on tensors, whose parameters hold for all images of a call.
"""

from collections.abc import Callable
from functools import partial
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from infoassign_training.checks import require
from infoassign_training.data.augmentations import MultiCrop, View

THRESHOLD = 128 / 255
"""What is as bright is inverted by solarisation."""
TAIL = 4
"""Standard deviations at which the Gaussian ends: what is cut off is less than a fiftieth of a grey level."""
_COLOURS = 4
"""Brightness, contrast, saturation and hue, in torchvision's order."""
_NEVER = -1.0
# What is drawn for a view: the turn of each of the four (or never), the parameter of each, and
_GREY, _SIGMA, _SOLARISE = 2 * _COLOURS, 2 * _COLOURS + 1, 2 * _COLOURS + 2
# of which the first and the last are 0 or 1, and a sigma of 0 is no blur.
DRAWN = 2 * _COLOURS + 3
"""Numbers drawn for a view."""


class Draw:
    """Draws what is to be done to the colours of a view.

    Calls of torch's global generator are those of `infoassign_training.data.views.pipeline` after the flip, in the same
    order: from the same seed come the same parameters.

    Parameters
    ----------
    view
        How likely and how strong changes are; it enhances nothing.

    Examples
    --------
    >>> from infoassign_training.data.augmentations import Swav
    >>> drawn = Draw(Swav().views[0])()
    >>> drawn.shape, drawn.dtype
    (torch.Size([11]), torch.float32)
    """

    def __init__(self, view: View) -> None:
        require(view.enhance == 0, f"colours changed on the device are not enhanced; got enhance {view.enhance}")
        self.view = view
        self._jitter = v2.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)

    def __call__(self) -> Tensor:
        """Return the parameters of one view, shape (11,), float32, for :func:`coloured`."""
        view = self.view
        drawn = [0.0] * DRAWN
        drawn[:_COLOURS] = [_NEVER] * _COLOURS
        if view.grey_first:
            drawn[_GREY] = _happens(view.grey)
        if _happens(view.jitter):
            found = self._jitter.make_params([])
            for turn, which in enumerate(found["fn_idx"].tolist()):
                value = found[("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")[which]]
                if value is not None:
                    drawn[which], drawn[_COLOURS + which] = turn, value
        if not view.grey_first:
            drawn[_GREY] = _happens(view.grey)
        if _happens(view.blur):
            drawn[_SIGMA] = float(torch.empty(()).uniform_(*view.sigma))
        drawn[_SOLARISE] = _happens(view.solarise)
        return torch.tensor(drawn)


def _happens(probability: float) -> bool:
    # What cannot happen is not drawn, as there.
    return probability > 0 and bool(torch.rand(1) < probability)


def coloured(crops: Tensor, drawn: Tensor, augmentation: MultiCrop) -> Tensor:
    """Do what was drawn for every image of a batch: grey and the four changes of colour, blur, solarisation.

    What becomes of an image does not depend on the others, but for the last bits where a library computes a batch of
    another size in another order.

    Parameters
    ----------
    crops
        Shape (B, 3, S, S), uint8, on any device.
    drawn
        Shape (B, 11), as from :class:`Draw`, on the CPU: which images take part in what is decided there, so that
        nothing waits for the device.
    augmentation
        Says whether grey comes first, and how wide the widest blur is.

    Returns
    -------
    Tensor
        Shape of `crops`, float32 in [0, 1].
    """
    radius = min(ceil(TAIL * augmentation.sigma[1]), crops.shape[-1] - 1)
    changes: list[Callable[[Tensor, Tensor], Tensor]] = [brightness, contrast, saturation, hue]
    # Which images, what, and the column of its parameters.
    grey = (drawn[:, _GREY] > 0, lambda images, _: grey_of(images), _GREY)
    steps: list[tuple[Tensor, Callable[[Tensor, Tensor], Tensor], int]] = [
        (drawn[:, which] == turn, change, _COLOURS + which)
        for turn in range(_COLOURS)
        for which, change in enumerate(changes)
    ]
    steps.insert(0 if augmentation.grey_first else len(steps), grey)
    steps.append((drawn[:, _SIGMA] > 0, partial(blurred, radius=radius), _SIGMA))
    steps.append((drawn[:, _SOLARISE] > 0, lambda images, _: solarised(images), _SOLARISE))

    chosen = [mask.nonzero().flatten() for mask, _, _ in steps]
    # One copy to the device for all.
    there = torch.cat(chosen).to(crops.device, non_blocking=True).split([len(rows) for rows in chosen])
    parameters = drawn.to(crops.device, non_blocking=True)
    images = crops / 255
    for (_, change, column), rows in zip(steps, there, strict=True):
        if len(rows):
            images.index_copy_(0, rows, change(images[rows], parameters[rows, column]))
    return images


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply by the factors.

    Parameters
    ----------
    images
        Shape (B, 3, H, W), float32 in [0, 1]; so for all that follow.
    factors
        Shape (B,), not negative.

    Returns
    -------
    Tensor
        As `images`; so for all that follow.

    Examples
    --------
    >>> brightness(torch.full((2, 3, 1, 1), 0.5), torch.tensor([0.5, 3.0]))[:, 0, 0, 0]
    tensor([0.2500, 1.0000])
    """
    return (images * _wide(factors)).clamp_(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Move away from the mean grey of each image (factors above 1) or towards it, factors of shape (B,)."""
    return _blend(images, _luminance(images).mean(dim=(-2, -1), keepdim=True), factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Move away from the grey of each pixel (factors above 1) or towards it, factors of shape (B,)."""
    return _blend(images, _luminance(images), factors)


def hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the colour circle by shifts of shape (B,), in turns."""
    red, green, blue = images.unbind(1)
    low, high = torch.aminmax(images, dim=1)
    spread = high - low
    inverse = torch.where(spread > 0, spread, 1).reciprocal_()
    # In sixths of the circle, from red; 0 where there is no hue.
    at_blue = torch.where(high == green, (blue - red) * inverse + 2, (red - green) * inverse + 4)
    angle = torch.where(high == red, (green - blue) * inverse, at_blue) + 6 * shifts.view(-1, 1, 1)
    # Back without saturation: over the circle, red stays at its height for two sixths, falls by the spread in the next,
    # stays there for two and rises; green and blue do so two and four sixths later.
    sixths = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(3, 1, 1)
    place = (angle.unsqueeze(1) + sixths).remainder_(6)
    fall = torch.minimum(place, 4 - place).clamp_(0, 1)
    return high.unsqueeze(1) - spread.unsqueeze(1) * fall


def grey_of(images: Tensor) -> Tensor:
    """Replace colours by their grey, three channels of it."""
    return _luminance(images).expand_as(images)


def blurred(images: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """Convolve with Gaussians, reflecting images at their borders.

    Parameters
    ----------
    images
        Shape (B, 3, H, W), H and W larger than `radius`.
    sigmas
        Standard deviations in pixels, shape (B,), positive.
    radius
        Where every Gaussian ends: torchvision's kernel size is ``2 * radius + 1``.
    """
    count, channels, height, width = images.shape
    places = torch.arange(-radius, radius + 1, device=images.device)
    kernels = torch.softmax(-0.5 * (places / sigmas.view(-1, 1)) ** 2, dim=1).repeat_interleave(channels, dim=0)
    groups = count * channels
    # Rows, then columns: one channel after the other, so that each can have a kernel of its own.
    wide = F.pad(images, (radius,) * 4, mode="reflect").view(1, groups, height + 2 * radius, width + 2 * radius)
    wide = F.conv2d(wide, kernels.view(groups, 1, 1, -1), groups=groups)
    return F.conv2d(wide, kernels.view(groups, 1, -1, 1), groups=groups).view_as(images)


def solarised(images: Tensor) -> Tensor:
    """Invert values of 128 / 255 and above."""
    return torch.where(images >= THRESHOLD, 1 - images, images)


def _luminance(images: Tensor) -> Tensor:
    # torchvision's weights, which PIL has with a digit more.
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _blend(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    ratio = _wide(factors)
    return (images * ratio + others * (1 - ratio)).clamp_(0, 1)


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
