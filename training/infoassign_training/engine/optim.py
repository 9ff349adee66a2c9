"""Optimisers of the papers that torch does not have, and which parameters decay."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from infoassign_training import config


class Lars(Optimizer):
    """SGD with momentum whose updates have, layer by layer, a length in proportion to the weights.

    For weights w with gradient g, momentum buffer m and rate gamma::

        d = g + weight_decay * w
        m = momentum * m + eta * |w| / |d| * d
        w = w - gamma * m

    Where |w| or |d| is zero, d is taken as it is. Biases and the scales and shifts of normalisation (anything of fewer
    than two dimensions) neither decay nor are scaled.

    This is the form in which MIRA's, Barlow Twins', VICReg's and IMSVD's code has it. timm, lightly and solo-learn have
    ``eta * |w| / (|g| + weight_decay * |w| + eps)``, which is smaller, the more so the less g and w point the same way,
    and equal (but for eps) without weight decay.

    Parameters
    ----------
    params
        Parameters, or groups of them with settings of their own; a schedule changes a group's ``"lr"``.
    lr
        Rate gamma.
    momentum, weight_decay, eta
        As above.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}
        for name, value in defaults.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and not negative; got {value}")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; parameters without a gradient stay, and so do their buffers.

        Parameters
        ----------
        closure
            Computes loss and gradients anew; its loss is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            updates = scaled_gradients(
                weights, [weight.grad for weight in weights], weight_decay=group["weight_decay"], eta=group["eta"]
            )
            for weight in weights:
                if "momentum_buffer" not in self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(weights, buffers, alpha=-group["lr"])
        return loss


def scaled_gradients(
    weights: list[Tensor], gradients: list[Tensor], *, weight_decay: float, eta: float
) -> list[Tensor]:
    """Return what :class:`Lars` adds to its momentum, in the order of `weights`; nothing is changed in place."""
    layers = [index for index, weight in enumerate(weights) if weight.ndim > 1]
    if not layers:
        return gradients
    scaled = [weights[index] for index in layers]
    updates = torch._foreach_add([gradients[index] for index in layers], scaled, alpha=weight_decay)
    lengths = torch.stack(torch._foreach_norm(scaled))
    update_lengths = torch.stack(torch._foreach_norm(updates))
    nonzero = (lengths > 0) & (update_lengths > 0)
    # One factor a layer, all at once and on the device: the host never waits for a norm.
    factors = torch.where(nonzero, eta * lengths / update_lengths, 1.0)
    torch._foreach_mul_(updates, list(factors.unbind()))
    result = list(gradients)
    for index, update in zip(layers, updates, strict=True):
        result[index] = update
    return result


Factor = Callable[[str], float]
"""What the learning rate is multiplied by, by the name of a parameter."""


def _one(_: str) -> float:
    return 1.0


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    *,
    skip_norm_and_bias: bool,
    factor: Factor = _one,
) -> list[dict[str, Any]]:
    """Group the parameters that learn by their weight decay and their share of the learning rate.

    Parameters
    ----------
    module
        Those of its parameters that require a gradient are in one group each; a teacher's do not.
    weight_decay
        L2 penalty.
    skip_norm_and_bias
        Whether everything of fewer than two dimensions (biases, scales and shifts of normalisation) goes without: so in
        MIRA's SGD, as in every LARS here; the digits' recipes and SeLa decay all alike.
    factor
        What the learning rate is multiplied by, by the name of the parameter.

    Returns
    -------
    list of dict
        For every factor the group that decays and, if there are such, the one that does not, with the factor under
        ``"factor"``; learning rates are the optimiser's default.

    Examples
    --------
    >>> groups = parameter_groups(nn.Linear(3, 2), 1e-4, skip_norm_and_bias=True)
    >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
    [(1, 0.0001), (1, 0.0)]
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 or not skip_norm_and_bias
            groups.setdefault((factor(name), not decays), []).append(parameter)
    return [
        {"params": members, "weight_decay": 0.0 if spared else weight_decay, "factor": share}
        for (share, spared), members in sorted(groups.items(), key=lambda item: item[0])
    ]


def optimizer_of(module: nn.Module, chosen: config.Optimizer, factor: Factor = _one) -> Optimizer:
    """Make the optimiser of what learns in a module; rates are set at every step, times the group's factor."""
    lars = chosen.kind == "lars"
    groups = parameter_groups(
        module,
        chosen.weight_decay,
        skip_norm_and_bias=lars or chosen.decay_weights_only,
        factor=factor,
    )
    if lars:
        return Lars(groups, chosen.learning_rate, momentum=chosen.momentum)
    return torch.optim.SGD(groups, chosen.learning_rate, momentum=chosen.momentum)
