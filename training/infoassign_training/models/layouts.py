"""Encoders among a checkpoint's tensors, wherever they are and whatever stands before their names.

What is looked for is a network, not the habits of one code: the names of a residual network's tensors, or of SeLa's
AlexNet's, complete and after one and the same prefix. What else the file holds (heads, prototypes, optimisers) does not
matter.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from infoassign_training.models import settings
from infoassign_training.models.alexnet import CHANNELS
from infoassign_training.models.alexnet import SIZE as ALEXNET_SIZE
from infoassign_training.models.build import encoder_of
from infoassign_training.models.weight_files import BETWEEN, WeightsError

RESNETS: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""Residual networks by whether their blocks are bottlenecks, and how many blocks the stages have."""
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""A residual network's parts by their place in ``nn.Sequential(*network.children())``, as lightly saves them."""
SIGNS: Mapping[str, type[settings.Encoder]] = {
    "layer1.0.conv1.weight": settings.ResNet,
    "4.0.conv1.weight": settings.ResNet,
    "features.0.weight": settings.AlexNet,
    "layers.0.weight": settings.SmallResNet,
}
"""Tensors that a network is known by."""


@dataclass(frozen=True, eq=False)
class Found:
    """An encoder that a file holds."""

    prefix: str
    """What stands before the names of its tensors."""
    settings: settings.Encoder
    tensors: Mapping[str, Tensor]
    """All that the prefix stands before, by the network's own names."""

    @property
    def name(self) -> str:
        """The prefix as a person writes it; a dot for none."""
        return self.prefix.strip(BETWEEN + ".") or "."

    def build(self, image_size: int) -> tuple[nn.Module, int]:
        """Make the network with its weights, in float32 on the CPU, and tell the length of its features.

        Raises
        ------
        WeightsError
            If tensors lack, are of another shape, are left over inside the network or are not finite.
        """
        try:
            with torch.device("meta"):
                network, features = encoder_of(self.settings, image_size)
        except ValueError as error:
            raise WeightsError(str(error)) from error
        expected = network.state_dict()
        self._require_names(expected)
        state = {}
        for name, like in expected.items():
            tensor = self.tensors.get(name, torch.zeros((), dtype=like.dtype))
            if tensor.shape != like.shape:
                raise WeightsError(
                    f"{self.prefix}{name} has the shape {_shape(tensor)}, and that of {described(self.settings)}"
                    f" {_shape(like)}"
                )
            if not bool(tensor.isfinite().all()):
                raise WeightsError(f"{self.prefix}{name} holds values that are not finite")
            # A copy of its own, laid out plainly, so that nothing else of the file stays in memory.
            state[name] = tensor.detach().to(like.dtype, copy=True).contiguous()
        network.load_state_dict(state, assign=True)
        return network.eval(), features

    def _require_names(self, expected: Mapping[str, Tensor]) -> None:
        # Old files do not count the batches that normalisation saw, and nothing here uses that.
        missing = [n for n in expected if n not in self.tensors and not n.endswith("num_batches_tracked")]
        # A classifier may come after the last layer; what is left over in the body makes it another network.
        body = {name.partition(".")[0] for name in expected} - {"classifier"}
        over = [name for name in self.tensors if name.partition(".")[0] in body and name not in expected]
        for which, names in (("lacks", missing), ("has also", over)):
            if names:
                raise WeightsError(
                    f"what is under {self.name!r} is not {described(self.settings)}: it {which}"
                    f" {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
                )


def described(chosen: settings.Encoder) -> str:
    """Name a network in a few words."""
    match chosen:
        case settings.ResNet():
            return f"{chosen.name} with a stem for small images" if chosen.cifar_stem else chosen.name
        case settings.AlexNet():
            return f"the {chosen.size} AlexNet of SeLa"
        case settings.SmallResNet():
            return f"the small-resnet of widths {', '.join(map(str, chosen.widths))}"


def size_of(chosen: settings.Encoder) -> int:
    """Return the height and width of images that such a network is usually given."""
    match chosen:
        case settings.ResNet():
            return 32 if chosen.cifar_stem else 224
        case settings.AlexNet():
            return ALEXNET_SIZE
        case settings.SmallResNet():
            return 8


def find(tensors: Mapping[str, Tensor], expected: settings.Encoder | None = None) -> list[Found]:
    """Find the encoders among a file's tensors.

    Parameters
    ----------
    tensors
        All of the file's, as :func:`~infoassign_training.models.weight_files.flatten` names them.
    expected
        The network to look for; without it, any residual network of torchvision's and SeLa's AlexNet.

    Raises
    ------
    WeightsError
        If there is none, or nothing but a network that is not among ours.

    Examples
    --------
    >>> network, _ = encoder_of(settings.ResNet(name="resnet18"), 224)
    >>> found = find({f"state_dict/module.{name}": value for name, value in network.state_dict().items()})
    >>> [(one.name, one.settings.name) for one in found]
    [('state_dict/module', 'resnet18')]
    """
    found, reasons = [], []
    for name in tensors:
        for sign, kind in SIGNS.items():
            prefix = name.removesuffix(sign)
            if prefix == name or prefix[-1:] not in ("", ".", BETWEEN):
                continue
            if kind is not type(expected) and (expected is not None or kind is settings.SmallResNet):
                continue
            under = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
            if sign.startswith("4."):
                under = dict(_by_name(under))
            try:
                found.append(Found(prefix, expected or _infer(prefix, kind, under), under))
            except WeightsError as error:
                reasons.append(str(error))
    if found:
        return found
    if reasons:
        raise WeightsError(reasons[0])
    sought = "a residual network or SeLa's AlexNet" if expected is None else described(expected)
    if not tensors:
        raise WeightsError("there are no tensors in it")
    raise WeightsError(f"there is no encoder in it, {sought}; its tensors are {', '.join(list(tensors)[:3])}, ...")


def choose(found: Sequence[Found], weights: str, *, usual: str = "") -> Found:
    """Choose one of several encoders.

    Parameters
    ----------
    found
        Those that there are.
    weights
        The name of one, a part of the name between dots, or any piece of it that no other has.
    usual
        The name of the one to take if `weights` is empty and there are several.

    Raises
    ------
    WeightsError
        If none or several have that name; the message lists all.
    """
    wanted = weights or usual
    fitting = list(found)
    if wanted and (weights or len(found) > 1):
        whole = [one for one in found if wanted == one.name]
        parts = [one for one in found if wanted in re.split(r"[./]", one.name)]
        fitting = whole or parts or [one for one in found if wanted in one.name]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(one.name for one in found)
    if not fitting:
        raise WeightsError(f"no encoder is called {wanted!r}; there are: {names}")
    raise WeightsError(f"it holds several encoders; choose one with --weights NAME: {names}")


def _infer(prefix: str, kind: type[Any], tensors: Mapping[str, Tensor]) -> settings.Encoder:
    """Tell from names and shapes which network it is."""
    if kind is settings.AlexNet:
        first = tensors["features.0.weight"]
        for size, channels in CHANNELS.items():
            # The kernel, too: other networks, even residual ones, have features and normalise them.
            if first.shape[0] == channels[0] and first.shape[-1] == 11 and "features.1.running_mean" in tensors:
                return settings.AlexNet(size="large" if size == "large" else "small")
        raise WeightsError(
            f"what is under {prefix!r} is a network of features and a classifier, but not SeLa's AlexNet"
        )
    blocks = tuple(len({n.split(".")[1] for n in tensors if n.startswith(f"layer{stage}.")}) for stage in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in tensors
    name: Any = RESNETS.get((bottleneck, blocks))
    if name is None or "conv1.weight" not in tensors:
        raise WeightsError(
            f"what is under {prefix!r} is a residual network, but none of torchvision's: {blocks} "
            f"{'bottlenecks' if bottleneck else 'blocks'}{'' if 'conv1.weight' in tensors else ' and no conv1.weight'}"
        )
    return settings.ResNet(name=name, cifar_stem=tensors["conv1.weight"].shape[-1] == 3)


def _by_name(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Give the parts of a residual network, which are numbered, their names."""
    split = [(*name.partition("."), value) for name, value in tensors.items()]
    return [(f"{CHILDREN[part]}.{rest}", value) for part, _, rest, value in split if part in CHILDREN]


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "of a number"
