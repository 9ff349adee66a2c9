"""What `throughput` measures, and how `estimate` counts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from digit_runs import SMALL, with_method
from image_files import CLASSES, write_imagenet

from infoassign_training.cli import run
from infoassign_training.config import Pretraining
from infoassign_training.data.settings import Folder, Torchvision
from infoassign_training.engine import estimate as estimates
from infoassign_training.engine import throughput
from infoassign_training.engine.estimate import DEVICES, EstimateError, Precision, count, estimate, parse_gpus
from infoassign_training.engine.feed import DigitFeed
from infoassign_training.engine.pretrain import TrainingError
from infoassign_training.engine.throughput import measure, on_noise
from infoassign_training.errors import UserError
from infoassign_training.methods.settings import Sela
from infoassign_training.models.settings import Projector, ResNet
from infoassign_training.recipes import RECIPES

TINY = ["--encoder.widths", "4", "8", "--encoder.features", "8", "--method.prototypes", "12", "--batch-size", "64"]


def tiny(name: str) -> Pretraining:
    """A recipe for photographs, with a batch of two and small layers."""
    settings = RECIPES[name].settings
    return replace(
        settings,
        batch_size=2,
        encoder=ResNet(name="resnet18"),
        projector=Projector(hidden=(8,), projection=8),
        device="cpu",
        workers=0,
    )


def test_steps_are_measured_over_epochs_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = measure(replace(SMALL, batch_size=512), steps=3, warmup=2)  # two batches an epoch
    assert list(tmp_path.iterdir()) == []
    assert (found.device, found.processes, found.steps, found.noise) == ("cpu", 1, 3, False)
    middle, shortest, longest = found.milliseconds
    assert 0 < shortest <= middle <= longest
    assert 512 / longest <= found.images_per_second / 1000 * 1.01
    assert found.images_per_second / 1000 <= 512 / shortest * 1.01
    assert found.images_per_second_per_device == found.images_per_second
    assert sum(found.shares.values()) == pytest.approx(1)
    assert 0 < found.assignment < 1
    assert found.peak_memory is None or found.peak_memory > 1e7


def test_labelling_all_images_is_not_measured_with_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the recipe has it: these are few steps of few images."""
    calls = []
    original = DigitFeed.everything

    def counted(self: DigitFeed, step: int, views: int) -> Any:
        calls.append(step)
        return original(self, step, views)

    monkeypatch.setattr(DigitFeed, "everything", counted)
    settings = replace(with_method(SMALL, Sela(heads=(12,), relabellings=80)), epochs=4)
    assert measure(settings, steps=3, warmup=1).steps == 3
    assert calls == [0]


@pytest.mark.parametrize(
    ("name", "size"), [("mira-imagenet-100", 256), ("mira-imagenet100", 256), ("mira-cifar10", 32)]
)
def test_noise_stands_for_the_images_of_a_recipe(name: str, size: int) -> None:
    data = on_noise(RECIPES[name].settings, 50).data
    assert (data.kind, data.count, data.size) == ("synthetic", 50, size)  # type: ignore[union-attr]
    assert on_noise(SMALL, 50) == SMALL


def test_only_the_images_that_the_steps_need_take_part(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    settings = replace(tiny("mira-cifar10"), data=Folder(root=str(tmp_path / "train"), labelled=True))
    assert measure(settings, steps=1, warmup=0).batch_size == 2
    assert len(CLASSES) > 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_large_a_batch_says_what_to_lower(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(throughput, "train", full)
    with pytest.raises(TrainingError, match="a batch of 128 images does not fit into memory; lower --batch-size"):
        measure(SMALL, steps=1, warmup=0)


def test_other_errors_are_not_taken_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(throughput, "train", broken)
    with pytest.raises(RuntimeError, match="something else"):
        measure(SMALL, steps=1, warmup=0)
    with pytest.raises(UserError, match="steps must be at least 1; got 0"):
        measure(SMALL, steps=0)


def test_throughput_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    assert run(["throughput", "digits-mira", "--steps", "2", "--warmup", "1", "--json", str(out), *TINY]) == 0
    printed = capsys.readouterr()
    for shown in ("images a second", "ms a step", "labels and loss", "peak memory", "Bottleneck: "):
        assert shown in printed.out
    assert "throughput" in printed.err
    saved = json.loads(out.read_text())
    assert (saved["recipe"], saved["steps"], saved["settings"]["batch-size"]) == ("digits-mira", 2, 64)
    assert run(["throughput", "digits-mira", "--data", "synthetic"]) == 1
    assert "trains on the digits" in capsys.readouterr().err


def test_estimate_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", "mira-cifar10", "--gpus", "1xT4", "--batch-size", "64"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("estimate, not measured: mira-cifar10 on 1 x T4")
    for shown in ("memory per GPU", "activations, 64 images", "GFLOP an image", "T4 data sheet", "min an epoch"):
        assert shown in printed
    assert run(["estimate", "mira-cifar10", "--gpus", "8xG1"]) == 1
    assert "of V100-16GB" in capsys.readouterr().err


def test_an_estimate_may_stand_on_a_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found.json"
    found.write_text(json.dumps({"recipe": "mira-cifar10", "images_per_second_per_device": 1000}))
    command = ["estimate", "mira-cifar10", "--gpus", "2xT4", "--epochs", "72", "--measured", str(found)]
    assert run(command) == 0
    printed = capsys.readouterr().out
    assert "0.5 h, 0.41 min an epoch; estimate" in printed  # 97 batches of 512 an epoch, 2000 images a second
    assert "1000 images a second and GPU, measured" in printed
    assert run(["estimate", "mira-cifar100", *command[2:]]) == 1
    assert "was measured of mira-cifar10, not of mira-cifar100" in capsys.readouterr().err
    found.write_text("{}")
    assert run(command) == 1
    assert "is not what `infoassign throughput --json` writes" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["8xG1", "0xH100", "x", "", "8", "8H100"])
def test_other_gpus_are_refused(words: str) -> None:
    with pytest.raises(EstimateError, match="such as 8xH100"):
        parse_gpus(words)


def test_resnet50_takes_what_is_known_of_it() -> None:
    """Forwards 4.09 billion multiply-adds for 224 x 224; torchvision's own figure. Backwards about twice as much."""
    settings = replace(RECIPES["sela-resnet50-3k-10heads"].settings, batch_size=4)
    counted = count(settings, 4, 1, "float32", images=100)
    assert counted.forward == pytest.approx(2 * 4.09e9, rel=0.01)
    assert counted.flops == pytest.approx(3 * 4 * counted.forward, rel=0.02)
    shares = {"float32": (2766 / 8, "V100-32GB"), "tf32": (7248 / 8, "A100-80GB"), "half": (16621 / 8, "A100-80GB")}
    for kind, (images, name) in shares.items():
        peak = {"float32": DEVICES[name].float32, "tf32": DEVICES[name].tf32, "half": DEVICES[name].half}[kind]
        assert peak is not None
        assert images * counted.flops / 4 / (1e12 * peak) == pytest.approx(estimates.REACHED[kind], abs=0.006)


def test_what_is_counted_grows_with_the_images_that_go_through_at_once() -> None:
    settings = with_method(SMALL, Sela(heads=(12,)))
    one, two = (count(settings, part, 1, "float32", images=100) for part in (32, 64))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.01)
    assert two.flops == 2 * one.flops
    assert one.parameters == two.parameters == one.momentum
    half = count(settings, 64, 1, "bfloat16", images=100)
    assert half.activations == pytest.approx(two.activations / 2, rel=0.1)
    assert half.flops == two.flops
    pieces = count(settings, 64, 2, "float32", images=100)
    assert pieces.activations == one.activations
    assert pieces.flops == pytest.approx(4 / 3 * two.flops, rel=0.15)  # once more forwards


def test_what_does_not_fit_says_what_would() -> None:
    settings = replace(tiny("mira-imagenet-100"), batch_size=4096)
    small = replace(DEVICES["T4"], memory=4)
    found = estimate("mira", settings, 8, small)
    assert "It does not fit" in found.table()
    words = found.remedy.replace(",", "").split()
    batch, pieces = int(words[words.index("--batch-size") + 1]), int(words[words.index("--accumulate") + 1])
    assert not estimate("mira", replace(settings, batch_size=batch), 8, small).remedy
    assert estimate("mira", replace(settings, batch_size=4 * batch), 8, small).remedy
    assert not estimate("mira", settings, 8, small, pieces=pieces).remedy
    assert "No batch would" in estimate("mira", settings, 8, replace(small, memory=0.1)).remedy


def test_small_networks_are_not_endlessly_fast() -> None:
    """3042 images a second and GPU are the most that is known of anybody."""
    settings = RECIPES["digits-mira"].settings
    found = estimate("digits-mira", settings, 1, DEVICES["H200"])
    assert found.hours[0] == pytest.approx(100 * 10 * 128 / 3042 / 3600)


def test_what_cannot_be_estimated_is_said() -> None:
    settings = tiny("mira-imagenet-100")
    device = DEVICES["V100-16GB"]
    with pytest.raises(EstimateError, match="does not divide over 3 GPUs"):
        estimate("mira", settings, 3, device)
    with pytest.raises(EstimateError, match="V100-16GB has no bfloat16"):
        estimate("mira", settings, 1, device, precision="bfloat16")
    unknown = replace(settings, data=Folder(root="pictures"))
    with pytest.raises(EstimateError, match="say so by --images"):
        estimate("mira", unknown, 1, device)
    with pytest.raises(EstimateError, match="1 images do not fill a batch of 2"):
        estimate("mira", unknown, 1, device, images=1)
    once, twice = (estimate("mira", unknown, 1, device, images=number).hours[0] for number in (1000, 2000))
    assert twice == pytest.approx(2 * once)
    chosen = replace(settings, data=Torchvision(name="imagenet", class_list="hundred.txt"))
    assert estimates.images_of(chosen) < estimates.images_of(settings) / 10


@pytest.mark.parametrize(
    ("name", "gpus", "precision", "memory", "time"),
    [
        # Published: 10.4 GB, 8.5 h; 504 GB on 16 GPUs and 73 GB on 8, 9 and 29 minutes an epoch.
        ("imsvd-imagenet-100", "32xV100-32GB", "float32", 1.22, (0.76, 2.13)),
        ("imsvd-imagenet-100", "32xV100-32GB", "float16", 0.72, (0.32, 0.91)),
        ("mira-imagenet-100", "16xA100-80GB", "float32", 1.52, (0.44, 1.24)),
        ("mira-imagenet-100", "16xA100-80GB", "float16", 0.79, (0.19, 0.54)),
        ("mira-imagenet-batch512-100", "8xTITAN-V", "float32", 1.37, (0.80, 2.25)),
        ("mira-imagenet-batch512-100", "8xTITAN-V", "float16", 0.75, (0.34, 0.95)),
    ],
)
def test_estimates_beside_what_was_published(
    name: str, gpus: str, precision: Precision, memory: float, time: tuple[float, float]
) -> None:
    """The ratios that the documentation has; the papers do not say which precision they used."""
    published = {"imsvd": (10.4e9, 8.5), "mira-imagenet-100": (504e9 / 16, 15), "mira": (73e9 / 8, 48.3)}
    bytes_, hours = next(value for key, value in published.items() if name.startswith(key))
    number, device = parse_gpus(gpus)
    found = estimate(name, RECIPES[name].settings, number, device, precision=precision)
    assert found.total / bytes_ == pytest.approx(memory, abs=0.01)
    assert [value / hours for value in found.hours] == pytest.approx(time, abs=0.015)
