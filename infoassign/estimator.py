r"""Clusters of features by assignments and prototypes in turn, as an estimator of scikit-learn.

Over plans W (rows distributions over K labels) and prototypes c, :class:`InfoAssign` minimises one objective,

.. math:: F(W, c) = \frac1B \sum_{ij} w_{ij} \frac{\|x_i - c_j\|^2}{\sigma}
          + \varepsilon \frac1B \sum_{ij} w_{ij} \log w_{ij} + \rho \, \mathrm{KL}(\bar w \,\|\, r),

by the exact minimiser in either while the other stays: the assignment (:func:`infoassign.assign`), and the weighted
means, for unit vectors these over their length. So F never rises, up to the gap that every assignment certifies.

The unit sigma is twice the largest variance of the rows along a direction. It makes everything independent of the
features' scale, and has a meaning: with Euclidean distances and uniform r, prototypes that all lie at the mean are
stable if and only if epsilon >= 1 (Rose, Gurewitz and Fox, 1990: deterministic annealing). So epsilon is to be below.

Needs the extra ``sklearn`` (``pip install infoassign[sklearn]``).
"""

from collections.abc import Callable, Iterator
from math import inf, sqrt
from typing import Any, Literal, NamedTuple
from warnings import warn

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from infoassign.assignment import assign
from infoassign.result import Assignment, Status
from infoassign.validation import check_choice, count, factor, positive, real

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
    from sklearn.cluster import kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError as missing:
    if str(missing.name).partition(".")[0] != "sklearn":
        raise
    raise ImportError(
        "infoassign.estimator needs scikit-learn; install it with: pip install infoassign[sklearn]"
    ) from missing

Matrix = NDArray[Any]
Solve = Callable[[Matrix, Any], Assignment]
"""From scores and a potential to start from, or None, to the assignment."""
WITHIN = 1e-4
"""`tol` of the assignments on the way; the last one has that of :func:`infoassign.assign`."""


class State(NamedTuple):
    """Prototypes and the assignment to them."""

    centers: Matrix
    """Shape (K, D)."""
    assignment: Assignment
    objective: float
    """F of both."""


class Run(NamedTuple):
    """Where a run ended."""

    state: State
    iterations: int
    """Assignments that were made."""
    converged: bool


def scores_of(rows: Matrix, centers: Matrix) -> Matrix:
    """Return minus the squared distances, but for a constant by row, to which assignments are blind; shape (B, K).

    Examples
    --------
    >>> scores_of(np.array([[0.0], [3.0]]), np.array([[0.0], [2.0]]))
    array([[ 0., -4.],
           [ 0.,  8.]])
    """
    scores: Matrix = rows @ (2 * centers.T)
    scores -= np.sum(centers**2, axis=1)
    return scores


def mean_square(rows: Matrix) -> float:
    """Return the mean over rows of their squared length, which `scores_of` leaves out."""
    return float(np.mean(np.sum(rows**2, axis=1, dtype=np.float64)))


def means(rows: Matrix, plan: Matrix, centers: Matrix, radius: float | None) -> Matrix:
    """Return the prototypes that are best for a plan, shape (K, D).

    Parameters
    ----------
    rows, plan
        Shape (B, D) and (B, K).
    centers
        The prototypes before, of which those stay for which none is better than another.
    radius
        The length that prototypes have; None if they may have any.

    Examples
    --------
    >>> plan = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    >>> means(np.array([[0.0], [4.0]]), plan, np.array([[0.0], [1.0], [7.0]]), None).T
    array([[2., 2., 7.]])
    """
    total = plan.T @ rows
    size = (plan.sum(axis=0) if radius is None else np.linalg.norm(total, axis=1) / radius)[:, None]
    return np.where(size > 0, total / np.where(size > 0, size, 1), centers)


def alternated(rows: Matrix, centers: Matrix, radius: float | None, solve: Solve) -> Iterator[State]:
    """Assign rows to prototypes and move these, in turn and without end; yield what there is after every assignment.

    Neither half step raises F by more than the gap of the assignment. Each assignment starts from the one before.
    """
    spread = mean_square(rows)
    potential = None
    while True:
        found = solve(scores_of(rows, centers), potential)
        yield State(centers, found, found.objective + spread)
        centers, potential = means(rows, found.plan, centers, radius), found.potential


def largest_variance(rows: Matrix) -> float:
    """Return the largest variance of rows along a direction.

    Examples
    --------
    >>> largest_variance(np.array([[1.0, 0.0], [-1.0, 0.0], [5.0, 0.0], [-5.0, 0.0]]))
    13.0
    """
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    centred -= centred.mean(axis=0)  # the mean of many rows is itself rounded
    flat = centred if centred.shape[0] < centred.shape[1] else centred.T  # the smaller of two Gram matrices
    return max(0.0, float(np.linalg.eigvalsh(flat @ flat.T)[-1])) / len(rows)


def same_to_rounding(rows: Matrix, variance: float) -> bool:
    """Return whether the largest variance along a direction is no more than rounding makes of rows that are all one.

    Examples
    --------
    >>> rows = np.array([[1.0], [1.0 + 2**-52]])
    >>> same_to_rounding(rows, largest_variance(rows)), same_to_rounding(rows - 1, largest_variance(rows))
    (True, False)
    """
    rounding = 4 * float(np.finfo(rows.dtype).eps)
    return bool(variance <= rows.shape[1] * rounding**2 * mean_square(rows))


def exponents(values: Matrix, axis: int | None = None) -> Any:
    """Return the k for which the largest absolute value is in [2^k, 2^(k + 1)), by row for axis 1; of zeros -1.

    Divided by 2^k, nothing is rounded, and squares neither overflow nor vanish.

    Examples
    --------
    >>> exponents(np.array([[3.0, -4.0], [0.0, 0.5]]), axis=1).T
    array([[ 2, -1]], dtype=int32)
    """
    largest = np.maximum(values.max(axis=axis, keepdims=True), -values.min(axis=axis, keepdims=True))
    return np.frexp(largest)[1] - 1


class InfoAssign(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    r"""Clusters of features that you have: informative ones, or such of given shares.

    Assigns the rows to prototypes and moves these to the means of their rows, in turn, which minimises

    .. math:: \frac1B \sum_{ij} w_{ij} \frac{\|x_i - c_j\|^2}{\sigma}
              + \varepsilon \frac1B \sum_{ij} w_{ij} \log w_{ij} + \rho \, \mathrm{KL}(\bar w \,\|\, r)

    over soft labels W and prototypes c: of either, while the other stays, the best is taken, so the objective never
    rises. It has more than one local minimum; the best of several runs is kept.

    Parameters
    ----------
    n_clusters
        Number of labels K.
    method
        "mira": labels are about as numerous as `prior` says, at a price ``rho = epsilon beta / (1 - beta)``; given the
        prototypes they are :func:`infoassign.mira` of minus the squared distances at temperature
        ``epsilon / (1 - beta)``. "sinkhorn": exactly as numerous (rho infinite), :func:`infoassign.sinkhorn`.
    epsilon
        How soft the labels are, > 0, in units of sigma, twice the largest variance along a direction; so they do not
        depend on the scale of `X`. From 1 on, nothing drives Euclidean prototypes apart that are all at the mean; where
        it is small, it matters little (see the documentation for what was measured).
    beta
        For "mira": in [0, 1); at 0 the shares have no price, near 1 they are as for "sinkhorn".
    prior
        The shares r of the labels: positive, summing to one, shape (K,). Default: equal shares. Prototypes that are
        drawn get them by the number of rows they are nearest to, the largest share to the most.
    metric
        "euclidean", or "cosine": Euclidean between rows and prototypes divided by their lengths.
    init
        "k-means++", or prototypes to start from, shape (K, D); then there is one run.
    n_init
        Number of runs, from different prototypes.
    max_iter
        Assignments of a run at most.
    tol
        A run ends when an assignment lowers the objective by no more than this, in units of sigma.
    balanced
        Whether `labels_` are hard labels of exactly the shares, floor or ceiling
        (:meth:`infoassign.Assignment.balanced_labels`), and not the likeliest ones.
    random_state
        An integer makes the result the same every time.

    Attributes
    ----------
    cluster_centers_
        The prototypes, shape (K, D); unit vectors for "cosine".
    labels_
        The label of every row, shape (B,), integer. Unless `balanced`, what `predict` says of these rows.
    assignment_
        The last :class:`infoassign.Assignment`, to these prototypes: plan, certificate, status. Its energies are in
        units of sigma. It keeps B x K scores.
    objective_
        What was minimised, in units of sigma.
    inertia_
        Sum over rows of the squared distance to the prototype of their label, in the units of `X` squared; for "cosine"
        of unit vectors.
    scale_
        The square root of sigma, in the units of `X`; for "cosine" of unit vectors.
    n_iter_
        Assignments of the run that was kept.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Raises
    ------
    TypeError, ValueError
        From :meth:`fit`, if a parameter is out of its range, `X` has fewer rows than labels, or for "cosine" a row
        has no direction.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> X, classes = make_blobs([60, 30, 10], centers=[[0, 0], [8, 0], [0, 8]], random_state=0)
    >>> model = InfoAssign(n_clusters=3, random_state=0).fit(X)
    >>> sorted(np.bincount(model.labels_).tolist()), model.assignment_.converged
    ([10, 30, 60], True)
    >>> equal = InfoAssign(n_clusters=3, method="sinkhorn", balanced=True, random_state=0).fit(X)
    >>> sorted(np.bincount(equal.labels_).tolist())
    [33, 33, 34]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        method: Literal["mira", "sinkhorn"] = "mira",
        epsilon: float = 0.1,
        beta: float = 2 / 3,
        prior: Any = None,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        init: Any = "k-means++",
        n_init: int = 10,
        max_iter: int = 300,
        tol: float = 1e-4,
        balanced: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.method = method
        self.epsilon = epsilon
        self.beta = beta
        self.prior = prior
        self.metric = metric
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.balanced = balanced
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "InfoAssign":
        """Find prototypes and labels.

        Parameters
        ----------
        X
            Features, shape (B, D); float32 is computed in float32, everything else in float64.
        y
            Not looked at.

        Returns
        -------
        InfoAssign
            The estimator itself.

        Raises
        ------
        TypeError, ValueError
            If a parameter is out of its range, or `X` is not a finite matrix with a row for every label.

        Examples
        --------
        >>> import numpy as np
        >>> features = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> clusters = InfoAssign(n_clusters=2, random_state=0).fit(features)
        >>> clusters.cluster_centers_.shape, bool(clusters.labels_[0] == clusters.labels_[1])
        ((2, 1), True)
        """
        self._check()
        X = validate_data(self, X, dtype=(np.float64, np.float32))
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}")
        self._exponent = int(exponents(X).item())
        placed = self._placed(X)
        variance = largest_variance(placed)
        if same_to_rounding(placed, variance):
            warn(
                "the rows of X are all the same to rounding, so there are no clusters to find",
                ConvergenceWarning,
                stacklevel=2,
            )
            variance = 0.0
        self._scale = sqrt(2 * variance) or 1.0
        # Differences from the mean lose least to rounding; of directions the origin has a meaning.
        self._origin = np.zeros_like(placed[0])
        if self.metric == "euclidean":
            self._origin += placed.mean(axis=0, dtype=np.float64).astype(placed.dtype)
        rows = self._rows(X)
        run = min((self._run(rows, start) for start in self._starts(rows)), key=lambda run: run.state.objective)
        self.n_iter_, self._prototypes = run.iterations, run.state.centers
        scores = scores_of(rows, self._prototypes)
        self.assignment_ = self._solve(scores, run.state.assignment.potential, tol=1e-5)
        status = self.assignment_.status
        if not run.converged or status is not Status.CONVERGED:
            advice = status.advice if run.converged else "The objective still falls; raise max_iter, or tol."
            warn(f"InfoAssign did not converge. {advice}", ConvergenceWarning, stacklevel=2)
        unit = 0 if self.metric == "cosine" else self._exponent
        self.scale_ = float(np.ldexp(self._scale, unit))
        self.cluster_centers_ = np.ldexp(self._prototypes * self._scale + self._origin, unit)
        self.objective_ = self.assignment_.objective + mean_square(rows)
        self.labels_ = self.assignment_.balanced_labels().labels if self.balanced else self._likeliest(scores)
        inertia = float(np.sum((rows - self._prototypes[self.labels_]) ** 2, dtype=np.float64))
        self.inertia_ = inertia * self.scale_ * self.scale_
        self._n_features_out = self.n_clusters
        return self

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return the likeliest label of every row at the fitted prototypes and potential, shape (B',), integer.

        ``argmax_j s_ij - v_j``, as of :meth:`infoassign.Assignment.assign_new`: not the nearest prototype, but that
        whose price makes up for it. New rows change no prices, so they need not have the shares. Of the rows that were
        fitted these are `labels_`, exactly, unless `balanced`.

        Parameters
        ----------
        X
            Features, shape (B', D), real; those of any rows.

        Examples
        --------
        >>> import numpy as np
        >>> features = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> clusters = InfoAssign(n_clusters=2, random_state=0).fit(features)
        >>> bool((clusters.predict(features + 0.01) == clusters.labels_).all())
        True
        """
        return self._likeliest(self._scores(X)[0])

    def transform(self, X: Any) -> Matrix:
        """Return soft labels at the fitted prototypes and potential, shape (B', K), in the floating dtype of `X`.

        Rows sum to one. Of the rows that were fitted it is ``assignment_.plan``.

        Parameters
        ----------
        X
            Features, shape (B', D), real; those of any rows.

        Examples
        --------
        >>> import numpy as np
        >>> features = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> clusters = InfoAssign(n_clusters=2, random_state=0).fit(features)
        >>> bool(np.array_equal(clusters.transform(features), clusters.assignment_.plan))
        True
        """
        scores, _, dtype = self._scores(X)
        plan: Matrix = self.assignment_.assign_new(scores)
        return plan.astype(dtype, copy=False)

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the mean free energy of rows at the fitted prototypes and potential: larger is better.

        ``epsilon mean_i log sum_j exp((-|x_i - c_j|^2 / sigma - v_j) / epsilon)``: of the rows that were fitted minus
        the dual objective (theory, A3), which is `objective_` up to the certified gap.

        Parameters
        ----------
        X
            Features, shape (B', D), real; those of any rows.
        y
            Not looked at.

        Examples
        --------
        >>> import numpy as np
        >>> features = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> clusters = InfoAssign(n_clusters=2, random_state=0).fit(features)
        >>> bool(clusters.score(features) > clusters.score(features + 1))  # which lie further off
        True
        """
        scores, rows, _ = self._scores(X)
        free = logsumexp((scores - self.assignment_.potential) / self.epsilon, axis=1)
        return self.epsilon * float(np.mean(free, dtype=np.float64)) - mean_square(rows)

    def _check(self) -> None:
        """Say so if a parameter is out of its range."""
        count("n_clusters", self.n_clusters)
        check_choice("method", self.method, ("mira", "sinkhorn"))
        check_choice("metric", self.metric, ("euclidean", "cosine"))
        positive("epsilon", self.epsilon)
        if not 0 <= real("beta", self.beta) < 1:
            raise ValueError(f"beta must be in [0, 1); got {self.beta!r} (for exact shares use method='sinkhorn')")
        count("n_init", self.n_init)
        count("max_iter", self.max_iter)
        factor("tol", self.tol)
        if self.prior is not None and np.shape(self.prior) != (self.n_clusters,):
            raise ValueError(
                f"prior must have a share for each label, shape {(self.n_clusters,)}; got shape {np.shape(self.prior)}"
            )
        if isinstance(self.init, str):
            check_choice("init", self.init, ("k-means++",))
        elif callable(self.init):
            raise TypeError(f"init must be 'k-means++' or an array of prototypes; got {self.init!r}")

    def _placed(self, X: Matrix, name: str = "X") -> Matrix:
        """Return rows of a size that can be squared: divided by one power of two, or for "cosine" by their lengths."""
        if self.metric == "euclidean":
            units: Matrix = np.ldexp(X, -self._exponent)
            return units
        zero = ~X.any(axis=1)
        if zero.any():
            raise ValueError(
                f"row {int(np.argmax(zero))} of {name} is zero and has no direction; leave it out, or use"
                " metric='euclidean'"
            )
        directions: Matrix = np.ldexp(X, -exponents(X, axis=1))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return directions

    def _rows(self, X: Matrix, name: str = "X") -> Matrix:
        """Return rows in the coordinates of the prototypes, in which sigma is one."""
        rows: Matrix = (self._placed(X, name) - self._origin) / self._scale
        return rows

    def _starts(self, rows: Matrix) -> Iterator[Matrix]:
        """Yield the prototypes that the runs start from."""
        if not isinstance(self.init, str):
            try:
                given = np.asarray(self.init, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"init must be 'k-means++' or an array of prototypes; {error}") from error
            if given.shape != (self.n_clusters, rows.shape[1]):
                raise ValueError(f"init must have shape {(self.n_clusters, rows.shape[1])}; got {given.shape}")
            if not np.isfinite(given).all():
                raise ValueError("init must be finite; it has NaN or infinite values")
            yield self._rows(given, "init").astype(rows.dtype)
            return
        random = check_random_state(self.random_state)
        for _ in range(self.n_init):
            centers, _ = kmeans_plusplus(rows, self.n_clusters, random_state=random)
            if self.prior is not None:
                near = np.bincount(scores_of(rows, centers).argmax(axis=1), minlength=self.n_clusters)
                # The k-th smallest share to the prototype with the k-th fewest rows.
                centers = centers[np.argsort(near)[np.argsort(np.argsort(self.prior))]]
            yield centers

    def _run(self, rows: Matrix, centers: Matrix) -> Run:
        """Alternate until the objective stays, or `max_iter` assignments were made."""
        radius = 1 / self._scale if self.metric == "cosine" else None
        before = inf
        for number, state in enumerate(alternated(rows, centers, radius, self._solve), start=1):
            converged = before - state.objective <= self.tol
            if converged or number >= self.max_iter:
                break
            before = state.objective
        return Run(state, number, converged)

    def _solve(self, scores: Matrix, start: Any, tol: float = WITHIN) -> Assignment:
        """Assign, from a potential on."""
        strength = inf if self.method == "sinkhorn" else self.epsilon * self.beta / (1 - self.beta)
        prior = None if self.prior is None else np.asarray(self.prior, dtype=scores.dtype)
        return assign(scores, epsilon=self.epsilon, strength=strength, prior=prior, tol=tol, start=start)

    def _scores(self, X: Any) -> tuple[Matrix, Matrix, Any]:
        """Return the scores of rows that may be new, these rows, and the dtype to answer in."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        dtype = self._prototypes.dtype
        # Never placed in a dtype narrower than their own, in which they may not be finite.
        rows = self._rows(X.astype(np.result_type(X, dtype), copy=False)).astype(dtype, copy=False)
        return scores_of(rows, self._prototypes), rows, X.dtype

    def _likeliest(self, scores: Matrix) -> NDArray[np.int64]:
        labels: NDArray[np.int64] = np.argmax(scores - self.assignment_.potential, axis=1)
        return labels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
