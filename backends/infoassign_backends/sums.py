"""Sums as accurate as a device allows."""

from typing import Any

import array_api_compat as api

from infoassign_backends.protocol import Array

BLOCK = 32
"""Rows that are added up in the precision that they come in."""


def widest(array: Array) -> Any:
    """Return the widest real dtype of the array's device: float64, or float32 where there is none."""
    xp = api.array_namespace(array)
    real = xp.__array_namespace_info__().dtypes(kind="real floating", device=api.device(array))
    return real.get("float64", xp.float32)


def accurate_sum(x: Array, dtype: Any) -> Array:
    """Sum over the last axis in a dtype: as the library does in float64, by a tree where only float32 is at hand.

    A tree of additions is off by log2(n) units at most, whatever the library's own order of n - 1 additions is.
    """
    xp = api.array_namespace(x)
    if dtype != xp.float32:
        return xp.sum(x, axis=-1, dtype=dtype)
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        pairs = x[..., :half] + x[..., half : 2 * half]
        x = xp.concat([pairs, x[..., 2 * half :]], axis=-1)
    return x[..., 0]


def sum_of_rows(x: Array) -> Array:
    """Sum over the rows of a matrix, in the widest dtype: blocks of them as the library does, then the blocks.

    Libraries may add up a column one by one, which in float32 drowns after some thousands.
    """
    xp, wide = api.array_namespace(x), widest(x)
    whole = x.shape[0] - x.shape[0] % BLOCK
    rest = xp.astype(xp.sum(x[whole:, :], axis=0), wide)
    if whole == 0:
        return rest
    blocks = xp.sum(xp.reshape(x[:whole, :], (whole // BLOCK, BLOCK, x.shape[1])), axis=1)
    return xp.sum(blocks, axis=0, dtype=wide) + rest
