"""Figures on disk: a picture as PNG and as SVG, and the numbers in it as JSON."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from infoassign.files import replacing, write_text

DPI = 150


def save(folder: Path, name: str, figure: Figure, numbers: dict[str, Any]) -> tuple[Path, ...]:
    """Write a figure and its numbers to a folder, which is made; each file is there whole or not at all.

    Returns
    -------
    tuple of Path
        ``NAME.png``, ``NAME.svg`` and ``NAME.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg, said = (folder / f"{name}.{ending}" for ending in ("png", "svg", "json"))
    write_text(said, json.dumps(numbers, indent=2) + "\n")
    for path in (png, svg):
        with replacing(path) as file:
            file.write(_rendered(figure, path.suffix[1:]))
    return png, svg, said


def _rendered(figure: Figure, kind: str) -> bytes:
    """Return the bytes of a picture, on white."""
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, facecolor="white")
    return buffer.getvalue()
