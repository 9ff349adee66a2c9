"""The vote of the nearest neighbours, against brute force in float64 and scikit-learn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ranks import on_ranks
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from infoassign_training.engine import ranks
from infoassign_training.evaluation.knn import weighted_votes

RANDOM = np.random.default_rng(0)
BANK, QUERIES = RANDOM.normal(size=(90, 6)).astype(np.float32), RANDOM.normal(size=(41, 6)).astype(np.float32)
CLASSES = RANDOM.integers(0, 5, 90)


def votes(bank: Any, classes: Any, **options: Any) -> list[Tensor]:
    chosen = {"neighbours": (20,), "temperature": 0.07, "count": 5} | options
    return weighted_votes(torch.as_tensor(bank), torch.as_tensor(classes), torch.as_tensor(QUERIES), **chosen)


def brute_force(neighbours: int, temperature: float) -> np.ndarray[Any, Any]:
    """The definition, row by row, in float64."""
    bank = BANK.astype(float) / np.linalg.norm(BANK.astype(float), axis=1, keepdims=True)
    found = np.zeros((len(QUERIES), 5))
    for number, query in enumerate(QUERIES.astype(float)):
        cosines = bank @ query / np.linalg.norm(query)
        for row in np.argsort(-cosines)[:neighbours]:
            found[number, CLASSES[row]] += np.exp(cosines[row] / temperature)
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("cosines", [7, 900, 2**28])
@pytest.mark.parametrize(("neighbours", "temperature"), [(1, 0.07), (20, 0.07), (50, 0.1), (200, 0.5)])
def test_votes_are_those_of_the_definition(neighbours: int, temperature: float, cosines: int) -> None:
    found = votes(BANK, CLASSES, neighbours=(neighbours,), temperature=temperature, cosines=cosines)
    np.testing.assert_allclose(found[0], brute_force(neighbours, temperature), atol=1e-5)


def test_votes_are_scikit_learns() -> None:
    voters = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = voters.fit(BANK, CLASSES).predict_proba(QUERIES)
    np.testing.assert_allclose(votes(BANK, CLASSES)[0], expected, atol=1e-5)


def test_several_numbers_of_neighbours_are_those_alone() -> None:
    both = votes(BANK, CLASSES, neighbours=(3, 20))
    for found, number in zip(both, (3, 20), strict=True):
        torch.testing.assert_close(found, votes(BANK, CLASSES, neighbours=(number,))[0])


def test_small_temperatures_do_not_overflow() -> None:
    found = votes(BANK, CLASSES, temperature=1e-3)[0]
    assert bool(found.isfinite().all())
    np.testing.assert_allclose(found.sum(dim=1), 1)


def test_lengths_do_not_matter() -> None:
    lengths = RANDOM.uniform(0.1, 10, (90, 1)).astype(np.float32)
    torch.testing.assert_close(votes(BANK * lengths, CLASSES)[0], votes(BANK, CLASSES)[0], atol=1e-5, rtol=0)


def test_features_that_are_not_finite_are_refused() -> None:
    broken = BANK.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        votes(broken, CLASSES)


@pytest.mark.parametrize("cuts", [(0, 30, 90), (0, 0, 90), (0, 88, 90)])
def test_a_bank_in_parts_votes_as_a_whole(cuts: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks as threads, their gathering as sums; parts may be empty, or smaller than the neighbours."""
    expected = votes(BANK, CLASSES)[0]

    def work(rank: int, all_sum: Callable[[Any], Any]) -> Tensor:
        def together(rows: Tensor) -> Tensor:
            sizes = all_sum(torch.tensor([len(rows) * (other == rank) for other in range(2)]))
            padded = rows.new_zeros(int(sizes.sum()), *rows.shape[1:])
            start = 0 if rank == 0 else int(sizes[0])
            padded[start : start + len(rows)] = rows
            return torch.as_tensor(all_sum(padded))

        gather[rank] = together
        part = slice(cuts[rank], cuts[rank + 1])
        return votes_on(rank, BANK[part], CLASSES[part])

    gather: dict[int, Callable[[Tensor], Tensor]] = {}
    current: list[int] = []

    def votes_on(rank: int, bank: Any, classes: Any) -> Tensor:
        import threading

        threading.current_thread().name = f"rank-{rank}"
        current.append(rank)
        return votes(bank, classes)[0]

    def mine(rows: Tensor) -> Tensor:
        import threading

        return gather[int(threading.current_thread().name.removeprefix("rank-"))](rows)

    monkeypatch.setattr(ranks, "together", mine)
    for found in on_ranks(2, work):
        assert isinstance(found, Tensor), found
        torch.testing.assert_close(found, expected)
