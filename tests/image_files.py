"""Tiny images on disk, laid out as the real data sets are."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import scipy.io
from torchvision.datasets.utils import calculate_md5

CLASSES = ("n01440764", "n01443537", "n02102040")


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
        content = {"data": images, label: list(range(per_batch))}
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
