"""Multinomial logistic regression by L-BFGS, on any device, its rows spread over ranks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from infoassign_training.engine import ranks

TOL = 1e-6
"""Largest entry of the gradient that a search ends with."""
HISTORY = 20
"""Pairs of steps and gradients that L-BFGS remembers."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A linear map from features to scores.

    Examples
    --------
    >>> Classifier(torch.eye(2), torch.zeros(2), objective=0.0, slope=0.0)(torch.tensor([[3.0, 4.0]]))
    tensor([[3., 4.]])
    """

    weight: Tensor
    """Shape (C, F)."""
    bias: Tensor
    """Shape (C,)."""
    objective: float
    """What was minimised, at the end."""
    slope: float
    """The largest entry of its gradient there."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return the scores (N, C) of features (N, F)."""
        return features.to(self.weight.dtype) @ self.weight.T + self.bias


@dataclass(frozen=True)
class Regression:
    r"""One problem, for several penalties.

    Minimises over W and b, with :math:`n` rows over all ranks,

    .. math:: \frac1n \sum_i \ell(W x_i + b, y_i) + \frac{1}{2 n C} \|W\|^2,

    which is scikit-learn's objective over :math:`nC`. The loss is the cross-entropy, or for several classes an image
    the sum over classes of the logistic loss, without those that do not count.

    The search takes place in other coordinates, of which each has about the same curvature: features are centred,
    which the bias makes good, and divided by ``sqrt(variance + 1 / (n C))``. The objective, and its minimum, stay
    what they are; features of very different sizes then need hundreds of iterations less.

    All ranks make it and call it together.

    Parameters
    ----------
    features
        This rank's, shape (n_r, F); computed with in their dtype, so float64 for more than six digits.
    truth
        Classes (n_r,), int64, or presence (n_r, C), int8: 1, 0, or -1 for what does not count.
    count
        Number of classes C.

    Examples
    --------
    >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    >>> found = Regression(features, torch.tensor([0, 0, 1, 1]), 2).fit(1.0)
    >>> found(features).argmax(dim=1)
    tensor([0, 0, 1, 1])
    """

    features: Tensor
    truth: Tensor
    count: int

    @cached_property
    def _rows(self) -> float:
        return float(summed(self.features.new_tensor(float(len(self.features)), dtype=torch.float64)))

    @cached_property
    def _mean(self) -> Tensor:
        return summed(self.features.sum(dim=0)) / self._rows

    @cached_property
    def _centred(self) -> Tensor:
        return self.features - self._mean

    @cached_property
    def _variance(self) -> Tensor:
        return summed(torch.linalg.vector_norm(self._centred, dim=0).square()) / self._rows

    def fit(
        self, strength: float, start: Classifier | None = None, *, max_iterations: int = 5000, tol: float = TOL
    ) -> Classifier:
        """Fit.

        Parameters
        ----------
        strength
            C, > 0: the larger, the weaker the penalty.
        start
            Where to start, such as the solution for another penalty; zeros if there is none.
        max_iterations
            Of L-BFGS at most.
        tol
            It ends when no entry of the gradient, in the coordinates of the search, is larger.

        Returns
        -------
        Classifier
            The same on all ranks.
        """
        like, rows, mean, centred = self.features, self._rows, self._mean, self._centred
        penalty = 1 / (rows * strength)
        scale = (self._variance + penalty).sqrt()
        inner = like.new_zeros(self.count, like.shape[1] + 1)
        if start is not None:
            inner[:, :-1] = start.weight * scale
            inner[:, -1] = start.bias + start.weight @ mean
        loss = _cross_entropy if self.truth.ndim == 1 else _logistic
        optimizer = torch.optim.LBFGS(
            [inner],
            max_iter=max_iterations,
            max_eval=2 * max_iterations,
            history_size=HISTORY,
            tolerance_grad=tol,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            weight, bias = (inner[:, :-1] / scale).requires_grad_(), inner[:, -1].clone().requires_grad_()
            with torch.enable_grad():
                value = loss(F.linear(centred, weight, bias), self.truth) / rows
            slopes = torch.autograd.grad(value, (weight, bias))
            # One sum over ranks for the value and the gradient.
            packed = summed(torch.cat([value.detach()[None], slopes[0].flatten(), slopes[1]]))
            slope = packed[1 : 1 + weight.numel()].view_as(weight) + penalty * weight.detach()
            inner.grad = torch.cat([slope / scale, packed[1 + weight.numel() :, None]], dim=1)
            return packed[0] + penalty / 2 * weight.detach().square().sum()

        optimizer.step(objective)
        value = float(objective())
        assert inner.grad is not None
        weight = inner[:, :-1] / scale
        return Classifier(weight, inner[:, -1] - weight @ mean, value, float(inner.grad.abs().max()))


Loss = Callable[[Tensor, Tensor], Tensor]
"""Of logits (n, C) and the truth, summed over rows."""


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    return F.cross_entropy(logits, classes, reduction="sum")


def _logistic(logits: Tensor, presence: Tensor) -> Tensor:
    counted = (presence >= 0).to(logits.dtype)
    truth = (presence == 1).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, truth, weight=counted, reduction="sum")


def summed(values: Tensor) -> Tensor:
    """Return the sum over ranks."""
    all_sum = ranks.all_sum()
    return values if all_sum is None else all_sum(values.clone())
