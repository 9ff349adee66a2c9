"""An encoder and a classifier of images with several classes, trained together."""

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from infoassign_training.evaluation.probing import Classifying, FromCheckpoint
from infoassign_training.methods.method import Batch, Method, Moment, Parts, Step
from infoassign_training.models.alexnet import AlexNet

BIAS = 0.1
"""Of linear layers that start anew."""


@dataclass(frozen=True, kw_only=True)
class Tagging(FromCheckpoint):
    """A classifier of images with several classes, trained together with the encoder, or with its linear layers."""

    kind: ClassVar[str] = "tagging"
    rate: float = 0.048
    """Learning rate."""
    tuned: Literal["fc6-8", "all"] = "all"
    """Whether convolutions learn, too."""
    clip: float = 10.0
    """Length that the gradient is cut down to."""

    def method(self, parts: Parts) -> Method:
        """Put the classifier behind the encoder."""
        return Tagger(parts, self)


class Tagger(Classifying):
    """An encoder and a linear classifier, by DeepCluster's ``eval_voc_classif.py``, in which convolutions are kept.

    (Its first version drew them anew where all layers learn, which its author calls a mistake. It also lowers the
    scores of true classes by 1e-5 before they are ranked, so that ties count against a classifier; here they do not.)

    Of an AlexNet fc6 and fc7 start anew, from N(0, .01^2) and a bias of .1, whatever learns; the classifier, fc8, from
    torch's weights and the same bias; the convolutions from the checkpoint. Residual networks, of which the code does
    not speak, have no such layers: all that is before the classifier comes from the checkpoint. Batch normalisation
    keeps its statistics; where it learns, its scales and shifts do.
    """

    def __init__(self, parts: Parts, chosen: Tagging) -> None:
        super().__init__(parts.encoder, chosen)
        self.heads = nn.ModuleList([nn.Linear(parts.features, parts.classes)])
        for layer in (*_renewed(parts.encoder), *self.heads):
            nn.init.constant_(layer.bias, BIAS)
        if chosen.tuned == "fc6-8":
            assert isinstance(parts.encoder, AlexNet)
            parts.encoder.features.requires_grad_(False)
        self._rate, self._clip = chosen.rate, chosen.clip

    def prepare(self) -> None:
        """Read the encoder's weights, but for the layers that start anew: those stay as they were drawn."""
        layers = _renewed(self.encoder)
        drawn = [deepcopy(layer.state_dict()) for layer in layers]
        super().prepare()
        for layer, state in zip(layers, drawn, strict=True):
            layer.load_state_dict(state)

    def train(self, mode: bool = True) -> "Tagger":
        """Leave normalisation in evaluation mode."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()
        return self

    def rate_factor(self, name: str) -> float:
        """Return the one learning rate."""
        return self._rate

    def averaged(self, logits: Tensor) -> Tensor:
        """Return the mean over crops of logits (B, crops, C); that code adds them up."""
        return logits.mean(dim=1)

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the binary cross-entropies of the classes."""
        return Step(tagging_loss(self.heads[0](outputs[0]), batch.classes))

    def after_backward(self, now: Moment) -> None:
        """Cut the gradient down if it is too long."""
        nn.utils.clip_grad_norm_(self.parameters(), self._clip)


def tagging_loss(logits: Tensor, presence: Tensor) -> Tensor:
    """Return the binary cross-entropies, added up over classes and averaged over images, shape ().

    Parameters
    ----------
    logits
        Shape (B, C).
    presence
        Shape (B, C): 1 where an image has a class, 0 where it has not, -1 where that does not count.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[0.0, 0.0, 9.0], [0.0, 9.0, 9.0]])
    >>> tagging_loss(logits, torch.tensor([[1, 0, -1], [0, -1, -1]])) / torch.tensor(2.0).log()
    tensor(1.5000)
    """
    counted = (presence >= 0).to(logits.dtype)
    truth = presence.clamp(min=0).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, truth, counted, reduction="sum") / len(logits)


def _renewed(encoder: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of an AlexNet, fc6 and fc7; of other networks none."""
    layers = encoder.classifier if isinstance(encoder, AlexNet) else ()
    return [layer for layer in layers if isinstance(layer, nn.Linear)]
