"""Compile the sweeps' kernels for GPUs that are not here: run as a program, with Triton's interpreter off.

Every launch of the sweeps is recorded instead of made, and compiled for a compute capability. A line of JSON each says
which kernel it was, of what dtype, and which instructions it has.
"""

import json
import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from infoassign_backends import torch_triton
from infoassign_backends.protocol import Product

POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int64: "*i64",
}
INSTRUCTIONS = ("ex2.approx", "cp.async.c", "mma.sync", "wgmma.mma_async", "ld.global.v4.b32", "ld.global.v2.b64")


def compiled(capability: int, kernel: Any, given: tuple[Any, ...], warps: int, constants: dict[str, Any]) -> Any:
    """Compile a launch."""
    signature: dict[str, str] = {}
    values, divisible = {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], values[(i,)] = "constexpr", constants[name]
        elif isinstance(given[i], torch.Tensor):
            signature[name], divisible[(i,)] = POINTERS[given[i].dtype], [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(given[i], float) else "i32"
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=divisible)
    options = {"num_warps": warps, "enable_fp_fusion": False}
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert found.asm["cubin"]
    return found


def main(capability: int, dtypes: list[str]) -> None:
    """Compile every launch of sweeps over small and large, single and double problems."""
    seen = set()

    def launch(_: Any, kernel: Any, grid: Any, *given: Any, shape: Any, **constants: Any) -> None:
        of = str(given[0].dtype).removeprefix("torch.")
        key = (kernel.fn.__name__, of, *sorted(constants.items()))
        if key in seen:
            return
        seen.add(key)
        found = compiled(capability, kernel, given, shape.warps, constants)
        row = {"kernel": key[0], "dtype": of, "constants": constants, "shared": found.metadata.shared}
        counts = {name: len(re.findall(re.escape(name), found.asm["ptx"])) for name in INSTRUCTIONS}
        print(json.dumps(row | {"instructions": counts}), flush=True)

    torch_triton.launch = launch
    for dtype in (getattr(torch, name) for name in dtypes):
        for columns in (10, 3000, 20_000):
            sweeps = [torch_triton.prepare(torch.zeros(256, columns, dtype=dtype), 0.1)]
            product = Product(torch.zeros(256, 128, dtype=dtype), torch.zeros(columns, 128, dtype=dtype), 1, None, 1, 1)
            if columns == 3000 and dtype != torch.float64:
                sweeps.append(torch_triton.factored(product, 0.1))
            for sweep in sweeps:
                potential = torch.zeros(columns, dtype=torch.float64)
                sweep(potential)
                list(sweep.iter_plan(potential))
                sweep.plain_steps(potential, 1, potential, 1.0)
                sweep.labels(potential)
                sweep.apply(potential, potential)
                sweep.apply_transpose(potential, torch.zeros(256, dtype=torch.float64))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
