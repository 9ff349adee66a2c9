"""Files of weights, ours and others', read without running what is in them."""

import argparse
import hashlib
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from infoassign_training.errors import UserError

BETWEEN = "/"
"""Between the names of nested dicts; names of tensors have dots."""
HARMLESS: list[Any] = [
    # Released checkpoints keep the options of the command line and numbers of NumPy's beside the weights.
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What may be unpickled besides what torch allows: classes that hold values and do nothing."""


class WeightsError(UserError):
    """A file of which no weights, or not those asked for, can be read."""


def read_tree(path: Path) -> tuple[dict[str, Any], str]:
    """Read what a checkpoint holds, without running code that it may bring.

    Parameters
    ----------
    path
        What ``torch.save`` wrote, in its present format or the one before, or a file of safetensors.

    Returns
    -------
    tree
        The dict that was saved, with tensors on the CPU and, perhaps, further dicts in it.
    sha256
        Of the bytes that were read, in hexadecimal.

    Raises
    ------
    WeightsError
        If there is no such file, it is damaged or something else, or could only be read by running code.
    OSError
        If it cannot be opened.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "weights.pth"
    >>> torch.save({"fc.bias": torch.zeros(2)}, path)
    >>> tree, sha256 = read_tree(path)
    >>> tree, len(sha256)
    ({'fc.bias': tensor([0., 0.])}, 64)
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    with path.open("rb") as file:
        # The same open file throughout: a run may put a new checkpoint in its place.
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        head = file.read(64)
        file.seek(0)
        if head[8:9] == b"{":
            return _safetensors(path, file), sha256
        if head[:2] != b"PK" and head[:1] != b"\x80":
            raise WeightsError(f"{path} is not a checkpoint; {_looks_like(head)}")
        tree = _torch(path, file)
    if not isinstance(tree, Mapping):
        raise WeightsError(f"{path} holds no dict of tensors but a {type(tree).__name__}")
    return dict(tree), sha256


def flatten(tree: Mapping[Any, Any], place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dicts, each with its name after those of the dicts that it is in.

    Examples
    --------
    >>> dict(flatten({"epoch": 3, "model": {"fc.bias": torch.zeros(1)}}))
    {'model/fc.bias': tensor([0.])}
    """
    for name, value in tree.items():
        if isinstance(value, Tensor):
            yield f"{place}{name}", value
        elif isinstance(value, Mapping):
            yield from flatten(value, f"{place}{name}{BETWEEN}")


def _safetensors(path: Path, file: BinaryIO) -> dict[str, Any]:
    try:
        return dict(load_safetensors(file.read()))
    except SafetensorError as error:
        raise WeightsError(f"{path} is a damaged file of safetensors ({error}); {_again(path)}") from error


def _torch(path: Path, file: BinaryIO) -> Any:
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        if forbidden is None:
            raise WeightsError(f"{path} is damaged; {_again(path)}") from error
        raise WeightsError(
            f"{path} holds more than tensors and plain values ({forbidden[1]}), and reading that could run code."
            " If you trust its source, convert it where that can be imported:"
            f" state = torch.load({path.name!r}, map_location='cpu', weights_only=False);"
            " torch.save(state['state_dict'], 'weights.pth') (or 'model', or state.state_dict() of a whole network)"
        ) from error
    except Exception as error:  # a damaged file fails in any of torch's layers
        raise WeightsError(f"{path} is damaged or cut short ({type(error).__name__}); {_again(path)}") from error


def _again(path: Path) -> str:
    return f"it has {path.stat().st_size} bytes: download or copy it again"


def _looks_like(head: bytes) -> str:
    """Say what a file that is no checkpoint begins with, if that tells what it is."""
    if not head:
        return "it is empty"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, perhaps one that says why there was no download"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: `git lfs pull` gets the file"
    return f"it begins with {head[:12]!r}"
