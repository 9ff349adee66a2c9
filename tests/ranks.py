"""Ranks without processes: threads that sum arrays as a process group does."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any


def on_ranks(ranks: int, work: Callable[[int, Callable[[Any], Any]], Any], timeout: float = 60) -> list[Any]:
    """Run ``work(rank, all_sum)`` on every rank and return the results, or the exceptions, in order."""
    barrier, slots = Barrier(ranks, timeout=timeout), [None] * ranks

    def run(rank: int) -> Any:
        def all_sum(values: Any) -> Any:
            slots[rank] = values
            barrier.wait()
            shapes = {tuple(value.shape) for value in slots}  # type: ignore[attr-defined]
            assert len(shapes) == 1, f"the ranks sum arrays of different shapes, {shapes}"
            total = slots[0] + 0.0  # type: ignore[operator]
            for value in slots[1:]:
                total = total + value
            barrier.wait()
            return total

        try:
            return work(rank, all_sum)
        except Exception as error:
            barrier_free = not isinstance(error, AssertionError)
            if not barrier_free:
                barrier.abort()
            return error

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))
