"""The data sets that torchvision reads, by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from infoassign_training.data.folder import FolderImages, open_folder
from infoassign_training.data.images import ArrayImages, ImagesError
from infoassign_training.data.splits import Splits

WNID = re.compile(r"n\d{8}")
"""A WordNet number, as ImageNet's class folders are named."""

_SPLITS = {
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "svhn": ("train", "test", "extra"),
    "stl10": ("train", "test", "unlabeled", "train+unlabeled"),
    "imagenet": ("train", "val"),
}
_FOLDERS = {
    "cifar10": datasets.CIFAR10.base_folder,
    "cifar100": datasets.CIFAR100.base_folder,
    "stl10": datasets.STL10.base_folder,
}
_NOTES = {
    "imagenet": "scored on the validation images, as those of the test have no public classes",
    "svhn": "fitted on train without extra",
    "stl10": "fitted on all 5000 labelled images of train, not on the ten folds of 1000",
}


def open_torchvision(name: str, root: str | Path, split: str, *, download: bool = False) -> ArrayImages | FolderImages:
    """Open one of torchvision's data sets: cifar10, cifar100, svhn, stl10 or imagenet.

    Parameters
    ----------
    name
        Which.
    root
        The folder that holds what its archive unpacks to: ``cifar-10-batches-py/``, ``cifar-100-python/``,
        ``train_32x32.mat``, ``stl10_binary/``, or ImageNet's ``train/`` and ``val/`` with a folder per class in each.
    split
        train or test; of svhn also extra, of stl10 also unlabeled and train+unlabeled (neither has classes), of
        imagenet train or val.
    download
        Whether to get what is missing, which ImageNet's terms do not allow.

    Returns
    -------
    ArrayImages or FolderImages
        ImageNet's classes are named by their WordNet numbers, as its folders are; its images come in the order of
        torchvision's, and neither its development kit nor its archives are needed.

    Raises
    ------
    ImagesError
        If there is no such data set or split, or files are missing or damaged; the message says which, and how to
        get them.
    """
    if name not in _SPLITS:
        raise ImagesError(f"there is no data set {name!r}; there are {', '.join(_SPLITS)}")
    if split not in _SPLITS[name]:
        raise ImagesError(f"{name} has no split {split!r}; it has {', '.join(_SPLITS[name])}")
    folder = Path(root)
    if name == "imagenet":
        return _imagenet(folder, split, download=download)
    readers: dict[str, Callable[[Path, str, bool], ArrayImages]] = {
        "cifar10": _cifar10,
        "cifar100": _cifar100,
        "svhn": _svhn,
        "stl10": _stl10,
    }
    return readers[name](folder, split, download)


def open_splits(name: str, where: str | Path) -> Splits:
    """Open what is fitted on and what is scored on: train and test, or of imagenet train and val.

    Parameters
    ----------
    name
        As for :func:`open_torchvision`.
    where
        Its root, or the folder that the archive unpacks to in it.

    Raises
    ------
    ImagesError
        As :func:`open_torchvision` does.
    """
    root = Path(where).absolute()
    if root.name == _FOLDERS.get(name):
        root = root.parent
    train, test = (open_torchvision(name, root, split) for split in _SPLITS[name][:2])
    return Splits(train, test, note=_NOTES.get(name, ""))


def _cifar10(root: Path, split: str, download: bool) -> ArrayImages:
    return _cifar(datasets.CIFAR10, root, split, download)


def _cifar100(root: Path, split: str, download: bool) -> ArrayImages:
    return _cifar(datasets.CIFAR100, root, split, download)


def _cifar(kind: Any, root: Path, split: str, download: bool) -> ArrayImages:
    parts = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    raw = _opened(
        kind,
        root,
        [(f"{kind.base_folder}/{file}", md5) for file, md5 in parts],
        kind.url,
        train=split == "train",
        download=download,
    )
    pixels = np.ascontiguousarray(raw.data.transpose(0, 3, 1, 2))
    return ArrayImages(kind.__name__, pixels, np.array(raw.targets, dtype=np.int64), tuple(raw.classes))


def _svhn(root: Path, split: str, download: bool) -> ArrayImages:
    url, file, md5 = datasets.SVHN.split_list[split]
    raw = _opened(datasets.SVHN, root, [(file, md5)], url, split=split, download=download)
    names = tuple(str(digit) for digit in range(10))
    return ArrayImages("SVHN", np.ascontiguousarray(raw.data), raw.labels.astype(np.int64), names)


def _stl10(root: Path, split: str, download: bool) -> ArrayImages:
    kind = datasets.STL10
    parts = [(f"{kind.base_folder}/{file}", md5) for file, md5 in (*kind.train_list, *kind.test_list)]
    raw = _opened(kind, root, parts, kind.url, split=split, download=download)
    pixels = np.ascontiguousarray(raw.data)
    if "unlabeled" in split:
        return ArrayImages("STL10", pixels)
    names = getattr(raw, "classes", None)  # torchvision goes on without
    if names is None:
        raise _not_whole("STL10", root, [(f"{kind.base_folder}/{kind.class_names_file}", None)], kind.url)
    return ArrayImages("STL10", pixels, raw.labels.astype(np.int64), tuple(names))


def _imagenet(root: Path, split: str, *, download: bool) -> FolderImages:
    advice = (
        "get ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from image-net.org (an"
        f" account is needed), put them there, and torchvision.datasets.ImageNet({str(root)!r}, {split!r}) unpacks them"
    )
    if download:
        raise ImagesError(f"ImageNet cannot be downloaded without an account; {advice}")
    try:
        images = open_folder(root / split, labelled=True)
    except ImagesError as error:
        raise ImagesError(f"{error}; {advice}") from error
    strange = [name for name in images.names if not WNID.fullmatch(name)]
    if strange:
        raise ImagesError(
            f"{root / split} is not ImageNet's: folders {', '.join(strange[:3])} ({len(strange)} in all) are not named"
            f" like n01440764; {advice}"
        )
    return images


def _opened(kind: Any, root: Path, parts: list[tuple[str, str | None]], url: str, **choice: Any) -> Any:
    """Let torchvision read a data set, or say which of its files are missing or damaged; it says that some are."""
    try:
        return kind(root, **choice)
    except (RuntimeError, OSError) as error:
        raise _not_whole(kind.__name__, root, parts, url, str(error)) from error


def _not_whole(name: str, root: Path, parts: list[tuple[str, str | None]], url: str, error: str = "") -> ImagesError:
    missing = [file for file, _ in parts if not (root / file).is_file()]
    damaged = [file for file, md5 in parts if file not in missing and not check_integrity(root / file, md5)]
    problems = [
        f"{', '.join(files)} {'is' if len(files) == 1 else 'are'} {what}"
        for files, what in ((missing, "missing"), (damaged, "damaged (the checksum differs)"))
        if files
    ]
    found = "; ".join(problems) or error
    return ImagesError(f"{name} is not whole in {root}: {found}. Unpack {url} there, or download=True")
