"""How labels change from epoch to epoch: by counting, over ranks, through a checkpoint, and in the log."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digit_runs import SMALL, built, feed, some, with_method
from scipy.stats import entropy

from infoassign_training.config import Pretraining
from infoassign_training.engine import checkpoint, pretrain
from infoassign_training.engine.course import Course, purity
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run, open_run
from infoassign_training.methods import settings as methods

CLASSES = torch.tensor([0, 0, 1, 1, 2, 2, 2, -1])


def nmi(first: Any, second: Any) -> float:
    """Twice the information of two labellings, over the sum of their entropies, from the table of counts."""
    table = np.zeros((16, 16))
    np.add.at(table, (np.asarray(first), np.asarray(second)), 1)
    apart = entropy(table.sum(axis=1)) + entropy(table.sum(axis=0))
    return float(2 * (apart - entropy(table.ravel())) / apart)


def test_labels_are_compared_with_classes_and_with_those_before() -> None:
    course = Course(CLASSES)
    course.add(torch.tensor([0, 1, 2]), torch.tensor([5, 5, 5]))
    course.add(torch.tensor([4, 5, 7]), torch.tensor([3, 3, 3]))
    first = course.record()
    # Image 7 has no known class, and 3 and 6 were in no batch.
    assert first == {
        "pseudo_label_nmi": pytest.approx(nmi([0, 0, 1, 2, 2], [5, 5, 5, 3, 3])),
        "pseudo_label_purity": pytest.approx(4 / 5),
    }
    course.add(torch.tensor([0, 3, 4, 5]), torch.tensor([5, 3, 5, 3]))
    second = course.record()
    assert second["pseudo_label_change"] == pytest.approx(1 / 3)
    assert second["pseudo_label_nmi_before"] == pytest.approx(nmi([5, 3, 3], [5, 5, 3]))
    assert second["pseudo_label_nmi"] == pytest.approx(nmi([0, 1, 2, 2], [5, 3, 5, 3]))
    assert second["pseudo_label_purity"] == pytest.approx(2 / 4)
    # An epoch without labels says nothing and forgets nothing: 1 is compared with the first epoch's.
    assert course.record() == {}
    course.add(torch.tensor([0, 1]), torch.tensor([4, 4]))
    assert course.record()["pseudo_label_change"] == 1


def test_names_of_labels_do_not_matter_to_information() -> None:
    course, random = Course(torch.full((200,), -1)), np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(6, size=200))
    course.add(torch.arange(200), labels)
    assert course.record() == {}  # no classes, none before
    course.add(torch.arange(200), (labels + 1) % 6)
    found = course.record()
    assert found == {"pseudo_label_change": 1, "pseudo_label_nmi_before": pytest.approx(1)}


def test_purity_is_the_best_that_a_class_for_every_label_can_do() -> None:
    random = np.random.default_rng(1)
    classes, labels = random.integers(4, size=300), random.integers(7, size=300)
    best = sum(max(np.sum((labels == label) & (classes == one)) for one in range(4)) for label in range(7))
    assert purity(classes, labels) == pytest.approx(best / 300)


def test_a_state_goes_on_where_it_was() -> None:
    whole, parted = Course(CLASSES), Course(CLASSES)
    rows, random = torch.arange(8), np.random.default_rng(2)
    for epoch in range(3):
        labels = torch.from_numpy(random.integers(3, size=8))
        for course in (whole, parted):
            course.add(rows[:4], labels[:4])
        resumed = Course(CLASSES)
        resumed.load_state_dict({name: value.clone() for name, value in parted.state_dict().items()})
        parted = resumed
        for course in (whole, parted):
            course.add(rows[4:], labels[4:])
        assert whole.record() == parted.record(), epoch


NAMES = {"pseudo_label_nmi", "pseudo_label_purity", "pseudo_label_nmi_before", "pseudo_label_change"}


def trained(settings: Pretraining, folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    """Train on some digits, and return the method and the log."""
    with open_run(folder, "small", settings) as run:
        method = built(settings, some(300))
        pretrain.train(method, settings, feed(settings, some(300)), run, Place(), quiet=True)
    return method, Run(folder).records()


@pytest.mark.parametrize("chosen", [methods.Mira(prototypes=12), methods.Swav(prototypes=12, queue=128)])
def test_batches_leave_the_labels_of_an_epoch_in_the_log(
    chosen: methods.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(with_method(SMALL, chosen), epochs=2)
    seen: list[dict[int, int]] = [{}]
    step = pretrain.backward

    def noting(module: Any, batch: Any, now: Any, **named: Any) -> Any:
        found = step(module, batch, now, **named)
        plan = found.assignments[0].plan[: len(batch.rows)]
        while len(seen) <= now.epoch:
            seen.append({})
        seen[now.epoch] |= dict(zip(batch.rows.tolist(), plan.argmax(dim=1).tolist(), strict=True))
        return found

    monkeypatch.setattr(pretrain, "backward", noting)
    _, records = trained(settings, tmp_path / "run")
    assert records[0].keys() & NAMES == {"pseudo_label_nmi", "pseudo_label_purity"}
    assert records[1].keys() >= NAMES
    classes = some(300).classes
    for record, labels in zip(records, seen, strict=True):
        assert len(labels) == 256
        assert record["pseudo_label_nmi"] == pytest.approx(nmi(classes[list(labels)], list(labels.values())))
    both = seen[0].keys() & seen[1].keys()
    assert records[1]["pseudo_label_change"] == pytest.approx(np.mean([seen[0][row] != seen[1][row] for row in both]))


@pytest.mark.parametrize(
    "chosen", [methods.Sela(heads=(8, 5), relabellings=4, label_views=1), methods.DeepCluster(clusters=5)]
)
def test_labels_of_all_images_are_compared_where_they_are_made(chosen: methods.Settings, tmp_path: Path) -> None:
    settings = replace(with_method(SMALL, chosen), epochs=4)
    method, records = trained(settings, tmp_path / "run")
    assert [NAMES & record.keys() != set() for record in records] == ["clusters_used" in record for record in records]
    # The first head's, of all 300.
    assert records[-1]["pseudo_label_nmi"] == pytest.approx(nmi(some(300).classes, method.pseudo_labels()[0]))


def test_methods_without_labels_have_no_course(tmp_path: Path) -> None:
    _, records = trained(replace(with_method(SMALL, methods.Imsvd(units=4)), epochs=1), tmp_path / "run")
    assert not NAMES & records[0].keys()
    state = checkpoint.load(tmp_path / "run" / "checkpoint.pt")
    assert state is not None
    assert state.course == {}


def test_a_checkpoint_of_before_is_gone_on_from(tmp_path: Path) -> None:
    settings = replace(SMALL, epochs=1)
    trained(settings, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    tree = torch.load(path, weights_only=True)
    del tree["course"]
    checkpoint.write(path, tree)
    state = checkpoint.load(path)
    assert state is not None
    assert state.course == {}
    longer, run = replace(settings, epochs=2), Run(tmp_path / "run")
    pretrain.train(built(longer, some(300)), longer, feed(longer, some(300)), run, Place(), quiet=True)
    # There are no labels of before to compare with.
    assert run.records()[-1].keys() & NAMES == {"pseudo_label_nmi", "pseudo_label_purity"}
