"""Segmentation of VOC2012 by a fully convolutional network."""

import json
from contextlib import nullcontext as quiet
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scipy.io
import torch
from coco_files import write_voc_pixels
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d

from infoassign_training.cli import run
from infoassign_training.data.images import ImagesError
from infoassign_training.dense.fcn import FCN
from infoassign_training.dense.loop import train
from infoassign_training.dense.pixels import NAMES, VOID, Files, Pixels, PixelViews, open_pixels
from infoassign_training.dense.presets import PRESETS
from infoassign_training.dense.run import DenseError, evaluate
from infoassign_training.dense.segmentation import Segmentation, confusion, measured
from infoassign_training.dense.settings import Dense, Schedule, Segmenter
from infoassign_training.engine.ranks import Place
from infoassign_training.models import alexnet
from infoassign_training.models.alexnet import AlexNet
from infoassign_training.models.resnet import resnet
from infoassign_training.models.small import SmallResNet

QUICK = Schedule(iterations=4, batch_size=2, learning_rate=0.01, rated_for=2, warmup=0, drops=(), weight_decay=5e-4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> AlexNet:
    """An AlexNet that is narrow after its convolutions, so that it is quick."""
    monkeypatch.setattr(alexnet, "FEATURES", 48)
    torch.manual_seed(0)
    return rich(AlexNet("small"))


def rich(network: AlexNet) -> AlexNet:
    """Give every normalisation statistics, a scale and a shift of its own, and linear layers that let something by."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return network.eval()


def residual() -> ResNet:
    return ResNet(BasicBlock, [1, 1, 1, 1])


def test_on_one_place_it_is_the_alexnet(small: AlexNet) -> None:
    """Images of 224: what fc7 gives is the same, whether fc6 is a linear layer or a convolution."""
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = small(images)
        model = FCN(small, 21, Segmenter()).eval()
        found = model.body(images)
    assert found.shape == (2, 48, 1, 1)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found[..., 0, 0], expected)


def test_further_places_see_windows_of_the_image(small: AlexNet) -> None:
    """Fc6 at place (i, j) is the linear layer on the six by six maps that begin there."""
    maps = torch.randn(1, 256, 8, 7)
    linear = small.classifier[1]
    model = FCN(small, 21, Segmenter()).eval()
    with torch.no_grad():
        found = model.body.fc6(maps)
        expected = linear(maps[:, :, 2:8, 1:7].flatten(1))
    assert found.shape == (1, 48, 3, 2)
    torch.testing.assert_close(found[:, :, 2, 1], expected)


def reached(model: FCN, side: int, row: int, column: int) -> tuple[Tensor, Tensor]:
    """Return the rows and the columns of an image that a place of the coarse scores looks at."""
    for layer in list(model.modules()):
        for name, child in layer.named_children():
            if isinstance(child, nn.MaxPool2d):  # a maximum passes a gradient to one pixel alone
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(layer, name, pool)
            elif isinstance(child, nn.ReLU | FrozenBatchNorm2d):
                setattr(layer, name, nn.Identity())
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1e-2)
    image = torch.ones(1, 3, side, side, requires_grad=True)
    coarse = model.eval().score(model.body(F.pad(image, [model.margin] * 4)))
    coarse[0, 0, row, column].backward()
    assert image.grad is not None
    seen = image.grad[0, 0] != 0
    return seen.any(1).nonzero().ravel(), seen.any(0).nonzero().ravel()


def test_a_place_stands_at_the_middle_of_what_it_sees(small: AlexNet) -> None:
    """32 i + 13 as in the released network, whose crop of 18 is 31 - 13; and 32 i for a residual network.

    What is seen is found by gradients, not by the arithmetic of paddings.
    """
    model = FCN(small, 2, Segmenter())
    rows, columns = reached(model, 640, 8, 9)
    assert len(rows) == len(columns) == 355
    assert model.first == 13
    assert (rows[0] + rows[-1]) / 2 == 32 * 8 + 13
    assert (columns[0] + columns[-1]) / 2 == 32 * 9 + 13
    model = FCN(residual(), 2, Segmenter())
    rows, columns = reached(model, 640, 9, 10)
    assert model.first == 0
    assert (rows[0] + rows[-1]) / 2 == 32 * 9
    assert (columns[0] + columns[-1]) / 2 == 32 * 10


class Given(nn.Module):
    """Coarse scores, whatever the image."""

    def __init__(self, coarse: Tensor) -> None:
        super().__init__()
        self.coarse = coarse

    def forward(self, _: Tensor) -> Tensor:
        return self.coarse


@pytest.mark.parametrize("first", [13, 0])
def test_between_places_scores_are_interpolated_bilinearly(first: int, small: AlexNet) -> None:
    """Compared with torch's own interpolation between the middles of corner pixels."""
    model = FCN(residual() if first == 0 else small, 3, Segmenter())
    coarse = torch.randn(2, 3, 5, 4)
    model.body, model.score = Given(coarse), nn.Identity()  # type: ignore[assignment]
    fine = model.scores(torch.zeros(2, 3, first + 32 * 4 + 1, first + 32 * 3 + 1))
    inner = fine[:, :, first:, first:]
    torch.testing.assert_close(inner, F.interpolate(coarse, inner.shape[2:], mode="bilinear", align_corners=True))


def test_there_are_scores_for_images_of_all_sizes(small: AlexNet) -> None:
    """The last place is less than 32 pixels from the last pixel, or a part of the image would have no score."""
    shapes = nn.Sequential(*(layer for layer in small.features if isinstance(layer, nn.Conv2d | nn.MaxPool2d)))
    FCN(small, 2, Segmenter())  # which makes the poolings see what is left at the edges
    for layer in shapes:
        if isinstance(layer, nn.Conv2d):  # a single filter will do
            layer.in_channels = layer.out_channels = 1
            layer.weight, layer.bias = nn.Parameter(layer.weight[:1, :1]), nn.Parameter(layer.weight[0, 0, 0, :1])
    with torch.no_grad():
        for side in (*range(1, 66), *range(465, 501)):
            places = shapes(torch.zeros(1, 1, 11 + 2 * 98, side + 2 * 98)).shape[3] - 5
            assert 32 * (places - 1) + 13 + 32 > side - 1
    model = FCN(residual(), 2, Segmenter()).eval()
    for side in (1, 31, 32, 33, 70):
        assert model.scores(torch.zeros(1, 3, side, 40)).shape == (1, 2, side, 40)


def test_sizes_that_are_no_multiples_of_anything(small: AlexNet) -> None:
    model = FCN(small, 21, Segmenter())
    shapes = [(37, 50), (61, 33)]
    images = [torch.randint(256, (3, *shape), dtype=torch.uint8) for shape in shapes]
    classes = [torch.randint(21, shape, dtype=torch.uint8) for shape in shapes]
    losses = model.train()(images, [{"classes": one} for one in classes])
    # The new layer begins at zero: all classes are alike.
    assert losses["loss_pixels"].item() == pytest.approx(np.log(21), rel=1e-6)
    found = model.eval()(images)
    assert [tuple(one.shape) for one in found] == shapes


def test_the_loss_is_the_mean_over_images_of_the_mean_over_their_pixels_of_a_class() -> None:
    model = FCN(residual(), 4, Segmenter())
    shapes = [(40, 50), (33, 20)]
    images = [torch.randint(256, (3, *shape), dtype=torch.uint8) for shape in shapes]
    classes = [torch.randint(4, shape, dtype=torch.uint8) for shape in shapes]
    classes[0][5:30] = VOID
    given = torch.randn(2, 4, 2, 2)
    model.body, model.score = Given(given), nn.Identity()  # type: ignore[assignment]
    found = model.train()(images, [{"classes": one} for one in classes])["loss_pixels"]
    logits = model.scores(torch.zeros(2, 3, 40, 50)).double().log_softmax(1)
    means = []
    for one, of in zip(logits, classes, strict=True):
        terms = [
            -float(one[int(of[row, column]), row, column])
            for row in range(of.shape[0])
            for column in range(of.shape[1])
            if of[row, column] != VOID
        ]
        means.append(sum(terms) / len(terms))
    assert found.item() == pytest.approx(sum(means) / 2, rel=1e-5)


def test_void_pixels_carry_no_gradient() -> None:
    model = FCN(residual(), 4, Segmenter()).train()
    coarse = torch.randn(2, 4, 4, 4, requires_grad=True)
    model.body, model.score = Given(coarse), nn.Identity()  # type: ignore[assignment]
    image = torch.zeros(3, 128, 128, dtype=torch.uint8)
    half = torch.zeros(128, 128, dtype=torch.uint8)
    half[:, 32:] = VOID  # places from 64 on reach no pixel before 33
    void = torch.full_like(half, VOID)
    loss = model([image, image], [{"classes": half}, {"classes": void}])["loss_pixels"]
    loss.backward()
    assert bool(loss.isfinite())
    assert coarse.grad is not None
    assert float(coarse.grad[0, :, :, :2].abs().min()) > 0
    assert float(coarse.grad[0, :, :, 2:].abs().max()) == 0
    assert float(coarse.grad[1].abs().max()) == 0


def test_frozen_normalisation_stays_and_trained_does_not(tmp_path: Path) -> None:
    pixels, _ = open_pixels(write_voc_pixels(tmp_path), "voc", "val")
    for kind in ("frozen", "trained"):
        model = FCN(residual(), 21, Segmenter(normalisation=kind))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        (tmp_path / kind).mkdir()
        train(model, PixelViews(pixels, False, 0), QUICK, 0, tmp_path / kind, Place(), quiet=True)
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert {"body.conv1.weight", "body.layer4.0.conv2.weight", "score.weight"} <= changed
        assert any("bn" in name for name in changed) == (kind == "trained")


def brute_force(truth: list[np.ndarray], said: list[np.ndarray]) -> dict[str, float]:
    """Pixel by pixel, with sets."""
    at = [(n, y, x) for n, one in enumerate(truth) for y, x in np.ndindex(one.shape) if one[y, x] != VOID]
    unions, accuracies = [], []
    for label in range(21):
        there = {(n, y, x) for n, y, x in at if truth[n][y, x] == label}
        told = {(n, y, x) for n, y, x in at if said[n][y, x] == label}
        if there | told:
            unions.append(len(there & told) / len(there | told))
        if there:
            accuracies.append(len(there & told) / len(there))
    right = sum(truth[n][y, x] == said[n][y, x] for n, y, x in at)
    return {
        "mean-iu": sum(unions) / len(unions),
        "pixel-accuracy": right / len(at),
        "mean-accuracy": sum(accuracies) / len(accuracies),
    }


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_counted_pixel_by_pixel_and_scikit_learns(seed: int) -> None:
    """Some classes are in no image, some were told where they are not."""
    draws = np.random.default_rng(seed)
    labels, answers = draws.choice(21, 8, replace=False), draws.choice(21, 8, replace=False)
    truth = [draws.choice([*labels, VOID], (7, 9 + n)).astype(np.uint8) for n in range(3)]
    said = [np.where(draws.random(one.shape) < 0.5, one, draws.choice(answers, one.shape)) % VOID for one in truth]
    found = measured(sum(confusion(*pair) for pair in zip(truth, said, strict=True)))  # type: ignore[arg-type]
    assert list(found) == ["mean-iu", "pixel-accuracy", "mean-accuracy"]
    assert found == pytest.approx(brute_force(truth, said))
    flat = np.concatenate([one.ravel() for one in truth])
    told = np.concatenate([one.ravel() for one in said])[flat != VOID]
    flat = flat[flat != VOID]
    assert found["mean-iu"] == pytest.approx(jaccard_score(flat, told, average="macro"))
    assert found["pixel-accuracy"] == pytest.approx(accuracy_score(flat, told))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true") if set(told) - set(flat) else quiet():
        assert found["mean-accuracy"] == pytest.approx(balanced_accuracy_score(flat, told))


def test_what_is_said_of_images_adds_up(tmp_path: Path) -> None:
    """The sum over images, taken apart and put together in words of JSON, is the confusion of all."""
    train_files, test = open_pixels(write_voc_pixels(tmp_path), "voc", "val")
    challenge = Segmentation(train_files, test, Segmenter())
    torch.manual_seed(0)
    model = FCN(residual(), 21, Segmenter())
    nn.init.normal_(model.score.weight.data[0])  # some pixels are background then, and the others aeroplanes
    found = json.loads(json.dumps([*challenge.found(model, [0]), *challenge.found(model, [1])]))
    assert [one["image"] for one in found] == ["val_0", "val_1"]
    truth = [test.labelled(row)[1] for row in range(2)]
    said = [model([torch.from_numpy(test.labelled(row)[0].transpose(2, 0, 1).copy())])[0].numpy() for row in range(2)]
    assert all(set(np.unique(one)) <= {0, 1} for one in said)
    assert challenge.scores(found) == pytest.approx(brute_force(truth, said))
    assert 0 < challenge.scores(found)["pixel-accuracy"] < 1
    with pytest.raises(ImagesError, match="no pixel"):
        challenge.scores([{"image": "", "pixels": []}])


def test_classes_are_numbers_of_the_palette_and_not_colours(tmp_path: Path) -> None:
    pixels, test = open_pixels(write_voc_pixels(tmp_path), "voc", "val")
    assert (len(pixels), len(test)) == (3, 2)
    image, classes = pixels.labelled(1)
    assert image.shape == (69, 77, 3)
    assert set(np.unique(classes)) == {0, 12, VOID}
    assert NAMES[12] == "dog"
    assert image[classes == 12].mean(0) == pytest.approx([40, 210, 60], abs=6)
    # What is shown is the image in red, green, blue; the palette's colours are elsewhere.
    with PIL.Image.open(pixels.files[1].classes) as stored:
        assert stored.mode == "P"
        assert np.asarray(stored.convert("RGB"))[classes == 12].mean(0) != pytest.approx([12, 12, 12])


def test_sbd_is_read_and_what_is_trained_on_is_not_scored(tmp_path: Path) -> None:
    pixels, test = open_pixels(write_voc_pixels(tmp_path), "sbd", "val")
    assert [one.name for one in pixels.files] == ["train_0", "train_1", "train_2", "val_0"]
    assert [one.name for one in test.files] == ["val_1"]
    image, classes = pixels.labelled(1)
    of_voc = open_pixels(tmp_path, "voc", "val")[0].labelled(1)
    np.testing.assert_array_equal(image, of_voc[0])
    np.testing.assert_array_equal(classes, np.where(of_voc[1] == VOID, 0, of_voc[1]))
    with pytest.raises(ImagesError, match=r"all images of train\.txt are trained on"):
        open_pixels(tmp_path, "sbd", "train")


def test_image_and_classes_are_mirrored_together(tmp_path: Path) -> None:
    pixels, _ = open_pixels(write_voc_pixels(tmp_path, train=2), "voc", "val")
    views = PixelViews(pixels, True, seed=0)
    plain = {
        one["classes"].shape: (image, one["classes"])
        for image, one in map(PixelViews(pixels, False, 0).__getitem__, (0, 1))
    }
    mirrored = 0
    for place in range(20):
        image, target = views[place]
        assert image.dtype == target["classes"].dtype == torch.uint8
        known, classes = plain[target["classes"].shape]
        if torch.equal(image, known):
            assert torch.equal(target["classes"], classes)
        else:
            mirrored += 1
            assert torch.equal(image, known.flip(2))
            assert torch.equal(target["classes"], classes.flip(1))
    assert 4 <= mirrored <= 16
    assert torch.equal(views[7][0], PixelViews(pixels, True, seed=0)[7][0])


def test_files_that_are_missing_or_something_else_are_told(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match=r"VOC2012; expected WHERE/VOCdevkit"):
        open_pixels(tmp_path, "voc", "val")
    write_voc_pixels(tmp_path)
    with pytest.raises(ImagesError, match=r"seg11valid.txt cannot be read.*expected WHERE/VOCdevkit"):
        open_pixels(tmp_path, "voc", "seg11valid")
    (tmp_path / "benchmark_RELEASE").rename(tmp_path / "away")
    with pytest.raises(ImagesError, match=r"train.txt cannot be read.*--model.annotations voc"):
        open_pixels(tmp_path, "sbd", "val")
    pixels, test = open_pixels(tmp_path, "voc", "val")
    wrong = pixels.files[0].classes
    PIL.Image.new("RGB", (80, 64)).save(wrong)
    with pytest.raises(ImagesError, match="holds colours"):
        pixels.labelled(0)
    PIL.Image.new("L", (5, 4)).save(wrong)
    with pytest.raises(ImagesError, match=r"is of \(4, 5\) pixels, and its image of \(64, 80\)"):
        pixels.labelled(0)
    PIL.Image.new("L", (80, 64), 77).save(wrong)
    with pytest.raises(ImagesError, match="class 77"):
        pixels.labelled(0)
    wrong.write_bytes(b"nothing")
    with pytest.raises(ImagesError, match="cannot be read as an image"):
        pixels.labelled(0)
    wrong.unlink()
    with pytest.raises(ImagesError, match="cannot be read: No such file"):
        pixels.labelled(0)
    other = tmp_path / "other.mat"
    scipy.io.savemat(other, {"GTcls": {"Boundaries": np.zeros(3)}})
    with pytest.raises(ImagesError, match=r"has no GTcls\.Segmentation"):
        Pixels((Files(test.files[0].image, other),)).labelled(0)


def test_by_the_command_with_an_alexnet(small: AlexNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(small.state_dict(), tmp_path / "alexnet.pth")
    write_voc_pixels(tmp_path / "voc", train=2, test=2, side=40)
    options = [f"--checkpoint={tmp_path / 'alexnet.pth'}", f"--data=voc:{tmp_path / 'voc'}", "--device=cpu"]
    options += [f"--out={tmp_path / 'out'}", "--schedule.iterations=1", "--schedule.batch-size=2"]
    assert run(["evaluate", "voc12-fcn", *options, "--model.mirrored"]) == 0
    assert "mean-iu" in capsys.readouterr().out
    (file,) = (tmp_path / "out").glob("voc12-fcn-*.json")
    tree = json.loads(file.read_text())
    assert tree["protocol"] == "voc12-fcn*"
    assert {"train": 3, "test": 1, "classes": 21, "metric": "mean-iu"}.items() <= tree["data"].items()
    assert set(tree["results"]) == {"mean-iu", "pixel-accuracy", "mean-accuracy"}
    assert tree["settings"]["kind"] == "fcn"
    assert run(["evaluate", "voc12-fcn", *options, "--model.mirrored"]) == 1
    assert "--resume" in capsys.readouterr().err
    assert run(["evaluate", "voc12-fcn", *options, "--model.test-list=test"]) == 1
    assert "expected WHERE/VOCdevkit/VOC2012" in capsys.readouterr().err
    assert run(["protocols", "voc12-fcn"]) == 0
    assert "model.annotations" in capsys.readouterr().out


def test_of_a_residual_network(tmp_path: Path) -> None:
    network, _ = resnet("resnet50", cifar_stem=False, zero_init_residual=False)
    torch.save(network.state_dict(), tmp_path / "resnet50.pth")
    write_voc_pixels(tmp_path / "voc", train=2, test=1, side=32)
    settings = Dense(model=Segmenter(annotations="voc"), schedule=replace(QUICK, iterations=1))
    found = evaluate(
        "voc12-fcn",
        settings,
        tmp_path / "resnet50.pth",
        str(tmp_path / "voc"),
        tmp_path / "out",
        device="cpu",
        quiet=True,
    )
    assert 0 <= found.results["mean-iu"] <= 1
    assert "not as voc12-fcn has it: model.annotations voc" in found.notes


def test_help_names_the_settings_of_this_model_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["evaluate", "voc12-fcn", "--help"])
    said = capsys.readouterr().out
    assert "--model.annotations" in said
    assert "--model.anchors" not in said


def test_what_was_cut_off_ends_the_same(small: AlexNet, tmp_path: Path) -> None:
    """Two steps, and two more from the checkpoint, dropout included: the very weights of four."""
    pixels, _ = open_pixels(write_voc_pixels(tmp_path, side=40), "voc", "val")
    views = PixelViews(pixels, True, seed=0)
    state = {name: value.clone() for name, value in small.state_dict().items()}

    def trained(folder: str, *lengths: int) -> dict[str, Tensor]:
        (tmp_path / folder).mkdir()
        for length in lengths:
            encoder = AlexNet("small")
            encoder.load_state_dict(state)
            model = FCN(encoder, 21, Segmenter())
            train(model, views, replace(QUICK, iterations=length), 0, tmp_path / folder, Place(), quiet=True)
        return model.state_dict()

    whole, resumed = trained("whole", 4), trained("resumed", 2, 4)
    assert not torch.equal(whole["body.fc6.weight"].flatten(), state["classifier.1.weight"].flatten())
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="AlexNet, or of a residual network for large images"):
        FCN(SmallResNet((8, 16), 16, 8), 21, Segmenter())
    write_voc_pixels(tmp_path / "voc")
    network, _ = resnet("resnet18", cifar_stem=True, zero_init_residual=False)
    torch.save(network.state_dict(), tmp_path / "cifar.pth")
    settings = Dense(model=Segmenter())
    with pytest.raises(DenseError, match="for large images"):
        evaluate("voc12-fcn", settings, tmp_path / "cifar.pth", str(tmp_path / "voc"), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_the_preset_is_that_of_the_code_that_sela_names() -> None:
    """Solver0 to solver2 of Colorization: 1e-4, 1e-5, 1e-6 for 50 000 steps of 20 images each."""
    chosen = PRESETS["voc12-fcn"].settings
    steps = (0, 49_999, 50_000, 99_999, 100_000, 149_999)
    assert [chosen.schedule.rate(step) for step in steps] == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])
    assert (chosen.schedule.batch_size, chosen.schedule.iterations) == (20, 150_000)
    with pytest.raises(ValueError, match="test-list"):
        Segmenter(test_list=" ")


def learned(model: FCN, schedule: Schedule, tmp_path: Path) -> float:
    """Return the score on two images that a network has learned by heart."""
    pixels, _ = open_pixels(write_voc_pixels(tmp_path, train=2, side=224), "voc", "val")
    challenge = Segmentation(pixels, pixels, Segmenter())
    train(model, challenge.views(0), schedule, 0, tmp_path, Place(), quiet=True)
    return challenge.scores([*challenge.found(model, range(2))])["mean-iu"]


@pytest.mark.deep
def test_an_alexnet_learns_images_by_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alexnet, "FEATURES", 512)
    torch.manual_seed(0)
    model = FCN(rich(AlexNet("small")), 21, Segmenter())
    assert learned(model, replace(QUICK, iterations=160, drops=(110,)), tmp_path) > 0.9


@pytest.mark.deep
def test_a_residual_network_learns_images_by_heart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FCN(residual(), 21, Segmenter(normalisation="trained"))
    assert learned(model, replace(QUICK, iterations=60, learning_rate=0.05), tmp_path) > 0.9
