"""Batches: which images are in them on which rank, whoever loads them."""

import pickle
from itertools import chain, islice, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import write_image
from torch import Tensor

from infoassign_training.data.augmentations import Dino
from infoassign_training.data.folder import open_folder
from infoassign_training.data.images import ImagesError
from infoassign_training.data.loader import Batches, ViewLoader
from infoassign_training.data.synthetic import SyntheticImages
from infoassign_training.data.views import Views

SMALL = Dino(global_size=8, local_views=1, local_size=6)


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 5), st.integers(0, 3), st.booleans(), st.booleans())
def test_ranks_share_every_batch_out(
    count: int, batch_size: int, world: int, epoch: int, shuffle: bool, drop_last: bool
) -> None:
    options = {"count": count, "batch_size": batch_size, "seed": 1, "shuffle": shuffle, "drop_last": drop_last}
    try:
        ranks = [Batches(**options, rank=rank, world=world) for rank in range(world)]
    except ValueError:
        return
    alone = list(Batches(**options).epoch(epoch))
    pieces = [list(batches.epoch(epoch)) for batches in ranks]
    # On every rank as many steps, whose pieces make up the batch that one rank alone would have.
    assert {len(batches) for batches in ranks} == {len(piece) for piece in pieces} == {len(alone)}
    for step, batch in enumerate(alone):
        parts = [piece[step] for piece in pieces]
        assert [*chain.from_iterable(parts)] == batch
        sizes = [len(part) for part in parts]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
    # No image twice, and none left out but those of the last batch that is dropped.
    seen = [*chain.from_iterable(alone)]
    assert len(set(seen)) == len(seen)
    assert len(seen) == (count - count % batch_size if drop_last else count)
    if not shuffle:
        assert all(a < b for a, b in pairwise(seen))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(Batches(count=50, batch_size=10, seed=seed).epoch(epoch))

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_an_epoch_can_be_taken_up_in_the_middle() -> None:
    batches = Batches(count=50, batch_size=10, seed=0)
    assert list(batches.epoch(2, first=3)) == list(batches.epoch(2))[3:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 60}, "batch_size 60 is larger than the 50 images"),
        ({"batch_size": 2, "world": 3}, "batch_size 2 leaves some of 3 ranks without images"),
        ({"batch_size": 7, "world": 2, "drop_last": False}, "the last batch has 1 images for 2 ranks"),
        ({"batch_size": 10, "world": 2, "rank": 2}, r"rank must be in \[0, world\); got 2 of 2"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batches(count=50, seed=0, **options)


def test_the_batches_must_be_of_the_views() -> None:
    with pytest.raises(ValueError, match="of 9 images, the views of 10"):
        ViewLoader(Views(SyntheticImages(10, size=12), SMALL, seed=0), Batches(count=9, batch_size=3, seed=0))


Loaded = list[tuple[list[Tensor], Tensor]]


def assert_same(first: Loaded, second: Loaded) -> None:
    assert len(first) == len(second)
    for (crops, rows), (others, other_rows) in zip(first, second, strict=True):
        assert torch.equal(rows, other_rows)
        assert all(torch.equal(a, b) for a, b in zip(crops, others, strict=True))


@pytest.fixture(scope="module")
def alone() -> ViewLoader:
    """Without worker processes."""
    views = Views(SyntheticImages(10, size=12), SMALL, seed=0)
    return ViewLoader(views, Batches(count=10, batch_size=4, seed=0, drop_last=False))


def test_batches_hold_the_views_of_their_images(alone: ViewLoader) -> None:
    views = Views(SyntheticImages(10, size=12), SMALL, seed=0)
    loaded = list(alone.epoch(5))
    assert [rows.tolist() for _, rows in loaded] == list(
        Batches(count=10, batch_size=4, seed=0, drop_last=False).epoch(5)
    )
    for crops, rows in loaded:
        assert [tuple(crop.shape[1:]) for crop in crops] == [(3, 8, 8), (3, 8, 8), (3, 6, 6)]
        for place, row in enumerate(rows.tolist()):
            for crop, expected in zip(crops, views[5, row][0], strict=True):
                assert torch.equal(crop[place], expected)


# Spawned processes import torchvision anew, which takes 10 seconds; Python 3.12, and JAX if another test has loaded it,
# warn of forks where threads run.
@pytest.mark.deep
@pytest.mark.filterwarnings(
    "ignore:This process.*is multi-threaded:DeprecationWarning", "ignore:os.fork:RuntimeWarning"
)
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, context: str) -> None:
    """Two processes that live on over epochs, one of which is broken off, and one taken up in the middle.

    The last file is damaged: its batch is the last, and an error that names it on either way.
    """
    for number in range(8):
        write_image(tmp_path / f"{number}.jpg", seed=number)
    (tmp_path / "7.jpg").write_bytes(b"no image")
    views = Views(open_folder(tmp_path, labelled=False), SMALL, seed=0)
    batches = Batches(count=8, batch_size=2, seed=0, shuffle=False)
    alone, helped = ViewLoader(views, batches), ViewLoader(views, batches, workers=2, context=context)
    next(helped.epoch(1))
    assert_same([*islice(helped.epoch(2, first=1), 2)], [*islice(alone.epoch(2, first=1), 2)])
    for loader in (alone, helped):
        with pytest.raises(ImagesError, match=r"7\.jpg cannot be decoded"):
            list(loader.epoch(0))
    assert_same([*islice(helped.epoch(1), 3)], [*islice(alone.epoch(1), 3)])


def test_views_can_be_sent_to_other_processes() -> None:
    views = Views(SyntheticImages(10, size=12), SMALL, seed=0)
    sent = pickle.loads(pickle.dumps(views))
    assert all(torch.equal(a, b) for a, b in zip(sent[3, 4][0], views[3, 4][0], strict=True))


def test_views_differ_from_epoch_to_epoch(alone: ViewLoader) -> None:
    by_row = [
        {int(row): crops[0][i] for crops, rows in alone.epoch(epoch) for i, row in enumerate(rows)} for epoch in (0, 1)
    ]
    assert not any(torch.equal(by_row[0][row], by_row[1][row]) for row in range(10))


def test_the_callers_random_state_is_left_alone(alone: ViewLoader) -> None:
    state = torch.get_rng_state()
    list(alone.epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_ranks_see_what_one_alone_would(alone: ViewLoader) -> None:
    views = Views(SyntheticImages(10, size=12), SMALL, seed=0)
    parts = []
    for rank in range(2):
        batches = Batches(count=10, batch_size=4, seed=0, drop_last=False, rank=rank, world=2)
        parts.append(list(ViewLoader(views, batches).epoch(3)))
    joined = [
        ([torch.cat(pair) for pair in zip(*(crops for crops, _ in step), strict=True)], torch.cat([r for _, r in step]))
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, list(alone.epoch(3)))
