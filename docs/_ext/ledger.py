"""What became of the papers' tables and figures: a row for each, read from ``docs/reproduction/PAPER.toml``.

A row has

- ``item`` and ``shows``: the table or figure as the paper numbers it, and what is in it;
- ``commands`` that make it, in which NAME stands for each of ``recipes``; or ``instead``: why there are none;
- ``needs``: data, devices and hours as the paper has them;
- ``recipes`` with what was published of each, and in ``published`` what else was;
- ``ours``: "not run", unless it says what was run and what came out.

Texts are MyST Markdown.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "reproduction"
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A table or figure of a paper."""

    item: str
    shows: str
    needs: str = ""
    commands: tuple[str, ...] = ()
    instead: str = ""
    recipes: Mapping[str, str] = field(default_factory=dict)
    published: str = ""
    ours: str = NOT_RUN

    def __post_init__(self) -> None:
        """Refuse a row that nothing can come of, or that does not say so."""
        if bool(self.commands) == bool(self.instead):
            raise ValueError(f"{self.item}: give commands, or say why there are none (instead)")
        if self.instead and (self.recipes or self.ours != NOT_RUN):
            raise ValueError(f"{self.item}: without commands there are neither recipes nor results")
        if not self.instead and not self.needs:
            raise ValueError(f"{self.item}: say what it needs")
        if not self.ours.startswith((NOT_RUN, "run,")):
            raise ValueError(f"{self.item}: ours begins with {NOT_RUN!r} or 'run,'; got {self.ours!r}")


def read(paper: str) -> list[Row]:
    """Read the rows of a paper.

    Raises
    ------
    TypeError
        If a row has a field that there is not, or lacks one.
    """
    rows = tomllib.loads((FOLDER / f"{paper}.toml").read_text(encoding="utf-8"))["rows"]
    return [Row(**{**row, "commands": tuple(row.get("commands", ()))}) for row in rows]


def papers() -> list[str]:
    """Return what `read` can be asked for."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))
