"""Solves of fixed length on CUDA ask the host for nothing: tried without a device, on tensors that only claim one.

Every operation is seen as it is dispatched. One that reads a value, or has tensors of the host among those of the
device, would wait, and could not be captured in a CUDA graph. The kernels themselves are not launched.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import infoassign as ia
from infoassign_backends import torch_backend

FIXED: dict[str, Any] = {"tol": 0, "acceleration": None, "check_finite": False}
SOLVES = {
    "mira": lambda s: ia.mira(s, max_sweeps=4, **FIXED),
    "swav": lambda s: ia.sinkhorn(s, epsilon=0.5, start="columns", max_sweeps=3, **FIXED),
    "penalty": lambda s: ia.assign(s, epsilon=0.5, strength=2.0, max_sweeps=3, **FIXED),
}


class Watch(TorchDispatchMode):
    """Notes the operations that involve the host, or whose answer's shape depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        if any(reading in name for reading in ("_local_scalar_dense", "nonzero", "masked_select")):
            self.noted.append(name)
        found = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type != "cuda" for tensor in tensors):
            self.noted.append(name)
        return found


@pytest.fixture
def claimed_device(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_triton = pytest.importorskip("infoassign_backends.torch_triton")
    monkeypatch.setattr(torch_backend, "elsewhere", lambda *_: torch_triton)
    monkeypatch.setattr(torch_triton, "_processors", lambda _: 132)
    monkeypatch.setattr(torch_triton, "launch", lambda *_, **__: None)


@pytest.mark.usefixtures("claimed_device")
@pytest.mark.parametrize("shape", [(300, 40), (2, 300, 40), (3, 9000)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", SOLVES)
def test_solves_of_fixed_length_do_not_wait(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    solve: Callable[[Any], ia.Assignment] = SOLVES[name]
    with FakeTensorMode(), Watch() as watch:
        found = solve(torch.empty(shape, dtype=dtype, device="cuda"))
        assert found.plan.shape == shape
        assert found.plan.dtype == dtype
        assert found.plan.device.type == found.labels.device.type == found.marginal.device.type == "cuda"
    assert not watch.noted


@pytest.mark.usefixtures("claimed_device")
def test_others_are_seen_to_wait() -> None:
    with FakeTensorMode(), Watch() as watch, pytest.raises(Exception, match=r"."):
        ia.mira(torch.empty((300, 40), device="cuda"))
    assert "aten._local_scalar_dense.default" in watch.noted
