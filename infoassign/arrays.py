"""Arrays of any library: to the host, to Python's numbers, and chosen between."""

from collections.abc import Callable
from typing import Any

import array_api_compat as api
import numpy as np
from numpy.typing import NDArray

from infoassign_backends import readable
from infoassign_backends.protocol import Array


def scalar_or_array(value: Array, kind: type[float] | type[int] | type[bool] = float) -> Any:
    """Return a Python number for a single problem, the array for a batch."""
    if value.ndim:
        return value
    return kind(value.detach() if api.is_torch_array(value) else value)


def host_dtype(array: Array) -> np.dtype[Any]:
    """Return the NumPy dtype for an array's; single precision for halves that NumPy has not."""
    name = str(array.dtype).rpartition(".")[2]
    return np.dtype("float32" if name == "bfloat16" else name)


def integer(array: Array) -> Any:
    """Return the integer dtype that an array's library and device have labels in."""
    xp = api.array_namespace(array)
    return xp.__array_namespace_info__().default_dtypes(device=api.device(array))["integral"]


def bits(array: Array) -> int:
    """Return how many bits numbers of a real floating dtype have, 0 for other dtypes.

    CuPy's bfloat16 comes from another package, of which `isdtype` and `finfo` say that it is no dtype; NumPy cannot
    compute with it without that package.
    """
    if str(array.dtype).rpartition(".")[2] == "bfloat16":
        return 0 if isinstance(array, np.ndarray) else 16
    xp = api.array_namespace(array)
    return int(xp.finfo(array.dtype).bits) if xp.isdtype(array.dtype, "real floating") else 0


def clipped(x: Array, lowest: float, highest: float = float("inf")) -> Array:
    """Return numbers, those outside of limits as these; NaN stays.

    For CuPy, `clip` of array-api-compat counts them by indexing with a mask, for which the host has to wait.
    """
    xp = api.array_namespace(x)
    return xp.where(x < lowest, lowest, xp.where(x > highest, highest, x))


def dot(x: Array, y: Array) -> Array:
    """Return the products of vectors, along the last axis.

    For CuPy, `vecdot` of array-api-compat is cuBLAS's product of matrices, which cannot be part of a CUDA graph.
    """
    xp = api.array_namespace(x)
    return xp.sum(x * y, axis=-1) if api.is_cupy_array(x) else xp.vecdot(x, y)


def on_host(array: Array, dtype: Any = np.float64) -> NDArray[Any]:
    """Copy an array of any library and device to NumPy."""
    xp = api.array_namespace(array)
    if 0 < bits(array) < 32:
        array = xp.astype(array, xp.float32)  # NumPy has no bfloat16
    if api.is_torch_array(array):
        array = array.detach().resolve_neg()
    if api.is_array_api_strict_namespace(xp):
        array = api.to_device(array, xp.Device("CPU_DEVICE"))
    elif not api.is_jax_array(array):  # which NumPy can read wherever it is
        array = api.to_device(array, "cpu")
    return np.asarray(array).astype(dtype)


def constant(array: Array) -> Array:
    """Return an array as it is computed with: without its history in torch's autograd, in the machine's byte order."""
    if api.is_torch_array(array):
        return array.detach().resolve_neg()
    if isinstance(array, np.ndarray) and not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array


def in_single(array: Array) -> Array:
    """Return an array in single precision if it is in half."""
    if bits(array) < 32:
        xp = api.array_namespace(array)
        return xp.astype(array, xp.float32)
    return np.asarray(array) if isinstance(array, np.ndarray) else array  # a view of subclasses such as memory maps


def take_rows(matrix: Array, rows: Any) -> Array:
    """Return some rows of a matrix, by their numbers (NumPy, ascending)."""
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix[rows])
    xp = api.array_namespace(matrix)
    return xp.take(matrix, xp.asarray(rows, device=api.device(matrix)), axis=0)


def either(condition: Array, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """Choose as `choose` does, and make only what is needed where one problem is known to need it."""
    if condition.ndim == 0 and readable(condition):  # which saves dozens of small operations a sweep
        return one() if condition else other()
    return choose(condition, one(), other())


def choose(condition: Array, one: Any, other: Any) -> Any:
    """Choose problem by problem between two arrays, or named tuples of them, by a condition of shape (...,)."""
    if condition.ndim == 0 and readable(condition):
        return one if condition else other
    if isinstance(one, tuple):
        return type(one)(*(choose(condition, a, b) for a, b in zip(one, other, strict=True)))
    xp = api.array_namespace(condition)
    return xp.where(xp.reshape(condition, condition.shape + (1,) * (one.ndim - condition.ndim)), one, other)
