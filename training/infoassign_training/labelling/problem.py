"""What is solved, without what solves it: help is to be there at once."""

from dataclasses import dataclass
from math import inf
from typing import Any, Literal, TypeAlias

from infoassign_training.checks import require, require_positive

Metric: TypeAlias = Literal["product", "cosine", "euclidean"]
"""What a score of features f for prototypes p is: ``<f, p>``, that of both over their lengths, or ``-|f - p|^2``."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is solved, on scores / temperature; see :func:`infoassign.assign`."""

    method: Literal["mira", "sinkhorn"] = "mira"
    """mira: as informative as the probabilities allow. sinkhorn: in given shares."""
    epsilon: float = 1 / 3
    """Weight of the entropy; 1 - beta for mira, on log-probabilities."""
    strength: float = 2 / 3
    """Weight of the shares; beta for mira, infinite for sinkhorn."""
    temperature: float = 1.0
    """What divides the scores."""
    prior: tuple[float, ...] | None = None
    """The shares; None for equal ones."""

    def __post_init__(self) -> None:
        require_positive(self, "problem", "epsilon", "temperature")
        require(self.strength >= 0, f"problem.strength must not be negative; got {self.strength}")

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        strength = "infinite" if self.strength == inf else self.strength
        prior = "uniform" if self.prior is None else "given"
        return {
            "method": self.method,
            "epsilon": self.epsilon,
            "strength": strength,
            "temperature": self.temperature,
            "prior": prior,
        }
