"""Mask R-CNN C4 and what it is trained on and scored by."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_files import write_coco
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.models.resnet import BasicBlock, ResNet

from infoassign_training.data.images import ImagesError
from infoassign_training.dense.c4 import C4, STRIDE, cut_out, pasted
from infoassign_training.dense.coco import open_coco
from infoassign_training.dense.detections import coco_scores, detections
from infoassign_training.dense.loop import train
from infoassign_training.dense.scenes import SceneViews, bitmaps, shown
from infoassign_training.dense.settings import Detector, Schedule
from infoassign_training.engine.ranks import Place
from infoassign_training.models.resnet import resnet

SMALL = Detector(short_sides=(64, 96), test_side=96, long_side=144, anchors=(16, 32, 64), regions=8)
QUICK = Schedule(iterations=4, batch_size=2, learning_rate=0.02, warmup=2, drops=(3,), refreshed=2)


def small_model(chosen: Detector = SMALL, classes: int = 2, seed: int = 0) -> C4:
    """Of a residual network with a single block in each stage."""
    torch.manual_seed(seed)
    return C4(ResNet(BasicBlock, [1, 1, 1, 1]), classes, chosen)


def test_losses_and_what_is_found_have_the_shapes_that_are_promised(tmp_path: Path) -> None:
    scenes = open_coco(write_coco(tmp_path), "train", training=True)
    views = [SceneViews(scenes, SMALL, seed=0)[place] for place in range(2)]
    model = small_model()
    losses = model.train()([image for image, _ in views], [target for _, target in views])
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    assert all(value.shape == () and bool(value.isfinite()) for value in losses.values())
    model.heads.score_thresh = 0.0
    with torch.no_grad():
        (found,) = model.eval()([views[0][0]])
    count = len(found["boxes"])
    assert 0 < count <= 100
    assert found["boxes"].shape == (count, 4)
    assert found["masks"].shape == (count, 1, 14, 14)
    assert found["scores"].shape == found["labels"].shape == (count,)
    assert set(found["labels"].tolist()) <= {1, 2}


def test_fifteen_anchors_at_every_sixteenth_pixel() -> None:
    model = small_model(Detector())
    assert model.rpn.anchor_generator.num_anchors_per_location() == [15]
    images = [torch.zeros(3, 100, 50, dtype=torch.uint8), torch.zeros(3, 40, 70, dtype=torch.uint8)]
    batch = ImageList(model.batched(images, STRIDE), [(100, 50), (40, 70)])
    assert batch.tensors.shape == (2, 3, 112, 80)
    maps = model.backbone(batch.tensors)
    assert maps.shape == (2, 256, 7, 5)
    (anchors, _) = model.rpn.anchor_generator(batch, [maps])
    assert anchors.shape == (7 * 5 * 15, 4)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert set(centres[:, 0].tolist()) == {0.0, 16.0, 32.0, 48.0, 64.0}
    areas = (anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])
    assert sorted({round(float(area) ** 0.5 / 32) for area in areas}) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("chosen", [replace(SMALL, frozen_stages=2), replace(SMALL, normalisation="frozen")])
def test_what_is_frozen_stays(chosen: Detector, tmp_path: Path) -> None:
    scenes = open_coco(write_coco(tmp_path), "train", training=True)
    model = small_model(chosen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, SceneViews(scenes, chosen, 0), QUICK, 0, tmp_path, Place(), quiet=True)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "backbone.layer3.0.conv1.weight" in changed
    if chosen.frozen_stages:
        assert not any(name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1")) for name in changed)
        assert "heads.box_head.norm.running_mean" in changed
    else:
        assert not any("bn" in name or "running" in name for name in changed)
        assert "heads.box_head.norm.weight" not in before


def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path: Path) -> None:
    scenes = open_coco(write_coco(tmp_path), "train", training=True)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    views = SceneViews(scenes, SMALL, 0)
    whole, half, parts = small_model(), small_model(), small_model(seed=1)
    train(whole, views, QUICK, 0, tmp_path / "whole", Place(), quiet=True)
    train(half, views, replace(QUICK, iterations=2), 0, tmp_path / "parts", Place(), quiet=True)
    train(parts, views, QUICK, 0, tmp_path / "parts", Place(), quiet=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name


def test_mirrored_and_scaled_objects_stay_where_their_pixels_are(tmp_path: Path) -> None:
    scene = open_coco(write_coco(tmp_path), "val", training=False).scene(0)
    for mirrored in (False, True):
        image, target = shown(scene, 256, 400, mirrored=mirrored)
        assert image.shape == (3, 256, 320)
        for (left, top, right, bottom), mask in zip(
            target["boxes"].round().int().tolist(), target["masks"], strict=True
        ):
            rows, columns = np.nonzero(mask.numpy())
            assert (rows.min(), rows.max() + 1) == (top, bottom)
            assert (columns.min(), columns.max() + 1) == (left, right)
            inside = image[:, top + 2 : bottom - 2, left + 2 : right - 2].flatten(1).double()
            assert bool((inside.std(dim=1) < 1).all())


def test_run_lengths_are_drawn_as_polygons_are() -> None:
    polygon = [[2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]]
    (drawn,) = bitmaps([polygon], 8, 10, np.ones(2))
    flat = drawn.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    (again,) = bitmaps([{"size": [8, 10], "counts": counts}], 8, 10, np.ones(2))
    assert np.array_equal(drawn, again)
    assert drawn.sum() == 16


@pytest.mark.parametrize("size", [12, 30])
def test_masks_are_cut_out_where_they_are_pasted(size: int) -> None:
    """Cut out of a bitmap for training and pasted as in testing, a disc is where it was: nothing is shifted."""
    rows, columns = np.mgrid[:80, :90]
    disc = torch.from_numpy((rows - 40.5) ** 2 + (columns - 50.5) ** 2 <= (size / 2) ** 2)
    box = torch.tensor([[50.5 - size / 2, 40.5 - size / 2, 51.5 + size / 2, 41.5 + size / 2]])
    shape = cut_out(disc[None].to(torch.uint8), torch.tensor([0]), box)
    again = pasted(shape[:, None], box, 80, 90)[0]
    centre = [float(values[again.numpy()].mean()) for values in (rows, columns)]
    assert centre == pytest.approx([40.5, 50.5], abs=0.51)
    assert abs(centre[0] - 40.5) == pytest.approx(abs(centre[1] - 50.5), abs=1e-9)
    both, either = (again & disc).sum(), (again | disc).sum()
    assert both / either > 0.9


def test_pasting_looks_at_the_box_alone_and_misses_nothing() -> None:
    """Against sampling at every pixel of the image."""
    torch.manual_seed(0)
    masks = torch.rand(20, 1, 14, 14)
    corners = torch.rand(20, 2, 2) * torch.tensor([50.0, 40.0])
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 0.5], dim=1)
    found = pasted(masks, boxes, 41, 52)
    y, x = torch.meshgrid(torch.arange(41) + 0.5, torch.arange(52) + 0.5, indexing="ij")
    for mask, (left, top, right, bottom), one in zip(masks, boxes, found, strict=True):
        grid = torch.stack([2 * (x - left) / (right - left) - 1, 2 * (y - top) / (bottom - top) - 1], dim=-1)
        whole = functional.grid_sample(mask[None], grid[None], align_corners=False)[0, 0] >= 0.5
        assert torch.equal(one, whole)


def test_what_is_there_scores_one(tmp_path: Path) -> None:
    scenes = open_coco(write_coco(tmp_path, side=256), "val", training=False)
    results = []
    for row in range(len(scenes)):
        scene = scenes.scene(row)
        count = len(scene.labels)
        found = {
            "boxes": torch.from_numpy(scene.boxes).float(),
            "labels": torch.from_numpy(scene.labels),
            "scores": torch.ones(count),
            "masks": torch.ones(count, 1, 14, 14),
        }
        results += scenes.written(row, found, (scene.image.height, scene.image.width))
    scores = coco_scores(scenes.annotations, results, ["box", "mask"])
    assert scores["box-ap"] == scores["box-ap50"] == scores["mask-ap"] == scores["mask-ap75"] == 1
    assert "box-ap-small" not in scores
    moved = [{**one, "bbox": [value + 500 for value in one["bbox"]]} for one in results]
    assert coco_scores(scenes.annotations, moved, ["box"])["box-ap"] == 0
    assert coco_scores(scenes.annotations, [], ["box"]) == {"box-ap": 0, "box-ap50": 0, "box-ap75": 0}


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match=r"expected WHERE/annotations/instances_train2017.json"):
        open_coco(tmp_path, "train", training=True)
    write_coco(tmp_path)
    annotations = tmp_path / "annotations" / "instances_train2017.json"
    tree = json.loads(annotations.read_text())
    (tmp_path / "val2017" / "000000000000.png").unlink()
    with pytest.raises(ImagesError, match=r"000000000000.png cannot be read"):
        open_coco(tmp_path, "val", training=False).scene(0)
    annotations.write_text(json.dumps({**tree, "annotations": tree["annotations"][2:]}))
    assert len(open_coco(tmp_path, "train", training=True)) == 3
    assert len(open_coco(tmp_path, "train", training=False)) == 4
    (wrong := [dict(one) for one in tree["images"]])[0]["width"] += 1
    annotations.write_text(json.dumps({**tree, "images": wrong}))
    with pytest.raises(ImagesError, match="pixels, and"):
        open_coco(tmp_path, "train", training=True).scene(0)
    annotations.write_text("[]")
    with pytest.raises(ImagesError, match="no list of instances"):
        open_coco(tmp_path, "train", training=True)


def test_objects_of_no_use_are_left_out(tmp_path: Path) -> None:
    """No size, no outline, one of two corners; and of masks nobody asks about, no outline is needed."""
    annotations = write_coco(tmp_path) / "annotations" / "instances_train2017.json"
    tree = json.loads(annotations.read_text())
    first, second, third, fourth = tree["annotations"][:4]
    first["bbox"][2] = 0
    second["segmentation"] = [[0, 0, 4, 4]]
    third["segmentation"] = []
    del fourth["segmentation"]
    annotations.write_text(json.dumps(tree))
    assert len(open_coco(tmp_path, "train", training=True)) == 2
    scenes = open_coco(tmp_path, "train", training=True, masks=False)
    assert len(scenes) == 4
    assert [len(scenes.scene(row).labels) for row in range(4)] == [1, 2, 2, 2]
    whole = open_coco(tmp_path, "train", training=False)
    image, target = shown(whole.scene(1), 64, 96)
    assert target["masks"].shape == (0, *image.shape[1:])
    model = small_model().train()
    losses = model([image], [target])
    assert all(bool(value.isfinite()) for value in losses.values())


def test_other_networks_are_refused() -> None:
    encoder, _ = resnet("resnet18", cifar_stem=True, zero_init_residual=False)
    with pytest.raises(ValueError, match="for large images"):
        C4(encoder, 2, SMALL)


@pytest.mark.deep
def test_a_tiny_set_is_learned_by_heart(tmp_path: Path) -> None:
    scenes = open_coco(write_coco(tmp_path, side=96), "train", training=True)
    chosen = replace(SMALL, short_sides=(96,), regions=16)
    schedule = Schedule(iterations=200, batch_size=4, learning_rate=0.16, warmup=10, drops=(150,), refreshed=10)
    model = small_model(chosen)
    train(model, SceneViews(scenes, chosen, 0), schedule, 0, tmp_path, Place(), quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    results = []
    for row, found, size in detections(model, scenes, chosen.test_side, chosen.long_side, range(len(scenes))):
        results += scenes.written(row, found, size)
    scores = coco_scores(scenes.annotations, results, ["box", "mask"])
    print(scores)
    assert scores["box-ap50"] > 0.9
    assert scores["mask-ap50"] > 0.9
