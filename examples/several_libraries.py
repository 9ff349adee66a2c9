"""The same labels from every array library that is installed, each as arrays of its own.

Run it with ``python examples/several_libraries.py``; NumPy is enough, and torch, JAX, CuPy and array-api-strict join in
where they are installed (on CUDA where there is a device). JAX compiles every operation anew for every shape, which
takes most of the time here; a second solve of the same shapes takes a tenth of a second.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

import infoassign as ia

Copy = Callable[[Any], Any]


def libraries() -> Iterator[tuple[str, Copy, Copy]]:
    """Yield libraries by name, with functions that bring an array of NumPy's there and back."""
    yield "NumPy", np.asarray, np.asarray
    if find_spec("torch"):
        import torch

        yield "torch", torch.from_numpy, torch.Tensor.numpy
        if torch.cuda.is_available():
            yield "torch, CUDA", lambda x: torch.from_numpy(x).cuda(), lambda x: x.cpu().numpy()
    if find_spec("jax"):
        import jax

        jax.config.update("jax_enable_x64", True)  # without it, JAX computes and certifies in single precision
        yield "JAX", jax.numpy.asarray, np.asarray
    if find_spec("array_api_strict"):
        import array_api_strict

        yield "strict", array_api_strict.asarray, np.from_dlpack
    if find_spec("cupy"):
        import cupy

        if cupy.is_available():
            yield "CuPy", cupy.asarray, cupy.asnumpy


def main() -> None:
    """Solve one problem everywhere; say how far each plan is from NumPy's, and what the certificates allow."""
    scores = np.random.default_rng(0).normal(size=(1000, 30)) * 2
    first = ia.mira(scores)
    print(f"{'library':<11}  {'its plan is a':<26}  sweeps  certified error  off NumPy's by  information")
    for name, there, back in libraries():
        found = ia.mira(there(scores))
        kind = f"{type(found.plan).__module__.partition('.')[0]}.{type(found.plan).__name__}"
        off = np.abs(back(found.plan) - first.plan).sum(axis=1).mean() / 2
        assert off <= found.error_bound + first.error_bound  # both are that near to the one solution
        print(
            f"{name:<11}  {kind:<26}  {found.sweeps:6d}  {found.error_bound:15.1e}  {off:14.1e}"
            f"  {found.mutual_information:.4f} nats"
        )


if __name__ == "__main__":
    main()
