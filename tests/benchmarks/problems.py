"""Named, seeded assignment problems: the table that accelerated solvers are measured on, and a suite of thirty."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax


class Problem(NamedTuple):
    """Scores and the member of the family that is to be solved on them."""

    name: str
    scores: Any
    epsilon: float
    strength: float
    prior: Any = None


def similarities(rows: int, columns: int, *, seed: int = 0, noise: float = 1.0) -> Any:
    """Cosines of samples around 1000 centres of unequal popularity, with prototypes around centres drawn alike."""
    random = np.random.default_rng(seed)

    def unit(x: Any) -> Any:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    centres = unit(random.normal(size=(1000, 256)))
    popularity = 1 / np.sqrt(np.arange(1, 1001))
    drawn = random.choice(1000, size=rows, p=popularity / popularity.sum())
    samples = unit(centres[drawn] + noise * random.normal(size=(rows, 256)) / 16)
    prototypes = unit(centres[random.integers(1000, size=columns)] + 0.7 * random.normal(size=(columns, 256)) / 16)
    return samples @ prototypes.T


def mira(name: str, scores: Any, beta: float, prior: Any = None) -> Problem:
    return Problem(name, scores, 1 - beta, beta, prior)


def table(seed: int = 0) -> list[Problem]:
    """The six of theory.md, A12."""
    large = similarities(1024, 1500, seed=seed)
    return [
        mira("MIRA beta 2/3", large / 0.225, 2 / 3),
        mira("MIRA beta 0.9", large / 0.225, 0.9),
        mira("MIRA beta 0.99", large / 0.225, 0.99),
        mira("MIRA beta 0.999, 256 x 384", similarities(256, 384, seed=seed) / 0.225, 0.999),
        Problem("SwAV eps 0.05", large, 0.05, np.inf),
        Problem("SeLa lambda 25", log_softmax(20 * similarities(2048, 500, seed=seed), axis=1), 1 / 25, np.inf),
    ]


def suite() -> list[Problem]:
    """Thirty problems from easy to nearly degenerate, small enough that plain steps can be waited for."""
    random = np.random.default_rng(7)
    cosines = similarities(256, 100)
    normal = random.normal(size=(200, 30))
    tall, wide = random.normal(size=(2000, 8)), random.normal(size=(20, 150))
    tailed = 1 / np.arange(1, 31)
    tailed /= tailed.sum()
    rare = np.full(30, (1 - 1e-6) / 29)
    rare[3] = 1e-6
    masked = np.where(random.random(normal.shape) < 0.5, -np.inf, normal)
    masked[:, 0] = normal[:, 0]
    low = normal.copy()
    low[:, 5] = -1e4
    two_kinds = np.log([[0.7, 0.3]] * 9 + [[0.3, 0.7]])
    clustered = np.repeat(random.normal(size=(10, 30)) * 5, 20, axis=0) + normal / 10
    return [
        mira("cosines, beta 0.5", cosines / 0.225, 0.5),
        mira("cosines, beta 2/3", cosines / 0.225, 2 / 3),
        mira("cosines, beta 0.9", cosines / 0.225, 0.9),
        mira("cosines, beta 0.99", cosines / 0.225, 0.99),
        mira("cosines, beta 0.999", cosines / 0.225, 0.999),
        mira("normal, beta 0.1", normal, 0.1),
        mira("normal, beta 0.9", normal, 0.9),
        mira("normal, beta 0.99", normal, 0.99),
        mira("sharp normal, beta 0.9", 10 * normal, 0.9),
        mira("flat normal, beta 0.99", normal / 100, 0.99),
        mira("tall, beta 0.95", tall, 0.95),
        mira("wide, beta 0.95", wide, 0.95),
        mira("two kinds of rows, beta 0.99", two_kinds, 0.99),
        mira("identical rows, beta 0.9", np.tile(normal[:1], (50, 1)), 0.9),
        mira("identical columns, beta 0.9", np.tile(normal[:, :1], (1, 7)), 0.9),
        mira("clusters, beta 0.9", clustered, 0.9),
        mira("masked, beta 0.9", masked, 0.9),
        mira("a column at -1e4, beta 0.9", low, 0.9),
        mira("long-tailed prior, beta 0.9", normal, 0.9, tailed),
        mira("a rare label, beta 0.9", normal, 0.9, rare),
        Problem("cosines, equal shares, eps 0.05", cosines, 0.05, np.inf),
        Problem("cosines, equal shares, eps 0.01", cosines, 0.01, np.inf),
        Problem("normal, equal shares, eps 1", normal, 1.0, np.inf),
        Problem("normal, equal shares, eps 0.1", normal, 0.1, np.inf),
        Problem("normal, long-tailed shares", normal, 0.2, np.inf, tailed),
        Problem("normal, a rare label, exactly", normal, 0.5, np.inf, rare),
        Problem("masked, equal shares", masked, 0.5, np.inf),
        Problem("tall, equal shares", tall, 0.1, np.inf),
        Problem("wide, equal shares", wide, 0.3, np.inf),
        Problem("clusters, strong pull to equal shares", clustered, 0.5, 50.0),
    ]
