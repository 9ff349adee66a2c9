"""Exports as other programs read them: the libraries' own loaders, the same features, and a card that can be run."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import safetensors
import torch
import torchvision
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from infoassign_training import export as exporting
from infoassign_training.cli import run
from infoassign_training.data.augmentations import CIFAR10_MEAN, CIFAR10_STD
from infoassign_training.data.settings import Folder
from infoassign_training.engine import checkpoint
from infoassign_training.engine.checkpoint import Checkpoint
from infoassign_training.engine.run import Started
from infoassign_training.export import ExportError, export
from infoassign_training.methods.build import build
from infoassign_training.models.pretrained import read_pretrained
from infoassign_training.models.settings import ResNet
from infoassign_training.recipes import RECIPES

CIFAR = replace(RECIPES["mira-cifar10"].settings, epochs=3)
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def made(folder: Path, recipe: str = "mira-cifar10", chosen: Any = CIFAR, classes: int = 10) -> Path:
    """Write the folder of a run with its initial weights."""
    folder.mkdir()
    method = build(chosen, images=10, classes=classes)
    checkpoint.save(folder / "checkpoint.pt", Checkpoint(700, method.state_dict(), {}, {}, {}))
    Started(recipe, chosen, {"torch": "2.9"}).write(folder / "settings.json")
    return folder


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    """Leave no networks behind: pytest keeps the folders of three runs."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of ours with results in it; tests must not change it."""
    folder = made(tmp_path_factory.mktemp("runs") / "cifar")
    results = folder / "evaluations"
    results.mkdir()
    ours = {"protocol": "knn", "seed": 0, "data": {"name": "cifar10"}, "results": {"top-1": 0.8125}}
    found = read_pretrained(folder)
    ours["checkpoint"] = {"sha256": found.sha256, "origin": found.origin}
    (results / "knn.json").write_text(json.dumps(ours))
    other = ours | {"checkpoint": {"sha256": "of another checkpoint"}, "results": {"top-1": 0.4321}}
    (results / "linear.json").write_text(json.dumps(other))
    (results / "torn.json").write_text("{")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def exported(cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything of that run; tests must not change it."""
    out = tmp_path_factory.mktemp("exports") / "cifar"
    export(cifar, out)
    yield out
    shutil.rmtree(out)


def normalised(images: Tensor = IMAGES) -> Tensor:
    return (images - torch.tensor(CIFAR10_MEAN).view(3, 1, 1)) / torch.tensor(CIFAR10_STD).view(3, 1, 1)


def expected(run: Path) -> Tensor:
    with torch.no_grad():
        return read_pretrained(run).encoder(normalised())


def small_stem(network: nn.Module) -> nn.Module:
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def close(found: Tensor, like: Tensor) -> None:
    torch.testing.assert_close(found, like, rtol=0, atol=1e-5)


@torch.no_grad()
def test_torchvision_loads_its_state_strictly(exported: Path, cifar: Path) -> None:
    network = small_stem(torchvision.models.resnet18())
    network.load_state_dict(torch.load(exported / "torchvision.pth", weights_only=True), strict=True)
    assert not network.eval()(normalised()).any()  # no classifier was trained
    network.fc = nn.Identity()
    close(network(normalised()), expected(cifar))


@torch.no_grad()
def test_safetensors_load_and_say_where_they_are_from(exported: Path, cifar: Path) -> None:
    network = small_stem(torchvision.models.resnet18())
    network.fc = nn.Identity()
    network.load_state_dict(load_file(exported / "model.safetensors"), strict=True)
    close(network.eval()(normalised()), expected(cifar))
    with safetensors.safe_open(exported / "model.safetensors", framework="pt") as file:
        about = file.metadata()
    assert about["format"] == "pt"
    assert about["recipe"] == "mira-cifar10"
    assert about["source_sha256"] == read_pretrained(cifar).sha256


@torch.no_grad()
def test_the_program_normalises_and_takes_batches_of_any_size(exported: Path, cifar: Path) -> None:
    program = torch.export.load(exported / "encoder.pt2").module()
    for number in (1, 2, 3):
        close(program(IMAGES[:number]), expected(cifar)[:number])


def test_no_file_tells_where_the_code_lay(exported: Path) -> None:
    """Of the program's archive, what is in it, compressed or not."""
    places = {str(Path(module.__file__).parents[1]) for module in (torch, torchvision, exporting)} | {sys.prefix}
    contents = {path.name: path.read_bytes() for path in exported.iterdir()}
    with ZipFile(exported / "encoder.pt2") as archive:
        contents |= {name: archive.read(name) for name in archive.namelist()}
    for name, content in contents.items():
        assert not [place for place in places if place.encode() in content], name


def test_an_export_is_a_checkpoint_itself(exported: Path, cifar: Path) -> None:
    for name in ("torchvision.pth", "model.safetensors"):
        again = read_pretrained(exported / name)
        assert again.settings == ResNet(name="resnet18", cifar_stem=True)
        with torch.no_grad():
            close(again.encoder(normalised()), expected(cifar))


def header(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_names_recipe_data_settings_and_results(exported: Path, cifar: Path) -> None:
    text = (exported / "README.md").read_text()
    for part in (
        "by the recipe `mira-cifar10`",
        "| images | cifar10, train |",
        "| number of images | 50000 |",
        "| weights | run mira-cifar10 after 700 steps |",
        "| changed from the recipe | epochs 3 (not 1000) |",
        "| `method.prototypes` | 3000 |",
        "| knn | cifar10 | top-1 | 0.8125 |",
        "an `fc` of zeros",
        "torch 2.9",
        read_pretrained(cifar).sha256,
    ):
        assert part in text
    assert "0.4321" not in text  # of another checkpoint
    assert header(text)["license"] == "other"
    assert header(text)["tags"] == ["image-feature-extraction", "infoassign", "mira"]
    (result,) = header(text)["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.8125


def run_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Do what a reader of the card does: paste its code, one block after the other."""
    monkeypatch.chdir(folder)
    found = []
    for block in re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL):
        names: dict[str, Any] = {}
        # Networks draw their initial weights, so that images have to be drawn after a seed of their own.
        exec(block.replace("images =", "torch.manual_seed(5); images ="), names)
        found.append(names["features"])
    return found


def test_the_code_of_the_card_runs_and_agrees(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = run_blocks(exported, monkeypatch)
    assert first.shape == (8, 512)
    assert len(others) == 2
    for other in others:
        close(other, first)


def test_weights_that_were_not_evaluated_have_no_results(cifar: Path, tmp_path: Path) -> None:
    export(cifar, tmp_path / "teacher", ["safetensors"], weights="teacher")
    text = (tmp_path / "teacher" / "README.md").read_text()
    assert "after 700 steps, teacher" in text
    assert "None were measured on these weights." in text


def test_a_digits_run(finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "digits"
    written = export(finished_run.folder, out)
    assert sorted(path.name for path in written.files) == ["README.md", "encoder.pt2", "model.safetensors"]
    assert {path.name for path in out.iterdir()} == {path.name for path in written.files}
    close(*run_blocks(out, monkeypatch))
    text = Path("README.md").read_text()
    assert f"| linear | {finished_run.scores['features']['linear']:.4f} |" in text
    assert f"{finished_run.scores['pixels']['knn']:.4f} |" not in text
    assert "| number of images | 1347 |" in text
    assert "none of infoassign's own" in text
    values = [metric["value"] for metric in header(text)["model-index"][0]["results"][0]["metrics"]]
    assert values == list(finished_run.scores["features"].values())
    with pytest.raises(ExportError, match="torchvision has no network like the small-resnet"):
        export(finished_run.folder, tmp_path / "other", ["torchvision"])
    assert not (tmp_path / "other").exists()


def test_a_checkpoint_of_others(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = torchvision.models.resnet18().eval()
    path = tmp_path / "released.pth"
    torch.save({"model": {f"module.{name}": value for name, value in network.state_dict().items()}}, path)
    export(path, tmp_path / "out", ["torchvision"])
    again = torchvision.models.resnet18()
    again.load_state_dict(torch.load(tmp_path / "out" / "torchvision.pth", weights_only=True), strict=True)
    with torch.no_grad():
        close(again.eval()(IMAGES), network(IMAGES))  # its classifier, too
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Neither the recipe nor the images are in the checkpoint." in text
    assert "weights under 'module.' in 'model'" in text


def test_a_network_of_torchvisions_keeps_its_classifier_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = torchvision.models.resnet18(num_classes=10).eval()
    path = tmp_path / "tuned.pth"
    torch.save(network.state_dict(), path)
    export(path, tmp_path / "out", ["torchvision"])
    again = torchvision.models.resnet18(num_classes=10)
    again.load_state_dict(torch.load(tmp_path / "out" / "torchvision.pth", weights_only=True), strict=True)
    with torch.no_grad():
        close(again.eval()(IMAGES), network(IMAGES))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "the `fc` that the checkpoint has, of 10 outputs" in text
    assert "resnet18(num_classes=10)" in text


@pytest.mark.parametrize(
    ("layout", "what"),
    [
        ("{}", "an `fc` of zeros, which is there to be loaded and replaced: the checkpoint has an `fc` of 128 outputs"),
        ("module.encoder_q.{}", "the checkpoint has an `fc` of 128 outputs, which was left out"),
        ("deep", "the checkpoint has an `fc` that is no linear layer on the features, which was left out"),
    ],
)
def test_what_may_be_a_projector_is_left_out_and_named(layout: str, what: str, tmp_path: Path) -> None:
    network = torchvision.models.resnet18(num_classes=128)
    if layout == "deep":
        network.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    name = "{}" if layout == "deep" else layout
    tensors = {name.format(key): value for key, value in network.state_dict().items()}
    if layout == "{}":
        tensors["queue"] = torch.ones(4)  # so it is no network of torchvision's alone
    path = tmp_path / "released.pth"
    torch.save(tensors, path)
    export(path, tmp_path / "out", ["torchvision"])
    assert what in (tmp_path / "out" / "README.md").read_text()
    assert not torch.load(tmp_path / "out" / "torchvision.pth", weights_only=True)["fc.weight"].any()


def test_a_supervised_run_keeps_its_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ResNet(name="resnet18", cifar_stem=True)
    chosen = replace(RECIPES["sela-cifar10-full-supervised"].settings, encoder=encoder)
    folder = made(tmp_path / "run", "mine", chosen, classes=7)
    export(folder, tmp_path / "out", ["torchvision"])
    state = torch.load(tmp_path / "out" / "torchvision.pth", weights_only=True)
    method = torch.load(folder / "checkpoint.pt", weights_only=True)["method"]
    assert torch.equal(state["fc.weight"], method["head.weight"])
    assert "resnet18(num_classes=7)" in (tmp_path / "out" / "README.md").read_text()


def test_where_the_images_lay_is_not_told(tmp_path: Path) -> None:
    data = Folder(root="/home/ann/secret", class_list="/home/ann/hundred.txt", imbalance="heavy")
    export(made(tmp_path / "run", "mine", replace(CIFAR, data=data)), tmp_path / "out", ["safetensors"])
    text = (tmp_path / "out" / "README.md").read_text()
    assert "/home" not in text
    assert "only the classes of `hundred.txt`; classes made uneven (heavy, seed 0)" in text
    assert "| number of images | not recorded |" in text


def test_a_folder_that_is_not_free_is_left_alone(cifar: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    export(cifar, out, ["safetensors"])
    (out / "README.md").write_text("mine")
    with pytest.raises(ExportError, match="already holds an export; replace it with --overwrite"):
        export(cifar, out, ["safetensors"])
    assert (out / "README.md").read_text() == "mine"
    export(cifar, out, ["torchvision"], overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "torchvision.pth"]
    (out / "thesis.tex").write_text("years")
    with pytest.raises(ExportError, match=r"files that are no export's \(thesis.tex\)"):
        export(cifar, out, ["safetensors"], overwrite=True)
    with pytest.raises(ExportError, match="is a file"):
        export(cifar, out / "thesis.tex")
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


def test_what_fails_on_the_way_leaves_what_was_there(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(cifar, out, ["safetensors"])
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        export(cifar, out, ["torchvision"], overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    monkeypatch.undo()
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if ".new-" in path.name:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(cifar, out, ["torchvision"], overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_onnx_without_its_packages_says_which(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda _: None)
    with pytest.raises(ExportError, match="needs the packages onnx and onnxscript: `pip install onnx onnxscript`"):
        export(cifar, tmp_path / "out", ["onnx"])
    assert not (tmp_path / "out").exists()


def test_onnx_where_its_packages_are(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    export(cifar, tmp_path / "out", ["onnx", "torch-export"])
    by_onnx, by_torch = run_blocks(tmp_path / "out", monkeypatch)
    close(torch.as_tensor(by_onnx), by_torch)


def test_the_command(cifar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["export", str(cifar), "--out", str(out), "--formats", "safetensors"]) == 0
    printed = capsys.readouterr().out
    assert "resnet18 with a stem for small images, run mira-cifar10 after 700 steps" in printed
    assert str(out / "model.safetensors") in printed
    assert str(out / "README.md") in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--out", "x"], "there is no file nowhere"),
        ([".", "--out", "x"], "holds no run"),
        (["RUN", "--out", "x", "--weights", "techer"], "no encoder is called 'techer'; there are: encoder, teacher.0"),
        (["RUN", "--out", "RUN"], "holds files that are no export's"),
        (["RUN", "--out", "RUN/settings.json"], "is a file; --out must name a folder"),
    ],
)
def test_slightly_wrong_words_are_put_right(
    words: list[str],
    message: str,
    cifar: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["export", *(word.replace("RUN", str(cifar)) for word in words)]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infoassign_training.export", None)
    with pytest.raises(SystemExit, match="0"):
        run(["export", "--help"])
    assert "torch-export" in capsys.readouterr().out
