"""The entropy of a joint distribution, tile by tile, for torch: with a gradient of its own, and no autocast.

Autograd would keep every tile. Here the one pass of the forward makes both gradients, as large as the views, and
backward only multiplies them. Tiles are worked on in place, and cut so that they stay near the processor; see
:mod:`infoassign_backends.joint` for what is computed.
"""

from itertools import accumulate
from itertools import product as pairs
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infoassign_backends.autograd import first_order_only
from infoassign_backends.joint import cut
from infoassign_backends.protocol import Views
from infoassign_backends.sums import widest

ROWS, COLUMNS = 1536, 3072
"""Units of the first and of the second view that a tile has at most."""
ONCE = (
    "the off-diagonal entropy has first derivatives only: its gradient cannot be differentiated again; leave"
    " create_graph=True out, or write sum P log P in plain torch operations for a second derivative"
)


def product(first: Tensor, second: Tensor) -> Tensor:
    """Return ``first^T second``; see :class:`infoassign_backends.protocol.Backend`."""
    with torch.autocast(first.device.type, enabled=False):
        return first.T @ second


def off_diagonal(views: Views, sizes: tuple[int, ...]) -> Tensor:
    """Return OE; see :class:`infoassign_backends.protocol.Backend`. ``torch.compile`` breaks its graph here."""
    value: Tensor = _apply(*views, sizes)
    return value


def off_diagonal_and_gradients(views: Views, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return OE and its gradients; see :class:`infoassign_backends.protocol.Backend`."""
    with torch.no_grad():
        value, first, second = _evaluate(views, sizes, (True, True))
    assert first is not None
    assert second is not None
    return value, first, second


class _OffDiagonal(torch.autograd.Function):
    """From views to OE."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        views, sizes = Views(*given[:4]), given[4]
        value, *gradients = _evaluate(views, sizes, ctx.needs_input_grad[:2])
        ctx.save_for_backward(views.first, views.second, *gradients)
        return value

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        first, second, *gradients = ctx.saved_tensors
        with torch.no_grad():
            gradients = [None if gradient is None else slopes[0] * gradient for gradient in gradients]
        return *first_order_only(ONCE, gradients, (first, second)), None, None, None


_apply = torch.compiler.disable(_OffDiagonal.apply, reason="summed tile by tile, with a gradient of its own")


def _evaluate(
    views: Views, sizes: tuple[int, ...], needed: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return OE and the gradients that are needed."""
    first, second, all_first, all_second = views
    rows, width = all_first.shape
    edges = [0, *accumulate(sizes)]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    segment = torch.from_numpy(owner).to(first.device)
    total = torch.zeros((), dtype=widest(first), device=first.device)
    to_first = torch.zeros_like(first) if needed[0] else None
    to_second = torch.zeros_like(second) if needed[1] else None
    down, across = cut(width, ROWS), cut(width, COLUMNS)
    room = first.new_empty(2, down[0].stop * across[0].stop)
    with torch.autocast(first.device.type, enabled=False):
        for r, c in pairs(down, across):
            shape = (r.stop - r.start, c.stop - c.start)
            tile, logs = (memory[: shape[0] * shape[1]].view(shape) for memory in room)
            torch.addmm(tile, all_first[:, r].T, all_second[:, c], beta=0, alpha=1 / rows, out=tile)
            # Cells within a segment are where the rows' segments overlap the columns', and the other way round.
            own_r = _overlap(r, edges[owner[c.start]], edges[owner[c.stop - 1] + 1])
            own_c = _overlap(c, edges[owner[r.start]], edges[owner[r.stop - 1] + 1])
            own = segment[r][own_r, None] == segment[c][None, own_c]
            tile[own_r, own_c].masked_fill_(own, 0)
            # The smallest positive number of all: its logarithm is finite, and 0 times it is 0.
            torch.clamp_min(tile, torch.finfo(tile.dtype).smallest_normal * torch.finfo(tile.dtype).eps, out=logs)
            total += torch.linalg.vecdot(tile, logs.log_()).sum(dtype=total.dtype)
            if to_first is None and to_second is None:
                continue
            slope = logs.add_(1).masked_fill_(tile == 0, 0)
            if to_first is not None:
                to_first[:, r].addmm_(second[:, c], slope.T, alpha=1 / rows)
            if to_second is not None:
                to_second[:, c].addmm_(first[:, r], slope, alpha=1 / rows)
    return total.to(first.dtype), to_first, to_second


def _overlap(units: slice, start: int, stop: int) -> slice:
    """Return which of some units are in a range, counted from the first of them."""
    return slice(max(start - units.start, 0), max(min(stop, units.stop) - units.start, 0))
