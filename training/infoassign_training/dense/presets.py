"""What can be trained by name: settings, where they come from, and what was published."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from infoassign_training.dense.settings import Dense, Detector, RegionDetector, Schedule

PUBLISHED = "MUSIC, IMSVD, ResNet-50: box .393, .591 (50), .426 (75); mask .344, .558 (50), .366 (75)"
LAYOUTS = {
    "coco": "annotations/instances_{train,val}2017.json, train2017/ and val2017/",
    "voc": "VOCdevkit/VOC2007/ and VOCdevkit/VOC2012/; for voc07-alexnet the first, and selective_search_data/",
}
"""Data as it is named on the command line, NAME:WHERE, and what lies there."""
MOCO = "MoCo's code, pascal_voc_R_50_C4_24k_moco.yaml"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model with all its settings."""

    name: str
    summary: str
    """One line."""
    source: str
    """Where the settings come from."""
    published: str
    """What the papers reached; empty if nothing."""
    data: Literal["coco", "voc"]
    """What it is trained and scored on, a key of `LAYOUTS`."""
    settings: Dense


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset(
                name="coco-c4",
                summary="Mask R-CNN C4 on COCO 2017, 1x schedule, all layers and their normalisation trained",
                source="MUSIC, app. G.2; IMSVD, sec. IV: rate .1, the rest detectron2's 1x schedule; they do not say"
                " how normalisation is treated, here it is as in MoCo's code",
                published=PUBLISHED,
                data="coco",
                settings=Dense(schedule=Schedule(learning_rate=0.1, refreshed=200)),
            ),
            Preset(
                name="coco-c4-frozen",
                summary="the same by detectron2's own settings: rate .02, stem, first stage and normalisation frozen",
                source="detectron2, mask_rcnn_R_50_C4_1x.yaml",
                published="",
                data="coco",
                settings=Dense(model=Detector(normalisation="frozen", frozen_stages=2)),
            ),
            Preset(
                name="voc-c4",
                summary="Faster R-CNN C4 on VOC's trainval of 2007 and 2012, scored on the test images of 2007",
                source=f"{MOCO}; SeLa's table 7 is of AlexNet and of 2007 alone, see voc07-alexnet",
                published="",
                data="voc",
                settings=Dense(
                    model=Detector(masks=False, short_sides=tuple(range(480, 801, 32))),
                    schedule=Schedule(iterations=24_000, warmup=100, drops=(18_000, 22_000), refreshed=200),
                ),
            ),
            Preset(
                name="voc07-alexnet",
                summary="Fast R-CNN with SeLa's AlexNet on VOC's trainval of 2007, scored on its test images",
                source="Fast R-CNN's released settings for CaffeNet, all layers trained (SeLa, table 7). SeLa's paper"
                " names no settings; its code's readme names Krähenbühl et al.'s, which we have not seen",
                published="SeLa, table 7, all layers: [3k x 10] .559 (50), [3k x 10]- + Rot .592, ImageNet labels .591",
                data="voc",
                settings=Dense(
                    model=RegionDetector(),
                    schedule=Schedule(
                        iterations=40_000,
                        batch_size=2,
                        learning_rate=0.001,
                        rated_for=2,
                        warmup=0,
                        drops=(30_000,),
                        weight_decay=5e-4,
                    ),
                ),
            ),
        )
    }
)
"""All of them by name."""
