"""Image files that lists name, as data sets are published: what the readers of their lists have in common."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError

from infoassign_training.data.folder import FolderImages
from infoassign_training.data.images import ImagesError


def place_of(where: Path, *folders: str) -> Path:
    """Return the folder that a set lies in: the first of `folders` below `where`, or `where` itself.

    Raises
    ------
    ImagesError
        If there is no folder `where`.
    """
    if not where.is_dir():
        raise ImagesError(f"there is no folder {where}")
    return next((where / folder for folder in folders if (where / folder).is_dir()), where)


def first_file(*paths: Path) -> Path:
    """Return the first of these files that is there.

    Raises
    ------
    ImagesError
        If none is.
    """
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise ImagesError(f"there is no file {' or '.join(str(path) for path in paths)}")
    return found


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file without the space around them, empty ones left out.

    Raises
    ------
    ImagesError
        If it cannot be read, or holds nothing.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ImagesError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    lines = [line for line in lines if line]
    if not lines:
        raise ImagesError(f"{path} is empty")
    return lines


def pairs_of(path: Path) -> list[tuple[str, int]]:
    """Return what a text file has on each line: words and, after the last space, a number.

    Raises
    ------
    ImagesError
        If it cannot be read, or a line is another.
    """
    pairs = []
    for number, line in enumerate(lines_of(path), start=1):
        words, _, value = line.rpartition(" ")
        try:
            pairs.append((words.strip(), int(value)))
        except ValueError as error:
            raise ImagesError(f"{path}, line {number}: expected a name and a number; got {line!r}") from error
    return pairs


DAMAGED = (OSError, ValueError, TypeError, IndexError, MatReadError, zlib.error, NotImplementedError)
"""What SciPy raises for files that are damaged or no MATLAB's; the last for those from version 7.3 on."""


def matlab_file(path: Path, *names: str) -> list[NDArray[Any]]:
    """Return variables of a MATLAB file, without axes of length one.

    Raises
    ------
    ImagesError
        If it cannot be read, or lacks one of them.
    """
    try:
        content = scipy.io.loadmat(path, squeeze_me=True)
        return [np.atleast_1d(content[name]) for name in names]
    except KeyError as error:
        raise ImagesError(f"{path} has no variable {error}") from error
    except DAMAGED as error:
        raise ImagesError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def listed_paths(root: Path, paths: Sequence[str]) -> NDArray[np.bytes_]:
    """Return paths of images below a folder as :class:`~infoassign_training.data.folder.FolderImages` keeps them.

    Only the first file is looked for, as there may be millions; of any other that is missing it is told when it is
    asked for.

    Raises
    ------
    ImagesError
        If there is none, or the first is not there.
    """
    if not paths:
        raise ImagesError(f"no image in {root} is listed")
    if not (root / paths[0]).is_file():
        raise ImagesError(f"there is no image {root / paths[0]}")
    return np.array([os.fsencode(path) for path in paths])


def listed_images(root: Path, paths: Sequence[str], classes: Sequence[int], names: Sequence[str]) -> FolderImages:
    """Return the images of a list, in its order.

    Raises
    ------
    ImagesError
        If there is none, the first is not there, or a class is not numbered from 0 to ``len(names) - 1``.
    """
    numbers = np.array(classes, dtype=np.int64)
    strange = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
    if len(strange):
        row = strange[0]
        raise ImagesError(f"{paths[row]} is said to be of class {numbers[row]}; there are {len(names)}")
    return FolderImages(root, listed_paths(root, paths), numbers, tuple(names))
