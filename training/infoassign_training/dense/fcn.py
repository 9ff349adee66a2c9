"""A fully convolutional network with a stride of 32 (FCN-32s; Long et al., 2015) made of an encoder.

SeLa's code (README, Pascal VOC) names the protocol of table 7: that of the Colorization paper's code
(``richzhang/colorization``, ``feature_learning_tests/segmentation``), which is the ``voc-fcn-alexnet`` of
``shelhamer/fcn.berkeleyvision.org`` with its own schedule. As there: the image lies in a margin of 100 zeros in the
first convolution; poolings see what is left at the edges (Caffe rounds sizes up); fc6 and fc7 are convolutions of the
weights they had; dropout comes after each; the new layer of scores begins at zero; scores are brought to the image's
size by a transposed convolution that interpolates bilinearly and is not trained; the loss of an image is the mean over
its pixels of a class, that of a step the mean over its images.

What differs:

- the encoder is SeLa's AlexNet, without groups and with normalisation, whose statistics, scales and shifts stay as they
  are (``frozen``); there the normalisation is absorbed into the convolutions, which is the same network with other
  scales of its weights, and the weights are then rescaled so that all layers learn alike (Krähenbühl et al., 2016),
  which is not done here;
- images come in another order in every pass; there in the same;
- biases are trained as weights are; there they have twice the rate and no weight decay;
- the images of a step are one batch, smaller ones filled up with zeros and pixels of no class; there they are looked at
  one by one. Near the right and lower edge of a smaller image that is not quite the same. Tested images are alone;
- colours are red, green, blue, scaled as the encoder was trained; there blue, green, red minus their mean, and for
  Colorization's own network Lab;
- a residual network, which nobody of them has, ends in its last stage, on which the scores stand; it needs no margin.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from infoassign_training.dense.batching import OnImages
from infoassign_training.dense.c4 import STAGES, frozen
from infoassign_training.dense.challenge import Target
from infoassign_training.dense.pixels import VOID
from infoassign_training.dense.settings import Segmenter
from infoassign_training.models.alexnet import AlexNet

STRIDE = 32
"""Pixels of an image from one place of the scores to the next."""


class FCN(OnImages):
    """Images in, the class of every pixel out.

    Parameters
    ----------
    encoder
        SeLa's AlexNet, or a residual network of torchvision's; its layers become the network's own.
    classes
        How many, with the background.
    chosen
        How it is made.
    mean, std
        Taken from the channels, which lie in [0, 1], and what they are divided by.

    Raises
    ------
    ValueError
        If the encoder is neither, or one for small images, whose maps have another stride.
    """

    kernel: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: int,
        chosen: Segmenter,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__(mean, std)
        if isinstance(encoder, AlexNet):
            body = _convolved(encoder)
            # The first convolution pads by 2 itself. Place 0 of the scores looks at pixels -164 to 190 then, the middle
            # of which is 13: its window is of 355 pixels, and before the margin there are 64 that inner layers pad.
            self.margin, self.first = 98, 13
        elif isinstance(encoder, ResNet) and isinstance(encoder.maxpool, nn.MaxPool2d):
            parts = {name: getattr(encoder, name) for stage in STAGES for name in stage}
            body = nn.Sequential(OrderedDict(parts))
            self.margin, self.first = 0, 0
        else:
            raise ValueError(
                "a fully convolutional network is made of SeLa's AlexNet, or of a residual network for large images,"
                " such as resnet50"
            )
        self.body = frozen(body) if chosen.normalisation == "frozen" else body
        *_, last = (layer for layer in body.modules() if isinstance(layer, nn.Conv2d))
        self.score = nn.Conv2d(last.out_channels, classes, 1)
        for parameter in self.score.parameters():
            nn.init.zeros_(parameter)
        ramp = 1 - torch.arange(1 - STRIDE, STRIDE).abs() / STRIDE
        self.register_buffer("kernel", (ramp[:, None] * ramp).expand(classes, 1, -1, -1).clone(), persistent=False)

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        """Return the loss of a batch by name in training mode, or the class of every pixel.

        Parameters
        ----------
        images
            Each (3, H, W), uint8, all of sizes of their own.
        targets
            Of each image ``classes``, (H, W), uint8, 255 for none. Needed in training mode alone.

        Returns
        -------
        dict or list of Tensor
            A scalar; or of each image (H, W), int64.
        """
        scores = self.scores(self.batched(images))
        if not self.training:
            return [
                one[:, : image.shape[1], : image.shape[2]].argmax(dim=0)
                for one, image in zip(scores, images, strict=True)
            ]
        assert targets is not None
        whole = torch.full((len(images), *scores.shape[2:]), VOID, dtype=torch.int64, device=scores.device)
        for row, target in zip(whole, targets, strict=True):
            classes = target["classes"]
            row[: classes.shape[0], : classes.shape[1]] = classes
        losses = F.cross_entropy(scores, whole, ignore_index=VOID, reduction="none").sum((1, 2))
        # An image without a pixel of a class has no loss.
        return {"loss_pixels": (losses / (whole != VOID).sum((1, 2)).clamp(min=1)).mean()}

    def scores(self, images: Tensor) -> Tensor:
        """Return the scores of all classes at every pixel, (B, classes, H, W), of scaled images (B, 3, H, W)."""
        height, width = images.shape[2:]
        coarse = self.score(self.body(F.pad(images, [self.margin] * 4)))
        fine = F.conv_transpose2d(coarse, self.kernel, stride=STRIDE, groups=len(self.kernel))
        cut = STRIDE - 1 - self.first
        return fine[:, :, cut : cut + height, cut : cut + width]


def _convolved(network: AlexNet) -> nn.Sequential:
    """Return the network as convolutions."""
    for layer in network.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True
    six, seven = (layer for layer in network.classifier if isinstance(layer, nn.Linear))
    side = 6  # of the maps that fc6 saw
    layers = OrderedDict[str, nn.Module](
        features=network.features,
        fc6=_convolution(six, side),
        relu6=nn.ReLU(inplace=True),
        drop6=nn.Dropout(0.5),
        fc7=_convolution(seven, 1),
        relu7=nn.ReLU(inplace=True),
        drop7=nn.Dropout(0.5),
    )
    return nn.Sequential(layers)


def _convolution(layer: nn.Linear, side: int) -> nn.Conv2d:
    """Return a linear layer on maps of some side as a convolution of that size."""
    convolution = nn.Conv2d(layer.in_features // side**2, layer.out_features, side, device="meta")
    weight = layer.weight.detach().reshape(convolution.weight.shape)
    convolution.load_state_dict({"weight": weight, "bias": layer.bias.detach()}, assign=True)
    return convolution
