"""Detection and instance segmentation by a pretrained residual network that is trained further: Mask R-CNN C4."""
