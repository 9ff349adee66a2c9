"""The entropy of a joint distribution, tile by tile, for torch: with a gradient of its own, and no autocast.

Autograd would keep every tile. Here one pass of the forward makes both gradients, each as large as a view, and backward
only multiplies them. Tensors on the CPU take the host's pass, those on CUDA Triton's where it serves them, others the
standard's; see :mod:`infoassign_backends.joint`.
"""

import logging
import sys
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from infoassign_backends import joint, joint_host
from infoassign_backends.autograd import first_order_only
from infoassign_backends.protocol import Views

LOG = logging.getLogger("infoassign")
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
    if not (torch.is_grad_enabled() and (views.first.requires_grad or views.second.requires_grad)):
        return _without_gradients(views, sizes)
    apply = _uncompiled() if "torch._dynamo" in sys.modules else _OffDiagonal.apply
    value: Tensor = apply(*views, sizes)
    return value


def off_diagonal_and_gradients(views: Views, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return OE and its gradients; see :class:`infoassign_backends.protocol.Backend`."""
    views = Views(*(view.detach() for view in views))
    if views.first.device.type == "cpu":
        value, first, second = map(torch.from_numpy, joint_host.off_diagonal_and_gradients(views, sizes))
        return value, first, second
    with torch.no_grad(), torch.autocast(views.first.device.type, enabled=False):
        value, first, second = _on_device(views).off_diagonal_and_gradients(views, sizes)
    return value, first, second


def _without_gradients(views: Views, sizes: tuple[int, ...]) -> Tensor:
    views = Views(*(view.detach() for view in views))
    if views.first.device.type == "cpu":
        return torch.from_numpy(joint_host.off_diagonal(views, sizes))
    with torch.autocast(views.first.device.type, enabled=False):
        value: Tensor = _on_device(views).off_diagonal(views, sizes)
    return value


def _on_device(views: Views) -> ModuleType:
    """Return the module for views that are not on the CPU. ``torch.compile`` traces the standard's."""
    if views.first.device.type != "cuda" or torch.compiler.is_compiling():
        return joint
    triton = _triton()
    if triton is None:
        return joint
    if not triton.served(views):
        dtypes, device = {view.dtype for view in views}, torch.cuda.get_device_capability(views.first.device)
        _say_once(f"joint entropies of {dtypes} on a device of capability {device}")
        return joint
    return triton


@cache
def _triton() -> ModuleType | None:
    try:
        return import_module("infoassign_backends.triton_joint")
    except ImportError as error:
        _say_once(f"joint entropies on CUDA, since Triton cannot be imported ({error})")
        return None


@cache
def _say_once(what: str) -> None:
    LOG.warning("%s are computed by torch's own operations, which take more time and memory", what)


class _OffDiagonal(torch.autograd.Function):
    """From views to OE."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        views, sizes = Views(*given[:4]), given[4]
        value, *gradients = off_diagonal_and_gradients(views, sizes)
        ctx.save_for_backward(views.first, views.second, *gradients)
        return value

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        first, second, *gradients = ctx.saved_tensors
        with torch.no_grad():
            found = [
                slopes[0] * g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad, strict=False)
            ]
        return *first_order_only(ONCE, found, (first, second)), None, None, None


@cache
def _uncompiled() -> Any:
    """Return what makes the graph break; loading the compiler for it, if nobody has, would take seconds."""
    return torch.compiler.disable(_OffDiagonal.apply, reason="summed tile by tile, with a gradient of its own")
