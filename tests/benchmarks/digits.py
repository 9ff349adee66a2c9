"""All methods and both baselines on scikit-learn's digits, beside raw pixels, and studies of the papers' in small.

    uv run python tests/benchmarks/digits.py

Every run is a recipe with some settings changed and a seed, in one thread, several at a time; what is done is kept in
the JSON file, so that the script goes on where it was stopped. Writes docs/measured/digits.json, and the tables
digits.md and digits-STUDY.md beside it. What is run is in digit_studies.py.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from digit_studies import STUDIES, Changes, Row, Study

from infoassign.files import write_text
from infoassign_training.config import Pretraining
from infoassign_training.recipes import RECIPES

MEASURED = Path(__file__).parents[2] / "docs" / "measured"
SCORES = {"knn": "kNN", "linear": "linear", "kmeans_nmi": "NMI", "kmeans_ari": "ARI"}
Result = dict[str, Any]


def changed(recipe: str, changes: Changes, seed: int) -> Pretraining:
    """Return a recipe's settings with some others, by their names on the command line."""
    tree = RECIPES[recipe].settings.to_dict() | {"seed": seed}
    for name, value in changes.items():
        *sections, last = name.replace("-", "_").split(".")
        section = tree
        for part in sections:
            section = section[part]
        section[last] = value
    return Pretraining.from_dict(tree)


def run(recipe: str, changes: Changes, images_kept: str, seed: int) -> Result:
    """Train and evaluate; return what came out, and the seconds that training took."""
    import torch

    from infoassign_training.data.digits import LabelledImages, digit_images, digits
    from infoassign_training.data.subsets import imbalanced
    from infoassign_training.engine.feed import DigitFeed
    from infoassign_training.engine.pretrain import TrainingError, train
    from infoassign_training.engine.ranks import Place
    from infoassign_training.engine.run import open_run
    from infoassign_training.evaluation.suite import extract, score
    from infoassign_training.methods.build import build

    torch.set_num_threads(1)
    settings = changed(recipe, changes, seed)
    balanced, held_out = digits()
    images = balanced
    if images_kept != "full":
        rows = imbalanced(digit_images(balanced), images_kept, seed=seed, halved="5").rows  # type: ignore[arg-type]
        images = LabelledImages(balanced.images[rows], balanced.classes[rows])
    method = build(settings, images=len(images.images), classes=10)
    feed = DigitFeed(images, settings, Place(), torch.device("cpu"))
    result = {"recipe": recipe, "changes": dict(changes), "images": images_kept, "seed": seed}
    began = time.perf_counter()
    try:
        with TemporaryDirectory() as folder, open_run(Path(folder) / "run", recipe, settings) as opened:
            train(method, settings, feed, opened, Place())
    except TrainingError as error:
        return result | {"failed": str(error)}
    seconds = time.perf_counter() - began
    scores = score(extract(method.encoder, balanced, held_out))
    labels = method.label(images.images)
    used = None if labels is None else len(labels.labels.unique())
    return result | {"seconds": seconds, "used": used, "labels": method.labels, "scores": scores}


def pixels() -> dict[str, float]:
    """Score the raw pixels."""
    from infoassign_training.data.digits import digits
    from infoassign_training.evaluation.suite import extract, score

    return score(extract(lambda images: images.flatten(1), *digits()))


def key(result: Result) -> str:
    """Return what tells runs apart."""
    return json.dumps([result[name] for name in ("recipe", "changes", "images", "seed")], sort_keys=True)


def missing(done: list[Result], rows: list[Row], seeds: int, epochs: int | None) -> Iterator[Result]:
    """Yield the runs that have not been made, once each, those of the first seed first."""
    known = {key(result) for result in done}
    for seed in range(seeds):
        for row in rows:
            wanted = of(row, seed, epochs)
            if key(wanted) not in known:
                known.add(key(wanted))
                yield wanted


def of(row: Row, seed: int, epochs: int | None) -> Result:
    """Return what identifies a run of a row."""
    shorter = {"epochs": epochs} if epochs is not None and row.recipe != "digits-random" else {}
    return {"recipe": row.recipe, "changes": dict(row.changes) | shorter, "images": row.images, "seed": seed}


def table(study: Study, done: list[Result], raw: dict[str, float], seeds: int, epochs: int | None) -> str:
    """Return the medians over seeds, and the least and the largest, as Markdown, of the rows that have been run."""
    known = {key(result): result for result in done}
    head = ["", *([study.published] if study.published else []), *SCORES.values(), "clusters used"]
    head += ["seconds"] if study.timed else []
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in study.rows:
        runs = [known[one] for seed in range(seeds) if (one := key(of(row, seed, epochs))) in known]
        if not runs:
            continue
        ended = [found for found in runs if "scores" in found]
        name = row.name + (f" ({len(ended)} of {seeds} runs)" if len(ended) < seeds else "")
        cells = [name, *([row.published] if study.published else [])]
        cells += [spread([found["scores"][score] for found in ended]) for score in SCORES]
        used = [found["used"] for found in ended if found["used"] is not None]
        cells.append(f"{median(used):.0f} of {ended[0]['labels']}" if used else "")
        cells += [f"{median(found['seconds'] for found in ended):.0f}" if ended else ""] if study.timed else []
        lines.append(f"| {' | '.join(cells)} |")
    cells = ["raw pixels", *([""] if study.published else []), *(f"{raw[score]:.3f}" for score in SCORES), ""]
    cells += [""] if study.timed else []
    lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    """Return the median, and from where to where the values go."""
    if not values:
        return ""
    least, most = f"{min(values):.3f}", f"{max(values):.3f}"
    return f"{median(values):.3f}" + (f" ({least} to {most})" if least != most else "")


def main() -> None:
    """Make the runs that are missing, and write what there is after every one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of every row")
    parser.add_argument("--epochs", type=int, help="instead of the recipes', to try the script")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument(
        "--only", nargs="+", choices=STUDIES, default=list(STUDIES), metavar="STUDY", help="some tables"
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="runs of some rows of these")
    parser.add_argument("--out", type=Path, default=MEASURED, help="folder of the results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "digits.json"
    kept = json.loads(path.read_text()) if path.exists() else {"pixels": pixels(), "runs": []}
    done = kept["runs"]
    studies = {name: STUDIES[name] for name in options.only}

    def write() -> None:
        done.sort(key=key)
        write_text(path, json.dumps(kept, indent=1) + "\n")
        for name, study in studies.items():
            file = "digits.md" if name == "methods" else f"digits-{name}.md"
            write_text(options.out / file, table(study, done, kept["pixels"], options.seeds, options.epochs))

    rows = [row for study in studies.values() for row in study.rows if not options.rows or row.name in options.rows]
    todo = list(missing(done, rows, options.seeds, options.epochs))
    write()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(run, each["recipe"], each["changes"], each["images"], each["seed"]) for each in todo]
        for number, future in enumerate(as_completed(waiting), start=1):
            done.append(future.result())
            took = done[-1].get("seconds", done[-1].get("failed"))
            sys.stderr.write(f"{number} of {len(todo)}: {key(done[-1])}, {took}\n")
            write()


if __name__ == "__main__":
    main()
