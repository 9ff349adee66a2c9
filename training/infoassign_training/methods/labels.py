"""Labels of all images as a file: what one run has found and another learns from."""

from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from infoassign.files import write_npy

Labels = NDArray[np.int64]
"""Shape (T, N): the label of every image by every head."""


def write_labels(path: Path, labels: Labels) -> None:
    """Write labels as a ``.npy`` file, whole or not at all.

    Parameters
    ----------
    path
        The file; what it held is replaced.
    labels
        Shape (T, N), int64, or (N,) for one head.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "labels.npy"
    >>> write_labels(path, np.array([[0, 1, 1], [2, 0, 1]]))
    >>> read_labels(path, sizes=(2, 3), images=3)
    array([[0, 1, 1],
           [2, 0, 1]])
    """
    if labels.dtype != np.int64 or labels.ndim not in (1, 2):
        raise ValueError(f"labels must be int64 of shape (T, N) or (N,); got {labels.dtype} of shape {labels.shape}")
    whole = np.atleast_2d(labels)
    write_npy(path, [whole], whole.shape, np.int64)


def read_labels(path: Path, *, sizes: Sequence[int], images: int) -> Labels:
    """Read labels that :func:`write_labels` wrote; nothing in the file is executed.

    Parameters
    ----------
    path
        The file.
    sizes
        Number of labels K_t of each of the T heads.
    images
        How many images N there are.

    Returns
    -------
    ndarray
        Shape (T, N).

    Raises
    ------
    ValueError
        If the file cannot be read, is no such file, or its labels are not those of these heads and images.
    """
    try:
        # A map is made from the header alone and refuses Python objects, so nothing is read before it was looked at.
        stored = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise ValueError(f"labels cannot be read from {path}: {error.strerror or error}") from error
    except (ValueError, TokenError) as error:  # the latter from broken headers
        raise ValueError(f"{path} is no .npy file of labels: {error}") from error
    if stored.dtype != np.int64:
        raise ValueError(f"{path}: labels must be int64; got {stored.dtype}")
    shape = (1, *stored.shape) if stored.ndim == 1 else stored.shape
    if shape != (len(sizes), images):
        heads = "1 head" if len(sizes) == 1 else f"{len(sizes)} heads"
        raise ValueError(
            f"{path}: expected labels of shape (T, N) = ({len(sizes)}, {images}), {heads} and {images} images;"
            f" got {stored.shape}"
        )
    labels = np.array(stored).reshape(shape)
    for head, (row, size) in enumerate(zip(labels, sizes, strict=True)):
        low, high = int(row.min()), int(row.max())
        if low < 0 or high >= size:
            raise ValueError(
                f"{path}: labels of head {head} must be in [0, {size}), as method.heads says; got {low} to {high}"
            )
    return labels
