"""PASCAL VOC's images with the class of every pixel."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from infoassign_training.data.decoding import decoded
from infoassign_training.data.images import ImagesError
from infoassign_training.data.listed_files import lines_of, matlab_file
from infoassign_training.data.voc import CLASSES
from infoassign_training.dense.challenge import View
from infoassign_training.dense.scenes import order

NAMES = ("background", *CLASSES)
"""The classes of pixels, from number 0."""
VOID = 255
"""Of pixels that belong to no class: they are neither learned nor scored."""
VOC_LAYOUT = "WHERE/VOCdevkit/VOC2012/ with JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/{train,val}.txt"
SBD_LAYOUT = (
    "WHERE/benchmark_RELEASE/dataset/ with img/, cls/ and train.txt (the Semantic Boundaries Dataset; without it,"
    " --model.annotations voc trains on VOC2012's own training images)"
)
"""What is expected of a folder."""


@dataclass(frozen=True)
class Files:
    """Where an image and the classes of its pixels lie."""

    image: Path
    classes: Path
    """A palette image as VOC has it, or a file of MATLAB as SBD has it."""

    @property
    def name(self) -> str:
        """The name of the image, which SBD has from VOC."""
        return self.image.stem


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images with the classes of their pixels; read as they are asked for, and sent to worker processes."""

    files: tuple[Files, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> View:
        """Return an image as it is, and of its pixels ``classes``, (H, W), uint8."""
        image, classes = self.labelled(index)
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), {"classes": torch.from_numpy(classes)}

    def labelled(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return an image in RGB, (H, W, 3), and the class of every pixel, (H, W), of which `VOID` is none.

        Raises
        ------
        ImagesError
            If a file cannot be read, or the classes are not those of this image.
        """
        files = self.files[index]
        image = np.asarray(decoded(_bytes(files.image), str(files.image)))
        classes = _of_matlab(files.classes) if files.classes.suffix == ".mat" else _of_palette(files.classes)
        if classes.shape != image.shape[:2]:
            raise ImagesError(f"{files.classes} is of {classes.shape} pixels, and its image of {image.shape[:2]}")
        strange = np.setdiff1d(classes, [*range(len(NAMES)), VOID])
        if len(strange):
            raise ImagesError(f"{files.classes} has pixels of class {strange[0]}; expected 0 to 20, or 255")
        return image, classes


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImagesError(f"{path} cannot be read: {error.strerror or error}") from error


def _of_palette(path: Path) -> NDArray[np.uint8]:
    """Read numbers of colours, not the colours."""
    try:
        with PIL.Image.open(BytesIO(_bytes(path))) as image:
            _require_numbers(path, image)
            return np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImagesError(f"{path} cannot be read as an image: {error}") from error


def _require_numbers(path: Path, image: PIL.Image.Image) -> None:
    if image.mode not in ("P", "L"):
        raise ImagesError(f"{path} holds colours ({image.mode}), and no numbers of classes, as VOC's files do")


def _of_matlab(path: Path) -> NDArray[np.uint8]:
    (content,) = matlab_file(path, "GTcls")
    try:
        return np.array(content[0]["Segmentation"], dtype=np.uint8)
    except (IndexError, ValueError, TypeError) as error:
        raise ImagesError(f"{path} has no GTcls.Segmentation, as SBD's files do") from error


@dataclass(frozen=True, eq=False)
class PixelViews:
    """Images as they are, perhaps half of them mirrored; see :class:`~infoassign_training.dense.challenge.Views`.

    Of the endless order each pass goes over all images.
    """

    pixels: Pixels
    mirrored: bool
    seed: int

    def __getitem__(self, place: int) -> View:
        number, row = divmod(place, len(self.pixels))
        image, target = self.pixels[int(order(self.seed, number, len(self.pixels))[row])]
        if self.mirrored and np.random.default_rng((self.seed, 1, place)).integers(2):
            return image.flip(2), {"classes": target["classes"].flip(1)}
        return image, target


def open_pixels(where: Path, annotations: Literal["sbd", "voc"], test_list: str) -> tuple[Pixels, Pixels]:
    """Open what is trained on and what is scored on; the second holds no image of the first.

    Parameters
    ----------
    where
        The folder with VOCdevkit/ and, if asked for, benchmark_RELEASE/.
    annotations
        Whose training images: SBD's, or VOC2012's own.
    test_list
        The name of a list in VOC2012/ImageSets/Segmentation/.

    Raises
    ------
    ImagesError
        If they do not lie there; the message says what is expected.
    """
    folder = next((f for f in (where / "VOCdevkit" / "VOC2012", where / "VOC2012") if f.is_dir()), None)
    if folder is None:
        raise ImagesError(f"there is no folder {where / 'VOCdevkit' / 'VOC2012'}; expected {VOC_LAYOUT}")
    if annotations == "voc":
        train = _of_voc(folder, "train")
    else:
        train = _listed(where / "benchmark_RELEASE" / "dataset", "train.txt", "img", "cls", ".mat", SBD_LAYOUT)
    known = {one.name for one in train}
    test = [one for one in _of_voc(folder, test_list) if one.name not in known]
    if not test:
        raise ImagesError(f"all images of {test_list}.txt are trained on; give another --model.test-list")
    return Pixels(tuple(train)), Pixels(tuple(test))


def _of_voc(folder: Path, part: str) -> list[Files]:
    return _listed(folder, f"ImageSets/Segmentation/{part}.txt", "JPEGImages", "SegmentationClass", ".png", VOC_LAYOUT)


def _listed(folder: Path, names: str, images: str, classes: str, suffix: str, layout: str) -> list[Files]:
    try:
        listed = lines_of(folder / names)
        for needed in (images, classes):
            if not (folder / needed).is_dir():
                raise ImagesError(f"there is no folder {folder / needed}")
    except ImagesError as error:
        raise ImagesError(f"{error}; expected {layout}") from error
    files = [Files(folder / images / f"{name}.jpg", folder / classes / f"{name}{suffix}") for name in listed]
    # All of them, before hours are spent on the first.
    for path in (path for one in files for path in (one.image, one.classes)):
        if not path.is_file():
            raise ImagesError(f"there is no file {path}; expected {layout}")
        if path.suffix == ".png":
            try:
                with PIL.Image.open(path) as image:
                    _require_numbers(path, image)
            except OSError as error:
                raise ImagesError(f"{path} cannot be read as an image: {error}") from error
    return files
