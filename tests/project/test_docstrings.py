"""What docs/api.md documents, which is all that is public, has docstrings that say what a reader needs.

The page is parsed as it stands, so that nothing is forgotten. What is required is in the names of the tests. By kind:

- a *law* has the arguments and the example of its module, whose docstring has to have them;
- a *recipe*, a row of a paper's table, is run by its name and has the example of :mod:`infoassign_training.recipes`;
- a *record* of training, whose every field is explained, may have the example of its module;
- a *method* may be in an example of its class;
- a *protocol* or an abstract class says what others have to write: sentences do for arguments, and nothing can be run;
- a *method that overrides* a documented one is used as that one is, and says no more than what is its own;
- *properties* have no arguments and no examples, *exceptions* no examples.

That what is shown in the examples comes out is seen to by pytest, which runs them all.
"""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from enum import Enum
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import infoassign
import infoassign_backends

recipes = pytest.importorskip("infoassign_training.recipes", reason="training is an extra")
testing = pytest.importorskip("infoassign.testing", reason="testing is an extra")
contract = importlib.import_module("infoassign.testing.contract")

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
KINDS = "module|class|function|exception"
DIRECTIVE = re.compile(rf"^\.\. auto({KINDS}):: ([\w.]+)(?:\(\))?\n((?:   :.*\n)*)", re.MULTILINE)
HEADING = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
SHAPE = re.compile(r"\bshapes?\b|\((?:[\w.]+)?(?:, ?[\w. +*]+)*,?\)|\b0-d\b", re.IGNORECASE)
ARRAY = re.compile(r"\b(?:Array|Tensor|NDArray|Matrix|ndarray)\b")


@dataclass(frozen=True)
class Public:
    """A class, function, method or property of the page, with its name and the class or module that it is in."""

    path: str
    thing: Any
    owner: Any

    @property
    def sections(self) -> dict[str, str]:
        """The text under each heading of the docstring; what comes before them under ''."""
        parts = HEADING.split(inspect.cleandoc(self.thing.__doc__ or ""))
        return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}

    @property
    def is_class(self) -> bool:
        return isinstance(self.thing, type)

    @property
    def is_law(self) -> bool:
        return getattr(self.thing, "__name__", "") in contract.STATEMENTS

    @property
    def is_recipe(self) -> bool:
        return isinstance(self.owner, ModuleType) and self.owner.__name__.startswith(f"{recipes.__name__}.")

    @property
    def is_record(self) -> bool:
        """Whether it is a dataclass or named tuple of training."""
        fields = is_dataclass(self.thing) or hasattr(self.thing, "_fields")
        return self.is_class and fields and self.thing.__module__.startswith("infoassign_training.")

    @property
    def is_to_be_written(self) -> bool:
        """Whether it is a protocol, an abstract class or what these ask for."""
        asked = getattr(self.thing, "__isabstractmethod__", False)
        return asked or any(
            getattr(each, "_is_protocol", False) or inspect.isabstract(each) for each in (self.thing, self.owner)
        )

    @property
    def overrides(self) -> bool:
        name = self.path.rpartition(".")[2]
        bases = self.owner.__mro__[1:] if isinstance(self.owner, type) else ()
        return any(getattr(base, name).__doc__ for base in bases if hasattr(base, name))

    @property
    def is_called(self) -> bool:
        """Whether its arguments and an example are its own to show."""
        if self.is_law or self.is_recipe or self.is_to_be_written or self.overrides:
            return False
        return isinstance(self.thing, type | FunctionType)

    @property
    def examples(self) -> str:
        """Those that may show it: its own, and by its kind those of what it is in."""
        own = self.sections.get("Examples", "")
        if isinstance(self.owner, type):
            around = Public("", self.owner, None).sections.get("Examples", "")
            return own + (around if f".{self.path.rpartition('.')[2]}(" in around else "")
        return own + (Public("", self.owner, None).sections.get("Examples", "") if self.is_record else "")

    @property
    def arguments(self) -> set[str]:
        """What is passed by a caller."""
        if self.is_class and issubclass(self.thing, BaseException | Enum):
            return set()
        return {name for name in inspect.signature(self.thing).parameters if not name.startswith("_")} - {"self", "cls"}

    def explained(self) -> set[str]:
        """The names that Parameters and Attributes have entries for, and the fields with a string below them."""
        found: set[str] = set()
        for heading in ("Parameters", "Attributes"):
            entries = re.findall(r"^(\w[\w, *]*)(?: ?:.*)?$", self.sections.get(heading, ""), re.MULTILINE)
            found |= {name.strip(" *") for entry in entries for name in entry.split(",")}
        for kind in self.thing.__mro__ if self.is_class else ():
            body = tree(kind).body if hasattr(kind, "__annotations__") else []
            for line, below in pairwise(body):
                if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                    found.add(ast.unparse(line.target))
        return found

    def raised(self) -> set[str]:
        """The names of the exceptions that its own lines raise; what a decorator made has no lines."""
        if inspect.getsourcefile(self.thing) != inspect.getsourcefile(inspect.getmodule(self.thing)):
            return set()
        lines = tree(self.thing).body
        if self.is_class:
            lines = [line for line in lines if getattr(line, "name", "") in ("__init__", "__post_init__")]
        found = [each.exc for line in lines for each in walk(line) if isinstance(each, ast.Raise) and each.exc]
        names = {ast.unparse(error.func) for error in found if isinstance(error, ast.Call)}
        return {name for name in names if name.endswith("Error")}


def tree(thing: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def walk(line: ast.AST) -> Iterator[ast.AST]:
    """Yield what is in a statement, but not in functions in it."""
    yield line
    for part in ast.iter_child_nodes(line):
        if not isinstance(part, ast.FunctionDef | ast.Lambda):
            yield from walk(part)


def members(path: str, owner: Any, options: dict[str, str]) -> Iterator[Public]:
    """Yield what autodoc shows of a module or class: the members that are named, or all that are public and its own."""
    left_out = options.get("exclude-members", "").split(", ")
    names = options["members"].split(", ") if options["members"] else list(vars(owner))
    for name in names:
        if name.startswith("_") or name in left_out:
            continue
        thing = vars(owner)[name]
        thing = getattr(thing, "__func__", thing)  # of a class method
        own = not isinstance(owner, ModuleType) or getattr(thing, "__module__", "") == owner.__name__
        if own and isinstance(thing, type | FunctionType | property | cached_property):
            yield Public(f"{path}.{name}", thing, owner)
            if isinstance(owner, ModuleType) and isinstance(thing, type):
                yield from members(f"{path}.{name}", thing, {**options, "members": ""})


def public() -> Iterator[Public]:
    """Yield all that the page documents."""
    for kind, path, lines in DIRECTIVE.findall(PAGE):
        options = {key: value.strip() for key, value in re.findall(r"^   :([\w-]+):(.*)$", lines, re.MULTILINE)}
        if kind == "module":
            owner: Any = importlib.import_module(path)
        else:
            module, _, name = path.rpartition(".")
            owner = getattr(importlib.import_module(module), name)
            yield Public(path, owner, importlib.import_module(module))
        if "members" in options:
            yield from members(path, owner, options)


ALL = list({each.path: each for each in public()}.values())
CALLED = [each for each in ALL if each.is_called]


def named(some: list[Public]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("each", some, ids=[each.path for each in some])


def test_the_page_has_all_public_names() -> None:
    assert len(DIRECTIVE.findall(PAGE)) == PAGE.count(".. auto")
    shown = {each.path for each in ALL}
    assert {f"infoassign.{name}" for name in infoassign.__all__} <= shown
    functions = [name for name in infoassign_backends.__all__ if name[0].islower()]
    assert {f"infoassign_backends.{name}" for name in functions} <= shown
    things = [getattr(testing, name) for name in testing.__all__]
    modules = {thing.__name__ for thing in things if isinstance(thing, ModuleType)}
    assert modules <= {path for _, path, _ in DIRECTIVE.findall(PAGE)}
    assert {f"{thing.__module__}.{thing.__name__}" for thing in things if not isinstance(thing, ModuleType)} <= shown


@named(ALL)
def test_begins_with_a_sentence(each: Public) -> None:
    summary = each.sections[""].partition("\n\n")[0]
    assert summary or each.overrides
    assert not summary or summary.endswith((".", ":"))


@named(CALLED)
def test_explains_its_arguments(each: Public) -> None:
    assert each.arguments <= each.explained()


@named([each for each in ALL if each.is_called and not each.is_class])
def test_says_of_which_shape_the_arrays_are_that_it_returns(each: Public) -> None:
    answer = inspect.signature(each.thing).return_annotation
    if ARRAY.search(str(answer)):
        sections = each.sections
        assert SHAPE.search(sections[""] + sections.get("Returns", "") + sections.get("Yields", ""))


@named(CALLED)
def test_says_what_it_raises(each: Public) -> None:
    assert each.raised() <= set(re.findall(r"\w+", each.sections.get("Raises", "")))


@named([each for each in CALLED if not (each.is_class and issubclass(each.thing, BaseException))])
def test_has_an_example(each: Public) -> None:
    assert ">>>" in each.examples


def test_recipes_have_an_example() -> None:
    assert ">>>" in Public("", recipes, None).sections["Examples"]


@named([each for each in ALL if each.is_law])
def test_the_module_of_a_law_explains_it(each: Public) -> None:
    module = Public(each.owner.__name__, each.owner, None)
    assert ">>>" in module.sections.get("Examples", "")
    for name in each.arguments:
        assert re.search(rf"\b{name}\b", module.sections[""]), name
