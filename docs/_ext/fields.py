"""Descriptions of fields stay as they are written: of one with a colon, napoleon takes what is before it for a type."""

from typing import Any

from sphinx.application import Sphinx

FIELDS = ("attribute", "data", "property")


def setup(app: Sphinx) -> dict[str, Any]:
    """Put back, after napoleon, what there was before it; it does nothing else to fields."""
    before: list[str] = []

    def keep(_app: Sphinx, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
        before[:] = lines

    def restore(_app: Sphinx, what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
        if what in FIELDS:
            lines[:] = before

    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    return {"parallel_read_safe": True}
