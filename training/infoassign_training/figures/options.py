"""What ``infoassign figures`` can be asked for, without what draws it: help is to be there at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FIGURES = {
    "convergence": "MIRA's fixed point, Sinkhorn's and the accelerated solver on their way to the solution",
    "joint-distribution": "the joint distribution of the units of two views (music, imsvd)",
    "one-hot": "how near segments are to one-hot (music, imsvd)",
    "two-views": "two views of some images, and their codes (music, imsvd)",
    "unit-samples": "the likeliest images of every unit of some segments (music, imsvd)",
    "grad-cam": "where in its likeliest images a unit comes from (music, imsvd)",
    "course": "labels against the true classes, the labels before and the network's predictions, epoch by epoch",
    "cluster-entropy": "the entropy of the true classes in every cluster",
    "pure-clusters": "images of the clusters with the lowest entropy, framed in the colours of their classes",
    "random-clusters": "images of random clusters, framed in the colours of their classes",
    "filters": "the filters of the first convolution",
}
"""Names, and what each shows; the report gathers them in this order."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of ``infoassign figures``."""

    run: Path | None = None
    """The folder of a run, or a checkpoint in it."""
    scores: Path | None = None
    """For convergence, in the place of a run: scores (N, K) in a file .npy, cosines unless --temperature says other."""
    out: Path | None = None
    """Folder to write; figures/ in that of the run, from where `infoassign report` takes them, unless it is told."""
    data: str = ""
    """Other images than the run's to look at: the test part of a set, in the words of `infoassign evaluate`, such as
    imagenet:WHERE."""
    images: int = 20_000
    """Images that are looked at, at most, spread evenly."""
    beta: float | None = None
    """For convergence: MIRA's beta. Default: the run's last, or 2/3."""
    temperature: float | None = None
    """For convergence: what divides the scores for MIRA. Default: the run's, or for cosines 0.225 and for logits 1."""
    epsilon: float | None = None
    """For convergence: Sinkhorn's weight of the entropy, on the scores. Default: the run's, or SwAV's 0.05. At
    temperature (1 - beta) MIRA's is the same."""
    batch_size: int = 512
    """For convergence: rows of a batch."""
    batches: int = 100
    """For convergence: batches, drawn at random, each without repetition; the paper has 1000."""
    updates: int = 50
    """For convergence: updates of the potential that are followed."""
    segments: tuple[int, ...] = (0, 1)
    """For unit-samples: which, from 0."""
    unit: int = 0
    """For grad-cam: which, from 0, over all segments."""
    layer: str = ""
    """For grad-cam: whose maps, by its name in the encoder. Default: the last that makes any."""
    seed: int = 0
    """Of all draws."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model computes."""
