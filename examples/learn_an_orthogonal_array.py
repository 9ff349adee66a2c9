"""Minimise IMSVD's loss over nothing but the codes of nine samples, and find an orthogonal array.

Four segments of three units have 81 code words. The loss is least where the nine samples' words are an orthogonal
array: every segment splits the samples in three, and no segment tells anything of another (docs/entropies.md). From
random embeddings an optimiser of scipy's finds one (from some starts; there are local minima), without torch: the
library gives value and gradients. Run it with ``python examples/learn_an_orthogonal_array.py``.
"""

import numpy as np
from scipy.optimize import minimize

import infoassign as ia

LEVELS, FACTORS = 3, 4
ROWS = LEVELS**2
SHAPE = ROWS, FACTORS * LEVELS


def loss(z):
    """The loss of embeddings that both views share, with its gradient."""
    found = ia.imsvd_loss_and_gradient(z.reshape(SHAPE), z.reshape(SHAPE), units=LEVELS)
    return float(found.value), (found.gradient1 + found.gradient2).ravel()


random = np.random.default_rng(0)
ends = [minimize(loss, random.normal(size=SHAPE).ravel(), jac=True, method="L-BFGS-B") for _ in range(20)]
best = min(ends, key=lambda end: end.fun)
bound = sum(ia.entropy_lower_bounds([LEVELS] * FACTORS))
found = sum(end.fun < bound + 0.01 for end in ends)
print(f"the loss ends at {best.fun:.4f} or more, where it cannot be below {bound:.4f}; {found} of 20 starts get there")

words = best.x.reshape(ROWS, FACTORS, LEVELS).argmax(axis=-1)
print("A sample's symbols in each row:")
print(words[np.lexsort(words.T[::-1])])
pairs = [len(set(zip(a.tolist(), b.tolist(), strict=True))) for i, a in enumerate(words.T) for b in words.T[:i]]
print(f"pairs of symbols that any two columns show, of {LEVELS**2}: {pairs}")

codes = np.eye(LEVELS)[words].reshape(SHAPE)
for order in (2, 3):
    shared = ia.total_correlation(codes, LEVELS, order).value / np.log(LEVELS)
    print(f"total correlation of {order} segments: {abs(shared):.3f} log {LEVELS}")
