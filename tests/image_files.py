"""Tiny images on disk, laid out as the real data sets are."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import scipy.io
from torchvision import datasets
from torchvision.datasets.utils import calculate_md5

CLASSES = ("n01440764", "n01443537", "n02102040")
VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def pixels(seed: int, height: int = 12, width: int = 16) -> np.ndarray[Any, Any]:
    """Smooth pixels (H, W, 3) that JPEG keeps well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BILINEAR))


def write_image(path: Path, seed: int, **shape: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels(seed, **shape)).save(path)


def write_imagenet(root: Path, per_class: int = 4) -> None:
    """train/ and val/ with a folder per class."""
    for split in ("train", "val"):
        for k, name in enumerate(CLASSES):
            for number in range(per_class):
                write_image(root / split / name / f"{name}_{number}.JPEG", seed=100 * k + number)


def write_cifar(root: Path, kind: Any, per_batch: int = 10) -> None:
    """Write what CIFAR's archive unpacks to; the checksums of `kind` (patched by the caller) are filled in."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    label = "fine_labels" if kind.__name__ == "CIFAR100" else "labels"
    for part in (*kind.train_list, *kind.test_list):
        images = np.random.default_rng(len(part[0])).integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        content = {"data": images, label: [number % 10 for number in range(per_batch)]}
        (folder / part[0]).write_bytes(pickle.dumps(content))
        part[1] = calculate_md5(folder / part[0])
    names = [f"class {k}" for k in range(100 if label == "fine_labels" else 10)]
    meta = folder / kind.meta["filename"]
    meta.write_bytes(pickle.dumps({kind.meta["key"]: names}))
    kind.meta["md5"] = calculate_md5(meta)


def write_svhn(root: Path, kind: Any, count: int = 10) -> None:
    """Write the .mat files, with class 10 for the digit 0."""
    root.mkdir(parents=True, exist_ok=True)
    for entry in kind.split_list.values():
        images = np.random.default_rng(len(entry[1])).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        scipy.io.savemat(root / entry[1], {"X": images, "y": np.arange(1, count + 1)[:, None]})
        entry[2] = calculate_md5(root / entry[1])


def write_stl(root: Path, kind: Any, count: int = 10) -> None:
    """Write the binary files, images in column order and classes from 1."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    for part in (*kind.train_list, *kind.test_list):
        size = count if part[0].endswith("_y.bin") else count * 3 * 96 * 96
        content = np.random.default_rng(len(part[0])).integers(0, 256, size, dtype=np.uint8)
        if part[0].endswith("_y.bin"):
            content = np.arange(1, count + 1, dtype=np.uint8)
        (folder / part[0]).write_bytes(content.tobytes())
        part[1] = calculate_md5(folder / part[0])
    (folder / kind.class_names_file).write_text("\n".join(f"thing {k}" for k in range(count)))


def write_parts(root: Path, *parts: str) -> None:
    """A folder per class in each part."""
    for k, part in enumerate(parts):
        for number, name in enumerate(("cat", "dog", "emu")):
            for image in range(2):
                write_image(root / part / name / f"{part}_{image}.png", seed=1000 + 100 * k + 10 * number + image)


def write_aircraft(root: Path) -> None:
    """FGVC-Aircraft: names with spaces and strokes, and two coarser levels of classes that are not read."""
    data = root / "fgvc-aircraft-2013b" / "data"
    variants = ("707-320", "Cessna 172", "F-16A/B")
    for k, split in enumerate(("train", "val", "test")):
        lines = []
        for number in range(3 + k):
            image = f"{34309 + 7 * number + k:07d}"
            write_image(data / "images" / f"{image}.jpg", seed=20 * k + number)
            lines.append(f"{image} {variants[(2 * number + k) % 3]}\n")
        (data / f"images_variant_{split}.txt").write_text("".join(lines))
        (data / f"images_family_{split}.txt").write_text("".join(lines))
    (data / "variants.txt").write_text("".join(f"{name}\n" for name in variants))


def write_caltech(root: Path) -> None:
    """Caltech-101: classes of different sizes, and what the archive has left in the background's folder."""
    folder = root / "caltech101" / "101_ObjectCategories"
    for k, (name, count) in enumerate((("BACKGROUND_Google", 33), ("Faces", 35), ("accordion", 31))):
        for number in range(1, count + 1):
            write_image(folder / name / f"image_{number:04d}.jpg", seed=100 * k + number, height=3, width=4)
    (folder / "BACKGROUND_Google" / "tmp").write_text("left behind")


def write_cars(root: Path) -> None:
    """Stanford Cars: structs in MATLAB files, classes from 1; the devkit's test list has no classes."""
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    lists = {"cars_train": folder / "devkit" / "cars_train_annos.mat"}
    lists["cars_test"] = folder / "cars_test_annos_withlabels.mat"
    for k, (split, path) in enumerate(lists.items()):
        rows = []
        for number in range(4 + k):
            write_image(folder / split / f"{number + 1:05d}.jpg", seed=10 * k + number)
            rows.append((1, 2, 14, 10, 1 + (number + k) % 2, f"{number + 1:05d}.jpg"))
        annotations = np.array([rows], dtype=[(field, object) for field in fields])[0]
        scipy.io.savemat(path, {"annotations": annotations})
    names = np.array(["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"], dtype=object)
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})


def write_dtd(root: Path) -> None:
    """Describable Textures: ten splits, of which two."""
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for k, split in enumerate(("train", "val", "test")):
        paths = [
            f"{name}/{name}_{10 * k + number:04d}.jpg" for name in ("banded", "zigzagged") for number in range(2 + k)
        ]
        for number, path in enumerate(paths):
            write_image(folder / "images" / path, seed=10 * k + number)
        (folder / "labels" / f"{split}1.txt").write_text("".join(f"{path}\n" for path in paths))
        (folder / "labels" / f"{split}2.txt").write_text("".join(f"{path}\n" for path in paths[::-1]))


def write_flowers(root: Path, kind: Any) -> None:
    """Oxford's flowers: classes and images from 1; the checksums of `kind` (patched by the caller) are filled in."""
    folder = root / "flowers-102"
    for number in range(1, 11):
        write_image(folder / "jpg" / f"image_{number:05d}.jpg", seed=number)
    labels = np.array([[3, 1, 2, 2, 1, 3, 1, 2, 3, 1]], dtype=np.uint8)
    ids = {"trnid": [[9, 2, 3]], "valid": [[1, 5]], "tstid": [[10, 4, 6, 7, 8]]}
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels})
    scipy.io.savemat(folder / "setid.mat", {name: np.array(value, dtype=np.uint16) for name, value in ids.items()})
    for part, file in (("label", "imagelabels.mat"), ("setid", "setid.mat")):
        kind._file_dict[part] = (file, calculate_md5(folder / file))


def write_food(root: Path) -> None:
    """Food-101: images by class in JSON."""
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for k, (split, count) in enumerate((("train", 3), ("test", 2))):
        listed = {
            name: [f"{name}/{1005 * (number + 1) + k}" for number in range(count)] for name in ("waffles", "apple_pie")
        }
        for number, path in enumerate(path for paths in listed.values() for path in paths):
            write_image(folder / "images" / f"{path}.jpg", seed=10 * k + number)
        (folder / "meta" / f"{split}.json").write_text(json.dumps(listed))


def write_pets(root: Path) -> None:
    """Oxford-IIIT Pet: classes from 1, numbered across cats and dogs."""
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for k, split in enumerate(("trainval", "test")):
        lines = []
        for number, name in enumerate(("Abyssinian", "american_bulldog", "Bengal")):
            for image in range(2 + k):
                write_image(folder / "images" / f"{name}_{100 * k + image}.jpg", seed=50 * k + 10 * number + image)
                lines.append(f"{name}_{100 * k + image} {number + 1} {2 if name.islower() else 1} 1\n")
        (folder / "annotations" / f"{split}.txt").write_text("".join(lines))


def write_sun(root: Path) -> None:
    """SUN397, with some classes a folder deeper, and an image that the first split does not list."""
    folder = root / "SUN397"
    scenes = ("/a/abbey", "/a/apartment_building/outdoor", "/c/church/indoor")
    for k, split in enumerate(("Training", "Testing")):
        paths = [f"{scene}/sun_{'abcd'[number]}{split}.jpg" for scene in scenes for number in range(2 + k)]
        for number, path in enumerate(paths):
            write_image(folder / path[1:], seed=10 * k + number)
        (folder / f"{split}_01.txt").write_text("".join(f"{path}\n" for path in paths))
    write_image(folder / "a" / "abbey" / "sun_unlisted.jpg", seed=77)
    (folder / "ClassName.txt").write_text("".join(f"{scene}\n" for scene in scenes))


def write_voc(root: Path) -> None:
    """VOC 2007: of each class whether an image has it (1), has not (-1), or only difficult ones (0)."""
    folder = root / "VOCdevkit" / "VOC2007"
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for k, (split, count) in enumerate((("train", 4), ("val", 3), ("test", 5))):
        images = [f"{100 * k + number:06d}" for number in range(count)]
        for number, image in enumerate(images):
            write_image(folder / "JPEGImages" / f"{image}.jpg", seed=20 * k + number)
        (lists / f"{split}.txt").write_text("".join(f"{image}\n" for image in images))
        for number, name in enumerate(VOC_CLASSES):
            tags = [(-1, 1, 0)[(number + row + k) % 3] for row in range(count)]
            lines = [f"{image} {tag:2d}\n" for image, tag in zip(images, tags, strict=True)]
            (lists / f"{name}_{split}.txt").write_text("".join(lines))


def write_places205(root: Path) -> None:
    """Places-205: numbered classes, which the paths name, some a folder deeper."""
    images = root / "data" / "vision" / "torralba" / "deeplearning" / "images256"
    (root / "trainvalsplit_places205").mkdir()
    for k, (split, count) in enumerate((("train", 3), ("val", 1))):
        lines = [
            f"{scene}/gsun_{split}{number}.jpg {label}\n"
            for number in range(count)
            for label, scene in enumerate(("a/abbey", "a/apartment_building/outdoor", "b/bar"))
        ]
        for number, line in enumerate(lines):
            write_image(images / line.split()[0], seed=20 * k + number)
        (root / "trainvalsplit_places205" / f"{split}_places205.csv").write_text("".join(lines))


def write_places365(root: Path) -> None:
    """Places-365, small images: those of the validation lie in one folder."""
    scenes = ("/a/airfield", "/b/bar", "/f/field/wild")
    train = [(f"{scene}/{number:08d}.jpg", label) for label, scene in enumerate(scenes) for number in range(1, 3)]
    val = [(f"Places365_val_{number + 1:08d}.jpg", (2 * number) % 3) for number in range(4)]
    for seed, (path, _) in enumerate(train):
        write_image(root / "data_256_standard" / path[1:], seed=seed)
    for seed, (path, _) in enumerate(val, start=50):
        write_image(root / "val_256" / path, seed=seed)
    lists = {"categories_places365": [(scene, label) for label, scene in enumerate(scenes)]}
    lists |= {"places365_train_standard": train, "places365_val": val}
    for name, pairs in lists.items():
        (root / f"{name}.txt").write_text("".join(f"{path} {label}\n" for path, label in pairs))


KINDS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN", "stl10": "STL10", "flowers": "Flowers102"}
WRITERS: dict[str, Callable[..., None]] = {
    "cifar10": write_cifar,
    "cifar100": write_cifar,
    "svhn": write_svhn,
    "stl10": write_stl,
    "imagenet": write_imagenet,
    "places205": write_places205,
    "places365": write_places365,
    "aircraft": write_aircraft,
    "caltech101": write_caltech,
    "cars": write_cars,
    "dtd": write_dtd,
    "flowers": write_flowers,
    "food101": write_food,
    "pets": write_pets,
    "sun397": write_sun,
    "voc2007": write_voc,
}


def lay_out(name: str, root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Write a set by name; torchvision is told the checksums of what is made up."""
    kinds = [getattr(datasets, KINDS[name])] if name in KINDS else []
    for kind in kinds:
        for field in ("train_list", "test_list", "meta", "split_list", "_file_dict"):
            if hasattr(kind, field):
                monkeypatch.setattr(kind, field, copy.deepcopy(getattr(kind, field)))
    WRITERS[name](root, *kinds, **options)
