"""Ranks without processes: threads that sum arrays as a process group does."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any


def on_ranks(ranks: int, work: Callable[[int, Callable[[Any], Any]], Any], timeout: float = 20) -> list[Any]:
    """Run ``work(rank, all_sum)`` on every rank and return the results, or the errors, in order.

    Before Python 3.12 a cached property of one object is computed by one thread at a time, also for other objects: what
    sums over ranks when first asked for needs processes.
    """
    barrier, slots = Barrier(ranks, timeout=timeout), [None] * ranks

    def run(rank: int) -> Any:
        def all_sum(values: Any) -> Any:
            slots[rank] = values
            barrier.wait()
            total: Any = sum(slots)  # type: ignore[arg-type]  # fails for shapes that differ
            barrier.wait()
            return total

        try:
            return work(rank, all_sum)
        except Exception as error:  # noqa: BLE001  (returned)
            return error

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))
