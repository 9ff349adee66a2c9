"""Shapes, normalisation, and what learns."""

import math

import pytest
import torch

import infoassign as ia
from infoassign_training.config import Pretraining
from infoassign_training.engine.pretrain import build
from infoassign_training.methods.mira import Mira
from infoassign_training.models.heads import Prototypes
from infoassign_training.models.small import SmallResNet

IMAGES = torch.zeros(128, 1, 8, 8)
"""What a model is built for; only the shape counts."""


@pytest.fixture
def method(small: Pretraining) -> Mira:
    return build(small, IMAGES)


@pytest.fixture
def views() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 24, 1, 8, 8, generator=generator).unbind()
    return first, second


@pytest.mark.parametrize("size", [8, 16])
def test_encoder_shapes(size: int) -> None:
    assert SmallResNet((4, 8, 16), 20, size)(torch.rand(3, 1, size, size)).shape == (3, 20)


def test_encoder_names_the_image_sizes_that_fit() -> None:
    with pytest.raises(ValueError, match="3 stages need an image size that is a multiple of 4; got 6"):
        SmallResNet((4, 8, 16), 20, 6)


def test_prototype_logits_are_cosines() -> None:
    prototypes = Prototypes(5, 7)
    projections = torch.randn(4, 5)
    expected = torch.cosine_similarity(projections[:, None], prototypes.weight[None], dim=-1)
    torch.testing.assert_close(prototypes(projections), expected)
    torch.testing.assert_close(prototypes(3 * projections), expected)


def test_weights_depend_on_the_seed_alone(small: Pretraining) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(small, IMAGES)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = build(small, IMAGES)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_loss_is_equation_8(method: Mira, views: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Half of it: the mean of the two terms, written out in NumPy from the method's own parts."""
    beta = 0.7
    step = method(*views, beta)
    both = torch.cat(views)
    with torch.no_grad():
        students = method.prototypes(method.projector(method.encoder(both))).double().chunk(2)
        teachers = method.prototypes(method.teacher(both)).double().chunk(2)
    labels = [ia.mira(t, beta=beta, temperature=method.settings.teacher_temperature, tol=1e-9).plan for t in teachers]
    log_q = [torch.log_softmax(s / method.settings.student_temperature, dim=1) for s in students]
    terms = [-(labels[0] * log_q[1]).sum(dim=1).mean(), -(labels[1] * log_q[0]).sum(dim=1).mean()]
    assert float(step.loss.detach()) == pytest.approx(float(sum(terms)) / 2, abs=5e-3)


def test_a_finished_model_labels_by_its_student_with_the_last_beta(
    method: Mira, views: tuple[torch.Tensor, torch.Tensor]
) -> None:
    method.eval()
    with torch.no_grad():
        logits = method.prototypes(method.projector(method.encoder(views[0])))
    settings = method.settings
    assert settings.beta_start != settings.beta_end
    expected = ia.mira(logits, beta=settings.beta_end, temperature=settings.teacher_temperature, tol=settings.tolerance)
    method.train()
    torch.testing.assert_close(method.label(views[0]).plan, expected.plan)


def test_only_the_student_learns(method: Mira, views: tuple[torch.Tensor, torch.Tensor]) -> None:
    method(*views, 0.7).loss.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    learning = [*method.encoder.parameters(), *method.projector.parameters(), *method.prototypes.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)


def test_the_teacher_averages_parameters_and_keeps_statistics_of_its_own(method: Mira) -> None:
    student = torch.nn.Sequential(method.encoder, method.projector)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    before = [p.clone() for p in method.teacher.parameters()]
    buffers = [b.clone() for b in method.teacher.buffers()]
    for buffer in student.buffers():
        buffer.fill_(9)
    method.update_teacher(0.75)
    for kept, old in zip(method.teacher.parameters(), before, strict=True):
        torch.testing.assert_close(kept, old + 0.25)
    assert all(torch.equal(kept, old) for kept, old in zip(method.teacher.buffers(), buffers, strict=True))


def test_the_loss_is_ln_k_where_all_prototypes_are_predicted_alike(
    method: Mira, views: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """The plateau that the progress bar's loss / ln K and the alarm are about."""
    with torch.no_grad():
        method.prototypes.weight.copy_(method.prototypes.weight[:1].expand(12, -1))
    assert float(method(*views, 0.7).loss.detach()) == pytest.approx(math.log(12), abs=1e-5)
