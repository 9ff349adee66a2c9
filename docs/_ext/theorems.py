"""The directive ``theorems``: a table of the statements of docs/theory, the code that cites them and their tests.

Whatever is missing becomes a warning, and the documentation is built with warnings as errors.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from statements import Theory, read

import infoassign

LOG = logging.getLogger(__name__)
ROOT = Path(__file__).parents[2]


def public(name: str) -> str:
    """Return the name under which something is documented if it is: what the package exports without its module."""
    package, *rest = name.split(".")
    exported = package == infoassign.__name__ and rest[1:2] and rest[1] in infoassign.__all__
    return ".".join([package, *rest[1:]]) if exported else name


def table(theory: Theory) -> str:
    """Write the table in MyST Markdown."""
    lines = [
        "```{list-table}",
        ":header-rows: 1",
        ":widths: 20 35 45",
        ":class: theorems",
        "",
        "* - statement",
        "  - code",
        "  - tests",
    ]
    for statement in theory.statements:
        code = [f"{{py:obj}}`{of.place} <{public(of.place)}>`" for of in theory.code if of.number == statement.number]
        tests = [f"`{of.place.removeprefix('tests/')}`" for of in theory.tests if of.number == statement.number]
        lines.append(f"* - [{statement.number}. {statement.title}](#{statement.anchor})")
        for places in (code, tests):
            lines += [f"  - {'- ' if place else ''}{place}" for place in places[:1] or [""]]
            lines += [f"    - {place}" for place in places[1:]]
    return "\n".join([*lines, "```"])


class Theorems(SphinxDirective):
    """No arguments and no content."""

    def run(self) -> list[nodes.Node]:
        """Warn of what is missing, and make the table."""
        self.env.note_reread()  # it depends on files that Sphinx does not watch
        theory = read(ROOT)
        for problem in theory.problems():
            LOG.warning("theory: %s", problem, location=self.get_location())
        return self.parse_text_to_nodes(table(theory))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("theorems", Theorems)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
