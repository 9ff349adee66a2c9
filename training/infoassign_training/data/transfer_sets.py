"""The labelled data sets that encoders are transferred to, read from the files that they are published as.

torchvision reads most of them, too, but keeps the paths of the images to itself, does not say which file is missing,
and knows no split of SUN397 and Caltech-101. Classes are numbered as its are.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infoassign_training.data.folder import FolderImages, open_folder
from infoassign_training.data.images import ImagesError
from infoassign_training.data.listed_files import (
    first_file,
    lines_of,
    listed_images,
    matlab_file,
    pairs_of,
    place_of,
)
from infoassign_training.data.splits import Splits
from infoassign_training.data.subsets import per_class, rows_of

CALTECH_TRAINING = 30
"""Images of each class of Caltech-101 that are fitted on (Kornblith et al., 2019, table 1: 3060 of 102 classes)."""


def aircraft(where: Path) -> Splits:
    """FGVC-Aircraft, 100 variants: ``fgvc-aircraft-2013b/data/``.

    Raises
    ------
    ImagesError
        If it is not whole.
    """
    data = place_of(where, "fgvc-aircraft-2013b/data", "data")
    names = lines_of(data / "variants.txt")

    def part(split: str) -> FolderImages:
        path = data / f"images_variant_{split}.txt"
        found = [line.partition(" ") for line in lines_of(path)]
        return listed_images(
            data / "images",
            [f"{image}.jpg" for image, _, _ in found],
            _numbers([variant for _, _, variant in found], names, path),
            names,
        )

    return Splits(part("train"), part("test"), part("val"))


def cars(where: Path) -> Splits:
    """Stanford Cars, 196 models: ``stanford_cars/``.

    Raises
    ------
    ImagesError
        If it is not whole.
    """
    folder = place_of(where, "stanford_cars")
    devkit = folder / "devkit"
    (names,) = matlab_file(devkit / "cars_meta.mat", "class_names")
    # The devkit's own list of the test images has no classes; the one with them was published beside it.
    with_labels = "cars_test_annos_withlabels.mat"
    lists = {
        "cars_train": devkit / "cars_train_annos.mat",
        "cars_test": first_file(folder / with_labels, devkit / with_labels),
    }

    def part(split: str) -> FolderImages:
        (found,) = matlab_file(lists[split], "annotations")
        try:
            images, classes = [str(image) for image in found["fname"]], [int(number) - 1 for number in found["class"]]
        except (ValueError, IndexError) as error:
            raise ImagesError(f"the annotations in {lists[split]} have no fname and class") from error
        return listed_images(folder / split, images, classes, [str(name) for name in names])

    return Splits(part("cars_train"), part("cars_test"))


def dtd(where: Path) -> Splits:
    """Describable Textures, 47 of them, the first of ten splits: ``dtd/``.

    Raises
    ------
    ImagesError
        If it is not whole.
    """
    folder = place_of(where, "dtd/dtd", "dtd")
    listed = {split: lines_of(folder / "labels" / f"{split}1.txt") for split in ("train", "val", "test")}
    names = sorted({path.partition("/")[0] for paths in listed.values() for path in paths})

    def part(split: str) -> FolderImages:
        paths = listed[split]
        return listed_images(folder / "images", paths, [names.index(path.partition("/")[0]) for path in paths], names)

    return Splits(part("train"), part("test"), part("val"), "the first of the ten splits")


def flowers(where: Path) -> Splits:
    """Oxford's flowers, 102 kinds, which its files number and do not name: ``flowers-102/``.

    Raises
    ------
    ImagesError
        If it is not whole.
    """
    folder = place_of(where, "flowers-102")
    (labels,) = matlab_file(folder / "imagelabels.mat", "labels")
    train, validation, test = matlab_file(folder / "setid.mat", "trnid", "valid", "tstid")
    last = max(int(images.max()) for images in (train, validation, test))
    if last > len(labels):
        raise ImagesError(f"setid.mat in {folder} has image {last}, imagelabels.mat no more than {len(labels)}")
    names = [str(number) for number in range(1, int(labels.max()) + 1)]

    def part(images: Sequence[int]) -> FolderImages:
        # Counted from 1, as the classes are.
        classes = [int(labels[image - 1]) - 1 for image in images]
        return listed_images(folder / "jpg", [f"image_{image:05d}.jpg" for image in images], classes, names)

    return Splits(part(train.tolist()), part(test.tolist()), part(validation.tolist()))


def food101(where: Path) -> Splits:
    """Food-101, 101 dishes: ``food-101/``.

    Raises
    ------
    ImagesError
        If it is not whole.
    """
    folder = place_of(where, "food-101")
    listed = {split: _dishes(folder / "meta" / f"{split}.json") for split in ("train", "test")}
    names = sorted(listed["train"])

    def part(split: str) -> FolderImages:
        paths = [(name, f"{image}.jpg") for name, images in listed[split].items() for image in images]
        classes = _numbers([name for name, _ in paths], names, folder / "meta" / f"{split}.json")
        return listed_images(folder / "images", [path for _, path in paths], classes, names)

    return Splits(part("train"), part("test"))


def pets(where: Path) -> Splits:
    """Oxford-IIIT Pet, 37 breeds: ``oxford-iiit-pet/``.

    Raises
    ------
    ImagesError
        If it is not whole.
    """
    folder = place_of(where, "oxford-iiit-pet")
    listed = {split: _breeds(folder / "annotations" / f"{split}.txt") for split in ("trainval", "test")}
    names = [name for _, name in sorted({(number, image.rpartition("_")[0]) for image, number in listed["trainval"]})]

    def part(split: str) -> FolderImages:
        images, classes = zip(*listed[split], strict=True)
        return listed_images(folder / "images", [f"{image}.jpg" for image in images], classes, names)

    return Splits(part("trainval"), part("test"))


def sun397(where: Path) -> Splits:
    """SUN397, 397 scenes, the first of ten splits: ``SUN397/`` with what ``Partitions.zip`` unpacks to.

    Raises
    ------
    ImagesError
        If it is not whole.
    """
    folder = place_of(where, "SUN397")
    places = (folder, folder / "Partitions", folder.parent, folder.parent / "Partitions")
    scenes = lines_of(first_file(*(place / "ClassName.txt" for place in places)))

    def part(split: str) -> FolderImages:
        path = first_file(*(place / f"{split}_01.txt" for place in places))
        found = lines_of(path)
        classes = _numbers([image.rpartition("/")[0] for image in found], scenes, path)
        # Classes are named like /a/abbey: the letter is no part of the name, but of the path.
        return listed_images(folder, [image.lstrip("/") for image in found], classes, [name[3:] for name in scenes])

    return Splits(part("Training"), part("Testing"), note="the first of the ten splits")


def caltech101(where: Path, *, seed: int) -> Splits:
    """Caltech-101, 101 objects and the background images, which count as a class: ``caltech101/``.

    Of each class 30 images are fitted on and all others scored on. Which they are is drawn, unless `where` has the
    lists ``train.txt`` and ``test.txt`` that Ericsson et al. (2021) published (github.com/linusericsson/ssl-transfer;
    drawn with replacement, they have fewer of most classes).

    The background images are the 102nd class of both papers, and of those lists; torchvision leaves them out.

    Raises
    ------
    ImagesError
        If it is not whole, or a class has too few images.
    """
    folder = place_of(where, "caltech101/101_ObjectCategories", "101_ObjectCategories")
    if folder.name != "101_ObjectCategories":
        raise ImagesError(f"there is no folder 101_ObjectCategories in {where}")
    if not (folder / "BACKGROUND_Google").is_dir():
        raise ImagesError(f"there is no folder {folder / 'BACKGROUND_Google'}, whose images count as a class")
    images = open_folder(folder, labelled=True)
    if (where / "train.txt").is_file():
        note = f"the images that {where}/train.txt and test.txt list; BACKGROUND_Google is a class"
        train, test = (_listed(folder, where / f"{split}.txt", images.names) for split in ("train", "test"))
        return Splits(train, test, note=note)
    per_class(images, CALTECH_TRAINING + 1, seed=seed)  # at least one of each is left to score on
    rows = per_class(images, CALTECH_TRAINING, seed=seed)
    others = np.setdiff1d(np.arange(len(images)), rows)
    note = f"{CALTECH_TRAINING} images of each class, drawn with seed {seed}; BACKGROUND_Google is a class"
    return Splits(rows_of(images, rows), rows_of(images, others), note=note)


def _listed(folder: Path, path: Path, names: Sequence[str]) -> FolderImages:
    """Return the images of a list with lines like ``Faces/image_0029.jpg 1``."""
    pairs = pairs_of(path)
    return listed_images(folder, [image for image, _ in pairs], [number for _, number in pairs], names)


def _dishes(path: Path) -> dict[str, list[str]]:
    """Return the paths of the images by class."""
    try:
        listed: dict[str, list[str]] = json.loads("\n".join(lines_of(path)))
    except json.JSONDecodeError as error:
        raise ImagesError(f"{path} is no JSON: {error}") from error
    return listed


def _breeds(path: Path) -> list[tuple[str, int]]:
    """Return the images and their classes, from lines like ``Abyssinian_100 1 1 1``: image, breed, species, number."""
    lines = [line.split() for line in lines_of(path)]
    try:
        return [(words[0], int(words[1]) - 1) for words in lines]
    except (IndexError, ValueError) as error:
        raise ImagesError(f"{path}: expected lines like Abyssinian_100 1 1 1") from error


def _numbers(found: Sequence[str], names: Sequence[str], path: Path) -> list[int]:
    """Return the numbers of classes that a list has by name."""
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(found) - numbers.keys())
    if unknown:
        raise ImagesError(f"{path} has classes that are not among the {len(names)} known: {', '.join(unknown[:5])}")
    return [numbers[name] for name in found]
