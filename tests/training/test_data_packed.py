"""Packed images: what is kept, what is refused, and what a killed process leaves."""

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from filelock import FileLock
from image_files import CLASSES, pixels, write_image, write_imagenet

from infoassign_training.data.folder import FolderImages, open_folder
from infoassign_training.data.images import ArrayImages, ImagesError
from infoassign_training.data.packed import PackedImages, open_hub, open_packed, pack
from infoassign_training.data.subsets import stratified
from infoassign_training.data.synthetic import SyntheticImages


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def source(tmp_path: Path) -> FolderImages:
    write_imagenet(tmp_path / "images")
    write_image(tmp_path / "images" / "train" / CLASSES[1] / "large.jpg", 7, height=40, width=60)
    write_image(tmp_path / "images" / "train" / CLASSES[1] / "small.png", 8)
    return open_folder(tmp_path / "images" / "train", labelled=True)


def test_packing_keeps_order_classes_names_and_origins(source: FolderImages, tmp_path: Path) -> None:
    packed = pack(source, tmp_path / "packed", size=20, quality=90)
    assert source.classes is not None
    for images in (packed, open_packed(tmp_path / "packed"), pickle.loads(pickle.dumps(packed))):
        assert isinstance(images, PackedImages)
        assert images.classes is not None
        assert images.classes.dtype == np.int64
        assert images.classes.tolist() == source.classes.tolist()
        assert images.names == CLASSES
        assert [images.origin(i) for i in range(len(images))] == [source.origin(i) for i in range(len(source))]


def test_small_jpegs_keep_their_bytes_and_the_rest_is_encoded(source: FolderImages, tmp_path: Path) -> None:
    packed = pack(source, tmp_path / "packed", size=20, quality=90)
    for i in range(len(source)):
        name = source.origin(i)
        if name.endswith(".JPEG"):
            assert packed.encoded(i) == source.encoded(i)
        else:
            assert packed.encoded(i).startswith(b"\xff\xd8\xff")
        size = (30, 20) if "large" in name else (16, 12)
        assert packed.image(i).size == size
        expected = np.asarray(source.image(i).resize(size), dtype=float)
        assert np.abs(np.asarray(packed.image(i), dtype=float) - expected).mean() < 8


def test_quality_is_read(source: FolderImages, tmp_path: Path) -> None:
    low, high = (pack(source, tmp_path / f"{q}", size=8, quality=q) for q in (5, 95))
    assert len(low.encoded(0)) < len(high.encoded(0))


def test_images_in_memory_and_views_without_classes_can_be_packed(tmp_path: Path) -> None:
    images = ArrayImages("made up", np.stack([pixels(seed).transpose(2, 0, 1) for seed in range(5)]))
    packed = pack(images, tmp_path / "packed", size=100, quality=95)
    assert packed.classes is None
    assert packed.names == ()
    assert packed.origin(3) == "made up[3]"
    PIL.Image.fromarray(pixels(3)).save(tmp_path / "3.jpg", quality=95)
    assert packed.encoded(3) == (tmp_path / "3.jpg").read_bytes()


@pytest.mark.deep  # forks, of which JAX warns if another test has loaded it
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    images = ArrayImages("made up", np.stack([pixels(seed).transpose(2, 0, 1) for seed in range(5)]))
    alone, helped = (pack(images, tmp_path / f"{n}", size=8, quality=90, workers=n) for n in (0, 1))
    assert [alone.encoded(i) for i in range(5)] == [helped.encoded(i) for i in range(5)]


def test_packed_images_can_be_subsets(source: FolderImages, tmp_path: Path) -> None:
    few = stratified(pack(source, tmp_path / "packed", size=20, quality=90), 0.3, seed=0)
    again = pack(few, tmp_path / "few", size=20, quality=90)
    assert [again.origin(i) for i in range(len(again))] == [few.origin(i) for i in range(len(few))]


def test_what_is_there_is_not_overwritten(source: FolderImages, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    with pytest.raises(ImagesError, match="already there"):
        pack(source, tmp_path / "packed", size=20, quality=90)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_image_that_cannot_be_decoded_leaves_nothing(source: FolderImages, tmp_path: Path) -> None:
    damaged = source.root / CLASSES[2] / f"{CLASSES[2]}_2.JPEG"
    damaged.write_bytes(damaged.read_bytes()[:300])
    (tmp_path / "out").mkdir()
    with pytest.raises(ImagesError, match=rf"{damaged.name} cannot be decoded"):
        pack(source, tmp_path / "out" / "packed", size=20, quality=90)
    assert left_in(tmp_path / "out") == []


class Watched(ArrayImages):
    """Says at every image what the folder holds that the data set is to appear in."""

    def image(self, index: int) -> torch.Tensor:
        SEEN.append(left_in(Path(self.title)))
        return super().image(index)


SEEN: list[list[str]] = []


def test_the_data_set_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    SEEN.clear()
    pack(
        Watched(str(tmp_path / "out"), np.zeros((9, 3, 4, 4), dtype=np.uint8)),
        tmp_path / "out" / "p",
        size=4,
        quality=9,
    )
    assert SEEN == [[".p.packing"]] * 9
    assert left_in(tmp_path / "out") == ["p"]


def test_what_killed_packing_leaves_is_no_data_set_and_the_next_one_deletes_it(tmp_path: Path) -> None:
    scratch = tmp_path / "out" / ".packed.packing"
    for name in ("parts/all.arrow", "whole/data-00000-of-00001.arrow", "lock"):
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_bytes(b"half")
    with pytest.raises(ImagesError, match="holds no packed images"):
        open_packed(tmp_path / "out" / "packed")
    images = ArrayImages("x", np.zeros((9, 3, 4, 4), dtype=np.uint8))
    assert len(pack(images, tmp_path / "out" / "packed", size=4, quality=90)) == 9
    assert left_in(tmp_path / "out") == ["packed"]


@pytest.mark.deep
def test_killed_packing(tmp_path: Path) -> None:
    """As above, with a process that is really killed."""
    target = tmp_path / "out" / "packed"
    script = f"""
import os, signal
from infoassign_training.data.packed import pack
from infoassign_training.data.synthetic import SyntheticImages

class KillsItself(SyntheticImages):
    def image(self, index):
        if index == 250:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().image(index)

pack(KillsItself(300, size=8), {str(target)!r}, size=8, quality=90)
"""
    finished = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert finished.returncode == -signal.SIGKILL
    assert left_in(target.parent) == [".packed.packing"]
    assert len(pack(SyntheticImages(9, size=8), target, size=4, quality=90)) == 9
    assert left_in(target.parent) == ["packed"]


def test_two_cannot_pack_to_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / ".packed.packing").mkdir()
    images = ArrayImages("x", np.zeros((2, 3, 4, 4), dtype=np.uint8))
    with (
        FileLock(tmp_path / ".packed.packing" / "lock"),
        pytest.raises(ImagesError, match="another process is packing"),
    ):
        pack(images, tmp_path / "packed", size=4, quality=90)
    assert len(pack(images, tmp_path / "packed", size=4, quality=90)) == 2


@pytest.mark.parametrize(("size", "quality", "named"), [(0, 90, "size"), (8, 0, "quality"), (8, 96, "quality")])
def test_values_out_of_range_are_refused(
    source: FolderImages, tmp_path: Path, size: int, quality: int, named: str
) -> None:
    with pytest.raises(ValueError, match=f"{named} must be"):
        pack(source, tmp_path / "packed", size=size, quality=quality)


def test_nothing_to_pack(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="no images"):
        pack(ArrayImages("x", np.zeros((0, 3, 4, 4), dtype=np.uint8)), tmp_path / "packed", size=4, quality=90)


# Data sets of others


def table(**columns: object) -> datasets.Dataset:
    images = [PIL.Image.fromarray(pixels(seed)) for seed in range(3)]
    return datasets.Dataset.from_dict({"img": images, **columns}).cast_column("img", datasets.Image())


def test_a_saved_data_set_opens_by_the_types_of_its_columns(tmp_path: Path) -> None:
    saved = table(kind=[0, 1, 1], other=[5, 6, 7]).cast_column("kind", datasets.ClassLabel(names=["cat", "dog"]))
    saved.save_to_disk(tmp_path / "saved")
    images = open_packed(tmp_path / "saved")
    assert images.classes is not None
    assert images.classes.tolist() == [0, 1, 1]
    assert images.names == ("cat", "dog")
    assert np.array_equal(np.asarray(images.image(2)), pixels(2))
    assert images.origin(2) == "2"


def test_several_columns_of_classes_must_be_chosen_from(tmp_path: Path) -> None:
    saved = table(fine=[0, 1, 1], coarse=[0, 0, 0])
    for name in ("fine", "coarse"):
        saved = saved.cast_column(name, datasets.ClassLabel(names=["cat", "dog"]))
    saved.save_to_disk(tmp_path / "saved")
    with pytest.raises(ImagesError, match="several ClassLabel columns, fine, coarse; choose by label="):
        open_packed(tmp_path / "saved")
    images = open_packed(tmp_path / "saved", label="fine")
    assert images.classes is not None
    assert images.classes.tolist() == [0, 1, 1]
    with pytest.raises(ImagesError, match="no Image column 'fine'; it has img"):
        open_packed(tmp_path / "saved", image="fine", label="fine")


def test_secret_classes_are_none(tmp_path: Path) -> None:
    saved = table(label=[-1, -1, -1]).cast_column("label", datasets.ClassLabel(names=["cat", "dog"]))
    saved.save_to_disk(tmp_path / "saved")
    assert open_packed(tmp_path / "saved").classes is None


def test_a_selection_of_rows_is_kept(tmp_path: Path) -> None:
    """A data set that was filtered still holds all rows on disk."""
    saved = table(label=[0, 1, 1]).cast_column("label", datasets.ClassLabel(names=["cat", "dog"])).select([2, 0])
    saved.save_to_disk(tmp_path / "saved")
    images = open_packed(tmp_path / "saved")
    assert images.classes is not None
    assert images.classes.tolist() == [1, 0]
    assert np.array_equal(np.asarray(images.image(0)), pixels(2))


def test_what_is_no_data_set_of_images_is_refused(tmp_path: Path) -> None:
    datasets.DatasetDict(train=table(), test=table()).save_to_disk(tmp_path / "both")
    with pytest.raises(ImagesError, match=r"several data sets; name one of them: .*both/train, .*both/test"):
        open_packed(tmp_path / "both")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(ImagesError, match="no column of images; it has text"):
        open_packed(tmp_path / "text")
    with pytest.raises(ImagesError, match="holds no packed images"):
        open_packed(tmp_path)


def test_a_hub_name_may_be_a_local_folder(source: FolderImages) -> None:
    images = open_hub(str(source.root.parent), "train")
    assert len(images) == len(source)
    assert images.names == CLASSES
    assert images.encoded(0).startswith(b"\xff\xd8\xff")


def test_a_hub_that_cannot_be_reached_is_an_error() -> None:
    with pytest.raises(ImagesError, match=r"nobody/nothing \(split train\) cannot be opened"):
        open_hub("nobody/nothing", "train")
