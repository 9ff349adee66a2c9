"""A backend of your own in 40 lines: NumPy's scores some rows at a time, for less memory.

Run it with ``python examples/own_backend.py``; it needs the extra ``testing``, whose laws say if it is right. The
built-in one keeps a matrix of the size of the scores, so that a pass is fast; this one keeps nothing of their size and
computes in their own precision. (Without a backend, ``ia.StreamedScores(scores)`` saves the memory, too.)
"""

import sys
from time import perf_counter
from tracemalloc import get_traced_memory, start, stop

import numpy as np

import infoassign as ia
from infoassign.testing import laws
from infoassign_backends import BACKENDS
from infoassign_backends.numpy_backend import factored, masses, off_diagonal, off_diagonal_and_gradients, plan, product
from infoassign_backends.protocol import Masses
from infoassign_backends.reference import LogSweep

__all__ = ["factored", "masses", "off_diagonal", "off_diagonal_and_gradients", "plan", "prepare", "product"]
ROWS = 1024


class BlockSweep:
    """A pass over scores (..., B, K) that prepares 1024 rows, uses them, and forgets them."""

    def __init__(self, scores, epsilon):
        self.rows, self.columns = scores.shape[-2:]
        self._blocks = lambda: (LogSweep(scores[..., i : i + ROWS, :], epsilon) for i in range(0, self.rows, ROWS))
        for name in ("compute_dtype", "plan_dtype", "vector_dtype", "entry_error"):
            setattr(self, name, getattr(next(self._blocks()), name))
        self.sum_error = (self.rows + self.columns) * np.finfo(self.vector_dtype).eps
        self.offset = sum(block.offset * block.rows for block in self._blocks()) / self.rows
        self.span = np.max([block.span for block in self._blocks()], axis=0)

    def __call__(self, potential):
        found = [block(potential) for block in self._blocks()]
        log_columns = np.logaddexp.reduce([of.log_columns for of in found])
        return Masses(log_columns, sum(of.log_normalizers for of in found), self.rows)

    def iter_plan(self, potential):
        yield np.concatenate([part for block in self._blocks() for part in block.iter_plan(potential)], axis=-2)

    def labels(self, potential):
        return np.concatenate([block.labels(potential) for block in self._blocks()], axis=-1)

    def apply(self, potential, x):
        return np.concatenate([block.apply(potential, x) for block in self._blocks()], axis=-1)

    def apply_transpose(self, potential, y):
        parts = (y[..., i : i + ROWS] for i in range(0, self.rows, ROWS))
        return sum(block.apply_transpose(potential, part) for block, part in zip(self._blocks(), parts, strict=True))

    def log_column_sums(self):
        return np.logaddexp.reduce([block.log_column_sums() for block in self._blocks()])

    def sum_rows(self, values):
        return values.sum(axis=-1, dtype=self.vector_dtype)

    def bound_rows(self, values):
        return values.max(axis=-1)


prepare = BlockSweep

if __name__ == "__main__":
    laws.backend(sys.modules[__name__])
    print("No law is broken.")
    scores = np.random.default_rng(0).normal(size=(20_000, 250)).astype(np.float32)
    for name in (BACKENDS["numpy"], __name__):
        BACKENDS["numpy"] = name
        ia.mira(scores)  # once, to have everything loaded
        start()
        began = perf_counter()
        found = ia.mira(scores)
        seconds, (_, peak) = perf_counter() - began, get_traced_memory()
        stop()
        print(f"{name}: {1000 * seconds:.0f} ms, memory of {peak / scores.nbytes:.1f} x the scores', {found}")
