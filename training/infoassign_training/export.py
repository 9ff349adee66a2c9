"""An encoder in the formats that other programs read, with a model card."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

import infoassign
from infoassign.files import replacing, write_text
from infoassign_training.engine.run import Run
from infoassign_training.errors import UserError
from infoassign_training.export_files import CARD, FILES, Format
from infoassign_training.folders import appearing
from infoassign_training.model_card import Measured, card, results_in
from infoassign_training.models.layouts import described
from infoassign_training.models.pretrained import IMAGENET_CLASSES, Pretrained, read_pretrained
from infoassign_training.models.settings import ResNet

BATCH = 2
"""Images that a program is traced with; with one, the size of the batch would become a constant."""


class ExportError(UserError):
    """What cannot be exported as asked."""


@dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from infoassign_training.config import Pretraining
    >>> from infoassign_training.pipeline import pretrain
    >>> folder = Path(mkdtemp()) / "run"
    >>> scores = pretrain("untrained", Pretraining(epochs=0), folder)
    >>> written = export(folder, folder.parent / "exported", ["safetensors"])
    >>> written.network, all(file.is_file() for file in written.files)
    ('the small-resnet of widths 16, 32, 64', True)
    """

    origin: str
    """Where the weights were, in words."""
    network: str
    """Which network they are of."""
    files: tuple[Path, ...]
    """One for each format, and the model card."""


def export(
    source: Path, out: Path, formats: Sequence[Format] = (), *, weights: str = "", overwrite: bool = False
) -> Exported:
    """Write an encoder for other programs, and a model card; all files or none.

    Parameters
    ----------
    source
        A run or a checkpoint, as :func:`~infoassign_training.models.pretrained.read_pretrained` takes it.
    out
        The folder to write.
    formats
        Which; without any, all that need no further package and that the network has.
    weights
        Which, if there are several.
    overwrite
        Whether to replace an export that is in the folder.

    Raises
    ------
    UserError
        If there is something in the folder, the weights cannot be read, or a format is not for this network.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from infoassign_training.config import Pretraining
    >>> from infoassign_training.pipeline import pretrain
    >>> folder = Path(mkdtemp()) / "run"
    >>> scores = pretrain("untrained", Pretraining(epochs=0), folder)
    >>> [file.name for file in export(folder, folder.parent / "exported", ["safetensors"]).files]
    ['model.safetensors', 'README.md']
    """
    source, out = source.expanduser(), out.expanduser()
    _require_free(out, overwrite=overwrite)
    found = read_pretrained(source, weights=weights)
    chosen = list(dict.fromkeys(formats)) or usual_formats(found)
    made = {form: MAKERS[form](found) for form in chosen}
    text = card(found, chosen, measured=_measured(source, found), versions=_versions(source, found))
    with appearing(out) as folder:
        for form, content in made.items():
            with replacing(folder / FILES[form]) as file:
                file.write(content)
        write_text(folder / CARD, text)
    return Exported(found.origin, described(found.settings), (*(out / FILES[form] for form in chosen), out / CARD))


class FromPixels(nn.Module):
    """An encoder that normalises its images itself.

    Images (B, C, H, W), float32 in [0, 1], in; features (B, F) out.

    Parameters
    ----------
    found
        The encoder, with mean and standard deviation of its images.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from infoassign_training.config import Pretraining
    >>> from infoassign_training.pipeline import pretrain
    >>> folder = Path(mkdtemp()) / "run"
    >>> scores = pretrain("untrained", Pretraining(epochs=0), folder)
    >>> FromPixels(read_pretrained(folder))(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 128])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, found: Pretrained) -> None:
        super().__init__()
        self.encoder = found.encoder
        # Grey digits are not normalised, and have one channel where these have three.
        self.plain = not any(found.mean) and set(found.std) == {1.0}
        self.register_buffer("mean", torch.tensor(found.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(found.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of a batch of images."""
        features: Tensor = self.encoder(images if self.plain else (images - self.mean) / self.std)
        return features


def usual_formats(found: Pretrained) -> list[Format]:
    """Return the formats that an encoder has without further packages."""
    own: list[Format] = ["safetensors", "torch-export"]
    return ["torchvision", *own] if isinstance(found.settings, ResNet) else own


def as_torchvision(found: Pretrained) -> bytes:
    """Return what ``torch.save`` makes of the state of torchvision's network, ``fc`` included.

    Without an ``fc`` it would not load with ``strict=True``. If the checkpoint has no classifier it is all zeros, so
    that nobody takes it for one.
    """
    if not isinstance(found.settings, ResNet):
        raise ExportError(
            f"torchvision has no network like {described(found.settings)}; leave torchvision out of --formats"
        )
    head = found.classifier
    if head is None:
        head = nn.Linear(found.features, IMAGENET_CLASSES)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    fc = {f"fc.{name}": value for name, value in head.state_dict().items()}
    buffer = BytesIO()
    torch.save({**found.encoder.state_dict(), **fc}, buffer)
    return buffer.getvalue()


def as_safetensors(found: Pretrained) -> bytes:
    """Return the encoder's state, and nothing else, as safetensors."""
    about = {"format": "pt", "source_sha256": found.sha256, "origin": found.origin, "network": repr(found.settings)}
    if found.recipe is not None:
        about["recipe"] = found.recipe
    return safetensors.torch.save(found.encoder.state_dict(), metadata=about)


def as_torch_export(found: Pretrained) -> bytes:
    """Return what ``torch.export.save`` makes of :class:`FromPixels`, for batches of any size.

    Where on this machine the code lay that every operation comes from is left out.
    """
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(FromPixels(found).eval(), (_example(found),), dynamic_shapes=({0: batch},))
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)
    buffer = BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def as_onnx(found: Pretrained) -> bytes:
    """Return :class:`FromPixels` as an ONNX model from ``images`` to ``features``, for batches of any size.

    Raises
    ------
    ExportError
        If torch's exporter lacks the packages that it needs.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"the format onnx needs the packages {' and '.join(missing)}: `pip install {' '.join(missing)}`,"
            " or take torch-export"
        )
    program = torch.onnx.export(
        FromPixels(found).eval(),
        (_example(found),),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    if program is None:
        raise ExportError("torch made no ONNX model of the encoder")
    content: bytes = program.model_proto.SerializeToString()
    return content


MAKERS: Mapping[Format, Callable[[Pretrained], bytes]] = {
    "torchvision": as_torchvision,
    "safetensors": as_safetensors,
    "torch-export": as_torch_export,
    "onnx": as_onnx,
}
"""What makes each file's content."""


def _example(found: Pretrained) -> Tensor:
    channels = next(found.encoder.parameters()).shape[1]
    return torch.zeros(BATCH, channels, found.image_size, found.image_size)


def _measured(source: Path, found: Pretrained) -> list[Measured]:
    """Read the results that lie in the run's folder, those of other weights left out."""
    if found.pretraining is None:
        return []
    run = Run(source if source.is_dir() else source.parent)
    # What is evaluated at the end of a run is the encoder of its last checkpoint.
    last = source.is_dir() or source.name == run.checkpoint.name
    return results_in(run, sha256=found.sha256, origin=found.origin, evaluated=last and found.evaluated)


def _versions(source: Path, found: Pretrained) -> dict[str, dict[str, str]]:
    modules = (infoassign, torch, torchvision, safetensors)
    versions = {"exported with": {module.__name__: str(module.__version__) for module in modules}}
    if found.pretraining is None:
        return versions
    return {"trained with": Run(source if source.is_dir() else source.parent).read().versions} | versions


def _require_free(out: Path, *, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ExportError(f"{out} is a file; --out must name a folder")
    there = {path.name for path in out.iterdir()}
    if others := there - {CARD, *FILES.values()}:
        raise ExportError(
            f"{out} holds files that are no export's ({', '.join(sorted(others)[:3])}); choose a folder that is empty"
            " or not there yet"
        )
    if there and not overwrite:
        raise ExportError(f"{out} already holds an export; replace it with --overwrite, or choose another folder")
