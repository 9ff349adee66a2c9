"""Importing the library is light: no framework, no device."""

import subprocess
import sys

HEAVY = ("torch", "cupy", "numba", "jax", "scipy", "sklearn", "matplotlib", "torchvision", "datasets")


def loaded_after(code: str) -> set[str]:
    """Return which of the heavy packages a fresh interpreter holds after running the code."""
    script = f"{code}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(finished.stdout.split())


def test_importing_pulls_in_no_framework() -> None:
    assert loaded_after("import infoassign, infoassign_backends, infoassign_training") == set()


def test_solving_on_numpy_pulls_in_no_framework() -> None:
    assert loaded_after("import numpy, infoassign\ninfoassign.mira(numpy.zeros((3, 2))).plan") == set()


def test_importing_opens_no_device_even_where_torch_is_loaded() -> None:
    script = "import torch, infoassign; assert not torch.cuda.is_initialized()"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_probe_sees_what_is_imported() -> None:
    assert "scipy" in loaded_after("import scipy")


def test_torchs_compiler_is_not_loaded_where_nobody_compiles() -> None:
    """It takes seconds."""
    script = """
import sys, torch, infoassign
z = torch.randn(6, 4, requires_grad=True)
loaded = "torch._dynamo" in sys.modules
infoassign.imsvd_loss(z, z, units=2).backward()
infoassign.mira(z).plan
assert loaded or "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
