"""NumPy arrays: compiled passes where numba is installed and a matrix is large, NumPy's own otherwise."""

from typing import Any

from numpy.typing import NDArray

from infoassign_backends.joint_host import off_diagonal, off_diagonal_and_gradients, product
from infoassign_backends.kernel import KernelSweep, masses, plan
from infoassign_backends.protocol import Sweep
from infoassign_backends.reference import factored

__all__ = ["factored", "masses", "off_diagonal", "off_diagonal_and_gradients", "plan", "prepare", "product"]


def prepare(scores: NDArray[Any], epsilon: float) -> Sweep:
    """Prepare dense scores; see :class:`infoassign_backends.protocol.Backend`."""
    return KernelSweep(scores, epsilon)
