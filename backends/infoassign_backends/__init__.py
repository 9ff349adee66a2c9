"""How fast one pass over the scores is: backends for :mod:`infoassign`, found by the type of an array.

Nothing is imported before an array of its library is met, so importing this package pulls in neither
torch nor CuPy and opens no device. This package never imports :mod:`infoassign`.
"""

from importlib import import_module
from typing import cast

from array_api_compat import is_numpy_array, is_torch_array

from infoassign_backends.protocol import Array, Backend, Masses, Sweep

__all__ = ["BACKENDS", "Array", "Backend", "Masses", "Sweep", "backend_for", "readable"]

BACKENDS = {
    "cupy": "infoassign_backends.cupy_backend",
    "numpy": "infoassign_backends.numpy_backend",
    "torch": "infoassign_backends.torch_backend",
}
"""The modules that serve arrays, by the package that their type is of; add yours, and test it with
:func:`infoassign.testing.laws.backend`."""


def readable(array: Array) -> bool:
    """Return whether looking at the values of an array costs nothing: whether it is on the host, and no tracer.

    Parameters
    ----------
    array
        Of any library.

    Examples
    --------
    >>> import numpy as np
    >>> readable(np.zeros(3))
    True
    """
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
    'infoassign_backends.numpy_backend'
    """
    for kind in type(array).__mro__:
        name = BACKENDS.get(kind.__module__.partition(".")[0])
        if name is not None:
            return cast(Backend, import_module(name))
    return cast(Backend, import_module("infoassign_backends.reference"))
