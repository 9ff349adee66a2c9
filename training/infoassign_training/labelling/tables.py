"""Files of rows, read a piece at a time: ``.npy`` and ``.safetensors``."""

from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infoassign_training.errors import UserError

PIECE = 2**22
"""Numbers that are read at a time."""
HASHED = 2**30
"""Bytes up to which a file is known by its checksum, and beyond by size and time."""


class TableError(UserError):
    """A file that holds no rows of numbers, or not those that are needed."""


class SafetensorsRows:
    """A matrix in a ``.safetensors`` file, of which slices are read when asked for.

    Parameters
    ----------
    opened
        What ``safetensors.safe_open`` gives, for torch, which has bfloat16; that is read as float32.
    name
        Of the tensor.
    """

    def __init__(self, opened: Any, name: str) -> None:
        self._rows = opened.get_slice(name)
        self.shape = tuple(self._rows.get_shape())

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of what is read."""
        return self._read(slice(0, 1)).dtype

    def _read(self, rows: slice) -> NDArray[Any]:
        import torch

        found = self._rows[rows]
        wide: NDArray[Any] = (found.float() if found.dtype == torch.bfloat16 else found).numpy()
        return wide

    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = index
        first, last, _ = rows.indices(self.shape[0])
        return self._read(slice(first, last))[:, columns]


def open_table(path: Path, tensor: str = "", *, advice: str = "choose by --tensor one of") -> Any:
    """Open a matrix in a file, bigger than memory or not.

    Parameters
    ----------
    path
        A file ``.npy`` or ``.safetensors``.
    tensor
        The name of the matrix in a ``.safetensors`` file with several.
    advice
        What to do about several, before their names.

    Returns
    -------
    memmap or SafetensorsRows
        Shape (N, columns), real floating; ``[first:last, :]`` are rows as a NumPy array.

    Raises
    ------
    TableError
        If the file cannot be read, is cut off, or holds no such matrix.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "scores.npy"
    >>> np.save(path, np.zeros((5, 3)))
    >>> open_table(path)[1:3, :].shape
    (2, 3)
    """
    match path.suffix:
        case ".npy":
            if tensor:
                raise TableError(f"{path} holds one array, which has no name; leave --tensor out")
            table = _open_npy(path)
        case ".safetensors":
            table = _open_safetensors(path, tensor, advice)
        case _:
            raise TableError(f"{path}: expected a file .npy or .safetensors (images need --checkpoint RUN)")
    if len(table.shape) != 2 or 0 in table.shape:
        raise TableError(f"{path}: expected a matrix with a row for every sample; got shape {tuple(table.shape)}")
    try:
        dtype = table.dtype
    except TypeError as error:  # what NumPy does not have
        raise TableError(f"{path}: expected real floating numbers; {error}") from error
    if dtype.kind != "f":
        raise TableError(f"{path}: expected real floating numbers; got {dtype}")
    if dtype.itemsize > np.dtype(np.float64).itemsize:
        raise TableError(f"{path}: expected numbers of 64 bits at most; got {dtype}")
    return table


def _open_npy(path: Path) -> Any:
    try:
        # A map is made from the header alone and refuses Python objects.
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TokenError) as error:  # the latter from broken headers
        raise TableError(f"{path} is no .npy file of numbers, or was cut off: {error}") from error


def _open_safetensors(path: Path, tensor: str, advice: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(path, framework="pt")
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise TableError(f"{path} is no .safetensors file, or was cut off: {error}") from error
    names = list(opened.keys())
    if not tensor and len(names) == 1:
        (tensor,) = names
    if tensor not in names:
        asked = f"{path} has no tensor {tensor!r}" if tensor else f"{path} has several tensors"
        raise TableError(f"{asked}; {advice} {', '.join(sorted(names))}")
    return SafetensorsRows(opened, tensor)


def pieces(table: Any, wide: int = 0) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the rows of a table, some at a time, and the number of the first.

    Parameters
    ----------
    table
        Shape (N, columns).
    wide
        Columns of what is made of them, if it has more: so many fewer rows are read.

    Examples
    --------
    >>> [(first, rows.shape) for first, rows in pieces(np.zeros((3, 2**21)))]
    [(0, (2, 2097152)), (2, (1, 2097152))]
    """
    count, columns = table.shape
    step = max(1, PIECE // max(columns, wide))
    for first in range(0, count, step):
        yield first, np.asarray(table[first : first + step, :])


def require_finite(table: Any, path: Path, *, directions: bool = False) -> None:
    """Look at all rows once; where their directions are compared, none may be zero.

    Raises
    ------
    TableError
        If one holds NaN or infinity, or has no direction; it says which.
    """
    for first, rows in pieces(table):
        wrong = ~np.isfinite(rows).all(axis=1)
        if wrong.any():
            raise TableError(f"{path}: row {first + int(wrong.argmax())} holds NaN or infinity; leave it out")
        none = ~rows.any(axis=1)
        if directions and none.any():
            raise TableError(
                f"{path}: row {first + int(none.argmax())} is zero and has no direction; leave it out, or take another"
                " --metric"
            )


def some_rows(table: Any, most: int, seed: int) -> NDArray[Any]:
    """Return rows drawn by chance, in their order, or all if there are no more than `most`."""
    count = table.shape[0]
    chosen = np.arange(count)
    if count > most:
        chosen = np.sort(np.random.default_rng(seed).choice(count, size=most, replace=False))
    parts = []
    for first, rows in pieces(table):
        here = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + len(rows))]
        parts.append(rows[here - first])
    return np.concatenate(parts)


def fingerprint(path: Path) -> dict[str, Any]:
    """Return what tells a file from another: its checksum, or if it is huge its size and time.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "a.npy"
    >>> _ = path.write_bytes(b"abc")
    >>> fingerprint(path)["sha256"][:8]
    'ba7816bf'
    """
    stat = path.stat()
    known = {"path": str(path), "bytes": stat.st_size}
    if stat.st_size > HASHED:
        return known | {"modified": stat.st_mtime}
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return known | {"sha256": digest.hexdigest()}
