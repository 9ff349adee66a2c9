"""Settings refuse what cannot work, and come back from JSON as they were."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from digit_runs import with_method

from infoassign_training import config
from infoassign_training.config import Optimizer, Pretraining
from infoassign_training.data import augmentations
from infoassign_training.data.augmentations import Dino, Distortions
from infoassign_training.data.settings import Folder, Packed, Source, Synthetic, Torchvision, named
from infoassign_training.methods.settings import KINDS, Mira, Music, Sela, Swav, Vicreg
from infoassign_training.models.settings import ResNet, SmallResNet
from infoassign_training.recipes import RECIPES


def images(**changes: Any) -> Pretraining:
    """Settings for images of any kind, but for some."""
    parts: dict[str, Any] = {"data": Synthetic(), "augmentation": Dino(), "encoder": ResNet()}
    return Pretraining(**(parts | changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pretraining(epochs=-1), "epochs must not be negative .*; got -1"),
        (lambda: Pretraining(batch_size=1), "batch_size must be at least 2"),
        (lambda: Pretraining(seed=-1), "seed must be in"),
        (lambda: Distortions(rotation=-1), "augmentation.rotation must be finite and not negative; got -1"),
        (lambda: Distortions(noise=float("nan")), "augmentation.noise must be finite"),
        (lambda: Distortions(scale=0.5), "augmentation.scale must be at least 1"),
        (lambda: Distortions(blur=1.5), "augmentation.blur is a probability"),
        (lambda: SmallResNet(widths=()), "encoder.widths must name at least one stage"),
        (lambda: SmallResNet(features=0), "encoder sizes must be positive"),
        (lambda: Swav(queue=-1), "method.queue must be finite and not negative"),
        (lambda: Sela(heads=()), "method.heads must be numbers of labels"),
        (lambda: Mira(prototypes=1), "method.prototypes must be at least 2"),
        (lambda: Mira(beta_end=1), r"method.beta_end must be in \[0, 1\); got 1"),
        (lambda: Mira(student_temperature=0), "method.student_temperature must be positive"),
        (lambda: Mira(teacher_momentum=1.1), "method.teacher_momentum must be in"),
        (lambda: Mira(tolerance=0), "to method.tolerance or in method.iterations steps, and the other is 0"),
        (lambda: Mira(iterations=30), "to method.tolerance or in method.iterations steps, and the other is 0"),
        (lambda: Mira(tolerance=float("inf")), r"method.tolerance must be in \[0, 1\)"),
        (lambda: Pretraining(projector=None), "method mira needs a projector"),
        (lambda: Pretraining(method=Sela()), "method sela has no projector"),
        (lambda: Pretraining(workers=2), "workers are of no use with the digits' distortions"),
        (lambda: Pretraining(augmentation=Dino()), "encoder small-resnet needs the augmentation distortions"),
        (lambda: Pretraining(encoder=ResNet()), "distortions is for data digits and encoder small-resnet"),
        (lambda: Pretraining(method=Music(segment_size=24)), "projection 64 does not divide into segments of 24"),
        (lambda: images(augmentation=Dino(local_views=2), method=Vicreg()), "no use for augmentation.local_views"),
        (lambda: images(augmentation=augmentations.Sela()), "method mira takes augmentation.global_views 2; got 1"),
        (lambda: Mira(freeze_prototypes_epochs=-1), "method.freeze_prototypes_epochs must be finite and not"),
        (lambda: Optimizer(learning_rate=0), "optimizer.learning_rate must be positive"),
        (lambda: Optimizer(momentum=1), "optimizer.momentum must be in"),
        (lambda: Optimizer(weight_decay=-1), "optimizer.weight_decay must be finite and not negative"),
        (lambda: Optimizer(weight_decay=float("inf")), "optimizer.weight_decay must be finite"),
        (lambda: Optimizer(warmup=1), "optimizer.warmup must be in"),
        (lambda: Optimizer(kind="adam"), "optimizer.kind must be sgd or lars; got 'adam'"),  # type: ignore[arg-type]
        (lambda: Optimizer(drops=(5, 3)), "optimizer.drops must be rising epochs"),
        (lambda: Optimizer(drops=(5,), final=0.1), "are of no use with"),
    ],
)
def test_impossible_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_survive_json() -> None:
    settings = Pretraining(epochs=7, encoder=SmallResNet(widths=(3, 5)), method=Mira(beta_end=0.5))
    assert Pretraining.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_every_method_survive_json(kind: str) -> None:
    settings = with_method(Pretraining(), KINDS[kind]())
    assert Pretraining.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    with pytest.raises(ValueError, match=r"method\.kind must be one of mira, .*; got 'mirra'"):
        Pretraining.from_dict({"method": {"kind": "mirra"}})


@pytest.mark.parametrize("tree", [{"epoch": 3}, {"method": {"betta": 0.5}}])
def test_unknown_settings_are_errors(tree: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown settings: (epoch|method\.betta)"):
        Pretraining.from_dict(tree)


def test_flat_names_every_setting() -> None:
    flat = Pretraining().flat()
    kinds = len(config.KINDS)
    assert len(flat) == kinds + sum(len(v) if isinstance(v, dict) else 1 for v in asdict(Pretraining()).values())
    assert flat["optimizer.learning-rate"] == Pretraining().optimizer.learning_rate


def test_target_sharpness() -> None:
    sharp = Mira(student_temperature=0.1, teacher_temperature=0.2, beta_end=0.75)
    assert sharp.target_sharpness == pytest.approx(2)


def test_recipes_are_complete_and_named_by_their_key() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.summary
        assert recipe.source
        assert recipe.hardware
        assert recipe.hours


@pytest.mark.parametrize(
    ("words", "default", "expected"),
    [
        ("/data/imagenet", Torchvision(split="val"), Torchvision(root="/data/imagenet", split="val")),
        ("folder:pictures", Torchvision(class_list="some"), Folder(root="pictures", class_list="some")),
        ("packed:pictures", Folder(labelled=True), Packed(root="pictures")),
        ("cifar100:/data", Torchvision(name="cifar10", split="test"), Torchvision(name="cifar100", root="/data")),
        ("synthetic", Torchvision(), Synthetic()),
        ("synthetic", Synthetic(count=7), Synthetic()),
    ],
)
def test_how_people_name_images(words: str, default: Source, expected: Source) -> None:
    assert named(words, default) == expected


def test_a_packed_folder_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    kept = {"class_list": "some", "imbalance": "light", "imbalance_seed": 3}
    assert named(str(tmp_path), Torchvision(**kept)) == Packed(root=str(tmp_path), **kept)


@pytest.mark.parametrize("words", ["cifra10:/data", "synthetic:/data", "folder", "folder:", "digits:/data"])
def test_images_named_wrongly(words: str) -> None:
    with pytest.raises(ValueError, match=r"expected a folder, or imagenet:WHERE, .*; got"):
        named(words, Torchvision())


def test_the_digits_are_not_in_a_folder() -> None:
    with pytest.raises(ValueError, match="expected a folder, or"):
        named("/data", Pretraining().data)
