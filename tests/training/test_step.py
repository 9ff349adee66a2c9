"""Gradients of a batch in pieces, and in other precisions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import digit_runs
import pytest
import torch
from torch import nn

from infoassign_training.engine import checkpoint
from infoassign_training.engine.feed import feed_of
from infoassign_training.engine.ranks import Place
from infoassign_training.engine.run import Run, open_run
from infoassign_training.engine.step import Stepper, backward
from infoassign_training.methods import settings
from infoassign_training.methods.method import Batch, Method, Moment, Parts, Step

CHOSEN: dict[str, settings.Settings] = {
    "mira": settings.Mira(prototypes=12, tolerance=1e-10),
    "swav": settings.Swav(prototypes=12, queue=24, queue_from_epoch=0),
    "sela": settings.Sela(heads=(12, 5), relabellings=0),
    "deepcluster": settings.DeepCluster(clusters=5),
    "imsvd": settings.Imsvd(units=5),
    "music": settings.Music(segment_size=5),
    "barlow-twins": settings.BarlowTwins(),
    "vicreg": settings.Vicreg(),
    "supervised": settings.Supervised(),
}
NOW = Moment(0, 8, 4)
ONE = torch.ones(())


def method_of(kind: str, *between: nn.Module) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *between, nn.Tanh())
        parts = Parts(encoder, nn.Linear(16, 10), features=16, projection=10, images=40, classes=10)
        method = CHOSEN[kind].method(parts).double()
    if kind in ("sela", "deepcluster"):
        method.get_buffer("targets").copy_(torch.arange(40) % 5)
    return method


def batch(kind: str, rows: int = 24) -> Batch:
    images = digit_runs.some(40)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, rows, 1, 8, 8, generator=generator, dtype=torch.float64)
    views = [images.images[:rows].double() + part for part in noise[: CHOSEN[kind].views]]
    return Batch(views, torch.arange(rows), images.classes[:rows])


def gradients(kind: str, pieces: int, *between: nn.Module) -> tuple[Step, dict[str, torch.Tensor], Method]:
    method = method_of(kind, *between)
    for number in range(2):  # SwAV's queue is full in the second
        method.zero_grad()
        step = backward(Stepper(method, "float32"), batch(kind), NOW, pieces=pieces, scale=ONE, seed=number)
    return step, {name: w.grad.clone() for name, w in method.named_parameters() if w.grad is not None}, method


@pytest.mark.parametrize("pieces", [2, 3, 24])
@pytest.mark.parametrize("kind", CHOSEN)
def test_pieces_have_the_gradients_of_the_batch(kind: str, pieces: int) -> None:
    step, expected, whole = gradients(kind, 1)
    in_pieces, found, method = gradients(kind, pieces)
    assert float(in_pieces.loss) == pytest.approx(float(step.loss), rel=1e-10)
    assert len(in_pieces.assignments) == len(step.assignments)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-9, msg=name)
    for one, other in zip(whole.buffers(), method.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_is_the_same_in_both_passes() -> None:
    """A finite difference along the gradient sees it if it is not."""
    kind = "imsvd"
    _, found, method = gradients(kind, 3, nn.Dropout(0.5))
    weight = method.get_parameter("projector.weight")

    def loss(step: float) -> float:
        with torch.no_grad():
            weight.add_(found["projector.weight"], alpha=step)
        outcome = backward(Stepper(method, "float32"), batch(kind), NOW, pieces=3, scale=ONE, seed=1)
        with torch.no_grad():
            weight.add_(found["projector.weight"], alpha=-step)
        return float(outcome.loss)

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert slope == pytest.approx(float(found["projector.weight"].square().sum()), rel=1e-6)


def test_running_statistics_are_counted_once() -> None:
    """Two pieces: as two batches would leave them."""
    _, _, method = gradients("vicreg", 2, nn.BatchNorm1d(16))
    norm = method.get_submodule("encoder.2")
    assert isinstance(norm, nn.BatchNorm1d)
    alone = method_of("vicreg", nn.BatchNorm1d(16))
    views = batch("vicreg").views
    for _ in range(2):
        for piece in range(2):
            alone.outputs([view.chunk(2)[piece] for view in views])
    expected = alone.get_submodule("encoder.2")
    assert isinstance(expected, nn.BatchNorm1d)
    for one, other in zip(norm.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    assert norm.momentum == 0.1


def test_a_teacher_has_statistics_of_its_own() -> None:
    """It goes through once, in pieces as at once."""
    _, _, method = gradients("mira", 2, nn.BatchNorm1d(16))
    norm = method.get_submodule("teacher.0.2")
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 4
    assert bool((norm.running_mean != 0).all())


def test_a_piece_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves batch normalisation one image at a time; take 8 or more"):
        feed_of(replace(digit_runs.SMALL, batch_size=4, accumulate=4), Place(), torch.device("cpu"))


def test_pieces_that_do_not_divide_are_refused() -> None:
    chosen = replace(digit_runs.SMALL, batch_size=128, accumulate=3)
    with pytest.raises(ValueError, match=r"does not divide over them in 3 pieces each; take 126 or 129"):
        feed_of(chosen, Place(), torch.device("cpu"))


def run_with(folder: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    chosen = replace(digit_runs.SMALL, **changes)
    with open_run(folder, "small", chosen) as run:
        digit_runs.train(chosen, digit_runs.some(300), run)
    state = checkpoint.load(Run(folder).checkpoint)
    assert state is not None
    return state.method, {**run.records()[-1], "scaler": state.scaler}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_and_labels_in_single(precision: str, tmp_path: Path) -> None:
    weights, record = run_with(tmp_path / "half", precision=precision)
    expected, single = run_with(tmp_path / "single")
    # In float16 the first of the four steps are left out, until the gradients' scale no longer overflows.
    assert record["loss"] == pytest.approx(single["loss"], rel=0.02 if precision == "bfloat16" else 0.1)
    assert record["solver_converged"] == 1
    assert record["solver_error_bound"] <= 1e-5
    assert all(weights[key].dtype == expected[key].dtype for key in expected)
    assert not all(torch.equal(weights[key], expected[key]) for key in expected)
    assert ("scale" in record["scaler"]) == (precision == "float16")


def test_the_engine_trains_in_pieces(tmp_path: Path) -> None:
    _, record = run_with(tmp_path / "pieces", accumulate=4)
    _, whole = run_with(tmp_path / "whole")
    assert record["loss"] == pytest.approx(whole["loss"], rel=0.02)  # normalisation sees a piece at a time


@pytest.mark.deep
def test_compiled_networks_train_alike(tmp_path: Path) -> None:
    weights, _ = run_with(tmp_path / "compiled", compile=True)
    expected, _ = run_with(tmp_path / "plain")
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-3, msg=key)
