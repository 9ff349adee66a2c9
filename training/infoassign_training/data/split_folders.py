"""One's own labelled images: a folder with the parts in it, as image files or packed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infoassign_training.data.folder import open_folder
from infoassign_training.data.images import Images, ImagesError
from infoassign_training.data.packed import open_packed
from infoassign_training.data.splits import Splits
from infoassign_training.data.subsets import Selection


def split_folders(where: Path) -> Splits:
    """Open ``train/``, and ``val/`` or ``test/`` or both, with a folder per class in each.

    With one of the two it is what is scored on; with both, ``val/`` is to choose settings on. Classes are numbered as
    in ``train/``.

    Raises
    ------
    ImagesError
        If a part is missing or empty, or has a class that ``train/`` has not.
    """
    return _splits(where, lambda part: open_folder(part, labelled=True))


def split_packed(where: Path) -> Splits:
    """Open ``train/``, and ``val/`` or ``test/`` or both, each as ``infoassign pack`` wrote it.

    With one of the two it is what is scored on; with both, ``val/`` is to choose settings on. Classes are numbered as
    in ``train/``.

    Raises
    ------
    ImagesError
        If a part is missing or without classes, or has a class that ``train/`` has not.
    """
    return _splits(where, open_packed)


def _splits(where: Path, opened: Callable[[Path], Images]) -> Splits:
    held_out = [where / part for part in ("val", "test") if (where / part).is_dir()]
    if not held_out:
        raise ImagesError(f"there is neither {where}/val nor {where}/test")
    train = opened(where / "train")
    parts = [_numbered_as(train, opened(part), part) for part in held_out]
    note = f"scored on {held_out[-1].name}/"
    return Splits(train, parts[-1], parts[0] if len(parts) == 2 else None, note)


def _numbered_as(train: Images, part: Images, where: Path) -> Images:
    """Number the classes of a part as `train` does."""
    folder = where.parent / "train"
    _classes(train, folder)
    classes = _classes(part, where)
    if part.names == train.names:
        return part
    unknown = sorted(set(part.names) - set(train.names))
    if unknown:
        raise ImagesError(
            f"{where} has classes that {folder} has not: {', '.join(unknown[:5])} ({len(unknown)} in all)"
        )
    numbers = np.array([train.names.index(name) for name in part.names], dtype=np.int64)
    return Selection(part, np.arange(len(part)), numbers[classes], train.names)


def _classes(images: Images, where: Path) -> NDArray[np.int64]:
    if images.classes is None:
        raise ImagesError(f"the images in {where} have no classes")
    return images.classes
