"""What a gradient costs: uv run python tests/benchmarks/gradients.py prints the table of docs/gradients.md."""

from statistics import median
from time import perf_counter

import torch
from problems import table

import infoassign as ia
from infoassign import implicit


def main() -> None:
    """Solve and differentiate every problem of the table three times."""
    products = 0
    smoothed = implicit.smoothed

    def counted(optimum: implicit.Optimum, x: torch.Tensor) -> torch.Tensor:
        nonlocal products
        products += 1
        return smoothed(optimum, x)

    implicit.smoothed = counted
    for problem in table():
        scores = torch.from_numpy(problem.scores).requires_grad_()
        slope = torch.randn(scores.shape, dtype=scores.dtype, generator=torch.Generator().manual_seed(0))
        forward, backward = [], []
        for _ in range(3):
            products, start = 0, perf_counter()
            assignment = ia.assign(scores, epsilon=problem.epsilon, strength=problem.strength, gradient="implicit")
            loss = (assignment.plan * slope).sum()
            solved = perf_counter()
            torch.autograd.grad(loss, scores)
            forward.append(solved - start)
            backward.append(perf_counter() - solved)
        times = f"{median(forward) * 1e3:.0f} ms | {median(backward) * 1e3:.0f} ms"
        print(f"| {problem.name} | {assignment.sweeps} | {times} | {products} |")


if __name__ == "__main__":
    main()
