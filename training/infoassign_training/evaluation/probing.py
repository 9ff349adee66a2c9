"""Classifiers that are trained by the engine: linear ones on frozen features, and one together with its encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infoassign_training.methods import settings as methods
from infoassign_training.methods.method import Batch, Method, Moment, Parts, Step, agreement
from infoassign_training.models.alexnet import AlexNet, probe_features, probed
from infoassign_training.models.pretrained import read_pretrained


@dataclass(frozen=True, kw_only=True)
class FromCheckpoint(methods.Settings):
    """What is put around an encoder whose weights come from a file."""

    views: ClassVar[int] = 1
    projects: ClassVar[bool] = False
    supervised: ClassVar[bool] = True
    checkpoint: str = ""
    """The file."""
    sha256: str = ""
    """Its hash."""
    weights: str = ""
    """Which of several encoders in it."""


@dataclass(frozen=True, kw_only=True)
class LinearProbes(FromCheckpoint):
    """Linear classifiers on frozen features."""

    kind: ClassVar[str] = "linear-probes"
    learning_rates: tuple[float, ...] = (0.1,)
    """Of each the encoder has a classifier, or two if there are several."""
    held_out: float = 0.01
    """Share of the images that one of the two does not see; 0 for one classifier each, which sees all."""
    layers: bool = False
    """Whether every layer has its own."""
    seed: int = 0
    """Of what is held out."""

    def method(self, parts: Parts) -> Method:
        """Put the classifiers behind the encoder."""
        return Probes(parts, self)


@dataclass(frozen=True, kw_only=True)
class Tuning(FromCheckpoint):
    """A linear classifier, trained together with the encoder."""

    kind: ClassVar[str] = "tuning"
    encoder_rate: float = 0.02
    """Learning rate of the encoder."""
    head_rate: float = 0.1
    """That of the classifier."""

    def method(self, parts: Parts) -> Method:
        """Put the classifier behind the encoder."""
        return Tuned(parts, self)


@dataclass(frozen=True)
class Probe:
    """Which classifier of several."""

    layer: int
    rate: float
    """Learning rate."""
    choosing: bool
    """Whether it is trained without the images that the choice between rates is made on."""


def probes_of(layers: int, rates: Sequence[float], *, choosing: bool) -> tuple[Probe, ...]:
    """List the classifiers: for every layer and rate one, and perhaps another to choose by.

    Examples
    --------
    >>> [(probe.rate, probe.choosing) for probe in probes_of(1, (0.1, 0.3), choosing=True)]
    [(0.1, False), (0.1, True), (0.3, False), (0.3, True)]
    """
    kinds = (False, True) if choosing else (False,)
    return tuple(Probe(*chosen) for chosen in product(range(layers), rates, kinds))


def held_out_rows(images: int, share: float, seed: int) -> Tensor:
    """Draw which images the choice between rates is made on: shape (N,), bool, one at least unless the share is 0."""
    count = max(1, round(share * images)) if share else 0
    held = torch.zeros(images, dtype=torch.bool)
    held[torch.from_numpy(np.random.default_rng((seed, images)).permutation(images)[:count])] = True
    return held


class Classifying(Method):
    """What gives scores of classes; its encoder's weights come from a file."""

    heads: nn.ModuleList
    """The classifiers, features (B, F) in, scores (B, C) out."""

    def __init__(self, encoder: nn.Module, chosen: FromCheckpoint) -> None:
        super().__init__()
        self.encoder = encoder
        self._read_from = chosen

    def prepare(self) -> None:
        """Read the encoder's weights."""
        chosen = self._read_from
        found = read_pretrained(Path(chosen.checkpoint), weights=chosen.weights)
        self.encoder.load_state_dict(found.encoder.state_dict())

    def outputs(self, views: list[Tensor]) -> list[Tensor]:
        """Return the features, (B, F), of every layer that has a classifier."""
        return self.features(views[0])

    def features(self, images: Tensor) -> list[Tensor]:
        """Return what classifiers see of images (B, C, H, W), each (B, F)."""
        return [self.encoder(images)]

    def averaged(self, logits: Tensor) -> Tensor:
        """Return the scores (B, C) of images, of whose crops there are logits (B, crops, C): mean probabilities."""
        return logits.softmax(dim=2).mean(dim=1)


class Probes(Classifying):
    """A frozen encoder, in evaluation mode throughout, and linear classifiers that start at zero.

    The sum of their losses has each classifier's own gradient, so all are trained as if alone.
    """

    held: Tensor

    def __init__(self, parts: Parts, chosen: LinearProbes) -> None:
        super().__init__(parts.encoder.requires_grad_(False), chosen)
        sizes = [parts.features]
        if chosen.layers:
            sizes = layer_sizes(parts.encoder)
        self.layers = chosen.layers
        self.probes = probes_of(len(sizes), chosen.learning_rates, choosing=chosen.held_out > 0)
        self.heads = nn.ModuleList(zeroed(sizes[probe.layer], parts.classes) for probe in self.probes)
        held = held_out_rows(parts.images, chosen.held_out, chosen.seed)
        self.register_buffer("held", held, persistent=False)
        # Of a batch so many are expected to be seen; the true number would differ from rank to rank.
        self._seen = 1 - float(held.double().mean())

    def train(self, mode: bool = True) -> "Probes":
        """Leave the encoder in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def rate_factor(self, name: str) -> float:
        """Return the rate of the classifier."""
        return self.probes[int(name.split(".")[1])].rate

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's features, or what the probes of its layers see, each (B, F)."""
        if not self.layers:
            return [self.encoder(images)]
        assert isinstance(self.encoder, AlexNet)
        return [probe_features(maps) for maps in self.encoder.maps(images)]

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the sum of the classifiers' cross-entropies."""
        seen = (~self.held[batch.rows]).to(outputs[0].dtype) / self._seen
        losses, right = [], []
        for probe, head in zip(self.probes, self.heads, strict=True):
            logits = head(outputs[probe.layer])
            each = F.cross_entropy(logits, batch.classes, reduction="none")
            losses.append((each * seen).mean() if probe.choosing else each.mean())
            right.append(agreement(logits, batch.classes))
        return Step(torch.stack(losses).sum(), watched={"best_accuracy": torch.stack(right).max()})


class Tuned(Classifying):
    """An encoder and a linear classifier that starts at zero, with a learning rate each."""

    def __init__(self, parts: Parts, chosen: Tuning) -> None:
        super().__init__(parts.encoder, chosen)
        self.heads = nn.ModuleList([zeroed(parts.features, parts.classes)])
        self._rates = {"encoder": chosen.encoder_rate, "heads": chosen.head_rate}

    def rate_factor(self, name: str) -> float:
        """Return the rate of the encoder, or of the classifier."""
        return self._rates[name.split(".")[0]]

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the cross-entropy."""
        logits = self.heads[0](outputs[0])
        return Step(F.cross_entropy(logits, batch.classes), watched={"accuracy": agreement(logits, batch.classes)})


def zeroed(features: int, classes: int) -> nn.Linear:
    """Make a linear classifier that gives all classes the same score."""
    head = nn.Linear(features, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def layer_sizes(encoder: nn.Module) -> list[int]:
    """Return how many values the probe of each convolution sees.

    Raises
    ------
    ValueError
        If the encoder is no AlexNet, of whose layers no paper says how they are probed.
    """
    if not isinstance(encoder, AlexNet):
        raise ValueError("layers are probed of an AlexNet alone; of others take linear-mira or linear-music")
    channels = [layer.out_channels for layer in encoder.features if isinstance(layer, nn.Conv2d)]
    return [probed(count) for count in channels]
