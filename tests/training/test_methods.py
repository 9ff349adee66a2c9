"""Every method: its loss against what the papers say, and its labels against literal oracles."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import digit_runs
import numpy as np
import pytest
import torch
from digit_runs import built, train, with_method
from numpy.typing import NDArray

import infoassign as ia
from infoassign_training.data.digits import LabelledImages
from infoassign_training.engine.run import Run, open_run
from infoassign_training.engine.schedule import relabelling_times
from infoassign_training.methods import settings
from infoassign_training.methods.barlow_twins import BarlowTwins
from infoassign_training.methods.deepcluster import DeepCluster
from infoassign_training.methods.imsvd import Imsvd
from infoassign_training.methods.method import Batch, Method, Moment, Parts
from infoassign_training.methods.mira import Mira
from infoassign_training.methods.music import Music
from infoassign_training.methods.sela import Sela
from infoassign_training.methods.settings import KINDS
from infoassign_training.methods.swav import Swav
from infoassign_training.methods.vicreg import Vicreg
from infoassign_training.models.settings import Projector

SMALL = replace(digit_runs.SMALL, batch_size=64, projector=Projector(hidden=(16,), projection=32))
CHOSEN: dict[str, settings.Settings] = {
    kind: make()
    for kind, make in KINDS.items()
    # Transfer needs a file, see test_transfer.py; those of evaluations, too, known only where they are imported.
    if make.__module__ == settings.__name__ and kind != "transfer"
} | {
    "swav": settings.Swav(queue=96, queue_from_epoch=1),
    "sela": settings.Sela(heads=(12, 5), relabellings=3, label_views=2),
    "deepcluster": settings.DeepCluster(clusters=12),
}


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return digit_runs.some(200)


def trained(chosen: settings.Settings, images: LabelledImages, folder: Path, epochs: int = 2) -> tuple[Method, Run]:
    """Train anew, or go on with the run in the folder."""
    wanted = replace(with_method(SMALL, chosen), epochs=epochs)
    if not Run(folder).settings.exists():
        with open_run(folder, "small", wanted):
            pass
    return train(wanted, images, Run(folder)), Run(folder)


def batch(images: LabelledImages, number: int = 40) -> Batch:
    views = torch.rand(2, number, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(list(views.unbind()), torch.arange(number), images.classes[:number])


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 50, 7))).unbind()  # type: ignore[return-value]


@pytest.mark.parametrize("kind", CHOSEN)
def test_training_changes_the_encoder_and_is_logged(kind: str, images: LabelledImages, tmp_path: Path) -> None:
    initial = built(with_method(SMALL, CHOSEN[kind]), images).encoder.state_dict()
    method, run = trained(CHOSEN[kind], images, tmp_path)
    assert all(bool(parameter.isfinite().all()) for parameter in method.parameters())
    assert not torch.equal(next(iter(initial.values())), next(method.encoder.parameters()))
    last = run.records()[-1]
    assert last["epoch"] == 2
    assert np.isfinite(last["loss"])
    assert ("mutual_information" in last) <= (method.labels is not None)
    found = method.label(images.images)
    assert (found is None) == (method.labels is None)
    if found is not None:
        assert found.plan.shape == (200, method.labels)


def sinkhorn_knopp(scores: NDArray[np.float64], epsilon: float, iterations: int) -> NDArray[np.float64]:
    """The listing of SwAV's appendix, in float64."""
    q = np.exp(scores / epsilon).T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True) * len(q)
        q /= q.sum(axis=0, keepdims=True) * q.shape[1]
    found: NDArray[np.float64] = (q * q.shape[1]).T
    return found


def test_swav_labels_by_the_papers_listing(images: LabelledImages) -> None:
    method = built(with_method(SMALL, settings.Swav(prototypes=12)), images)
    assert isinstance(method, Swav)
    cosines = 2 * torch.rand(40, 12, generator=torch.Generator().manual_seed(0)) - 1
    expected = sinkhorn_knopp(cosines.double().numpy(), 0.05, 3)
    assert np.abs(method.assign(cosines).plan.numpy() - expected).max() < 1e-5


def test_swav_loss_is_the_swapped_prediction(images: LabelledImages) -> None:
    method = built(with_method(SMALL, settings.Swav(prototypes=12)), images)
    assert isinstance(method, Swav)
    given = batch(images)
    step = method(given, Moment(0, 9, 3))
    with torch.no_grad():
        cosines = method.prototypes(method.projector(method.encoder(torch.cat(given.views)))).double().chunk(2)
    labels = [sinkhorn_knopp(part.numpy(), 0.05, 3) for part in cosines]
    logs = [torch.log_softmax(part / 0.1, dim=1).numpy() for part in cosines]
    expected = -((labels[0] * logs[1]).sum(axis=1).mean() + (labels[1] * logs[0]).sum(axis=1).mean()) / 2
    assert float(step.loss.detach()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["mira", "swav"])
def test_local_crops_predict_the_labels_of_both_global_views(kind: str) -> None:
    """With every term of the sum written out; the small views are of another size."""
    pooled = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    chosen = KINDS[kind](prototypes=5)  # type: ignore[call-arg]
    method = chosen.method(Parts(pooled, torch.nn.Linear(6, 4), features=6, projection=4, images=9, classes=2))
    generator = torch.Generator().manual_seed(0)
    views = [torch.rand(9, 1, size, size, generator=generator) for size in (8, 8, 5, 5, 5)]
    rows = torch.arange(9)
    step = method(Batch(views, rows, rows), Moment(0, 9, 3))
    logits = [method.prototypes(method.projector(method.encoder(view))) / 0.1 for view in views]
    terms = [
        -(found.plan * torch.log_softmax(logits[view], dim=1)).sum(dim=1).mean()
        for number, found in enumerate(step.assignments)
        for view in range(5)
        if view != number
    ]
    assert len(terms) == 8
    assert len(step.assignments) == 2
    assert float(step.loss.detach()) == pytest.approx(float(sum(terms).detach()) / 8, abs=1e-5)
    agreed = [
        np.mean(logits[view].argmax(dim=1).numpy() == found.plan.argmax(dim=1).numpy())
        for number, found in enumerate(step.assignments)
        for view in range(5)
        if view != number
    ]
    assert float(step.watched["agreement"]) == pytest.approx(np.mean(agreed))


def test_swav_uses_its_queue_when_it_is_full(images: LabelledImages) -> None:
    method = built(with_method(SMALL, settings.Swav(queue=60, queue_from_epoch=1)), images)
    given = batch(images)
    sizes = [len(method(given, Moment(step, 9, 3)).assignments[0].plan) for step in (0, 1, 3)]
    # Two batches of 40 fill it; the first epoch of three steps leaves it alone.
    assert sizes == [40, 40, 100]
    early = built(with_method(SMALL, settings.Swav(queue=60, queue_from_epoch=0)), images)
    assert [len(early(given, Moment(step, 9, 3)).assignments[0].plan) for step in (0, 1, 2)] == [40, 40, 100]


def test_agreement_is_with_the_labels_of_the_batch_and_not_of_the_queue(images: LabelledImages) -> None:
    method = built(with_method(SMALL, settings.Swav(queue=40, queue_from_epoch=0)), images)
    given = batch(images)
    method(given, Moment(0, 9, 3))
    step = method(given, Moment(1, 9, 3))
    assert [len(found.labels) for found in step.assignments] == [80, 80]
    assert isinstance(method, Swav)
    with torch.no_grad():
        likeliest = [method.prototypes(view).argmax(dim=1) for view in method.outputs(given.views)]
    first, second = (found.labels[:40] for found in step.assignments)
    expected = ((likeliest[0] == second).float().mean() + (likeliest[1] == first).float().mean()) / 2
    assert float(step.watched["agreement"]) == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", ["sela", "deepcluster", "supervised"])
def test_agreement_with_labels_that_are_learnt(kind: str, images: LabelledImages) -> None:
    """Whole if the network says what it is to learn; of two heads the mean."""
    method = built(with_method(SMALL, CHOSEN[kind]), images).eval()
    given = batch(images)
    heads = [method.get_submodule("head")] if kind != "sela" else list(method.get_submodule("heads.heads"))
    with torch.no_grad():
        features = method.encoder(given.views[0])
        said = torch.stack([head(features).argmax(dim=1) for head in heads])
    if kind == "supervised":
        given = replace(given, classes=torch.cat([said[0, :30], (said[0, 30:] + 1) % 10]))
    else:
        targets = method.get_buffer("targets")
        targets[:, :40] = said
        targets[0, 30:40] = (said[0, 30:] + 1) % 12
    step = (
        method(given, Moment(0, 9, 3)) if kind != "deepcluster" else method.loss([features], [], given, Moment(0, 9, 3))
    )
    assert float(step.watched["agreement"]) == pytest.approx(0.875 if kind == "sela" else 0.75)


def passes(images: LabelledImages) -> Any:
    def once(views: int) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
        for rows in torch.arange(len(images.images)).split(64):
            yield rows, [images.images[rows] * (1 + 0.1 * view) for view in range(views)]

    return once


def test_sela_labels_all_images_in_even_shares(images: LabelledImages) -> None:
    chosen = settings.Sela(heads=(12, 5), relabellings=4, label_views=2)
    method = built(with_method(SMALL, chosen), images).train(False)
    assert isinstance(method, Sela)
    found = method.before(Moment(0, 90, 30), passes(images))
    with torch.no_grad():
        logits = [method.heads(method.encoder(images.images * scale)) for scale in (1, 1.1)]
    for head, assignment in enumerate(found):
        scores = sum(torch.log_softmax(view[head], dim=1).double() for view in logits) / 2
        expected = ia.sinkhorn(scores, epsilon=1 / 25, tol=1e-6)
        assert assignment.marginal_error <= 1e-3
        assert (method.targets[head] == expected.labels).double().mean() > 0.98
    assert torch.equal(method.potentials, torch.cat([assignment.potential for assignment in found]))
    assert method.before(Moment(1, 90, 30), passes(images)) == ()
    assert 10 in relabelling_times(4, 90)
    again = method.before(Moment(10, 90, 30), passes(images))
    assert all(one.sweeps <= other.sweeps for one, other in zip(again, found, strict=True)), "not started from the last"


def test_sela_learns_the_labels_of_every_head(images: LabelledImages) -> None:
    method = built(with_method(SMALL, CHOSEN["sela"]), images)
    assert isinstance(method, Sela)
    method.before(Moment(0, 9, 3), passes(images))
    given = batch(images)
    step = method(given, Moment(0, 9, 3))
    with torch.no_grad():
        logits = method.heads(method.encoder(given.views[0]))
    terms = [
        -torch.log_softmax(part.double(), dim=1)[torch.arange(40), method.targets[head, :40]].mean()
        for head, part in enumerate(logits)
    ]
    assert float(step.loss.detach()) == pytest.approx(float(sum(terms)) / 2, abs=1e-5)


def test_deepcluster_clusters_once_an_epoch_and_starts_the_head_anew(images: LabelledImages) -> None:
    method = built(with_method(SMALL, settings.DeepCluster(clusters=6, every_epochs=2)), images)
    assert isinstance(method, DeepCluster)
    before = method.head.weight.clone()
    assert len(method.before(Moment(0, 18, 3), passes(images))) == 1
    assert sorted(set(method.targets[0].tolist())) == list(range(6))
    assert not torch.equal(before, method.head.weight)
    kept = method.head.weight.clone()
    for step in (1, 3, 5):
        assert method.before(Moment(step, 18, 3), passes(images)) == ()
    assert torch.equal(kept, method.head.weight)
    assert len(method.before(Moment(6, 18, 3), passes(images))) == 1


def test_barlow_twins_is_the_papers_formula() -> None:
    first, second = embeddings()
    terms = BarlowTwins(torch.nn.Identity(), torch.nn.Identity(), settings.BarlowTwins()).terms(first, second)
    c = np.corrcoef(first.numpy().T, second.numpy().T)[:7, 7:]
    expected = ((1 - np.diag(c)) ** 2).sum() + 0.0051 * ((c**2).sum() - (np.diag(c) ** 2).sum())
    assert float(sum(terms.values())) == pytest.approx(expected, rel=1e-4)


def test_vicreg_is_the_papers_formula() -> None:
    first, second = embeddings()
    terms = Vicreg(torch.nn.Identity(), torch.nn.Identity(), settings.Vicreg()).terms(first, second)
    x, y = first.numpy(), second.numpy()
    off = [np.cov(z.T) - np.diag(np.diag(np.cov(z.T))) for z in (x, y)]
    hinges = [np.maximum(0, 1 - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)).mean() for z in (x, y)]
    expected = 25 * ((x - y) ** 2).mean() + 25 * sum(hinges) / 2 + sum((part**2).sum() for part in off) / 7
    assert float(sum(terms.values())) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["music", "imsvd"])
def test_joint_entropy_methods_use_the_librarys_loss(kind: str, images: LabelledImages) -> None:
    method = built(with_method(SMALL, CHOSEN[kind]), images)
    given = batch(images)
    loss = method(given, Moment(0, 9, 3)).loss
    with torch.no_grad():
        first, second = method.get_submodule("projector")(method.encoder(torch.cat(given.views))).chunk(2)
    expected = (
        ia.music_loss(first, second, segment_size=16) if kind == "music" else ia.imsvd_loss(first, second, units=16)
    )
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-6)


def test_only_the_supervised_baseline_sees_classes(images: LabelledImages) -> None:
    given = batch(images)
    blind = Batch(given.views, given.rows, given.classes.flip(0))
    for kind, chosen in CHOSEN.items():
        losses = []
        for some in (given, blind):
            method = built(with_method(SMALL, chosen), images)
            method.before(Moment(0, 9, 3), passes(images))
            losses.append(float(method(some, Moment(0, 9, 3)).loss.detach()))
        assert (losses[0] != losses[1]) == (kind == "supervised")


def diagonal_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """DE of codes (N, M, D): the cells d' = d'' of the blocks m' = m'', as MUSIC's eq. 5 divides them."""
    joint = np.einsum("imd,ind->imnd", p, q).mean(axis=0)
    segments = range(p.shape[1])
    return float(sum((joint[m, m] * np.log(joint[m, m])).sum() for m in segments) / len(segments))


def off_diagonal_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """OE: all cells of the blocks of two different segments."""
    joint = np.einsum("ima,inb->mnab", p, q) / len(p)
    pairs = [(m, n) for m in range(p.shape[1]) for n in range(p.shape[1]) if m != n]
    return float(sum((joint[pair] * np.log(joint[pair])).sum() for pair in pairs) / len(pairs))


def inner_product(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """TI, of MUSIC's listing and IMSVD's eq. 11."""
    return float(-np.log((p * q).sum(axis=2)).mean())


def cross_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """TIC, of the sentence after MUSIC's eq. 4."""
    return float(-(p * np.log(q)).sum() / (p.shape[0] * p.shape[1]))


ABLATION: dict[str, tuple[dict[str, Any], list[tuple[float, Callable[..., float]]]]] = {
    "DE+OE": ({"invariance_weight": 0}, [(1, diagonal_entropy), (1, off_diagonal_entropy)]),
    "OE+TI": ({"diagonal_weight": 0}, [(1, off_diagonal_entropy), (1, inner_product)]),
    "DE+OE+TIC": (
        {"invariance": "cross-entropy"},
        [(1, diagonal_entropy), (1, off_diagonal_entropy), (1, cross_entropy)],
    ),
    "DE+OE+TI": ({}, [(1, diagonal_entropy), (1, off_diagonal_entropy), (1, inner_product)]),
    "weighed": (
        {"diagonal_weight": 0.3, "off_diagonal_weight": 1.7, "invariance_weight": 0.6},
        [(0.3, diagonal_entropy), (1.7, off_diagonal_entropy), (0.6, inner_product)],
    ),
}
"""Rows of MUSIC's table 8 and IMSVD's table VIII, and one of other weights: as settings and as formulas."""


@pytest.mark.parametrize("row", ABLATION)
@pytest.mark.parametrize("kind", ["music", "imsvd"])
def test_the_ablation_is_the_papers_formulas(kind: str, row: str) -> None:
    """The gradient too, by central differences in every embedding."""
    segments, units = 3, 4
    chosen, terms = ABLATION[row]

    def literal(z: NDArray[np.float64]) -> float:
        powers = np.exp(z.reshape(2, -1, segments, units))
        codes = powers / powers.sum(axis=3, keepdims=True)
        return sum(weight * term(*codes) for weight, term in terms)

    parts = torch.nn.Identity(), torch.nn.Identity()
    method: Music | Imsvd
    if kind == "music":
        method = Music(*parts, settings.Music(segment_size=units, **chosen))
    else:
        method = Imsvd(*parts, settings.Imsvd(units=units, **chosen))
    z = np.random.default_rng(0).normal(size=(2, 5, segments * units))
    given = torch.from_numpy(z).requires_grad_()
    found = torch.stack(list(method.terms(given[0], given[1]).values())).sum()
    assert float(found.detach()) == pytest.approx(literal(z), rel=1e-12)
    (gradient,) = torch.autograd.grad(found, given)
    step = 1e-5
    slopes = np.array(
        [(literal(z + d) - literal(z - d)) / (2 * step) for d in step * np.eye(z.size).reshape(-1, *z.shape)]
    )
    np.testing.assert_allclose(gradient.numpy(), slopes.reshape(z.shape), rtol=0, atol=1e-9)


def test_lambda_of_imsvd_weighs_both_entropies() -> None:
    first, second = (z[:, :6] for z in embeddings())
    losses = [
        sum(Imsvd(torch.nn.Identity(), torch.nn.Identity(), chosen).terms(first, second).values())
        for chosen in (
            settings.Imsvd(units=3, entropy_weight=0.5, diagonal_weight=0.6, off_diagonal_weight=2),
            settings.Imsvd(units=3, diagonal_weight=0.3),
        )
    ]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-12)


@pytest.mark.parametrize("kind", ["music", "imsvd"])
@pytest.mark.parametrize("weight", ["diagonal_weight", "off_diagonal_weight", "invariance_weight"])
def test_a_term_left_out_still_trains(kind: str, weight: str, images: LabelledImages) -> None:
    chosen = replace(KINDS[kind](), **{weight: 0})  # type: ignore[arg-type]
    method = built(replace(SMALL, method=chosen), images)
    method(batch(images), Moment(0, 9, 3)).loss.backward()
    gradients = [parameter.grad for parameter in method.encoder.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("kind", [settings.Music, settings.Imsvd])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"diagonal_weight": 0, "off_diagonal_weight": 0, "invariance_weight": 0}, "must not all be 0"),
        ({"diagonal_weight": -1}, "method.diagonal_weight must be finite and not negative; got -1"),
        ({"off_diagonal_weight": float("inf")}, "method.off_diagonal_weight must be finite"),
        ({"invariance_weight": float("nan")}, "method.invariance_weight must be finite"),
        ({"invariance": "TIC"}, "method.invariance must be inner-product or cross-entropy; got 'TIC'"),
        ({"temperature": 0}, "method.temperature must be positive"),
    ],
)
def test_terms_that_cannot_be_are_refused(kind: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**wrong)


def test_lambda_of_imsvd_may_not_leave_nothing() -> None:
    settings.Imsvd(entropy_weight=0)
    with pytest.raises(ValueError, match="entropy_weight and invariance_weight must not both be 0"):
        settings.Imsvd(entropy_weight=0, invariance_weight=0)


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_mira_makes_as_many_steps_as_the_paper(images: LabelledImages) -> None:
    """Thirty updates of the potential by the fixed point, each written out."""
    method = built(with_method(SMALL, settings.Mira(prototypes=12, tolerance=0, iterations=30)), images)
    assert isinstance(method, Mira)
    logits = 3 * torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    beta, scores, v = 0.9, logits.double().numpy() / 0.225, np.zeros(12)
    for _ in range(30):
        v = beta * (v + (1 - beta) * np.log(12 * softmax((scores - v) / (1 - beta)).mean(axis=0)))
    expected = softmax((scores - v) / (1 - beta))
    assert np.abs(method.assign(logits, beta).plan.numpy() - expected).max() < 1e-4
    solved = ia.mira(scores, beta=beta, tol=1e-10)
    assert np.abs(solved.plan - expected).max() > 1e-3, "thirty steps are not to be told from the solution"


def test_mira_without_a_moving_average_labels_by_the_student(images: LabelledImages) -> None:
    method = built(with_method(SMALL, settings.Mira(prototypes=12, teacher_momentum=0)), images)
    assert isinstance(method, Mira)
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter += 0.1
    for step in (0, 5, 9):
        method.before(Moment(step, 10, 5), passes(images))
        student = [*method.encoder.parameters(), *method.projector.parameters()]
        assert all(map(torch.equal, student, method.teacher.parameters()))


def test_sela_may_learn_random_labels_in_even_shares(images: LabelledImages) -> None:
    method = built(with_method(SMALL, settings.Sela(heads=(12, 5), relabellings=0)), images)
    assert isinstance(method, Sela)
    assert method.before(Moment(0, 9, 3), passes(images)) == ()
    labels = method.targets.clone()
    for row, size in zip(labels, (12, 5), strict=True):
        shares = torch.bincount(row, minlength=size)
        assert int(shares.max() - shares.min()) <= 1
        assert not torch.equal(row, torch.arange(200) % size)
    for step in (1, 8):
        assert method.before(Moment(step, 9, 3), passes(images)) == ()
    assert method.finish(passes(images)) == ()
    assert torch.equal(method.pseudo_labels(), labels)
