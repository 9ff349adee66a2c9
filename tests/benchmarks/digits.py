"""All methods and both baselines on scikit-learn's digits, beside raw pixels.

    uv run python tests/benchmarks/digits.py

Every run is a recipe with another seed, in a process of one thread, several at a time; what is done is kept in the
JSON file, so that the script goes on where it was stopped. Writes docs/measured/digits.json and digits.md.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from infoassign.files import write_text
from infoassign_training.recipes import RECIPES

MEASURED = Path(__file__).parents[2] / "docs" / "measured"
COLUMNS = {"knn": "kNN", "linear": "linear", "kmeans_nmi": "NMI", "kmeans_ari": "ARI"}
METHODS = [name for name in RECIPES if name.startswith("digits-")]


def run(name: str, seed: int) -> dict[str, Any]:
    """Train and evaluate a recipe; return what it reached, and the seconds that training took."""
    from dataclasses import replace

    import torch

    from infoassign_training.data.digits import digits
    from infoassign_training.engine.pretrain import build, train
    from infoassign_training.engine.run import open_run
    from infoassign_training.evaluation.suite import evaluate

    torch.set_num_threads(1)
    settings = replace(RECIPES[name].settings, seed=seed)
    images, held_out = digits()
    began = time.perf_counter()
    with TemporaryDirectory() as folder, open_run(Path(folder) / "run", name, settings) as opened:
        method = train(build(settings, images), settings, images, opened)
    seconds = time.perf_counter() - began
    scores = evaluate(method.encoder, images, held_out)
    labels = method.label(images.images)
    used = None if labels is None else len(labels.labels.unique())
    return {"recipe": name, "seed": seed, "seconds": seconds, "used": used, "labels": method.labels, **scores}


def table(results: list[dict[str, Any]]) -> str:
    """Return the medians over seeds, and the least and the largest, as Markdown."""
    lines = [f"| | {' | '.join(COLUMNS.values())} | clusters used | seconds |", "|---|" + "---|" * (len(COLUMNS) + 2)]

    def cell(values: list[float]) -> str:
        whole = f"{median(values):.3f}"
        return whole if min(values) == max(values) else f"{whole} ({min(values):.3f} to {max(values):.3f})"

    for name in METHODS:
        runs = [result for result in results if result["recipe"] == name]
        if runs:
            cells = [cell([result["features"][key] for result in runs]) for key in COLUMNS]
            used = [result["used"] for result in runs if result["used"] is not None]
            cells.append(f"{median(used):.0f} of {runs[0]['labels']}" if used else "")
            cells.append(f"{median(result['seconds'] for result in runs):.0f}")
            lines.append(f"| {name.removeprefix('digits-')} | {' | '.join(cells)} |")
    if results:
        cells = [f"{results[0]['pixels'][key]:.3f}" for key in COLUMNS]
        lines.append(f"| raw pixels | {' | '.join(cells)} | | |")
    return "\n".join(lines) + "\n"


def missing(done: list[dict[str, Any]], names: list[str], seeds: int) -> Iterator[tuple[str, int]]:
    """Yield the runs that have not been made."""
    known = {(result["recipe"], result["seed"]) for result in done}
    yield from ((name, seed) for seed in range(seeds) for name in names if (name, seed) not in known)


def main() -> None:
    """Make the runs that are missing, and write what there is after every one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of every recipe")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, metavar="RECIPE", help="some recipes")
    parser.add_argument("--out", type=Path, default=MEASURED, help="folder of the results")
    options = parser.parse_args()
    path = options.out / "digits.json"
    done: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    todo = list(missing(done, options.only, options.seeds))
    with ProcessPoolExecutor(options.processes) as pool:
        waiting = [pool.submit(run, *each) for each in todo]
        for number, future in enumerate(as_completed(waiting), start=1):
            done.append(future.result())
            sys.stderr.write(f"{number} of {len(todo)}: {done[-1]['recipe']}, seed {done[-1]['seed']}\n")
            done.sort(key=lambda result: (METHODS.index(result["recipe"]), result["seed"]))
            write_text(path, json.dumps(done, indent=1) + "\n")
            write_text(options.out / "digits.md", table(done))
    sys.stdout.write(table(done))


if __name__ == "__main__":
    main()
