"""``infoassign detect``: a detector from a pretrained encoder, and its scores."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import tyro

from infoassign_training.commands.evaluate import beside
from infoassign_training.detection.presets import PRESETS
from infoassign_training.detection.settings import Detection
from infoassign_training.errors import UserError


@dataclass(frozen=True)
class Detect:
    """The options of ``infoassign detect PRESET``."""

    checkpoint: Path
    """Where the encoder is: the folder of a run, a checkpoint in it, or a file with the weights of a residual network
    of torchvision's, as others write them."""
    data: Path
    """Folder of the data set: with annotations/, train2017/ and val2017/ for COCO, with VOCdevkit/ for VOC."""
    settings: Annotated[Detection, tyro.conf.arg(name="")]
    out: Path | None = None
    """Folder for the result; evaluations/ in the folder of the run, or NAME-evaluations/ beside a file NAME.pth."""
    weights: str = ""
    """Which encoder, of a file that has several: a part of its name, such as teacher or encoder_q."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto for CUDA where there is a device."""
    workers: int = 0
    """Further processes, for each that computes, that read images."""
    resume: bool = False
    """Go on with training that was cut off."""
    overwrite: bool = False
    """Begin anew what was begun or finished already."""


def among(options: Sequence[str]) -> int | None:
    """Return where among the words after the command the preset is; without one, a first word that is none.

    Examples
    --------
    >>> among(["--data", "coco", "coco-c4"]), among(["coco"]), among(["--help"])
    (2, 0, None)
    """
    places = [place for place, word in enumerate(options) if word in PRESETS]
    if places:
        return places[0]
    return 0 if options and not options[0].startswith("-") else None


def run(name: str, options: Sequence[str]) -> None:
    """Parse the options over the settings of a preset, train, score, and print the scores."""
    if name not in PRESETS:
        near = get_close_matches(name.lower(), PRESETS, n=1, cutoff=0)[0]
        raise UserError(f"no detector is called {name!r}; did you mean {near!r}? There are {', '.join(PRESETS)}")
    preset = PRESETS[name]
    published = f" Published: {preset.published}." if preset.published else ""
    try:
        command = tyro.cli(
            Detect,
            default=Detect(checkpoint=tyro.MISSING, data=tyro.MISSING, settings=preset.settings),
            description=f"{preset.summary} ({preset.source}).{published}",
            prog=f"infoassign detect {name}",
            args=options,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    if command.workers < 0:
        raise UserError("--workers must not be negative")
    from infoassign_training.detection.run import detect
    from infoassign_training.evaluation.results import TABLE, table

    checkpoint = command.checkpoint.expanduser()
    folder = command.out.expanduser() if command.out else beside(checkpoint)
    result = detect(
        name,
        command.settings,
        checkpoint,
        command.data.expanduser(),
        folder,
        weights=command.weights,
        device=command.device,
        workers=command.workers,
        resume=command.resume,
        overwrite=command.overwrite,
    )
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(f"\n{table([result.to_dict()])}\n\nResults: {folder / TABLE}\n")
