"""MUSIC's tables: Niu et al., multi-segment informational coding.

The settings and where they are from are in :mod:`infoassign_training.recipes.segments`; IMSVD has most of the same
tables.

=======================  ===========================  =================================================
recipe                   published                    differs by
=======================  ===========================  =================================================
``music-imagenet-E``     tables 1, 3, 5 (E epochs)    100, 200, 400, 800 or 1000 epochs
``music-batch-N``        table 4                      batch 512, 1024 or 4096 (2048: imagenet-100)
``music-depth-N``        table 6                      3 or 4 layers in the projector (2: imagenet-100)
``music-dimension-D``    table 7                      960, 2000, 4080 or 16320 units (8160: imagenet-100)
``music-segment-D``      table 9                      segments of 32, 64, 96 or 128 (80: imagenet-100)
``music-loss-TERMS``     table 8                      terms de-oe, oe-ti, de-oe-tic (all: imagenet-100)
``music-cifar10-D``      table 11                     segments of 8, 16, 24, 32, 48 or 64
=======================  ===========================  =================================================

Table 11 has 1024 units "for all models", which 24 and 48 do not divide; they have 1008 here.

The published accuracies are of a linear classifier on frozen features.
"""

from infoassign_training.methods.settings import Music
from infoassign_training.recipes import Recipe, segments

PAPER = segments.Paper(
    name="music",
    title="MUSIC",
    citation="MUSIC (Niu et al.), sec. 3",
    method=lambda size: Music(segment_size=size, invariance_weight=1.0, temperature=1.0),
    hardware="32 V100 of 32 GiB, four machines (app. E)",
    timed="table 10",
    tables={"batch": "table 4", "depth": "table 6", "dimension": "table 7", "segment": "table 9", "loss": "table 8"},
)
IMAGENET = {
    100: ("table 5", "top-1 linear 69.4"),
    200: ("table 5", "top-1 linear 71.8"),
    400: ("table 5", "top-1 linear 73.1"),
    800: ("table 5", "top-1 linear 73.4"),
    1000: (
        "tables 1 to 3",
        "top-1 linear 73.6, top-5 91.4; fine-tuned on 1 % 54.0/78.9, on 10 % 69.1/89.1; kNN 67.0 (20), 64.9 (200);"
        " VOC07 86.5, Places 54.8; COCO boxes 39.3/59.1/42.6, masks 34.4/55.8/36.6",
    ),
}
"""What was reached, and where it says so, by epochs."""
CIFAR10 = {8: "88.5", 16: "88.6", 24: "88.6", 32: "89.2", 48: "89.2", 64: "88.6"}
"""Top-1 accuracy by segment size (table 11)."""


def imagenet(epochs: int) -> Recipe:
    """Make a row of table 5; 1000 epochs are the model of tables 1 to 3.

    ``torchrun --nnodes 4 --nproc-per-node 8 -m infoassign_training pretrain music-imagenet-100 --data /data/imagenet
    --out runs/music`` on each of four machines of 8 V100, 8.5 hours: top-1 69.4.
    """
    return segments.imagenet(PAPER, epochs, *IMAGENET[epochs])


def cifar10(segment_size: int) -> Recipe:
    """Make a row of table 11.

    ``infoassign pretrain music-cifar10-32 --data cifar10:/data --out runs/music`` on one GPU: top-1 89.2.
    """
    published = f"top-1 linear {CIFAR10[segment_size]}"
    return segments.cifar10(PAPER, f"cifar10-{segment_size}", segment_size, "app. H, table 11", published)


def recipes() -> tuple[Recipe, ...]:
    """MUSIC's own rows of tables 1, 4 to 9 and 11."""
    return (*map(imagenet, IMAGENET), *segments.rows(PAPER), *map(cifar10, CIFAR10))
