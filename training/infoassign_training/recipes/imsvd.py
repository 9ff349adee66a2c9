"""IMSVD's tables: Niu et al., information-maximized soft variable discretization.

The settings and where they are from are in :mod:`infoassign_training.recipes.segments`; MUSIC has most of the same
tables.

=======================  ===========================  =================================================
recipe                   published                    differs by
=======================  ===========================  =================================================
``imsvd-imagenet-E``     tables I to III (E epochs)   100, 200, 400, 800 or 1000 epochs
``imsvd-batch-N``        table V                      batch 512, 1024 or 4096 (2048: imagenet-100)
``imsvd-depth-N``        table VI                     3 or 4 layers in the projector (2: imagenet-100)
``imsvd-dimension-D``    table VII                    960, 2000, 4080 or 16320 units (8160: imagenet-100)
``imsvd-segment-D``      table IX                     segments of 32, 64, 96 or 128 (80: imagenet-100)
``imsvd-loss-TERMS``     table VIII                   terms de-oe, oe-ti, de-oe-tic (all: imagenet-100)
``imsvd-cifar10``        MUSIC's table 11             the released code's defaults; the paper has no CIFAR-10
=======================  ===========================  =================================================

The published accuracies are of a linear classifier on frozen features.
"""

from infoassign_training.methods.settings import Imsvd
from infoassign_training.recipes import Recipe, segments

PAPER = segments.Paper(
    name="imsvd",
    title="IMSVD",
    citation="IMSVD (Niu et al., 2025), sec. IV",
    method=lambda size: Imsvd(units=size, entropy_weight=1.0, temperature=1.0),
    hardware="32 V100 of 32 GiB, four machines (sec. IV)",
    timed="table IV",
    tables={
        "batch": "table V",
        "depth": "table VI",
        "dimension": "table VII",
        "segment": "table IX",
        "loss": "table VIII",
    },
)
IMAGENET = {
    100: ("table I", "top-1 linear 69.4"),
    200: ("table I", "top-1 linear 71.8"),
    400: ("table I", "top-1 linear 73.2"),
    800: ("table I", "top-1 linear 73.4"),
    1000: (
        "tables I to III",
        "top-1 linear 73.6; kNN 67.0 (20), 64.9 (200); VOC07 86.5, Places 54.8;"
        " COCO boxes 39.3/59.1/42.6, masks 34.4/55.8/36.6",
    ),
}
"""What was reached, and where it says so, by epochs."""


def imagenet(epochs: int) -> Recipe:
    """Make a row of table I; 1000 epochs are the model of tables II to IV.

    ``torchrun --nnodes 4 --nproc-per-node 8 -m infoassign_training pretrain imsvd-imagenet-100 --data /data/imagenet
    --out runs/imsvd`` on each of four machines of 8 V100, 8.5 hours: top-1 69.4.
    """
    return segments.imagenet(PAPER, epochs, *IMAGENET[epochs])


def cifar10() -> Recipe:
    """Make the run that the released code has for CIFAR-10.

    ``infoassign pretrain imsvd-cifar10 --data cifar10:/data --out runs/imsvd`` on one GPU: top-1 89.2.
    """
    source = "released code; MUSIC's table 11"
    return segments.cifar10(PAPER, "cifar10", 32, source, "top-1 linear 89.2")


def recipes() -> tuple[Recipe, ...]:
    """IMSVD's own rows of tables I and V to IX, and the code's CIFAR-10."""
    return (*map(imagenet, IMAGENET), *segments.rows(PAPER), cifar10())
