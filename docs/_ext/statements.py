"""Which statements of docs/theory there are, which code cites them and which tests are about them.

Nothing is imported or run: pages are searched for anchors, Python files are parsed.

- A statement is a heading ``### A4. Title`` under an anchor ``(theorem-a4)=``; an erratum ``### E4. Title`` under
  ``(erratum-e4)=``. Every statement needs a test; an erratum may have none, since some are about printing alone.
- A test, or a class of tests, names statements by ``@pytest.mark.theorem("A4", "A5")``.
- Code cites a statement by its number, such as A4, in a comment or docstring.
"""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ANCHOR = re.compile(r"^\((theorem|erratum)-(\w+)\)=\s*^#+ ([A-Z]\d+)\. (.+)$", re.MULTILINE)
NUMBER = re.compile(r"\b[ABC][1-9]\d?\b")


@dataclass(frozen=True)
class Statement:
    """A heading with an anchor."""

    number: str
    """As in ``A4``."""
    anchor: str
    """As in ``theorem-a4``."""
    title: str
    needs_test: bool


@dataclass(frozen=True, order=True)
class Reference:
    """A place that names a statement."""

    number: str
    place: str
    """A test's node id, or the dotted name of what the comment or docstring is in."""


@dataclass(frozen=True)
class Theory:
    """Statements, the code that cites them and the tests that are about them."""

    statements: list[Statement]
    code: list[Reference]
    tests: list[Reference]

    def problems(self) -> list[str]:
        """Say what is wrong: doubled or untested statements, and numbers that no statement has."""
        numbers = Counter(statement.number for statement in self.statements)
        tested = {test.number for test in self.tests}
        found = [f"{number} is stated {times} times" for number, times in numbers.items() if times > 1]
        for statement in self.statements:
            if statement.anchor.partition("-")[2].upper() != statement.number:
                found.append(f"{statement.number} has the anchor {statement.anchor}")
            if statement.needs_test and statement.number not in tested:
                found.append(f"{statement.number} ({statement.title}) has no test")
        for kind, references in (("test", self.tests), ("code", self.code)):
            unknown = [reference for reference in references if reference.number not in numbers]
            found += [
                f"{kind} {reference.place} names {reference.number}, which is not stated" for reference in unknown
            ]
        return found


def read(root: Path) -> Theory:
    """Read a checkout."""
    pages = sorted((root / "docs" / "theory").glob("*.md"))
    statements = [statement for page in pages for statement in stated(page.read_text(encoding="utf-8"))]
    statements.sort(key=lambda statement: (statement.number[0], int(statement.number[1:])))
    tests = [
        reference
        for path in sorted((root / "tests").rglob("test_*.py"))
        for reference in sorted(marked(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()))
    ]
    code = [
        reference
        for source in (root, root / "backends")
        for path in sorted(source.glob("infoassign*/**/*.py"))
        for reference in cited(path.read_text(encoding="utf-8"), dotted(path.relative_to(source)))
    ]
    return Theory(statements, code, tests)


def dotted(path: Path) -> str:
    """Return the name of the module in a file."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def stated(page: str) -> list[Statement]:
    """Return the statements of a page."""
    return [
        Statement(number, f"{kind}-{name}", title.strip(), needs_test=kind == "theorem")
        for kind, name, number, title in ANCHOR.findall(page)
    ]


def marked(source: str, path: str) -> list[Reference]:
    """Return the tests and classes of a file that are marked; a mark elsewhere, as in ``pytestmark``, is the file's."""
    tree = ast.parse(source)
    places: dict[ast.AST, str] = {}
    for names, node in definitions(tree):
        inside = (part for decorator in node.decorator_list for part in ast.walk(decorator))
        places |= dict.fromkeys(inside, "::".join([path, *names]))
    return [
        Reference(argument.value, places.get(node, path))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.theorem")
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


def cited(source: str, module: str) -> list[Reference]:
    """Return what cites statements in a module: functions, classes or the module itself, each once a statement."""
    tree = ast.parse(source)
    texts = [
        (node.lineno, node.value.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts += [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    scopes = list(definitions(tree))

    def around(line: int) -> str:
        inside = [names for names, node in scopes if node.lineno <= line <= (node.end_lineno or node.lineno)]
        return ".".join([module, *max(inside, key=len, default=())])

    found = {Reference(number, around(line)): None for line, text in sorted(texts) for number in NUMBER.findall(text)}
    return list(found)


def definitions(
    tree: ast.AST, outer: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield the classes and functions of a module, nested ones included, with their names from the outside in."""
    for node in ast.iter_child_nodes(tree):
        inside = outer
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inside = (*outer, node.name)
            yield inside, node
        yield from definitions(node, inside)
