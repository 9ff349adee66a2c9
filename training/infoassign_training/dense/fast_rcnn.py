"""Fast R-CNN (Girshick, 2015) with SeLa's AlexNet, on regions that are given.

After the released code for CaffeNet (``fast-rcnn``, and ``py-faster-rcnn``, which SeLa names for its table 7): the five
convolutions without the last pooling, maxima over 6 x 6 cells of each region, fc6 and fc7 with dropout after either, a
class and, for each class, a box. As there, convolutions and poolings are padded by half their width and poolings round
up, so that place i of the maps stands for pixel 16 i; regions on objects overlap one by half at least, background by .1
to .5; the smooth L1 distance of boxes is summed over regions on objects and divided by the number of all.

What differs from the released code:

- all layers are trained, as table 7 says; there the first convolution of CaffeNet is not (``frozen_layers=1``);
- there is batch normalisation in the pretrained network. It is absorbed into the convolutions, with the statistics as
  they are, as the field does to bring such networks to Caffe and SeLa for its probes (app. A.1), and is no longer there
  when training begins. There is no local response normalisation, and no groups in convolutions, as in SeLa's network;
- weights are not rescaled from layer to layer, which Krähenbühl et al. (2016) do for some networks. SeLa does not say;
- regression targets are divided by (.1, .1, .2, .2), which py-faster-rcnn has for its own proposals; for given ones it
  takes means and deviations over the training set, class by class;
- a box ends where its last pixel ends. In the first release overlaps are counted like this, but shifts and sizes of
  boxes as if they ended where their last pixel begins;
- biases have the rate and the decay of weights; there they have twice the rate and no decay. A lower rate acts on the
  momentum at once (PyTorch); in Caffe on new gradients alone;
- half of the views are mirrored at random; there every image is there twice in each pass, once mirrored, and upright
  and broad images are kept apart;
- colours are red, green, blue, scaled as the encoder was trained; there blue, green, red, 0 to 255, means subtracted.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou, roi_pool

from infoassign_training.dense.batching import OnImages
from infoassign_training.dense.challenge import Target
from infoassign_training.dense.settings import RegionDetector
from infoassign_training.models.alexnet import AlexNet

STRIDE = 16
"""Pixels of an image from one place of the maps to the next."""
POOLED = 6
"""Height and width of a region's maps."""


class FastRCNN(OnImages):
    """A detector on given regions.

    Parameters
    ----------
    encoder
        SeLa's AlexNet; its layers become the detector's own.
    classes
        How many, without the background, which is number 0.
    chosen
        How it is made.
    mean, std
        Taken from the channels, which lie in [0, 1], and what they are divided by.

    Raises
    ------
    ValueError
        If the encoder is no AlexNet.
    """

    def __init__(
        self,
        encoder: nn.Module,
        classes: int,
        chosen: RegionDetector,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__(mean, std)
        if not isinstance(encoder, AlexNet):
            raise ValueError("Fast R-CNN is made of SeLa's AlexNet here; for a residual network take voc-c4")
        self.backbone = backbone(encoder)
        convolutions = [layer for layer in self.backbone if isinstance(layer, nn.Conv2d)]
        for layer in convolutions[: chosen.frozen_layers]:
            layer.requires_grad_(False)
        self.heads = RegionHeads(encoder, classes + 1, chosen.regions)

    def forward(self, images: list[Tensor], targets: list[Target]) -> Any:
        """Return the losses of a batch by name in training mode, or what is found in each image.

        Parameters
        ----------
        images
            Each (3, H, W), uint8, all of sizes of their own.
        targets
            Of each boxes (n, 4) as left, top, right, bottom in pixels, and labels (n,), int64: 0 of a region that is
            proposed, and from 1 of an object. Objects are looked at in training mode alone.

        Returns
        -------
        dict or list of dict
            Scalars; or of each image boxes (n, 4), labels (n,) and scores (n,), best first.
        """
        proposals = [target["boxes"][target["labels"] == 0] for target in targets]
        objects = [{name: value[target["labels"] > 0] for name, value in target.items()} for target in targets]
        maps = self.backbone(self.batched(images))
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        found, losses = self.heads(maps, proposals, sizes, objects)
        return losses if self.training else found


def backbone(encoder: AlexNet) -> nn.Sequential:
    """Return the convolutions of an AlexNet, their normalisation absorbed; images in, maps at every 16th pixel out."""
    layers: list[nn.Module] = []
    for layer in list(encoder.eval().features)[:-1]:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = layers.pop()
            assert isinstance(convolution, nn.Conv2d)
            fused = fuse_conv_bn_eval(convolution, layer)
            fused.padding = tuple(width // 2 for width in fused.kernel_size)
            layers.append(fused)
        elif isinstance(layer, nn.MaxPool2d):
            layers.append(nn.MaxPool2d(layer.kernel_size, layer.stride, padding=1, ceil_mode=True))
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


class RegionHeads(RoIHeads):  # type: ignore[misc]
    """Class and box of regions, from fc6 and fc7.

    Parameters
    ----------
    encoder
        The network whose two layers these are.
    classes
        With the background.
    regions
        How many of each image are trained on, a quarter of them on objects at most.
    """

    def __init__(self, encoder: AlexNet, classes: int, regions: int) -> None:
        fc6, fc7 = (layer for layer in encoder.classifier if isinstance(layer, nn.Linear))
        predictor = FastRCNNPredictor(fc7.out_features, classes)
        nn.init.normal_(predictor.cls_score.weight, std=0.01)
        nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
        nn.init.zeros_(predictor.cls_score.bias)
        nn.init.zeros_(predictor.bbox_pred.bias)
        super().__init__(
            box_roi_pool=None,
            box_head=nn.Sequential(
                nn.Flatten(), fc6, nn.ReLU(inplace=True), nn.Dropout(), fc7, nn.ReLU(inplace=True), nn.Dropout()
            ),
            box_predictor=predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions,
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=0.05,
            nms_thresh=0.3,
            detections_per_img=100,
        )

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the object that each region overlaps most, and its class: 0 from .1 to .5, and -1, ignored, below."""
        rows, classes = [], []
        for regions, boxes, labels in zip(proposals, gt_boxes, gt_labels, strict=True):
            overlaps, matched = box_iou(boxes, regions).max(dim=0)
            of_regions = labels[matched]
            of_regions[overlaps < 0.5] = 0
            of_regions[overlaps < 0.1] = -1
            rows.append(matched)
            classes.append(of_regions)
        return rows, classes

    def forward(
        self,
        features: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return what is found in each image, or the losses."""
        if self.training:
            return [], self._losses(features, proposals, targets)
        scores, moves = self._read(features, proposals)
        found = zip(*self.postprocess_detections(scores, moves, proposals, image_shapes), strict=True)
        return [{"boxes": boxes, "labels": labels, "scores": scores} for boxes, scores, labels in found], {}

    def _losses(self, features: Tensor, proposals: list[Tensor], targets: list[Target] | None) -> dict[str, Tensor]:
        regions, _, labels, moves = self.select_training_samples(list(proposals), targets)
        scores, guessed = self._read(features, regions)
        classes = torch.cat(labels)
        on_object = classes > 0
        own = guessed.reshape(len(classes), -1, 4)[on_object, classes[on_object]]
        distance = F.smooth_l1_loss(own, torch.cat(moves)[on_object], reduction="sum")
        return {"loss_classifier": F.cross_entropy(scores, classes), "loss_box_reg": distance / len(classes)}

    def _read(self, features: Tensor, regions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return scores (n, C) and moves (n, 4 C) of the regions of all images."""
        # It wants the first and the last pixel.
        ends = [boxes - boxes.new_tensor([0, 0, 1, 1]) for boxes in regions]
        maps = roi_pool(features, ends, POOLED, 1 / STRIDE)
        scores, moves = self.box_predictor(self.box_head(maps))
        return scores, moves
