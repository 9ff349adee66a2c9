"""The exponential moving average that a teacher is of its student."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def update(average: nn.Module, model: nn.Module, momentum: float, *, buffers: bool) -> None:
    """Move `average` towards `model`: ``momentum * average + (1 - momentum) * model``.

    Parameters
    ----------
    average
        Changed in place; a module like `model`, for instance a deep copy. Parameters are matched by their order.
    model
        Left as it is.
    momentum
        In [0, 1]: 1 leaves `average` where it is, 0 makes it a copy.
    buffers
        Whether to average the statistics of batch normalisation too, and to copy what is not of a floating dtype (its
        counts of batches). MIRA's code averages parameters alone, and its teacher keeps statistics of its own.

    Raises
    ------
    ValueError
        If the modules do not match.
    """
    kept: list[Tensor] = list(average.parameters())
    new: list[Tensor] = list(model.parameters())
    if buffers:
        kept += average.buffers()
        new += model.buffers()
    if [tensor.shape for tensor in kept] != [tensor.shape for tensor in new]:
        raise ValueError("a moving average needs a module of the same shapes; got another one")
    pairs = list(zip(kept, new, strict=True))
    averaged = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([old for old, _ in averaged], [newer for _, newer in averaged], 1 - momentum)
    for count, newer in pairs:
        if not count.is_floating_point():
            count.copy_(newer)
