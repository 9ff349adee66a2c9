"""Every example runs, from another folder and without a warning, and prints what it is there to show."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from math import log
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from printed import named, numbers, words

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


def balance_labels(text: str) -> None:
    greedy, equal, known = (named(text, name) for name in ("greedy", "equal shares", "known shares"))
    assert equal[2:] == [225] * 8
    assert known[2:] == [50 * part for part in range(8, 0, -1)]
    assert equal[1] < greedy[1] - 3 < known[1] - 6  # per cent that are right
    assert greedy[0] > known[0] > equal[0]  # the greedy mean is the largest there is


def bigger_than_memory(text: str) -> None:
    for line in text.splitlines()[0], *text.splitlines()[3:]:
        assert "CONVERGED" in line
        assert numbers(line)[-1] <= 1e-5  # the marginal error
    assert named(text, "hard labels:") == [400, 400]


def label_a_batch(text: str) -> None:
    beta, information, _, _, error = np.array([numbers(line) for line in text.splitlines()[1:5]]).T
    assert list(beta) == [0, 0.5, 0.67, 0.9]
    assert np.all(np.diff(information) > 0.5)
    assert information[-1] < log(32)
    assert np.all(error <= 1e-5)


def label_embeddings(text: str) -> None:
    assert "  status               converged" in text
    assert named(text, "  shares off by")[0] <= 1e-5
    balanced, rival = named(text, "  balanced"), named(text, "  k-means")
    assert balanced[2:] == [179, 180]
    assert min(balanced[0], rival[0]) > 0.7  # NMI
    assert balanced[1] > rival[1] > 0.6  # ARI
    clusters = np.array([numbers(line) for line in text.splitlines()[-10:]])
    assert clusters[:, 1].sum() == 1797
    assert np.mean(clusters[:, 3]) > 75


def learn_an_orthogonal_array(text: str) -> None:
    least, bound, found, starts = numbers(text.splitlines()[0])
    assert least == pytest.approx(bound, abs=1e-3)
    assert 0 < found < starts
    assert named(text, "pairs of symbols that any two columns show, of 9:") == [9] * 6
    assert named(text, "total correlation of 2 segments:") == pytest.approx([0, 3], abs=1e-3)  # 0 log 3
    assert named(text, "total correlation of 3 segments:") == pytest.approx([1, 3], abs=1e-3)


def mira_and_swav_on_a_long_tail(text: str) -> None:
    nearest, mira, three, converged, true = (
        np.array(named(text, name))
        for name in ("nearest prototype", "MIRA", "SwAV, three steps", "SwAV, converged", "the true shares")
    )
    of_equal, of_tail, of_largest, of_smallest = range(4)
    assert np.ptp([labels[of_equal] for labels in (nearest, mira, three, converged, true)]) < 2
    assert true[of_tail] > nearest[of_tail] > mira[of_tail] > three[of_tail] > converged[of_tail] + 10
    assert converged[of_largest] < 50
    assert mira[of_smallest] > nearest[of_smallest] > true[of_smallest]


def own_backend(text: str) -> None:
    broken, built_in, own = text.splitlines()
    assert broken == "No law is broken."
    assert "status=CONVERGED" in built_in
    assert "status=CONVERGED" in own
    assert numbers(own)[1] < numbers(built_in)[1] / 3  # memory


def own_method(text: str) -> None:
    pixels, untrained, trained = (named(text, name) for name in ("raw pixels", "untrained", "trained"))
    assert trained[0] > untrained[0] + 0.05  # kNN
    assert trained[1] > pixels[1]  # linear
    assert trained[2] > max(pixels[2], untrained[2]) + 0.05  # NMI


def own_training_step(text: str) -> None:
    steps, loss, information = np.array([numbers(line) for line in text.splitlines()]).T
    assert list(steps) == [0, 20, 40, 60, 80, 100]
    assert loss[-1] < loss[0] / 2
    assert information[-1] == pytest.approx(log(8), abs=0.1)  # of the eight clusters


def several_libraries(text: str) -> None:
    lines = text.splitlines()[1:]
    installed = {"NumPy": "numpy", "torch": "torch", "JAX": "jax", "strict": "array_api_strict"}
    assert {line.split()[0] for line in lines} >= {name for name, module in installed.items() if find_spec(module)}
    for line in lines:
        _, bound, off, information = numbers(line)
        assert bound <= 1e-5
        # On the host all compute in float64, the same way; of others there is what the certificates say.
        assert off <= (1e-12 if line.split("  ")[0] in installed else 2 * bound)
        assert information == numbers(lines[0])[-1]


CHECKS: dict[str, Callable[[str], None]] = {
    check.__name__: check
    for check in (
        balance_labels,
        bigger_than_memory,
        label_a_batch,
        label_embeddings,
        learn_an_orthogonal_array,
        mira_and_swav_on_a_long_tail,
        own_backend,
        own_method,
        own_training_step,
        several_libraries,
    )
}


def run(example: Path, folder: Path, *arguments: str) -> str:
    """Return what an example prints."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(example), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs_and_shows_what_it_is_for(example: Path, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    picture = tmp_path / "picture.png"
    printed = run(example, elsewhere, *([str(picture)] if "[picture.png]" in example.read_text("utf-8") else []))
    CHECKS[example.stem](printed)
    assert list(elsewhere.iterdir()) == []
    (shown,) = re.findall(rf"^### `{example.name}`$.*?^```text\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert set(words(shown)) <= set(words(printed))
    if picture.exists():
        assert imread(picture).shape == imread(ROOT / "docs" / "images" / "long-tail.png").shape


def test_every_example_is_checked() -> None:
    assert {path.stem for path in EXAMPLES} == set(CHECKS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_says_how_to_run_it_and_is_short(example: Path) -> None:
    source = example.read_text(encoding="utf-8")
    assert f"python examples/{example.name}" in source.split('"""')[1]
    assert len([line for line in source.splitlines() if line.strip()]) <= 60
