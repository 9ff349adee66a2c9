"""Fine-tuning for VOC07's classes (SeLa, table 7): what is learnt of what, from what, and how it is scored."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import image_files
import numpy as np
import PIL.Image
import pytest
import torch
import torchvision
from evaluations import on
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torchvision.transforms import v2

from infoassign_training.cli import run
from infoassign_training.config import Optimizer
from infoassign_training.data.augmentations import IMAGENET_MEAN, IMAGENET_STD
from infoassign_training.data.build import images_of
from infoassign_training.engine import pretrain
from infoassign_training.engine.run import Run
from infoassign_training.engine.schedule import rate_at
from infoassign_training.errors import UserError
from infoassign_training.evaluation.presets import PROTOCOLS
from infoassign_training.evaluation.settings import MultiLabel
from infoassign_training.evaluation.tagging import Tagger, Tagging, tagging_loss
from infoassign_training.evaluation.trained import digest
from infoassign_training.methods.method import Parts
from infoassign_training.models import alexnet

BOTH = ("voc07-fc6-8", "voc07-all")
QUICK = {"epochs": 2, "batch_size": 4, "drops": (1,)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Checkpoints of a residual network and of an AlexNet, its wide layers narrow, with statistics of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alexnet, "FEATURES", 128)
        torch.manual_seed(0)
        networks = {"resnet": torchvision.models.resnet18(), "alexnet": alexnet.AlexNet("large")}
        folder = tmp_path_factory.mktemp("weights")
        for name, network in networks.items():
            for layer in network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    assert layer.running_mean is not None
                    assert layer.running_var is not None
                    layer.running_mean.normal_(std=0.1)
                    layer.running_var.uniform_(0.5, 2.0)
            torch.save(network.state_dict(), folder / f"{name}.pth")
        yield {name: folder / f"{name}.pth" for name in networks}


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voc")
    image_files.write_voc(root)
    return root


def quick(protocol: str, **changes: Any) -> MultiLabel:
    chosen = PROTOCOLS[protocol].settings
    assert isinstance(chosen, MultiLabel)
    return replace(chosen, **QUICK | changes)


def learnt(out: Path) -> dict[str, Tensor]:
    """Return the state of what was trained in a folder of results."""
    (path,) = out.glob("*/checkpoint.pt")
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["method"]
    return state


def tagger(encoder: nn.Module, features: int, checkpoint: Path, **changes: Any) -> Tagger:
    parts = Parts(encoder, nn.Identity(), features, features, 7, 20)
    method = Tagging(checkpoint=str(checkpoint), **changes).method(parts)
    assert isinstance(method, Tagger)
    return method


# The loss


def test_the_loss_is_its_definition() -> None:
    """Written out in float64: what does not count is left out of the sum, and images are averaged whatever counts."""
    random = np.random.default_rng(0)
    logits, presence = random.normal(size=(6, 20)) * 3, random.integers(-1, 2, (6, 20)).astype(np.int8)
    total = 0.0
    for row in range(6):
        for column in range(20):
            share = 1 / (1 + np.exp(-logits[row, column]))
            if presence[row, column] == 1:
                total -= np.log(share)
            if presence[row, column] == 0:
                total -= np.log(1 - share)
    found = torch.from_numpy(logits).requires_grad_()
    loss = tagging_loss(found, torch.from_numpy(presence))
    assert float(loss.detach()) == pytest.approx(total / 6, rel=1e-12)
    loss.backward()
    assert found.grad is not None
    np.testing.assert_array_equal(found.grad.numpy()[presence == -1], 0)
    assert (found.grad.numpy()[presence != -1] != 0).all()


def test_the_rate_is_halved_as_often_as_in_the_code_that_is_followed() -> None:
    """From .003 at 5000 steps, 80,000 in all, to a whole epoch of VOC07's 5011 images."""
    steps = 5011 // 16
    for name in BOTH:
        chosen = PROTOCOLS[name].settings
        assert isinstance(chosen, MultiLabel)
        optimizer = Optimizer(learning_rate=1.0, warmup=0.0, drops=chosen.drops, drop_by=chosen.drop_by)
        total = chosen.epochs * steps
        assert abs(total - 80_000) < steps
        for step in (0, 4999, 5010, 10_020, 79_999):
            found = chosen.learning_rate * rate_at(optimizer, chosen.batch_size, step, total, steps)
            assert found == pytest.approx(0.003 / 2 ** (step // 5000), rel=1e-12)


# What learns, and from what


def test_the_linear_layers_of_an_alexnet_start_anew(weights: dict[str, Path]) -> None:
    saved = torch.load(weights["alexnet"], weights_only=True)
    torch.manual_seed(3)
    encoder = alexnet.AlexNet("large")
    drawn = {name: value.clone() for name, value in encoder.state_dict().items()}
    method = tagger(encoder, 128, weights["alexnet"])
    method.prepare()
    for name, value in method.encoder.state_dict().items():
        if name.startswith("features"):
            assert torch.equal(value, saved[name])
        elif name.endswith("weight"):
            assert torch.equal(value, drawn[name])
            assert float(value.std()) == pytest.approx(0.01, rel=0.03)
        else:
            assert torch.equal(value, torch.full((128,), 0.1))
    assert isinstance(method.heads[0], nn.Linear)
    assert torch.equal(method.heads[0].bias, torch.full((20,), 0.1))


def test_a_residual_network_starts_from_its_weights(weights: dict[str, Path]) -> None:
    encoder = torchvision.models.resnet18()
    encoder.fc = nn.Identity()
    method = tagger(encoder, 512, weights["resnet"])
    method.prepare()
    saved = torch.load(weights["resnet"], weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in method.encoder.state_dict().items())


def test_normalisation_is_in_evaluation_mode_and_dropout_in_training(weights: dict[str, Path]) -> None:
    method = tagger(alexnet.AlexNet("large"), 128, weights["alexnet"]).train()
    modes = {(type(layer), layer.training) for layer in method.modules()}
    assert {mode for mode in modes if mode[0] in (nn.BatchNorm2d, nn.Dropout)} == {
        (nn.BatchNorm2d, False),
        (nn.Dropout, True),
    }


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_gradients_are_cut_to_a_length_all_together(clip: float, weights: dict[str, Path]) -> None:
    encoder = torchvision.models.resnet18()
    encoder.fc = nn.Identity()
    method = tagger(encoder, 512, weights["resnet"], clip=clip)
    random = torch.Generator().manual_seed(0)
    for parameter in method.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random) / 100
    before = torch.cat([parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None])
    assert 1e-3 < float(before.norm()) < 1e3
    method.after_backward(None)  # type: ignore[arg-type]
    after = torch.cat([parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None])
    torch.testing.assert_close(after, before * min(1.0, clip / float(before.norm())))


@pytest.mark.parametrize("protocol", BOTH)
def test_what_is_frozen_stays_to_the_bit(protocol: str, weights: dict[str, Path], voc: Path, tmp_path: Path) -> None:
    chosen = quick(protocol)
    on(protocol, chosen, weights["alexnet"], f"voc2007:{voc}", tmp_path)
    before, after = torch.load(weights["alexnet"], weights_only=True), learnt(tmp_path)
    for name, value in before.items():
        same = torch.equal(after[f"encoder.{name}"], value)
        if "running" in name or "num_batches" in name:
            assert same
        elif name.startswith("features"):
            assert same == (protocol == "voc07-fc6-8")
        else:
            assert not same


def test_the_settings_of_the_run_name_what_it_was_trained_on(
    weights: dict[str, Path], voc: Path, tmp_path: Path
) -> None:
    found = on("voc07-all", quick("voc07-all", epochs=1), weights["alexnet"], f"voc2007:{voc}", tmp_path)
    (folder,) = (path.parent for path in tmp_path.glob("*/settings.json"))
    settings = Run(folder).read().settings
    images = images_of(settings.data)
    assert len(images) == found.data["train"] + found.data["validation"] == 7
    assert digest(images) == settings.data.sha256  # type: ignore[union-attr]
    assert settings.augmentation.aspect == (1.0, 1.0)  # type: ignore[union-attr]
    assert settings.augmentation.global_scale == (0.1, 0.5)  # type: ignore[union-attr]
    assert any("7 training and validation images" in note for note in found.notes)


# How it is scored


def test_ten_crops_are_scored_as_written_out(weights: dict[str, Path], voc: Path, tmp_path: Path) -> None:
    """By torchvision's network and other readers: logits averaged, precision without what is difficult."""
    chosen = quick("voc07-all", crop=64)
    found = on("voc07-all", chosen, weights["resnet"], f"voc2007:{voc}", tmp_path)
    state = learnt(tmp_path)
    network = torchvision.models.resnet18(num_classes=20)
    named = {name.replace("encoder.", "").replace("heads.0", "fc"): value for name, value in state.items()}
    network.load_state_dict(named)
    network.eval()
    folder = voc / "VOCdevkit" / "VOC2007"
    names = (folder / "ImageSets" / "Main" / "test.txt").read_text().split()
    scores = []
    for name in names:
        image = PIL.Image.open(folder / "JPEGImages" / f"{name}.jpg").convert("RGB")
        crops = v2.functional.ten_crop(v2.functional.resize(image, [73]), [64])
        pixels = torch.stack([v2.functional.pil_to_tensor(crop) for crop in crops]) / 255
        with torch.no_grad():
            scores.append(network(v2.functional.normalize(pixels, IMAGENET_MEAN, IMAGENET_STD)).mean(dim=0).numpy())
    area, eleven = [], []
    for number, name in enumerate(image_files.VOC_CLASSES):
        lines = (folder / "ImageSets" / "Main" / f"{name}_test.txt").read_text().splitlines()
        tags = np.array([int(line.split()[1]) for line in lines])
        ours = np.array([row[number] for row in scores])[tags != 0]
        truth = tags[tags != 0] == 1
        area.append(average_precision_score(truth, ours))
        right = truth[np.argsort(-ours)]
        precision, recall = right.cumsum() / np.arange(1, len(right) + 1), right.cumsum() / right.sum()
        eleven.append(np.mean([precision[recall >= level / 10 - 1e-9].max() for level in range(11)]))
    assert found.results["map"] == pytest.approx(np.mean(area), abs=1e-9)
    assert found.results["11-point-map"] == pytest.approx(np.mean(eleven), abs=1e-9)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("protocol", "encoder", "changes"),
    [
        ("voc07-fc6-8", "alexnet", {"epochs": 160, "drops": (120,), "learning_rate": 1.0}),
        ("voc07-all", "resnet", {"epochs": 40, "drops": (30,), "learning_rate": 0.2, "crop": 64}),
    ],
    ids=BOTH,
)
def test_a_few_images_are_learnt_by_heart(
    protocol: str, encoder: str, changes: dict[str, Any], weights: dict[str, Path], tmp_path: Path
) -> None:
    """Scored on what was trained on, with the same labels: nothing is mistaken any more."""
    image_files.write_voc(tmp_path)
    lists = tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    for test in lists.glob("*test.txt"):
        parts = [test.with_name(test.name.replace("test", part)).read_text() for part in ("train", "val")]
        test.write_text("".join(parts))
    chosen = quick(protocol, batch_size=7, crops="plain", **changes)
    found = on(protocol, chosen, weights[encoder], f"voc2007:{tmp_path}", tmp_path / "out")
    assert found.results == {"11-point-map": 1.0, "map": 1.0}


# Going on


def test_training_goes_on_to_the_same_weights(weights: dict[str, Path], voc: Path, tmp_path: Path) -> None:
    chosen, words = quick("voc07-all", epochs=3), f"voc2007:{voc}"
    whole = on("voc07-all", chosen, weights["alexnet"], words, tmp_path / "whole")
    original, calls = pretrain.backward, []

    def backward(*arguments: Any, **named: Any) -> Any:
        calls.append(None)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "backward", backward)
        with pytest.raises(KeyboardInterrupt):
            on("voc07-all", chosen, weights["alexnet"], words, tmp_path / "cut")
    found = on("voc07-all", chosen, weights["alexnet"], words, tmp_path / "cut", resume=True)
    assert found.results == whole.results
    first, second = learnt(tmp_path / "whole"), learnt(tmp_path / "cut")
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_training_does_not_go_on_with_other_labels(weights: dict[str, Path], tmp_path: Path) -> None:
    """The same images, of which one has a class more."""
    image_files.write_voc(tmp_path)
    out, words = tmp_path / "out", f"voc2007:{tmp_path}"
    chosen = quick("voc07-all", epochs=1)
    on("voc07-all", chosen, weights["alexnet"], words, out)
    next(out.glob("*.json")).unlink()
    tags = tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "bird_val.txt"
    tags.write_text(tags.read_text().replace("-1", " 1", 1))
    with pytest.raises(UserError, match=r"data\.sha256 was"):
        on("voc07-all", chosen, weights["alexnet"], words, out, resume=True)


# From the command line


def test_the_command_runs_and_says_what_it_found(
    weights: dict[str, Path], voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(weights["alexnet"]), "--data", f"voc2007:{voc}", "--out", str(tmp_path / "out")]
    options += ["--protocol.epochs", "1", "--protocol.batch-size", "4", "--device", "cpu"]
    assert run(["evaluate", "voc07-fc6-8", *options]) == 0
    printed = capsys.readouterr().out
    assert "| voc07-fc6-8*" in printed
    assert "7 training and validation images" in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["voc07-fc6-8", "resnet", "voc2007"], "voc07-all trains all layers"),
        (["voc07-all", "resnet", "imagenet"], "one class an image"),
        (["voc07-all", "alexnet", "voc2007", "--protocol.crop", "64"], "AlexNet takes images of 224"),
        (["voc07-all", "alexnet", "voc2007", "--protocol.batch-size", "16"], "larger than the 7 labelled images"),
        (["voc07-all", "alexnet", "voc2007", "--protocol.clip", "0"], "protocol.clip must be positive"),
        (["voc07-all", "alexnet", "voc2007", "--protocol.resize", "1"], "no room for the ten crops"),
    ],
)
def test_what_is_slightly_wrong_is_told(
    words: list[str], said: str, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol, encoder, name, *options = words
    image_files.WRITERS[name](tmp_path)
    given = ["--checkpoint", str(weights[encoder]), "--data", f"{name}:{tmp_path}", "--out", str(tmp_path / "out")]
    with suppress(SystemExit):  # the command line's own
        assert run(["evaluate", protocol, *given, "--protocol.batch-size", "4", *options]) == 1
    # Messages may be wrapped in a frame.
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()
