"""The off-diagonal entropy and its gradients: every backend, in every library, against a literal sum over P."""

from collections.abc import Callable
from itertools import accumulate, pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from infoassign_backends import backend_for, joint, joint_host, joint_torch
from infoassign_backends.protocol import Views

Make = Callable[[Any], Any]
SIZES = [(3, 3), (1, 4, 2, 2, 5), (1, 1), (7,), (2,) * 40]


def literal(views: Views, sizes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """The definition, with P whole, in float64."""
    first, second, all_first, all_second = (np.asarray(view, dtype=float) for view in views)
    p = all_first.T @ all_second / len(all_first)
    edges = [0, *accumulate(sizes)]
    for start, stop in pairwise(edges):
        p[start:stop, start:stop] = 0
    log_p = np.log(np.where(p > 0, p, 1))
    slope = np.where(p > 0, 1 + log_p, 0) / len(all_first)
    return (p * log_p).sum(), second @ slope.T, first @ slope


def some_views(sizes: tuple[int, ...], rows: int = 11, here: slice = slice(None)) -> Views:
    """Sparse enough that P has zeros."""
    random = np.random.default_rng(len(sizes))
    q = random.random((2, rows, sum(sizes))) * (random.random((2, rows, sum(sizes))) < 0.3)
    return Views(q[0, here], q[1, here], q[0], q[1])


PAIRS = [
    (joint, "numpy"),
    (joint, "torch"),
    (joint, "strict"),
    (joint_host, "numpy"),
    (joint_torch, "torch"),
]


@pytest.mark.theorem("B7")
@pytest.mark.parametrize(("backend", "make"), PAIRS, indirect=["make"], ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.parametrize("tile", [1, 40, 2**24])
@pytest.mark.parametrize("sizes", SIZES)
def test_is_the_definition(
    backend: ModuleType, make: Make, sizes: tuple[int, ...], tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "TILE", tile)
    monkeypatch.setattr(joint_host, "TILE", tile)
    for here in (slice(None), slice(2, 7), slice(0, 0)):
        views = some_views(sizes, here=here)
        arrays = Views(*(make(view) for view in views))
        expected = literal(views, sizes)
        found = backend.off_diagonal_and_gradients(arrays, sizes)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(one), other, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(np.asarray(backend.off_diagonal(arrays, sizes)), expected[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("number", [1, 3])
def test_threads_change_nothing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(number))
    monkeypatch.setattr(joint_host, "TASK", 50)
    monkeypatch.setattr(joint_host, "PIECE", 20)
    views = some_views((4, 5, 2))
    for one, other in zip(
        joint_host.off_diagonal_and_gradients(views, (4, 5, 2)), literal(views, (4, 5, 2)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_single_precision_sums_do_not_drown() -> None:
    """A million cells, whose naive sum in float32 would be off by 1e-4."""
    random = np.random.default_rng(0)
    q = random.random((2, 20, 1200)).astype(np.float32)
    views = Views(q[0], q[1], q[0], q[1])
    expected = literal(views, (600, 600))
    for module in (joint, joint_host):
        found = module.off_diagonal_and_gradients(views, (600, 600))
        assert found[0].dtype == found[1].dtype == np.float32
        assert float(found[0]) == pytest.approx(expected[0], rel=3e-7)
        np.testing.assert_allclose(found[1], expected[1], rtol=2e-5)


def test_subnormal_cells_count_as_little() -> None:
    first = np.array([[1e-25, 1.0]], dtype=np.float32)
    views = Views(first, first[:, ::-1] * np.float32(1e-18), first, first[:, ::-1] * np.float32(1e-18))
    expected = literal(views, (1, 1))
    for module in (joint, joint_host):
        value, to_first, _ = module.off_diagonal_and_gradients(views, (1, 1))
        assert float(value) == pytest.approx(expected[0], rel=0.1)  # so few digits has a subnormal
        np.testing.assert_allclose(to_first, expected[1], rtol=0.2, atol=1e-40)


def test_arrays_find_their_backend(make: Make) -> None:
    array = make(np.eye(3))
    assert type(backend_for(array).product(array, array)) in {type(array), np.ndarray}
    assert backend_for(np.eye(2)).off_diagonal is joint_host.off_diagonal
    assert backend_for(torch.eye(2)).off_diagonal is joint_torch.off_diagonal


def test_gradients_are_not_made_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views(*(torch.from_numpy(view) for view in some_views((3, 3))))
    expected, *_ = joint_torch.off_diagonal_and_gradients(views, (3, 3))
    monkeypatch.delattr(joint_host, "off_diagonal_and_gradients")
    with torch.no_grad():
        tracked = Views(*(view.clone().requires_grad_() for view in views))
        assert float(joint_torch.off_diagonal(tracked, (3, 3))) == pytest.approx(float(expected))
    assert not joint_torch.off_diagonal(views, (3, 3)).requires_grad
    assert float(joint_torch.off_diagonal(views, (3, 3))) == pytest.approx(float(expected))


@pytest.mark.parametrize("length", [1, 2, 7, 100])
@pytest.mark.parametrize("most", [1, 3, 50])
def test_cuts_are_whole_and_even(length: int, most: int) -> None:
    parts = joint.cut(length, most)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(length))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1
