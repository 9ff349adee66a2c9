"""Encoders read from checkpoints of every layout: the same features as where they came from."""

import argparse
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from digit_runs import SMALL, built, some
from safetensors.torch import save_file
from torch import Tensor, nn

from infoassign_training.data.augmentations import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD
from infoassign_training.engine import checkpoint
from infoassign_training.engine.checkpoint import Checkpoint
from infoassign_training.engine.run import Run, RunError, Started
from infoassign_training.methods.build import build
from infoassign_training.models import settings
from infoassign_training.models.alexnet import AlexNet
from infoassign_training.models.pretrained import read_pretrained
from infoassign_training.models.weight_files import WeightsError
from infoassign_training.recipes import RECIPES

State = dict[str, Tensor]
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def trained(name: str = "resnet18", seed: int = 0, **options: Any) -> nn.Module:
    """Make a network of torchvision's whose normalisation is not that of a new one."""
    torch.manual_seed(seed)
    network: nn.Module = getattr(torchvision.models, name)(**options)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            layer.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    return network.eval()


NETWORK, OTHER = trained(), trained(seed=1)


def state(network: nn.Module = NETWORK, prefix: str = "", *, fc: bool = False) -> State:
    """Return a network's tensors, each name after a prefix, as released codes save them."""
    return {prefix + name: value for name, value in network.state_dict().items() if fc or not name.startswith("fc.")}


def features(network: nn.Module = NETWORK) -> Tensor:
    """Return what a network of torchvision's has before its classifier."""
    with torch.no_grad():
        return nn.Sequential(*list(network.children())[:-1])(IMAGES).flatten(1)


def sequential(prefix: str) -> State:
    """Return the tensors as lightly saves them: children by number."""
    backbone = nn.Sequential(*list(NETWORK.children())[:-1])
    return {prefix + name: value for name, value in backbone.state_dict().items()}


def head(prefix: str) -> State:
    return {f"{prefix}.0.weight": torch.ones(8, 512), f"{prefix}.1.running_mean": torch.ones(8)}


LAYOUTS: Mapping[str, tuple[dict[str, Any], str]] = {
    "torchvision": (state(fc=True), ""),
    "vicreg, encoder alone": (state(), ""),
    "vicreg": ({"epoch": 3, "model": state(prefix="module.backbone.") | head("module.projector")}, ""),
    "swav": (
        state(prefix="module.") | head("module.projection_head") | {"module.prototypes.weight": torch.ones(2, 2)},
        "",
    ),
    "moco": (
        {
            "epoch": 200,
            "arch": "resnet18",
            "state_dict": state(prefix="module.encoder_q.")
            | {"module.encoder_q.fc.weight": torch.ones(128, 512), "module.encoder_q.fc.bias": torch.ones(128)}
            | state(OTHER, "module.encoder_k.")
            | {"module.queue": torch.ones(4, 4)},
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        },
        "encoder_q",
    ),
    "dino": ({"student": state(OTHER, "module.backbone."), "teacher": state(prefix="backbone.")}, "teacher"),
    "simsiam": ({"state_dict": state(prefix="module.encoder.") | head("module.predictor")}, ""),
    "lightly": ({"state_dict": sequential("backbone.") | head("projection_head.layers")}, ""),
    "lightly, with teacher": (
        {"state_dict": sequential("backbone.") | state(OTHER, "backbone_momentum.")},
        "backbone",
    ),
    "solo-learn": (
        {"state_dict": state(prefix="backbone.") | state(OTHER, "momentum_backbone.") | head("projector")},
        "backbone",
    ),
    "solo-learn, older": ({"state_dict": state(prefix="encoder.") | head("projector")}, ""),
    "sela": ({"model": sequential("module.features.") | {"module.top_layer0.weight": torch.ones(3, 512)}}, ""),
    "mira": ({"model": state(prefix="encoder.") | head("head")}, ""),
    "compiled": ({"state_dict": state(prefix="_orig_mod.module.")}, ""),
}


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    """Leave no networks behind: pytest keeps the folders of three runs."""
    yield
    shutil.rmtree(tmp_path)


def saved(tree: Mapping[str, Any], folder: Path, **options: Any) -> Path:
    path = folder / "released.pth.tar"
    torch.save(tree, path, **options)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_features(layout: str, tmp_path: Path) -> None:
    tree, weights = LAYOUTS[layout]
    path = saved(tree, tmp_path)
    found = read_pretrained(path, weights=weights)
    assert not found.encoder.training
    assert found.settings == settings.ResNet(name="resnet18")
    assert (found.features, found.image_size, found.mean, found.std) == (512, 224, IMAGENET_MEAN, IMAGENET_STD)
    assert found.recipe is None
    assert found.pretraining is None
    assert (found.classifier is not None) == (layout == "torchvision")
    with torch.no_grad():
        torch.testing.assert_close(found.encoder(IMAGES), features(), rtol=0, atol=1e-6)
    if weights:
        with pytest.raises(WeightsError, match="several encoders; choose one with --weights NAME: "):
            read_pretrained(path)


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_the_network_is_told_from_its_tensors(name: str, tmp_path: Path) -> None:
    network = trained(name)
    found = read_pretrained(saved({"model": state(network, "module.backbone.")}, tmp_path))
    assert found.settings == settings.ResNet(name=name)
    assert found.origin == "weights under 'module.backbone.' in 'model'"
    with torch.no_grad():
        torch.testing.assert_close(found.encoder(IMAGES), features(network), rtol=0, atol=1e-6)


def test_a_stem_of_small_images_is_told_from_its_kernel(tmp_path: Path) -> None:
    network = trained()
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    found = read_pretrained(saved(state(network), tmp_path))
    assert found.settings == settings.ResNet(name="resnet18", cifar_stem=True)
    assert found.image_size == 32
    with torch.no_grad():
        torch.testing.assert_close(found.encoder(IMAGES), features(network), rtol=0, atol=1e-6)


def test_selas_alexnet(tmp_path: Path) -> None:
    network = AlexNet("small").eval()
    heads = {"top_layer0.weight": torch.ones(3, 4096), "top_layer0.bias": torch.ones(3)}
    tensors = {f"module.{name}": value for name, value in (network.state_dict() | heads).items()}
    found = read_pretrained(saved({"state_dict": tensors}, tmp_path))
    assert found.settings == settings.AlexNet(size="small")
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(found.encoder(images), network(images), rtol=0, atol=1e-6)


def test_files_of_safetensors_and_of_old_torch(tmp_path: Path) -> None:
    plain = tmp_path / "model.safetensors"
    save_file(state(fc=True), plain)
    old = saved({"state_dict": state()}, tmp_path, _use_new_zipfile_serialization=False)
    for path in (plain, old):
        with torch.no_grad():
            torch.testing.assert_close(read_pretrained(path).encoder(IMAGES), features(), rtol=0, atol=1e-6)


def test_half_precision_and_uncounted_batches_load(tmp_path: Path) -> None:
    tensors = {name: value.half() for name, value in state().items() if not name.endswith("num_batches_tracked")}
    found = read_pretrained(saved(tensors, tmp_path))
    assert all(value.dtype is torch.float32 for value in found.encoder.parameters())
    with torch.no_grad():
        torch.testing.assert_close(found.encoder(IMAGES), features(), rtol=0.05, atol=0.05)


def test_options_and_numbers_of_numpy_are_read(tmp_path: Path) -> None:
    """As many releases have them, and without running code."""
    beside = {"args": argparse.Namespace(lr=0.1, out=["a"]), "best": np.float64(0.7), "epoch": np.int64(3)}
    assert read_pretrained(saved({"state_dict": state(), **beside}, tmp_path)).features == 512
    # NumPy before version 2 gave its parts other names.
    old = saved({"state_dict": state(), **beside}, tmp_path, _use_new_zipfile_serialization=False)
    old.write_bytes(old.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_pretrained(old).features == 512


class Unknown:
    """What another program's checkpoint may hold."""


@pytest.mark.parametrize("zipped", [True, False])
def test_what_only_code_could_read_is_refused(zipped: bool, tmp_path: Path) -> None:
    path = saved({"state_dict": state(), "config": Unknown()}, tmp_path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"more than tensors.*Unknown.*weights_only=False"):
        read_pretrained(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "is damaged or cut short"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_text("\n<!DOCTYPE html><p>404"), "it is a web page"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "pointer of Git LFS"),
        (lambda path: path.write_text("hello"), "it begins with b'hello'"),
        (lambda path: path.write_bytes(b"\x40" + bytes(7) + b'{"a": 1}'), "damaged file of safetensors"),
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: torch.save([1, 2], path), "holds no dict of tensors but a list"),
    ],
)
def test_what_is_no_checkpoint_is_told_what_it_is(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = saved({"state_dict": state()}, tmp_path)
    damage(path)
    with pytest.raises(WeightsError, match=message) as caught:
        read_pretrained(path)
    assert str(path) in str(caught.value)


def without(name: str) -> State:
    return {key: value for key, value in state().items() if key != name}


def spoilt() -> State:
    tensors = {key: value.clone() for key, value in state().items()}
    tensors["layer3.0.bn1.running_var"][5] = torch.nan
    return tensors


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"patch_embed.proj.weight": torch.ones(4, 3, 16, 16)}, "no encoder in it, a residual network.*patch_embed"),
        ({"features.0.weight": torch.ones(64, 3, 3, 3)}, "not SeLa's AlexNet"),
        (without("layer2.1.bn1.bias"), r"not resnet18: it lacks layer2.1.bn1.bias"),
        (without("conv1.weight"), "no conv1.weight"),
        (state() | {"layer2.1.se.weight": torch.ones(2)}, "it has also layer2.1.se.weight"),
        (state() | {"layer4.2.conv1.weight": torch.ones(2)}, r"none of torchvision's: \(2, 2, 2, 3\) blocks"),
        (state() | {"conv1.weight": torch.ones(64, 1, 7, 7)}, "conv1.weight has the shape 64 x 1 x 7 x 7, and that of"),
        (spoilt(), "layer3.0.bn1.running_var holds values that are not finite"),
        ({}, "there are no tensors in it"),
    ],
)
def test_other_networks_are_told_apart(tensors: State, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        read_pretrained(saved(tensors, tmp_path))


def test_weights_that_are_not_there_are_refused_with_those_that_are(tmp_path: Path) -> None:
    tree, _ = LAYOUTS["dino"]
    with pytest.raises(WeightsError, match=r"no encoder is called 'ema'; there are: student/module.backbone, teacher"):
        read_pretrained(saved(tree, tmp_path), weights="ema")


def test_the_network_may_be_demanded(tmp_path: Path) -> None:
    path = saved(state(), tmp_path)
    assert read_pretrained(path, encoder=settings.ResNet(name="resnet18")).features == 512
    with pytest.raises(WeightsError, match="not resnet34: it lacks"):
        read_pretrained(path, encoder=settings.ResNet(name="resnet34"))
    with pytest.raises(WeightsError, match="there is no encoder in it, the large AlexNet"):
        read_pretrained(path, encoder=settings.AlexNet())


def test_a_run_of_the_digits(finished_run: Any) -> None:
    run = Run(finished_run.folder)
    method = built(SMALL, some(200))
    state = checkpoint.load(run.checkpoint)
    assert state is not None
    state.restore_method(method)
    method.eval()
    images = some(3).images
    for path in (run.folder, run.checkpoint):
        found = read_pretrained(path)
        assert found.origin == f"run small after {state.step} steps"
        assert (found.recipe, found.pretraining, found.settings) == ("small", SMALL, SMALL.encoder)
        assert (found.features, found.image_size, found.mean, found.std) == (16, 8, (0, 0, 0), (1, 1, 1))
        with torch.no_grad():
            torch.testing.assert_close(found.encoder(images), method.encoder(images), rtol=0, atol=1e-6)
    teacher = read_pretrained(run.folder, weights="teacher")
    assert teacher.origin == f"run small after {state.step} steps, teacher"
    with torch.no_grad():
        torch.testing.assert_close(teacher.encoder(images), method.teacher[0](images), rtol=0, atol=1e-6)
    with pytest.raises(WeightsError, match=r"the run has the small-resnet of widths 4, 8, not resnet50"):
        read_pretrained(run.folder, encoder=settings.ResNet())


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_classifier_that_is_not_finite_is_refused(part: str, tmp_path: Path) -> None:
    tensors = state(fc=True)
    tensors[f"fc.{part}"] = torch.full_like(tensors[f"fc.{part}"], float("nan"))
    with pytest.raises(WeightsError, match=rf"released.*: fc\.{part} holds values that are not finite"):
        read_pretrained(saved(tensors, tmp_path))


def test_a_run_of_no_epochs_has_its_initial_weights(tmp_path: Path) -> None:
    chosen = replace(SMALL, epochs=0, seed=3)
    Started("random", chosen, {}).write(tmp_path / "settings.json")
    found, method = read_pretrained(tmp_path), built(chosen, some(200)).eval()
    assert found.origin == "run random after 0 steps"
    images = some(3).images
    with torch.no_grad():
        torch.testing.assert_close(found.encoder(images), method.encoder(images), rtol=0, atol=0)


def test_a_run_of_images_has_the_size_and_colours_of_its_views(tmp_path: Path) -> None:
    chosen = RECIPES["mira-cifar10"].settings
    method = build(chosen, images=10, classes=10)
    checkpoint.save(tmp_path / "checkpoint.pt", Checkpoint(700, method.state_dict(), {}, {}, {}))
    Started("mira-cifar10", chosen, {}).write(tmp_path / "settings.json")
    found = read_pretrained(tmp_path)
    assert (found.image_size, found.mean, found.std) == (32, CIFAR10_MEAN, CIFAR10_STD)
    assert found.settings == chosen.encoder


def test_folders_without_a_checkpoint_and_checkpoints_without_settings(tmp_path: Path, finished_run: Any) -> None:
    with pytest.raises(RunError, match="holds no run"):
        read_pretrained(tmp_path)
    Started("small", SMALL, {}).write(tmp_path / "settings.json")
    with pytest.raises(WeightsError, match=r"has no checkpoint\.pt yet"):
        read_pretrained(tmp_path)
    alone = tmp_path / "elsewhere" / "checkpoint.pt"
    alone.parent.mkdir()
    alone.write_bytes((finished_run.folder / "checkpoint.pt").read_bytes())
    with pytest.raises(WeightsError, match=r"needs the run's settings.json beside it"):
        read_pretrained(alone)
    tree = torch.load(alone, weights_only=True)
    torch.save(tree | {"version": 99}, alone)
    with pytest.raises(WeightsError, match="format version 99, and this program reads 2; update it"):
        read_pretrained(alone)
    torch.save({"format": tree["format"], "version": 1, "method": tree["method"]}, alone)
    with pytest.raises(WeightsError, match="format version 1, and this program reads 2; read it with the release"):
        read_pretrained(alone)


def test_a_supervised_run_brings_its_classifier(tmp_path: Path) -> None:
    chosen = replace(RECIPES["sela-cifar10-full-supervised"].settings, encoder=settings.ResNet(name="resnet18"))
    method = build(chosen, images=10, classes=7)
    checkpoint.save(tmp_path / "checkpoint.pt", Checkpoint(1, method.state_dict(), {}, {}, {}))
    Started("supervised", chosen, {}).write(tmp_path / "settings.json")
    classifier = read_pretrained(tmp_path).classifier
    assert classifier is not None
    torch.testing.assert_close(classifier.weight, method.head.weight)
