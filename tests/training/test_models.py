"""Shapes, normalisation, and what learns."""

import math

import pytest
import torch
import torchvision
from digit_runs import built
from torch import nn

import infoassign as ia
from infoassign_training.config import Pretraining
from infoassign_training.data.digits import LabelledImages
from infoassign_training.methods.method import Batch, Moment
from infoassign_training.methods.mira import Mira
from infoassign_training.models import alexnet
from infoassign_training.models.alexnet import AlexNet, probe_features
from infoassign_training.models.heads import Prototypes
from infoassign_training.models.resnet import NAMES, resnet
from infoassign_training.models.small import SmallResNet

IMAGES = LabelledImages(torch.zeros(128, 1, 8, 8), torch.zeros(128, dtype=torch.int64))
"""What a model is built for; only the shape counts."""
MIDWAY = Moment(5, 10, 2)


@pytest.fixture
def method(small: Pretraining) -> Mira:
    method = built(small, IMAGES)
    assert isinstance(method, Mira)
    return method


def batch(views: tuple[torch.Tensor, torch.Tensor]) -> Batch:
    rows = torch.arange(len(views[0]))
    return Batch(list(views), rows, torch.zeros_like(rows))


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


def filled(module: nn.Module) -> nn.Module:
    """Give running statistics and scales values that show, and set the module to evaluation."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_networks_are_torchvisions_up_to_the_classifier(name: str) -> None:
    encoder, features = resnet(name, cifar_stem=False, zero_init_residual=True)
    reference = torchvision.models.get_model(name, weights=None)
    assert reference.load_state_dict(filled(encoder).state_dict(), strict=False).missing_keys == [
        "fc.weight",
        "fc.bias",
    ]
    reference.load_state_dict({**encoder.state_dict(), **{f"fc.{k}": v for k, v in reference.fc.state_dict().items()}})
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        pooled = encoder(images)
        assert torch.equal(reference.eval().fc(pooled), reference(images))
    assert pooled.shape == (2, features)
    reference.fc = nn.Identity()
    encoder.load_state_dict(reference.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_residual_networks_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        encoder, features = resnet(name, cifar_stem=False, zero_init_residual=False)
        assert encoder(torch.empty(2, 3, 224, 224)).shape == (2, features)


def test_the_stem_for_small_images_keeps_their_size() -> None:
    with torch.device("meta"):
        encoder, _ = resnet("resnet18", cifar_stem=True, zero_init_residual=True)
        maps = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(torch.empty(2, 3, 32, 32)))))
        assert encoder.layer1(maps).shape == (2, 64, 32, 32)
        assert encoder.layer4(encoder.layer3(encoder.layer2(maps))).shape == (2, 512, 4, 4)
    assert (
        encoder.state_dict().keys()
        == resnet("resnet18", cifar_stem=False, zero_init_residual=True)[0].state_dict().keys()
    )
    assert encoder.conv1.weight.shape == (64, 3, 3, 3)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("zero", [True, False])
def test_blocks_start_as_the_identity_on_request(name: str, zero: bool) -> None:
    encoder, _ = resnet(name, cifar_stem=False, zero_init_residual=zero)
    maps = torch.rand(1, encoder.layer1[1].conv1.in_channels, 4, 4)
    assert torch.equal(encoder.layer1[1](maps), maps) == zero


def test_other_networks_are_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="no residual network 'resnet49'; choose one of resnet18, "):
        resnet("resnet49", cifar_stem=False, zero_init_residual=True)


@pytest.mark.parametrize(
    ("size", "expected"),
    [("large", [9600, 9216, 9600, 9600, 9216]), ("small", [9216, 9408, 9600, 9216, 9216])],
)
def test_layers_give_probes_of_the_papers_sizes(size: str, expected: list[int]) -> None:
    with torch.device("meta"):
        maps = AlexNet(size).maps(torch.empty(2, 3, 224, 224))
        assert [tuple(layer.shape[1:]) for layer in maps] == [
            (channels, side, side) for channels, side in zip(alexnet.CHANNELS[size], (55, 27, 13, 13, 13), strict=True)
        ]
        assert [probe_features(layer).shape for layer in maps] == [(2, values) for values in expected]


def test_probes_see_maxima_of_windows() -> None:
    maps = torch.rand(2, 384, 13, 13)
    edges = [(index * 13 // 5, -(-(index + 1) * 13 // 5)) for index in range(5)]
    expected = [[maps[:, :, a:b, c:d].amax(dim=(2, 3)) for c, d in edges] for a, b in edges]
    grid = torch.stack([torch.stack(row, dim=-1) for row in expected], dim=-2)
    assert torch.equal(probe_features(maps), grid.flatten(1))


def test_maps_are_those_of_the_network_with_normalisation_absorbed() -> None:
    """Each layer's map, from the one before by torch's own fusion of the two, and the features from the last."""
    network = filled(AlexNet("small"))
    images = torch.rand(2, 3, 224, 224)
    layers = list(network.features)
    with torch.no_grad():
        maps, inputs = network.maps(images), images
        features = network(images)
        for index, after in zip((0, 4, 8, 11, 14), maps, strict=True):
            fused = nn.utils.fuse_conv_bn_eval(layers[index], layers[index + 1])
            torch.testing.assert_close(after, fused(inputs).relu(), rtol=1e-4, atol=1e-4)
            following = layers[index + 3]
            inputs = following(after) if isinstance(following, nn.MaxPool2d) else after
        torch.testing.assert_close(network.classifier(inputs.flatten(1)), features)
    assert features.shape == (2, alexnet.FEATURES)


def test_alexnets_parameters_are_those_of_the_published_layout() -> None:
    """Counted by hand: convolutions with biases, a scale and a shift for each filter, and two wide layers."""
    with torch.device("meta"):
        network = AlexNet("large")
    filters = [(96, 3 * 121), (256, 96 * 25), (384, 256 * 9), (384, 384 * 9), (256, 384 * 9)]
    wide = 9216 * 4096 + 4096 + 4096 * 4096 + 4096
    assert sum(p.numel() for p in network.parameters()) == sum(n * (inputs + 3) for n, inputs in filters) + wide
    kernels = [
        (layer.kernel_size, layer.stride, layer.padding) for layer in network.features if isinstance(layer, nn.Conv2d)
    ]
    assert kernels == [((k, k), (s, s), (p, p)) for k, s, p in [(11, 4, 2), (5, 1, 2), *[(3, 1, 1)] * 3]]
    assert [f"features.{n}.weight" for n in (0, 4, 8, 11, 14)] == [
        name for name, p in network.named_parameters() if p.ndim == 4
    ]


def test_alexnet_starts_as_the_released_code_does() -> None:
    network = AlexNet("small")
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            height, width = layer.kernel_size
            assert float(layer.weight.detach().std()) == pytest.approx(
                (2 / (height * width * layer.out_channels)) ** 0.5, rel=0.05
            )
        elif isinstance(layer, nn.Linear):
            assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert not layer.bias.any()


def test_alexnet_comes_in_two_sizes() -> None:
    with pytest.raises(ValueError, match="no AlexNet 'medium'; choose one of large, small"):
        AlexNet("medium")


def test_prototype_logits_are_cosines() -> None:
    prototypes = Prototypes(5, 7)
    projections = torch.randn(4, 5)
    expected = torch.cosine_similarity(projections[:, None], prototypes.weight[None], dim=-1)
    torch.testing.assert_close(prototypes(projections), expected)
    torch.testing.assert_close(prototypes(3 * projections), expected)


def test_weights_depend_on_the_seed_alone(small: Pretraining) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = built(small, IMAGES)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = built(small, IMAGES)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_loss_is_equation_8(method: Mira, views: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Half of it: the mean of the two terms, written out in NumPy from the method's own parts."""
    step = method(batch(views), MIDWAY)
    beta = step.schedules["beta"]
    assert method.settings.beta_end < beta < method.settings.beta_start
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
    method(batch(views), MIDWAY).loss.backward()
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
    assert float(method(batch(views), MIDWAY).loss.detach()) == pytest.approx(math.log(12), abs=1e-5)
