"""A pretrained encoder, of a run of ours or of a checkpoint that others released."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import IMAGENET_MEAN, IMAGENET_STD, Distortions
from infoassign_training.engine.checkpoint import FORMAT, VERSION
from infoassign_training.engine.run import Run
from infoassign_training.methods.build import build
from infoassign_training.models import settings
from infoassign_training.models.layouts import Found, choose, described, find, size_of
from infoassign_training.models.weight_files import BETWEEN, WeightsError, flatten, read_tree

USUAL = "encoder"
"""The part of a method that is evaluated."""
IMAGENET_CLASSES = 1000
"""Outputs of an ``fc`` that is a classifier wherever it stands; of others, MoCo's first version has a projector."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """An encoder with its weights, and what is known of it; what :func:`read_pretrained` returns.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from infoassign_training.config import Pretraining
    >>> from infoassign_training.pipeline import pretrain
    >>> folder = Path(mkdtemp()) / "run"
    >>> scores = pretrain("untrained", Pretraining(epochs=0), folder)
    >>> found = read_pretrained(folder)
    >>> found.settings, found.recipe, found.std
    (SmallResNet(widths=(16, 32, 64), features=128), 'untrained', (1.0, 1.0, 1.0))
    """

    encoder: nn.Module
    """Images (B, C, H, W), normalised, in, features (B, `features`) out; in evaluation mode, float32, on the CPU."""
    settings: settings.Encoder
    """Enough to build it again."""
    features: int
    """Length of the features."""
    image_size: int
    """Height and width of the images, of our runs those of the (global) views, else what such networks usually see."""
    mean: tuple[float, float, float]
    """Subtracted from the channels, which lie in [0, 1]; our run's or ImageNet's, and 0 for the grey digits."""
    std: tuple[float, float, float]
    """Divides the channels after that; 1 for the grey digits."""
    sha256: str
    """Of the file, in hexadecimal; of the settings, if a run of no epochs saved nothing else."""
    origin: str
    """Where in which file or run the weights were, in words."""
    recipe: str | None = None
    """Of our runs."""
    pretraining: Pretraining | None = None
    """Of our runs."""
    evaluated: bool = False
    """Whether it is the encoder that a run of ours evaluates at its end."""
    classifier: nn.Linear | None = None
    """What stands on the features in the file: the supervised baseline's head, or an ``fc`` of ImageNet's classes, or
    of any number in a file that holds torchvision's network and nothing else."""
    left_out: str = ""
    """What stands there and is not taken for a classifier, in words."""


def read_pretrained(path: Path, *, weights: str = "", encoder: settings.Encoder | None = None) -> Pretrained:
    """Read an encoder.

    Parameters
    ----------
    path
        The folder of one of our runs, or a checkpoint in it; or a file with the tensors of a residual network of
        torchvision's or of SeLa's AlexNet somewhere in it: torchvision's own, those of VICReg, Barlow Twins, SwAV,
        MoCo, DINO, SimSiam, lightly, solo-learn, MIRA, IMSVD, SeLa; written by torch, or as safetensors.
    weights
        Which, if there are several: a name, or a part of one, such as ``teacher`` or ``encoder_q``. Without it, of our
        runs the encoder that is evaluated; of other files there must be only one.
    encoder
        The network that must be in the file; without it, the run's, or whichever the tensors make up.

    Returns
    -------
    Pretrained
        The encoder in evaluation mode, float32, on the CPU, with what is known of it.

    Raises
    ------
    UserError
        If the file cannot be read, holds no such encoder, or several and `weights` does not say which; the message says
        what is there.
    WeightsError
        One of these.

    Notes
    -----
    Of how images are padded in the first convolution a file says nothing. For stems of small images it is taken to be
    1, as in our recipes; MIRA's code and solo-learn have 2, so that their features come out a little different.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from infoassign_training.config import Pretraining
    >>> from infoassign_training.pipeline import pretrain
    >>> folder = Path(mkdtemp()) / "run"
    >>> scores = pretrain("untrained", Pretraining(epochs=0), folder)
    >>> found = read_pretrained(folder)
    >>> found.origin, found.features, found.image_size
    ('run untrained after 0 steps', 128, 8)
    """
    file, tree, digest = _read(path.expanduser())
    try:
        if tree.get("format") == FORMAT:
            return _of_run(file, tree, digest, weights, encoder)
        found = choose(find(dict(flatten(tree)), encoder), weights)
        size = size_of(found.settings)
        network, features = found.build(size)
        classifier = _classifier(found.tensors, "fc", features)
        left_out = _left_out(found, network, classifier)
    except WeightsError as error:
        raise WeightsError(f"{file}: {error}") from error
    return Pretrained(
        encoder=network,
        settings=found.settings,
        features=features,
        image_size=size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        sha256=digest,
        origin=_place(found),
        classifier=None if left_out else classifier,
        left_out=left_out,
    )


def _read(path: Path) -> tuple[Path, dict[str, Any], str]:
    """Return the file that is read, what it holds and its checksum."""
    if not path.is_dir():
        return path, *read_tree(path)
    run = Run(path)
    chosen = run.read().settings
    if run.checkpoint.exists():
        return run.checkpoint, *read_tree(run.checkpoint)
    if chosen.epochs:
        raise WeightsError(f"the run in {path} has no {run.checkpoint.name} yet")
    # Nothing was trained, so nothing was saved: the initial weights follow from the settings.
    state = {"format": FORMAT, "version": VERSION, "step": 0, "method": build(chosen, images=1, classes=1).state_dict()}
    return run.settings, state, sha256(run.settings.read_bytes()).hexdigest()


def _of_run(
    file: Path, tree: dict[str, Any], digest: str, weights: str, encoder: settings.Encoder | None
) -> Pretrained:
    """Read the encoder of a checkpoint of ours, whose run's settings lie beside it."""
    version = tree.get("version", 0)
    if version != VERSION:
        raise WeightsError(
            f"it has format version {version}, and this program reads {VERSION}; "
            + ("update it" if version > VERSION else "read it with the release that wrote it, or train anew")
        )
    run = Run(file.parent)
    if not run.settings.exists():
        raise WeightsError(f"the checkpoint of a run needs the run's {run.settings.name} beside it")
    started = run.read()
    chosen = started.settings
    if encoder is not None and encoder != chosen.encoder:
        raise WeightsError(f"the run has {described(chosen.encoder)}, not {described(encoder)}")
    found = choose(find(dict(flatten(tree["method"])), chosen.encoder), weights, usual=USUAL)
    network, features = found.build(chosen.image_size)
    which = "" if found.name == USUAL else f", {found.name.partition('.')[0]}"
    return Pretrained(
        encoder=network,
        settings=chosen.encoder,
        features=features,
        image_size=chosen.image_size,
        mean=(0.0, 0.0, 0.0) if isinstance(chosen.augmentation, Distortions) else chosen.augmentation.mean,
        std=(1.0, 1.0, 1.0) if isinstance(chosen.augmentation, Distortions) else chosen.augmentation.std,
        sha256=digest,
        origin=f"run {started.recipe} after {tree['step']} steps{which}",
        recipe=started.recipe,
        pretraining=chosen,
        evaluated=found.name == USUAL,
        classifier=_classifier(tree["method"], "head", features) if chosen.method.supervised and tree["step"] else None,
    )


def _place(found: Found) -> str:
    place, _, prefix = found.prefix.rpartition(BETWEEN)
    under = f"weights under {prefix!r}" if prefix else "weights"
    return f"{under} in {place!r}" if place else f"{under} at the top of the file"


def _left_out(found: Found, network: nn.Module, classifier: nn.Linear | None) -> str:
    """Say what the ``fc`` over a residual network is if it may be something else than a classifier."""
    if not isinstance(found.settings, settings.ResNet) or not any(name.startswith("fc.") for name in found.tensors):
        return ""
    if classifier is None:
        return "an `fc` that is no linear layer on the features"
    plain = not found.prefix and found.tensors.keys() - {"fc.weight", "fc.bias"} <= network.state_dict().keys()
    if plain or classifier.out_features == IMAGENET_CLASSES:
        return ""
    return f"an `fc` of {classifier.out_features} outputs"


def _classifier(tensors: Mapping[str, Tensor], name: str, features: int) -> nn.Linear | None:
    """Return the linear layer of that name over the features, if there is one."""
    weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
    if weight is None or bias is None or bias.ndim != 1 or weight.shape != (len(bias), features):
        return None
    for part, tensor in (("weight", weight), ("bias", bias)):
        if not bool(tensor.isfinite().all()):
            raise WeightsError(f"{name}.{part} holds values that are not finite")
    layer = nn.Linear(features, len(bias), device="meta")
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()}, assign=True)
    return layer.eval()
