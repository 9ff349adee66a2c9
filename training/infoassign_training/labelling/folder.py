"""The folder that labels are written to: it appears when all is in it, or not at all."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infoassign.files import replacing, write_npy, write_text
from infoassign_training.errors import UserError
from infoassign_training.labelling.labels import Made, for_json
from infoassign_training.methods.labels import write_labels

CERTIFICATE, LABELS, POTENTIAL, PLAN = "certificate.json", "labels.npy", "potential.npy", "plan.npy"
PROTOTYPES, NAMES = "prototypes.npy", "labels.csv"


WRITTEN = frozenset({CERTIFICATE, LABELS, POTENTIAL, PLAN, PROTOTYPES, NAMES})
"""All that a folder of labels may hold."""


def require_free(out: Path, *, overwrite: bool, read: Iterable[Path] = ()) -> None:
    """Say so if labels may not be written to a folder.

    Parameters
    ----------
    out
        The folder.
    overwrite
        Whether labels that are there may be replaced.
    read
        What labels are made of.

    Raises
    ------
    UserError
        If it holds labels and they are not to be overwritten, holds anything else, or what they are made of.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    strange = sorted({path.name for path in out.iterdir()} - WRITTEN)
    if strange or not (out / CERTIFICATE).exists():
        named = f" ({', '.join(strange[:3])})" if strange else ""
        raise UserError(f"{out} holds files that are no labels{named}; choose a folder that is empty or not there yet")
    if not overwrite:
        raise UserError(f"{out} already holds labels; replace them with --overwrite, or choose another folder")
    needed = [path for path in read if path.resolve().is_relative_to(out.resolve())]
    if needed:
        raise UserError(f"{needed[0]} lies in {out}, which is to be replaced; choose another --out")


def write(
    folder: Path,
    made: Made,
    said: dict[str, Any],
    *,
    soft: str | None,
    names: Iterable[str] | None,
    prototypes: NDArray[Any] | None,
) -> None:
    """Write labels and what is known of them.

    Parameters
    ----------
    folder
        Where to; it is there and empty.
    made
        The labels.
    said
        The certificate.
    soft
        The dtype of the soft labels, written some rows at a time; None for none.
    names
        Where the images come from, to be listed with their labels.
    prototypes
        That features were scored for.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written.
    """
    write_labels(folder / LABELS, made.labels)
    write_array(folder / POTENTIAL, made.potential)
    if soft is not None:
        write_npy(folder / PLAN, made.plan(), (len(made.labels), len(made.potential)), soft)
    if names is not None:
        table = io.StringIO()
        lines = csv.writer(table, lineterminator="\n")
        lines.writerow(["image", "label"])
        lines.writerows(zip(names, made.labels.tolist(), strict=True))
        write_text(folder / NAMES, table.getvalue())
    if prototypes is not None:
        write_array(folder / PROTOTYPES, prototypes)
    write_text(folder / CERTIFICATE, json.dumps(for_json(said), indent=2) + "\n")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a ``.npy`` file, whole or not at all."""
    with replacing(path) as file:
        np.save(file, array)


def read(folder: Path) -> tuple[dict[str, Any], NDArray[np.float64], NDArray[Any] | None]:
    """Read the certificate, the potential and the prototypes, if there are any, of labels that were made before.

    Raises
    ------
    UserError
        If the folder holds no labels, or such as are no potential's.
    """
    try:
        said = json.loads((folder / CERTIFICATE).read_text())
        potential = np.load(folder / POTENTIAL)
        prototypes = np.load(folder / PROTOTYPES) if (folder / PROTOTYPES).exists() else None
        made, weights = str(said["made"]), said["problem"]
        float(weights["epsilon"]), float(weights["temperature"])
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no labels of `infoassign label` (there is no {error.filename})") from error
    except (ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise UserError(f"{folder} is damaged or from another version: {error!r}") from error
    if made == "argmax":
        raise UserError(f"{folder} was made by --argmax and has no potential; use --argmax again")
    return said, potential, prototypes
