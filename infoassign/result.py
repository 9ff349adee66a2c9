"""What a solve returns: an assignment that knows how right it is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from os import PathLike
from typing import Any, NamedTuple

import array_api_compat as api
import numpy as np

from infoassign.arrays import host_dtype, integer, on_host, scalar_or_array
from infoassign.auction import BalancedLabels, balanced_labels
from infoassign.files import write_npy
from infoassign.information import entropy
from infoassign.markets import ShardedMarket, market_of
from infoassign.objective import Certificate, Family, Point, certify_penalised, examine, marginal_error, marginal_floor
from infoassign.rounding import certify_exact, exact_marginal, newton_correction
from infoassign.scores import DenseScores, NoRows, Scores
from infoassign.sharding import Ranks, ShardedSweep
from infoassign.validation import check_companion, check_scores
from infoassign_backends import backend_for
from infoassign_backends.protocol import Array, Sweep


class Status(Enum):
    """Why a solve stopped. `advice` says in a sentence what that means and what to do.

    Examples
    --------
    >>> Status.STALLED.advice
    'Rounding keeps the certified error above tol; pass the scores in float64, or raise tol.'
    """

    CONVERGED = "converged"
    MAX_SWEEPS = "max_sweeps"
    STALLED = "stalled"
    INFEASIBLE = "infeasible"

    @property
    def advice(self) -> str:
        """One sentence for the user."""
        return _ADVICE[self]

    @property
    def code(self) -> int:
        """A number from 1 on, for arrays of statuses; 0 is none yet."""
        return list(Status).index(self) + 1


_ADVICE = {
    Status.CONVERGED: "The certified error is within tol.",
    Status.MAX_SWEEPS: "All sweeps were used before the certified error came within tol; raise max_sweeps, or tol.",
    Status.STALLED: "Rounding keeps the certified error above tol; pass the scores in float64, or raise tol.",
    Status.INFEASIBLE: "No plan on the allowed pairs has the prior as its marginal; allow more pairs, change the prior,"
    " or give a finite strength.",
}

NO_PLAN = (
    "the plan of scores that are not in memory is not made as a whole; use iter_plan() for its rows in pieces,"
    " write_plan(path) for a file, or labels"
)


class Solution(NamedTuple):
    """Where the solver stopped and what the sweep said there."""

    point: Point
    sweeps: Array
    """Shape (...,), integer."""
    status: Array
    """Codes of :class:`Status`, shape (...,), integer."""


class Verification(NamedTuple):
    """A certificate computed anew in float64, about the plan as it is shown; see :meth:`Assignment.verify`.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> assignment = ia.mira(np.array([[1.0, 0.0], [0.0, 3.0]]))
    >>> proof = assignment.verify()
    >>> bool(proof.error_bound <= assignment.error_bound)
    True
    """

    gap: Any
    """Of the plan at the potential, as :attr:`Assignment.gap`."""
    error_bound: Any
    """As :attr:`Assignment.error_bound`, with the rounding of the plan measured instead of bounded."""
    row_error_bound: Any
    """As :attr:`Assignment.row_error_bound`, likewise."""
    marginal_error: Any
    """Of the plan, measured."""


@dataclass(frozen=True, eq=False, repr=False)
class Assignment:
    """Soft labels for a batch of scores, and the proof of how close to optimal they are.

    Made by :func:`infoassign.assign`, :func:`infoassign.mira` and :func:`infoassign.sinkhorn`. The plan, the labels
    and what is derived from them are computed when first asked for and kept. Energies (`gap`, `objective`,
    `potential`) are in units of scores / temperature. For scores with leading axes, what is a number for one problem
    is an array over the problems.

    It keeps the scores, not a copy of them: do not write into them while it is in use. With rows spread over ranks,
    plan and labels are those of this rank's rows and everything else is about all; `balanced_labels`, `balanced_plan`,
    `verify`, `mutual_information` and the bounds of an exact marginal are then to be asked for on all ranks alike.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> assignment = ia.mira(np.array([[1.0, 0.0], [0.0, 3.0]]))
    >>> assignment
    Assignment(shape=(2, 2), status=CONVERGED, sweeps=4, error_bound=1.1e-06)
    """

    _scores: Scores = field(repr=False)
    _sweep: Sweep = field(repr=False)
    _family: Family = field(repr=False)
    _solution: Solution = field(repr=False)
    _unit: float
    """The temperature: energies of the solution are in units of raw scores, those shown in scores / temperature."""
    _ranks: Ranks = field(repr=False)

    @property
    def rows(self) -> int:
        """The number of rows B, on all ranks."""
        return self._sweep.rows

    @cached_property
    def _computed_plan(self) -> Array:
        """The plan in the dtype of the computation, which half precision would blur."""
        if not isinstance(self._scores, DenseScores | NoRows):
            raise AttributeError(NO_PLAN)
        pieces = list(self._sweep.iter_plan(self._solution.point.potential))
        return pieces[0] if pieces else self._scores.like

    @cached_property
    def plan(self) -> Array:
        """Soft labels, shape (..., B, K), rows in the simplex; library, device and dtype of the scores.

        Not for scores bigger than memory: use :meth:`iter_plan` or :meth:`write_plan`.
        """
        return self._shown(self._computed_plan)

    def _shown(self, plan: Array) -> Array:
        return api.array_namespace(plan).astype(plan, self._scores.like.dtype, copy=False)

    def _pieces(self) -> Iterator[Array]:
        """Yield the plan as it was computed, made only once where it fits."""
        if isinstance(self._scores, DenseScores):
            yield self._computed_plan
        else:
            yield from self._sweep.iter_plan(self._solution.point.potential)

    def iter_plan(self) -> Iterator[Array]:
        """Yield the plan, rows in order, in pieces of shape (..., b, K); for an array it is one piece.

        Examples
        --------
        >>> import numpy as np
        >>> import infoassign as ia
        >>> scores = ia.StreamedScores(np.eye(4), chunk_rows=3)
        >>> [piece.shape for piece in ia.sinkhorn(scores).iter_plan()]
        [(3, 4), (1, 4)]
        """
        for piece in self._pieces():
            yield self._shown(piece)

    def write_plan(self, path: str | PathLike[str]) -> None:
        """Write the plan to a file as a NumPy array (``.npy``), which ``numpy.load(path, mmap_mode="r")`` reads.

        The file is there whole or not at all: until it is complete, `path` keeps what it held. In the dtype of the
        scores (bfloat16, which NumPy does not have, as float32). With rows spread over ranks every rank writes its
        own: give each a path.

        Parameters
        ----------
        path
            The file; its folder must exist.

        Raises
        ------
        ValueError
            For a batch of problems.
        OSError
            If the file cannot be written or the disk is full.

        Examples
        --------
        >>> from tempfile import mkdtemp
        >>> import numpy as np
        >>> import infoassign as ia
        >>> path = mkdtemp() + "/plan.npy"
        >>> ia.sinkhorn(ia.StreamedScores(np.eye(4), chunk_rows=3)).write_plan(path)
        >>> np.load(path, mmap_mode="r").shape
        (4, 4)
        """
        like = self._scores.like
        if like.ndim != 2:
            raise ValueError(f"write_plan is for a single problem; got a batch {tuple(like.shape[:-2])}")
        dtype = host_dtype(like)
        parts = (on_host(piece, dtype) for piece in self.iter_plan())
        write_npy(path, parts, (self._scores.rows, like.shape[-1]), dtype)

    @cached_property
    def labels(self) -> Array:
        """The likeliest label of every row, shape (..., B), integer."""
        return self._sweep.labels(self._solution.point.potential)

    @property
    def marginal(self) -> Array:
        """Share of every label, ``mean_i w_ij``, shape (..., K), summing to one."""
        return self._solution.point.marginal

    @property
    def potential(self) -> Array:
        """``v``, shape (..., K): ``w_ij ∝ exp((s_ij - v_j) / epsilon)``, in units of scores / temperature.

        Its free constant is fixed by ``sum_j r_j exp(v_j / rho) = 1``, for an exact marginal by ``sum_j r_j v_j = 0``.
        ``+inf``, a price nobody pays, for a label that no row may use. At strength 0 (beta = 0) it is 0.
        """
        point = self._solution.point
        return api.array_namespace(point.potential).where(point.usable, point.potential / self._unit, float("inf"))

    @cached_property
    def _certificate(self) -> Certificate:
        if self._family.exact:
            return certify_exact(self._sweep, self._family, self._solution.point)
        return certify_penalised(self._family, self._solution.point)

    @property
    def gap(self) -> Any:
        """Bound on the suboptimality: primal minus dual objective (theory, A4).

        For an exact marginal the primal is that of a plan nearby which has the marginal (theory, A5); passes over the
        scores are made for it when this or an error bound is first asked for.
        """
        return scalar_or_array(self._certificate.gap / self._unit)

    @property
    def error_bound(self) -> Any:
        """Bound on the mean over rows of the total variation to the optimal plan (theory, A5).

        It includes what rounding in the dtype of the computation can add. Half precision is computed in float32, and
        the bound is about that plan: showing it in half precision then rounds every entry once more.
        """
        return scalar_or_array(self._certificate.error_bound)

    @property
    def row_error_bound(self) -> Any:
        """Bound on the total variation to the optimal plan in the worst row (theory, A5)."""
        return scalar_or_array(self._certificate.row_error_bound)

    @property
    def marginal_error(self) -> Any:
        """L1 distance of the marginal from the prior; if that is to be 0, rounding included, and what `tol` bounds."""
        family, point = self._family, self._solution.point
        error = marginal_error(family, point)
        return scalar_or_array(error + marginal_floor(point) if family.exact else error)

    @property
    def objective(self) -> Any:
        """The primal objective of the plan; MIRA's eq. 4 is this minus ``beta log K``.

        For an exact marginal, where the plan may miss the prior a little, it is the linear and the entropic term.
        """
        return scalar_or_array(self._objective / self._unit)

    @property
    def _objective(self) -> Array:
        """The same, an array of shape (...,) in units of the raw scores."""
        family, point = self._family, self._solution.point
        xp = api.array_namespace(point.dual)
        value = family.epsilon * point.dual - self._sweep.offset
        if family.exact:
            missing = family.prior - point.marginal
            value = value + xp.sum(xp.where(point.usable, point.potential * missing, 0.0), axis=-1)
        else:
            value = value + self._certificate.gap
        return value

    @property
    def sweeps(self) -> Any:
        """How many times the scores were passed over."""
        return scalar_or_array(self._solution.sweeps, int)

    @property
    def status(self) -> Any:
        """Why the solve stopped: a :class:`Status`; for a batch a NumPy array of them."""
        codes = on_host(self._solution.status, int)
        members = np.array([None, *Status], dtype=object)
        return members[codes]

    @property
    def converged(self) -> Any:
        """Whether the certified error is within the tolerance that was asked for."""
        return scalar_or_array(self._solution.status == Status.CONVERGED.code, bool)

    @cached_property
    def mutual_information(self) -> Any:
        """Mutual information between label and row, in nats (MIRA, eq. 2); at most ``log min(B, K)``."""
        like = self._solution.point.potential
        xp, dtype = api.array_namespace(like), self._sweep.vector_dtype
        none = like[..., :0]

        def entropies() -> Array:
            return xp.concat([none, *(xp.astype(entropy(piece), dtype) for piece in self._pieces())], axis=-1)

        rows = self._ranks.attempt(entropies, lambda: none)
        return scalar_or_array(entropy(self.marginal) - self._sweep.sum_rows(rows) / self.rows)

    @property
    def perplexity(self) -> Any:
        """``exp H(marginal)``: the effective number of labels in use, between 1 and K."""
        return scalar_or_array(api.array_namespace(self.marginal).exp(entropy(self.marginal)))

    def assign_new(self, scores: Array, *, check_finite: bool = True) -> Array:
        """Label rows never seen at the solved potential, ``w ∝ exp((s - v) / epsilon)``.

        Parameters
        ----------
        scores
            Shape (..., B', K) with the labels and the leading axes of the scores that were solved for; any B'.
        check_finite
            Look for NaN, ``+inf`` and rows without a label.

        Returns
        -------
        Array
            Shape (..., B', K), like `scores`. A label that no row might use stays forbidden.

        Raises
        ------
        TypeError, ValueError
            If `scores` are not of the library, device and labels that were solved for, or are not finite, or if a row
            may use no label that was in use.

        Examples
        --------
        >>> import numpy as np
        >>> import infoassign as ia
        >>> assignment = ia.sinkhorn(np.array([[1.0, 0.0], [0.9, 0.0]]), epsilon=1.0)
        >>> assignment.assign_new(np.array([[0.95, 0.0]])).round(3)
        array([[0.5, 0.5]])
        """
        solved = self._scores.like.shape
        xp = check_scores(scores, check_finite=check_finite)
        check_companion("scores", scores, self._scores.like, of="those that were solved for")
        if scores.shape[-1] != solved[-1] or scores.shape[:-2] != solved[:-2]:
            raise ValueError(
                f"scores must have shape {(*solved[:-2], 'any', solved[-1])}, the labels that were solved for;"
                f" got {tuple(scores.shape)}"
            )
        point = self._solution.point
        scores = xp.where(point.usable[..., None, :], scores, -xp.inf)
        if check_finite and bool(xp.any(xp.all(scores == -xp.inf, axis=-1))):
            raise ValueError("a row of scores may use only labels that no row might use in the problem that was solved")
        return self._labelled(scores)

    def _labelled(self, scores: Array) -> Array:
        """Return the plan of scores of any rows, which each have a label that they may use."""
        sweep = backend_for(scores).prepare(scores, self._family.epsilon)
        plan = next(sweep.iter_plan(self._solution.point.potential))
        return api.array_namespace(plan).astype(plan, scores.dtype, copy=False)

    def balanced_plan(self) -> Array:
        """Return a plan near this one whose marginal is the prior, up to rounding; like `plan`.

        Where the marginal is nearly right, by one Newton step on the plan's entries, which heeds forbidden pairs and
        keeps the objective to second order; what is left, or all, by the least move of mass that does it.

        Returns
        -------
        Array
            Shape (..., B, K), like `plan`, rows in the simplex.

        Raises
        ------
        ValueError
            If pairs are forbidden and the marginal is too far off for the Newton step.

        Examples
        --------
        >>> import numpy as np
        >>> import infoassign as ia
        >>> assignment = ia.mira(np.array([[2.0, 0.0], [1.5, 0.0], [1.0, 0.0]]), beta=0.5)
        >>> assignment.marginal.round(2), assignment.balanced_plan().mean(axis=0).round(2)
        (array([0.8, 0.2]), array([0.5, 0.5]))
        """
        point, family = self._solution.point, self._family
        xp = api.array_namespace(point.potential)
        plan = xp.astype(self._computed_plan, self._sweep.vector_dtype)
        found = newton_correction(self._sweep, family, point)
        inside = found.reach <= 1
        moved = plan * (1 + found.row_means[..., :, None] - xp.where(point.usable, found.z, 0.0)[..., None, :])
        plan = xp.where(inside[..., None, None], xp.maximum(moved, xp.zeros_like(moved)), plan)
        masked = ~xp.isfinite(self._sweep.span)
        met = inside & (found.missed <= 1e-12 + 64 * self._sweep.sum_error)
        if bool(xp.any(masked & ~met)):
            raise ValueError(
                "without forbidden pairs this marginal does not turn into the prior; solve with an exact marginal and"
                f" a smaller tol, if there is a solution (status: {self.status}, marginal_error: {self.marginal_error})"
            )
        marginal = self._ranks.sum(xp.sum(plan, axis=-2)) / self.rows
        exact = exact_marginal(plan, marginal, xp.exp(family.log_prior))
        return self._shown(xp.where(masked[..., None, None], plan, exact))

    def balanced_labels(self, *, tol: float = 1e-3) -> BalancedLabels:
        """Hard labels with every cluster at the floor or ceiling of its share of the rows (SeLa's assignment).

        Parameters
        ----------
        tol
            For more than about two thousand rows: how far from optimal the mean score may be, given which clusters
            get one row more, in units of epsilon / temperature. Fewer rows are labelled optimally.

        Returns
        -------
        BalancedLabels
            The labels, like `labels`, and a bound on what they lose in mean score. Computed on the host.

        Raises
        ------
        ValueError
            If forbidden pairs leave no such labels.

        Examples
        --------
        >>> import numpy as np
        >>> import infoassign as ia
        >>> assignment = ia.sinkhorn(np.array([[1.0, 0.0], [0.9, 0.0], [0.1, 0.0], [0.8, 0.0]]))
        >>> assignment.balanced_labels()
        BalancedLabels(labels=array([0, 0, 1, 1]), optimality_loss=0.0)
        """
        if not tol > 0:
            raise ValueError(f"tol must be positive; got {tol!r}")
        like, point = self._scores.like, self._solution.point
        batch, columns = like.shape[:-2], like.shape[-1]
        sharded = self._ranks.several
        if sharded and batch:
            raise ValueError(f"with rows spread over ranks this is for a single problem; got a batch {tuple(batch)}")
        problems = [DenseScores(like[(*index, ...)]) for index in np.ndindex(batch)] if batch else [self._scores]
        price = on_host(point.potential).reshape(-1, columns)
        prior = np.broadcast_to(np.exp(on_host(self._family.log_prior)), (*batch, columns)).reshape(-1, columns)
        found, losses = [], []
        for scores, r, v in zip(problems, prior, price, strict=True):
            market = ShardedMarket(market_of(scores), self._on_host) if sharded else market_of(scores)
            labels, loss = balanced_labels(market, self.rows * r / r.sum(), v, tol * self._family.epsilon)
            start = market.start if isinstance(market, ShardedMarket) else 0
            found.append(labels[start : start + scores.rows])
            losses.append(loss / self._unit)
        xp, device = api.array_namespace(like), api.device(like)
        shown = xp.asarray(np.stack(found).reshape(*batch, -1), dtype=integer(like), device=device)
        return BalancedLabels(shown, np.array(losses).reshape(batch) if batch else losses[0])

    def verify(self) -> Verification:
        """Compute the certificate anew, in float64 on the host, about the plan as it is shown.

        Where :attr:`error_bound` bounds rounding, this measures it: the plan is compared with that of the same
        potential in float64, whose own rounding alone is bounded.

        Returns
        -------
        Verification
            Numbers; for a batch NumPy arrays.

        Examples
        --------
        >>> import numpy as np
        >>> import infoassign as ia
        >>> logits = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
        >>> assignment = ia.mira(logits)
        >>> bool(assignment.verify().error_bound < 1e-5)
        True
        """
        family, point, ranks = self._family, self._solution.point, self._on_host
        exact = Family(family.epsilon, family.strength, on_host(family.log_prior))
        nothing = NoRows(on_host(self._scores.like[..., :0, :]))
        sweep = ranks.attempt(
            lambda: self._scores.in_float64().prepare(exact.epsilon), lambda: nothing.prepare(exact.epsilon)
        )
        if ranks.several:
            sweep = ShardedSweep(sweep, on_host(self._scores.usable(), bool), exact.epsilon, ranks)
        potential = on_host(point.potential)
        there = examine(exact, potential, sweep(potential), sweep)
        found = certify_exact(sweep, exact, there) if exact.exact else certify_penalised(exact, there)
        none = np.zeros((*potential.shape[:-1], 0))
        moved, off, total = [none], [none], np.zeros_like(potential)

        def compare() -> None:
            for shown, right in zip(self.iter_plan(), sweep.iter_plan(potential), strict=True):
                piece = on_host(shown)
                moved.append(np.abs(piece - right).sum(axis=-1) / 2)
                off.append(np.abs(piece.sum(axis=-1) - 1))
                total[...] += piece.sum(axis=-2)

        ranks.attempt(compare, lambda: None)
        far, largest = np.concatenate(moved, axis=-1), 1 + sweep.bound_rows(np.concatenate(off, axis=-1))
        values = (
            found.gap / self._unit,
            np.minimum(found.error_bound + sweep.sum_rows(far) / sweep.rows, largest),
            np.minimum(found.row_error_bound + sweep.bound_rows(far), largest),
            np.abs(ranks.sum(total) / sweep.rows - np.exp(exact.log_prior)).sum(axis=-1),
        )
        return Verification(*(scalar_or_array(np.asarray(value)) for value in values))

    @property
    def _on_host(self) -> Ranks:
        """The ranks, which here sum NumPy's arrays, by way of the arrays that they exchange."""
        all_sum, like = self._ranks.all_sum, self._solution.point.potential
        if all_sum is None:
            return self._ranks
        xp, dtype, device = api.array_namespace(like), self._sweep.vector_dtype, api.device(like)
        return Ranks(lambda values: on_host(all_sum(xp.asarray(values, dtype=dtype, device=device))))

    def __repr__(self) -> str:
        bound = "marginal_error" if self._family.exact else "error_bound"
        status = self.status
        names = status.name if isinstance(status, Status) else [one.name for one in status.ravel()]
        value = getattr(self, bound)
        like = self._scores.like
        shape = (*like.shape[:-2], self._scores.rows, like.shape[-1])
        shown = f"{value:.2g}" if isinstance(value, float) else value
        return f"Assignment(shape={shape}, status={names}, sweeps={self.sweeps}, {bound}={shown})"
