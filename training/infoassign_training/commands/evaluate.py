"""``infoassign evaluate``: a protocol, a checkpoint, data; numbers in a file and a table."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from infoassign_training.commands import dense
from infoassign_training.data.benchmark_layouts import SETS, TRANSFER
from infoassign_training.dense.presets import LAYOUTS, PRESETS, Preset
from infoassign_training.errors import UserError
from infoassign_training.evaluation.presets import PROTOCOLS, Protocol
from infoassign_training.evaluation.results import TABLE, beside, table
from infoassign_training.evaluation.settings import Settings
from infoassign_training.threads import set_threads


@dataclass(frozen=True)
class Evaluate:
    """The options of ``infoassign evaluate PROTOCOL``."""

    checkpoint: Path
    """What to evaluate: the folder of a run, a checkpoint in it, or a file with the weights of a network of
    torchvision's or of SeLa's AlexNet, as torchvision, VICReg, SwAV, MoCo, DINO, lightly, solo-learn and others write
    them."""
    data: tuple[str, ...]
    """On what: digits; a folder with train/ and val/ or test/, and a folder for every class in each; or NAME:WHERE, as
    in imagenet:/data/imagenet. Several are evaluated one after the other. For transfer, a folder that has all eleven
    sets will do."""
    protocol: Annotated[Settings, tyro.conf.AvoidSubcommands]
    out: Path | None = None
    """Folder for the results; evaluations/ in the folder of the run, or NAME-evaluations/ beside a file NAME.pth."""
    weights: str = ""
    """Which encoder, of a file that has several: a part of its name, such as teacher or encoder_q."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto for CUDA where there is a device."""
    at_once: int = 256
    """Images that are looked at at once, on each process."""
    workers: int = 0
    """Further processes, for each that computes, that read images."""
    resume: bool = False
    """Go on: leave results that are there as they are, and go on with training that was cut off."""
    overwrite: bool = False
    """Write results anew that are there already."""


def run(name: str, options: Sequence[str]) -> None:
    """Parse the options over the settings of a protocol, and evaluate."""
    protocol = _known(name)
    if isinstance(protocol, Preset):
        dense.run(protocol, options)
        return
    start = Evaluate(checkpoint=tyro.MISSING, data=tyro.MISSING, protocol=protocol.settings)
    published = f" Published: {protocol.published}." if protocol.published else ""
    try:
        command = tyro.cli(
            Evaluate,
            default=start,
            description=f"{protocol.summary} ({protocol.source}).{published}",
            prog=f"infoassign evaluate {name}",
            args=options,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    if command.at_once < 1 or command.workers < 0:
        raise UserError("--at-once must be positive, and --workers not negative")
    evaluated(name, command)


def evaluated(name: str, command: Evaluate) -> None:
    """Evaluate on one data set after the other, and print the results as a table."""
    from infoassign_training.evaluation.run import evaluate

    set_threads(small=list(command.data) == ["digits"])
    checkpoint = command.checkpoint.expanduser()
    folder = command.out.expanduser() if command.out else beside(checkpoint)
    found = evaluate(
        name,
        command.protocol,
        checkpoint,
        several(name, command.data),
        folder,
        weights=command.weights,
        device=command.device,
        batch_size=command.at_once,
        workers=command.workers,
        resume=command.resume,
        overwrite=command.overwrite,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    sys.stdout.write(f"\n{table(result.to_dict() for result in found)}\n")
    for result in found:
        sys.stdout.write("".join(f"\n{result.data['name']}: {note}" for note in result.notes))
    sys.stdout.write(f"\n\nResults: {folder / TABLE}\n")


def several(name: str, data: Sequence[str]) -> Sequence[str]:
    """Return the data sets that are meant: of ``transfer`` and a single folder, the eleven that it has.

    Examples
    --------
    >>> len(several("transfer", ["/data"])), several("transfer", ["pets:/data"])
    (11, ['pets:/data'])
    """
    if name == "transfer" and len(data) == 1 and data[0].partition(":")[0] not in SETS:
        return [f"{one}:{data[0]}" for one in TRANSFER]
    return data


def among(options: Sequence[str]) -> int | None:
    """Return where among the words after the command the protocol is; without one, a first word that is none.

    Examples
    --------
    >>> among(["--data", "digits", "knn"]), among(["knm"]), among(["--help"])
    (2, 0, None)
    """
    # What follows --out is a folder, even if it is named like a protocol.
    places = [
        place
        for place, word in enumerate(options)
        if word in {*PROTOCOLS, *PRESETS}
        and options[place - 1 : place] not in (["--out"], ["--checkpoint"], ["--weights"])
    ]
    if places:
        return places[0]
    return 0 if options and not options[0].startswith("-") else None


def protocols(name: tyro.conf.Positional[str] = "") -> None:
    """List what can be evaluated, or show one protocol with all its settings, and the data sets.

    Args:
        name: A protocol to show.
    """
    if name:
        sys.stdout.write(_shown(_known(name)))
        return
    every: list[Protocol | Preset] = [*PROTOCOLS.values(), *PRESETS.values()]
    width = max(len(protocol.name) for protocol in every)
    lines = [f"  {protocol.name:<{width}}  {protocol.summary}" for protocol in every]
    lines += ["\ndata sets, as NAME:WHERE"]
    layouts = {**SETS, **LAYOUTS}
    width = max(map(len, layouts))
    lines += [f"  {known:<{width}}  {layout}" for known, layout in layouts.items()]
    lines += ["\n`infoassign protocols NAME` shows one;"]
    lines += ["`infoassign evaluate NAME --checkpoint RUN_OR_FILE --data NAME:WHERE` runs it."]
    sys.stdout.write("protocols\n" + "\n".join(lines) + "\n")


def _shown(protocol: Protocol | Preset) -> str:
    facts = {"from": protocol.source, "published": protocol.published or "nothing"}
    lines = [protocol.name, f"  {protocol.summary}", *(f"  {name:<10} {fact}" for name, fact in facts.items())]
    kind = protocol.settings.model.kind if isinstance(protocol, Preset) else protocol.settings.kind
    lines += ["settings", f"  {'kind':<28} {kind}"]
    lines += [f"  {name.replace('_', '-'):<28} {value}" for name, value in flat(protocol.settings).items()]
    return "\n".join(lines) + "\n"


def flat(settings: Any) -> dict[str, Any]:
    """Return settings by name, those of a part after its name and a point.

    Examples
    --------
    >>> flat(PRESETS["coco-c4"].settings)["schedule.iterations"]
    90000
    """
    found: dict[str, Any] = {}
    for name, value in vars(settings).items():
        inner = flat(value) if is_dataclass(value) else {}
        found |= {f"{name}.{key}": one for key, one in inner.items()} or {name: value}
    return found


def _known(name: str) -> Protocol | Preset:
    every: dict[str, Protocol | Preset] = {**PROTOCOLS, **PRESETS}
    if name not in every:
        near = get_close_matches(name.lower(), every, n=1, cutoff=0)[0]
        raise UserError(f"no protocol is called {name!r}; did you mean {near!r}? There are {', '.join(every)}")
    return every[name]
