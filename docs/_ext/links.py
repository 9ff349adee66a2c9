"""Whether every internal link of the written site resolves: pages, anchors, images, style sheets, scripts, downloads.

Sphinx warns of references that it cannot resolve, but not of an anchor in raw HTML, a picture in a template or an
anchor to what autodoc no longer writes. So the HTML itself is read once it is there, and whatever leads nowhere becomes
a warning; the documentation is built with warnings as errors.
"""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:  # the tests, which have no Sphinx, read sites without it
    from sphinx.application import Sphinx


class Page(HTMLParser):
    """The anchors of a page, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "top"}  # both are the top of any page
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a tag's anchor and of where it leads."""
        for name, value in attrs:
            if value is not None and (name == "id" or (tag == "a" and name == "name")):
                self.anchors.add(value)
            elif value is not None and name in ("href", "src"):
                self.references.append(value)


def broken(site: Path) -> Iterator[str]:
    """Name every reference within a folder of HTML files that leads nowhere, by its page."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for reference in page.references:
            link = urlsplit(reference)
            if link.scheme or link.netloc:
                continue  # another site's, or a picture in the page itself (data:)
            target = (path.parent / unquote(link.path)).resolve() if link.path else path
            if not target.is_file():
                yield f"{path.relative_to(site.resolve())}: {reference} is no file"
            elif target in pages and unquote(link.fragment) not in pages[target].anchors:
                yield f"{path.relative_to(site.resolve())}: {reference} is no anchor"


def check(app: "Sphinx", exception: Exception | None) -> None:
    """Warn of what is broken, after a build that wrote HTML."""
    from sphinx.util import logging

    if exception is None and app.builder.name == "html":
        for problem in dict.fromkeys(broken(Path(app.outdir))):
            logging.getLogger(__name__).warning("link: %s", problem)


def setup(app: "Sphinx") -> dict[str, Any]:
    """Look at the site when it is written."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
