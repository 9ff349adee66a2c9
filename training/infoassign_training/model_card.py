"""The model card of an export: what it is, how to load it, and what is known of how it came about."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from infoassign_training.config import FREE, Pretraining
from infoassign_training.data import settings as sources
from infoassign_training.engine.estimate import EstimateError, images_of
from infoassign_training.engine.run import Run
from infoassign_training.evaluation.results import EVALUATIONS, ResultError
from infoassign_training.evaluation.results import read as read_result
from infoassign_training.export_files import FILES, Format
from infoassign_training.models.layouts import described
from infoassign_training.models.pretrained import IMAGENET_CLASSES, Pretrained
from infoassign_training.models.settings import ResNet
from infoassign_training.recipes import RECIPES

DIGITS = "scikit-learn's digits, those held out"
"""What the evaluation at the end of a run is measured on."""
UNKNOWN = "Not known."
"""Where there is nothing to say."""


@dataclass(frozen=True)
class Measured:
    """A number that an evaluation gave."""

    protocol: str
    data: str
    """On which images; empty if that was not said."""
    name: str
    value: float


def results_in(run: Run, *, sha256: str, origin: str, evaluated: bool) -> list[Measured]:
    """Read the results that lie in the folder of a run; what is not in the expected form is passed over.

    Parameters
    ----------
    run
        The folder, with ``metrics.json``, and in ``evaluations/`` what ``infoassign evaluate`` has written.
    sha256, origin
        Of the weights: evaluations of others are left out.
    evaluated
        Whether the weights are those that ``metrics.json`` is of.
    """
    found = []
    if evaluated:
        features = _mapping(run.metrics).get("features")
        found += [Measured("at the end of the run", DIGITS, *pair) for pair in _numbers(features)]
    for path in sorted((run.folder / EVALUATIONS).glob("*.json")):
        try:
            saved = read_result(path)
        except ResultError:
            continue
        if saved["checkpoint"]["sha256"] == sha256 and saved["checkpoint"].get("origin") == origin:
            protocol, data = saved["protocol"], saved["data"]["name"]
            found += [Measured(protocol, data, *pair) for pair in _numbers(saved["results"])]
    return found


def card(
    found: Pretrained,
    formats: Sequence[Format],
    *,
    measured: Sequence[Measured] = (),
    versions: Mapping[str, Mapping[str, str]],
) -> str:
    """Write the card, in Markdown with the header that Hugging Face reads.

    Parameters
    ----------
    found
        The encoder.
    formats
        Those that files are written in.
    measured
        Results of these weights.
    versions
        Of the libraries, by what was done with them.
    """
    title = found.recipe or described(found.settings)
    sections = {
        "Files": _table(("file", "what it is"), [(f"`{FILES[form]}`", _file(found, form)) for form in formats]),
        "Use": "\n\n".join(_use(found, form) for form in formats),
        "Training": _training(found),
        "Results": _results(found, measured),
        "Where the weights come from": _provenance(found, versions),
        "Licence": "None is given. Set `license` in the header before you publish this, and mind the terms of the"
        " images and of the checkpoint that it comes from.",
    }
    body = "\n".join(f"## {name}\n\n{text}\n" for name, text in sections.items())
    return f"---\n{_header(found, title, measured)}\n---\n\n# {title}\n\n{_summary(found)}\n\n{body}"


def _header(found: Pretrained, title: str, measured: Sequence[Measured]) -> str:
    chosen = found.pretraining
    kinds = [] if chosen is None else [chosen.method.kind]
    hub = [chosen.data.root] if chosen is not None and isinstance(chosen.data, sources.Hub) else None
    header = ModelCardData(
        license="other",
        library_name="torchvision" if isinstance(found.settings, ResNet) else "infoassign",
        pipeline_tag="image-feature-extraction",
        datasets=hub,
        tags=["image-feature-extraction", "infoassign", *kinds],
        model_name=title,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=each.data or "unknown",
                dataset_name=each.data or "not named",
                metric_type=each.name,
                metric_name=f"{each.name}, {each.protocol}",
                metric_value=each.value,
            )
            for each in measured
        ]
        or None,
    )
    return str(header.to_yaml())


def _summary(found: Pretrained) -> str:
    shape = f"images of {found.image_size} x {found.image_size} in, {found.features} features out"
    network = f"An encoder, {described(found.settings)}: {shape}."
    if found.pretraining is None:
        return f"{network} It was converted from a checkpoint that says nothing of how it was trained."
    known = RECIPES.get(found.recipe or "")
    what = f": {known.summary}" if known else ", which is none of infoassign's own"
    return f"{network} Pretrained with infoassign by the recipe `{found.recipe}`{what}."


def _file(found: Pretrained, form: Format) -> str:
    size = f"{found.image_size} x {found.image_size}"
    match form:
        case "torchvision":
            if found.classifier is not None:
                fc = f"the `fc` that the checkpoint has, of {found.classifier.out_features} outputs"
            else:
                fc = "an `fc` of zeros, which is there to be loaded and replaced: " + (
                    f"the checkpoint has {found.left_out}, which was left out, as it may be a projector"
                    if found.left_out
                    else "no classifier was trained"
                )
            return f"state of torchvision's network, with {fc}"
        case "safetensors":
            return "state of the encoder alone, without a last layer"
        case "torch-export":
            return f"program for batches of any size, of images of {size} in [0, 1], which it normalises itself"
        case "onnx":
            return f"program for ONNX from `images`, of {size} in [0, 1], to `features`; it normalises them itself"


def _use(found: Pretrained, form: Format) -> str:
    """Show how a file is loaded; the tests run what stands here."""
    size, channels = found.image_size, next(found.encoder.parameters()).shape[1]
    pixels = f"torch.rand(8, {channels}, {size}, {size})  # RGB in [0, 1]"
    pixels = pixels if channels == 3 else pixels.replace("RGB", "grey")
    normalised = _normalised(found)
    path = FILES[form]
    classes = IMAGENET_CLASSES if found.classifier is None else found.classifier.out_features
    match form, found.settings:
        case "torchvision", ResNet() as chosen:
            lines = [
                "import torch, torchvision",
                "",
                *_network(chosen, classes),
                f'network.load_state_dict(torch.load("{path}", weights_only=True), strict=True)',
                "network.fc = torch.nn.Identity()  # features, not classes",
            ]
            call = "network.eval()"
        case "safetensors", ResNet() as chosen:
            lines = ["import torch, torchvision", "from safetensors.torch import load_file", "", *_network(chosen)]
            lines += ["network.fc = torch.nn.Identity()", f'network.load_state_dict(load_file("{path}"), strict=True)']
            call = "network.eval()"
        case "safetensors", other:
            lines = [
                "import torch",
                "from infoassign_training.models import build, settings",
                "from safetensors.torch import load_file",
                "",
                f"network, _ = build.encoder_of(settings.{other!r}, {size})",
                f'network.load_state_dict(load_file("{path}"), strict=True)',
            ]
            call = "network.eval()"
        case "onnx", _:
            lines = [
                "import onnxruntime, torch",
                "",
                f'session = onnxruntime.InferenceSession("{path}")',
                f"images = {pixels}",
                'features = session.run(["features"], {"images": images.numpy()})[0]',
            ]
            return _python(lines)
        case _:
            lines = ["import torch", "", f'network = torch.export.load("{path}").module()']
            call, normalised = "network", []
    uses = "images" if not normalised else "(images - mean) / std"
    return _python(
        [*lines, f"images = {pixels}", *normalised, "with torch.no_grad():", f"    features = {call}({uses})"]
    )


def _network(chosen: ResNet, classes: int = IMAGENET_CLASSES) -> list[str]:
    """Make torchvision's network, which has a thousand classes unless told otherwise."""
    number = "" if classes == IMAGENET_CLASSES else f"num_classes={classes}"
    lines = [f"network = torchvision.models.{chosen.name}({number})"]
    if chosen.cifar_stem:
        lines += [
            "network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)  # the stem for small images",
            "network.maxpool = torch.nn.Identity()",
        ]
    return lines


def _normalised(found: Pretrained) -> list[str]:
    if not any(found.mean) and set(found.std) == {1.0}:
        return []
    return [
        f"{name} = torch.tensor({list(of)}).view(3, 1, 1)" for name, of in (("mean", found.mean), ("std", found.std))
    ]


def _training(found: Pretrained) -> str:
    chosen = found.pretraining
    if chosen is None:
        return (
            f"{UNKNOWN} Neither the recipe nor the images are in the checkpoint. That images are normalised as"
            " ImageNet's usually are is a guess: see what its authors say."
        )
    known = RECIPES.get(found.recipe or "")
    facts = [("recipe", f"`{found.recipe}`"), ("method", chosen.method.kind), ("images", _images(chosen.data))]
    facts += [("number of images", _number(chosen)), ("weights", found.origin)]
    if known:
        ours = known.settings.flat()
        changed = [
            f"{name} {_shown(name, value)} (not {_shown(name, ours.get(name))})"
            for name, value in chosen.flat().items()
            if name not in FREE and value != ours.get(name)
        ]
        facts += [("recipe's source", known.source), ("published with it", known.published or "nothing")]
        facts += [("changed from the recipe", ", ".join(changed) or "nothing")]
    table = _table(("", ""), facts)
    # Where it took place is nobody's business, and changed nothing.
    settings = [(f"`{name}`", _shown(name, value)) for name, value in chosen.flat().items() if name not in FREE]
    return f"{table}\n\nAll settings that decide the outcome:\n\n{_table(('setting', 'value'), settings)}"


def _images(data: sources.Source) -> str:
    match data:
        case sources.Digits():
            return "scikit-learn's 8 x 8 digits, those not held out"
        case sources.Synthetic():
            return f"noise of {data.size} x {data.size}: a trial, not a model"
        case sources.Torchvision():
            where = f"{data.name}, {data.split}"
        case sources.Hub():
            where = f"{data.root} of the Hugging Face hub, {data.split}" + (
                f" at {data.revision}" if data.revision else ""
            )
        case sources.Folder() | sources.Packed():
            where = "images of the user's own (a folder; its name is not told here)"
        case sources.Evaluated():
            return f"the training {'and validation ' if data.validation else ''}images of {data.name}"
    if data.class_list:
        where += f"; only the classes of `{Path(data.class_list).name}`"
    if data.imbalance != "full":
        where += f"; classes made uneven ({data.imbalance}, seed {data.imbalance_seed})"
    return where


def _number(chosen: Pretraining) -> str:
    data = chosen.data
    whole = not isinstance(data, sources.Chosen) or (data.imbalance == "full" and not data.class_list)
    if not whole or (isinstance(data, sources.Torchvision) and data.split != "train"):
        return "not recorded"
    try:
        return str(images_of(chosen))
    except EstimateError:
        return "not recorded"


def _results(found: Pretrained, measured: Sequence[Measured]) -> str:
    if not measured:
        return UNKNOWN if found.pretraining is None else "None were measured on these weights."
    rows = [(each.protocol, each.data or "not named", each.name, f"{each.value:.4f}") for each in measured]
    return _table(("protocol", "images", "result", "value"), rows)


def _provenance(found: Pretrained, versions: Mapping[str, Mapping[str, str]]) -> str:
    facts = [("taken from", found.origin), ("SHA-256 of the file", f"`{found.sha256}`")]
    facts += [
        (done, ", ".join(f"{name} {version}" for name, version in with_.items())) for done, with_ in versions.items()
    ]
    return _table(("", ""), facts)


def _shown(name: str, value: Any) -> str:
    if name == "data.class-list" and value:
        return Path(value).name
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _python(lines: Sequence[str]) -> str:
    code = "\n".join(lines)
    return f"```python\n{code}\n```"


def _mapping(path: Path) -> Mapping[str, Any]:
    """Read a JSON object, or nothing where there is none."""
    try:
        saved = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return saved if isinstance(saved, dict) else {}


def _numbers(tree: Any, before: str = "") -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of nested dicts, each with the names on the way to it."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _numbers(value, f"{before} {name}".strip())
    elif isinstance(tree, int | float) and not isinstance(tree, bool) and isfinite(tree):
        yield before, float(tree)
