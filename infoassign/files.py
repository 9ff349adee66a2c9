"""Files: written whole or not at all, and mapped to memory as long as they are whole."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from mmap import ALLOCATIONGRANULARITY, mmap
from os import PathLike
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, cast
from uuid import uuid4

import numpy as np

from infoassign_backends.protocol import Array

REACH = 2**16
"""Bytes that come into memory, at least, where one of them is looked at."""


class ScoresChangedError(RuntimeError):
    """Scores that are read again are no longer those that were read before.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> random = np.random.default_rng(0)
    >>> scores = ia.StreamedScores(lambda: iter([random.normal(size=(3, 2))]))  # others on every pass
    >>> ia.mira(scores)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    infoassign.files.ScoresChangedError: chunk 0 of the scores, now with 3 rows, is not the one with 3 rows ...
    """


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` only once it is complete and on disk.

    Whatever goes wrong before (an exception, a full disk, a killed process), `path` keeps what it held. On Linux the
    file has no name until then, so that not even a killed process leaves anything behind.

    Raises
    ------
    OSError
        If the folder cannot be written or the disk is full; the message names `path`.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "answer.txt"
    >>> with replacing(path) as file:
    ...     _ = file.write(b"42")
    >>> path.read_text()
    '42'
    """
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EEXIST, "it is there and no file")
        file, temporary = _open(path)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if temporary is None:
                temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
                _name(file, temporary)
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename != str(path):
            raise OSError(
                error.errno,
                f"could not write ({error.strerror or error}); what it held before is kept",
                str(path),
            ) from error
        raise


def _open(path: Path) -> tuple[BinaryIO, Path | None]:
    """Open a file in the folder of `path`, without a name where the file system can do that."""
    unnamed = _open_unnamed(path.parent)
    if unnamed is not None:
        return unnamed, None
    file = NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115  (closed above)
    # Temporary files are private; the file that stays gets the permissions of any other.
    umask = os.umask(0)
    os.umask(umask)
    os.fchmod(file.fileno(), 0o666 & ~umask)
    return cast(BinaryIO, file), Path(file.name)


def _open_unnamed(folder: Path) -> BinaryIO | None:
    """Open a file without a name, or return None where that cannot be done; why is for others to find out."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").exists():
        return None
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666), "w+b")
    except OSError:
        return None


def _name(file: BinaryIO, path: Path) -> None:
    """Give a file without a name one that is free."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:  # Python follows the link from /proc only where it is told a folder, too
        os.link(f"/proc/self/fd/{file.fileno()}", path.name, dst_dir_fd=folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, in UTF-8."""
    with replacing(path) as file:
        file.write(text.encode())


def write_npy(path: str | PathLike[str], parts: Iterable[Any], shape: tuple[int, int], dtype: Any) -> None:
    """Write NumPy arrays, one after the other, as one ``.npy`` file that is there whole or not at all."""
    with replacing(Path(path)) as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype=dtype).data)


def check_map(source: Any) -> None:
    """Say so if an array is a memory map of a file that was cut: to read on would kill the process."""
    array: Any = source
    while isinstance(array, np.ndarray):
        base: Any = array.base
        if isinstance(base, mmap):
            start = getattr(array, "offset", 0) // ALLOCATIONGRANULARITY * ALLOCATIONGRANULARITY
            if base.size() < start + len(base):
                name = getattr(array, "filename", "of a memory map")
                raise ScoresChangedError(f"the file {name} was cut to {base.size()} bytes, of {start + len(base)}")
            return
        array = base


def touched(source: Any, rows: slice) -> Array:
    """Return some rows of an indexable source, those of a memory map as they are read from disk."""
    check_map(source)
    chunk: Any = source[rows, :]
    if isinstance(chunk, np.memmap):
        chunk = np.asarray(chunk)
        if chunk.flags.c_contiguous:
            # A number here and there, so that what is not in memory is read now.
            np.max(chunk.reshape(-1)[:: max(1, REACH // chunk.itemsize)], initial=0)
    return chunk
