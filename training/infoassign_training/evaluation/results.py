"""What an evaluation found, with all that it depends on: a JSON file each, and a table of all in a folder."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from infoassign.files import write_text
from infoassign_training.errors import UserError

EVALUATIONS = "evaluations"
"""The folder in that of a run."""
TABLE = "results.md"
"""The table, beside the files it is made of."""


class ResultError(UserError):
    """A file of results that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One protocol, one checkpoint, one data set.

    Examples
    --------
    >>> data = {"name": "digits"}
    >>> found = Result(protocol="knn", settings={"seed": 0}, checkpoint={}, data=data, results={"top-1": 0.9})
    >>> Result.from_dict(found.to_dict()) == found
    True
    """

    protocol: str
    """Its name on the command line."""
    settings: Mapping[str, Any]
    """Of the protocol, with its kind."""
    checkpoint: Mapping[str, Any]
    """Path, sha256, origin in words."""
    data: Mapping[str, Any]
    """Name, numbers of images, metric, and what was drawn."""
    results: Mapping[str, float]
    """What counts for the data set first. Shares, from 0 to 1."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """What was chosen without the test images, and what it was chosen by."""
    notes: tuple[str, ...] = ()
    """What a reader should know."""
    seconds: float = 0.0
    """Of the first process, from when checkpoint and data were open."""
    processes: int = 1
    """How many there were."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the libraries, by name."""

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "Result":
        """Make a result of what :meth:`to_dict` gave, also by way of JSON.

        Parameters
        ----------
        tree
            What was written; further entries do not matter.
        """
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in tree.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """Return what is written, with the hash of the protocol's settings and its seed where they are looked for."""
        tree = asdict(self)
        return {
            "protocol": tree.pop("protocol"),
            "protocol_sha256": hash_of(self.settings),
            "seed": self.settings["seed"],
            **tree,
        }


def hash_of(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of settings: of their JSON with sorted names and no spaces.

    Parameters
    ----------
    settings
        What JSON can hold.

    Examples
    --------
    >>> hash_of({"b": 1, "a": (2,)}) == hash_of({"a": [2], "b": 1})
    True
    """
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: Path, result: Result) -> None:
    """Write a result, and the table of all results in its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
    found, strange = [], []
    for other in sorted(path.parent.glob("*.json")):
        try:
            found.append(read(other))
        except ResultError as error:
            strange.append(f"\n{error}\n")
    write_text(path.with_name(TABLE), table(found) + "\n" + "".join(strange))


def beside(checkpoint: Path) -> Path:
    """Return where results go unless they are told: into the folder of a run, or beside a file.

    Examples
    --------
    >>> beside(Path("weights/resnet50.pth")).name
    'resnet50-evaluations'
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    if checkpoint.is_dir() or (folder / "settings.json").is_file():
        return folder / EVALUATIONS
    return checkpoint.with_name(f"{checkpoint.stem}-evaluations")


def read(path: Path) -> dict[str, Any]:
    """Read a result.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        What :meth:`Result.to_dict` gave.

    Raises
    ------
    ResultError
        If the file is none.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "notes.json"
    >>> _ = path.write_text('{"protocol": "knn"}')
    >>> read(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    infoassign_training.evaluation.results.ResultError: ...notes.json is no result of an evaluation: it has no ...
    """
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"protocol", "checkpoint", "data", "results", "seed"} - tree.keys()
    except (ValueError, AttributeError) as error:
        raise ResultError(f"{path} is no result of an evaluation: {error}") from error
    if missing:
        raise ResultError(f"{path} is no result of an evaluation: it has no {', '.join(sorted(missing))}")
    return tree


def table(found: Iterable[Mapping[str, Any]]) -> str:
    """Lay results out as a table in Markdown, a line for each number.

    Parameters
    ----------
    found
        Results, as :func:`read` returns them.

    Examples
    --------
    >>> one = {"protocol": "knn", "data": {"name": "digits"}, "seed": 0, "results": {"top-1": 0.98765}}
    >>> print(table([one | {"checkpoint": {"sha256": "0123456789ab"}}]))
    | protocol | data   | checkpoint | seed | metric | value |
    |----------|--------|------------|------|--------|-------|
    | knn      | digits | 01234567   | 0    | top-1  | .9877 |
    """
    rows = [("protocol", "data", "checkpoint", "seed", "metric", "value")]
    for tree in found:
        where = (tree["protocol"], tree["data"]["name"], tree["checkpoint"]["sha256"][:8], str(tree["seed"]))
        rows += [(*where, name, shown(value)) for name, value in tree["results"].items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def shown(value: float) -> str:
    """Write a share with four digits after the point and none before.

    Examples
    --------
    >>> shown(0.98765), shown(1.0), shown(-0.01)
    ('.9877', '1.0000', '-.0100')
    """
    return f"{value:.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.4f}"
