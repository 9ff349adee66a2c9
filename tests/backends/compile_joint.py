"""The joint entropy's Triton kernels compiled for devices that need not be there.

``TRITON_INTERPRET=0 python tests/backends/compile_joint.py 80 90`` prints, for each kernel, what it is compiled for,
its shared memory and its matrix instructions, and with a folder as the last argument puts PTX and machine code there,
for ``cuobjdump -res-usage``.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from infoassign_backends import triton_joint

NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
MATRIX = re.compile(r"\b(?:wgmma\.mma_async|tcgen05\.mma|mma\.sync)\.\S+")


def cases(architecture: int) -> Iterator[tuple[str, Any, str, dict[str, Any], list[str]]]:
    """Yield a name, a kernel, the dtype of its operands, its options and the strides that are 1."""
    capability = divmod(architecture, 10)
    large = triton_joint.LARGE_FROM <= capability < triton_joint.LARGE_BELOW
    tiles = triton_joint.LARGE if large else triton_joint.SMALL
    for dtype, name in NAMES.items():
        ones = ["first_sample", "second_sample"] if dtype == torch.float32 else ["first_unit", "second_unit"]
        for split in (False, True) if dtype == torch.float32 else (False,):
            tile = tiles.split if split else tiles.half if dtype.itemsize == 2 else tiles.tf32
            for samples in (2048, 2064):  # whole, and not
                options = triton_joint._options(tile, samples, split)
                for slope in (True, False):
                    what = f"_panel {'tf32x3' if split else name} {samples}{' slope' if slope else ''}"
                    yield what, triton_joint._panel, name, options | {"WITH_SLOPE": slope}, ones
        rows = {"HEIGHT": 4, "WIDTH": 512, "num_warps": 8, "enable_fp_fusion": True}
        yield f"_sum_rows {name}", triton_joint._sum_rows, name, rows, ["view_unit"]
    for right in ("right_term", "right_column"):  # slopes as they are, and turned
        options = triton_joint._options(tiles.split, 1024, True)
        yield f"_add tf32x3 {right}", triton_joint._add, "fp32", options, ["left_term", right]


def compiled(architecture: int, kernel: Any, dtype: str, options: dict[str, Any], ones: list[str]) -> Any:
    """Compile a kernel for arguments that are multiples of 16, as those of the papers' size are."""
    names = kernel.arg_names
    known = {name: value for name, value in options.items() if name in names} | dict.fromkeys(ones, 1)
    pointers = {"owner1": "*i32", "owner2": "*i32", "level": "*fp32", "level1": "*fp32", "level2": "*fp32"}
    pointers |= dict.fromkeys(("first", "second", "left", "right", "view", "slopes"), f"*{dtype}")
    pointers |= {"into": "*fp32", "leveled": "*fp32", "sums": "*fp32" if "leveled" in names else "*fp64"}
    signature = {
        name: "constexpr" if name in known else pointers.get(name, "fp32" if name == "scale" else "i32")
        for name in names
    }
    aligned = [i for i, name in enumerate(names) if name not in known and name != "scale"]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in known.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    rest = {name: value for name, value in options.items() if name not in names}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=rest)


def main() -> None:
    """Compile all, and say what came out."""
    *numbers, last = sys.argv[1:]
    folder = None if last.isdecimal() else Path(last)
    for architecture in map(int, numbers if folder else [*numbers, last]):
        for what, *case in cases(architecture):
            found = compiled(architecture, *case)
            ptx = found.asm["ptx"]
            if folder:
                path = folder / f"{what.replace(' ', '-')}-{architecture}"
                path.with_suffix(".ptx").write_text(ptx)
                path.with_suffix(".cubin").write_bytes(found.asm["cubin"])
            row = {"architecture": architecture, "kernel": what, "shared": found.metadata.shared}
            print(json.dumps(row | {"matrix": Counter(MATRIX.findall(ptx))}), flush=True)


if __name__ == "__main__":
    main()
