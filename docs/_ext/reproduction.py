"""The directive ``reproduction``: the ledger of a paper as a table."""

from typing import Any

from docutils import nodes
from ledger import FOLDER, Row, read
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HEADER = ("what", "command", "needs", "published", "ours")


def cells(row: Row) -> tuple[list[str], ...]:
    """Return the paragraphs of every cell, by column."""
    if row.instead:
        return [f"**{row.item}**: {row.shows}"], [f"nothing to run: {row.instead}"], [], [], []
    published = [f"`{recipe}`: {value}" for recipe, value in row.recipes.items()]
    return (
        [f"**{row.item}**: {row.shows}"],
        [f"`{command}`" for command in row.commands],
        [row.needs],
        [*published, *([row.published] if row.published else [])],
        [row.ours],
    )


def table(rows: list[Row]) -> str:
    """Write the table in MyST Markdown."""
    lines = [
        "```{list-table}",
        ":header-rows: 1",
        ":widths: 15 27 16 26 16",
        ":class: ledger",
        "",
        *(f"{'* ' if column == 0 else '  '}- {name}" for column, name in enumerate(HEADER)),
    ]
    for row in rows:
        for column, paragraphs in enumerate(cells(row)):
            first, *others = paragraphs or [""]
            lines.append(f"{'* ' if column == 0 else '  '}- {first}")
            for paragraph in others:
                lines += ["", f"    {paragraph}"]
    return "\n".join([*lines, "```"])


class Reproduction(SphinxDirective):
    """Its argument is the paper: the name of a file in docs/reproduction."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the paper's rows, and make the table."""
        paper = self.arguments[0]
        self.env.note_dependency(str(FOLDER / f"{paper}.toml"))
        return self.parse_text_to_nodes(table(read(paper)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("reproduction", Reproduction)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
