"""Fixtures and settings that all tests share."""

import os
import warnings

# The tests run side by side (pytest -n 2); one thread each keeps them from fighting for the cores, and makes sums
# come out alike everywhere. Set before NumPy or torch load their thread pools.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

with warnings.catch_warnings():  # what it warns of while it is loaded depends on what else is installed
    warnings.simplefilter("ignore")
    import torch

try:
    import array_api_strict
except ImportError:  # the GPU tests are run where it may be missing
    array_api_strict = None

# Without a device Triton's kernels are interpreted, which has to be said before they are loaded.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
torch.set_num_threads(1)
settings.register_profile("infoassign", deadline=None)
# pytest --hypothesis-profile ci: more examples, always the same. deep: hours; with --hypothesis-seed to do it again.
settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=300, print_blob=True)
settings.register_profile("deep", deadline=None, max_examples=50_000, print_blob=True)
settings.load_profile("infoassign")

LIBRARIES: dict[str, Any] = {
    "numpy": np.asarray,
    "torch": lambda x: torch.from_numpy(np.array(x)),
    "strict": getattr(array_api_strict, "asarray", None),  # nothing beyond the standard
}
IN_PLACE = ("setitem", "iadd", "isub", "imul", "itruediv", "ipow", "iand", "ior")


@pytest.fixture(params=LIBRARIES)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """A function that turns a NumPy array into an array of one library after the other.

    The arrays of the strict library are made immutable, as those of JAX are.
    """
    if request.param == "strict":
        if array_api_strict is None:
            pytest.skip("array-api-strict is not installed")

        def refuse(*_: object) -> None:
            raise TypeError("arrays are immutable here")

        for name in IN_PLACE:
            monkeypatch.setattr(type(array_api_strict.asarray(0.0)), f"__{name}__", refuse)
    return LIBRARIES[request.param]
