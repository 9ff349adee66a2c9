"""How fast one pass over the scores is: backends for :mod:`infoassign`, found by the type of an array.

Nothing is imported before an array of its library is met, so importing this package pulls in neither
torch nor CuPy and opens no device. This package never imports :mod:`infoassign`.
"""

from typing import cast

from array_api_compat import is_numpy_array, is_torch_array

from infoassign_backends.protocol import Array, Backend, Masses, Sweep

__all__ = ["Array", "Backend", "Masses", "Sweep", "backend_for", "readable"]


def readable(array: Array) -> bool:
    """Return whether looking at the values of an array costs nothing: whether it is on the host, and no tracer."""
    return is_numpy_array(array) or (is_torch_array(array) and array.device.type == "cpu")


def backend_for(array: Array) -> Backend:
    """Return the backend that serves an array.

    Parameters
    ----------
    array
        An array of any library that follows the array-API standard.

    Returns
    -------
    Backend
        The module with the fastest correct ``prepare`` for this array; the reference, which uses the
        standard only and is right everywhere, where nothing better is known.

    Examples
    --------
    >>> import numpy as np
    >>> backend_for(np.zeros((2, 3))).__name__
    'infoassign_backends.kernel'
    """
    if is_torch_array(array):
        from infoassign_backends import torch_backend

        return cast(Backend, torch_backend)
    if is_numpy_array(array):
        from infoassign_backends import kernel

        return cast(Backend, kernel)
    from infoassign_backends import reference

    return cast(Backend, reference)
