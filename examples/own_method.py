"""A training method of your own in 40 lines, which trains like the built-in ones, with checkpoints and a report.

Run it with ``python examples/own_method.py``; it needs the extra ``training``. Alignment and uniformity (Wang
and Isola, 2020): the two views of an image close to each other on the sphere, all images spread over it. After 15
passes over the digits without their classes, the encoder is evaluated beside the untrained one and the raw pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from infoassign_training import pipeline
from infoassign_training.config import Optimizer, Pretraining
from infoassign_training.methods.embeddings import Embeddings
from infoassign_training.methods.method import Parts
from infoassign_training.methods.settings import Settings


@dataclass(frozen=True, kw_only=True)
class AlignUniform(Settings):
    """What can be set."""

    kind: ClassVar[str] = "align-uniform"
    uniformity: float = 1.0

    def method(self, parts: Parts) -> Embeddings:
        """Put the method around the networks."""
        return Method(parts.encoder, parts.projector, self)


class Method(Embeddings):
    """The loss of two batches of embeddings; the base class has the networks."""

    def __init__(self, encoder: nn.Module, projector: nn.Module, chosen: AlignUniform) -> None:
        super().__init__(encoder, projector)
        self.chosen = chosen

    def terms(self, first: Tensor, second: Tensor) -> Mapping[str, Tensor]:
        """Return the terms of the loss of embeddings (B, D)."""
        views = normalize(first), normalize(second)
        spread = [torch.pdist(view).square().mul(-2).exp().mean().log() for view in views]
        return {
            "alignment": (views[0] - views[1]).square().sum(dim=1).mean(),
            "uniformity": self.chosen.uniformity * sum(spread) / 2,
        }


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe = Pretraining(method=AlignUniform(), optimizer=Optimizer(learning_rate=0.2), epochs=15, device="cpu")
    with TemporaryDirectory() as folder:
        trained = pipeline.pretrain("align-uniform", recipe, Path(folder) / "trained")
        untrained = pipeline.pretrain("align-uniform", replace(recipe, epochs=0), Path(folder) / "untrained")
    rows = {"raw pixels": trained["pixels"], "untrained": untrained["features"], "trained": trained["features"]}
    print("on held-out digits    kNN  linear  k-means NMI")
    for name, scores in rows.items():
        print(f"{name:<18}  {scores['knn']:.3f}  {scores['linear']:6.3f}  {scores['kmeans_nmi']:11.3f}")
