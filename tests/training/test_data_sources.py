"""Sources of images: order, classes, errors, and views on them that leave images out."""

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from image_files import CLASSES, write_cifar, write_image, write_imagenet, write_stl, write_svhn
from torchvision import datasets
from torchvision.transforms.v2 import functional as transforms

from infoassign_training.data.class_lists import only_classes, read_class_list
from infoassign_training.data.digits import digit_images, digits
from infoassign_training.data.folder import open_folder
from infoassign_training.data.images import ArrayImages, EncodedImages, Images, ImagesError
from infoassign_training.data.subsets import imbalanced, stratified, without_shares
from infoassign_training.data.synthetic import SyntheticImages
from infoassign_training.data.torchvision_sets import open_torchvision


def pixels_of(images: Images, index: int) -> torch.Tensor:
    image = images.image(index)
    return image if isinstance(image, torch.Tensor) else transforms.pil_to_tensor(image)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imagenet")
    write_imagenet(root)
    return root


# Folders


def test_a_labelled_folder_is_torchvisions(imagenet: Path) -> None:
    images, theirs = open_folder(imagenet / "train", labelled=True), datasets.ImageFolder(imagenet / "train")
    assert images.classes is not None
    assert images.names == tuple(theirs.classes) == CLASSES
    assert images.classes.tolist() == theirs.targets
    assert images.classes.dtype == np.int64
    assert [str(images.root / images.origin(i)) for i in range(len(images))] == [path for path, _ in theirs.samples]
    for i in range(len(images)):
        assert torch.equal(pixels_of(images, i), transforms.pil_to_tensor(theirs[i][0]))


def test_an_unlabelled_folder_is_any_nesting_in_sorted_order(tmp_path: Path) -> None:
    for seed, name in enumerate(("b/2.png", "top.jpg", "b/deep/er/1.JPG", "a/3.bmp", "b/1.webp")):
        write_image(tmp_path / name, seed)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    images = open_folder(tmp_path, labelled=False)
    names = [images.origin(i) for i in range(len(images))]
    assert names == ["top.jpg", "a/3.bmp", "b/1.webp", "b/2.png", "b/deep/er/1.JPG"]
    assert images.classes is None
    assert images.names == ()
    assert images.encoded(0) == (tmp_path / "top.jpg").read_bytes()


def test_order_is_not_that_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed in whichever order, image i is the same."""
    for seed in range(6):
        write_image(tmp_path / f"{seed % 3}" / f"{seed}.jpg", seed)
    before = open_folder(tmp_path, labelled=True)
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: reversed([(r, d[::-1], f[::-1]) for r, d, f in walk(*a, **k)]))
    after = open_folder(tmp_path, labelled=True)
    assert before.paths.tolist() == after.paths.tolist()


def test_names_beyond_ascii_are_found(tmp_path: Path) -> None:
    write_image(tmp_path / "Füße 1.png", 0)
    images = open_folder(tmp_path, labelled=False)
    assert images.origin(0) == "Füße 1.png"
    assert images.image(0).size == (16, 12)


def test_every_colour_mode_becomes_rgb(tmp_path: Path) -> None:
    for mode, name in (("L", "a.png"), ("CMYK", "b.jpg"), ("RGBA", "c.png"), ("P", "d.png"), ("1", "e.png")):
        PIL.Image.new(mode, (5, 4)).save(tmp_path / name)
    images = open_folder(tmp_path, labelled=False)
    assert [images.image(i).mode for i in range(5)] == ["RGB"] * 5


@pytest.mark.parametrize("labelled", [True, False])
def test_an_empty_folder_says_what_was_expected(tmp_path: Path, labelled: bool) -> None:
    layout = "CLASS/\\*\\*/\\*.jpg" if labelled else "/\\*\\*/\\*.jpg"
    with pytest.raises(ImagesError, match=f"holds no images.*expected.*{layout}"):
        open_folder(tmp_path, labelled=labelled)
    with pytest.raises(ImagesError, match=r"there is no folder .*nowhere; expected"):
        open_folder(tmp_path / "nowhere", labelled=labelled)


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "cat" / "1.jpg", 0)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ImagesError, match="dog"):
        open_folder(tmp_path, labelled=True)


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    write_image(tmp_path / "1.jpg", 0)
    write_image(tmp_path / "2.jpg", 1, height=64, width=64)
    whole = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes({"cut": whole[: len(whole) // 2], "text": b"no image", "empty": b""}[damage])
    images = open_folder(tmp_path, labelled=False)
    images.image(0)
    with pytest.raises(ImagesError, match=r"2\.jpg cannot be decoded"):
        images.image(1)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "1.jpg", 0)
    images = open_folder(tmp_path, labelled=False)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(ImagesError, match=r"1\.jpg cannot be read"):
        images.image(0)


# torchvision's


@pytest.fixture(params=["CIFAR10", "CIFAR100", "SVHN", "STL10"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A data set of torchvision's with made-up content, whose checksums torchvision is told."""
    kind = getattr(datasets, request.param)
    for name in ("train_list", "test_list", "meta", "split_list"):
        if hasattr(kind, name):
            monkeypatch.setattr(kind, name, copy.deepcopy(getattr(kind, name)))
    writers = {"CIFAR10": write_cifar, "CIFAR100": write_cifar, "SVHN": write_svhn, "STL10": write_stl}
    writers[request.param](tmp_path, kind)
    return request.param, tmp_path


def test_archives_are_read_as_torchvision_does(archive: tuple[str, Path]) -> None:
    name, root = archive
    for split in ("train", "test"):
        images = open_torchvision(name.lower(), root, split)
        choice: dict[str, Any] = {"train": split == "train"} if name.startswith("CIFAR") else {"split": split}
        theirs = getattr(datasets, name)(root, **choice)
        assert images.classes is not None
        assert len(images) == len(theirs) > 0
        for i in (0, 3, len(images) - 1):
            image, number = theirs[i]
            assert torch.equal(pixels_of(images, i), transforms.pil_to_tensor(image))
            assert images.classes[i] == number
        assert len(images.names) == (100 if name == "CIFAR100" else 10)


def test_what_is_missing_and_what_is_damaged_is_named(archive: tuple[str, Path]) -> None:
    name, root = archive
    with pytest.raises(ImagesError, match=rf"{name} is not whole .*missing.*http.*download=True"):
        open_torchvision(name.lower(), root / "nowhere", "train")
    file = next(path for path in sorted(root.rglob("*train*")) + sorted(root.rglob("data_batch_1")) if path.is_file())
    file.write_bytes(b"something else")
    with pytest.raises(ImagesError, match=rf"{file.name} is damaged"):
        open_torchvision(name.lower(), root, "train")


@pytest.mark.parametrize("archive", ["STL10"], indirect=True)
@pytest.mark.parametrize(("split", "count"), [("unlabeled", 10), ("train+unlabeled", 20)])
def test_unlabelled_splits_have_no_classes(archive: tuple[str, Path], split: str, count: int) -> None:
    images = open_torchvision("stl10", archive[1], split)
    assert len(images) == count
    assert images.classes is None
    assert images.names == ()
    assert pixels_of(images, count - 1).shape == (3, 96, 96)


@pytest.mark.parametrize("archive", ["STL10"], indirect=True)
def test_the_names_of_the_classes_are_not_optional(archive: tuple[str, Path]) -> None:
    (archive[1] / "stl10_binary" / "class_names.txt").unlink()
    with pytest.raises(ImagesError, match=r"class_names.txt is missing"):
        open_torchvision("stl10", archive[1], "test")


def test_imagenet_needs_its_folders_alone(imagenet: Path) -> None:
    images = open_torchvision("imagenet", imagenet, "val")
    assert (len(images), images.names) == (12, CLASSES)


def test_imagenet_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match=r"there is no folder .*train.*image-net\.org"):
        open_torchvision("imagenet", tmp_path, "train")
    with pytest.raises(ImagesError, match="account"):
        open_torchvision("imagenet", tmp_path, "train", download=True)
    write_image(tmp_path / "train" / "cats" / "1.jpg", 0)
    with pytest.raises(ImagesError, match=r"cats .*not named like n01440764"):
        open_torchvision("imagenet", tmp_path, "train")


def test_unknown_names_and_splits_list_the_known() -> None:
    with pytest.raises(ImagesError, match=r"'mnist'; there are cifar10, cifar100, svhn, stl10, imagenet"):
        open_torchvision("mnist", "/", "train")
    with pytest.raises(ImagesError, match=r"svhn has no split 'val'; it has train, test, extra"):
        open_torchvision("svhn", "/", "val")


# Made up


def test_synthetic_images_are_fixed_by_their_number() -> None:
    images, again, other = (SyntheticImages(20, size=8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(images.image(3), again.image(3))
    assert not torch.equal(images.image(3), images.image(4))
    assert not torch.equal(images.image(3), other.image(3))
    assert images.classes.tolist() == [*range(10)] * 2
    with pytest.raises(IndexError):
        images.image(20)
    with pytest.raises(ValueError, match="size must be at least 1; got 0"):
        SyntheticImages(1, size=0)


def test_digits_keep_their_levels() -> None:
    train = digits()[0]
    images = digit_images(train)
    shown = torch.stack([images.image(i) for i in range(20)])
    assert shown.dtype == torch.uint8
    assert torch.equal((shown[:, :1] / 255 * 16).round() / 16, train.images[:20])
    assert images.classes is not None
    assert images.classes.tolist() == train.classes.tolist()


def test_an_image_can_be_changed_without_changing_the_source() -> None:
    images = ArrayImages("x", np.zeros((1, 3, 2, 2), dtype=np.uint8))
    images.image(0).fill_(1)
    assert images.image(0).sum() == 0


# Lists of classes


def listed(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text(text)
    return path


def test_listed_classes_are_those_of_a_folder_with_only_these(imagenet: Path, tmp_path: Path) -> None:
    names = read_class_list(listed(tmp_path, f"{CLASSES[2]}\n\n{CLASSES[0]} \n"))
    assert names == (CLASSES[2], CLASSES[0])
    images = only_classes(open_torchvision("imagenet", imagenet, "train"), names)
    for name in names:
        (tmp_path / "few").mkdir(exist_ok=True)
        (tmp_path / "few" / name).symlink_to(imagenet / "train" / name)
    folder = open_folder(tmp_path / "few", labelled=True)
    assert images.names == folder.names
    assert images.classes is not None
    assert folder.classes is not None
    assert images.classes.tolist() == folder.classes.tolist()
    assert [images.origin(i) for i in range(len(images))] == [folder.origin(i) for i in range(len(folder))]
    assert torch.equal(pixels_of(images, 5), pixels_of(folder, 5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("n01440764\nn0144353\n", "line 2: expected a WordNet number.*'n0144353'"),
        ("tench\n", "line 1"),
        ("n01440764 tench\n", "line 1"),
        ("n01440764\n\nn01440764\n", "line 3: n01440764 was already in line 1"),
    ],
)
def test_a_bad_class_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ImagesError, match=message):
        read_class_list(listed(tmp_path, text))


def test_a_class_list_that_is_not_there_or_not_of_this_source(imagenet: Path, tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="cannot be read"):
        read_class_list(tmp_path / "nowhere.txt")
    with pytest.raises(ImagesError, match=r"1 of 2 classes are not among the images': n99999999"):
        only_classes(open_torchvision("imagenet", imagenet, "train"), (CLASSES[0], "n99999999"))
    with pytest.raises(ImagesError, match="no classes"):
        only_classes(open_folder(imagenet, labelled=False), CLASSES)


# Subsets

CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def balanced() -> ArrayImages:
    """A thousand images, 100 a class, shuffled; each with its number in its first two pixels."""
    pixels = np.zeros((1000, 3, 1, 2), dtype=np.uint8)
    pixels[:, 0, 0] = np.stack(np.divmod(np.arange(1000), 256), axis=1)
    classes = np.random.default_rng(0).permutation(np.arange(1000) % 10)
    return ArrayImages("made up", pixels, classes, CIFAR_NAMES)


def numbers(images: Images) -> list[int]:
    return [int(a) * 256 + int(b) for i in range(len(images)) for a, b in [pixels_of(images, i)[0, 0]]]


def counts(images: Images) -> list[int]:
    assert images.classes is not None
    return np.bincount(images.classes, minlength=10).tolist()


def test_light_imbalance_halves_the_trucks(balanced: ArrayImages) -> None:
    assert counts(imbalanced(balanced, "light", seed=0)) == [100] * 9 + [50]
    assert counts(imbalanced(balanced, "light", seed=0, halved="cat"))[3] == 50


def test_heavy_imbalance_removes_ten_percent_more_from_class_to_class(balanced: ArrayImages) -> None:
    assert counts(imbalanced(balanced, "heavy", seed=0)) == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]


def test_subsets_keep_order_and_classes(balanced: ArrayImages) -> None:
    assert balanced.classes is not None
    for images in (imbalanced(balanced, "heavy", seed=0), stratified(balanced, 0.1, seed=0)):
        rows = numbers(images)
        assert rows == sorted(set(rows))
        assert images.classes is not None
        assert images.classes.tolist() == balanced.classes[rows].tolist()
        assert images.origin(1) == balanced.origin(rows[1])


def test_subsets_are_fixed_by_the_seed(balanced: ArrayImages) -> None:
    for make in (lambda seed: imbalanced(balanced, "light", seed=seed), lambda s: stratified(balanced, 0.1, seed=s)):
        assert numbers(make(0)) == numbers(make(0))
        assert numbers(make(0)) != numbers(make(1))


def test_a_class_is_thinned_the_same_whatever_happens_to_others(balanced: ArrayImages) -> None:
    alone, both = ({"bird": 0.4}, {"bird": 0.4, "cat": 0.9})
    first, second = (without_shares(balanced, removed, seed=3) for removed in (alone, both))
    assert first.classes is not None
    assert second.classes is not None
    assert first.rows[first.classes == 2].tolist() == second.rows[second.classes == 2].tolist()


def test_label_subsets_are_nested_and_leave_no_class_out(balanced: ArrayImages) -> None:
    one, ten = (stratified(balanced, share, seed=0) for share in (0.01, 0.1))
    assert (counts(one), counts(ten)) == ([1] * 10, [10] * 10)
    assert set(numbers(one)) < set(numbers(ten))
    assert counts(stratified(balanced, 0.001, seed=0)) == [1] * 10
    assert numbers(stratified(balanced, 1, seed=0)) == [*range(1000)]


def test_bad_subsets_are_refused(balanced: ArrayImages) -> None:
    unlabelled = ArrayImages("x", balanced.pixels)
    with pytest.raises(ImagesError, match="no classes"):
        stratified(unlabelled, 0.1, seed=0)
    with pytest.raises(ImagesError, match="no classes"):
        imbalanced(unlabelled, "light", seed=0)
    with pytest.raises(ImagesError, match=r"there is no class lorry; there are airplane"):
        imbalanced(balanced, "light", seed=0, halved="lorry")
    with pytest.raises(ImagesError, match="10 classes; got 3"):
        imbalanced(ArrayImages("x", balanced.pixels, balanced.classes, CLASSES), "heavy", seed=0)
    with pytest.raises(ValueError, match=r"cat to remove must be in \[0, 1\]; got 1.5"):
        without_shares(balanced, {"cat": 1.5}, seed=0)
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share must be in"):
            stratified(balanced, share, seed=0)


def test_sources_can_be_sent_to_other_processes(imagenet: Path, balanced: ArrayImages) -> None:
    folder = open_folder(imagenet / "train", labelled=True)
    assert isinstance(folder, EncodedImages)
    for images in (folder, balanced, SyntheticImages(5, size=4), stratified(balanced, 0.1, seed=0)):
        again = pickle.loads(pickle.dumps(images))
        assert torch.equal(pixels_of(again, 4), pixels_of(images, 4))
        assert again.origin(4) == images.origin(4)
