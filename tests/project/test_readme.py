"""What the README says is so; its two commands are run as printed by .ci/run."""

import re
from pathlib import Path

import numpy as np
import pytest

import infoassign as ia
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


def test_the_commands_of_full_scale_are_those_that_there_are() -> None:
    *_, torchrun, slurm, _ = blocks("sh")
    assert slurm == (ROOT / "examples" / "pretrain.slurm").read_text(encoding="utf-8")
    assert torchrun.startswith("torchrun --nproc-per-node 8 -m infoassign_training pretrain ")


PAGES = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_protocols_that_are_named_exist(page: str) -> None:
    named = re.findall(r"\bevaluate ([a-z0-9-]*[a-z0-9])\b --", (ROOT / page).read_text(encoding="utf-8"))
    assert set(named) <= set(PROTOCOLS)
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


def test_the_block_about_scores_that_do_not_fit_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    features, prototypes = random.normal(size=(100, 8)), random.normal(size=(5, 8))
    np.save("scores.npy", features @ prototypes.T)
    names = {"np": np, "ia": ia, "features": features, "prototypes": prototypes, "my_rows": features}
    exec(blocks("python")[1], {**names, "all_sum": lambda values: values})
    assert np.load("plan.npy").shape == (100, 5)


def test_the_block_about_losses_runs() -> None:
    z1, z2 = np.random.default_rng(0).normal(size=(2, 12, 240))
    names: dict[str, object] = {"ia": ia, "z1": z1, "z2": z2}
    exec(blocks("python")[2], names)
    assert names["loss"] == pytest.approx(names["value"])


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_resolve(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
        assert (ROOT / target).exists(), target
