"""Mask R-CNN on the maps of a residual network's third stage, with its last stage as the head (C4).

After detectron2's ``GeneralizedRCNN`` with ``Res5ROIHeads`` as its ``mask_rcnn_R_50_C4_1x.yaml`` sets it up, and, with
trained normalisation, as MoCo's ``Res5ROIHeadsExtraNorm`` does; put together from torchvision's parts. As there, and
other than in torchvision's Mask R-CNN: regions are cut out by the aligned RoIAlign with as many samples as they need,
boxes are learned by the plain L1 distance, the mask head sees the very maps that the box head averages, and masks are
pasted by sampling at the centres of pixels.

What differs from detectron2:

- anchors have corners at whole pixels (torchvision's rounds them), and images are padded to multiples of 16, so that
  the stride is 16 exactly; there the padding is up to the largest image of the batch;
- what a mask should be is 1 in those of its 14 x 14 cells that the object's bitmap covers by half; there the polygon
  is drawn into them;
- run lengths, which stand for objects in some files, are scaled by taking the nearest pixel;
- where a block halves its maps, the stride is that of its 3 x 3 convolution, as in torchvision and MoCo's settings; in
  detectron2's own weights it is that of the 1 x 1 before;
- normalisation over several processes weighs each by its number of regions (PyTorch's ``SyncBatchNorm``); MoCo's code
  weighs them equally. Without CUDA each process normalises its own images, and the statistics are averaged in the end;
- proposals that are not finite are dropped; there they end the training. Here the loss does, some steps later;
- batches mix upright and broad images; there they are kept apart;
- colours are red, green, blue, scaled as the encoder was trained; detectron2's own weights take them the other way
  round and unscaled.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.resnet import ResNet
from torchvision.ops import FrozenBatchNorm2d, roi_align

from infoassign_training.dense.batching import OnImages
from infoassign_training.dense.challenge import Target
from infoassign_training.dense.settings import Detector

STRIDE = 16
"""Pixels of an image from one place of the maps to the next."""
SHAPES = (0.5, 1.0, 2.0)
"""Heights of anchors, in units of their widths."""
POOLED = 14
"""Height and width of a region's maps."""
STAGES = (("conv1", "bn1", "relu", "maxpool"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
"""Parts of a residual network, in the order in which they can be frozen; all but the last make up the backbone."""
MASK_CHANNELS = 256
"""Of the maps from which masks are read."""


class C4(OnImages):
    """A detector.

    Parameters
    ----------
    encoder
        A residual network of torchvision's; its stages become the detector's own.
    classes
        How many, without the background, which is number 0.
    chosen
        How it is made.
    mean, std
        Taken from the channels, which lie in [0, 1], and what they are divided by.

    Raises
    ------
    ValueError
        If the encoder is no such network, or one for small images, whose maps have another stride.
    """

    def __init__(
        self,
        encoder: nn.Module,
        classes: int,
        chosen: Detector,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__(mean, std)
        if not isinstance(encoder, ResNet) or not isinstance(encoder.maxpool, nn.MaxPool2d):
            raise ValueError("Mask R-CNN C4 is made of a residual network for large images, such as resnet50")
        parts = {name: getattr(encoder, name) for stage in STAGES for name in stage}
        kept = {name for stage in STAGES[: chosen.frozen_stages] for name in stage}
        for name, part in parts.items():
            part.requires_grad_(name not in kept)
            if name in kept or chosen.normalisation == "frozen":
                parts[name] = frozen(part)
        channels, features = _channels(parts["layer3"]), _channels(parts["layer4"])
        res5 = nn.Sequential(OrderedDict(layer4=parts.pop("layer4")))
        if chosen.normalisation == "trained":
            res5.add_module("norm", nn.BatchNorm2d(features))
        self.backbone = nn.Sequential(OrderedDict(parts))
        self.rpn = _proposals(channels, chosen.anchors)
        self.heads = Res5Heads(res5, features, classes + 1, masks=chosen.masks, regions=chosen.regions)

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        """Return the losses of a batch by name in training mode, or what is found in each image.

        Parameters
        ----------
        images
            Each (3, H, W), uint8, all of sizes of their own.
        targets
            What is in each: boxes (n, 4) as left, top, right, bottom in pixels; labels (n,), int64, from 1; and for
            masks these, (n, H, W). Needed in training mode alone.

        Returns
        -------
        dict or list of dict
            Scalars; or of each image boxes (n, 4), labels (n,) and scores (n,), best first, and with masks these within
            their boxes, (n, 1, 14, 14), as probabilities.
        """
        batch = ImageList(self.batched(images, STRIDE), [(image.shape[1], image.shape[2]) for image in images])
        maps = self.backbone(batch.tensors)
        proposals, losses = self.rpn(batch, {"0": maps}, targets)
        found, of_heads = self.heads(maps, proposals, batch.image_sizes, targets)
        return {**losses, **of_heads} if self.training else found


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """Torchvision's network of proposals, with the losses of detectron2: plain L1, over the number of samples."""

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness and boxes on anchors that are drawn, at most half of them on objects."""
        positive, negative = (torch.cat(part).bool() for part in self.fg_bg_sampler(labels))
        sampled = positive | negative
        distance = F.l1_loss(pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], reduction="sum")
        objects = torch.cat(labels)[sampled]
        number = self.fg_bg_sampler.batch_size_per_image * len(labels)
        loss = F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], objects, reduction="sum")
        return loss / number, distance / number


class Res5Heads(RoIHeads):  # type: ignore[misc]
    """Class, box and mask of regions, from the last stage of the network, which all share.

    Parameters
    ----------
    res5
        The last stage, maps in, maps of half the size out.
    features
        Its channels.
    classes
        With the background.
    masks
        Whether there is a mask head: a deconvolution, and a mask for every class.
    regions
        How many of each image are trained on, a quarter of them on objects at most.
    """

    def __init__(self, res5: nn.Module, features: int, classes: int, *, masks: bool, regions: int) -> None:
        predictor = FastRCNNPredictor(features, classes)
        nn.init.normal_(predictor.cls_score.weight, std=0.01)
        nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
        mask_predictor = None
        if masks:
            mask_predictor = MaskRCNNPredictor(features, MASK_CHANNELS, classes)
            nn.init.normal_(mask_predictor.mask_fcn_logits.weight, std=0.001)
        for head in (predictor, mask_predictor):
            for name, parameter in [] if head is None else head.named_parameters():
                if name.endswith("bias"):
                    nn.init.zeros_(parameter)
        super().__init__(
            box_roi_pool=None,
            box_head=res5,
            box_predictor=predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions,
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=100,
            mask_predictor=mask_predictor,
        )

    def has_mask(self) -> bool:
        """Return whether there is a mask head."""
        return self.mask_predictor is not None

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
        scores, moves = self.box_predictor(self._maps(features, proposals).mean((2, 3)))
        boxes, found_scores, labels = self.postprocess_detections(scores, moves, proposals, image_shapes)
        found = [
            {"boxes": box, "labels": label, "scores": score}
            for box, label, score in zip(boxes, labels, found_scores, strict=True)
        ]
        if self.has_mask():
            logits = self.mask_predictor(self._maps(features, boxes))
            for one, masks in zip(found, maskrcnn_inference(logits, labels), strict=True):
                one["masks"] = masks
        return found, {}

    def _losses(self, features: Tensor, proposals: list[Tensor], targets: list[Target] | None) -> dict[str, Tensor]:
        regions, matched, labels, moves = self.select_training_samples(list(proposals), targets)
        assert targets is not None
        maps = self._maps(features, regions)
        classes = torch.cat(labels)
        on_object = classes > 0
        scores, guessed = self.box_predictor(maps.mean((2, 3)))
        own = guessed.reshape(len(classes), -1, 4)[on_object, classes[on_object]]
        losses = {
            "loss_classifier": F.cross_entropy(scores, classes),
            "loss_box_reg": F.l1_loss(own, torch.cat(moves)[on_object], reduction="sum") / len(classes),
        }
        if self.has_mask():
            shapes = [
                cut_out(target["masks"], rows[of > 0], boxes[of > 0])
                for target, rows, boxes, of in zip(targets, matched, regions, labels, strict=True)
            ]
            guessed_shapes = self.mask_predictor(maps[on_object])
            own_shapes = guessed_shapes[torch.arange(len(guessed_shapes)), classes[on_object]]
            loss = F.binary_cross_entropy_with_logits(own_shapes, torch.cat(shapes), reduction="sum")
            losses["loss_mask"] = loss / max(own_shapes.numel(), 1)
        return losses

    def _maps(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        """Return the last stage's maps of regions, (R, C, 7, 7)."""
        pooled = roi_align(features, boxes, POOLED, spatial_scale=1 / STRIDE, sampling_ratio=0, aligned=True)
        maps: Tensor = self.box_head(pooled)
        return maps


def _proposals(channels: int, anchors: Sequence[int]) -> Proposals:
    generator = AnchorGenerator(sizes=(tuple(anchors),), aspect_ratios=(SHAPES,))
    return Proposals(
        generator,
        RPNHead(channels, generator.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 12_000, "testing": 6000},
        post_nms_top_n={"training": 2000, "testing": 1000},
        nms_thresh=0.7,
    )


def _channels(stage: nn.Module) -> int:
    """Return how many channels a stage of a residual network gives."""
    convolutions = [layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)]
    return convolutions[-1].out_channels


def frozen(part: nn.Module) -> nn.Module:
    """Return a part whose normalisation, with statistics, scales and shifts, stays as it is."""
    if isinstance(part, nn.BatchNorm2d):
        layer: nn.Module = FrozenBatchNorm2d(part.num_features, eps=part.eps)
        layer.load_state_dict(part.state_dict())
        return layer
    for name, child in part.named_children():
        setattr(part, name, frozen(child))
    return part


def cut_out(masks: Tensor, rows: Tensor, boxes: Tensor) -> Tensor:
    """Return what masks look like in boxes, (R, 14, 14), float32: 1 in cells that are covered by half or more, else 0.

    Parameters
    ----------
    masks
        Of the objects of an image, shape (n, H, W), 0 and 1.
    rows
        Which object each box is about, shape (R,), int64.
    boxes
        Left, top, right, bottom in pixels, shape (R, 4).

    Examples
    --------
    >>> mask = torch.zeros(1, 40, 40)
    >>> mask[:, 10:24, 5:33] = 1
    >>> bool((cut_out(mask, torch.tensor([0]), torch.tensor([[5.0, 10, 33, 24]])) == 1).all())
    True
    """
    regions = torch.cat([rows[:, None].to(boxes.dtype), boxes], dim=1)
    covered = roi_align(masks[:, None].to(boxes.dtype), regions, POOLED, sampling_ratio=0, aligned=True)
    shapes: Tensor = (covered[:, 0] >= 0.5).to(boxes.dtype)
    return shapes


def pasted(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Return masks at their places in an image, (n, height, width), bool.

    Parameters
    ----------
    masks
        Probabilities within the boxes, shape (n, 1, M, M).
    boxes
        Left, top, right, bottom in pixels, shape (n, 4).
    height, width
        Of the image.

    Examples
    --------
    >>> whole = pasted(torch.ones(1, 1, 14, 14), torch.tensor([[1.0, 0.0, 3.0, 2.0]]), 3, 4)
    >>> whole.int().tolist()
    [[[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]
    """
    whole = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    for place, mask, (left, top, right, bottom) in zip(whole, masks, boxes, strict=True):
        # Elsewhere there is nothing: outside its box a mask is 0.
        rows = torch.arange(max(int(top) - 1, 0), min(int(bottom) + 2, height), device=masks.device)
        columns = torch.arange(max(int(left) - 1, 0), min(int(right) + 2, width), device=masks.device)
        x = 2 * (columns + 0.5 - left) / (right - left) - 1
        y = 2 * (rows + 0.5 - top) / (bottom - top) - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        seen = F.grid_sample(mask[None], grid[None], align_corners=False)[0, 0] >= 0.5
        place[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = seen
    return whole
