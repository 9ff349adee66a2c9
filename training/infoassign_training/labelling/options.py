"""What labels are made of and how: the options of ``infoassign label``, and what they come to.

Examples
--------
>>> require_consistent(Options(out=Path("labels"), argmax=True, beta=0.5))  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
infoassign_training.errors.UserError: ...
"""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np

from infoassign_training.errors import UserError
from infoassign_training.labelling.problem import Metric, Problem


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of ``infoassign label``."""

    out: Path
    """Folder to write, which appears when all is done: labels.npy, (1, N), int64, as label transfer reads them;
    potential.npy; certificate.json; labels.csv with the paths of images; prototypes.npy of features."""
    overwrite: bool = False
    """Replace the labels in that folder."""
    tensor: str = ""
    """Name of the matrix, in a .safetensors file with several."""
    prototypes: Path | None = None
    """The file holds features, (N, D): score them for the prototypes in this file, (K, D)."""
    clusters: int | None = None
    """The file holds features, (N, D): find so many prototypes for them first (infoassign.estimator)."""
    metric: Metric | None = None
    """What the score of features for a prototype is: their product, the default with --prototypes; their cosine; or,
    the default with --clusters, euclidean: minus their squared distance. --clusters takes the last two."""
    checkpoint: Path | None = None
    """The words name images: score them by the model of this run (its folder, or a checkpoint in it)."""
    method: Literal["mira", "sinkhorn"] | None = None
    """mira: as informative as the scores allow; sinkhorn: in the shares of --prior. Default: the run's, or mira."""
    beta: float | None = None
    """For mira: weight of the mutual information, in [0, 1). Default: the run's last, or 2/3."""
    epsilon: float | None = None
    """For sinkhorn: how soft labels are, on scores / temperature. Default: the run's, or 1/3, which suits logits. With
    --clusters for both methods, in units of the features' spread; default 0.1."""
    temperature: float | None = None
    """What divides the scores. Default: the run's, or 1, which suits logits; for cosines take 0.1. Found from the
    features with --clusters."""
    prior: str = "uniform"
    """Shares of the labels: uniform, or a file with K numbers (.npy, or text)."""
    tol: float = 1e-4
    """What to reach: for mira a bound on the mean total variation to the optimal soft labels, for sinkhorn the L1
    distance of the shares from those asked for."""
    max_sweeps: int = 1000
    """Passes over the scores at most."""
    bounds: Literal["auto", "always", "never"] = "auto"
    """Whether the certificate has the gap and the error bounds of sinkhorn, which take many further passes over the
    scores (those of mira take none). auto: up to 50 million scores."""
    soft: Literal["float16", "float32"] | None = None
    """Write the soft labels, too: plan.npy, (N, K)."""
    balanced: bool = False
    """Hard labels of exactly the shares, floor or ceiling, instead of the likeliest."""
    argmax: bool = False
    """Solve nothing: take the label with the largest score, row by row."""
    like: Path | None = None
    """Solve nothing: label at the potential of this earlier --out, row by row, for rows it has not seen. Its prototypes
    are taken, too."""
    sample: int = 50_000
    """With --clusters: rows at most that prototypes are found on, drawn by chance; they are held in memory."""
    seed: int = 0
    """With --clusters: of that draw, and of the prototypes to start from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """With --checkpoint: where the model computes."""
    batch_size: int = 256
    """With --checkpoint: images at a time."""
    workers: int = 0
    """With --checkpoint: further processes that load images."""


SOLVING = ("method", "beta", "epsilon", "balanced", "prior", "tol", "max_sweeps", "bounds")
"""Options about what is solved."""
FEW = 50_000_000
"""Scores of which the bounds are computed without being asked for."""
OF_CLUSTERS, OF_IMAGES = ("sample", "seed"), ("device", "batch_size", "workers")


def require_consistent(options: Options) -> None:
    """Say so if options exclude each other, or one would be of no use.

    Raises
    ------
    UserError
        Naming them.

    Examples
    --------
    >>> require_consistent(Options(out=Path("labels"), argmax=True, beta=0.5))
    Traceback (most recent call last):
    infoassign_training.errors.UserError: --beta is of no use with --argmax, which solves nothing
    """
    kinds = [name for name in ("prototypes", "clusters", "checkpoint") if getattr(options, name) is not None]
    if len(kinds) > 1:
        raise UserError(f"--{kinds[0]} and --{kinds[1]} exclude each other: they say what is labelled")
    if options.argmax and options.like is not None:
        raise UserError("--argmax and --like exclude each other: one takes no potential, the other an earlier one")
    if options.argmax:
        _refuse(options, SOLVING, "with --argmax, which solves nothing")
    if options.like is not None:
        _refuse(options, (*SOLVING, "temperature"), "with --like, which solves nothing")
        _refuse(options, ("prototypes", "clusters", "metric"), "with --like, which takes those of the earlier labels")
    if options.clusters is None:
        _refuse(options, OF_CLUSTERS, "without --clusters")
    else:
        _refuse(options, ("temperature", "argmax"), "with --clusters, which finds the unit from the features")
        if options.metric == "product":
            raise UserError("--metric product is of no use with --clusters; choose euclidean or cosine")
        _require(options.clusters >= 1, f"--clusters must be at least 1; got {options.clusters}")
        _require(options.sample >= 1, f"--sample must be at least 1; got {options.sample}")
    if options.prototypes is None and options.clusters is None:
        _refuse(options, ("metric",), "without --prototypes or --clusters")
    if options.checkpoint is None:
        _refuse(options, OF_IMAGES, "without --checkpoint")
    else:
        _refuse(options, ("tensor",), "with --checkpoint: images are no tensors of a file")
    _require(options.batch_size >= 1, f"--batch-size must be at least 1; got {options.batch_size}")
    _require(options.workers >= 0, f"--workers must not be negative; got {options.workers}")
    _require(options.tol > 0, f"--tol must be positive; got {options.tol}")
    _require(options.max_sweeps >= 1, f"--max-sweeps must be at least 1; got {options.max_sweeps}")
    for name in ("temperature", "epsilon"):
        value = getattr(options, name)
        _require(value is None or 0 < value < inf, f"--{name} must be positive and finite; got {value}")
    _require(options.beta is None or 0 <= options.beta < 1, f"--beta must be in [0, 1); got {options.beta}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _refuse(options: Options, names: tuple[str, ...], because: str) -> None:
    for name in names:
        if getattr(options, name) != getattr(Options(out=options.out), name):
            raise UserError(f"--{name.replace('_', '-')} is of no use {because}")


def problem_of(options: Options, default: Problem, labels: int) -> Problem:
    """Return what to solve.

    Parameters
    ----------
    options
        What was asked for.
    default
        What holds for the rest: the run's, or MIRA's of logits.
    labels
        How many there are.

    Raises
    ------
    UserError
        If an option is of the other method, or the shares are not those of the labels.

    Examples
    --------
    >>> problem_of(Options(out=Path("labels"), method="sinkhorn"), Problem(), 10)
    Problem(method='sinkhorn', epsilon=0.3333333333333333, strength=inf, temperature=1.0, prior=None)
    """
    method = options.method or default.method
    temperature = options.temperature or default.temperature
    shares = shares_of(options.prior, labels)
    if method == "mira":
        if options.epsilon is not None:
            raise UserError(
                "--epsilon is for --method sinkhorn; labels of mira get sharper at a larger --beta or a lower"
                " --temperature"
            )
        kept = default.strength if default.method == "mira" else 2 / 3
        beta = kept if options.beta is None else options.beta
        return Problem(epsilon=1 - beta, strength=beta, temperature=temperature, prior=shares)
    if options.beta is not None:
        raise UserError("--beta is for --method mira; how soft the labels of sinkhorn are is --epsilon")
    epsilon = options.epsilon or default.epsilon
    return Problem(method="sinkhorn", epsilon=epsilon, strength=inf, temperature=temperature, prior=shares)


def shares_of(prior: str, labels: int) -> tuple[float, ...] | None:
    """Read the shares of the labels from a file; None for equal ones.

    Raises
    ------
    UserError
        If there is no such file, or it does not hold as many positive numbers that sum to one.
    """
    if prior == "uniform":
        return None
    path = Path(prior).expanduser()
    try:
        found: Any = np.load(path) if path.suffix == ".npy" else np.loadtxt(path)
    except OSError as error:
        raise UserError(f"--prior {prior}: expected uniform, or a file with {labels} shares ({error})") from error
    except (ValueError, EOFError) as error:
        raise UserError(f"--prior {prior} holds no numbers, separated by spaces or lines: {error}") from error
    shares = np.asarray(found, dtype=float)
    if shares.shape != (labels,):
        raise UserError(f"--prior {prior}: expected {labels} shares, one for each label; got shape {shares.shape}")
    if not (np.isfinite(shares).all() and (shares > 0).all() and abs(shares.sum() - 1) <= 1e-5):
        raise UserError(
            f"--prior {prior}: shares must be positive and sum to one; they go from {shares.min():g} to"
            f" {shares.max():g} and sum to {shares.sum():g}"
        )
    return tuple((shares / shares.sum()).tolist())
