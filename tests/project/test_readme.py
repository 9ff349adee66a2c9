"""What the README says is so; its two commands are run as printed by .ci/run."""

import re
from pathlib import Path

import pytest

from infoassign_training.dense.presets import PRESETS
from infoassign_training.evaluation.presets import PROTOCOLS
from infoassign_training.recipes import RECIPES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_one_line_each() -> None:
    first, second, *_ = blocks("sh")
    assert re.fullmatch(r"pip install -q uv && uv run .*infoassign pretrain digits-mira --out runs/first\n", first)
    assert re.fullmatch(r"pip install -q uv && uv run pytest.*\n", second)


def test_the_command_of_full_scale_is_one_that_there_is() -> None:
    torchrun = blocks("sh")[2]
    assert torchrun.startswith("torchrun --nproc-per-node 8 -m infoassign_training pretrain ")


PAGES = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_protocols_that_are_named_exist(page: str) -> None:
    named = re.findall(r"\bevaluate ([a-z0-9-]*[a-z0-9])\b --", (ROOT / page).read_text(encoding="utf-8"))
    assert set(named) <= {*PROTOCOLS, *PRESETS}
    assert named or page not in ("README.md", "docs/evaluation.md")


@pytest.mark.parametrize("page", PAGES)
def test_recipes_that_are_named_exist(page: str) -> None:
    named = re.findall(r"(?:pretrain|recipes) ([a-z]+-[a-z0-9-]*[a-z0-9])\b", (ROOT / page).read_text(encoding="utf-8"))
    assert set(named) <= set(RECIPES)
    assert named or page not in ("README.md", "docs/pretraining.md")


def test_the_python_block_runs() -> None:
    code, *_ = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    labels = names["labels"]
    assert getattr(labels, "error_bound") <= 1e-5  # noqa: B009 - the block's names have no types here
    assert getattr(labels, "converged")  # noqa: B009


def test_the_table_beside_others_is_whole() -> None:
    rows = [line for line in README.splitlines() if line.startswith("|")]
    table = [row.split("|")[1:-1] for row in rows if row.count("|") == 8]
    assert len(table) == 15
    assert all(cell.strip() for row in table[2:] for cell in row)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_resolve(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
        assert (ROOT / target).exists(), target
