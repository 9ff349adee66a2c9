"""Say what Triton would compile: run as a program, with its interpreter off and an H100 only pretended.

Launches go their usual way, up to where a kernel would be compiled. A line of JSON lists them for each size of problem.
"""

import json
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from infoassign_backends import torch_triton
from infoassign_backends.protocol import Product, Sweep

FOUND: set[tuple[str, str]] = set()


def instead(*, key: str, fn: Any, **_: Any) -> bool:
    """Take note, and have nothing compiled."""
    FOUND.add((fn.name, key))
    return True


def passes(sweep: Sweep, potential: torch.Tensor, weights: torch.Tensor) -> None:
    """Launch everything there is."""
    sweep(potential)
    list(sweep.iter_plan(potential))
    sweep.plain_steps(potential, 1, potential, 1.0)  # type: ignore[attr-defined]
    sweep.labels(potential)
    sweep.apply(potential, potential)
    sweep.apply_transpose(potential, weights)
    sweep.log_column_sums()


def main() -> None:
    """Go through sizes of dense problems, then of products; the first of each compiles, the others should not."""
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", 90, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda _: 0,
        )
    )
    triton.knobs.runtime.jit_cache_hook = instead
    for size in ((), 256), ((), 255), ((), 1), ((2,), 255), ((3,), 254), ((200,), 30):
        (*batch,), rows = size
        dense = torch_triton.prepare(torch.zeros(*batch, rows, 50), 0.1)
        passes(dense, torch.zeros(*batch, 50).double(), torch.zeros(*batch, rows).double())
        print(json.dumps(["dense", size, sorted(FOUND)]))
        FOUND.clear()
    for rows in 256, 255, 1:
        product = Product(torch.zeros(rows, 20), torch.zeros(50, 20), 0.5, None, 1.0, 1.0)
        sweep = torch_triton.factored(product, 0.1)
        assert sweep is not None
        passes(sweep, torch.zeros(50).double(), torch.zeros(rows).double())
        print(json.dumps(["products", rows, sorted(FOUND)]))
        FOUND.clear()


if __name__ == "__main__":
    main()
