"""SeLa at the size of ImageNet: scores in a file and in two factors, against the floor of one pass over them.

    uv run python tests/benchmarks/scale.py           a sixteenth of the rows (1 GB of disk while it runs)
    uv run python tests/benchmarks/scale.py --whole   1,281,167 x 3000 (17 GB of disk, as much memory to cache it)

The problem is that of problems.py: samples around 1000 centres of unequal popularity, 3000 prototypes, cosines scaled
by 10, lambda 25, equal shares to a marginal error of 1e-3. The floor is measured in the same run, with as many threads:
for the file, reading it and one exponential of each score in single precision; for the factors, their product.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from memory import Peak, anonymous

import infoassign as ia
from infoassign_backends import host

ROWS, COLUMNS, FACTORS, LAMBDA = 1_281_167, 3000, 256, 25.0
REPEATS = 5


def unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def write_problem(folder: Path, rows: int) -> tuple[Path, Path, Path]:
    """Write features, prototypes and their scores, some rows at a time."""
    random = np.random.default_rng(0)
    centres = unit(random.normal(size=(1000, FACTORS)))
    popularity = 1 / np.sqrt(np.arange(1, 1001))
    prototypes = unit(centres[random.integers(1000, size=COLUMNS)] + 0.7 * random.normal(size=(COLUMNS, FACTORS)) / 16)
    paths = folder / "features.npy", folder / "prototypes.npy", folder / "scores.npy"
    np.save(paths[1], (10 * prototypes).astype(np.float32))
    weights = np.load(paths[1]).T
    open_new = np.lib.format.open_memmap
    features = open_new(paths[0], mode="w+", dtype=np.float32, shape=(rows, FACTORS))
    scores = open_new(paths[2], mode="w+", dtype=np.float32, shape=(rows, COLUMNS))
    for start in range(0, rows, 4096):
        stop = min(start + 4096, rows)
        drawn = random.choice(1000, size=stop - start, p=popularity / popularity.sum())
        features[start:stop] = unit(centres[drawn] + random.normal(size=(stop - start, FACTORS)) / 16)
        np.matmul(features[start:stop], weights, out=scores[start:stop])
    features.flush()
    scores.flush()
    return paths


def read_and_exponentiate(scores: Any) -> None:
    """One exponential of each score, in tiles that stay in the cache, on all threads."""

    def work(piece: slice) -> None:
        tile = np.empty((max(1, 2**17 // COLUMNS), COLUMNS), np.float32)
        for start in range(piece.start, piece.stop, len(tile)):
            part = scores[start : min(start + len(tile), piece.stop)]
            np.exp(part, out=tile[: len(part)])

    host.in_threads(work, host.slices(scores.shape, 2**23))


def multiply(features: Any, weights: Any) -> None:
    """The product alone, in the tiles in which it is made."""
    step = 2**22 // COLUMNS
    product = np.empty((step, COLUMNS), np.float32)
    for start in range(0, len(features), step):
        part = features[start : start + step]
        np.matmul(part, weights, out=product[: len(part)])


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(name: str, scores: Any, floor: Callable[[], None]) -> dict[str, Any]:
    """Solve, then time single sweeps and the floor by turns."""
    before = anonymous()
    with Peak() as peak:
        start = time.perf_counter()
        assignment = ia.sinkhorn(scores, epsilon=1 / LAMBDA, tol=1e-3)
        took = time.perf_counter() - start
    sweep, potential = scores.prepare(1 / LAMBDA), assignment.potential
    sweep(potential)
    times = np.array([(seconds(lambda: sweep(potential)), seconds(floor)) for _ in range(REPEATS)])
    a_sweep, a_floor = np.median(times, axis=0)
    return {
        "scores": name,
        "sweeps": assignment.sweeps,
        "marginal error": assignment.marginal_error,
        "status": assignment.status.name,
        "seconds in all": took,
        "seconds a sweep": a_sweep,
        "seconds of the floor": a_floor,
        "sweep / floor": float(np.median(times[:, 0] / times[:, 1])),
        "anonymous memory, MB": peak.bytes / 1e6,
        "of it before, MB": before / 1e6,
    }


def by_rows(scores: Any, features: Any, prototypes: Any) -> list[dict[str, float]]:
    """Time single sweeps over more and more of the rows."""
    lines = []
    for rows in [number for number in (1_000, 10_000, 100_000, 1_000_000) if number <= len(scores)]:
        line = {"rows": float(rows)}
        for name, some in (
            ("memory-mapped", ia.StreamedScores(scores[:rows])),
            ("factored", ia.FactoredScores(features[:rows], prototypes)),
        ):
            sweep, potential = some.prepare(1 / LAMBDA), np.zeros(COLUMNS)
            sweep(potential)
            line[name] = float(np.median([seconds(lambda: sweep(potential)) for _ in range(3)]))  # noqa: B023
        lines.append(line)
    return lines


def plot(lines: list[dict[str, float]], path: Path) -> None:
    """Draw seconds a sweep against rows, both logarithmic, with a line of slope one."""
    from matplotlib import pyplot as plt

    rows = np.array([line["rows"] for line in lines])
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, marker in (("factored", "s"), ("memory-mapped", "o")):
        axes.loglog(rows, [line[name] for line in lines], marker=marker, label=name)
    axes.loglog(
        rows, lines[-1]["memory-mapped"] * rows / rows[-1], "k:", linewidth=1, label="in proportion to the rows"
    )
    axes.set(xlabel="rows", ylabel="seconds a sweep", title=f"{COLUMNS} labels, {host.threads()} CPU cores")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="all 1,281,167 rows")
    parser.add_argument("--folder", type=Path, help="where the problem is written, and looked for (default: temporary)")
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    parser.add_argument("--plot", type=Path, help="draw seconds a sweep against rows here, as PNG")
    options = parser.parse_args()
    rows = ROWS if options.whole else ROWS // 16
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / "features.npy", folder / "prototypes.npy", folder / "scores.npy"
        if not all(path.exists() for path in paths):
            write_problem(folder, rows)
        features, scores = (np.load(path, mmap_mode="r") for path in paths[::2])
        prototypes = np.load(paths[1])
        weights = np.ascontiguousarray(prototypes.T)
        results = [
            measure("memory-mapped", ia.StreamedScores(scores), lambda: read_and_exponentiate(scores)),
            measure("factored", ia.FactoredScores(features, prototypes), lambda: multiply(features, weights)),
        ]
        lines = by_rows(scores, features, prototypes)
        if options.plot:
            plot(lines, options.plot)
    machine = {"machine": platform.processor() or platform.machine(), "threads": host.threads(), "rows": rows}
    found = json.dumps({**machine, "results": results, "seconds a sweep, by rows": lines}, indent=1)
    print(found)
    if options.out:
        options.out.write_text(found)


if __name__ == "__main__":
    main()
