"""Every recipe can be built from its real settings, and has the numbers of its paper."""

import json
from collections.abc import Callable

import pytest
import torch

from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import MultiCrop
from infoassign_training.data.settings import Digits, Torchvision
from infoassign_training.engine.schedule import rate_at
from infoassign_training.methods.build import build
from infoassign_training.methods.method import Method
from infoassign_training.methods.settings import Imsvd, Mira, Music, Sela, Transfer
from infoassign_training.models.settings import ResNet
from infoassign_training.recipes import RECIPES, hours

IMAGES_AND_CLASSES = {
    "imagenet": (1_281_167, 1000),
    "imagenet-100": (126_689, 100),  # about; it depends on the classes
    "cifar10": (50_000, 10),
    "cifar10-light": (47_500, 10),
    "cifar10-heavy": (22_500, 10),
    "cifar100": (50_000, 100),
    "svhn": (73_257, 10),
    "digits": (1347, 10),
}
PAPERS = ("mira-", "sela-", "music-", "imsvd-", "swav-", "barlow-twins-", "vicreg-")


def sizes(settings: Pretraining) -> tuple[int, int]:
    """Images and classes of the data set."""
    if isinstance(settings.data, Digits):
        return IMAGES_AND_CLASSES["digits"]
    assert isinstance(settings.data, Torchvision)
    subset = "-100" if settings.data.class_list else ""
    if settings.data.imbalance != "full":
        subset = f"-{settings.data.imbalance}"
    return IMAGES_AND_CLASSES[settings.data.name + subset]


def built(name: str) -> Method:
    images, classes = sizes(RECIPES[name].settings)
    with torch.device("meta"):
        return build(RECIPES[name].settings, images=images, classes=classes)


def parameters(module: object) -> int:
    assert isinstance(module, torch.nn.Module)
    return sum(parameter.numel() for parameter in module.parameters())


def rates(name: str, steps_per_epoch: int) -> Callable[[int], float]:
    """Learning rate by step."""
    settings = RECIPES[name].settings
    steps = settings.epochs * steps_per_epoch
    return lambda step: rate_at(settings.optimizer, settings.batch_size, step % steps, steps, steps_per_epoch)


@pytest.mark.parametrize("name", RECIPES)
def test_is_built_from_its_real_settings_without_memory(name: str) -> None:
    method = built(name)
    tensors = [*method.parameters(), *method.buffers()]
    assert tensors
    assert all(tensor.is_meta for tensor in tensors)


@pytest.mark.parametrize("name", RECIPES)
def test_settings_survive_json(name: str) -> None:
    settings = RECIPES[name].settings
    assert Pretraining.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize("name", RECIPES)
def test_is_named_by_its_key_and_says_what_is_known(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name == name.lower()
    assert "_" not in name
    assert recipe.summary
    assert recipe.source
    assert recipe.hardware
    assert recipe.hours
    if name.startswith(PAPERS):
        assert recipe.published
        assert not recipe.measured
        settings = recipe.settings
        assert isinstance(settings.data, Torchvision)
        assert settings.data.root == ""
        assert settings.workers == (8 if settings.data.name == "imagenet" else 4)
    else:
        assert name.startswith("digits-")


def test_no_two_recipes_are_the_same_experiment() -> None:
    seen: dict[str, str] = {}
    for name, recipe in RECIPES.items():
        if isinstance(recipe.settings.method, Transfer):
            continue  # what tells them apart are the labels, which a user gives
        same = seen.setdefault(json.dumps(recipe.settings.to_dict(), sort_keys=True), name)
        assert same == name


def test_hours_are_the_papers_or_an_estimate() -> None:
    for name, recipe in RECIPES.items():
        if name.startswith(PAPERS) and recipe.settings.epochs:
            assert "table" in recipe.hours or "; estimate" in recipe.hours
    # 1,281,167 images, of which 371 / 2 x 2 a second and GPU at two views; half as many views, twice as fast.
    assert hours.estimate(1_281_167, 100, 2 * hours.RESNET50, 8).startswith("12 h on 8 A100; estimate")
    assert hours.estimate(1_281_167, 100, hours.RESNET50, 8).startswith("6.0 h on 8 A100; estimate")


def test_networks_have_the_known_number_of_parameters() -> None:
    # torchvision's ResNet-50 has 25,557,032 with its classifier of 2048 x 1000 + 1000.
    mira = built("mira-imagenet-100")
    assert parameters(mira.encoder) == 23_508_032
    # 2048 x 2048 twice, two normalisations of 2 x 2048, 2048 x 256 + 256.
    assert parameters(mira.projector) == 8_921_344
    assert parameters(mira.prototypes) == 3000 * 256
    # torchvision's ResNet-18 has 11,689,512 with a classifier of 512 x 1000 + 1000, and 7 x 7 x 3 x 64 at the start.
    assert parameters(built("mira-imagenet100").encoder) == 11_176_512
    assert parameters(built("mira-cifar10").encoder) == 11_176_512 - 64 * 3 * (49 - 9)
    # 2048 x 8192 + 8192, a normalisation of 2 x 8192, 8192 x 8160.
    assert parameters(built("imsvd-imagenet-100").projector) == 83_648_512
    assert parameters(built("music-imagenet-1000").projector) == 83_648_512
    # ... and one more layer 8192 x 8192 + 8192 with its normalisation.
    assert parameters(built("imsvd-depth-3").projector) == 83_648_512 + 67_133_440
    assert parameters(built("sela-resnet50-3k-10heads").heads) == 10 * 3000 * 2049


def test_sela_labels_every_image_for_every_head() -> None:
    assert tuple(built("sela-alexnet-3k-10heads").get_buffer("targets").shape) == (10, 1_281_167)
    assert tuple(built("sela-svhn").get_buffer("targets").shape) == (1, 73_257)


def test_rates_of_mira() -> None:
    # 312 whole batches of 4096 in an epoch; 0.3 x 4096 / 256 = 4.8 after ten epochs from 0.3.
    rate = rates("mira-imagenet-100", 312)
    assert rate(0) == pytest.approx(0.3 + 4.5 / 3120)
    assert rate(3119) == pytest.approx(4.8)
    assert rate(-1) == pytest.approx(0, abs=1e-6)
    assert rates("mira-imagenet-multicrop-400", 312)(3119) == pytest.approx(4.8)
    assert rates("mira-imagenet-batch512-100", 2502)(25_019) == pytest.approx(0.6)


@pytest.mark.parametrize("name", ["music-imagenet-100", "imsvd-imagenet-100", "imsvd-imagenet-1000"])
def test_rates_of_music_and_imsvd(name: str) -> None:
    # 625 whole batches of 2048 in an epoch; 0.6 x 2048 / 256 = 4.8 after ten epochs from 0; 0.002 at the end.
    rate = rates(name, 625)
    assert rate(0) == pytest.approx(4.8 / 6250)
    assert rate(6249) == pytest.approx(4.8)
    assert rate(-1) == pytest.approx(0.002, abs=1e-5)


def test_rates_of_sela() -> None:
    rate = rates("sela-resnet50-3k-10heads", 5004)
    epochs = (0, 149, 150, 299, 300, 349, 350, 399)
    expected = (0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005, 0.00005, 0.00005)
    assert [rate(epoch * 5004) for epoch in epochs] == pytest.approx(expected)
    assert rates("sela-cifar10", 390)(0) == pytest.approx(0.03)


def test_segments_divide_the_projection() -> None:
    found = {}
    for name, recipe in RECIPES.items():
        method, projector = recipe.settings.method, recipe.settings.projector
        if isinstance(method, Music | Imsvd):
            assert projector is not None
            size = method.segment_size if isinstance(method, Music) else method.units
            assert projector.projection % size == 0
            found[name] = (projector.projection // size, size)
    assert found["imsvd-imagenet-100"] == found["music-imagenet-100"] == (102, 80)
    assert found["imsvd-segment-96"] == (85, 96)
    assert found["imsvd-segment-64"] == found["music-segment-64"] == (128, 64)
    assert found["imsvd-dimension-4080"] == (51, 80)
    assert found["music-cifar10-24"] == (42, 24)
    assert found["imsvd-cifar10"] == (32, 32)


def test_settings_of_the_papers_text() -> None:
    mira = RECIPES["mira-imagenet-multicrop-400"].settings
    assert isinstance(mira.method, Mira)
    assert isinstance(mira.augmentation, MultiCrop)
    assert [view.size for view in mira.augmentation.views] == [224] * 2 + [96] * 6
    assert (mira.method.prototypes, mira.method.teacher_momentum, mira.method.beta_end) == (3000, 0.99, 2 / 3)
    assert (mira.optimizer.kind, mira.optimizer.weight_decay) == ("lars", 1e-6)
    sela = RECIPES["sela-cifar100"].settings
    assert isinstance(sela.method, Sela)
    assert sela.method.heads == (512,) * 10
    assert (sela.method.sharpness, sela.batch_size) == (25, 128)
    heavy = RECIPES["sela-cifar10-heavy"].settings.data
    assert isinstance(heavy, Torchvision)
    assert heavy.imbalance == "heavy"


def test_small_images_have_a_stem_for_them() -> None:
    for recipe in RECIPES.values():
        encoder = recipe.settings.encoder
        if isinstance(encoder, ResNet):
            assert encoder.cifar_stem == (recipe.settings.image_size == 32)


@pytest.mark.parametrize("paper", ["music", "imsvd"])
def test_terms_of_the_loss(paper: str) -> None:
    found = {}
    for terms in ("de-oe", "oe-ti", "de-oe-tic"):
        method = RECIPES[f"{paper}-loss-{terms}"].settings.method
        assert isinstance(method, Music | Imsvd)
        weights = (method.diagonal_weight, method.off_diagonal_weight, method.invariance_weight)
        found[terms] = (*weights, method.invariance)
    assert found == {
        "de-oe": (1, 1, 0, "inner-product"),
        "oe-ti": (0, 1, 1, "inner-product"),
        "de-oe-tic": (1, 1, 1, "cross-entropy"),
    }


def test_label_transfer_has_the_heads_of_the_run_whose_labels_it_learns() -> None:
    for name, recipe in RECIPES.items():
        method = recipe.settings.method
        if isinstance(method, Transfer):
            source = name.removeprefix("sela-transfer-").removesuffix("-more").removesuffix("-rotation")
            learnt_from = RECIPES[f"sela-{source}"].settings.method
            assert isinstance(learnt_from, Sela)
            assert method.heads == learnt_from.heads
            assert method.rotation == ("-rotation" in name)
            assert rates(name, 5004)(0) == pytest.approx(0.05)
            assert rates(name, 5004)(-1) == pytest.approx(0.00005)


def test_published_numbers() -> None:
    expected = {
        "mira-imagenet-400": "73.3",
        "mira-imagenet-batch512-no-ema-100": "66.3",
        "mira-cifar100": "70.65 and 92.23",
        "sela-alexnet-5k": "42.5 43.9 40.2",
        "sela-svhn": "94.5",
        "sela-cifar10-heavy-kmeans": "60.7",
        "music-imagenet-400": "73.1",
        "imsvd-imagenet-400": "73.2",
        "imsvd-segment-96": "69.2",
        "imsvd-loss-oe-ti": "64.1",
        "sela-transfer-resnet50-3k-10heads-rotation-more": "50.0 50.0",
        "swav-imagenet-batch512-100": "62.3",
        "vicreg-dimension-16384": "68.8",
        "barlow-twins-imagenet-300": "71.4",
    }
    for name, number in expected.items():
        assert number in RECIPES[name].published


def test_a_list_of_classes_must_be_given_for_imagenet_100() -> None:
    data = RECIPES["mira-imagenet100"].settings.data
    assert isinstance(data, Torchvision)
    assert data.class_list
