"""MUSIC's and IMSVD's losses against literal transcriptions, in value and gradient."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from joint_entropy_oracles import einsum_and_mask, listing
from torch import Tensor

import infoassign as ia
from infoassign import losses
from infoassign.arrays import on_host

Make = Callable[[Any], Any]
SHAPES: list[tuple[int, list[int]]] = [
    (1, [3, 3]),  # one sample
    (9, [5]),  # one segment
    (1, [1]),
    (7, [1, 1, 1]),
    (16, [2, 2, 2, 2]),
    (33, [4, 1, 7, 7, 2]),  # unequal
    (64, [30] * 9),
]


def embeddings(rows: int, sizes: Sequence[int], scale: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two views that agree in part."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, rows, sum(sizes), generator=generator, dtype=torch.float64)
    return z[0] * scale, (z[0] + z[1] / 2) * scale


def differentiated(loss: Callable[[Tensor, Tensor], Tensor], *given: Tensor) -> list[Tensor]:
    """The value of a loss and its gradients."""
    z = [view.clone().requires_grad_() for view in given]
    value = loss(*z)
    return [value.detach(), *torch.autograd.grad(value, z)]


def close(found: Sequence[Any], expected: Sequence[Any], tolerance: float) -> None:
    """Equal to within a tolerance relative to the largest entry, gradients each."""
    for one, other in zip(found, expected, strict=True):
        a, b = on_host(one), on_host(other)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0 if a.ndim == 0 else 0.0, np.abs(b).max()))


@pytest.mark.theorem("B1")
@pytest.mark.parametrize(("rows", "sizes"), SHAPES)
@pytest.mark.parametrize("normalization", ["block", "grid"])
@pytest.mark.parametrize("kind", ["inner-product", "cross-entropy"])
def test_losses_are_the_listing(rows: int, sizes: list[int], normalization: Any, kind: Any) -> None:
    z = embeddings(rows, sizes)
    options = {"normalization": normalization, "kind": kind}
    expected = differentiated(partial(listing, sizes=sizes, invariance=0.7, **options), *z)
    music = partial(
        ia.music_loss, segment_size=sizes, invariance_weight=0.7, normalization=normalization, invariance=kind
    )
    close(differentiated(music, *z), expected, 1e-10)
    expected = differentiated(partial(listing, sizes=sizes, entropy=0.3, **options), *z)
    imsvd = partial(ia.imsvd_loss, units=sizes, entropy_weight=0.3, normalization=normalization, invariance=kind)
    close(differentiated(imsvd, *z), expected, 1e-10)


@pytest.mark.theorem("B7")
@pytest.mark.parametrize(("rows", "sizes"), SHAPES)
@pytest.mark.parametrize("kind", ["inner-product", "cross-entropy"])
def test_gradients_of_every_library_are_torchs(make: Make, rows: int, sizes: list[int], kind: Any) -> None:
    z = embeddings(rows, sizes)
    options = {"segment_size": sizes, "temperature": 0.8, "invariance": kind}
    found = ia.music_loss_and_gradient(*(make(view.numpy()) for view in z), **options)
    close(found, differentiated(partial(ia.music_loss, **options), *z), 1e-12)
    options = {"units": sizes, "entropy_weight": 0.4, "normalization": "grid"}
    found = ia.imsvd_loss_and_gradient(*(make(view.numpy()) for view in z), **options)
    close(found, differentiated(partial(ia.imsvd_loss, **options), *z), 1e-12)


ABLATIONS: list[dict[str, float]] = [
    {"invariance": 0},  # DE + OE of the papers' table
    {"diagonal": 0},  # OE + TI
    {"diagonal": 0, "invariance": 0},
    {"off_diagonal": 0, "invariance": 0},
    {"diagonal": 0, "off_diagonal": 0},
    {"diagonal": 0.3, "off_diagonal": 1.7, "invariance": 0.6},
]


@pytest.mark.parametrize("weights", ABLATIONS, ids=str)
@pytest.mark.parametrize("normalization", ["block", "grid"])
@pytest.mark.parametrize("kind", ["inner-product", "cross-entropy"])
def test_every_term_has_a_weight(make: Make, weights: dict[str, float], normalization: Any, kind: Any) -> None:
    """In value and gradient, in torch and in every library."""
    sizes = [4, 1, 7, 7, 2]
    z = embeddings(33, sizes)
    plain = [make(view.numpy()) for view in z]
    named: dict[str, Any] = {f"{name}_weight": weight for name, weight in weights.items()}
    named |= {"normalization": normalization, "invariance": kind}
    of_listing = partial(listing, sizes=sizes, kind=kind, normalization=normalization, **weights)
    expected = differentiated(of_listing, *z)
    close(differentiated(partial(ia.music_loss, segment_size=sizes, **named), *z), expected, 1e-10)
    close(ia.music_loss_and_gradient(*plain, segment_size=sizes, **named), expected, 1e-10)
    expected = differentiated(partial(of_listing, entropy=0.4), *z)
    named |= {"units": sizes, "entropy_weight": 0.4}
    close(differentiated(partial(ia.imsvd_loss, **named), *z), expected, 1e-10)
    close(ia.imsvd_loss_and_gradient(*plain, **named), expected, 1e-10)


def test_what_weighs_nothing_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> Any:
        raise AssertionError("computed")

    z = embeddings(9, [3, 3])
    functions = [ia.imsvd_loss, ia.imsvd_loss_and_gradient]
    parts = {"diagonal_weight": ["diagonal", "agreement"], "off_diagonal_weight": ["off_diagonal", "backend_for"]}
    for weight, names in parts.items():
        with monkeypatch.context() as patch:
            for name in names:
                patch.setattr(losses, name, refused)
            for function in functions:
                function(*z, units=3, **{weight: 0})
                with pytest.raises(AssertionError, match="computed"):
                    function(*z, units=3)


@pytest.mark.parametrize("loss", [ia.imsvd_loss, ia.imsvd_loss_and_gradient])
@pytest.mark.parametrize(
    ("units", "weights"),
    [
        (3, {"diagonal_weight": 0, "off_diagonal_weight": 0, "invariance_weight": 0}),
        (3, {"entropy_weight": 0, "invariance_weight": 0}),
        (6, {"diagonal_weight": 0, "invariance_weight": 0}),  # one segment has no pairs
    ],
)
def test_weights_must_leave_something(loss: Any, units: int, weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="the weights must leave a term of the loss"):
        loss(np.zeros((4, 6)), np.zeros((4, 6)), units=units, **weights)


@pytest.mark.parametrize("seed", range(12))
def test_single_precision_is_the_listing_with_masks(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 9, size=random.integers(1, 12)).tolist()
    z = [
        view.float() for view in embeddings(int(random.integers(1, 80)), sizes, scale=float(random.choice([0.1, 1, 4])))
    ]
    expected = differentiated(partial(einsum_and_mask, sizes=sizes), *z)
    close(differentiated(partial(ia.imsvd_loss, units=sizes), *z), expected, 1e-5)
    found = ia.imsvd_loss_and_gradient(*(view.numpy() for view in z), units=sizes)
    assert found.value.dtype == found.gradient1.dtype == np.float32
    close(found, expected, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_under_autocast_everything_is_single_precision(dtype: torch.dtype, scale: float) -> None:
    """Logits of scale 50 make P underflow in half precision, where the papers' clamp of 1e-8 is zero."""
    sizes = [4, 3, 3, 6]
    z = [view.to(dtype) for view in embeddings(40, sizes, scale=scale)]
    expected = differentiated(partial(listing, sizes=sizes), *(view.double() for view in z))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = differentiated(partial(ia.imsvd_loss, units=sizes), *z)
        made = ia.imsvd_loss_and_gradient(*z, units=sizes)
    assert found[0].dtype == torch.float32
    assert found[1].dtype == dtype
    close(made, expected, 1e-5)
    close(found, expected, {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-5}[dtype])


@pytest.mark.theorem("B7")
def test_gradients_of_codes_are_right() -> None:
    """By finite differences, for codes that are no softmax of anything."""
    sizes = [2, 3, 1]
    q = [ia.soft_discretize(view, sizes).requires_grad_() for view in embeddings(6, sizes)]
    mixed = torch.tensor([0.3, -1.7], dtype=torch.float64)
    with torch.autograd.set_detect_anomaly(True):
        assert torch.autograd.gradcheck(
            lambda a, b: (torch.stack(ia.entropy_terms(a, b, sizes)) * mixed).sum(), q, nondet_tol=0, atol=1e-7
        )
        for kind in ("inner-product", "cross-entropy"):
            assert torch.autograd.gradcheck(partial(ia.transform_invariance, units=sizes, kind=kind), q, atol=1e-7)


def test_only_the_gradient_that_is_asked_for() -> None:
    z1, z2 = embeddings(12, [3, 3])
    z1.requires_grad_()
    ia.imsvd_loss(z1, z2, units=3).backward()
    (expected,) = torch.autograd.grad(listing(z1, z2, [3, 3]), z1)
    close([z1.grad], [expected], 1e-12)


def test_both_views_may_be_one() -> None:
    (z, _) = embeddings(12, [3, 3])
    close(
        differentiated(lambda z: ia.music_loss(z, z, segment_size=3), z),
        differentiated(lambda z: listing(z, z, [3, 3]), z),
        1e-12,
    )


def test_certain_views_that_disagree_cost_what_their_logits_say() -> None:
    """In single precision their inner product is zero; its logarithm, from logits, is not infinite."""
    z1 = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    z2 = z1.flip(0)
    found = differentiated(partial(ia.imsvd_loss, units=2), z1, z2)
    assert all(torch.isfinite(x).all() for x in found)
    assert float(found[0]) == pytest.approx(200 - np.log(2), rel=1e-6)  # of DE nothing is left: no unit is shared
    assert float(ia.transform_invariance(*(ia.soft_discretize(z, 2) for z in (z1, z2)), 2)) == np.inf


@pytest.mark.theorem("B7")
@pytest.mark.parametrize("kind", ["inner-product", "cross-entropy"])
def test_codes_with_zeros_have_finite_gradients(kind: Any) -> None:
    """Cells of P that are zero stay out of the sums and of their slopes."""
    z1, z2 = embeddings(5, [3, 4], scale=400)
    found = differentiated(partial(ia.imsvd_loss, units=[3, 4], invariance=kind), z1, z2)
    assert all(torch.isfinite(x).all() for x in found)
    q = [ia.soft_discretize(z.float() * 1000, [3, 4]).requires_grad_() for z in (z1, z2)]
    assert (ia.joint_distribution(*q) == 0).any()
    terms = ia.entropy_terms(*q, [3, 4])
    gradients = torch.autograd.grad(sum(terms), q)
    joint = ia.joint_distribution(*q).detach().double()
    owner = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    weight = (owner[:, None] != owner) / 2 + torch.eye(7) / 2
    slope = torch.where(joint > 0, weight * (1 + joint.clamp_min(1e-300).log()), 0)
    close(gradients, [q[1].double() @ slope.T / 5, q[0].double() @ slope / 5], 1e-6)


def test_a_second_derivative_is_refused_not_wrong() -> None:
    z = [view.requires_grad_() for view in embeddings(6, [2, 2])]
    (gradient, _) = torch.autograd.grad(ia.imsvd_loss(*z, units=2), z, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(gradient.sum(), z)


@pytest.mark.parametrize("weights", [{"entropy_weight": 0.0}, {"entropy_weight": 2.5}])
def test_weights_are_those_of_the_terms(weights: dict[str, float]) -> None:
    sizes = [2, 5, 3]
    z1, z2 = embeddings(20, sizes)
    q1, q2 = (ia.soft_discretize(z, sizes) for z in (z1, z2))
    entropies = float(sum(ia.entropy_terms(q1, q2, sizes)))
    invariance = float(ia.transform_invariance(q1, q2, sizes))
    found = float(ia.imsvd_loss(z1, z2, units=sizes, **weights))
    assert found == pytest.approx(invariance + weights["entropy_weight"] * entropies, rel=1e-12)
    found = float(ia.music_loss(z1, z2, segment_size=sizes, invariance_weight=0))
    assert found == pytest.approx(entropies, rel=1e-12)


@pytest.mark.theorem("B1")
def test_the_two_normalisations_weigh_the_diagonal_differently() -> None:
    """M - 1 times more against the rest in the released code's (theory, B1)."""
    sizes = [3] * 5
    q = [ia.soft_discretize(z, sizes) for z in embeddings(20, sizes)]
    block, grid = (ia.entropy_terms(*q, sizes, normalization=name) for name in ("block", "grid"))
    ratio = (block.diagonal / block.off_diagonal) / (grid.diagonal / grid.off_diagonal)
    assert float(ratio) == pytest.approx(len(sizes) - 1)


def test_temperature_divides_the_embeddings() -> None:
    z1, z2 = (view.numpy() for view in embeddings(9, [4, 4]))
    warm, scaled = (
        ia.imsvd_loss_and_gradient(z1, z2, units=4, temperature=0.25),
        ia.imsvd_loss_and_gradient(4 * z1, 4 * z2, units=4),
    )
    close(warm, [scaled.value, 4 * scaled.gradient1, 4 * scaled.gradient2], 1e-12)


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # where dynamo resumes
def test_a_graph_break_under_compile_changes_nothing() -> None:
    z = embeddings(10, [3, 3])
    uncompiled = torch.compiler.disable(partial(ia.imsvd_loss, units=3))

    def step(z1: Tensor, z2: Tensor) -> Tensor:
        value: Tensor = uncompiled(z1 * 2, z2 * 2) + z1.square().mean()
        return value

    close(differentiated(torch.compile(step, backend="eager"), *z), differentiated(step, *z), 1e-12)


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_as_it_is_it_breaks_the_graph_more_often_and_is_right() -> None:
    z = embeddings(10, [3, 3])
    loss = partial(ia.imsvd_loss, units=3)
    close(differentiated(torch.compile(loss, backend="eager"), *z), differentiated(loss, *z), 1e-12)


def test_jax_differentiates_the_value() -> None:
    jax = pytest.importorskip("jax")
    sizes = [3, 2, 2]
    z = [view.float().numpy() for view in embeddings(14, sizes)]
    loss = partial(ia.imsvd_loss, units=sizes)
    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(*map(jax.numpy.asarray, z))
    close([value, *gradients], ia.imsvd_loss_and_gradient(*z, units=sizes), 1e-5)
    assert float(jax.jit(loss)(*z)) == pytest.approx(float(value), rel=1e-6)
    first = jax.grad(lambda z1: loss(z1, jax.numpy.asarray(z[1])))(jax.numpy.asarray(z[0]))  # the other is no tracer
    close([first], gradients[:1], 1e-6)


def test_jax_has_gradients_over_ranks_by_the_pair_only() -> None:
    """Its autograd does not know what a gather leaves constant."""
    jnp = pytest.importorskip("jax").numpy
    z = [jnp.asarray(view.float().numpy()) for view in embeddings(6, [3, 2])]
    options: dict[str, Any] = {"units": [3, 2], "all_gather": lambda rows: [rows, rows]}
    q = ia.soft_discretize(z[0], [3, 2])
    with pytest.raises(TypeError, match="imsvd_loss_and_gradient and music_loss_and_gradient have"):
        ia.imsvd_loss(*z, **options)
    with pytest.raises(TypeError, match="all_gather is not for JAX's autograd"):
        ia.entropy_terms(q, q, **options)
    assert np.isfinite(float(ia.imsvd_loss_and_gradient(*z, **options).value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_subnormal_numbers_may_count_as_zero(dtype: torch.dtype) -> None:
    z = embeddings(8, [3, 3], scale=50)
    sure = [ia.soft_discretize(view.to(dtype) * 1000, 3) for view in z]
    expected = differentiated(partial(listing, sizes=[3, 3]), *(view.to(dtype) for view in z))
    assert torch.set_flush_denormal(True)
    try:
        found = differentiated(partial(ia.imsvd_loss, units=3), *(view.to(dtype) for view in z))
        terms = ia.entropy_terms(*sure, 3)
    finally:
        torch.set_flush_denormal(False)
    assert all(torch.isfinite(term) for term in terms)
    close(found, expected, 1e-5 if dtype == torch.float32 else 1e-10)


Z = np.zeros((4, 6))
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"z1": [[1.0, 2.0]]}, TypeError, "z1 must be an array"),
    ({"z1": Z.astype(int)}, TypeError, "z1 must have a real floating dtype"),
    ({"z2": torch.zeros(4, 6)}, TypeError, "z2 must be an array of the same library as z1"),
    ({"z2": Z.astype(np.float32)}, TypeError, "z2 must have the dtype of z1, float64; got float32"),
    ({"z2": Z[:3]}, ValueError, r"z2 must have shape \(4, 6\), to go with z1; got \(3, 6\)"),
    ({"z1": Z[0]}, ValueError, r"z1 must have shape \(rows, units\), not empty; got \(6,\)"),
    ({"z1": Z[:0], "z2": Z[:0]}, ValueError, "not empty"),
    ({"z2": np.where(np.eye(4, 6), np.nan, 0)}, ValueError, "z2 must be finite.* nan at row 0, column 0"),
    ({"z1": np.where(np.eye(4, 6, 2), -np.inf, 0)}, ValueError, "z1 must be finite.* -inf at row 0, column 2"),
    ({"units": 80}, ValueError, "units must divide the width of the embeddings, 6; got 80.*list of their sizes"),
    ({"units": [2, 3]}, ValueError, "units must sum to the width of the embeddings, 6; got 5"),
    ({"units": [6, 0]}, ValueError, "units must be at least 1; got 0"),
    ({"units": 2.0}, TypeError, "units must be an integer; got 2.0"),
    ({"units": "33"}, TypeError, "units must be an integer; got '3'"),
    ({"units": []}, ValueError, "units must hold the size of a segment; got none"),
    ({"temperature": 0}, ValueError, "temperature must be positive"),
    ({"entropy_weight": -1}, ValueError, "entropy_weight must not be negative"),
    ({"entropy_weight": float("inf")}, ValueError, "entropy_weight must be finite"),
    ({"diagonal_weight": -1}, ValueError, "diagonal_weight must not be negative"),
    ({"off_diagonal_weight": float("nan")}, ValueError, "off_diagonal_weight must"),
    ({"invariance_weight": "1"}, TypeError, "invariance_weight must be a real number"),
    ({"normalization": "blocks"}, ValueError, "normalization must be 'block' or 'grid'; got 'blocks'"),
    ({"invariance": "TI"}, ValueError, "invariance must be 'inner-product' or 'cross-entropy'; got 'TI'"),
    ({"all_gather": lambda rows: rows}, TypeError, "all_gather must return a list with the rows of every rank"),
    ({"all_gather": lambda rows: []}, TypeError, "all_gather must return a list"),
    ({"all_gather": lambda rows: [rows[:, :3]]}, ValueError, "what all_gather returned of rank 0 must have shape"),
    ({"all_gather": lambda rows: [rows[:2]]}, ValueError, "all_gather must return the rows of every rank; got 2 in"),
    ({"z1": Z * 1e200, "z2": Z + 1e200}, ValueError, "z2 must be finite, and below"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
@pytest.mark.parametrize("loss", [ia.imsvd_loss, ia.imsvd_loss_and_gradient])
def test_wrong_arguments_are_named(loss: Any, wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"z1": Z, "z2": Z, "units": 2, **wrong}
    with pytest.raises(error, match=message):
        loss(arguments.pop("z1"), arguments.pop("z2"), **arguments)


@pytest.mark.parametrize("edges", [[0, 8, 17], [0, 15, 17], [0, 6, 6, 17]])
@pytest.mark.parametrize(
    "options",
    [{}, {"invariance": "cross-entropy"}, {"diagonal_weight": 0}, {"off_diagonal_weight": 0}, {"invariance_weight": 0}],
    ids=str,
)
def test_the_mean_over_ranks_is_one_process(make: Make, edges: list[int], options: dict[str, Any]) -> None:
    """In every library: ranks that hold some of the rows each, and one of them none."""
    sizes = [3, 2, 4]
    z = [view.numpy() for view in embeddings(17, sizes)]
    loss = partial(ia.music_loss_and_gradient, segment_size=sizes, **options)
    whole = loss(*map(make, z))
    shards = [slice(*edge) for edge in pairwise(edges)]
    q = np.concatenate([ia.soft_discretize(view, sizes) for view in z], axis=1)
    gathered = [make(q[shard]) for shard in shards]
    parts = [loss(*(make(view[shard]) for view in z), all_gather=lambda _: gathered) for shard in shards]
    assert np.mean([float(part.value) for part in parts]) == pytest.approx(float(whole.value), rel=1e-12)
    for which in ("gradient1", "gradient2"):
        rows = np.concatenate([np.asarray(getattr(part, which)) for part in parts]) / len(parts)
        np.testing.assert_allclose(rows, np.asarray(getattr(whole, which)), rtol=1e-10, atol=1e-15)
