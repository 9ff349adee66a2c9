"""Where in images a unit comes from (Grad-CAM, Selvaraju et al., 2017)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class Maps:
    """Where some images are like a unit."""

    unit: int
    layer: str
    """Whose maps are weighed."""
    rows: NDArray[np.int64]
    """Which images, (n,)."""
    probability: NDArray[np.float32]
    """Of the unit, (n,)."""
    heat: NDArray[np.float32]
    """In [0, 1], as large as the maps of the layer, (n, h, w)."""

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "unit": self.unit,
            "layer": self.layer,
            "images": self.rows.tolist(),
            "probability": self.probability.tolist(),
            "heat": self.heat.tolist(),
        }


def layer_of(encoder: nn.Module, images: Tensor, name: str = "") -> tuple[str, nn.Module]:
    """Return a module of an encoder that makes maps of more than a pixel; the last of the pass, if none is named.

    Parameters
    ----------
    encoder
        In evaluation mode.
    images
        As it takes them, (B, C, H, W).
    name
        Of the module in the encoder.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> layer_of(network, torch.zeros(1, 1, 8, 8))[0]
    '1'
    """
    seen: list[tuple[str, nn.Module]] = []

    def noting(name: str) -> Callable[..., None]:
        def note(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
                seen.append((name, module))

        return note

    hooks = [module.register_forward_hook(noting(name)) for name, module in encoder.named_modules() if name]
    try:
        with torch.no_grad():
            encoder(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ValueError("the encoder makes no maps of more than a pixel")
    if name and name not in dict(seen):
        raise ValueError(f"no layer {name!r} makes maps; there are {', '.join(dict(seen))}")
    return (name, dict(seen)[name]) if name else seen[-1]


def heat(network: Callable[[Tensor], Tensor], layer: nn.Module, images: Tensor, unit: int) -> NDArray[np.float32]:
    """Return captum's Grad-CAM of a unit for images (n, C, H, W), each map scaled to a largest value of 1, (n, h, w).

    Parameters
    ----------
    network
        Images in, units (n, K) out; in evaluation mode, so that images do not see each other.
    layer
        Of the network; its maps are weighed by the mean of the unit's gradient over each.
    images
        As the network takes them.
    unit
        From 0 to K - 1.
    """
    # Only here: no other figure needs it.
    from captum.attr import LayerGradCam

    weighed = LayerGradCam(network, layer).attribute(images, target=unit, relu_attributions=True).detach()[:, 0]
    largest = weighed.amax(dim=(1, 2), keepdim=True)
    array: NDArray[np.float32] = (weighed / torch.where(largest > 0, largest, 1)).cpu().numpy()
    return array


def draw(found: Maps, pictures: NDArray[np.float32]) -> Figure:
    """Draw images (n, S, S, 3), and below each the same with the heat over it."""
    count = len(found.rows)
    figure = Figure(figsize=(1.1 * count + 1.4, 3), layout="constrained")
    above, below = figure.subplots(2, count, squeeze=False)
    size = pictures.shape[1]
    drawn = None
    for number in range(count):
        above[number].imshow(pictures[number], interpolation="nearest")
        below[number].imshow(pictures[number].mean(axis=-1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        drawn = below[number].imshow(found.heat[number], cmap="inferno", vmin=0, vmax=1, alpha=0.6,
                                     interpolation="bilinear", extent=(-0.5, size - 0.5, size - 0.5, -0.5))  # fmt: skip
        below[number].set_xlabel(f"{found.probability[number]:.2f}", fontsize=8)
        for axes in (above[number], below[number]):
            axes.set_xticks([])
            axes.set_yticks([])
    if drawn is not None:
        figure.colorbar(drawn, ax=below, label="heat, of its largest")
    figure.supxlabel("probability of the unit", fontsize=9)
    figure.suptitle(f"Grad-CAM of unit {found.unit} at {found.layer}: its likeliest images", fontsize=11)
    return figure
