"""Clusters of features beside k-means: agreement with the classes, and seconds.

    uv run python tests/benchmarks/clustering.py

All 1797 digits of scikit-learn: their pixels, and the features of an encoder that `digits-mira` trained on 1347 of
them, once (in a temporary folder, or the run in --run). Balanced as they come, and with classes subsampled to shares
that fall exponentially by 10, in an order that the seed draws. One thread; for every seed the methods take turns in one
process, each with ten runs from k-means++. And 50,000 rows around 100 centres, one run each, to see how the times
grow. Writes docs/measured/clustering.json and clustering.md.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import sklearn
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from infoassign.estimator import InfoAssign
from infoassign.files import write_text
from infoassign_training import pipeline
from infoassign_training.engine import checkpoint
from infoassign_training.engine.run import Run
from infoassign_training.evaluation.suite import encoded
from infoassign_training.methods.build import build
from infoassign_training.recipes import RECIPES

MEASURED = Path(__file__).parents[2] / "docs" / "measured"
CLASSES, RATIO = 10, 10
Make = Callable[..., Any]
METHODS: dict[str, Make] = {
    "k-means": lambda shares, **options: KMeans(**options),
    "mira": lambda shares, **options: InfoAssign(**options),
    "sinkhorn": lambda shares, **options: InfoAssign(method="sinkhorn", **options),
    "mira, true shares": lambda shares, **options: InfoAssign(prior=shares, **options),
    "sinkhorn, true shares": lambda shares, **options: InfoAssign(method="sinkhorn", prior=shares, **options),
}
EQUAL = ("k-means", "mira", "sinkhorn")
"""Those that know nothing of the shares."""


def features(run: Path, images: torch.Tensor) -> np.ndarray:
    """Return the features of a run's encoder; the run is made if it is not there."""
    settings = RECIPES["digits-mira"].settings
    if not (run / "settings.json").exists():
        pipeline.pretrain("digits-mira", settings, run)
    method = build(Run(run).read().settings, images=1347, classes=CLASSES)
    state = checkpoint.load(Run(run).checkpoint)
    assert state is not None
    state.restore_method(method)
    return encoded(method.encoder, images)


def tail(classes: np.ndarray, seed: int) -> np.ndarray:
    """Return some rows in which the number of a class falls exponentially from the first to the last, by RATIO."""
    random = np.random.default_rng(seed)
    most = np.bincount(classes).min()
    kept = []
    for place, name in enumerate(random.permutation(CLASSES)):
        count = round(most * RATIO ** (-place / (CLASSES - 1)))
        kept.append(random.permutation(np.flatnonzero(classes == name))[:count])
    return np.sort(np.concatenate(kept))


def mixture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 50,000 rows in 64 dimensions around 100 centres, sqrt 2 standard deviations apart by coordinate."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 100, 50_000)
    rows = random.normal(size=(100, 64))[classes] + random.normal(size=(50_000, 64))
    return rows.astype(np.float32), classes


def measured(data: np.ndarray, classes: np.ndarray, make: Make, seed: int, runs: int = 10) -> dict[str, float]:
    """Cluster once; return the agreement with the classes and the seconds."""
    counts = np.bincount(classes)
    model = make((counts / len(classes)).tolist(), n_clusters=len(counts), n_init=runs, random_state=seed)
    began = perf_counter()
    labels = model.fit_predict(data)
    seconds = perf_counter() - began
    nmi, ari = normalized_mutual_info_score(classes, labels), adjusted_rand_score(classes, labels)
    return {"seed": seed, "nmi": float(nmi), "ari": float(ari), "seconds": seconds}


def spread(values: list[float]) -> str:
    """Return the median, and from where to where the values go."""
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(found: list[dict[str, Any]], title: str) -> str:
    """Lay out what was measured as Markdown."""
    lines = [title, "", "| features | classes | method | NMI | ARI | seconds |", "|---|---|---|---|---|---|"]
    for line in found:
        nmi, ari, seconds = ([run[name] for run in line["runs"]] for name in ("nmi", "ari", "seconds"))
        cells = [line["features"], line["classes"], line["method"], spread(nmi), spread(ari), f"{median(seconds):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="times that every method is run")
    parser.add_argument("--run", type=Path, help="folder of a run of digits-mira, made if it is not there")
    parser.add_argument("--out", type=Path, default=MEASURED, help="folder of the results")
    options = parser.parse_args()
    raw = load_digits()
    images = torch.from_numpy(raw.images).to(torch.float32).unsqueeze(1) / 16
    with TemporaryDirectory() as folder:
        learnt = features(options.run or Path(folder) / "run", images)
    lengths = np.linalg.norm(learnt, axis=1, keepdims=True)
    kinds = {"pixels": raw.data.astype(np.float32), "trained": learnt, "trained, unit length": learnt / lengths}
    found: list[dict[str, Any]] = []
    for kind, data in kinds.items():
        for balance, methods in (("balanced", EQUAL), (f"long tail, {RATIO} : 1", list(METHODS))):
            lines: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
            for seed in range(options.seeds):
                rows = np.arange(len(data)) if balance == "balanced" else tail(raw.target, seed)
                for name in methods:
                    lines[name].append(measured(data[rows], raw.target[rows], METHODS[name], seed))
            found += [
                {"features": kind, "classes": balance, "method": name, "runs": runs} for name, runs in lines.items()
            ]
    large: dict[str, list[dict[str, float]]] = {name: [] for name in EQUAL}
    for seed in range(options.seeds):
        data, classes = mixture(seed)
        for name in EQUAL:
            # What is compiled on first use is not to be in the time.
            measured(data[:2000], classes[:2000], METHODS[name], seed, runs=1)
            large[name].append(measured(data, classes, METHODS[name], seed, runs=1))
    about = {"features": "50,000 x 64 normal", "classes": "100, balanced; one run"}
    found += [about | {"method": name, "runs": runs} for name, runs in large.items()]
    versions = f"python {platform.python_version()}, NumPy {np.__version__}, scikit-learn {sklearn.__version__}"
    title = f"One thread; {versions}. Medians of {options.seeds} seeds, and the least and the largest."
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "clustering.json", json.dumps({"about": title, "lines": found}, indent=1) + "\n")
    write_text(options.out / "clustering.md", table(found, title))
    print(table(found, title))


if __name__ == "__main__":
    main()
