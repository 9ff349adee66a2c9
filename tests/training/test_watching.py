"""What is looked at between epochs, on features with known answers."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import digit_runs
import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import Dino
from infoassign_training.data.images import ArrayImages
from infoassign_training.data.settings import Synthetic
from infoassign_training.engine import feed as feeds
from infoassign_training.engine import watching
from infoassign_training.engine.feed import ViewFeed
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run, open_run
from infoassign_training.models.settings import ResNet

CPU = torch.device("cpu")


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(500, 6), (6, 500)])
def test_effective_rank_is_that_of_the_singular_values(shape: tuple[int, int]) -> None:
    features = normal(*shape) * torch.linspace(0.1, 3, shape[1])
    centred = features.double().numpy() - features.double().numpy().mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    shares = values / values.sum()
    expected = np.exp(-np.sum(shares * np.log(shares + 1e-300)))
    assert watching.effective_rank(features) == pytest.approx(expected, rel=1e-6)


def test_effective_rank_counts_directions_and_is_blind_to_place_and_scale() -> None:
    line = normal(300, 1) @ normal(1, 8)
    assert watching.effective_rank(line) == pytest.approx(1, abs=1e-3)
    even = torch.linalg.qr(normal(300, 8) - normal(300, 8).mean(dim=0))[0]
    assert watching.effective_rank(even) == pytest.approx(8, rel=1e-2)
    features = normal(300, 8).double()
    assert watching.effective_rank(5 * features + 3) == pytest.approx(watching.effective_rank(features))


def test_rounding_is_not_taken_for_a_rank() -> None:
    constant = torch.full((200, 16), 0.3)
    assert watching.effective_rank(constant) == 1
    assert watching.effective_rank(constant * (1 + 1e-8 * normal(200, 16))) == 1
    assert watching.effective_rank(torch.zeros(200, 16)) == 1
    assert watching.direction_std(constant) == pytest.approx(0, abs=1e-6)


def test_direction_std_is_that_of_unit_vectors() -> None:
    outputs = normal(400, 5) + 1
    unit = outputs / outputs.norm(dim=1, keepdim=True)
    expected = math.sqrt(float(unit.var(dim=0, correction=0).sum()))
    assert watching.direction_std(outputs) == pytest.approx(expected, rel=1e-5)
    assert watching.direction_std(7 * outputs) == pytest.approx(expected, rel=1e-5)
    assert watching.direction_std(normal(5000, 5)) == pytest.approx(1, abs=1e-2)


def test_knn_is_the_vote_of_four_fifths_on_pixels() -> None:
    """Of raw digits, as scikit-learn has it on the same split."""
    images = digit_runs.some(300)
    found = watching.knn(nn.Flatten(), digit_runs.feed(digit_runs.SMALL, images), Place())
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0)).numpy()
    asked = np.arange(300) % watching.ASKED == 0
    pixels, classes = images.images.flatten(1).numpy()[order], images.classes.numpy()[order]
    voters = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    voters.fit(pixels[~asked], classes[~asked])
    assert found == {"knn": pytest.approx(voters.score(pixels[asked], classes[asked]))}
    assert found["knn"] > 0.85


class Spy(nn.Module):
    """Remembers the modes and images that it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        return images.flatten(1)[:, :20]


def view_feed(source: Any, **changes: Any) -> ViewFeed:
    dino = Dino(global_size=8, local_views=1, local_size=4)
    data = Synthetic(count=20, size=16)
    chosen = Pretraining(batch_size=6, data=data, augmentation=dino, encoder=ResNet(), device="cpu", **changes)
    return ViewFeed(source, chosen, Place(), CPU)


def test_knn_is_asked_in_evaluation_mode_and_only_where_classes_are_known() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), np.uint8)
    for classes in (None, np.arange(40) % 2):
        spy = Spy()
        names = () if classes is None else ("a", "b")
        source = ArrayImages("noise", pixels, classes, names)
        found = watching.knn(spy, view_feed(source), Place())
        assert set(spy.modes) == (set() if classes is None else {False})
        assert found.keys() == (set() if classes is None else {"knn"})


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.deep)])
def test_a_sample_is_the_same_every_time_and_no_larger_than_it_must_be(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "CHUNK", 8)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), np.uint8)
    feed = view_feed(ArrayImages("noise", pixels, np.arange(40) % 4, ("a", "b", "c", "d")), workers=workers)
    first, again = list(feed.sample(10)), list(feed.sample(10))
    rows = torch.cat([batch.rows for batch in first])
    assert len(rows) == len(rows.unique()) == 16  # two chunks
    for batch, other in zip(first, again, strict=True):
        assert torch.equal(batch.rows, other.rows)
        assert torch.equal(batch.views[0], other.views[0])
        assert torch.equal(batch.classes, batch.rows % 4)
        assert len(batch.views) == 1
    assert sum(len(batch.rows) for batch in feed.sample(1000)) == 40


@pytest.mark.parametrize("pieces", [1, 3])
def test_what_is_seen_is_of_the_finished_network_whatever_the_pieces(small: Pretraining, pieces: int) -> None:
    images = digit_runs.some(128)
    method = digit_runs.built(small, images).train()
    (batch,) = digit_runs.feed(small, images).epoch(0)
    features, outputs = watching.seen(method, batch, pieces)
    assert not method.training
    with torch.no_grad():
        torch.testing.assert_close(features, method.encoder(batch.views[0]))
        torch.testing.assert_close(outputs, method.get_submodule("projector")(features))


def test_looking_changes_no_weights(tmp_path: Path, small: Pretraining) -> None:
    images, runs = digit_runs.some(300), {}
    for every in (0, 2):
        chosen = replace(small, epochs=3, knn_every=every)
        with open_run(tmp_path / str(every), "small", chosen) as run:
            runs[every] = digit_runs.train(chosen, images, run).state_dict()
        looked = ["knn" in record for record in Run(tmp_path / str(every)).records()]
        assert looked == [False, every == 2, False]
    assert all(torch.equal(value, runs[2][name]) for name, value in runs[0].items())
