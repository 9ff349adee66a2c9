"""What the README says is so; its two commands are run as printed by .ci/run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_one_line_each() -> None:
    first, second = blocks("sh")
    assert re.fullmatch(r"pip install -q uv && uv run .*infoassign pretrain digits-mira --out runs/first\n", first)
    assert re.fullmatch(r"pip install -q uv && uv run pytest.*\n", second)


def test_the_python_block_runs() -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    labels = names["labels"]
    assert getattr(labels, "error_bound") <= 1e-5  # noqa: B009 - the block's names have no types here
    assert getattr(labels, "converged")  # noqa: B009


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_resolve(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
