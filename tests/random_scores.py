"""Random scores that several tests use."""

from typing import Any

import numpy as np


def scores_of(rows: int = 60, columns: int = 12, scale: float = 1.0, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, columns)) * scale


def with_forbidden_pairs(rows: int = 60, columns: int = 6, seed: int = 0) -> Any:
    scores = scores_of(rows, columns, seed=seed)
    scores[np.random.default_rng(seed).random(scores.shape) < 0.4] = -np.inf
    scores[np.arange(rows), np.arange(rows) % columns] = 0
    return scores
