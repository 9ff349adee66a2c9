"""IMSVD's loss and gradient at the papers' size, beside what one would write from the listing.

``uv run python tests/benchmarks/joint_entropy.py`` prints the table of docs/entropies.md: medians of runs by turns in
one process, and the most memory that each added while it ran.
"""

import sys
from collections.abc import Callable
from ctypes import CDLL
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from memory import Peak, anonymous
from torch import Tensor

import infoassign as ia

sys.path.append(str(Path(__file__).parents[1]))
from joint_entropy_oracles import einsum_and_mask, listing

ROWS, UNITS, SEGMENTS = 1024, 80, 102
REPEATS = 7
Run = Callable[[Tensor, Tensor], tuple[float, Tensor]]


def products(z1: Tensor, z2: Tensor) -> Tensor:
    """The same with masks that multiply instead of selecting: fewer passes over P, of which there are more copies."""
    rows, segments = len(z1), z1.shape[1] // UNITS
    q1, q2 = (z.view(rows, segments, UNITS).softmax(dim=2) for z in (z1, z2))
    joint = torch.einsum("np,nq->pq", q1.flatten(1), q2.flatten(1)) / rows
    owner = torch.arange(segments, device=z1.device).repeat_interleave(UNITS)
    identity = torch.eye(len(owner), device=z1.device)
    weight = (owner[:, None] != owner) / (segments * (segments - 1)) + identity / segments
    return (joint * joint.log() * weight).sum() - (q1 * q2).sum(dim=2).log().mean()


def by_autograd(loss: Callable[[Tensor, Tensor], Tensor]) -> Run:
    """Forward and backward of a loss."""

    def run(z1: Tensor, z2: Tensor) -> tuple[float, Tensor]:
        z = [view.clone().requires_grad_() for view in (z1, z2)]
        value = loss(*z)
        value.backward()
        return value.item(), torch.stack([view.grad for view in z])  # type: ignore[misc]

    return run


def numpy(z1: Tensor, z2: Tensor) -> tuple[float, Tensor]:
    """Without torch."""
    found = ia.imsvd_loss_and_gradient(z1.numpy(), z2.numpy(), units=UNITS)
    return float(found.value), torch.stack([torch.from_numpy(found.gradient1), torch.from_numpy(found.gradient2)])


def floor(z1: Tensor, z2: Tensor) -> tuple[float, Tensor]:
    """The three products of matrices that any way through P needs."""
    joint = z1.T @ z2
    return 0.0, torch.stack([z2 @ joint.T, z1 @ joint])


def main() -> None:
    """Measure, and print a table in Markdown."""
    generator = torch.Generator().manual_seed(0)
    z1 = torch.randn(ROWS, UNITS * SEGMENTS, generator=generator)
    z2 = z1 + torch.randn(z1.shape, generator=generator) / 2
    sizes = [UNITS] * SEGMENTS
    runs: dict[str, Run] = {
        "infoassign, torch": by_autograd(partial(ia.imsvd_loss, units=UNITS)),
        "infoassign, NumPy": numpy,
        "einsum, masks that select": by_autograd(partial(einsum_and_mask, sizes=sizes)),
        "einsum, masks that multiply": by_autograd(products),
        "the three products alone": floor,
    }
    _, expected = by_autograd(partial(listing, sizes=sizes))(z1, z2)
    times: dict[str, list[float]] = {name: [] for name in runs}
    memory: dict[str, int] = {}
    errors: dict[str, float] = {}
    for name, run in runs.items():  # which warms up, too
        CDLL(None).malloc_trim(0)  # what is free goes back, or it would count as there before
        before = anonymous()
        with Peak() as peak:
            _, gradients = run(z1, z2)
        memory[name] = peak.bytes - before
        errors[name] = float((gradients - expected).abs().max() / expected.abs().max())
        del gradients
    for _ in range(REPEATS):
        for name, run in runs.items():
            start = perf_counter()
            run(z1, z2)
            times[name].append(perf_counter() - start)
    ours = median(times["infoassign, torch"])
    print("| | seconds | of ours | extra memory, MB | error of the gradient |\n|---|---|---|---|---|")
    for name, taken in times.items():
        spread = f"{median(taken):.2f} ({min(taken):.2f} to {max(taken):.2f})"
        error = "" if name.startswith("the three") else f"{errors[name]:.0e}"
        print(f"| {name} | {spread} | {median(taken) / ours:.2f} | {memory[name] / 1e6:.0f} | {error} |")


if __name__ == "__main__":
    main()
