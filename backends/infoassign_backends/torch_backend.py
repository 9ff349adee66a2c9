"""torch tensors: NumPy's sweeps in the same memory on the CPU, kernels on CUDA, the log domain elsewhere; no autograd.

An assignment is a constant of the training step that uses it (MIRA, eq. 8), so the scores are detached: no sweep is
recorded by autograd, and its memory does not grow with their number.
"""

import logging
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from math import prod
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from infoassign_backends import kernel
from infoassign_backends.host import as_numpy
from infoassign_backends.joint_torch import off_diagonal, off_diagonal_and_gradients, product
from infoassign_backends.protocol import Backend, Masses, Product, Sweep

__all__ = [
    "TorchSweep",
    "factored",
    "masses",
    "off_diagonal",
    "off_diagonal_and_gradients",
    "plan",
    "prepare",
    "product",
]

LOG = logging.getLogger("infoassign")
OLDEST = (8, 0)
"""Compute capability that the kernels are compiled and tested for at least."""
MOST = 65535
"""Problems of a batch that a launch can have."""
SERVED = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def _tensor(found: Any) -> Tensor:
    return torch.from_numpy(np.asarray(found))


class TorchSweep:
    """Scores on the CPU; see :class:`infoassign_backends.protocol.Sweep`."""

    compute_dtype = vector_dtype = torch.float64

    def __init__(self, scores: Tensor, epsilon: float) -> None:
        self.numpy: Sweep = kernel.KernelSweep(as_numpy(scores), epsilon)
        """The sweep over the same memory, for NumPy's vectors."""
        self.plan_dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
        self.rows = self.numpy.rows
        self.sum_error, self.entry_error = self.numpy.sum_error, self.numpy.entry_error
        self.offset, self.span = _tensor(self.numpy.offset), _tensor(self.numpy.span)

    def __call__(self, potential: Tensor) -> Masses:
        found = self.numpy(as_numpy(potential))
        return Masses(_tensor(found.log_columns), _tensor(found.log_normalizers), found.rows)

    def iter_plan(self, potential: Tensor) -> Iterator[Tensor]:
        return map(_tensor, self.numpy.iter_plan(as_numpy(potential)))

    def labels(self, potential: Tensor) -> Tensor:
        return _tensor(self.numpy.labels(as_numpy(potential)))

    def apply(self, potential: Tensor, x: Tensor) -> Tensor:
        return _tensor(self.numpy.apply(as_numpy(potential), as_numpy(x)))

    def apply_transpose(self, potential: Tensor, y: Tensor) -> Tensor:
        return _tensor(self.numpy.apply_transpose(as_numpy(potential), as_numpy(y)))

    def log_column_sums(self) -> Tensor:
        return _tensor(self.numpy.log_column_sums())

    def sum_rows(self, values: Tensor) -> Tensor:
        return values.sum(dim=-1)

    def bound_rows(self, values: Tensor) -> Tensor:
        return values.amax(dim=-1)


def elsewhere(scores: Tensor) -> Backend:
    """Return what passes over tensors that are not on the CPU."""
    return _elsewhere(scores.device, scores.dtype, many=prod(scores.shape[:-2]) > MOST)


@cache
def _elsewhere(device: torch.device, dtype: torch.dtype, *, many: bool) -> Backend:
    """Choose; that it is the slow way is said once."""
    reason = f"there are more than {MOST} problems in a batch" if many else _unserved(device, dtype)
    name = "torch_triton" if reason is None else "reference"
    if reason is not None:
        LOG.warning("scores of %s on %s take the array-API passes, which are slower: %s", dtype, device, reason)
    return cast(Backend, import_module(f"infoassign_backends.{name}"))


def _unserved(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why the kernels cannot be used, None if they can."""
    if device.type != "cuda":
        return f"there are no kernels for {device.type}"
    if torch.version.hip is not None:
        return "the kernels have not been tried on ROCm"
    if torch.cuda.get_device_capability(device) < OLDEST:
        return "the kernels are for compute capability {}.{} or higher".format(*OLDEST)
    if dtype not in SERVED:
        return "there are no kernels for this dtype"
    if find_spec("triton") is None:
        return "Triton is not installed"
    return None


def prepare(scores: Tensor, epsilon: float) -> Sweep:
    """Prepare torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    scores = scores.detach()
    if scores.device.type == "cpu":
        return TorchSweep(scores, epsilon)
    return elsewhere(scores).prepare(scores, epsilon)


def factored(product: Product, epsilon: float) -> Sweep | None:
    """Prepare products that are not kept; see :class:`infoassign_backends.protocol.Backend`."""
    features = product.features
    return None if features.device.type == "cpu" else elsewhere(features).factored(product, epsilon)


def masses(scores: Tensor, potential: Tensor, epsilon: float, offset: float, known: Tensor) -> Masses:
    """Pass once over torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    scores = scores.detach()
    if scores.device.type != "cpu":
        return elsewhere(scores).masses(scores, potential, epsilon, offset, known)
    found = kernel.masses(as_numpy(scores), as_numpy(potential), epsilon, offset, as_numpy(known))
    return Masses(_tensor(found.log_columns), _tensor(found.log_normalizers), found.rows)


def plan(scores: Tensor, potential: Tensor, epsilon: float) -> Tensor:
    """Return the plan of torch scores; see :class:`infoassign_backends.protocol.Backend`."""
    scores = scores.detach()
    if scores.device.type != "cpu":
        found: Tensor = elsewhere(scores).plan(scores, potential, epsilon)
        return found
    return _tensor(kernel.plan(as_numpy(scores), as_numpy(potential), epsilon))
