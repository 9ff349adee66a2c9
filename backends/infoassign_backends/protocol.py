"""What a backend offers: the prepared sweep over matrices of scores, and the entropy of joint distributions.

Every assignment solver needs very little of its ``(..., B, K)`` scores: for a potential ``v``, the masses
of the columns of the plan ``W(v)`` and the sum of the rows' log-normalisers, where

    w_ij = exp((s_ij - v_j) / epsilon - lse_i),      lse_i = log sum_j exp((s_ij - v_j) / epsilon).

One call of a :class:`Sweep` is one pass over the data. The solver sees nothing else. Leading axes are a batch of
independent problems, solved side by side.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

Array: TypeAlias = Any
"""An array of any library that follows the array-API standard; the standard has no static type yet."""


class Masses(NamedTuple):
    """What one pass over the scores returns.

    The sums over rows are kept as sums, not means, so that shards of the rows can be added up.

    Examples
    --------
    >>> import numpy as np
    >>> from infoassign_backends import backend_for
    >>> scores = np.zeros((4, 2))
    >>> log_columns, log_normalizers, rows = backend_for(scores).prepare(scores, 0.5)(np.zeros(2))
    >>> np.exp(log_columns), float(log_normalizers / np.log(2)), rows
    (array([2., 2.]), 4.0, 4)
    """

    log_columns: Array
    """``log sum_i w_ij``, shape (..., K); ``-inf`` for a column that no row may use."""
    log_normalizers: Array
    """``sum_i lse_i``, shape (...,), of shifted rows; see :attr:`Sweep.offset`."""
    rows: int
    """The number of rows B."""


class Sweep(Protocol):
    """Scores prepared once, to be passed over many times. Potentials are in units of the scores.

    One that can do so without its caller may also have ``plain_steps(potential, number, log_prior, strength)``, which
    makes so many sweeps, each with a plain step (theory, A6 and A7) after it, and returns the potential.
    """

    @property
    def rows(self) -> int:
        """The number of rows B, of all shards."""

    @property
    def compute_dtype(self) -> Any:
        """The dtype in which the exponents ``(s - v) / epsilon`` are computed."""

    @property
    def plan_dtype(self) -> Any:
        """The dtype of the plan: double precision for scores in double precision, single precision otherwise."""

    @property
    def vector_dtype(self) -> Any:
        """The dtype of potentials and masses, and of all sums: the widest that the device has."""

    @property
    def sum_error(self) -> float:
        """Bound on the relative error that the sums over a row's and a column's entries make."""

    @property
    def entry_error(self) -> float:
        """Bound on the relative error that making and storing an entry of the plan adds to that of its exponent."""

    @property
    def offset(self) -> Array:
        """What the shifted log-normalisers leave out on average, shape (...,), in units of the scores.

        Where rows are shifted so that their largest score is 0, ``mean_i max_j s_ij``.
        """

    @property
    def span(self) -> Array:
        """A bound on ``max_i (max_j s_ij - min_j s_ij) / epsilon``, shape (...,); ``inf`` where a pair is forbidden."""

    def __call__(self, potential: Array) -> Masses:
        """Pass over the data once, at a potential of shape (..., K) and dtype `vector_dtype`."""

    def iter_plan(self, potential: Array) -> Iterator[Array]:
        """Yield ``W(v)``, shape (..., B, K), in `plan_dtype`: the rows in order, in pieces, whole if it is dense."""

    def labels(self, potential: Array) -> Array:
        """Return the column of the largest entry of every row of ``W(v)``, shape (..., B), integer."""

    def apply(self, potential: Array, x: Array) -> Array:
        """Return ``W(v) x``, shape (..., B), for x of shape (..., K), in `vector_dtype`."""

    def apply_transpose(self, potential: Array, y: Array) -> Array:
        """Return ``W(v)^T y``, shape (..., K), for y of shape (..., B), in `vector_dtype`."""

    def log_column_sums(self) -> Array:
        """Return ``log sum_i exp(s_ij / epsilon)``, shape (..., K), of the scores as they came."""

    def sum_rows(self, values: Array) -> Array:
        """Return the sum over the rows, of all shards, of one value for each, shape (..., B) to (...,)."""

    def bound_rows(self, values: Array) -> Array:
        """Return the largest of non-negative values, shape (..., B) to (...,); a bound a little above it in shards."""


class Views(NamedTuple):
    """Two views of rows of D units, those at hand and those of all ranks; alike where there is one rank.

    Examples
    --------
    >>> import numpy as np
    >>> from infoassign_backends import backend_for
    >>> codes = np.full((4, 4), 0.5)  # two segments of two units
    >>> joint = backend_for(codes).off_diagonal(Views(codes, codes, codes, codes), (2, 2))
    >>> float(joint / np.log(2))
    -4.0
    """

    first: Array
    """Shape (n, D); its gradient is asked for."""
    second: Array
    """Shape (n, D); its gradient is asked for."""
    all_first: Array
    """Shape (N, D): the rows of `first` among those of all ranks, in any order; taken as constant."""
    all_second: Array
    """Shape (N, D), in the order of `all_first`."""


class Product(NamedTuple):
    """Scores ``f_i . p_j / temperature + b_j`` that are not multiplied out.

    Examples
    --------
    A tile of rows is multiplied at a time where no backend has anything better, as on the host:

    >>> import numpy as np
    >>> from infoassign_backends import numpy_backend
    >>> product = Product(np.ones((4, 2)), np.ones((3, 2)), 0.5, None, reach=4.0, span=8.0)
    >>> numpy_backend.factored(product, epsilon=0.1) is None
    True
    """

    features: Array
    """Shape (B, D)."""
    prototypes: Array
    """Shape (K, D), of the same dtype."""
    temperature: float
    """What divides the products, > 0."""
    bias: Array | None
    """Shape (K,); ``-inf`` removes a label."""
    reach: float
    """A bound on the size of a finite score."""
    span: float
    """A bound on the difference of two scores of one row; ``inf`` where a pair is forbidden."""


class Backend(Protocol):
    """A module that knows how to pass over the arrays of one library."""

    def prepare(self, scores: Array, epsilon: float) -> Sweep:
        """Do once what is costly: scores (..., B, K) of at most double precision, epsilon > 0.

        Raises
        ------
        ValueError
            If epsilon is below the smallest normal number of the dtype of the computation.
        """

    def factored(self, product: Product, epsilon: float) -> Sweep | None:
        """Prepare products whose factors are multiplied anew in every pass, with offset 0.

        None where nothing is better than to multiply some rows at a time and pass over them by `masses` and `plan`.
        """

    def masses(self, scores: Array, potential: Array, epsilon: float, offset: float, known: Array) -> Masses:
        """Pass once over scores (B, K) that will not be kept: no preparation, and no other matrix of their size.

        All rows are shifted by `offset`, so the log-normalisers are those of ``scores - offset``. `known` is the
        logarithm of the masses that the columns have from other rows: what vanishes beside them need not be exact.
        """

    def plan(self, scores: Array, potential: Array, epsilon: float) -> Array:
        """Return ``W(v)`` of scores (B, K) that will not be kept, in the plan's dtype."""

    def product(self, first: Array, second: Array) -> Array:
        """Return ``first^T second`` of (N, C) and (N, D), in the dtype that they come in, also under autocast."""

    def off_diagonal(self, views: Views, sizes: tuple[int, ...]) -> Array:
        """Return the sum of P log P over the cells of P, shape (D, D), whose two units are of different segments.

        ``P = all_first^T all_second / N`` is made a tile at a time; segments have these sizes. Where the library has
        autograd, the answer, of shape (), is differentiable in `first` and `second`, as rows among those of all ranks.
        """

    def off_diagonal_and_gradients(self, views: Views, sizes: tuple[int, ...]) -> tuple[Array, Array, Array]:
        """Return the same, and its gradients in `first` and `second`, in one pass over P."""
