"""The papers' losses written out in torch, sharing no code with the library."""

from collections.abc import Sequence

import torch
from torch import Tensor


def listing(
    z1: Tensor,
    z2: Tensor,
    sizes: Sequence[int],
    *,
    entropy: float = 1.0,
    diagonal: float = 1.0,
    off_diagonal: float = 1.0,
    invariance: float = 1.0,
    kind: str = "inner-product",
    normalization: str = "block",
) -> Tensor:
    """MUSIC's listing (appendix A) in float64, a block of P at a time, with the weights of theory B1."""
    q1 = [part.softmax(dim=1) for part in z1.double().split(list(sizes), dim=1)]
    q2 = [part.softmax(dim=1) for part in z2.double().split(list(sizes), dim=1)]
    rows, segments = len(z1), len(sizes)
    if kind == "inner-product":
        disagreement = -torch.stack([(a * b).sum(dim=1).log() for a, b in zip(q1, q2, strict=True)]).mean()
    else:
        disagreement = -torch.stack([(a * b.log()).sum(dim=1) for a, b in zip(q1, q2, strict=True)]).mean()
    on, off = z1.new_zeros((), dtype=torch.float64), z1.new_zeros((), dtype=torch.float64)
    for m1, a in enumerate(q1):
        for m2, b in enumerate(q2):
            block = torch.einsum("np,nq->pq", a, b) / rows
            if m1 == m2:
                on = on + (block.diagonal() * block.diagonal().log()).sum()
            else:
                off = off + (block * block.log()).sum()
    if normalization == "grid":
        on, off = on / segments**2, off / segments**2
    else:
        on, off = on / segments, off / max(segments * (segments - 1), 1)
    return entropy * (diagonal * on + off_diagonal * off) + invariance * disagreement


def einsum_and_mask(z1: Tensor, z2: Tensor, sizes: Sequence[int]) -> Tensor:
    """What one would write from the listing: P whole, masks that select of it; "block" weights, in the dtype given."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    own = owner[:, None] == owner
    on, off = torch.eye(len(owner), dtype=torch.bool), ~own
    q1 = torch.cat([part.softmax(dim=1) for part in z1.split(list(sizes), dim=1)], dim=1)
    q2 = torch.cat([part.softmax(dim=1) for part in z2.split(list(sizes), dim=1)], dim=1)
    inner = torch.stack([part.sum(dim=1) for part in (q1 * q2).split(list(sizes), dim=1)])
    joint = torch.einsum("np,nq->pq", q1, q2) / len(z1)
    diagonal, off_diagonal = joint[on], joint[off]
    segments = len(sizes)
    return (
        (diagonal * diagonal.log()).sum() / segments
        + (off_diagonal * off_diagonal.log()).sum() / max(segments * (segments - 1), 1)
        - inner.log().mean()
    )
