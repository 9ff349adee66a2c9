"""Assignments over the ranks of a real process group."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

import infoassign as ia
from infoassign_training.engine import ranks

ROWS, COLUMNS = 203, 17


def factors(dtype: torch.dtype) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(ROWS, 8, generator=generator, dtype=torch.float64).to(dtype)
    prototypes = torch.randn(COLUMNS, 8, generator=generator, dtype=torch.float64).to(dtype)
    return features, prototypes, features @ prototypes.T


def shard(rank: int, number: int) -> slice:
    """Uneven: of three ranks one has no rows."""
    edges = {1: [0, ROWS], 2: [0, 61, ROWS], 3: [0, 61, 61, ROWS]}[number]
    return slice(edges[rank], edges[rank + 1])


def solve(scores: Any, member: dict[str, Any], all_sum: Any = None) -> dict[str, Any]:
    found = ia.assign(scores, **member, all_sum=all_sum)
    balanced = found.balanced_labels()
    return {
        "plan": torch.cat([torch.empty(0, COLUMNS, dtype=next(iter([found.potential])).dtype), *found.iter_plan()]),
        "labels": found.labels,
        "balanced": balanced.labels,
        "sweeps": found.sweeps,
        "numbers": [found.objective, found.mutual_information, balanced.optimality_loss, found.perplexity],
        "bounds": [found.error_bound, found.row_error_bound, found.verify().error_bound],
    }


MEMBERS: list[dict[str, Any]] = [{"epsilon": 0.5}, {"epsilon": 0.3, "strength": 2.0}]
DTYPES = [torch.float64, torch.float32]


def problems(dtype: torch.dtype, rows: slice) -> list[Any]:
    features, prototypes, scores = factors(dtype)
    chunks = [scores[rows][:7], scores[rows][7:]]
    return [scores[rows], ia.StreamedScores(lambda: iter(chunks)), ia.FactoredScores(features[rows], prototypes)]


def work(rank: int, number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=number)
    all_sum = ranks.all_sum()
    found = [
        solve(scores, member, all_sum)
        for dtype in DTYPES
        for member in MEMBERS
        for scores in problems(dtype, shard(rank, number))
    ]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "number", [2, pytest.param(1, marks=pytest.mark.deep), pytest.param(3, marks=pytest.mark.deep)]
)
def test_streamed_dense_and_factored_rows_on_ranks_give_the_answer_of_one(number: int, tmp_path: Path) -> None:
    multiprocessing.spawn(work, (number, str(tmp_path)), nprocs=number)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(number)]
    expected = [solve(factors(dtype)[2], member) for dtype in DTYPES for member in MEMBERS for _ in range(3)]
    for at, (one, *parts) in enumerate(zip(expected, *results, strict=True)):
        double = at < len(expected) // 2
        plan = torch.cat([part["plan"] for part in parts])
        np.testing.assert_allclose(plan, one["plan"], rtol=0, atol=1e-10 if double else 1e-5)
        labels = torch.cat([part["labels"] for part in parts])
        np.testing.assert_allclose(plan[torch.arange(ROWS), labels], plan.amax(dim=1), rtol=1e-10 if double else 1e-5)
        sizes = torch.bincount(torch.cat([part["balanced"] for part in parts]), minlength=COLUMNS)
        assert set(sizes.tolist()) <= {ROWS // COLUMNS, ROWS // COLUMNS + 1}
        for part in parts:
            assert part["sweeps"] == parts[0]["sweeps"]
            assert abs(part["sweeps"] - one["sweeps"]) <= 1
            np.testing.assert_allclose(part["numbers"], one["numbers"], rtol=1e-6, atol=1e-6)
            assert part["bounds"] == parts[0]["bounds"]
            np.testing.assert_array_less(part["bounds"], np.asarray(one["bounds"]) * 3 + (1e-5 if double else 1e-3))


def test_without_a_process_group_there_is_one_rank() -> None:
    assert ranks.all_sum() is None
