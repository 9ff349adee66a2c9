"""The command that trains a detector, end to end on tiny sets, and VOC's boxes."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torchvision
from coco_files import write_coco, write_voc
from torch import multiprocessing

from infoassign_training.cli import run
from infoassign_training.data.images import ImagesError
from infoassign_training.dense.presets import PRESETS
from infoassign_training.dense.run import DenseError, changed_in, evaluate
from infoassign_training.dense.settings import Dense, Detector, Schedule
from infoassign_training.dense.voc import average_precision, open_voc
from infoassign_training.engine import ranks
from infoassign_training.engine.ranks import Place
from infoassign_training.models.alexnet import AlexNet

TINY = Detector(short_sides=(64,), test_side=64, long_side=96, anchors=(16, 32), regions=4)
ONE = Schedule(iterations=1, batch_size=2, warmup=0, drops=(), refreshed=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_coco_end_to_end(weights: Path, tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", images=2)
    settings = Dense(model=TINY, schedule=ONE)
    found = evaluate("coco-c4", settings, weights, str(tmp_path / "coco"), tmp_path / "out", device="cpu", quiet=True)
    assert {"box-ap", "box-ap50", "box-ap75", "mask-ap", "mask-ap50", "mask-ap75"} <= set(found.results)
    assert found.protocol == "coco-c4*"
    (file,) = (tmp_path / "out").glob("coco-c4-*.json")
    assert json.loads(file.read_text())["data"]["train"] == 2
    again = {"device": "cpu", "quiet": True}
    with pytest.raises(DenseError, match="--resume"):
        evaluate("coco-c4", settings, weights, str(tmp_path / "coco"), tmp_path / "out", **again)
    resumed = evaluate("coco-c4", settings, weights, str(tmp_path / "coco"), tmp_path / "out", resume=True, **again)
    assert json.dumps(resumed.to_dict()) == json.dumps(found.to_dict())
    annotations = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    annotations.write_text(annotations.read_text().replace("red box", "blue box"))
    with pytest.raises(DenseError, match="other data"):
        evaluate("coco-c4", settings, weights, str(tmp_path / "coco"), tmp_path / "out", resume=True, **again)


def work(rank: int, folder: str, weights: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    joined = nullcontext((Place(rank, 2, rank), torch.device("cpu")))
    settings = Dense(model=TINY, schedule=replace(ONE, iterations=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "joined", lambda _: joined)
        evaluate("coco-c4", settings, Path(weights), f"{folder}/coco", Path(folder) / "out", quiet=True)
    dist.destroy_process_group()


@pytest.mark.deep
def test_two_processes_share_out_training_and_scoring(weights: Path, tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", images=3)
    multiprocessing.spawn(work, (str(tmp_path), str(weights)), nprocs=2)
    (file,) = (tmp_path / "out").glob("coco-c4-*.json")
    tree = json.loads(file.read_text())
    assert tree["processes"] == 2
    assert tree["data"]["test"] == 3
    images = [
        {one["image_id"] for one in json.loads((file.with_suffix("") / f"found-{rank}.json").read_text())}
        for rank in (0, 1)
    ]
    assert images[0] == {10}
    assert images[1] == {11, 12}


def test_a_network_that_will_not_do_leaves_nothing_behind(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", images=2)
    torch.save(AlexNet("small").state_dict(), tmp_path / "alexnet.pth")
    settings = Dense(model=TINY, schedule=ONE)
    with pytest.raises(DenseError, match="residual network for large images"):
        evaluate("coco-c4", settings, tmp_path / "alexnet.pth", str(tmp_path / "coco"), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_voc_by_the_command(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(tmp_path / "voc", images=2)
    options = [f"--checkpoint={weights}", f"--data=voc:{tmp_path / 'voc'}", f"--out={tmp_path / 'out'}", "--device=cpu"]
    small = ["--model.short-sides=64", "--model.test-side=64", "--model.regions=4", "--schedule.refreshed=1"]
    small += ["--schedule.iterations=1", "--schedule.batch-size=2"]
    assert run(["evaluate", "voc-c4", *options, *small]) == 0
    assert "box-ap50" in capsys.readouterr().out
    assert run(["evaluate", "voc-c5", *options]) == 1
    assert "did you mean 'voc-c4'" in capsys.readouterr().err
    assert run(["evaluate", "coco-c4", *options]) == 1
    assert "give --data coco:WHERE" in capsys.readouterr().err
    options[1] = f"--data={tmp_path / 'voc'}"
    assert run(["evaluate", "coco-c4", *options]) == 1
    assert "expected WHERE/annotations" in capsys.readouterr().err
    assert run(["protocols", "voc-c4"]) == 0
    assert "schedule.iterations" in capsys.readouterr().out


def test_boxes_of_voc_begin_at_zero_and_what_is_there_scores_one(tmp_path: Path) -> None:
    scenes = open_voc(write_voc(tmp_path), ("VOC2007", "test"))
    assert len(open_voc(tmp_path, ("VOC2007", "trainval"), ("VOC2012", "trainval"))) == 6
    boxes, labels, difficult = scenes.objects(1)
    assert boxes.tolist() == [[20, 10, 70, 50], [0, 0, 10, 10]]
    assert [scenes.names[label - 1] for label in labels] == ["dog", "cat"]
    assert difficult.tolist() == [False, True]
    pixels = np.asarray(scenes.scene(1).image)
    assert pixels[12:48, 22:68].min() > 110
    results = []
    for row in range(len(scenes)):
        boxes, labels, difficult = scenes.objects(row)
        found = {"boxes": torch.from_numpy(boxes).float(), "labels": torch.from_numpy(labels)}
        # The difficult ones come first, and do no harm.
        results += scenes.written(row, {**found, "scores": torch.tensor([0.5, 0.9])}, (80, 100))
    assert scenes.measured(results) == {"box-ap50": 1, "box-ap": 1, "box-ap75": 1}
    assert scenes.measured([]) == {"box-ap50": 0, "box-ap": 0, "box-ap75": 0}


def test_average_precision_by_hand() -> None:
    """Two objects: found, found again, something else, found. Precisions 1 up to a recall of .5, then 1/2."""
    objects = {0: (np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]]), np.array([False, False]))}
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 5, 5], [20, 20, 10, 10]]
    found = [{"image_id": 0, "bbox": box} for box in boxes]
    assert average_precision(found, objects, 0.5) == pytest.approx((6 * 1 + 5 * 0.5) / 11)
    elsewhere = [{"image_id": 1, "bbox": boxes[0]}, *found]
    assert average_precision(elsewhere, objects, 0.5) == pytest.approx((6 * 0.5 + 5 * 0.4) / 11)


def test_what_will_not_do_is_told_before_anything_is_trained(weights: Path, tmp_path: Path) -> None:
    write_voc(tmp_path / "voc", images=2)
    given = (weights, str(tmp_path / "voc"), tmp_path / "out")
    with pytest.raises(DenseError, match=r"leave out --model.masks"):
        evaluate("voc-c4", Dense(model=replace(TINY, masks=True), schedule=ONE), *given, device="cpu")
    settings = Dense(model=replace(TINY, masks=False), schedule=ONE)
    (tmp_path / "voc" / "VOCdevkit" / "VOC2007" / "JPEGImages" / "test_1.jpg").unlink()
    with pytest.raises(ImagesError, match=r"there is no file .*test_1.jpg"):
        evaluate("voc-c4", settings, *given, device="cpu")
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        ONE.require_shared(3)
    assert not (tmp_path / "out").exists()


def test_a_missing_year_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match=r"VOC2007.*expected WHERE/VOCdevkit"):
        open_voc(tmp_path, ("VOC2007", "test"))


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="rising"):
        Schedule(drops=(5, 3))
    with pytest.raises(ValueError, match="long-side"):
        Detector(test_side=1400)
    with pytest.raises(ValueError, match="frozen-stages"):
        Detector(frozen_stages=6)


def test_presets_are_the_published_settings() -> None:
    """MUSIC and IMSVD: 90 000 steps of 16 images, a rate of .1, drops at 60 000 and 80 000."""
    paper = PRESETS["coco-c4"].settings
    assert [paper.schedule.rate(step) for step in (1000, 60_000, 80_000)] == pytest.approx([0.1, 0.01, 0.001])
    assert PRESETS["coco-c4-frozen"].settings.schedule.rate(1000) == pytest.approx(0.02)
    assert PRESETS["voc-c4"].settings.model.short_sides[-1] == 800
    assert changed_in("coco-c4", replace(paper, schedule=Schedule(refreshed=200))) == {"schedule.learning_rate": 0.02}
