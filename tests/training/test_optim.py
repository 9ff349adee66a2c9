"""LARS against transcriptions in float64, the groups that decay, and the moving average."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infoassign_training import config
from infoassign_training.engine import ema
from infoassign_training.engine.optim import Lars, optimizer_of, parameter_groups, scaled_gradients

ETA, DECAY, MOMENTUM = 1e-3, 0.05, 0.9
Factor = Callable[[np.ndarray, np.ndarray], float]


def papers(w: np.ndarray, g: np.ndarray) -> float:
    """The factor as MIRA's, Barlow Twins', VICReg's and IMSVD's code has it."""
    length, update = np.linalg.norm(w), np.linalg.norm(g + DECAY * w)
    return float(ETA * length / update) if length > 0 and update > 0 else 1.0


def libraries(w: np.ndarray, g: np.ndarray) -> float:
    """The factor as timm, lightly and solo-learn have it."""
    length, gradient = np.linalg.norm(w), np.linalg.norm(g)
    return float(ETA * length / (gradient + DECAY * length + 1e-8)) if length > 0 and gradient > 0 else 1.0


def transcribed(start: np.ndarray, gradients: list[np.ndarray], rates: list[float], factor: Factor) -> np.ndarray:
    """Weights after steps on the gradients given, one line for each of the formula's."""
    w, m = start.astype(np.float64), np.zeros_like(start, dtype=np.float64)
    for g, rate in zip(gradients, rates, strict=True):
        layer = w.ndim > 1
        d = factor(w, g) * (g + DECAY * w) if layer else g
        m = MOMENTUM * m + d
        w = w - rate * m
    return w


def weights_and_gradients(steps: int) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    rng = np.random.default_rng(0)
    shapes = [(5, 3), (3,), (4, 2, 3, 3), ()]
    start = [rng.normal(size=shape) for shape in shapes]
    return start, [[rng.normal(size=shape) for shape in shapes] for _ in range(steps)]


def trained(start: list[np.ndarray], gradients: list[list[np.ndarray]], rates: list[float]) -> list[Tensor]:
    weights = [nn.Parameter(torch.tensor(w)) for w in start]
    optimizer = Lars(weights, rates[0], momentum=MOMENTUM, weight_decay=DECAY, eta=ETA)
    for step, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = torch.tensor(gradient)
        optimizer.step()
    return [weight.detach() for weight in weights]


def test_lars_takes_the_steps_of_the_papers_formula() -> None:
    start, gradients = weights_and_gradients(5)
    rates = [4.8, 2.0, 0.7, 0.1, 3.0]
    for index, ours in enumerate(trained(start, gradients, rates)):
        expected = transcribed(start[index], [step[index] for step in gradients], rates, papers)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)


def test_the_libraries_formula_is_another_one() -> None:
    """Layers end elsewhere with it, and what is not scaled in the same place: which formula it is shows."""
    start, gradients = weights_and_gradients(5)
    rates = [4.8] * 5
    for index, ours in enumerate(trained(start, gradients, rates)):
        other = transcribed(start[index], [step[index] for step in gradients], rates, libraries)
        same = np.allclose(ours.numpy(), other, rtol=1e-6)
        assert same == (ours.ndim <= 1)


@pytest.mark.parametrize("along", [1.0, 0.3, -1.0])
def test_the_papers_factor_depends_on_the_angle_and_the_libraries_does_not(along: float) -> None:
    """With |w| = |g| = 1 and decay 1/2, by hand: an update of length eta against one of |g + w / 2| eta / 1.5."""
    w = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    g = torch.tensor([[along, math.sqrt(1 - along**2)]], dtype=torch.float64)
    (update,) = scaled_gradients([w], [g], weight_decay=0.5, eta=ETA)
    assert float(update.norm()) == pytest.approx(ETA, rel=1e-12)
    by_libraries = float((g + w / 2).norm()) * ETA / 1.5
    if along == 1:
        assert by_libraries == pytest.approx(ETA)
    else:
        assert by_libraries < ETA


def test_both_formulas_agree_without_weight_decay() -> None:
    (update,) = scaled_gradients([torch.tensor([[3.0, 4.0]])], [torch.tensor([[0.0, 2.0]])], weight_decay=0.0, eta=ETA)
    torch.testing.assert_close(update, torch.tensor([[0.0, 5 * ETA]]))


def test_zero_weights_and_zero_gradients_are_taken_as_they_are() -> None:
    weights = [torch.zeros(2, 2), torch.ones(2, 2), torch.zeros(2, 2), torch.ones(2, 2)]
    gradients = [torch.ones(2, 2), torch.zeros(2, 2), torch.zeros(2, 2), -DECAY * torch.ones(2, 2)]
    before = [tensor.clone() for tensor in gradients]
    updates = scaled_gradients(weights, gradients, weight_decay=DECAY, eta=ETA)
    torch.testing.assert_close(updates[0], torch.ones(2, 2))
    torch.testing.assert_close(updates[1], ETA * torch.ones(2, 2))  # decay alone: |d| is not zero
    torch.testing.assert_close(updates[2], torch.zeros(2, 2))
    torch.testing.assert_close(updates[3], torch.zeros(2, 2))
    assert all(torch.equal(now, then) for now, then in zip(gradients, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_other_dtypes_stay_what_they_are(dtype: torch.dtype) -> None:
    (update,) = scaled_gradients(
        [torch.ones(4, 4, dtype=dtype)], [torch.ones(4, 4, dtype=dtype)], weight_decay=0.0, eta=1
    )
    torch.testing.assert_close(update, torch.ones(4, 4, dtype=dtype))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        model(images).square().mean().backward()
        optimizer.step()


def lars_of(model: nn.Module) -> Lars:
    return Lars(parameter_groups(model, DECAY, skip_norm_and_bias=True), 2.0)


def test_a_run_resumed_from_the_state_ends_the_same_to_the_bit(tmp_path: Path) -> None:
    whole = network(0)
    fit(whole, lars_of(whole), range(6))
    first = network(0)
    optimizer = lars_of(first)
    fit(first, optimizer, range(3))
    torch.save((first.state_dict(), optimizer.state_dict()), tmp_path / "state.pt")
    second = network(1)
    resumed = lars_of(second)
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(weights)
    resumed.load_state_dict(state)
    fit(second, resumed, range(3, 6))
    for one, other in zip(whole.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_closure_computes_the_loss_with_gradients() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Lars([weight], 1.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 4.0
    torch.testing.assert_close(weight.detach(), (1 - ETA) * torch.ones(2, 2))
    assert optimizer.step() is None


def test_parameters_without_a_gradient_neither_move_nor_decay() -> None:
    """So prototypes stay frozen, momentum and all, while their gradients are dropped."""
    frozen, learning = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Lars([{"params": [frozen]}, {"params": [learning]}], 1.0, weight_decay=DECAY)
    learning.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(frozen, torch.ones(2, 2))
    assert frozen not in optimizer.state
    assert not torch.equal(learning, torch.ones(2, 2))


@pytest.mark.parametrize(("name", "value"), [("lr", -1.0), ("eta", math.nan), ("momentum", math.inf)])
def test_settings_that_make_no_sense_are_refused(name: str, value: float) -> None:
    settings = {"lr": 1.0, name: value}
    with pytest.raises(ValueError, match=f"{name} must be finite and not negative; got {value}"):
        Lars([nn.Parameter(torch.ones(2))], **settings)


def test_every_parameter_that_learns_is_in_one_group_and_layers_alone_decay() -> None:
    model = network(0)
    model[4].requires_grad_(False)
    decaying, others = parameter_groups(model, 0.1, skip_norm_and_bias=True)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert [parameter.shape for parameter in decaying["params"]] == [(4, 1, 3, 3)]
    assert {id(p) for p in others["params"]} == {id(model[0].bias), id(model[1].weight), id(model[1].bias)}
    (everything,) = parameter_groups(model, 0.1, skip_norm_and_bias=False)
    assert [id(p) for p in everything["params"]] == [id(p) for p in model.parameters() if p.requires_grad]


def test_groups_of_sgd_decay_as_the_formula_says() -> None:
    model = network(0)
    before = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.SGD(parameter_groups(model, 0.1, skip_norm_and_bias=True), lr=1.0).step()
    for now, then in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(now, then * (0.9 if then.ndim > 1 else 1.0))


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("buffers", [False, True])
def test_the_moving_average_is_its_formula(momentum: float, buffers: bool) -> None:
    average, model = network(0), network(1)
    fit(model, lars_of(model), range(3))
    before, source = copy.deepcopy(average), copy.deepcopy(model)
    ema.update(average, model, momentum, buffers=buffers)
    for kept, old, new in zip(average.parameters(), before.parameters(), model.parameters(), strict=True):
        expected = momentum * old.detach().double() + (1 - momentum) * new.detach().double()
        torch.testing.assert_close(kept.detach(), expected.float())
        assert momentum != 1 or torch.equal(kept, old)
        assert momentum != 0 or torch.equal(kept, new)
    for kept, old, new in zip(average.buffers(), before.buffers(), model.buffers(), strict=True):
        if not buffers:
            assert torch.equal(kept, old)
        elif kept.is_floating_point():
            torch.testing.assert_close(kept, momentum * old + (1 - momentum) * new)
        else:
            assert torch.equal(kept, new)
    for now, then in zip(model.state_dict().values(), source.state_dict().values(), strict=True):
        assert torch.equal(now, then)


def test_the_moving_average_is_the_teachers_to_the_bit() -> None:
    """What `Mira.update_teacher` does one parameter at a time."""
    average, model = network(0), network(1)
    expected = [
        p.detach().lerp(q.detach(), 1 - 0.996) for p, q in zip(average.parameters(), model.parameters(), strict=True)
    ]
    ema.update(average, model, 0.996, buffers=False)
    assert all(torch.equal(p, q) for p, q in zip(average.parameters(), expected, strict=True))


def test_the_moving_average_refuses_another_network() -> None:
    with pytest.raises(ValueError, match="module of the same shapes"):
        ema.update(nn.Linear(1, 3), nn.Linear(2, 3), 0.5, buffers=False)


def test_the_settings_choose_optimiser_and_groups() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    sgd = optimizer_of(module, config.Optimizer(weight_decay=0.1))
    assert isinstance(sgd, torch.optim.SGD)
    assert [(len(group["params"]), group["weight_decay"]) for group in sgd.param_groups] == [(4, 0.1)]
    some = optimizer_of(module, config.Optimizer(weight_decay=0.1, decay_weights_only=True))
    assert [(len(group["params"]), group["weight_decay"]) for group in some.param_groups] == [(1, 0.1), (3, 0.0)]
    lars = optimizer_of(module, config.Optimizer(kind="lars", momentum=0.8))
    assert isinstance(lars, Lars)
    assert all(group["momentum"] == 0.8 for group in lars.param_groups)
    assert lars.param_groups[1]["weight_decay"] == 0
