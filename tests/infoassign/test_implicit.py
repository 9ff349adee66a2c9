"""gradient="implicit": against finite differences, unrolled steps and a dense solve, and what it may not do."""

import subprocess
import sys
from collections.abc import Callable
from math import inf, isfinite
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.autograd.graph import saved_tensors_hooks

import infoassign as ia
from infoassign import implicit
from infoassign.implicit import DifferentiableAssignment, GradientWarning, RowScores, attach
from infoassign_backends import reference, torch_backend
from infoassign_backends.protocol import Sweep

DOUBLE = torch.float64
SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=DOUBLE)
# Plain steps up to where they stand still: accelerated ones end in a noise that finite differences see.
EXACTLY: dict[str, Any] = {"tol": 0, "max_sweeps": 400, "acceleration": None}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def leaf(value: float | Tensor, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.as_tensor(value, dtype=dtype).clone().requires_grad_()


def masked(scores: Tensor) -> Tensor:
    scores = scores.clone()
    scores[0, 1] = scores[3, 2] = scores[5, 0] = -inf
    return scores


def unusable(scores: Tensor) -> Tensor:
    scores = scores.clone()
    scores[:, 2] = -inf
    return scores


def outputs(assignment: Any) -> Tensor:
    """All that is differentiable, side by side."""
    potential = assignment.potential
    parts = (assignment.plan, potential[potential < inf], assignment.marginal, assignment.objective)
    return torch.cat([part.flatten() for part in parts])


def contract(assignment: Any, seed: int = 7) -> Tensor:
    found = outputs(assignment)
    return found @ normal(len(found), seed=seed).to(found.dtype)


def solve(scores: Tensor, **settings: Any) -> DifferentiableAssignment:
    assignment = ia.assign(scores, gradient="implicit", **(EXACTLY | settings))
    assert isinstance(assignment, DifferentiableAssignment)
    return assignment


KINDS: dict[str, Tensor] = {
    "full": normal(6, 4),
    "masked": masked(normal(6, 4)),
    "unusable": unusable(normal(6, 4)),
    "batch": normal(2, 4, 4),
}


@pytest.mark.theorem("A14")
class TestFiniteDifferences:
    @pytest.mark.parametrize("strength", [0.0, 0.3, 5.0, inf])
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_the_family(self, kind: str, strength: float) -> None:
        if kind == "unusable" and strength == inf:
            return  # refused; see below
        given = KINDS[kind]
        allowed = given > -inf
        differentiated = 0 < strength < inf  # at the ends there are no two sides

        def solved(scores: Tensor, epsilon: Tensor, rho: Tensor, shares: Tensor) -> Tensor:
            scores, prior = torch.where(allowed, scores, -inf), shares / shares.sum()
            return outputs(solve(scores, epsilon=epsilon, strength=rho, prior=prior))

        arguments = (leaf(torch.where(allowed, given, 0.0)), leaf(0.5), leaf(strength), leaf(SHARES))
        if not differentiated:
            arguments[2].requires_grad_(False)
        assert gradcheck(solved, arguments, atol=1e-7, rtol=1e-5, fast_mode=True)

    @pytest.mark.parametrize("kind", ["full", "masked"])
    def test_of_mira(self, kind: str) -> None:
        allowed = KINDS[kind] > -inf

        def solved(scores: Tensor, beta: Tensor, temperature: Tensor) -> Tensor:
            scores = torch.where(allowed, scores, -inf)
            return outputs(ia.mira(scores, beta=beta, temperature=temperature, gradient="implicit", **EXACTLY))

        arguments = (leaf(torch.where(allowed, KINDS[kind], 0.0)), leaf(0.8), leaf(0.6))
        assert gradcheck(solved, arguments, atol=1e-7, rtol=1e-5, fast_mode=True)

    def test_of_sinkhorn_with_a_prior_for_each_problem(self) -> None:
        def solved(scores: Tensor, epsilon: Tensor, shares: Tensor) -> Tensor:
            prior = shares / shares.sum(dim=-1, keepdim=True)
            return outputs(ia.sinkhorn(scores, epsilon=epsilon, prior=prior, gradient="implicit", **EXACTLY))

        shares = torch.stack([SHARES, SHARES.flip(0)])
        assert gradcheck(solved, (leaf(KINDS["batch"]), leaf(0.5), leaf(shares)), atol=1e-7, rtol=1e-5, fast_mode=True)

    @pytest.mark.parametrize("call", [lambda s, q: solve(s, epsilon=0.5, strength=q), lambda s, q: _mira(s, beta=q)])
    def test_from_no_coupling_on_one_side(self, call: Callable[[Tensor, Any], Any]) -> None:
        """At strength 0 (beta = 0) the potential begins to grow like log(wbar / r)."""
        scores, weight, h = normal(6, 4), leaf(0.0), 1e-4
        contract(call(scores, weight)).backward()
        at = [float(contract(call(scores, q))) for q in (0.0, h, 2 * h)]
        assert weight.grad is not None
        assert float(weight.grad) == pytest.approx((-3 * at[0] + 4 * at[1] - at[2]) / (2 * h), rel=1e-5)

    def test_a_label_almost_without_mass_does_not_drown_the_others(self) -> None:
        scores = normal(40, 6)
        scores[:, 2] -= 4
        scores[:, 5] -= 40
        settings: dict[str, Any] = {"epsilon": 0.1, "strength": 0.1}
        given, direction, h = leaf(scores), normal(40, 6, seed=1), 1e-6
        assignment = solve(given, **settings)
        assert assignment.marginal[5] < 1e-80
        ahead, behind = (solve(scores + by * direction, **settings).potential for by in (h, -h))
        for label in range(6):
            (gradient,) = torch.autograd.grad(assignment.potential[label], given, retain_graph=True)
            expected = float(ahead[label] - behind[label]) / (2 * h)
            assert float((gradient * direction).sum()) == pytest.approx(expected, abs=1e-7)

    def test_new_rows(self) -> None:
        def labelled(scores: Tensor, new: Tensor) -> Tensor:
            return solve(scores, epsilon=0.5).assign_new(new)

        assert gradcheck(
            labelled, (leaf(normal(6, 4)), leaf(normal(2, 4, seed=1))), atol=1e-7, rtol=1e-5, fast_mode=True
        )


def _mira(scores: Tensor, **settings: Any) -> Any:
    return ia.mira(scores, gradient="implicit", **(EXACTLY | settings))


def unrolled(scores: Tensor, epsilon: Tensor, strength: Tensor, prior: Tensor, steps: int = 2000) -> dict[str, Tensor]:
    """Plain steps, literally, recorded one by one; shares no code with the library."""
    finite = isfinite(strength.item())
    beta = strength / (strength + epsilon) if finite else torch.ones((), dtype=DOUBLE)
    v = torch.zeros(scores.shape[-1], dtype=DOUBLE)
    for _ in range(steps):
        wbar = torch.softmax((scores - v) / epsilon, dim=1).mean(dim=0)
        v = beta * (v + epsilon * (wbar.log() - prior.log()))
        # The common scale is taken out of the fixed point's slowest mode.
        v = v - (strength * torch.logsumexp(prior.log() + v / strength, 0) if finite else prior @ v)
    plan = torch.softmax((scores - v) / epsilon, dim=1)
    wbar = plan.mean(dim=0)
    objective = ((plan * (epsilon * plan.log() - scores)).sum(dim=1)).mean()
    if finite:
        objective = objective + strength * (wbar * (wbar / prior).log()).sum()
    return {"plan": plan, "potential": v, "marginal": wbar, "objective": objective}


class TestUnrolled:
    @pytest.mark.theorem("A14")
    @pytest.mark.parametrize("strength", [0.5, 10.0, inf])
    @pytest.mark.parametrize("of", ["plan", "potential", "marginal", "objective"])
    def test_gradients_are_those_of_all_the_steps(self, of: str, strength: float) -> None:
        def leaves() -> list[Tensor]:
            return [leaf(normal(12, 4)), leaf(0.3), leaf(strength), leaf(SHARES)]

        there, here = leaves(), leaves()
        expected = unrolled(*there)[of]
        assignment = ia.assign(
            here[0], epsilon=here[1], strength=here[2], prior=here[3], tol=1e-12, gradient="implicit"
        )  # fmt: skip
        found = getattr(assignment, of)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
        weights = normal(*expected.shape, seed=3)
        (expected * weights).sum().backward()
        (found * weights).sum().backward()
        for one, other in zip(here, there, strict=True):
            if other is there[2] and strength == inf:
                assert one.grad is None or float(one.grad) == 0
            elif other is there[3]:  # shares sum to one: only differences of their slopes mean something
                assert one.grad is not None
                assert other.grad is not None
                torch.testing.assert_close(
                    one.grad - SHARES @ one.grad, other.grad - SHARES @ other.grad, atol=1e-7, rtol=0
                )
            elif other.grad is not None:
                torch.testing.assert_close(one.grad, other.grad, atol=1e-7, rtol=0)

    def test_the_certified_values_are_those_without_gradients(self) -> None:
        scores = normal(40, 6)
        constant, linked = (ia.mira(scores, beta=0.9, temperature=0.4, gradient=g) for g in ("none", "implicit"))
        for name in ("gap", "error_bound", "row_error_bound", "sweeps", "status", "perplexity", "mutual_information"):
            assert getattr(linked, name) == getattr(constant, name)
        assert type(linked.perplexity) is float
        assert float(linked.objective) == pytest.approx(constant.objective, abs=1e-14)
        for name in ("plan", "potential", "marginal", "labels"):
            torch.testing.assert_close(getattr(linked, name), getattr(constant, name), atol=1e-14, rtol=0)


class TestOptimality:
    def test_the_objective_is_stationary_in_its_potential(self) -> None:
        """The envelope theorem: away from the optimum the error of the gradient is of first order."""
        scores = leaf(normal(30, 5))
        exact = solve(scores, epsilon=0.2, strength=1.0)
        (expected,) = torch.autograd.grad(exact.objective, scores)
        torch.testing.assert_close(expected, -exact.plan.detach() / 30, atol=1e-12, rtol=0)

    def test_shifts_of_rows_and_scale_of_all(self) -> None:
        """Plans do not change when a row is shifted, nor when scores, epsilon and strength are scaled together."""
        scores, epsilon, strength = leaf(normal(20, 5)), leaf(0.3), leaf(0.7)
        loss = (solve(scores, epsilon=epsilon, strength=strength).plan * normal(20, 5, seed=2)).sum()
        along = torch.autograd.grad(loss, (scores, epsilon, strength))
        assert float(along[0].sum(dim=1).abs().max()) < 1e-12
        euler = (along[0] * scores).sum() + along[1] * epsilon + along[2] * strength
        assert abs(float(euler.detach())) < 1e-9

    def test_an_exact_marginal_moves_with_nothing_but_the_prior(self) -> None:
        scores, epsilon = leaf(normal(20, 4)), leaf(0.3)
        marginal = solve(scores, epsilon=epsilon, prior=SHARES).marginal
        along = torch.autograd.grad(marginal @ normal(4, seed=3), (scores, epsilon))
        assert all(float(gradient.abs().max()) < 1e-10 for gradient in along)

    def test_an_unfinished_solve_has_the_gradient_of_the_problem_it_solves(self) -> None:
        """Its plan is optimal for the marginal it has: compared with a prior that is that marginal."""
        scores = leaf(normal(30, 4))
        early = ia.sinkhorn(scores, epsilon=0.2, tol=0, max_sweeps=4, acceleration=None, gradient="implicit")
        assert early.marginal_error > 1e-3
        weights = normal(30, 4, seed=5)
        (found,) = torch.autograd.grad((early.plan * weights).sum(), scores)
        there = solve(scores, epsilon=0.2, prior=early.marginal.detach())
        (expected,) = torch.autograd.grad((there.plan * weights).sum(), scores)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


class TestMemory:
    def test_what_is_kept_does_not_depend_on_the_sweeps(self) -> None:
        def kept(sweeps: int) -> list[tuple[int, ...]]:
            shapes: list[tuple[int, ...]] = []

            def pack(tensor: Tensor) -> Tensor:
                shapes.append(tuple(tensor.shape))
                return tensor

            scores, epsilon, prior = leaf(normal(50, 4)), leaf(0.3), leaf(SHARES)
            with saved_tensors_hooks(pack, lambda tensor: tensor):
                contract(solve(scores, epsilon=epsilon, strength=2.0, prior=prior, max_sweeps=sweeps))
            return shapes

        assert kept(5) == kept(200)

    def test_the_solution_itself_has_no_history(self) -> None:
        assignment = solve(leaf(normal(9, 4)), epsilon=leaf(0.3), prior=leaf(SHARES))
        point = assignment._solution.point
        assert not any(isinstance(each, Tensor) and each.requires_grad for each in point)
        assert assignment.potential.requires_grad
        again = ia.sinkhorn(normal(9, 4), start=assignment)
        assert not again.plan.requires_grad

    def test_no_gradients_inside_no_grad(self) -> None:
        with torch.no_grad():
            assert not outputs(solve(leaf(normal(9, 4)), epsilon=leaf(0.3))).requires_grad


class TestTiles:
    @pytest.mark.parametrize("tile", [1, 12, 2**20])
    @pytest.mark.parametrize("strength", [0.5, inf])
    def test_factored_scores_are_dense_ones(self, strength: float, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(implicit, "TILE", tile)

        def leaves() -> list[Tensor]:
            return [leaf(normal(11, 3)), leaf(normal(4, 3, seed=1)), leaf(0.7), leaf(normal(4, seed=2))]

        def make(features: Tensor, prototypes: Tensor, temperature: Tensor, bias: Tensor) -> Tensor:
            assert features.shape[0] <= max(1, tile // 4)
            return features @ prototypes.T / temperature + bias

        def whole(features: Tensor, prototypes: Tensor, temperature: Tensor, bias: Tensor) -> Tensor:
            return features @ prototypes.T / temperature + bias

        dense, factored = leaves(), leaves()
        solved = solve(whole(*dense), epsilon=0.4, strength=strength)
        constant = ia.assign(whole(*dense).detach(), epsilon=0.4, strength=strength, **EXACTLY)
        attached = attach(
            constant, RowScores((factored[0],), tuple(factored[1:]), make),
            epsilon=0.4, strength=strength, temperature=1.0, log_prior=constant._family.log_prior,
        )  # fmt: skip
        for assignment in (solved, attached):
            parts = (assignment.potential, assignment.marginal, assignment.objective[None])
            loss = sum(part @ normal(len(part), seed=3) for part in parts)
            assert isinstance(loss, Tensor)
            loss.backward()
        for one, other in zip(factored, dense, strict=True):
            torch.testing.assert_close(one.grad, other.grad, atol=1e-12, rtol=0)

    def test_a_batch_in_tiles(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gradients = []
        for tile in (2**20, 24):
            monkeypatch.setattr(implicit, "TILE", tile)
            scores, epsilon = leaf(normal(3, 7, 4)), leaf(0.4)
            gradients.append(torch.autograd.grad(contract(solve(scores, epsilon=epsilon)), (scores, epsilon)))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-13, rtol=1e-12)

    def test_a_batch_is_its_problems(self) -> None:
        batch = leaf(normal(2, 3, 7, 4))
        contracted = (solve(batch, epsilon=0.4, strength=2.0).plan * normal(2, 3, 7, 4, seed=1)).sum()
        (together,) = torch.autograd.grad(contracted, batch)
        for index in np.ndindex(2, 3):
            scores = leaf(batch[index].detach())
            loss = (solve(scores, epsilon=0.4, strength=2.0).plan * normal(2, 3, 7, 4, seed=1)[index]).sum()
            (alone,) = torch.autograd.grad(loss, scores)
            torch.testing.assert_close(together[index], alone, atol=1e-12, rtol=0)


class TestDtypes:
    @pytest.fixture(params=["host", "log domain"])
    def prepared(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the sweep of the host, and with that of other devices, which computes in single precision."""
        if request.param == "log domain":

            def prepare(scores: Tensor, epsilon: float) -> Sweep:
                return reference.prepare(scores.detach(), epsilon)

            monkeypatch.setattr(torch_backend, "prepare", prepare)

    @pytest.mark.usefixtures("prepared")
    @pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2), (DOUBLE, 1e-10)])
    @pytest.mark.parametrize("strength", [2.0, inf])
    def test_gradients_have_the_dtype_of_their_inputs(self, strength: float, dtype: torch.dtype, atol: float) -> None:
        rounded = normal(30, 4).to(dtype)
        gradients = []
        for to in (dtype, DOUBLE):
            scores, epsilon, prior = leaf(rounded, to), leaf(0.3, torch.float32), leaf(SHARES, torch.float32)
            assignment = solve(scores, epsilon=epsilon, strength=strength, prior=prior)
            assert assignment.plan.dtype == to
            loss = (assignment.plan * normal(30, 4, seed=1).to(to)).sum() / 30 + assignment.objective
            gradients.append(torch.autograd.grad(loss, (scores, epsilon, prior)))
        for one, other, like in zip(*gradients, (dtype, torch.float32, torch.float32), strict=True):
            assert one.dtype == like
            torch.testing.assert_close(one.to(DOUBLE), other.to(DOUBLE), atol=atol, rtol=10 * atol)

    @pytest.mark.gpu
    @pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (DOUBLE, 1e-10)])
    def test_a_device_is_the_host(self, dtype: torch.dtype, atol: float) -> None:
        gradients = []
        for device in ("cpu", "cuda"):
            scores = normal(30, 4).to(device, dtype).requires_grad_()
            prior, epsilon, beta = SHARES.to(device).requires_grad_(), leaf(0.3), torch.tensor(0.6, device=device)
            balanced = outputs(ia.sinkhorn(scores, epsilon=epsilon, prior=prior, gradient="implicit")).cpu()
            loss = balanced @ normal(len(balanced), seed=7).to(balanced.dtype)
            loss = loss + ia.mira(scores, beta=beta.requires_grad_(), gradient="implicit").objective.cpu()
            gradients.append([g.cpu() for g in torch.autograd.grad(loss, (scores, prior, epsilon, beta))])
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=atol, rtol=10 * atol)


class TestDegenerate:
    def test_a_label_no_row_may_use_has_no_gradient(self) -> None:
        scores = leaf(unusable(normal(9, 4)))
        assignment = solve(scores, epsilon=leaf(0.3), strength=leaf(1.0))
        assert assignment.potential[2].item() == inf
        contract(assignment).backward()
        assert scores.grad is not None
        assert bool(scores.grad.isfinite().all())
        assert float(scores.grad[:, 2].abs().max()) == 0

    def test_forbidden_pairs_have_none(self) -> None:
        scores, epsilon = leaf(masked(normal(9, 4))), leaf(1e-2)
        contract(solve(scores, epsilon=epsilon)).backward()
        assert scores.grad is not None
        assert epsilon.grad is not None
        assert bool(epsilon.grad.isfinite())
        assert bool(scores.grad.isfinite().all())
        assert bool((scores.grad[scores.detach() == -inf] == 0).all())

    @pytest.mark.parametrize("strength", [1e6, inf])
    def test_one_hot_rows_leave_the_potential_undetermined_and_say_so(self, strength: float) -> None:
        scores = leaf(torch.eye(4, dtype=DOUBLE).repeat(3, 1))
        potential = solve(scores, epsilon=1e-4, strength=strength, max_sweeps=5).potential
        if strength < inf:
            potential.sum().backward()  # the pull to the prior determines it
        else:
            with pytest.warns(GradientWarning, match="one-hot"):
                potential[0].backward()
        assert scores.grad is not None
        assert bool(scores.grad.isfinite().all())

    def test_one_hot_plans_do_not_move(self) -> None:
        scores = leaf(torch.eye(4, dtype=DOUBLE).repeat(3, 1))
        (solve(scores, epsilon=1e-4).plan * normal(12, 4)).sum().backward()
        assert scores.grad is not None
        assert float(scores.grad.abs().max()) == 0

    @pytest.mark.parametrize("epsilon", [0.1, 0.01, 0.001])
    def test_nearly_one_hot_rows(self, epsilon: float) -> None:
        """Against a pseudo-inverse of the dense matrix."""
        scores, slope = leaf(normal(100, 8)), normal(100, 8, seed=1)
        assignment = ia.sinkhorn(scores, epsilon=epsilon, tol=1e-10, gradient="implicit")
        (assignment.plan * slope).sum().backward()
        w = assignment.plan.detach()
        root = w.mean(dim=0).sqrt()
        direct = w * (slope - (w * slope).sum(dim=1, keepdim=True)) / epsilon
        matrix = torch.diag(w.mean(dim=0)) - w.T @ w / 100
        inverse = torch.linalg.pinv(matrix / root / root[:, None], rtol=1e-14, hermitian=True)
        z = inverse @ (-direct.sum(dim=0) / root) / root
        expected = direct + w * (z - (w @ z)[:, None]) / 100
        torch.testing.assert_close(scores.grad, expected, atol=1e-8 * float(expected.abs().max()), rtol=0)

    def test_identical_rows_and_columns(self) -> None:
        for scores in (torch.zeros(5, 3, dtype=DOUBLE), normal(1, 3).repeat(5, 1), normal(5, 1), normal(1, 3)):
            given = leaf(scores)
            (gradient,) = torch.autograd.grad(contract(solve(given, epsilon=0.5)), given)
            assert bool(gradient.isfinite().all())


class TestRefusals:
    @pytest.mark.parametrize("of", ["plan", "potential", "marginal", "objective"])
    @pytest.mark.parametrize("squared", [True, False])
    def test_second_derivatives(self, of: str, squared: bool) -> None:
        scores = leaf(normal(6, 4))
        value = getattr(solve(scores, epsilon=0.3, strength=1.0, prior=SHARES), of)
        loss = value.square().sum() if squared else value.flatten()[0]
        (gradient,) = torch.autograd.grad(loss, scores, create_graph=True)
        assert bool(gradient.isfinite().all())
        with pytest.raises(RuntimeError, match=r'gradient="implicit" has first derivatives only'):
            gradient.square().sum().backward()

    @pytest.mark.parametrize("convert", [np.asarray, array_api_strict.asarray])
    def test_other_libraries(self, convert: Callable[[Any], Any]) -> None:
        for call in (ia.mira, ia.sinkhorn):
            with pytest.raises(TypeError, match=r"torch tensor; got .* convert them"):
                call(convert(np.zeros((3, 2))), gradient="implicit")

    @pytest.mark.parametrize("gradient", ["unrolled", None, True, "Implicit"])
    def test_other_gradients(self, gradient: Any) -> None:
        with pytest.raises(ValueError, match=r'gradient must be "none" or "implicit"; got'):
            ia.mira(normal(3, 2), gradient=gradient)

    @pytest.mark.parametrize("name", ["beta", "temperature"])
    def test_tensors_as_weights_without_gradients(self, name: str) -> None:
        with pytest.raises(TypeError, match=f"{name} must be a real number"):
            ia.mira(normal(3, 2), **{name: torch.tensor(0.5)})

    def test_weights_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="epsilon must be positive"):
            ia.sinkhorn(normal(3, 2), epsilon=leaf(-1.0), gradient="implicit")
        with pytest.raises(ValueError, match="beta must be in"):
            ia.mira(normal(3, 2), beta=leaf(1.0), gradient="implicit")
        with pytest.raises(TypeError, match="strength must be a real number"):
            ia.assign(normal(3, 2), epsilon=1.0, strength=leaf(torch.ones(2)), gradient="implicit")

    def test_scores_overwritten_before_the_gradient(self) -> None:
        scores = leaf(normal(6, 4))
        rows = scores * 1
        loss = solve(rows, epsilon=0.3).potential.sum()
        rows.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_without_gradients_torch_is_not_needed_for_this(self) -> None:
        script = "import numpy, infoassign, sys; infoassign.mira(numpy.zeros((3, 2))); print('torch' in sys.modules)"
        finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert finished.stdout.split() == ["False"]


class TestFactored:
    """Features and prototypes have gradients, and the scores are never multiplied out."""

    def given(self, *, single: bool = False) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(0)
        dtype = torch.float32 if single else torch.float64
        shapes = ((60, 5), (7, 5), (7,))
        made = [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
        return tuple(each.requires_grad_() for each in (*made, torch.tensor(0.8, dtype=torch.float64)))

    @pytest.mark.parametrize("options", [{"epsilon": 0.5}, {"epsilon": 0.4, "strength": 1.5}])
    @pytest.mark.parametrize("single", [False, True])
    def test_gradients_are_those_of_the_product(self, options: dict[str, Any], single: bool) -> None:
        features, prototypes, bias, temperature = inputs = self.given(single=single)
        target = torch.randn(60, 7, generator=torch.Generator().manual_seed(1), dtype=features.dtype)
        settings: dict[str, Any] = {**options, "tol": 1e-5 if single else 1e-12, "gradient": "implicit"}

        def loss(assignment: ia.Assignment) -> Any:
            plan = torch.cat(list(assignment.iter_plan()))
            return (plan * target).sum() + assignment.objective + assignment.potential.square().sum()

        scores = features @ prototypes.T / temperature.to(features.dtype) + bias
        expected = torch.autograd.grad(loss(ia.assign(scores, **settings)), inputs)
        factored = ia.FactoredScores(features, prototypes, temperature, bias)
        found = torch.autograd.grad(loss(ia.assign(factored, **settings)), inputs)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=2e-3 if single else 1e-8, atol=1e-3 if single else 1e-9)

    def test_the_plan_comes_in_pieces(self) -> None:
        found = ia.assign(ia.FactoredScores(*self.given()[:2]), epsilon=0.5, gradient="implicit")
        with pytest.raises(AttributeError, match="use iter_plan"):
            found.plan  # noqa: B018
        assert all(piece.requires_grad for piece in found.iter_plan())

    def test_without_gradients_they_are_constants(self) -> None:
        factored = ia.FactoredScores(*self.given()[:2])
        found = ia.assign(factored, epsilon=0.5)
        assert not next(found.iter_plan()).requires_grad
        assert not found.potential.requires_grad
        chunk = self.given()[0]
        assert not ia.mira(ia.StreamedScores(lambda: iter([chunk]))).potential.requires_grad

    def test_what_has_no_gradients(self) -> None:
        scores = torch.zeros(4, 3)
        with pytest.raises(
            TypeError, match=r'gradient="implicit" needs scores that are a torch tensor.*StreamedScores'
        ):
            ia.mira(ia.StreamedScores(scores), gradient="implicit")
        with pytest.raises(TypeError, match="needs scores that are a torch tensor; got numpy"):
            ia.mira(ia.FactoredScores(np.ones((4, 2)), np.ones((3, 2))), gradient="implicit")
        with pytest.raises(ValueError, match="is for the rows of one process"):
            ia.mira(scores, gradient="implicit", all_sum=lambda x: x)
