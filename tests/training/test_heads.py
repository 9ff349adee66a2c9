"""Heads at the papers' sizes, on the meta device, and what their layers are."""

import pytest
import torch
from torch import nn

from infoassign_training.models.alexnet import FEATURES, AlexNet
from infoassign_training.models.heads import MultiHead, Prototypes, projector, rotation_head
from infoassign_training.models.resnet import resnet

ROWS = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("hidden", "out", "hidden_bias", "last_bias", "expected"),
    [
        pytest.param((2048, 2048), 256, False, True, 2 * (2048 * 2048 + 2 * 2048) + 2048 * 256 + 256, id="mira"),
        pytest.param((2048,), 128, True, True, 2048 * 2048 + 3 * 2048 + 2048 * 128 + 128, id="swav"),
        pytest.param((8192,), 8160, True, False, 2048 * 8192 + 3 * 8192 + 8192 * 8160, id="music"),
        pytest.param((8192, 8192), 8192, True, False, 2048 * 8192 + 2 * 8192**2 + 2 * 3 * 8192, id="vicreg"),
        pytest.param((8192, 8192), 8192, False, False, 2048 * 8192 + 2 * 8192**2 + 2 * 2 * 8192, id="barlow-twins"),
    ],
)
def test_projectors_of_the_papers(
    hidden: tuple[int, ...], out: int, hidden_bias: bool, last_bias: bool, expected: int
) -> None:
    with torch.device("meta"):
        encoder, features = resnet("resnet50", cifar_stem=False, zero_init_residual=True)
        head = projector(features, hidden, out, hidden_bias=hidden_bias, last_bias=last_bias)
        assert head(encoder(torch.empty(2, 3, 224, 224))).shape == (2, out)
    assert parameters(head) == expected


def test_hidden_layers_are_normalised_and_rectified_and_the_last_is_neither() -> None:
    head = projector(10, (7,), 5, hidden_bias=True, last_bias=False)
    first, last = head[0].weight.double(), head[3].weight.double()
    hidden = ROWS.double() @ first.T
    # The first bias drops out of the normalisation.
    normal = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(head(ROWS), (normal.clamp(min=0) @ last.T).float())


def test_no_hidden_layer_makes_a_linear_projection() -> None:
    head = projector(10, (), 5, hidden_bias=False, last_bias=True)
    torch.testing.assert_close(head(ROWS), ROWS @ head[0].weight.T + head[0].bias)


def test_prototypes_at_the_size_of_mira() -> None:
    with torch.device("meta"):
        assert Prototypes(256, 3000)(torch.empty(2, 256)).shape == (2, 3000)


def test_prototypes_have_the_gradient_of_weight_normalisation_with_gain_1() -> None:
    """As the released code has it: torch's own, its gain at 1 and frozen."""
    ours = Prototypes(10, 4)
    layer = nn.Linear(10, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(ours.weight)
    nn.utils.parametrizations.weight_norm(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original0.fill_(1)
    theirs = layer(nn.functional.normalize(ROWS))
    torch.testing.assert_close(ours(ROWS), theirs)
    ours(ROWS).square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, layer.parametrizations.weight.original1.grad)


def test_every_head_is_linear_and_of_its_own_size() -> None:
    heads = MultiHead(10, (3, 4))
    assert all(not head.bias.any() for head in heads.heads)
    nn.init.normal_(heads.heads[1].bias)
    logits = heads(ROWS)
    for one, head in zip(logits, heads.heads, strict=True):
        torch.testing.assert_close(one, ROWS @ head.weight.T + head.bias)
    assert [one.shape for one in logits] == [(6, 3), (6, 4)]


def test_heads_learn_from_their_own_logits_alone() -> None:
    heads = MultiHead(10, (3, 4))
    heads(ROWS)[1].sum().backward()
    assert heads.heads[0].weight.grad is None
    assert heads.heads[1].weight.grad.any()


def test_sela_at_the_size_of_the_paper() -> None:
    with torch.device("meta"):
        encoder, heads = AlexNet("large"), MultiHead(FEATURES, [3000] * 10)
        logits = heads(encoder(torch.empty(2, 3, 224, 224)))
    assert [one.shape for one in logits] == [(2, 3000)] * 10
    assert parameters(heads) == 10 * 3000 * (4096 + 1)


def test_rotation_head_tells_four_turns() -> None:
    assert rotation_head(10)(ROWS).shape == (6, 4)
