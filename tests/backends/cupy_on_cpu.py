"""The CuPy backend without a device: its kernels compiled for the host, and NumPy in the place of CuPy.

``cuda_on_cpu.h`` stands in for CUDA. Of CuPy the backend uses what :class:`Module`, :func:`cupy` and :class:`Device`
have, and no more.
"""

import ctypes
import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

HERE = Path(__file__).parent
NAME = "infoassign_backends.cupy_backend"
COMMAND = ("g++", "-std=c++17", "-O1", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-shared", "-fPIC", "-w")
PROCESSORS = 2


class Device:
    """The one device there is."""

    id = 0

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Module:
    """What ``cupy.RawModule`` is; compiles when a kernel is asked for."""

    def __init__(self, *, code: str, options: tuple[str, ...], name_expressions: tuple[str, ...], folder: Path) -> None:
        (name,) = name_expressions
        stem = "".join(c if c.isalnum() else "_" for c in name)
        binary = folder / f"{stem}.so"
        if not binary.exists():
            source, made = (folder / f"{stem}-{os.getpid()}.{end}" for end in ("cpp", "so"))
            source.write_text(f'#include "cuda_on_cpu.h"\n{code}\nENTRY(({name}))\n')
            defined = [option for option in options if option.startswith("-D")]
            subprocess.run([*COMMAND, *defined, "-I", HERE, source, "-o", made], check=True)
            made.replace(binary)  # which another process may be making, too
        self._call = ctypes.CDLL(str(binary)).entry
        self._call.restype = ctypes.c_bool
        self._name = name

    def get_function(self, name: str) -> Any:
        assert name == self._name
        return self._launch

    def _launch(self, grid: tuple[int], block: tuple[int, int], arguments: tuple[Any, ...]) -> None:
        kinds, held = "", []
        for value in arguments:
            if isinstance(value, np.ndarray):
                assert value.flags.c_contiguous
                kinds, slot = kinds + "p", ctypes.c_void_p(value.ctypes.data)
            else:  # CuPy passes NumPy's numbers as they are
                kind, kept = {np.int64: ("q", ctypes.c_int64), np.float32: ("f", ctypes.c_float),
                              np.float64: ("d", ctypes.c_double)}[type(value)]  # fmt: skip
                kinds, slot = kinds + kind, kept(value)
            held.append(slot)
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(slot) for slot in held))
        assert self._call(*grid, *block, kinds.encode(), pointers), f"{self._name} takes no {kinds}"


def _empty(shape: Any, dtype: Any = np.float64) -> Any:
    """Return an array of what must not be read."""
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max, dtype)


def cupy(folder: Path) -> Any:
    """Return what stands in for the module, which keeps compiled kernels in a folder."""
    return SimpleNamespace(
        RawModule=partial(Module, folder=folder),
        empty=_empty,
        ascontiguousarray=np.ascontiguousarray,
        cuda=SimpleNamespace(
            runtime=SimpleNamespace(is_hip=False),
            Device=lambda _: SimpleNamespace(attributes={"MultiProcessorCount": PROCESSORS}),
        ),
    )


def load(folder: Path) -> ModuleType:
    """Return the backend, a copy of its own, for NumPy arrays."""
    before = {name: sys.modules.pop(name) for name in (NAME, "cupy") if name in sys.modules}
    try:
        sys.modules["cupy"] = cupy(folder)
        module = importlib.import_module(NAME)
    finally:
        for name in (NAME, "cupy"):
            sys.modules.pop(name, None)
        sys.modules.update(before)
    module._device = lambda _: Device()  # type: ignore[attr-defined]
    module._address = lambda array: array.ctypes.data  # type: ignore[attr-defined]
    return module
