"""A folder of image files."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from infoassign_training.data.decoding import decoded
from infoassign_training.data.images import ImagesError


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Image files below a folder; see :class:`~infoassign_training.data.images.Images`.

    `paths` are relative to `root`, as an array of bytes: worker processes share it with their parent, where a list of a
    million strings would be copied to each as its reference counts change.
    """

    root: Path
    paths: NDArray[np.bytes_]
    classes: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def origin(self, index: int) -> str:
        """Return the path inside the folder."""
        return os.fsdecode(bytes(self.paths[index]))

    def encoded(self, index: int) -> bytes:
        """Return the file's bytes."""
        path = self.root / self.origin(index)
        try:
            return path.read_bytes()
        except OSError as error:
            raise ImagesError(f"{path} cannot be read: {error.strerror or error}") from error

    def image(self, index: int) -> PIL.Image.Image:
        """Return an image in RGB."""
        return decoded(self.encoded(index), str(self.root / self.origin(index)))


def open_folder(root: str | Path, *, labelled: bool) -> FolderImages:
    """Open a folder of images, in the order of their sorted paths, which is torchvision's.

    Parameters
    ----------
    root
        The folder. Links to folders are followed.
    labelled
        Whether every folder in it holds the images of one class (its classes are numbered in sorted order); otherwise
        images may lie anywhere below it. Either way they may be nested further, and files whose name does not end as
        an image's are passed over.

    Raises
    ------
    ImagesError
        If there is no such folder, or no image in it, or in one of its classes.
    """
    folder = Path(root).resolve()
    layout = f"{folder}/CLASS/**/*.jpg" if labelled else f"{folder}/**/*.jpg"
    expected = f"expected {layout} (or {', '.join(IMG_EXTENSIONS[1:])})"
    if not folder.is_dir():
        raise ImagesError(f"there is no folder {folder}; {expected}")
    try:
        # Without classes the folder itself is the only one.
        names, numbers = find_classes(folder) if labelled else ([folder.name], {folder.name: 0})
        found = make_dataset(folder if labelled else folder.parent, numbers, IMG_EXTENSIONS)
    except FileNotFoundError as error:
        without = f" ({error})" if labelled else ""
        raise ImagesError(f"{folder} holds no images{without}; {expected}") from error
    paths = np.array([os.fsencode(os.path.relpath(path, folder)) for path, _ in found])
    if not labelled:
        return FolderImages(folder, paths)
    return FolderImages(folder, paths, np.array([number for _, number in found], dtype=np.int64), tuple(names))
