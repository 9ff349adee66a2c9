"""Fast R-CNN with SeLa's AlexNet, the proposals it is given, and its protocol."""

import json
from dataclasses import replace
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_files import write_voc
from numpy.typing import NDArray
from proposal_files import propose, write_proposals
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet

from infoassign_training.cli import run
from infoassign_training.data.images import ImagesError
from infoassign_training.dense.challenge import Target
from infoassign_training.dense.fast_rcnn import FastRCNN, backbone
from infoassign_training.dense.loop import train
from infoassign_training.dense.objects import Objects
from infoassign_training.dense.presets import PRESETS
from infoassign_training.dense.proposals import open_proposed, read_proposals
from infoassign_training.dense.scenes import SceneViews
from infoassign_training.dense.settings import RegionDetector, Schedule
from infoassign_training.engine.ranks import Place
from infoassign_training.models import alexnet
from infoassign_training.models.alexnet import AlexNet

SMALL = RegionDetector(short_sides=(64, 80), long_side=128, test_side=64, test_long_side=96, regions=16)
QUICK = Schedule(iterations=4, batch_size=2, learning_rate=0.01, rated_for=2, warmup=0, drops=(3,))


def narrow_alexnet(seed: int = 0, features: int = 32) -> AlexNet:
    """With narrow linear layers, so that it is quick; its normalisation has seen something."""
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alexnet, "FEATURES", features)
        encoder = AlexNet("small")
    encoder.train()
    with torch.no_grad():
        for layer in encoder.features:
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
        encoder.features(torch.randn(4, 3, 128, 128))
    return encoder.eval()


def small_model(chosen: RegionDetector = SMALL, classes: int = 20, seed: int = 0) -> FastRCNN:
    return FastRCNN(narrow_alexnet(seed), classes, chosen)


def target(objects: list[list[float]], labels: list[int], proposals: list[list[float]]) -> Target:
    boxes = torch.tensor(objects + proposals, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels + [0] * len(proposals))}


def random_boxes(count: int, width: int, height: int, seed: int = 0) -> list[list[float]]:
    random = np.random.default_rng(seed)
    left, top = random.integers(0, width - 4, count), random.integers(0, height - 4, count)
    right, bottom = random.integers(left + 4, width + 1), random.integers(top + 4, height + 1)
    return np.stack([left, top, right, bottom], axis=1).astype(float).tolist()


def test_places_of_the_maps_are_pixels_16_apart() -> None:
    """The middle of what a place sees is pixel 16 i, and the last place is not before the last pixel."""
    network = backbone(narrow_alexnet())
    for height, width in ((160, 208), (150, 97)):
        maps = network(torch.randn(1, 3, height, width))
        # Convolutions round down, poolings up.
        places = [ceil(ceil((ceil(side / 4) + 1) / 2) / 2 + 0.5) for side in (height, width)]
        assert list(maps.shape[2:]) == places
        assert all(16 * (count - 1) >= side - 1 for count, side in zip(places, (height, width), strict=True))
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    place, stride = 0.0, 1
    for layer in layers:
        sides = [
            side if isinstance(side, int) else side[0] for side in (layer.kernel_size, layer.stride, layer.padding)
        ]
        kernel, step, padding = sides
        place += ((kernel - 1) / 2 - padding) * stride
        stride *= step
    assert (place, stride) == (0, 16)


def test_absorbed_normalisation_changes_nothing() -> None:
    encoder = narrow_alexnet()
    images = torch.randn(2, 3, 96, 96)
    mine = backbone(encoder)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in mine)
    theirs = [layer for layer in encoder.features if not isinstance(layer, nn.MaxPool2d)]
    plain = [layer for layer in mine if not isinstance(layer, nn.MaxPool2d)]
    for layer in theirs:
        if isinstance(layer, nn.Conv2d):
            layer.padding = (layer.kernel_size[0] // 2,) * 2
    with torch.no_grad():
        torch.testing.assert_close(nn.Sequential(*plain)(images), nn.Sequential(*theirs)(images), rtol=1e-4, atol=1e-4)


def test_losses_and_what_is_found_have_the_shapes_that_are_promised() -> None:
    model = small_model()
    images = [torch.randint(256, (3, 64, 96), dtype=torch.uint8), torch.randint(256, (3, 80, 64), dtype=torch.uint8)]
    targets = [
        target([[10, 10, 50, 50]], [3], random_boxes(30, 96, 64)),
        target([[0, 0, 30, 60], [20, 30, 64, 80]], [1, 2], random_boxes(20, 64, 80, seed=1)),
    ]
    losses = model.train()(images, targets)
    assert set(losses) == {"loss_classifier", "loss_box_reg"}
    assert all(value.shape == () and bool(value.isfinite()) for value in losses.values())
    assert losses["loss_classifier"].item() == pytest.approx(log(21), rel=0.1)
    model.heads.score_thresh = 0.0
    with torch.no_grad():
        found = model.eval()(images, targets)
    for one, image in zip(found, images, strict=True):
        count = len(one["scores"])
        assert 0 < count <= 100
        assert one["boxes"].shape == (count, 4)
        assert one["labels"].shape == (count,)
        assert bool((one["scores"].diff() <= 0).all())
        assert set(one["labels"].tolist()) <= set(range(1, 21))
        assert bool((one["boxes"] >= 0).all())
        assert bool((one["boxes"] <= torch.tensor([image.shape[2], image.shape[1]]).repeat(2)).all())


def test_when_tested_no_object_is_looked_at_and_none_may_be_proposed() -> None:
    model = small_model().eval()
    model.heads.score_thresh = 0.0
    image = torch.randint(256, (3, 64, 96), dtype=torch.uint8)
    proposals = random_boxes(10, 96, 64)
    with torch.no_grad():
        (told,) = model([image], [target([[10, 10, 50, 50]], [3], proposals)])
        (untold,) = model([image], [target([], [], proposals)])
        (nothing,) = model([image], [target([[10, 10, 50, 50]], [3], [])])
    assert all(torch.equal(told[name], untold[name]) for name in told)
    assert nothing["boxes"].shape == (0, 4)


def caffe_regions(maps: NDArray[np.float64], box: list[float]) -> NDArray[np.float64]:
    """Pool a region as Fast R-CNN's layer does; the box names its first and its last pixel."""
    left, top, right, bottom = (int(np.floor(value / 16 + 0.5)) for value in (box[0], box[1], box[2] - 1, box[3] - 1))
    height, width = max(bottom - top + 1, 1), max(right - left + 1, 1)
    pooled = np.zeros((maps.shape[0], 6, 6))
    for row in range(6):
        for column in range(6):
            rows = [int(np.floor(row * height / 6)) + top, int(np.ceil((row + 1) * height / 6)) + top]
            columns = [int(np.floor(column * width / 6)) + left, int(np.ceil((column + 1) * width / 6)) + left]
            rows, columns = np.clip(rows, 0, maps.shape[1]), np.clip(columns, 0, maps.shape[2])
            cell = maps[:, rows[0] : rows[1], columns[0] : columns[1]]
            pooled[:, row, column] = cell.max(axis=(1, 2)) if cell.size else 0
    return pooled


def transcribed_losses(encoder: AlexNet, model: FastRCNN, image: Tensor, given: Target) -> dict[str, float]:
    """Both losses in float64, of one image, when all regions that may be are trained on; without dropout."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.from_numpy((image.numpy() / 255 - mean[:, None, None]) / std[:, None, None])[None]
    for layer in list(encoder.features)[:-1]:
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            weight, side = layer.weight.double(), layer.kernel_size[0]
            x = F.conv2d(x, weight, layer.bias.double(), stride=layer.stride, padding=(side - 1) // 2)
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            scale = layer.weight.double() / (layer.running_var.double() + layer.eps).sqrt()
            shift = layer.bias.double() - layer.running_mean.double() * scale
            x = x * scale[:, None, None] + shift[:, None, None]
        elif isinstance(layer, nn.MaxPool2d):
            x = F.max_pool2d(x, 3, 2, padding=1, ceil_mode=True)
        else:
            x = x.clamp(min=0)
    maps = x[0].detach().numpy()

    def values(layer: nn.Linear) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()

    boxes, labels = given["boxes"].double().numpy(), given["labels"].numpy()
    objects, classes = boxes[labels > 0], labels[labels > 0]
    cross_entropy, distance, count = 0.0, 0.0, 0
    for box in [*boxes[labels == 0], *objects]:
        overlaps = []
        for one in objects:
            width = min(box[2], one[2]) - max(box[0], one[0])
            height = min(box[3], one[3]) - max(box[1], one[1])
            common = max(width, 0) * max(height, 0)
            areas = (box[2] - box[0]) * (box[3] - box[1]) + (one[2] - one[0]) * (one[3] - one[1])
            overlaps.append(common / (areas - common))
        best = int(np.argmax(overlaps))
        if overlaps[best] < 0.1:
            continue
        count += 1
        label = int(classes[best]) if overlaps[best] >= 0.5 else 0
        hidden = caffe_regions(maps, box.tolist()).ravel()
        for layer in (encoder.classifier[1], encoder.classifier[4]):
            weight, bias = values(layer)
            hidden = np.maximum(weight @ hidden + bias, 0)
        weight, bias = values(model.heads.box_predictor.cls_score)
        logits = weight @ hidden + bias
        cross_entropy += float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])
        if label:
            weight, bias = values(model.heads.box_predictor.bbox_pred)
            guess = (weight @ hidden + bias)[4 * label : 4 * label + 4]
            sides, aims = box[2:] - box[:2], objects[best][2:] - objects[best][:2]
            shifts = (objects[best][:2] + aims / 2 - box[:2] - sides / 2) / sides / 0.1
            wanted = np.concatenate([shifts, np.log(aims / sides) / 0.2])
            apart = np.abs(guess - wanted)
            distance += float(np.where(apart < 1, apart**2 / 2, apart - 0.5).sum())
    return {"loss_classifier": cross_entropy / count, "loss_box_reg": distance / count}


def test_losses_are_those_of_the_paper_written_out() -> None:
    """Few enough regions on objects (a quarter of 64) and on background (the rest) are all taken: nothing is drawn."""
    encoder = narrow_alexnet()
    model = FastRCNN(encoder, 5, replace(SMALL, regions=64)).train()
    torch.manual_seed(1)
    for layer in (model.heads.box_predictor.cls_score, model.heads.box_predictor.bbox_pred):
        nn.init.normal_(layer.weight, std=0.3)
        nn.init.normal_(layer.bias, std=0.3)
    for layer in model.heads.box_head:
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    image = torch.randint(256, (3, 128, 160), dtype=torch.uint8)
    objects = [[20.0, 16.0, 100.0, 90.0], [90.0, 60.0, 150.0, 120.0]]
    near = [[20.0, 20.0, 90.0, 90.0], [24.0, 10.0, 110.0, 80.0], [80.0, 64.0, 152.0, 128.0], [95.0, 50.0, 150.0, 121.0]]
    given = target(objects, [2, 5], near + random_boxes(30, 160, 128))
    expected = transcribed_losses(encoder, model, image, given)
    losses = model([image], [given])
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected, rel=1e-4)


def test_a_quarter_of_the_regions_is_on_objects_and_far_ones_are_never_taken() -> None:
    heads = small_model(replace(SMALL, regions=16)).heads
    objects = torch.tensor([[0.0, 0, 40, 40]])
    near, half, far = [[1.0, 1, 40, 40]] * 30, [[20.0, 0, 60, 40]] * 30, [[38.0, 38, 80, 80]] * 30
    regions, _, labels, moves = heads.select_training_samples(
        [torch.tensor(near + half + far)], [{"boxes": objects, "labels": torch.tensor([7])}]
    )
    assert sorted(labels[0].tolist()) == [0] * 12 + [7] * 4
    assert bool((regions[0][labels[0] == 0] == torch.tensor(half[0])).all())
    assert moves[0].shape == (16, 4)


def test_moves_lead_back_to_the_boxes_they_were_made_from() -> None:
    heads = small_model().heads
    boxes = torch.tensor(random_boxes(50, 300, 200), dtype=torch.float64)
    regions = torch.tensor(random_boxes(50, 300, 200, seed=1), dtype=torch.float64)
    (moves,) = heads.box_coder.encode([boxes], [regions])
    torch.testing.assert_close(heads.box_coder.decode(moves, [regions])[:, 0], boxes)


def test_proposals_lie_on_the_pixels_they_are_written_for(tmp_path: Path) -> None:
    """The bright rectangle of each image is rows 11 to 50 and columns 21 to 70, counted from 1."""
    write_voc(tmp_path)
    names = [f"trainval_{number}" for number in range(3)]
    whole = np.array([[1, 1, 80, 100]], dtype=np.uint16)
    boxes = {name: np.concatenate([np.array([[11, 21, 50, 70]], dtype=np.uint16), whole]) for name in reversed(names)}
    write_proposals(tmp_path, "trainval", boxes)
    proposed = open_proposed(tmp_path, "trainval", training=True)
    scene = proposed.scene(2)
    # The difficult object at the corner is not among them.
    assert scene.labels.tolist() == [8, 0, 0]
    assert scene.boxes.tolist() == [[20, 10, 70, 50], [20, 10, 70, 50], [0, 0, 100, 80]]
    for place in range(6):
        image, given = SceneViews(proposed, SMALL, seed=0)[place]
        inner, outer = given["boxes"][given["labels"] == 0].round().int().tolist()
        assert outer == [0, 0, image.shape[2], image.shape[1]]
        left, top, right, bottom = inner
        inside = image[:, top + 2 : bottom - 2, left + 2 : right - 2].flatten(1).double()
        assert bool((inside.std(dim=1) < 3).all())
        torch.testing.assert_close(given["boxes"][0], given["boxes"][1])


def test_images_with_difficult_objects_alone_are_not_trained_on(tmp_path: Path) -> None:
    propose(write_voc(tmp_path))
    file = tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "trainval_1.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1"))
    trained = open_proposed(tmp_path, "trainval", training=True)
    assert [name for _, name in trained.voc.images] == ["trainval_0", "trainval_2"]
    assert len(open_proposed(tmp_path, "trainval", training=False)) == 3
    for name in ("trainval_0", "trainval_2"):
        file = tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / f"{name}.xml"
        file.write_text(file.read_text().replace("<difficult>0", "<difficult>1"))
    with pytest.raises(ImagesError, match="no image of VOC2007's trainval"):
        open_proposed(tmp_path, "trainval", training=True)


def test_proposals_that_are_missing_or_of_other_images_are_told(tmp_path: Path) -> None:
    write_voc(tmp_path)
    with pytest.raises(ImagesError, match=r"no file .*voc_2007_test.mat; expected WHERE/selective_search_data"):
        open_proposed(tmp_path, "test", training=False)
    write_proposals(tmp_path, "test", {"test_0": np.ones((2, 4)), "trainval_1": np.ones((3, 4))})
    with pytest.raises(ImagesError, match=r"no proposals for test_1 and 1 more of the 3 images of test"):
        open_proposed(tmp_path, "test", training=False)
    large = np.array([[1, 1, 80, 103]])
    write_proposals(tmp_path, "test", {f"test_{number}": large for number in range(3)})
    with pytest.raises(ImagesError, match="proposals of test_2 reach beyond its 100 x 80 pixels"):
        open_proposed(tmp_path, "test", training=False).scene(2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.ones((2, 5)), r"expected boxes \(n, 4\) of image a; got float64 \(2, 5\)"),
        (np.array([[1, 1, 5, 0]]), "image a has boxes that are not"),
        (np.array([[0, 1, 5, 5]]), "counted from 1"),
        (np.array([[1, 1, 5, np.nan]]), "image a has boxes"),
        (np.array([[1, np.nan, 5, 5]]), "image a has boxes"),
        (np.array([[1, 1, np.inf, 5]]), "image a has boxes"),
        ("words", "of image a; got"),
    ],
)
def test_what_are_no_boxes_is_told(table: Any, message: str, tmp_path: Path) -> None:
    path = write_proposals(tmp_path, "test", {"a": table, "b": np.ones((3, 4))})
    with pytest.raises(ImagesError, match=message):
        read_proposals(path)


def test_files_that_are_broken_are_told(tmp_path: Path) -> None:
    boxes = np.cumsum(np.ones((500, 4)), axis=0)
    path = write_proposals(tmp_path, "test", {"a": boxes, "b": boxes[:1], "c": boxes[:0]})
    found = read_proposals(path)
    assert {name: len(boxes) for name, boxes in found.items()} == {"a": 500, "b": 1, "c": 0}
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(ImagesError, match=r"voc_2007_test.mat cannot be read"):
        read_proposals(path)
    # Within what is compressed.
    path.write_bytes(content[:300] + bytes(20) + content[320:])
    with pytest.raises(ImagesError, match=r"voc_2007_test.mat cannot be read"):
        read_proposals(path)


def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path: Path) -> None:
    views = SceneViews(open_proposed(propose(write_voc(tmp_path)), "trainval", training=True), SMALL, 0)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, half, parts = small_model(), small_model(), small_model(seed=1)
    train(whole, views, QUICK, 0, tmp_path / "whole", Place(), quiet=True)
    train(half, views, replace(QUICK, iterations=2), 0, tmp_path / "parts", Place(), quiet=True)
    train(parts, views, QUICK, 0, tmp_path / "parts", Place(), quiet=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name


@pytest.mark.parametrize("frozen", [0, 1])
def test_all_layers_are_trained_but_those_that_are_frozen(frozen: int, tmp_path: Path) -> None:
    chosen = replace(SMALL, frozen_layers=frozen)
    model = small_model(chosen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scenes = open_proposed(propose(write_voc(tmp_path)), "trainval", training=True)
    train(model, SceneViews(scenes, chosen, 0), QUICK, 0, tmp_path, Place(), quiet=True)
    kept = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert kept == ({"backbone.0.weight", "backbone.0.bias"} if frozen else set())


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="for a residual network take voc-c4"):
        FastRCNN(ResNet(BasicBlock, [1, 1, 1, 1]), 20, SMALL)


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"model.long-side must be at least 1200"):
        RegionDetector(short_sides=(480, 1200))
    with pytest.raises(ValueError, match=r"model.test-long-side must be at least 1200"):
        RegionDetector(test_side=1200)
    with pytest.raises(ValueError, match="frozen-layers"):
        RegionDetector(frozen_layers=6)
    with pytest.raises(ValueError, match="at least 32"):
        RegionDetector(short_sides=())


def test_the_preset_is_the_released_settings() -> None:
    """Two images a step at a rate of .001, a tenth of it from 30 000 to 40 000; 64 regions of each; sides 600, 1000."""
    settings = PRESETS["voc07-alexnet"].settings
    rates = [settings.schedule.rate(step) for step in (0, 29_999, 30_000)]
    assert rates == pytest.approx([0.001, 0.001, 0.0001])
    assert (settings.schedule.iterations, settings.schedule.batch_size) == (40_000, 2)
    assert (settings.schedule.momentum, settings.schedule.weight_decay) == (0.9, 5e-4)
    assert settings.model == RegionDetector(short_sides=(600,), long_side=1000, regions=64)


def test_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    propose(write_voc(tmp_path / "voc", images=2))
    torch.manual_seed(0)
    torch.save(AlexNet("small").state_dict(), tmp_path / "alexnet.pth")
    options = [f"--checkpoint={tmp_path / 'alexnet.pth'}", f"--data=voc:{tmp_path / 'voc'}", "--device=cpu"]
    options += [f"--out={tmp_path / 'out'}", "--model.short-sides=64", "--model.test-side=64", "--model.regions=4"]
    options += ["--schedule.iterations=1"]
    assert run(["evaluate", "voc07-alexnet", *options]) == 0
    assert "box-ap50" in capsys.readouterr().out
    (file,) = (tmp_path / "out").glob("voc07-alexnet-*.json")
    tree = json.loads(file.read_text())
    assert tree["protocol"] == "voc07-alexnet*"
    assert tree["settings"]["kind"] == "fast-rcnn"
    assert {name: tree["data"][name] for name in ("train", "test", "classes")} == {"train": 2, "test": 2, "classes": 20}
    assert next(iter(tree["results"])) == tree["data"]["metric"] == "box-ap50"
    (tmp_path / "voc" / "selective_search_data" / "voc_2007_test.mat").unlink()
    assert run(["evaluate", "voc07-alexnet", *options, "--overwrite"]) == 1
    assert "as released with Fast R-CNN" in capsys.readouterr().err
    assert run(["protocols", "voc07-alexnet"]) == 0
    assert "fast-rcnn" in capsys.readouterr().out


@pytest.mark.deep
def test_a_tiny_set_is_learned_by_heart(tmp_path: Path) -> None:
    propose(write_voc(tmp_path))
    chosen = RegionDetector(short_sides=(128,), long_side=200, test_side=128, test_long_side=200)
    seen = open_proposed(tmp_path, "trainval", training=True)
    challenge = Objects(seen, seen, chosen)
    schedule = Schedule(iterations=300, batch_size=3, learning_rate=0.003, rated_for=3, warmup=20, drops=(200,))
    model = FastRCNN(narrow_alexnet(features=256), 20, chosen)
    before = challenge.scores(list(challenge.found(model, range(3))))
    train(model, challenge.views(0), schedule, 0, tmp_path, Place(), quiet=True)
    scores = challenge.scores(list(challenge.found(model, range(3))))
    print(before, scores)
    assert before["box-ap50"] < 0.5
    assert scores["box-ap50"] > 0.95
