"""The folders are what design and packaging rely on."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

import infoassign

ROOT = Path(__file__).parents[2]
PACKAGES = {"backends": "infoassign_backends", "training": "infoassign_training"}


@pytest.mark.parametrize("root", PACKAGES)
def test_source_roots_hold_exactly_their_one_package(root: str) -> None:
    """A second package, or an __init__.py, would make `import training` shadow users' own folders."""
    visible = {path.name for path in (ROOT / root).iterdir() if path.name != "__pycache__"}
    assert visible == {PACKAGES[root]}


@pytest.mark.parametrize("folder", ["tests", "docs", "examples"])
def test_other_folders_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("package", ["infoassign", *(f"{root}/{name}" for root, name in PACKAGES.items())])
def test_packages_are_typed_and_every_folder_is_a_package(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_layers_do_not_import_upwards() -> None:
    """infoassign_backends knows nothing of infoassign, and neither knows of training or of a framework.

    But for the one module that is loaded when gradients of torch tensors are asked for.
    """

    def imported(package: str) -> set[str]:
        files = [path for path in (ROOT / package).rglob("*.py") if path.name != "implicit.py"]
        source = "\n".join(path.read_text(encoding="utf-8") for path in files)
        return set(re.findall(r"^\s*(?:from|import) (\w+)", source, flags=re.MULTILINE))

    assert not imported("backends") & {"infoassign", "infoassign_training"}
    assert not imported("infoassign") & {"infoassign_training", "torch", "cupy", "jax"}


def test_the_core_needs_three_packages() -> None:
    core = [need for need in requires("infoassign") or [] if "extra ==" not in need]
    assert {re.split(r"[<>=]", need)[0] for need in core} == {"numpy", "scipy", "array-api-compat"}


def test_no_lock_file_is_tracked() -> None:
    assert "uv.lock" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_every_direct_dependency_is_pinned_by_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    direct = {re.split(r"[<>=\[]", need)[0] for group in groups for need in group} - {"infoassign"}
    pinned = {pin.partition("==")[0] for pin in project["tool"]["uv"]["constraint-dependencies"]}
    assert direct == pinned


def test_the_changelog_knows_this_version() -> None:
    assert f"## {infoassign.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
