"""Figures on disk: a picture as PNG and as SVG, and the numbers in it as JSON."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from infoassign.files import replacing, write_text

DPI = 150


def save(folder: Path, name: str, figure: Figure, numbers: dict[str, Any]) -> tuple[Path, ...]:
    """Write a figure and its numbers to a folder, which is made; each file is there whole or not at all.

    The same figure gives the same bytes.

    Returns
    -------
    tuple of Path
        ``NAME.png``, ``NAME.svg`` and ``NAME.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg, said = (folder / f"{name}.{ending}" for ending in ("png", "svg", "json"))
    write_text(said, json.dumps(numbers, indent=2) + "\n")
    for path, metadata in ((png, {}), (svg, {"Date": None})):
        with mpl.rc_context({"svg.hashsalt": name}), replacing(path) as file:
            file.write(rendered(figure, path.suffix[1:], metadata))
    return png, svg, said


def rendered(figure: Figure, kind: str, metadata: dict[str, Any] | None = None) -> bytes:
    """Return the bytes of a picture, on white."""
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, facecolor="white", metadata=metadata)
    return buffer.getvalue()
