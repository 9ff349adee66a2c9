"""Rows spread over ranks: every rank sweeps its own, and a sum over ranks makes the answer that of all.

Nothing here knows how ranks talk: `all_sum` takes an array, the same shape on every rank, and returns its sum over the
ranks, bit for bit the same on all. Every rank then takes the same decisions. A rank that fails between two sums says so
in the next, so that the others stop with an error instead of waiting for it.
"""

from collections.abc import Callable, Iterator
from math import inf, log
from typing import Any, TypeAlias, TypeVar
from zlib import crc32

import array_api_compat as api

from infoassign.arrays import clipped
from infoassign_backends import readable
from infoassign_backends.protocol import Array, Masses, Sweep

AllSum: TypeAlias = Callable[[Array], Array]
Found = TypeVar("Found")

POWER = 32
"""Of the norm that bounds a maximum over n ranks, by a factor of up to n ** (1 / POWER)."""


class ShardMismatchError(ValueError):
    """The ranks do not solve the same problem."""


class Ranks:
    """The ranks that rows are spread over, and what has gone wrong on this one since the last sum.

    Without `all_sum` there is one rank, and nothing to tell.
    """

    def __init__(self, all_sum: AllSum | None) -> None:
        self.all_sum = all_sum
        self._failure: Exception | None = None

    @property
    def several(self) -> bool:
        """Whether there are sums to be made."""
        return self.all_sum is not None

    def attempt(self, compute: Callable[[], Found], instead: Callable[[], Found]) -> Found:
        """Compute what only this rank can; if it fails, go on with something else until the others know."""
        if self.all_sum is None:
            return compute()
        try:
            return compute()
        except Exception as error:  # noqa: BLE001  (raised by the next sum)
            self._failure = self._failure or error
            return instead()

    def sum(self, values: Array) -> Array:
        """Sum vectors, shape (..., n), over the ranks, or stop on all if something went wrong on one."""
        if self.all_sum is None:
            return values
        xp = api.array_namespace(values)
        failed = xp.full_like(values[..., :1], float(self._failure is not None))
        total = self.all_sum(xp.concat([values, failed], axis=-1))
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if readable(total) and bool(xp.any(total[..., -1] > 0)):
            raise RuntimeError("another rank failed in this pass over the scores; its own error says why")
        return total[..., :-1]

    def bound(self, values: Array) -> Array:
        """Return a bound, a little above it, on the largest over the ranks of values (..., n) that are not negative."""
        if self.all_sum is None:
            return values
        xp = api.array_namespace(values)
        total = self.sum(values + 0.0)
        scale = xp.where((total > 0) & xp.isfinite(total), total, 1.0)
        norm = scale * self.sum((xp.where(xp.isfinite(values), values, 0.0) / scale) ** POWER) ** (1 / POWER)
        # With very many ranks the powers vanish; the sum is a bound, too.
        return xp.where((norm > 0) & xp.isfinite(total), xp.minimum(norm * (1 + 1e-6), total), total)

    def agree(self, like: Array, check: Callable[[], None], say: Callable[[], dict[str, Any]]) -> None:
        """Run a check on every rank, and compare by name what the ranks then say.

        Raises
        ------
        ShardMismatchError
            On all ranks, naming what differs; or on those whose own check went well, if another rank's did not.
        Exception
            Whatever the check raised on this rank.
        """
        if self.all_sum is None:
            check()
            return
        xp, all_sum = api.array_namespace(like), self.all_sum

        def shared(values: list[float]) -> list[float]:
            total = all_sum(xp.asarray(values, dtype=xp.float32, device=api.device(like)))
            return [float(total[i]) for i in range(len(values))]

        said: dict[str, Any] = {}

        def check_and_say() -> None:
            check()
            said.update(say())

        self.attempt(check_and_say, lambda: None)
        failure, self._failure = self._failure, None
        failures, ranks = shared([float(failure is not None), 1.0])
        if failure is not None:
            raise failure
        if failures:
            raise ShardMismatchError(f"{int(failures)} of {int(ranks)} ranks refused their part; their errors say why")
        # Twelve bits in a number, whose sums are exact in single precision.
        sums = [crc32(repr(value).encode()) for value in said.values()]
        marks = [float(part) for mark in sums for part in (mark & 0xFFF, mark >> 12 & 0xFFF)]
        differs = shared([float(total != ranks * mark) for total, mark in zip(shared(marks), marks, strict=True)])
        names = [
            f"{name} (here {value!r})"
            for (name, value), one, other in zip(said.items(), differs[::2], differs[1::2], strict=True)
            if one or other
        ]
        if names:
            raise ShardMismatchError(f"the ranks differ in {', '.join(names)}; they must solve one problem")


class ShardedSweep:
    """The rows of one rank in a sweep over all; see :class:`infoassign_backends.protocol.Sweep`.

    `usable` says which labels some row of this rank may use, shape (..., K). A pass sends K + 2 numbers: the columns'
    masses, the sum of the log-normalisers, and whether it failed.
    """

    def __init__(self, sweep: Sweep, usable: Array, epsilon: float, ranks: Ranks) -> None:
        xp = api.array_namespace(usable)
        self._sweep = sweep
        self._ranks = ranks
        self.compute_dtype: Any = sweep.compute_dtype
        self.plan_dtype: Any = sweep.plan_dtype
        self.vector_dtype: Any = sweep.vector_dtype
        counted = xp.astype(usable, sweep.vector_dtype)
        zero = 0 * counted[..., :1]
        sums = ranks.sum(xp.concat([counted, zero + sweep.rows, sweep.offset[..., None] * sweep.rows], axis=-1))
        self.usable = sums[..., :-2] > 0
        self.rows: int = round(float(xp.max(sums[..., -2])))
        if self.rows == 0:
            raise ValueError("scores must not be empty; no rank has a row")
        self.offset: Array = sums[..., -1] / self.rows
        self.span: Array = ranks.bound(sweep.span[..., None] + zero)[..., 0]
        # The sums over ranks come on top, but there are fewer ranks than rows.
        self.sum_error: float = 2 * float(xp.max(ranks.bound(zero + sweep.sum_error)))
        self.entry_error = sweep.entry_error
        limits = xp.finfo(sweep.vector_dtype)
        self._faint = float(limits.smallest_normal) / float(limits.eps)
        self._large = float(limits.max) * float(limits.eps)
        self._lift = (sweep.offset - self.offset) * (sweep.rows / epsilon)
        self._about: Array = 0 * counted
        """The last logarithms of the columns' masses: what exponentials are relative to, lest they underflow."""

    def __call__(self, potential: Array) -> Masses:
        xp = api.array_namespace(potential)
        masses = self._ranks.attempt(
            lambda: self._sweep(potential), lambda: Masses(0 * potential, 0 * potential[..., 0], self.rows)
        )
        shown = xp.exp(clipped(masses.log_columns - self._about, -inf, log(self._large) + 1))
        total = self._ranks.sum(xp.concat([shown, (masses.log_normalizers + self._lift)[..., None]], axis=-1))
        return Masses(self._logarithm(total[..., :-1], masses.log_columns), total[..., -1], self.rows)

    def _logarithm(self, total: Array, local: Array) -> Array:
        """Return the logarithm of sums of exponentials, from anew where they have left the range."""
        xp = api.array_namespace(total)
        lost = self.usable & ((total < self._faint) | (total > self._large))
        if bool(xp.any(lost)):
            found = self._log_sum(local)
        else:
            found = xp.where(self.usable, xp.log(xp.where(self.usable, total, 1.0)) + self._about, -xp.inf)
        self._about = xp.where(self.usable, found, 0.0)
        return found

    def _log_sum(self, logs: Array) -> Array:
        """Return ``log sum exp`` over the ranks of any logarithms, (..., K), at several sums.

        Divided by a large temperature they do not underflow, and tell about how large the largest is; relative to
        that a smaller temperature will do, and in the end 1.
        """
        xp = api.array_namespace(logs)
        finite = xp.isfinite(logs)
        furthest = xp.max(xp.where(finite, xp.abs(logs), 0.0), axis=-1, keepdims=True)
        temperature = max(1.0, float(xp.max(self._ranks.bound(furthest))) / 64)
        about = xp.zeros_like(logs)
        while True:
            scaled = xp.where(finite, (xp.where(finite, logs, 0.0) - about) / temperature, -xp.inf)
            total = self._ranks.sum(xp.exp(scaled))
            about = about + temperature * xp.where(self.usable, xp.log(xp.where(self.usable, total, 1.0)), 0.0)
            if temperature == 1:
                return xp.where(self.usable, about, -xp.inf)
            temperature = max(1.0, temperature / 16)

    def iter_plan(self, potential: Array) -> Iterator[Array]:
        return self._sweep.iter_plan(potential)

    def labels(self, potential: Array) -> Array:
        return self._sweep.labels(potential)

    def apply(self, potential: Array, x: Array) -> Array:
        xp = api.array_namespace(potential)
        shape = (*potential.shape[:-1], self._sweep.rows)
        return self._ranks.attempt(
            lambda: self._sweep.apply(potential, x),
            lambda: xp.zeros(shape, dtype=potential.dtype, device=api.device(potential)),
        )

    def apply_transpose(self, potential: Array, y: Array) -> Array:
        found = self._ranks.attempt(lambda: self._sweep.apply_transpose(potential, y), lambda: 0 * potential)
        return self._ranks.sum(found)

    def log_column_sums(self) -> Array:
        return self._log_sum(self._ranks.attempt(self._sweep.log_column_sums, lambda: 0 * self._about))

    def sum_rows(self, values: Array) -> Array:
        return self._ranks.sum(self._sweep.sum_rows(values)[..., None])[..., 0]

    def bound_rows(self, values: Array) -> Array:
        return self._ranks.bound(self._sweep.bound_rows(values)[..., None])[..., 0]
