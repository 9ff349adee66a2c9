"""The embedded data and the views of it."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from infoassign_training.data.augmentations import Distortions
from infoassign_training.data.digit_views import random_view
from infoassign_training.data.digits import HELD_OUT, digits

NOTHING = Distortions(rotation=0, scale=1, aspect=0, shear=0, shift=0, elastic=0, gamma=0, blur=0, gain=0, noise=0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return digits()[0].images[:200]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_digits_are_split_once_and_for_all() -> None:
    train, held_out = digits()
    assert train.images.shape == (1797 - HELD_OUT, 1, 8, 8)
    assert held_out.images.shape == (HELD_OUT, 1, 8, 8)
    assert train.images.dtype == torch.float32
    assert (train.images.min(), train.images.max()) == (0, 1)
    assert torch.equal(digits()[1].images, held_out.images)
    # Every image is in exactly one of the two, with its class.
    pairs = [
        (tuple(x.flatten().tolist()), int(y))
        for s in (train, held_out)
        for x, y in zip(s.images, s.classes, strict=True)
    ]
    raw = load_digits()
    expected = [(tuple((x / 16).flatten().tolist()), int(y)) for x, y in zip(raw.images, raw.target, strict=True)]
    assert sorted(pairs) == sorted(expected)


def test_no_distortion_gives_the_image_back(images: Tensor) -> None:
    torch.testing.assert_close(random_view(images, NOTHING, seeded()), images, atol=1e-6, rtol=0)


def test_the_same_seed_gives_the_same_view_and_another_another(images: Tensor) -> None:
    first, again, other = (random_view(images, Distortions(), seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_every_image_has_a_distortion_of_its_own(images: Tensor) -> None:
    views = random_view(images[:1].expand(50, -1, -1, -1), Distortions(), seeded())
    assert len(torch.unique(views.flatten(1), dim=0)) == 50


@pytest.mark.parametrize("name", ["rotation", "aspect", "shear", "shift", "elastic", "gamma", "blur", "gain", "noise"])
def test_every_setting_is_read(images: Tensor, name: str) -> None:
    settings = Distortions(**{**vars(NOTHING), name: getattr(Distortions(), name)})
    assert not torch.allclose(random_view(images, settings, seeded()), images, atol=1e-2)


def test_scale_is_read(images: Tensor) -> None:
    settings = Distortions(**{**vars(NOTHING), "scale": 1.5})
    assert not torch.allclose(random_view(images, settings, seeded()), images, atol=1e-2)


def test_a_quarter_turn_is_the_exact_one(images: Tensor) -> None:
    """Angles up to 90 degrees are drawn; at the largest the view must be torch's own rot90, either way round."""
    settings = Distortions(**{**vars(NOTHING), "rotation": 90})
    views = random_view(images[:1].expand(2000, -1, -1, -1), settings, seeded())
    for turn in (1, -1):
        nearest = (views - torch.rot90(images[:1], turn, dims=(2, 3))).abs().amax(dim=(1, 2, 3)).min()
        assert nearest < 0.05


def test_shift_moves_by_half_widths() -> None:
    """A shift of one half width moves the centre of mass by at most four of eight pixels, and does reach far."""
    point = torch.zeros(1, 1, 8, 8)
    point[..., 3:5, 3:5] = 1
    settings = Distortions(**{**vars(NOTHING), "shift": 0.5})
    views = random_view(point.expand(2000, -1, -1, -1), settings, seeded())
    columns = torch.arange(8.0) - 3.5
    centres = (views.sum(dim=(1, 2)) * columns).sum(dim=1) / views.sum(dim=(1, 2, 3))
    assert 1.9 < centres.abs().max() <= 2.01
