"""torch tensors, on any device: the reference sweep, outside autograd."""

from infoassign_backends import reference
from infoassign_backends.protocol import Array, Sweep


def prepare(scores: Array, epsilon: float) -> Sweep:
    """Prepare torch scores; see :class:`infoassign_backends.protocol.Backend`.

    An assignment is a constant of the training step that uses it (MIRA, eq. 8), so the scores are
    detached: no sweep is recorded by autograd, and its memory does not grow with their number.
    """
    return reference.prepare(scores.detach(), epsilon)
