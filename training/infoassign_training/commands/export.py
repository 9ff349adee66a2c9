"""``infoassign export``: an encoder for other programs."""

import sys
from pathlib import Path

import tyro

from infoassign_training.export_files import Format


def export(
    run_or_checkpoint: tyro.conf.Positional[Path],
    out: Path,
    formats: tuple[Format, ...] = (),
    weights: str = "",
    overwrite: bool = False,
) -> None:
    """Write an encoder for other programs, with a model card that says what it is and how to load it.

    Args:
        run_or_checkpoint: The folder of a run, a checkpoint in it, or a checkpoint that others released: torchvision's,
            VICReg's, SwAV's, MoCo's, DINO's, lightly's and so on, with a residual network or SeLa's AlexNet in it.
        out: The folder to write, which must be empty or not there yet.
        formats: torchvision: a plain state dict, which torchvision's network loads with strict=True (residual networks
            only). safetensors: the encoder's state. torch-export: a program that takes images in [0, 1] and normalises
            them itself. onnx: the same for ONNX, with the packages onnx and onnxscript. All but onnx if none are named.
        weights: Which encoder, if the checkpoint has several: a part of its name, such as teacher or encoder_q.
        overwrite: Replace the export that is in the folder.
    """
    from infoassign_training.export import export as write

    written = write(run_or_checkpoint, out, formats, weights=weights, overwrite=overwrite)
    sys.stdout.write(f"{written.network}, {written.origin}\n")
    for path in written.files:
        sys.stdout.write(f"  {path}  {path.stat().st_size / 1e3:,.0f} kB\n")
