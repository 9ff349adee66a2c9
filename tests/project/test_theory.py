"""Every statement of docs/theory has a test, and every number in tests and code a statement."""

from pathlib import Path
from textwrap import dedent

import pytest
from statements import Reference, Statement, Theory, cited, marked, read, stated

ROOT = Path(__file__).parents[2]
PAGE = """
(theorem-a1)=
### A1. One minimiser

(erratum-e1)=

### E1. A misprint
"""
TESTS = """
import pytest
from pytest import mark

pytestmark = mark.theorem("C1")

@pytest.mark.theorem("A1", "A2")
class TestAll:
    @pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.theorem("A4"))])
    @pytest.mark.theorem("A3")
    def test_one(self, x): ...

def test_other(): ...
"""


def test_this_checkout_is_complete() -> None:
    theory = read(ROOT)
    assert theory.problems() == []
    numbers = [statement.number for statement in theory.statements]
    for part, count in (("A", 14), ("B", 7), ("C", 8)):
        assert [n for n in numbers if n[0] == part] == [f"{part}{i}" for i in range(1, count + 1)]
    assert {"A4", "A6"} <= {reference.number for reference in theory.code}


def test_pages_are_searched_for_anchors() -> None:
    assert stated(PAGE) == [
        Statement("A1", "theorem-a1", "One minimiser", needs_test=True),
        Statement("E1", "erratum-e1", "A misprint", needs_test=False),
    ]


def test_tests_are_parsed() -> None:
    assert set(marked(TESTS, "tests/test_x.py")) == {
        Reference("C1", "tests/test_x.py"),
        Reference("A1", "tests/test_x.py::TestAll"),
        Reference("A2", "tests/test_x.py::TestAll"),
        Reference("A3", "tests/test_x.py::TestAll::test_one"),
        Reference("A4", "tests/test_x.py::TestAll::test_one"),
    }


def test_comments_and_docstrings_are_searched_for_numbers() -> None:
    source = dedent('''
        """The dual (A3)."""

        def gap(v):
            """By A4."""
            A5 = "A6"  # names and strings are no citations, but A7 is, and A100 is not
            return A5

        class Family:
            beta: float
            """The modulus (A6, A6)."""
        ''')
    assert cited(source, "package.module") == [
        Reference("A3", "package.module"),
        Reference("A4", "package.module.gap"),
        Reference("A7", "package.module.gap"),
        Reference("A6", "package.module.Family"),
    ]


@pytest.mark.parametrize(
    ("page", "tests", "code", "problem"),
    [
        (PAGE, [], [], "A1 (One minimiser) has no test"),
        (PAGE, ["A1", "A9"], [], "test here names A9, which is not stated"),
        (PAGE, ["A1"], ["B1"], "code here names B1, which is not stated"),
        (PAGE + PAGE.partition("(erratum")[0], ["A1"], [], "A1 is stated 2 times"),
        (PAGE.replace("theorem-a1", "theorem-a2"), ["A1"], [], "A1 has the anchor theorem-a2"),
    ],
)
def test_a_gap_is_found(page: str, tests: list[str], code: list[str], problem: str) -> None:
    def here(numbers: list[str]) -> list[Reference]:
        return [Reference(number, "here") for number in numbers]

    assert Theory(stated(page), here(code), here(tests)).problems() == [problem]


def test_nothing_is_wrong_where_nothing_is() -> None:
    references = [Reference("A1", "here"), Reference("E1", "here")]
    assert Theory(stated(PAGE), references[:1], references).problems() == []
