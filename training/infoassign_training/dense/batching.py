"""Images of different sizes as one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class OnImages(nn.Module):
    """A model of images that differ in size.

    Parameters
    ----------
    mean, std
        Taken from the channels, which lie in [0, 1], and what they are divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def batched(self, images: Sequence[Tensor], stride: int = 1) -> Tensor:
        """Scale colours, and fill up with 0 to one size, a multiple of the stride.

        Images (3, H, W), uint8, in; (B, 3, height, width), float32, out.

        Examples
        --------
        >>> images = [torch.zeros(3, 5, 9, dtype=torch.uint8), torch.zeros(3, 7, 2, dtype=torch.uint8)]
        >>> OnImages((0.5,) * 3, (0.5,) * 3).batched(images, 4).shape
        torch.Size([2, 3, 8, 12])
        """
        height, width = (-(-max(image.shape[axis] for image in images) // stride) * stride for axis in (1, 2))
        whole = self.mean.new_zeros((len(images), 3, height, width))
        for row, image in zip(whole, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = (image / 255 - self.mean) / self.std
        return whole
