"""The wheel, in a fresh environment outside the checkout, beside a user's own folders of the same names."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

ROOT = Path(__file__).parents[2]


def output_of(*command: str | Path, cwd: Path, expected: int = 0) -> str:
    """Run a command in a folder, without this environment's variables, and return all that it printed."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "UV_", "OMP_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    finished = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == expected, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    output_of(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target, cwd=ROOT)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the scripts of an environment that holds the wheel and what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    output_of(find_uv_bin(), "venv", "--python", sys.executable, "venv", cwd=folder)
    output_of(find_uv_bin(), "pip", "install", "--python", "venv", wheel, cwd=folder)
    return folder / "venv" / "bin"


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A project with training/ and backends/ of its own."""
    for name in ("training", "backends"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"OWNER = 'the user of {name}'\n")
    return tmp_path


def test_the_wheel_holds_the_three_packages_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "infoassign",
        "infoassign_backends",
        "infoassign_training",
    }
    kernels = "infoassign_backends/cupy_sweep.cu"
    for needed in ("infoassign/py.typed", kernels, "infoassign_training/figures/report.html.j2"):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_all_three_packages_import_beside_the_users_own(environment: Path, users_folder: Path) -> None:
    script = (
        "import infoassign, infoassign_backends, infoassign_training, training, backends, numpy\n"
        "print(training.OWNER, '+', backends.OWNER)\n"
        "print(infoassign.mira(numpy.zeros((3, 2))).status)\n"
        "print(infoassign.__file__)"
    )
    owner, status, file = output_of(environment / "python", "-c", script, cwd=users_folder).splitlines()
    assert owner == "the user of training + the user of backends"
    assert status == "Status.CONVERGED"
    assert str(environment.parent) in file


def test_without_the_extra_the_command_says_in_one_line_what_to_install(environment: Path, users_folder: Path) -> None:
    printed = output_of(environment / "infoassign", "recipes", cwd=users_folder, expected=1)
    assert printed.startswith("infoassign: the command line needs torch, ")
    assert printed.endswith("install it with: pip install 'infoassign[training]'\n")
    assert printed.count("\n") == 1
