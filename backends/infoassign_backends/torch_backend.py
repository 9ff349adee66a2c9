"""torch tensors: the host's sweeps for those on the CPU, the log domain on other devices, outside autograd.

An assignment is a constant of the training step that uses it (MIRA, eq. 8), so the scores are detached: no sweep is
recorded by autograd, and its memory does not grow with their number.
"""

from types import ModuleType

from infoassign_backends import kernel, reference
from infoassign_backends.joint_torch import off_diagonal, off_diagonal_and_gradients, product
from infoassign_backends.protocol import Array, Masses, Sweep

__all__ = ["masses", "off_diagonal", "off_diagonal_and_gradients", "plan", "prepare", "product"]


def prepare(scores: Array, epsilon: float) -> Sweep:
    """Prepare torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    sweep: Sweep = _where(scores).prepare(scores.detach(), epsilon)
    return sweep


def masses(scores: Array, potential: Array, epsilon: float, offset: float, known: Array) -> Masses:
    """Pass once over torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    found: Masses = _where(scores).masses(scores.detach(), potential, epsilon, offset, known)
    return found


def plan(scores: Array, potential: Array, epsilon: float) -> Array:
    """Return the plan of torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    return _where(scores).plan(scores.detach(), potential, epsilon)


def _where(scores: Array) -> ModuleType:
    return kernel if scores.device.type == "cpu" else reference
