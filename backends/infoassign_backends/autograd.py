"""What torch functions with a backward pass of their own have in common."""

from typing import Any

import torch
from torch import Tensor


class _Refusal(torch.autograd.Function):
    """Tensors as they are, which cannot be differentiated: gradients that would come out wrong unnoticed."""

    @staticmethod
    def forward(ctx: Any, message: str, source: Tensor, *gradients: Tensor) -> tuple[Tensor, ...]:
        ctx.message = message
        return tuple(gradient.clone() for gradient in gradients)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(ctx.message)


def first_order_only(message: str, gradients: list[Tensor | None], saved: tuple[Tensor, ...]) -> list[Tensor | None]:
    """Let gradients that are asked for with a graph of their own say, when it is used, that there is none.

    torch's ``once_differentiable`` does so only where the slope that comes in has a graph, which that of a plain sum
    has not.
    """
    if not torch.is_grad_enabled():
        return gradients
    source = next(tensor for tensor in saved if tensor.requires_grad)
    refusing = iter(_Refusal.apply(message, source, *(gradient for gradient in gradients if gradient is not None)))
    return [None if gradient is None else next(refusing) for gradient in gradients]
