"""Joint-entropy losses keep their laws."""

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import infoassign as ia
from infoassign.testing import Codes, entropy_laws, laws, strategies
from infoassign.testing.contract import STATEMENTS
from infoassign.testing.definitions import (
    entropy_lower_bound,
    joint_entropy_gradients,
    joint_entropy_loss,
    joint_entropy_terms,
)


def reference(z1: Any, z2: Any, units: Any) -> Any:
    """The definition, with its gradients by the chain rule."""
    return joint_entropy_loss(z1, z2, units), *joint_entropy_gradients(z1, z2, units)


def by_autograd(z1: Any, z2: Any, units: Any) -> Any:
    """A literal transcription in torch, of which autograd makes the gradients."""
    views = [torch.from_numpy(z).requires_grad_() for z in (z1, z2)]
    q1, q2 = (torch.cat([torch.softmax(part, dim=1) for part in z.split(list(units), dim=1)], dim=1) for z in views)
    joint = q1.T @ q2 / len(q1)
    terms = torch.special.xlogy(joint, torch.where(joint > 0, joint, 1.0))
    blocks = [row.split(list(units), dim=1) for row in terms.split(list(units), dim=0)]
    count = len(units)
    diagonal = sum(blocks[m][m].diagonal().sum() for m in range(count))
    off = sum((blocks[m][n].sum() for m in range(count) for n in range(count) if m != n), torch.tensor(0.0))
    agreement = torch.stack([part.sum(dim=1) for part in (q1 * q2).split(list(units), dim=1)])
    loss = diagonal / count + off / max(1, count * (count - 1)) - agreement.log().mean()
    gradients = torch.autograd.grad(loss, views)
    return loss.detach(), *gradients


def library(z1: Any, z2: Any, units: Any) -> Any:
    """The library's pair."""
    return ia.imsvd_loss_and_gradient(z1, z2, units=units)


def library_by_autograd(z1: Any, z2: Any, units: Any) -> Any:
    """The library's loss of torch tensors."""
    views = [torch.from_numpy(z).requires_grad_() for z in (z1, z2)]
    loss = ia.music_loss(*views, segment_size=units)
    return loss.detach(), *torch.autograd.grad(loss, views)


def library_on_strict_arrays(z1: Any, z2: Any, units: Any) -> Any:
    """The library's pair, in nothing beyond the standard."""
    return ia.imsvd_loss_and_gradient(*map(array_api_strict.asarray, (z1, z2)), units=units)


def library_on_cuda(z1: Any, z2: Any, units: Any) -> Any:
    """The library's loss on a GPU."""
    views = [torch.from_numpy(z).cuda().requires_grad_() for z in (z1, z2)]
    loss = ia.imsvd_loss(*views, units=units)
    return loss.detach(), *torch.autograd.grad(loss, views)


def library_on_cupy(z1: Any, z2: Any, units: Any) -> Any:
    """The library's pair on a GPU."""
    return ia.imsvd_loss_and_gradient(*map(pytest.importorskip("cupy").asarray, (z1, z2)), units=units)


LOSSES = [
    reference,
    by_autograd,
    library,
    library_by_autograd,
    library_on_strict_arrays,
    *(pytest.param(loss, marks=pytest.mark.gpu) for loss in (library_on_cuda, library_on_cupy)),
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "law",
    [
        pytest.param(law, id=law.__name__, marks=pytest.mark.theorem(*STATEMENTS[law.__name__]))
        for law in entropy_laws.LAWS
    ],
)
def test_they_keep_them(law: Callable[..., None], loss: Callable[..., Any]) -> None:
    @settings(max_examples=settings.default.max_examples // 2)
    @given(strategies.soft_codes())
    def keeps(codes: Codes) -> None:
        law(loss, codes)

    keeps()


@pytest.mark.theorem("B4")
@pytest.mark.parametrize("loss", LOSSES)
def test_orthogonal_arrays_attain_the_bound(loss: Callable[..., Any]) -> None:
    entropy_laws.orthogonal_arrays_attain_the_bound(loss)


@pytest.mark.parametrize("loss", LOSSES)
def test_all_together(loss: Callable[..., Any]) -> None:
    laws.entropy_objective(loss, settings=settings(max_examples=10))


def test_single_precision_keeps_them_to_its_own_tolerance() -> None:
    def single(z1: Any, z2: Any, units: Any) -> Any:
        return by_autograd(z1.astype(np.float32), z2.astype(np.float32), units)

    laws.entropy_objective(single, tol=2e-4, settings=settings(max_examples=20, derandomize=True))


@pytest.mark.theorem("B3")
def test_two_units_alone_are_least_at_one_over_e() -> None:
    """Their diagonal entropy is least at P = 1/e, below -log 2 at one-hot; with the invariance the loss is not."""
    hard = 1e4 * np.eye(2)
    # For rows (a, 1 - a) and (1 - a, a) the diagonal of P is (a^2 + (1 - a)^2) / 2.
    a = (1 + np.sqrt(4 / np.e - 1)) / 2
    soft = np.log([[a, 1 - a], [1 - a, a]])
    assert joint_entropy_terms(hard, hard, (2,))[0] == pytest.approx(-np.log(2))
    assert joint_entropy_terms(soft, soft, (2,))[0] == pytest.approx(-2 / np.e) == entropy_lower_bound((2,))
    assert joint_entropy_loss(soft, soft, (2,)) > joint_entropy_loss(hard, hard, (2,))
