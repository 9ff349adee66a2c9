"""``infoassign evaluate`` of what is trained on COCO and VOC from a pretrained encoder."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from infoassign_training.dense.presets import Preset
from infoassign_training.dense.settings import Dense
from infoassign_training.errors import UserError


@dataclass(frozen=True)
class Evaluate:
    """The options of ``infoassign evaluate PRESET``."""

    checkpoint: Path
    """Where the encoder is: the folder of a run, a checkpoint in it, or a file with the weights of a residual network
    of torchvision's, or of SeLa's AlexNet, as others write them."""
    data: str
    """On what: coco:WHERE, a folder with annotations/, train2017/ and val2017/; or voc:WHERE, one with VOCdevkit/, and
    for voc07-alexnet with selective_search_data/, for voc12-fcn with benchmark_RELEASE/."""
    settings: Annotated[Dense, tyro.conf.arg(name="")]
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


def run(preset: Preset, options: Sequence[str]) -> None:
    """Parse the options over the settings of a preset, train, score, and print the scores."""
    published = f" Published: {preset.published}." if preset.published else ""
    try:
        command = tyro.cli(
            Evaluate,
            default=Evaluate(checkpoint=tyro.MISSING, data=tyro.MISSING, settings=preset.settings),
            description=f"{preset.summary} ({preset.source}).{published}",
            prog=f"infoassign evaluate {preset.name}",
            args=options,
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    if command.workers < 0:
        raise UserError("--workers must not be negative")
    from infoassign_training.dense.run import evaluate
    from infoassign_training.evaluation.results import TABLE, beside, table

    checkpoint = command.checkpoint.expanduser()
    folder = command.out.expanduser() if command.out else beside(checkpoint)
    result = evaluate(
        preset.name,
        command.settings,
        checkpoint,
        command.data,
        folder,
        weights=command.weights,
        device=command.device,
        workers=command.workers,
        resume=command.resume,
        overwrite=command.overwrite,
    )
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(f"\n{table([result.to_dict()])}\n\nResults: {folder / TABLE}\n")
