"""Many images in few large files: Hugging Face's data sets, memory-mapped Arrow tables of JPEG bytes."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from infoassign_training.data.decoding import decoded
from infoassign_training.data.images import EncodedImages, Images, ImagesError

if TYPE_CHECKING:
    import datasets

_FILE = "file"


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Images of a Hugging Face data set; see :class:`~infoassign_training.data.images.Images`.

    `files` is the column of `table` with the paths that :func:`pack` wrote, if there is one: to ask for it alone reads
    no image.
    """

    table: "datasets.Dataset"
    files: "datasets.Dataset | None"
    column: str
    classes: NDArray[np.int64] | None
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.table)

    def encoded(self, index: int) -> bytes:
        """Return the bytes as they are stored."""
        return self._bytes(self.table[index])

    def image(self, index: int) -> PIL.Image.Image:
        """Return an image in RGB."""
        row = self.table[index]
        return decoded(self._bytes(row), f"image {index} ({self._origin(row, index)})")

    def origin(self, index: int) -> str:
        """Return the path it was packed from, or has on its hub, or its number."""
        return self._origin(self.table[index] if self.files is None else self.files[index], index)

    def _bytes(self, row: dict[str, Any]) -> bytes:
        stored = row[self.column]
        if stored["bytes"] is None:
            try:
                return Path(stored["path"]).read_bytes()
            except OSError as error:
                raise ImagesError(f"{stored['path']} cannot be read: {error.strerror or error}") from error
        data: bytes = stored["bytes"]
        return data

    def _origin(self, row: dict[str, Any], index: int) -> str:
        path = row[self.column]["path"] if self.column in row else None
        return str(row.get(_FILE) or path or index)


def open_packed(folder: str | Path, *, image: str | None = None, label: str | None = None) -> PackedImages:
    """Open what :func:`pack` or ``Dataset.save_to_disk`` wrote.

    Parameters
    ----------
    folder
        Where it is.
    image, label
        The columns of the images and of their classes; if None, the only ones of their type.

    Raises
    ------
    ImagesError
        If the folder holds no data set, or several; or if its columns are not these.
    """
    import datasets

    try:
        table = datasets.load_from_disk(str(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImagesError(
            f"{folder} holds no packed images; expected what pack or Dataset.save_to_disk writes"
        ) from error
    if isinstance(table, datasets.DatasetDict):
        splits = ", ".join(f"{folder}/{split}" for split in table)
        raise ImagesError(f"{folder} holds several data sets; name one of them: {splits}")
    return _images(table, str(folder), image, label)


def open_hub(
    name: str, split: str, *, revision: str | None = None, image: str | None = None, label: str | None = None
) -> PackedImages:
    """Open a data set of the Hugging Face hub, downloaded once to its cache.

    Parameters
    ----------
    name, split
        Such as ``uoft-cs/cifar10`` and ``train``; a local folder of Parquet or image files works, too.
    revision
        The commit to use. Without it, what an image's number stands for may change as the data set is edited.
    image, label
        As for :func:`open_packed`.

    Raises
    ------
    ImagesError
        If it cannot be had, or its columns are not these.
    """
    import datasets

    try:
        table = datasets.load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError) as error:
        raise ImagesError(f"{name} (split {split}) cannot be opened: {error}") from error
    return _images(table, name, image, label)


def _images(table: "datasets.Dataset", title: str, image: str | None, label: str | None) -> PackedImages:
    import datasets

    column = _column(table, title, datasets.Image, "image", image)
    if column is None:
        raise ImagesError(f"{title} has no column of images; it has {', '.join(table.column_names)}")
    number = _column(table, title, datasets.ClassLabel, "label", label)
    classes: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    if number is not None:
        values = table.select_columns([number]).with_format("numpy")[:][number]
        # Test sets whose classes are kept secret have -1.
        if values.dtype.kind in "iu" and (values >= 0).all():
            classes, names = values.astype(np.int64), tuple(table.features[number].names)
    kept = [name for name in (column, _FILE) if name in table.column_names]
    table = table.select_columns(kept).cast_column(column, datasets.Image(decode=False))
    files = table.select_columns([_FILE]) if _FILE in kept else None
    return PackedImages(table, files, column, classes, names)


def _column(table: "datasets.Dataset", title: str, kind: type, parameter: str, chosen: str | None) -> str | None:
    """Return the column that was chosen, or the only one of its type, or None if there is none."""
    fitting = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    if chosen is not None:
        if chosen not in fitting:
            raise ImagesError(
                f"{title} has no {kind.__name__} column {chosen!r}; it has {', '.join(fitting) or 'none'}"
            )
        return chosen
    if len(fitting) > 1:
        raise ImagesError(f"{title} has several {kind.__name__} columns, {', '.join(fitting)}; choose by {parameter}=")
    return fitting[0] if fitting else None


def pack(source: Images, folder: str | Path, *, size: int, quality: int, workers: int = 0) -> PackedImages:
    """Write images to a folder as JPEG, scaled down so that their shorter side is `size` where it is longer.

    JPEG files that need no scaling keep their bytes; everything else is encoded (an image in memory, too, which loses a
    little). Order, classes, their names and the images' origins are kept.

    Parameters
    ----------
    source
        What to pack.
    folder
        Where to; it must not be there yet. It appears only when all is written: until then the work is in a hidden
        folder beside it, where for a moment everything lies twice. What a killed process leaves of that is deleted by
        the next.
    size
        In pixels.
    quality
        JPEG's, 1 to 95.
    workers
        Processes that encode; 0 for this one.

    Returns
    -------
    PackedImages
        The folder, opened.

    Raises
    ------
    ImagesError
        If the folder is there, another process is packing to it, the source is empty or an image cannot be decoded.
    ValueError
        If the size or the quality is out of range.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1; got {size}")
    if not 1 <= quality <= 95:
        raise ValueError(f"quality must be from 1 to 95; got {quality}")
    if len(source) == 0:
        raise ImagesError("there are no images to pack")
    target = Path(folder).absolute()
    with _scratch(target) as scratch:
        _write(source, _Encoder(source, size, quality), scratch, workers)
        (scratch / "whole").rename(target)
    return open_packed(target)


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """Make an empty folder beside the target, for this process alone, and delete it in the end."""
    scratch = target.with_name(f".{target.name}.packing")
    _require_free(target)
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(scratch / "lock", timeout=0):
            # Another process may have come and gone before the lock was ours.
            _require_free(target)
            try:
                for path in scratch.iterdir():
                    if path.is_dir():  # of a process that was killed
                        shutil.rmtree(path)
                yield scratch
            finally:
                shutil.rmtree(scratch)
    except Timeout:
        raise ImagesError(f"another process is packing to {target}") from None


def _require_free(target: Path) -> None:
    if target.exists():
        raise ImagesError(f"{target} is already there; delete it to pack anew, or open it with open_packed")


def _write(source: Images, encoder: "_Encoder", scratch: Path, workers: int) -> None:
    """Encode all images and write them to the folder ``whole`` in `scratch`."""
    import datasets
    from datasets.arrow_writer import ArrowWriter

    features = datasets.Features({"image": datasets.Image(), _FILE: datasets.Value("string")})
    if source.classes is not None:
        features["label"] = datasets.ClassLabel(names=list(source.names))
    rows = DataLoader(encoder, batch_size=None, num_workers=workers, generator=torch.Generator())
    parts = scratch / "parts"
    parts.mkdir()
    with ArrowWriter(features=features, path=str(parts / "all.arrow"), writer_batch_size=100) as writer:
        interval = 0.2 if sys.stderr.isatty() else 10
        for row in tqdm(rows, desc="pack", unit="image", total=len(source), mininterval=interval):
            writer.write(row)
        writer.finalize()
    table = datasets.Dataset.from_file(str(parts / "all.arrow"))
    table.save_to_disk(scratch / "whole", max_shard_size="1GB")
    for path in (scratch / "whole").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


@dataclass(frozen=True, eq=False)
class _Encoder(Dataset[dict[str, Any]]):
    """The rows of the table to write, by number."""

    source: Images
    size: int
    quality: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = {
            "image": {"bytes": self._jpeg(index), "path": None},
            _FILE: self.source.origin(index),
        }
        if self.source.classes is not None:
            row["label"] = int(self.source.classes[index])
        return row

    def _jpeg(self, index: int) -> bytes:
        image = self.source.image(index)
        if isinstance(image, Tensor):
            image = transforms.to_pil_image(image)
        if min(image.size) <= self.size and isinstance(self.source, EncodedImages):
            stored = self.source.encoded(index)
            if stored.startswith(b"\xff\xd8\xff"):
                return stored
        if min(image.size) > self.size:
            image = transforms.resize(image, [self.size], transforms.InterpolationMode.BICUBIC)
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=self.quality)
        return buffer.getvalue()
