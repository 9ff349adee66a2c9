"""Warnings from settings and lines of the log with known answers."""

from dataclasses import replace
from typing import Any

import digit_runs
import pytest

from infoassign_training.config import Pretraining
from infoassign_training.engine.alarms import alarms, beforehand, due
from infoassign_training.methods import settings

HEALTHY: dict[str, Any] = {
    "epoch": 30,
    "loss_over_log_k": 0.9,
    "mutual_information": 1.0,
    "clusters_used": 12,
    "feature_rank": 8.0,
    "output_std": 0.9,
}


def with_method(method: settings.Settings, **changes: Any) -> Pretraining:
    return replace(digit_runs.with_method(digit_runs.SMALL, method), **changes)


@pytest.mark.parametrize("loss", [0.9, 1.1])
def test_a_healthy_line_sets_off_nothing(small: Pretraining, loss: float) -> None:
    assert alarms(HEALTHY | {"loss_over_log_k": loss}, small) == {}


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"loss_over_log_k": 0.999, "mutual_information": 0.02}, "plateau", ("still ln K", "1.3 times as sharp")),
        ({"loss_over_log_k": 0.5, "mutual_information": 0.02}, "information", ("carry 0.02 nats", "1.3 times")),
        ({"clusters_used": 1}, "clusters", ("one label is the likeliest of all", "1.3 times")),
        ({"output_std": 0.001}, "features", ("same direction", "--optimizer.learning-rate (now 0.3)")),
        ({"feature_rank": 1.1}, "features", ("lie on a line (effective rank 1.1)", "--optimizer.learning-rate")),
    ],
)
def test_what_sets_off_an_alarm(small: Pretraining, change: dict[str, float], kind: str, words: tuple[str]) -> None:
    found = alarms(HEALTHY | change, small)
    assert found.keys() == {kind}
    assert found[kind].startswith("after 30 epochs ")
    for word in words:
        assert word in found[kind]


def test_lines_without_labels_are_judged_by_what_they_have() -> None:
    """Of methods that make labels now and then, or never, and of logs of earlier versions."""
    assert alarms({"epoch": 30, "loss": 1.0}, with_method(settings.Vicreg())) == {}
    stuck = alarms({"epoch": 30, "loss_over_log_k": 1.0}, with_method(settings.Sela(heads=(12,))))
    assert "raise method.sharpness" in stuck["plateau"].lower()
    collapsed = alarms({"epoch": 30, "feature_rank": 7.0, "output_std": 0.0}, with_method(settings.Vicreg()))
    assert "raise method.variance" in collapsed["features"]


def test_features_of_a_classifier_may_lie_on_a_line() -> None:
    line = {"epoch": 30, "feature_rank": 1.1, "output_std": 0.01}
    assert alarms(line, with_method(settings.Supervised())) == {}


@pytest.mark.parametrize("kind", ["mira", "swav"])
def test_prototypes_that_a_batch_cannot_fill(kind: str) -> None:
    make = settings.KINDS[kind]
    assert beforehand(with_method(make(prototypes=128), batch_size=128)) == []  # type: ignore[call-arg]
    (warning,) = beforehand(with_method(make(prototypes=129), batch_size=128))  # type: ignore[call-arg]
    assert "a batch of 128 images cannot fill 129 prototypes: its labels carry at most ln 128 = 4.85 nats" in warning
    assert "--method.prototypes" in warning


def test_a_queue_helps_to_fill_prototypes() -> None:
    assert beforehand(with_method(settings.Swav(prototypes=300, queue=172), batch_size=128)) == []
    (warning,) = beforehand(with_method(settings.Swav(prototypes=301, queue=172), batch_size=128))
    assert "a batch of 128 images and a queue of 172 cannot fill 301" in warning


def test_whole_data_sets_fill_more_labels_than_a_batch_has_images() -> None:
    assert beforehand(with_method(settings.Sela(heads=(500,)), batch_size=128)) == []


def test_every_kind_is_said_once_and_not_at_the_beginning(small: Pretraining) -> None:
    """After 30 of 100 epochs; the second kind when it comes, the first not again when it comes back."""
    chosen = replace(small, epochs=100)
    plateau, collapse = {"loss_over_log_k": 1.0}, {"output_std": 0.0}
    history = {29: plateau, 30: plateau, 31: {}, 32: collapse, 33: plateau | collapse}
    log = [HEALTHY | {"epoch": epoch} | history.get(epoch, {}) for epoch in range(1, 34)]
    said = {epoch: due(log[:epoch], chosen) for epoch in range(34)}
    assert {epoch: len(found) for epoch, found in said.items() if found} == {30: 1, 32: 1}
    assert "after 30 epochs the loss is still ln K" in said[30][0]
    assert "after 32 epochs the network collapsed" in said[32][0]


def test_short_runs_have_a_beginning_of_ten_epochs(small: Pretraining) -> None:
    log = [HEALTHY | {"epoch": epoch, "loss_over_log_k": 1.0} for epoch in range(1, 12)]
    chosen = replace(small, epochs=11)
    assert due(log[:9], chosen) == []
    assert len(due(log[:10], chosen)) == 1
    assert due(log, chosen) == []
