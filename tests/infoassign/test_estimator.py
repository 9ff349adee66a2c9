"""The estimator: scikit-learn's own checks, and the laws of what it minimises."""

import pickle
import subprocess
import sys
from itertools import islice
from typing import Any

import numpy as np
import pytest

import infoassign as ia

pytest.importorskip("sklearn", reason="scikit-learn is an extra")

from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from infoassign.estimator import InfoAssign, alternated, largest_variance, mean_square, means, scores_of

METHODS = ("mira", "sinkhorn")


def blobs(count: int = 300, seed: int = 0) -> Any:
    """Rows of six blobs in five dimensions that touch each other."""
    return make_blobs(count, n_features=5, centers=6, cluster_std=3.0, random_state=seed)[0]


def fitted(features: Any, **options: Any) -> InfoAssign:
    return InfoAssign(**{"n_clusters": 6, "n_init": 2, "random_state": 0} | options).fit(features)


@parametrize_with_checks([InfoAssign(), InfoAssign(method="sinkhorn")])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("radius", [None, 2.0])
def test_no_half_step_raises_the_objective(method: str, radius: float | None) -> None:
    """Both halves are looked at with the library's own objective, of plans that meet the shares."""
    rows = blobs() / 10
    if radius:
        rows *= radius / np.linalg.norm(rows, axis=1, keepdims=True)
    weights = {"epsilon": 0.05, "strength": 0.1 if method == "mira" else np.inf}

    def objective(plan: Any, centers: Any) -> float:
        scores = scores_of(rows, centers)
        return float(ia.primal_objective(plan, scores, **weights)) + mean_square(rows)

    def solve(scores: Any, start: Any) -> ia.Assignment:
        return ia.assign(scores, **weights, start=start, tol=1e-9)

    last = np.inf
    for centers, assignment, said in islice(alternated(rows, rows[:6], radius, solve), 12):
        plan = assignment.plan if method == "mira" else assignment.balanced_plan()
        assigned, moved = objective(plan, centers), objective(plan, means(rows, plan, centers, radius))
        assert said == pytest.approx(assigned, abs=1e-7)
        assert last >= assigned - 1e-9
        assert assigned >= moved - 1e-9
        last = moved


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("method", METHODS)
def test_the_assignment_is_that_of_the_library_on_the_final_prototypes(method: str, metric: str) -> None:
    features = blobs()
    model = fitted(features, method=method, metric=metric)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True) if metric == "cosine" else features
    scores = -((rows[:, None] - model.cluster_centers_) ** 2).sum(axis=2)
    if method == "mira":
        direct = ia.mira(scores, beta=2 / 3, temperature=0.3 * model.scale_**2)
    else:
        direct = ia.sinkhorn(scores, epsilon=0.1 * model.scale_**2)
    assert np.abs(direct.plan - model.assignment_.plan).max() < 1e-3
    assert np.abs(direct.plan - model.transform(features)).max() < 1e-3
    assert (direct.labels == model.labels_).mean() > 0.99
    # The prototypes are the means of their rows, as nearly as the run has converged.
    best = direct.plan.T @ rows / direct.plan.sum(axis=0)[:, None]
    if metric == "cosine":
        best /= np.linalg.norm(best, axis=1, keepdims=True)
    assert np.abs(best - model.cluster_centers_).max() < 0.05 * model.scale_
    nearest = np.take_along_axis(-scores, model.labels_[:, None], axis=1)
    assert model.inertia_ == pytest.approx(nearest.sum())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_on_training_rows_are_the_labels(method: str, dtype: Any) -> None:
    features = blobs().astype(dtype)
    model = fitted(features, method=method)
    assert (model.predict(features) == model.labels_).all()
    assert (model.labels_ == model.assignment_.labels).all()
    assert model.cluster_centers_.dtype == model.transform(features).dtype == dtype
    assert (model.transform(features) == model.assignment_.plan).all()
    assert model.predict(features.astype(np.float64)).shape == (300,)


@pytest.mark.parametrize("method", METHODS)
def test_scale_and_origin_do_not_matter(method: str) -> None:
    """By powers of two nothing is rounded otherwise."""
    features = blobs()
    one, other = fitted(features, method=method), fitted(features * 2.0**20, method=method)
    assert (one.labels_ == other.labels_).all()
    assert other.scale_ == one.scale_ * 2.0**20
    assert other.objective_ == one.objective_
    moved = fitted(features * 3 + 100, method=method)
    assert (moved.labels_ == one.labels_).mean() > 0.99
    assert moved.objective_ == pytest.approx(one.objective_, rel=1e-4)


@pytest.mark.parametrize(
    ("metric", "dtype", "factor"),
    [
        ("euclidean", np.float64, 2.0**-700),
        ("euclidean", np.float64, 2.0**700),
        ("euclidean", np.float32, 2.0**-100),
        ("euclidean", np.float32, 2.0**100),
        ("cosine", np.float64, 2.0**700),
        ("cosine", np.float32, 2.0**-100),
    ],
)
def test_the_smallest_and_largest_scales_do_not_matter(metric: str, dtype: Any, factor: float) -> None:
    """Squares of such features are no numbers of the dtype."""
    features = blobs().astype(dtype)
    scaled = features * dtype(factor)
    one, other = fitted(features, metric=metric), fitted(scaled, metric=metric)
    assert (one.labels_ == other.labels_).all()
    assert other.objective_ == one.objective_
    unit = 1.0 if metric == "cosine" else factor
    assert other.scale_ == one.scale_ * unit
    assert (other.cluster_centers_ == one.cluster_centers_ * dtype(unit)).all()
    assert (other.predict(scaled) == one.labels_).all()
    start = fitted(scaled, metric=metric, init=scaled[:6])
    assert start.objective_ == fitted(features, metric=metric, init=features[:6]).objective_


def test_directions_of_float64_rows_can_be_asked_of_a_float32_fit() -> None:
    features = blobs().astype(np.float32)
    model = fitted(features, metric="cosine")
    assert (model.predict(features.astype(np.float64) * 1e200) == model.labels_).mean() > 0.99


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_rows_that_are_the_same_to_rounding_have_no_clusters(metric: str, dtype: Any) -> None:
    """What rounding leaves of their differences is no unit of distances."""
    random = np.random.default_rng(0)
    lengths = random.uniform(1, 2, size=(300, 1)) if metric == "cosine" else 1 + np.zeros((300, 1))
    features = (random.normal(size=7) * lengths).astype(dtype)
    features *= (1 + np.finfo(dtype).eps * random.integers(-1, 2, size=features.shape)).astype(dtype)
    with pytest.warns(ConvergenceWarning, match="all the same to rounding"):
        model = fitted(features, metric=metric)
    assert abs(model.objective_) < 1
    assert 0.1 < model.scale_ < 10
    assert np.ptp(model.cluster_centers_, axis=0).max() < 1e-4


def test_a_small_spread_around_a_large_mean_is_one() -> None:
    """Ten thousand times what rounding leaves is no rounding."""
    features = blobs()
    assert (fitted(features + 1e9).labels_ == fitted(features).labels_).mean() > 0.99


def test_many_equal_rows_have_no_variance() -> None:
    """Though their mean, summed up in float32, is not they."""
    assert largest_variance(np.full((100_000, 2), 0.1, dtype=np.float32)) < 1e-20


def test_for_cosines_the_lengths_of_rows_do_not_matter() -> None:
    features = blobs()
    longer = features * np.random.default_rng(0).choice([0.25, 1.0, 8.0], size=(len(features), 1))
    assert (fitted(features, metric="cosine").labels_ == fitted(longer, metric="cosine").labels_).all()
    assert np.linalg.norm(fitted(features, metric="cosine").cluster_centers_, axis=1) == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_does_not_matter(method: str) -> None:
    features = blobs()
    order = np.random.default_rng(0).permutation(len(features))
    one, other = (fitted(rows, method=method, init=features[:6]) for rows in (features, features[order]))
    assert (one.labels_[order] == other.labels_).all()


def test_shares_are_honoured() -> None:
    features, shares = blobs(), np.array([0.1, 0.3, 0.05, 0.25, 0.1, 0.2])
    exact = fitted(features, method="sinkhorn", prior=shares)
    assert np.abs(exact.assignment_.marginal - shares).sum() < 1e-5
    hard = fitted(features, method="sinkhorn", prior=shares, balanced=True)
    assert np.bincount(hard.labels_).tolist() == [30, 90, 15, 75, 30, 60]
    priced = [fitted(features, prior=shares, beta=beta).assignment_.marginal for beta in (0.0, 0.99)]
    missed = [float(np.abs(marginal - shares).sum()) for marginal in priced]
    assert missed[1] < 0.1 * missed[0]


@pytest.mark.parametrize("method", METHODS)
def test_balanced_labels_have_sizes_that_differ_by_one_at_most(method: str) -> None:
    features = blobs(301)
    model = fitted(features, method=method, balanced=True)
    sizes = np.bincount(model.labels_, minlength=6)
    assert np.ptp(sizes) <= 1
    assert (model.labels_ == model.predict(features)).mean() > 0.5


def test_score_of_training_rows_is_minus_the_objective() -> None:
    for method in METHODS:
        model = fitted(features := blobs(), method=method)
        assert model.score(features) == pytest.approx(-model.objective_, abs=1e-4)
        assert model.score(features + 50) < model.score(features)


def test_many_runs_are_no_worse_than_one() -> None:
    features = blobs()
    assert fitted(features, n_init=8).objective_ <= fitted(features, n_init=1).objective_


def test_above_the_critical_epsilon_all_prototypes_are_one() -> None:
    """And below they are not: what the unit of epsilon means."""
    features = blobs()
    start = features[:6]
    together, apart = (
        fitted(features, epsilon=epsilon, tol=1e-10, max_iter=500, init=start) for epsilon in (1.05, 0.9)
    )
    assert np.ptp(together.cluster_centers_, axis=0).max() < 1e-2 * together.scale_
    assert np.ptp(apart.cluster_centers_, axis=0).max() > 0.1 * apart.scale_


def test_it_is_saved_and_says_how_good_it_is() -> None:
    model = fitted(features := blobs())
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict(features) == model.labels_).all()
    assert again.assignment_.error_bound <= 1e-5
    assert model.assignment_.verify().error_bound < 1e-4


def test_what_did_not_converge_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        fitted(blobs(), max_iter=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_clusters": 0}, "n_clusters must be at least 1"),
        ({"n_clusters": 301}, "n_samples=300 should be >= n_clusters=301"),
        ({"method": "kmeans"}, "method must be 'mira' or 'sinkhorn'; got 'kmeans'"),
        ({"metric": "manhattan"}, "metric must be"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"beta": 1.0}, r"beta must be in \[0, 1\)"),
        ({"prior": [0.5, 0.5]}, r"prior must have a share for each label, shape \(6,\); got shape \(2,\)"),
        ({"prior": [0.5] * 6}, "prior must sum to one"),
        ({"init": "random"}, "init must be 'k-means[+][+]'"),
        ({"init": np.zeros((6, 2))}, r"init must have shape \(6, 5\)"),
        ({"init": np.full((6, 5), np.nan)}, "init must be finite"),
        ({"init": [["a"] * 5] * 6}, "init must be 'k-means[+][+]' or an array of prototypes; could not convert"),
        ({"init": np.zeros((6, 5)), "metric": "cosine"}, "row 0 of init is zero"),
        ({"tol": -1.0}, "tol must not be negative"),
    ],
)
def test_wrong_parameters_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(blobs(), **wrong)


def test_a_callable_to_start_from_is_none() -> None:
    with pytest.raises(TypeError, match=r"init must be 'k-means[+][+]' or an array of prototypes; got <function"):
        fitted(blobs(), init=lambda rows, count, state: rows[:count])


def test_a_row_without_direction_is_named() -> None:
    features = blobs()
    features[7] = 0
    with pytest.raises(ValueError, match="row 7 of X is zero"):
        fitted(features, metric="cosine")


def test_without_scikit_learn_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.base'] = None\nimport infoassign.estimator"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install infoassign[sklearn]" in done.stderr
