"""The filters of the first convolution."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from infoassign_training.figures.style import BLUE


@dataclass(frozen=True)
class Filters:
    """Weights of a convolution."""

    name: str
    """Of the layer, in the encoder."""
    weights: NDArray[np.float32]
    """Shape (filters, channels, H, W)."""

    @property
    def norms(self) -> NDArray[np.float32]:
        """The length of every filter."""
        lengths: NDArray[np.float32] = np.sqrt((self.weights**2).sum(axis=(1, 2, 3)))
        return lengths

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"layer": self.name, "shape": list(self.weights.shape), "norms": self.norms.tolist()}


def first(encoder: nn.Module) -> Filters:
    """Return the filters of the first convolution of an encoder.

    Raises
    ------
    ValueError
        If it has none.

    Examples
    --------
    >>> found = first(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 5)))
    >>> found.name, found.weights.shape
    ('1', (8, 3, 5, 5))
    """
    for name, layer in encoder.named_modules():
        if isinstance(layer, nn.Conv2d):
            return Filters(name, layer.weight.detach().float().cpu().numpy())
    raise ValueError("the encoder has no convolution")


def scaled(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale every filter (F, C, H, W) to [0, 1], as (F, H, W, 3): three channels are colours, others their mean.

    Examples
    --------
    >>> scaled(np.array([[[[-2.0, 0.0, 2.0]]]], dtype=np.float32))[0, 0, :, 0].tolist()
    [0.0, 0.5, 1.0]
    """
    if weights.shape[1] != 3:
        weights = weights.mean(axis=1, keepdims=True).repeat(3, axis=1)
    least = weights.min(axis=(1, 2, 3), keepdims=True)
    range_ = weights.max(axis=(1, 2, 3), keepdims=True) - least
    found: NDArray[np.float32] = ((weights - least) / np.where(range_ > 0, range_, 1)).transpose(0, 2, 3, 1)
    return found


def draw(found: Filters) -> Figure:
    """Draw the filters, the longest first; a filter's darkest weight is 0 and its brightest 1."""
    pictures = scaled(found.weights)[np.argsort(-found.norms, kind="stable")]
    # Weights of a few pixels each, so that what is between the filters is thin.
    larger = max(1, 24 // pictures.shape[2])
    pictures = pictures.repeat(larger, axis=1).repeat(larger, axis=2)
    count, height, width = pictures.shape[:3]
    across = int(np.ceil(np.sqrt(2 * count)))
    down = -(-count // across)
    sheet = np.ones((down * (height + 1) + 1, across * (width + 1) + 1, 3))
    for place, picture in enumerate(pictures):
        row, column = divmod(place, across)
        top, left = row * (height + 1) + 1, column * (width + 1) + 1
        # Around the filters a colour that is none of theirs, so that their white ends somewhere.
        sheet[top - 1 : top + height + 1, left - 1 : left + width + 1] = to_rgb(BLUE)
        sheet[top : top + height, left : left + width] = picture
    figure = Figure(figsize=(9, 9 * down / across + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    shape = " x ".join(map(str, found.weights.shape[1:]))
    axes.set_xlabel("each scaled to [0, 1], longest first", fontsize=9)
    axes.set_title(f"{count} filters of {found.name}, {shape}", loc="left", fontsize=11)
    return figure
