"""What reaches the methods: which images, which views, on which rank."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import digit_runs
import numpy as np
import pytest
import torch
from image_files import CLASSES, write_imagenet, write_voc

from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import Dino
from infoassign_training.data.build import images_of
from infoassign_training.data.digits import digits
from infoassign_training.data.images import ArrayImages, Images, ImagesError, TaggedImages
from infoassign_training.data.settings import Digits, Folder, Hub, Packed, Source, Synthetic, Torchvision
from infoassign_training.data.views import Views, normalised
from infoassign_training.data.voc import voc2007
from infoassign_training.engine import feed as feeds
from infoassign_training.engine.feed import DigitFeed, Feed, ViewFeed, feed_of
from infoassign_training.engine.ranks import Place
from infoassign_training.models.settings import ResNet

CPU = torch.device("cpu")
DINO = Dino(global_size=8, local_views=1, local_size=4)
SETTINGS = Pretraining(
    batch_size=6, data=Synthetic(count=20, size=16), augmentation=DINO, encoder=ResNet(), device="cpu"
)


def images(number: int = 20) -> Images:
    return images_of(Synthetic(count=number, size=16))


def view_feed(place: Place, number: int = 20, **changes: Any) -> ViewFeed:
    return ViewFeed(images(number), replace(SETTINGS, **changes), place, CPU)


def digit_feed(place: Place) -> DigitFeed:
    return DigitFeed(digit_runs.some(50), replace(digit_runs.SMALL, batch_size=12), place, CPU)


def test_batches_are_the_views_of_their_images_normalised() -> None:
    views = Views(images(), DINO, SETTINGS.seed)
    for number in (0, 1):
        batches = list(view_feed(Place()).epoch(number))
        assert len(batches) == view_feed(Place()).steps_per_epoch == 3
        for batch in batches:
            assert [view.shape for view in batch.views] == [(6, 3, 8, 8), (6, 3, 8, 8), (6, 3, 4, 4)]
            assert torch.equal(batch.classes, batch.rows % 10)
            for place, row in enumerate(batch.rows.tolist()):
                expected, _ = views[number, row]
                for view, crop in zip(batch.views, expected, strict=True):
                    torch.testing.assert_close(view[place], normalised(crop, DINO))


@pytest.mark.parametrize("make", [view_feed, digit_feed])
def test_ranks_share_out_what_one_would_have(make: Any) -> None:
    """Batches and passes alike, to the bit."""
    alone: Feed = make(Place())
    several: list[Feed] = [make(Place(rank, 3)) for rank in range(3)]
    for batch, *parts in zip(alone.epoch(1), *(feed.epoch(1) for feed in several), strict=True):
        assert torch.equal(batch.rows, torch.cat([part.rows for part in parts]))
        assert torch.equal(batch.classes, torch.cat([part.classes for part in parts]))
        for number, view in enumerate(batch.views):
            assert torch.equal(view, torch.cat([part.views[number] for part in parts]))
    passes = (feed.everything(7, 2) for feed in several)
    for (rows, views), *shares in zip(alone.everything(7, 2), *passes, strict=True):
        assert torch.equal(rows, torch.cat([share[0] for share in shares]))
        assert len(views) == 2
        for number, view in enumerate(views):
            assert torch.equal(view, torch.cat([share[1][number] for share in shares]))


@pytest.mark.parametrize(("number", "world"), [(20, 1), (20, 3), (17, 4), (5, 4)])
def test_a_pass_sees_every_image_once_in_equally_many_parts(
    number: int, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the last chunk would leave a rank without an image: ranks do collective operations in each."""
    monkeypatch.setattr(feeds, "CHUNK", 8)
    shares = [list(view_feed(Place(rank, world), number, batch_size=4).everything(0, 1)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(rows) for share in shares for rows, _ in share)
    seen = torch.cat([rows for share in shares for rows, _ in share])
    assert sorted(seen.tolist()) == list(range(number))


def test_a_pass_has_views_of_its_own_and_no_local_ones() -> None:
    feed = view_feed(Place())
    (first,), (again,), (other,) = (list(feed.everything(step, 2)) for step in (3, 3, 4))
    assert [view.shape for view in first[1]] == [(20, 3, 8, 8), (20, 3, 8, 8)]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1][0], again[1][0])
    assert not torch.equal(first[0], other[0]), "always in the same order"
    trained = {
        row: view for batch in feed.epoch(3) for row, view in zip(batch.rows.tolist(), batch.views[0], strict=True)
    }
    assert not any(
        torch.equal(trained[row], first[1][0][place]) for place, row in enumerate(first[0].tolist()) if row in trained
    )


def test_images_without_classes_have_none() -> None:
    pixels = ArrayImages("grey", np.zeros((8, 3, 16, 16), np.uint8))
    feed = ViewFeed(pixels, SETTINGS, Place(), CPU)
    assert feed.classes == 0
    (batch,) = feed.epoch(0)
    assert set(batch.classes.tolist()) == {-1}


def test_batches_of_tagged_images_bring_which_classes_they_have(tmp_path: Path) -> None:
    write_voc(tmp_path)
    source = voc2007(tmp_path).train
    assert isinstance(source, TaggedImages)
    found = ViewFeed(source, replace(SETTINGS, batch_size=2), Place(), CPU)
    assert found.classes == 20
    batches = list(found.epoch(0))
    assert len(batches) == 2
    for batch in batches:
        np.testing.assert_array_equal(batch.classes, source.presence[batch.rows])


def test_feed_of_opens_what_the_settings_name(tmp_path: Path) -> None:
    assert isinstance(feed_of(Pretraining(), Place(), CPU), DigitFeed)
    write_imagenet(tmp_path)
    settings = replace(SETTINGS, data=Torchvision(root=str(tmp_path), split="train"))
    feed = feed_of(settings, Place(), CPU)
    assert isinstance(feed, ViewFeed)
    assert (feed.images, feed.classes) == (12, 3)
    listed = tmp_path / "some.txt"
    listed.write_text("\n".join(CLASSES[:2]))
    fewer = feed_of(replace(settings, data=replace(settings.data, class_list=str(listed))), Place(), CPU)
    assert (fewer.images, fewer.classes) == (8, 2)


def test_the_digits_are_images_like_any() -> None:
    source = images_of(Digits())
    assert len(source) == len(digits()[0].images)


@pytest.mark.parametrize("source", [Torchvision(), Folder(), Packed(), Hub()])
def test_a_source_without_a_place_asks_for_it(source: Source) -> None:
    with pytest.raises(ImagesError, match=r"where is .*\? say so by --data WHERE"):
        images_of(source)


def test_a_class_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    with pytest.raises(ImagesError, match=r"class list imagenet100\.txt cannot be read"):
        images_of(Torchvision(root=str(tmp_path), class_list="imagenet100.txt"))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.deep)])
def test_an_image_that_cannot_be_read_is_named_in_one_line(workers: int, tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    torn = tmp_path / "train" / CLASSES[1] / f"{CLASSES[1]}_2.JPEG"
    torn.write_bytes(torn.read_bytes()[:100])
    settings = replace(SETTINGS, data=Torchvision(root=str(tmp_path)), workers=workers)
    with pytest.raises(ImagesError, match=rf"{torn.name} cannot be decoded \(100 bytes\): ") as caught:
        list(feed_of(settings, Place(), CPU).epoch(0))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
