"""Settings refuse what cannot work, and come back from JSON as they were."""

import json
from collections.abc import Callable
from dataclasses import asdict

import pytest

from infoassign_training.config import Augmentation, Mira, Model, Optimizer, Pretraining
from infoassign_training.recipes import RECIPES


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pretraining(epochs=0), "epochs must be at least 1; got 0"),
        (lambda: Pretraining(batch_size=1), "batch_size must be at least 2"),
        (lambda: Pretraining(seed=-1), "seed must be in"),
        (lambda: Augmentation(rotation=-1), "augmentation.rotation must be finite and not negative; got -1"),
        (lambda: Augmentation(noise=float("nan")), "augmentation.noise must be finite"),
        (lambda: Augmentation(scale=0.5), "augmentation.scale must be at least 1"),
        (lambda: Augmentation(blur=1.5), "augmentation.blur is a probability"),
        (lambda: Model(widths=()), "model.widths must name at least one stage"),
        (lambda: Model(features=0), "model sizes must be positive"),
        (lambda: Mira(prototypes=1), "mira.prototypes must be at least 2"),
        (lambda: Mira(beta_end=1), r"mira.beta_end must be in \[0, 1\); got 1"),
        (lambda: Mira(student_temperature=0), "mira.student_temperature must be positive"),
        (lambda: Mira(teacher_momentum=1.1), "mira.teacher_momentum must be in"),
        (lambda: Mira(tolerance=0), "mira.tolerance must be between 0 and 1"),
        (lambda: Mira(tolerance=float("inf")), "mira.tolerance must be between 0 and 1"),
        (lambda: Mira(freeze_prototypes_epochs=-1), "mira.freeze_prototypes_epochs must not be negative"),
        (lambda: Optimizer(learning_rate=0), "optimizer.learning_rate must be positive"),
        (lambda: Optimizer(momentum=1), "optimizer.momentum must be in"),
        (lambda: Optimizer(weight_decay=-1), "optimizer.weight_decay must be finite and not negative"),
        (lambda: Optimizer(weight_decay=float("inf")), "optimizer.weight_decay must be finite"),
        (lambda: Optimizer(warmup=1), "optimizer.warmup must be in"),
    ],
)
def test_impossible_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_survive_json() -> None:
    settings = Pretraining(epochs=7, model=Model(widths=(3, 5)), mira=Mira(beta_end=0.5))
    assert Pretraining.from_dict(json.loads(json.dumps(asdict(settings)))) == settings


@pytest.mark.parametrize("tree", [{"epoch": 3}, {"mira": {"betta": 0.5}}])
def test_unknown_settings_are_errors(tree: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown settings: (epoch|mira\.betta)"):
        Pretraining.from_dict(tree)


def test_flat_names_every_setting() -> None:
    flat = Pretraining().flat()
    assert len(flat) == sum(len(v) if isinstance(v, dict) else 1 for v in asdict(Pretraining()).values())
    assert flat["optimizer.learning-rate"] == Pretraining().optimizer.learning_rate


def test_target_sharpness() -> None:
    sharp = Mira(student_temperature=0.1, teacher_temperature=0.2, beta_end=0.75)
    assert sharp.target_sharpness == pytest.approx(2)


def test_recipes_are_complete_and_named_by_their_key() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.summary
        assert recipe.needs
        assert recipe.expected
