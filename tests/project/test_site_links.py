"""What leads nowhere in a written site is found; the documentation's build warns of it, and so fails."""

from pathlib import Path

import pytest
from links import broken

GOOD = """
<link href="_static/look.css?v=1" rel="stylesheet"><a name="old"></a><h1 id="über">Title</h1>
<a href="#">top</a> <a href="#old">here</a> <a href="index.html#%C3%BCber">here</a> <a href="theory/a.html#b">there</a>
<a href="https://nowhere.invalid/x#y">elsewhere</a> <a href="mailto:a@b.invalid">post</a> <img src="data:image/png;,">
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "theory").mkdir()
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "look.css").touch()
    (tmp_path / "index.html").write_text(GOOD, encoding="utf-8")
    (tmp_path / "theory" / "a.html").write_text('<p id="b"><a href="../index.html#old">back</a></p>', encoding="utf-8")
    return tmp_path


def test_a_site_whose_links_resolve_has_none_broken(site: Path) -> None:
    assert list(broken(site)) == []


@pytest.mark.parametrize(
    ("seeded", "why"),
    [
        ('<a href="no.html">x</a>', "no.html is no file"),
        ('<a href="theory/">x</a>', "theory/ is no file"),
        ('<img src="_images/no.png">', "_images/no.png is no file"),
        ('<a href="#B">x</a>', "#B is no anchor"),
        ('<a href="theory/a.html#old">x</a>', "theory/a.html#old is no anchor"),
    ],
)
def test_what_leads_nowhere_is_named_with_its_page(site: Path, seeded: str, why: str) -> None:
    (site / "seeded.html").write_text(seeded, encoding="utf-8")
    assert list(broken(site)) == [f"seeded.html: {why}"]
