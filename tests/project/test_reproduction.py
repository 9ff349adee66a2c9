"""The ledger of the papers' tables and figures is complete, and what it names exists."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest
import tyro
from ledger import FOLDER, Row, papers, read

from infoassign_training.cli import Pretrain
from infoassign_training.commands.evaluate import Evaluate
from infoassign_training.data.benchmark_layouts import SETS
from infoassign_training.data.settings import named
from infoassign_training.evaluation.presets import PROTOCOLS
from infoassign_training.figures.options import FIGURES, Options
from infoassign_training.recipes import RECIPES

ROOT = Path(__file__).parents[2]
SOON = {"coco-c4", "voc07-fc6-8", "voc07-all", "voc07-alexnet", "voc12-fcn", "coco", "voc2012", "course"}
"""Protocols, data sets and figures that are about to be merged; to be removed then."""
COUNTS = {
    "mira": {"Figure": 2, "Table": 8},
    "mira-draft": {"Figure": 2, "Table": 8},
    "sela": {"Figure": 8, "Table": 13, "Section": 1},
    "music": {"Figure": 4, "Table": 11},
    "imsvd": {"Figure": 5, "Table": 9, "Section": 1, "Released": 1},
}
"""Tables and figures of the papers, counted by reading them; the rest is from their texts."""
ONLY_HERE = {("sela", "Table 5"), ("sela", "Table A.1")}
"""Rows with numbers that the recipes have not: those of the labels' source, and of clusters."""
COMMANDS = [
    pytest.param(row.recipes, command, id=f"{paper}, {row.item}: {command}")
    for paper in papers()
    for row in read(paper)
    for command in row.commands
]


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+\.\d+", text))


@cache
def parses(*words: str) -> None:
    """Assert that a command of ``infoassign`` names what there is, by options that there are."""
    match words:
        case ["pretrain", name, *options]:
            data = options[options.index("--data") + 1]
            settings = RECIPES[name].settings
            if data != "DATA":
                named(data, settings.data)
            tyro.cli(Pretrain, default=Pretrain(out=tyro.MISSING, settings=settings), args=options)
        case ["evaluate", name, *options]:
            where = options[options.index("--data") + 1 :]
            kinds = {place.partition(":")[0] for place in where} - {"DATA", "/data"}
            assert kinds <= SETS.keys() | SOON
            if name not in SOON:
                start = Evaluate(checkpoint=tyro.MISSING, data=tyro.MISSING, protocol=PROTOCOLS[name].settings)
                tyro.cli(Evaluate, default=start, args=options)
        case ["figures", *rest]:
            names = list(takewhile(lambda word: not word.startswith("--"), rest))
            assert set(names) <= FIGURES.keys() | SOON
            tyro.cli(Options, args=rest[len(names) :])
        case ["throughput", name]:
            assert name in RECIPES
        case _:
            pytest.fail(f"{words} is not known")


@pytest.mark.parametrize("paper", COUNTS)
def test_every_table_and_figure_has_one_row(paper: str) -> None:
    items = [row.item for row in read(paper)]
    assert len(items) == len(set(items))
    assert Counter(item.split()[0] for item in items) == COUNTS[paper]


def test_every_paper_is_read() -> None:
    assert papers() == sorted(COUNTS)
    page = (FOLDER.parent / "reproduction.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\{reproduction\} (\S+)", page)) == papers()


@pytest.mark.parametrize(("recipes", "command"), COMMANDS)
def test_commands_name_what_there_is(recipes: Mapping[str, str], command: str) -> None:
    for recipe in recipes or [""]:
        match shlex.split(command.replace("NAME", recipe)):
            case ["infoassign", *words]:
                parses(*words)
            case ["python", script, *_] | ["uv", "run", "python", script, *_]:
                assert (ROOT / script).is_file()
            case _:
                pytest.fail(f"{command} is no command of ours")


def test_every_published_recipe_has_a_row() -> None:
    listed = {recipe for paper in papers() for row in read(paper) for recipe in row.recipes}
    assert {recipe.name for recipe in RECIPES.values() if recipe.published} <= listed <= RECIPES.keys()


def test_every_protocol_of_the_papers_and_every_figure_has_a_row() -> None:
    words = {word for paper in papers() for row in read(paper) for command in row.commands for word in command.split()}
    assert {name for name, protocol in PROTOCOLS.items() if protocol.published} <= words
    assert FIGURES.keys() <= words


def test_numbers_are_those_of_the_recipes() -> None:
    """Numbers are copied twice, here and in the recipes, each time from the paper."""
    listed: dict[str, set[str]] = {name: set() for name in RECIPES}
    for paper in COUNTS.keys() - {"mira-draft"}:
        for row in read(paper):
            for recipe, value in row.recipes.items():
                listed[recipe] |= numbers(value)
                if "evaluate" in "".join(row.commands) and (paper, row.item) not in ONLY_HERE:
                    assert numbers(value) <= numbers(RECIPES[recipe].published), (row.item, recipe)
    for name, known in RECIPES.items():
        places = r"\((sec|[^)]*table)[^)]*\)"
        assert numbers(re.sub(places, "", known.published)) <= listed[name], name


def test_a_row_says_what_can_be_done() -> None:
    with pytest.raises(ValueError, match="say why"):
        Row(item="Table 1", shows="x")
    with pytest.raises(ValueError, match="neither recipes"):
        Row(item="Table 1", shows="x", instead="a drawing", ours="run, 75")
    with pytest.raises(ValueError, match="ours begins"):
        Row(item="Table 1", shows="x", needs="x", commands=("infoassign recipes",), ours="75")
    with pytest.raises(ValueError, match="what it needs"):
        Row(item="Table 1", shows="x", commands=("infoassign recipes",))
