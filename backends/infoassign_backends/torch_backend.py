"""torch tensors, outside autograd: the kernel's sweep on the host, the log domain on other devices."""

from infoassign_backends import kernel, reference
from infoassign_backends.protocol import Array, Sweep


def prepare(scores: Array, epsilon: float) -> Sweep:
    """Prepare torch scores; see :class:`infoassign_backends.protocol.Backend`.

    An assignment is a constant of the training step that uses it (MIRA, eq. 8), so the scores are
    detached: no sweep is recorded by autograd, and its memory does not grow with their number.
    """
    if scores.device.type == "cpu":
        return kernel.prepare(scores.detach(), epsilon)
    return reference.prepare(scores.detach(), epsilon)
