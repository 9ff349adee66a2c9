"""The sets that encoders are evaluated on: their parts, classes and metrics, and what is told of those not whole."""

import pickle
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import image_files
import numpy as np
import pytest
import scipy.io
import torch
from image_files import VOC_CLASSES, write_image
from torchvision import datasets
from torchvision.transforms.v2 import functional as transforms

from infoassign_training.data.benchmark_layouts import SETS, TRANSFER
from infoassign_training.data.benchmarks import Benchmark, open_benchmark
from infoassign_training.data.digits import digit_images, digits
from infoassign_training.data.evaluation_views import centred, in_order
from infoassign_training.data.folder import open_folder
from infoassign_training.data.images import ArrayImages, Images, ImagesError, TaggedImages
from infoassign_training.data.joined import joined
from infoassign_training.data.packed import pack
from infoassign_training.data.subsets import Selection, listed, per_class, rows_of


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Lay out a set by name."""

    def written(name: str) -> Path:
        root = tmp_path / "root"
        root.mkdir()
        image_files.lay_out(name, root, monkeypatch)
        return root

    return written


def parts(benchmark: Benchmark) -> list[Images]:
    return [part for part in (benchmark.train, benchmark.validation, benchmark.test) if part is not None]


def origins(images: Images) -> list[str]:
    return [images.origin(i) for i in range(len(images))]


def pixels_of(images: Images, index: int) -> torch.Tensor:
    image = images.image(index)
    return image if isinstance(image, torch.Tensor) else transforms.pil_to_tensor(image)


# Of what is written: images to fit on, to choose settings on and to score on; classes; what counts.
EXPECTED = {
    "cifar10": (50, None, 10, 10, "top-1"),
    "cifar100": (10, None, 10, 100, "top-1"),
    "svhn": (10, None, 10, 10, "top-1"),
    "stl10": (10, None, 10, 10, "top-1"),
    "imagenet": (12, None, 12, 3, "top-1"),
    "places205": (9, None, 3, 3, "top-1"),
    "places365": (6, None, 4, 3, "top-1"),
    "aircraft": (3, 4, 5, 3, "mean-per-class"),
    "caltech101": (90, None, 9, 3, "mean-per-class"),
    "cars": (4, None, 5, 2, "top-1"),
    "dtd": (4, 6, 8, 2, "top-1"),
    "flowers": (3, 2, 5, 3, "mean-per-class"),
    "food101": (6, None, 4, 2, "top-1"),
    "pets": (6, None, 9, 3, "mean-per-class"),
    "sun397": (6, None, 9, 3, "top-1"),
    "voc2007": (4, 3, 5, 20, "11-point-map"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_set_has_its_parts_and_its_metric(write: Callable[[str], Path], name: str) -> None:
    benchmark = open_benchmark(f"{name}:{write(name)}")
    train, validation, test, classes, metric = EXPECTED[name]
    assert (benchmark.name, benchmark.metric) == (name, metric)
    assert (len(benchmark.train), len(benchmark.test)) == (train, test)
    assert (None if benchmark.validation is None else len(benchmark.validation)) == validation
    for part in parts(benchmark):
        assert part.names == benchmark.train.names
        assert len(set(part.names)) == classes
        if name != "voc2007":
            assert part.classes is not None
            assert (part.classes.dtype, part.classes.shape) == (np.int64, (len(part),))
            assert 0 <= part.classes.min() <= part.classes.max() < classes
        again = pickle.loads(pickle.dumps(part))
        assert origins(again) == origins(part)
        for index in (0, len(part) - 1):
            assert pixels_of(part, index).dtype == torch.uint8
            assert torch.equal(pixels_of(again, index), pixels_of(part, index))


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in image_files.KINDS or name == "flowers"])
def test_no_image_is_in_two_parts(write: Callable[[str], Path], name: str) -> None:
    root = write(name)
    for a, b in combinations(parts(open_benchmark(f"{name}:{root}")), 2):
        files = [{str(path_of(part, i)) for i in range(len(part))} for part in (a, b)]
        assert [len(paths) for paths in files] == [len(a), len(b)]
        assert not files[0] & files[1]


def path_of(images: Images, index: int) -> Path:
    source: Any = images.source if isinstance(images, Selection) else images
    path: Path = source.root / images.origin(index)
    assert path.is_file()
    return path


def test_transfer_and_all_sets_are_known() -> None:
    assert len(TRANSFER) == 11
    assert set(TRANSFER) < set(SETS)
    assert set(EXPECTED) | {"digits", "folder", "packed"} == set(SETS)


ORACLES: dict[str, Callable[[Path, str], Any]] = {
    "aircraft": lambda root, split: datasets.FGVCAircraft(root, split),
    "cars": lambda root, split: datasets.StanfordCars(root, split),
    "dtd": lambda root, split: datasets.DTD(root, split),
    "flowers": lambda root, split: datasets.Flowers102(root, split),
    "food101": lambda root, split: datasets.Food101(root, split),
    "pets": lambda root, split: datasets.OxfordIIITPet(root, {"train": "trainval"}.get(split, split)),
}


@pytest.mark.parametrize("name", ORACLES)
def test_images_and_classes_are_those_that_torchvision_reads(write: Callable[[str], Path], name: str) -> None:
    root = write(name)
    benchmark = open_benchmark(f"{name}:{root}")
    for split, part in (("train", benchmark.train), ("val", benchmark.validation), ("test", benchmark.test)):
        if part is None:
            continue
        theirs = ORACLES[name](root, split)
        assert part.classes is not None
        assert len(part) == len(theirs)
        assert part.classes.tolist() == [theirs[i][1] for i in range(len(theirs))]
        for i in range(len(theirs)):
            assert torch.equal(pixels_of(part, i), transforms.pil_to_tensor(theirs[i][0]))
        if name not in ("flowers", "pets"):  # theirs have names from elsewhere, and others' capitals
            assert list(part.names) == theirs.classes


def test_scenes_are_numbered_as_torchvision_does(write: Callable[[str], Path]) -> None:
    root = write("sun397")
    benchmark, theirs = open_benchmark(f"sun397:{root}"), datasets.SUN397(root)
    classes = {str(path): number for path, number in zip(theirs._image_files, theirs._labels, strict=True)}
    assert list(benchmark.train.names) == theirs.classes == ["abbey", "apartment_building/outdoor", "church/indoor"]
    for part in (benchmark.train, benchmark.test):
        assert part.classes is not None
        assert part.classes.tolist() == [classes[str(path_of(part, i))] for i in range(len(part))]
    assert "first of the ten splits" in benchmark.note


def test_places_are_named_by_their_folders(write: Callable[[str], Path]) -> None:
    benchmark = open_benchmark(f"places205:{write('places205')}")
    assert benchmark.train.names == ("abbey", "apartment_building/outdoor", "bar")
    assert benchmark.train.classes is not None
    assert benchmark.train.classes.tolist() == [0, 1, 2] * 3
    assert origins(benchmark.test)[1] == "a/apartment_building/outdoor/gsun_val0.jpg"


@pytest.mark.parametrize(
    ("name", "files", "folder"),
    [
        ("places205", "trainvalsplit_places205/*.csv", "."),
        ("sun397", "SUN397/*.txt", "SUN397/Partitions"),
        ("sun397", "SUN397/*.txt", "Partitions"),
        ("cars", "stanford_cars/cars_test_annos_withlabels.mat", "stanford_cars/devkit"),
    ],
)
def test_lists_may_lie_where_else_they_are_unpacked(
    write: Callable[[str], Path], name: str, files: str, folder: str
) -> None:
    root = write(name)
    before = open_benchmark(f"{name}:{root}")
    (root / folder).mkdir(exist_ok=True)
    for path in list(root.glob(files)):
        path.rename(root / folder / path.name)
    after = open_benchmark(f"{name}:{root}")
    assert origins(after.train) == origins(before.train)
    assert origins(after.test) == origins(before.test)


def test_small_places_are_those_of_places365(write: Callable[[str], Path]) -> None:
    benchmark = open_benchmark(f"places365:{write('places365')}")
    assert benchmark.test.names == ("airfield", "bar", "field/wild")
    assert benchmark.test.classes is not None
    assert benchmark.test.classes.tolist() == [0, 2, 1, 0]
    assert origins(benchmark.train)[0] == "a/airfield/00000001.jpg"


# The folder of a set's own, which may be named in place of the one it lies in.
OWN = {
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "stl10": "stl10_binary",
    "aircraft": "fgvc-aircraft-2013b",
    "caltech101": "caltech101",
    "cars": "stanford_cars",
    "dtd": "dtd",
    "flowers": "flowers-102",
    "food101": "food-101",
    "pets": "oxford-iiit-pet",
    "sun397": "SUN397",
    "voc2007": "VOCdevkit",
}


@pytest.mark.parametrize("name", OWN)
def test_the_folder_itself_may_be_named(write: Callable[[str], Path], name: str) -> None:
    root = write(name)
    deeper = {"dtd": ["dtd/dtd"], "voc2007": ["VOCdevkit/VOC2007"], "caltech101": ["caltech101/101_ObjectCategories"]}
    whole = open_benchmark(f"{name}:{root}")
    for folder in (OWN[name], *deeper.get(name, [])):
        again = open_benchmark(f"{name}:{root / folder}")
        for ours, theirs in zip(parts(whole), parts(again), strict=True):
            assert origins(ours) == origins(theirs)
            assert torch.equal(pixels_of(ours, 0), pixels_of(theirs, 0))


VOC_LISTS = "VOCdevkit/VOC2007/ImageSets/Main"
REQUIRED = {
    "cifar10": ["cifar-10-batches-py", "cifar-10-batches-py/data_batch_3", "cifar-10-batches-py/batches.meta"],
    "cifar100": ["cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta"],
    "svhn": ["train_32x32.mat", "test_32x32.mat"],
    "stl10": ["stl10_binary", "stl10_binary/test_X.bin", "stl10_binary/class_names.txt"],
    "imagenet": ["train", "val", "train/n01443537", "val/n01443537"],
    "places205": [
        "data",
        "data/vision/torralba/deeplearning/images256",
        "trainvalsplit_places205",
        "trainvalsplit_places205/train_places205.csv",
        "trainvalsplit_places205/val_places205.csv",
    ],
    "places365": [
        "data_256_standard",
        "val_256",
        "categories_places365.txt",
        "places365_train_standard.txt",
        "places365_val.txt",
    ],
    "aircraft": [
        "fgvc-aircraft-2013b",
        *(
            f"fgvc-aircraft-2013b/data/{part}"
            for part in (
                "images",
                "variants.txt",
                "images_variant_train.txt",
                "images_variant_val.txt",
                "images_variant_test.txt",
            )
        ),
    ],
    "caltech101": ["caltech101", "caltech101/101_ObjectCategories/BACKGROUND_Google"],
    "cars": [
        "stanford_cars",
        "stanford_cars/cars_train",
        "stanford_cars/cars_test",
        "stanford_cars/devkit/cars_meta.mat",
        "stanford_cars/devkit/cars_train_annos.mat",
        "stanford_cars/cars_test_annos_withlabels.mat",
    ],
    "dtd": ["dtd", "dtd/dtd/images", *(f"dtd/dtd/labels/{split}1.txt" for split in ("train", "val", "test"))],
    "flowers": ["flowers-102", "flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"],
    "food101": ["food-101", "food-101/images", "food-101/meta/train.json", "food-101/meta/test.json"],
    "pets": [
        "oxford-iiit-pet",
        "oxford-iiit-pet/images",
        "oxford-iiit-pet/annotations/trainval.txt",
        "oxford-iiit-pet/annotations/test.txt",
    ],
    "sun397": ["SUN397", "SUN397/a", "SUN397/ClassName.txt", "SUN397/Training_01.txt", "SUN397/Testing_01.txt"],
    "voc2007": [
        "VOCdevkit",
        "VOCdevkit/VOC2007/JPEGImages",
        *(f"{VOC_LISTS}/{file}.txt" for file in ("train", "val", "test", "aeroplane_train", "sofa_val", "bus_test")),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_missing_is_told_with_the_layout(write: Callable[[str], Path], name: str) -> None:
    root = write(name)
    away = root.parent / "away"
    for part in REQUIRED[name]:
        (root / part).rename(away)
        with pytest.raises(ImagesError) as told:
            open_benchmark(f"{name}:{root}")
        away.rename(root / part)
        message = str(told.value)
        assert message.endswith(f"{name}:WHERE expects {SETS[name]}")
        assert Path(part).name in message, (part, message)
        assert "\n" not in message
    with pytest.raises(ImagesError, match=rf"nowhere.*{name}:WHERE expects"):
        open_benchmark(f"{name}:{root}/nowhere")
    open_benchmark(f"{name}:{root}")


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt", "0034309 A380\n", "classes that are not.*A380"),
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt", "\n", "variants.txt is empty"),
        ("cars", "stanford_cars/devkit/cars_train_annos.mat", "", "cars_train_annos.mat cannot be read"),
        (
            "cars",
            "stanford_cars/devkit/cars_meta.mat",
            "no MATLAB file, but long enough to be one" * 9,
            "cannot be read",
        ),
        ("food101", "food-101/meta/test.json", "{", "test.json is no JSON"),
        ("food101", "food-101/meta/test.json", '{"sushi": ["sushi/1"]}', "classes that are not.*sushi"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "Abyssinian_100\n", "test.txt: expected lines like"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "Bengal_100 38 1 1\n", "of class 37; there are 3"),
        ("sun397", "SUN397/Testing_01.txt", "/z/zoo/sun_a.jpg\n", "classes that are not.*/z/zoo"),
        ("places205", "trainvalsplit_places205/train_places205.csv", "a/abbey/gsun_0.jpg\n", "line 1: expected a name"),
        (
            "places205",
            "trainvalsplit_places205/train_places205.csv",
            "a/abbey/x.jpg 1\n",
            "does not number its 1 folders",
        ),
        ("places365", "places365_val.txt", "Places365_val_00000001.jpg 3\n", "of class 3; there are 3"),
        ("voc2007", f"{VOC_LISTS}/cat_val.txt", "000100 -1\n", "cat_val.txt does not list the 3 images of val.txt"),
        ("voc2007", f"{VOC_LISTS}/cat_val.txt", "000100 2\n000101 1\n000102 1\n", "expected 1, 0 or -1.*got 2"),
        ("dtd", "dtd/dtd/labels/val1.txt", "banded/gone.jpg\n", "there is no image .*gone.jpg"),
    ],
)
def test_lists_that_make_no_sense_are_told(
    write: Callable[[str], Path], name: str, file: str, text: str, message: str
) -> None:
    root = write(name)
    (root / file).write_text(text)
    with pytest.raises(ImagesError, match=rf"{message}.*{name}:WHERE expects"):
        open_benchmark(f"{name}:{root}")


def test_flowers_without_labels_are_told(write: Callable[[str], Path]) -> None:
    root = write("flowers")
    scipy.io.savemat(root / "flowers-102/imagelabels.mat", {"labels": np.array([[1, 2, 3]], dtype=np.uint8)})
    with pytest.raises(ImagesError, match=r"setid\.mat in .* has image 10, imagelabels\.mat no more than 3"):
        open_benchmark(f"flowers:{root}")
    scipy.io.savemat(root / "flowers-102/imagelabels.mat", {"classes": np.array([[1, 2, 3]], dtype=np.uint8)})
    with pytest.raises(ImagesError, match=r"imagelabels\.mat has no variable 'labels'"):
        open_benchmark(f"flowers:{root}")


@pytest.mark.deep
@pytest.mark.filterwarnings(
    "ignore:This process.*is multi-threaded:DeprecationWarning", "ignore:os.fork:RuntimeWarning"
)
@pytest.mark.parametrize("name", ["voc2007", "caltech101", "cifar10"])
def test_worker_processes_see_the_same_images(write: Callable[[str], Path], name: str) -> None:
    benchmark = open_benchmark(f"{name}:{write(name)}")
    for images in (benchmark.test, joined(*parts(benchmark))):
        alone, helped = (
            list(in_order(images, centred(8, 8), range(len(images)), batch_size=7, workers=workers, context="fork"))
            for workers in (0, 2)
        )
        for (ours, rows), (theirs, numbers) in zip(alone, helped, strict=True):
            assert torch.equal(ours, theirs)
            assert torch.equal(rows, numbers)


# Caltech-101


def test_caltech_is_drawn_by_the_seed(write: Callable[[str], Path]) -> None:
    root = write("caltech101")
    first, again, other = (open_benchmark(f"caltech101:{root}", seed=seed) for seed in (0, 0, 1))
    assert first.train.names == ("BACKGROUND_Google", "Faces", "accordion")
    assert first.train.classes is not None
    assert first.test.classes is not None
    assert np.bincount(first.train.classes).tolist() == [30, 30, 30]
    assert np.bincount(first.test.classes).tolist() == [3, 5, 1]
    assert origins(first.train) == origins(again.train)
    assert origins(first.train) != origins(other.train)
    assert "30 images of each class, drawn with seed 0" in first.note
    assert "BACKGROUND_Google" in first.note


def test_published_lists_of_caltech_are_followed(write: Callable[[str], Path]) -> None:
    root = write("caltech101")
    (root / "train.txt").write_text("Faces/image_0003.jpg 1\nBACKGROUND_Google/image_0002.jpg 0\n")
    with pytest.raises(ImagesError, match=r"test\.txt cannot be read"):
        open_benchmark(f"caltech101:{root}")
    (root / "test.txt").write_text("accordion/image_0001.jpg 2\n")
    benchmark = open_benchmark(f"caltech101:{root}")
    assert origins(benchmark.train) == ["Faces/image_0003.jpg", "BACKGROUND_Google/image_0002.jpg"]
    assert benchmark.test.classes is not None
    assert benchmark.test.classes.tolist() == [2]
    assert "list" in benchmark.note


def test_a_class_of_caltech_that_is_too_small_is_named(write: Callable[[str], Path]) -> None:
    root = write("caltech101")
    (root / "caltech101/101_ObjectCategories/accordion/image_0031.jpg").unlink()
    with pytest.raises(ImagesError, match=r"accordion .* fewer than 31 images"):
        open_benchmark(f"caltech101:{root}")


# VOC 2007


def test_voc_says_which_classes_are_present_absent_and_difficult(write: Callable[[str], Path]) -> None:
    benchmark = open_benchmark(f"voc2007:{write('voc2007')}")
    for k, part in enumerate(parts(benchmark)):
        assert isinstance(part, TaggedImages)
        assert part.classes is None
        assert part.names == VOC_CLASSES
        assert part.presence.dtype == np.int8
        # As written: -1, 1 and 0 in turn, for absent, present and difficult.
        written = [[(0, 1, -1)[(number + row + k) % 3] for number in range(20)] for row in range(len(part))]
        assert part.presence.tolist() == written
    assert origins(benchmark.test) == [f"{200 + number:06d}.jpg" for number in range(5)]


def test_voc_has_the_images_that_torchvision_reads(write: Callable[[str], Path]) -> None:
    root = write("voc2007")
    benchmark = open_benchmark(f"voc2007:{root}")
    for split, part in zip(("train", "val", "test"), parts(benchmark), strict=True):
        theirs = datasets.VOCDetection(root, year="2007", image_set=split)
        assert [str(path_of(part, i)) for i in range(len(part))] == theirs.images


# One's own


@pytest.mark.parametrize(
    ("written", "validation", "test"),
    [(("train", "val"), None, "val"), (("train", "test"), None, "test"), (("train", "val", "test"), "val", "test")],
)
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_ones_own_images(
    tmp_path: Path, written: tuple[str, ...], validation: str | None, test: str, bare: bool, packed: bool
) -> None:
    image_files.write_parts(tmp_path / "files", *written)
    root = tmp_path / ("packed" if packed else "files")
    if packed:
        for part in written:
            pack(open_folder(tmp_path / "files" / part, labelled=True), root / part, size=256, quality=90)
    benchmark = open_benchmark(f"{root}" if bare else f"{root.name.replace('files', 'folder')}:{root}")
    assert benchmark.name == ("packed" if packed else "folder")
    assert origins(benchmark.train)[0] == "cat/train_0.png"
    assert origins(benchmark.test)[0] == f"cat/{test}_0.png"
    assert (benchmark.validation and origins(benchmark.validation)[0]) == (validation and f"cat/{validation}_0.png")
    assert f"{test}/" in benchmark.note
    assert benchmark.test.classes is not None
    assert benchmark.test.classes.tolist() == [0, 0, 1, 1, 2, 2]


def test_classes_are_numbered_as_in_training(tmp_path: Path) -> None:
    image_files.write_parts(tmp_path, "train", "val")
    (tmp_path / "val" / "cat").rename(tmp_path / "gone")
    test = open_benchmark(f"folder:{tmp_path}").test
    assert test.names == ("cat", "dog", "emu")
    assert test.classes is not None
    assert test.classes.tolist() == [1, 1, 2, 2]
    (tmp_path / "train" / "dog").rename(tmp_path / "gone" / "dog")
    with pytest.raises(ImagesError, match=r"val has classes that .*train has not: dog \(1 in all\); folder:WHERE"):
        open_benchmark(f"folder:{tmp_path}")


@pytest.mark.parametrize("name", ["folder", "packed"])
def test_a_part_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImagesError, match=rf"neither .*val nor .*test; {name}:WHERE expects"):
        open_benchmark(f"{name}:{tmp_path}")
    (tmp_path / "val").mkdir()
    with pytest.raises(ImagesError, match=rf"train.*{name}:WHERE expects"):
        open_benchmark(f"{name}:{tmp_path}")


def test_packed_images_need_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "files" / "1.jpg", 0)
    for part in ("train", "val"):
        pack(open_folder(tmp_path / "files", labelled=False), tmp_path / "packed" / part, size=8, quality=90)
    with pytest.raises(ImagesError, match="train have no classes; packed:WHERE"):
        open_benchmark(f"packed:{tmp_path}/packed")


def test_digits_need_no_files() -> None:
    benchmark = open_benchmark("digits")
    train, held_out = (digit_images(part) for part in digits())
    assert isinstance(benchmark.train, ArrayImages)
    assert isinstance(benchmark.test, ArrayImages)
    assert np.array_equal(benchmark.train.pixels, train.pixels)
    assert np.array_equal(benchmark.test.pixels, held_out.pixels)
    assert (benchmark.validation, benchmark.metric) == (None, "top-1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cifer10:/data", "no benchmark and no folder 'cifer10:/data'; did you mean cifar10[?] There are folder:WHERE"),
        ("Aircrafts:/data", "did you mean aircraft"),
        ("/no/such/folder", "no folder '/no/such/folder'"),
        ("cifar10", "where is cifar10[?] cifar10:WHERE expects WHERE/cifar-10-batches-py/"),
        ("digits:/data", "digits is in no place"),
    ],
)
def test_unknown_names_are_told_with_the_nearest(words: str, message: str) -> None:
    with pytest.raises(ImagesError, match=message):
        open_benchmark(words)


# Lists, draws and joins


@pytest.fixture
def imagenet(tmp_path: Path) -> Images:
    image_files.write_imagenet(tmp_path)
    return open_folder(tmp_path / "train", labelled=True)


def test_listed_images_are_kept(imagenet: Images, tmp_path: Path) -> None:
    path = tmp_path / "1percent.txt"
    path.write_text("n02102040_1.JPEG\nn01440764_3.JPEG\n\nn01443537/n01443537_0.JPEG\n")
    kept = listed(imagenet, path)
    assert origins(kept) == [
        "n01440764/n01440764_3.JPEG",
        "n01443537/n01443537_0.JPEG",
        "n02102040/n02102040_1.JPEG",
    ]
    assert kept.classes is not None
    assert kept.classes.tolist() == [0, 1, 2]
    assert kept.names == imagenet.names
    assert torch.equal(pixels_of(kept, 0), pixels_of(imagenet, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n01440764_3.JPEG\nn9_1.JPEG\nn9_2.JPEG\n", "2 of 3 images are not among the 12: n9_1.JPEG, n9_2.JPEG"),
        ("n01440764_3.JPEG\nn01440764/n01440764_3.JPEG\n", "lists n01440764/n01440764_3.JPEG more than once"),
        ("\n", "is empty"),
    ],
)
def test_lists_of_other_images_are_refused(imagenet: Images, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ImagesError, match=message):
        listed(imagenet, path)
    with pytest.raises(ImagesError, match=r"nowhere\.txt cannot be read: No such file"):
        listed(imagenet, tmp_path / "nowhere.txt")


def test_packed_images_are_listed_by_the_paths_they_were_packed_from(imagenet: Images, tmp_path: Path) -> None:
    images = pack(imagenet, tmp_path / "packed", size=256, quality=90)
    path = tmp_path / "list.txt"
    path.write_text("n02102040_1.JPEG\nn01440764_3.JPEG\n")
    assert origins(listed(images, path)) == origins(listed(imagenet, path))


def test_names_that_several_images_have_need_their_folders(tmp_path: Path) -> None:
    for folder in "ab":
        write_image(tmp_path / "images" / folder / "1.jpg", 0)
    images = open_folder(tmp_path / "images", labelled=True)
    path = tmp_path / "list.txt"
    path.write_text("1.jpg\n")
    with pytest.raises(ImagesError, match=r"1\.jpg may be several"):
        listed(images, path)
    path.write_text("b/1.jpg\n")
    assert origins(listed(images, path)) == ["b/1.jpg"]


def test_as_many_of_each_class_are_drawn(imagenet: Images) -> None:
    assert imagenet.classes is not None
    one, three = (per_class(imagenet, count, seed=0) for count in (1, 3))
    assert set(one) < set(three)
    assert np.bincount(imagenet.classes[three]).tolist() == [3, 3, 3]
    assert three.tolist() == sorted(three)
    with pytest.raises(ImagesError, match=r"n01440764, .* \(3 classes in all\) have fewer than 5"):
        per_class(imagenet, 5, seed=0)
    with pytest.raises(ValueError, match="at least 1; got 0"):
        per_class(imagenet, 0, seed=0)


def test_tags_go_with_their_images(write: Callable[[str], Path]) -> None:
    benchmark = open_benchmark(f"voc2007:{write('voc2007')}")
    train, validation, _ = parts(benchmark)
    assert isinstance(train, TaggedImages)
    assert isinstance(validation, TaggedImages)
    both = joined(train, validation)
    assert isinstance(both, TaggedImages)
    assert np.array_equal(both.presence, np.concatenate([train.presence, validation.presence]))
    assert both.classes is None
    assert both.names == VOC_CLASSES
    some = rows_of(both, np.array([5, 0]))
    assert isinstance(some, TaggedImages)
    assert np.array_equal(some.presence, both.presence[[5, 0]])
    assert origins(some) == [validation.origin(1), train.origin(0)]
    assert isinstance(pickle.loads(pickle.dumps(some)), TaggedImages)
    assert not isinstance(digit_images(digits()[0]), TaggedImages)


def test_joined_sources_are_one_after_another(write: Callable[[str], Path]) -> None:
    benchmark = open_benchmark(f"dtd:{write('dtd')}")
    assert benchmark.validation is not None
    both = joined(benchmark.train, benchmark.validation)
    assert len(both) == 10
    assert origins(both) == origins(benchmark.train) + origins(benchmark.validation)
    assert both.classes is not None
    assert both.classes.tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1, 1]
    for index in (0, 3, 4, 9):
        source = benchmark.train if index < 4 else benchmark.validation
        assert torch.equal(pixels_of(both, index), pixels_of(source, index if index < 4 else index - 4))
    with pytest.raises(IndexError, match="10 images; got 10"):
        both.image(10)


def test_sources_of_different_classes_are_not_joined(imagenet: Images, write: Callable[[str], Path]) -> None:
    voc = open_benchmark(f"voc2007:{write('voc2007')}").train
    with pytest.raises(ImagesError, match=r"cannot be joined: 3 \(n01440764.*and 10 \(0, 1, 2, \.\.\.\)"):
        joined(imagenet, digit_images(digits()[0]))
    with pytest.raises(ImagesError, match="one class and with any number"):
        joined(voc, ArrayImages("x", np.zeros((1, 3, 2, 2), np.uint8), np.zeros(1, np.int64), VOC_CLASSES))
    with pytest.raises(ValueError, match="no sources"):
        joined()
    unknown = ArrayImages("x", np.zeros((1, 3, 2, 2), np.uint8))
    assert joined(unknown, unknown).classes is None
