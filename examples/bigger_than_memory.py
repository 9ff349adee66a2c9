"""Label rows in a file that is never read as a whole, from features and prototypes, and over two ranks.

Run it with ``python examples/bigger_than_memory.py``; it needs no framework.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import Any

import numpy as np

import infoassign as ia

random = np.random.default_rng(0)
features = random.normal(size=(20_000, 32)).astype(np.float32)
prototypes = random.normal(size=(50, 32)).astype(np.float32)

with TemporaryDirectory() as folder:
    path = Path(folder) / "scores.npy"
    np.save(path, features @ prototypes.T)
    in_a_file = ia.StreamedScores(np.load(path, mmap_mode="r"), chunk_rows=4096)
    assignment = ia.sinkhorn(in_a_file, epsilon=1.0)
    print("from a file:   ", assignment)
    assignment.write_plan(Path(folder) / "plan.npy")
    print("plan on disk:  ", np.load(Path(folder) / "plan.npy", mmap_mode="r").shape)
    sizes = np.bincount(assignment.balanced_labels().labels)
    print("hard labels:   ", f"{sizes.min()} to {sizes.max()} rows each")

print("from factors:  ", ia.sinkhorn(ia.FactoredScores(features, prototypes), epsilon=1.0))

# Two threads play two ranks here; docs/scale.md has all_sum for torch.distributed and for MPI.
meeting, shares = Barrier(2), {}


def solve(rank: int) -> ia.Assignment:
    """Solve for the rows of one rank."""

    def all_sum(values: Any) -> Any:
        shares[rank] = values
        meeting.wait()
        total = shares[0] + shares[1]
        meeting.wait()
        return total

    mine = features[:5000] if rank == 0 else features[5000:]
    return ia.sinkhorn(ia.FactoredScores(mine, prototypes), epsilon=1.0, all_sum=all_sum)


with ThreadPoolExecutor(2) as ranks:
    for number, assignment in enumerate(ranks.map(solve, range(2))):
        print(f"rank {number}:        ", assignment)
