"""One step's gradients: of a batch at once, or of pieces of it with the labels and the loss of the whole."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from infoassign_training import timing
from infoassign_training.engine import ranks
from infoassign_training.methods.method import Batch, Method, Moment, Step

Precision = Literal["float32", "bfloat16", "float16"]


class Stepper(nn.Module):
    """A method as it is called for a step: networks in the chosen precision, labels and losses in single.

    Parameters
    ----------
    method
        The method.
    precision
        That of the networks' products; weights stay as they are.
    """

    def __init__(self, method: Method, precision: Precision) -> None:
        super().__init__()
        self.method = method
        self.precision = precision

    def forward(self, batch: Batch, now: Moment, slopes: "Slopes | None" = None) -> Step:
        """Return the loss of a whole batch; or, given `slopes`, what has a piece's share of that loss's gradient."""
        with timing.part(timing.COMPUTE), self.autocast(batch):
            outputs = self.method.outputs(batch.views)
            constants = [] if slopes else self.method.constants(batch.views)
        if slopes is not None:
            return Step(slopes.times(single(outputs)))
        with timing.part(timing.ASSIGNMENT):
            return self.method.loss(single(outputs), single(constants), batch, now)

    def autocast(self, batch: Batch) -> torch.autocast:
        """Compute in the chosen precision."""
        device = batch.views[0].device.type
        return torch.autocast(device, getattr(torch, self.precision), enabled=self.precision != "float32")


def single(outputs: list[Tensor]) -> list[Tensor]:
    """Return what half precision gave in single."""
    return [output.float() if output.dtype in (torch.bfloat16, torch.float16) else output for output in outputs]


class Slopes:
    """The gradient of a batch's loss in what the networks gave of a piece, and in the parameters of the loss itself."""

    def __init__(self, outputs: list[Tensor | None], parameters: list[tuple[nn.Parameter, Tensor]]) -> None:
        self.outputs = outputs
        self.parameters = parameters

    def times(self, outputs: list[Tensor]) -> Tensor:
        """Return the scalar product with outputs and parameters, whose gradient is the loss's."""
        pairs = [(output, slope) for output, slope in zip(outputs, self.outputs, strict=True) if slope is not None]
        return torch.stack([(left * right).sum() for left, right in [*pairs, *self.parameters]]).sum()


def backward(module: nn.Module, batch: Batch, now: Moment, *, pieces: int, scale: Tensor, seed: int) -> Step:
    """Add the gradients of a batch's loss to the parameters.

    In pieces, the batch first goes through the networks without gradients, a piece after the other; labels and loss are
    made of all that came out; and then every piece goes through once more, with the loss's gradient in its outputs
    (gradient caching; Gao et al., 2021). It takes the memory of a piece, and a forward pass more. But for batch
    normalisation, which sees a piece at a time, the gradients are those of the batch at once.

    Parameters
    ----------
    module
        A `Stepper`, or one shared by ranks.
    batch
        This rank's part.
    now
        When.
    pieces
        How many; 1 for the batch at once.
    scale
        A tensor of shape () that multiplies the gradients, against underflow in float16.
    seed
        For dropout, which must be the same in both passes.

    Returns
    -------
    Step
        Of the whole batch; its loss is no longer differentiable.

    Raises
    ------
    ValueError
        If the solver refuses what the networks gave.
    """
    torch.manual_seed(seed)
    if pieces == 1:
        step: Step = module(batch, now)
        if _finite(step.loss):
            with timing.part(timing.COMPUTE):
                (step.loss * scale).backward()
        return replace(step, loss=step.loss.detach())
    stepper: nn.Module = module.module if isinstance(module, DistributedDataParallel) else module
    assert isinstance(stepper, Stepper)
    parts = list(_pieces(batch, pieces))
    step, slopes = _whole(stepper, batch, parts, now, scale, seed)
    if _finite(step.loss):
        for number, (part, slope) in enumerate(zip(parts, slopes, strict=True)):
            torch.manual_seed(seed + number)
            last = number == pieces - 1
            alone = module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext()
            with timing.part(timing.COMPUTE), alone:
                module(part, now, slope).loss.backward()
    return step


def _finite(loss: Tensor) -> bool:
    """Say whether the loss is finite on all ranks: none is to wait in the backward pass for one that is not there."""
    return not ranks.any_of(not bool(loss.isfinite()))


def _pieces(batch: Batch, pieces: int) -> Iterator[Batch]:
    """Yield pieces of a batch, in its order."""
    views = zip(*(view.chunk(pieces) for view in batch.views), strict=True)
    for some, rows, classes in zip(views, batch.rows.chunk(pieces), batch.classes.chunk(pieces), strict=True):
        yield Batch(list(some), rows, classes)


def _whole(
    stepper: Stepper, batch: Batch, parts: list[Batch], now: Moment, scale: Tensor, seed: int
) -> tuple[Step, list[Slopes]]:
    """Return the step of the whole batch, and for every piece the gradient of its loss."""
    method = stepper.method
    found, fixed = [], []
    with timing.part(timing.COMPUTE), torch.no_grad():
        for number, part in enumerate(parts):
            torch.manual_seed(seed + number)
            with stepper.autocast(part):
                with _statistics_kept(method):
                    found.append(single(method.outputs(part.views)))
                fixed.append(single(method.constants(part.views)))
    outputs = [torch.cat(pieces).requires_grad_() for pieces in zip(*found, strict=True)]
    with timing.part(timing.ASSIGNMENT):
        step = method.loss(outputs, [torch.cat(pieces) for pieces in zip(*fixed, strict=True)], batch, now)
    learning = [parameter for parameter in method.parameters() if parameter.requires_grad]
    inputs = [*outputs, *learning]
    with timing.part(timing.ASSIGNMENT):
        gradients = torch.autograd.grad(step.loss * scale, inputs, allow_unused=True)
    own = [(w, slope) for w, slope in zip(learning, gradients[len(outputs) :], strict=True) if slope is not None]
    chunks = [
        [None] * len(parts) if slope is None else list(slope.split([len(part.rows) for part in parts]))
        for slope in gradients[: len(outputs)]
    ]
    slopes = [Slopes(list(some), []) for some in zip(*chunks, strict=True)]
    # Once, in the last piece, where ranks share the gradients of all.
    slopes[-1].parameters = own
    return replace(step, loss=step.loss.detach()), slopes


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Leave running statistics alone: the second pass over a piece adds them."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    counts = [None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone() for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, count in zip(layers, momenta, counts, strict=True):
            layer.momentum = momentum
            if layer.num_batches_tracked is not None and count is not None:
                layer.num_batches_tracked.copy_(count)
