"""Hard labels with balanced clusters, and the auction that finds them."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from random_scores import scores_of, with_forbidden_pairs
from scipy.optimize import linear_sum_assignment

import infoassign as ia
from infoassign import auction

Make = Callable[[Any], Any]


def best_by_enumeration(scores: Any, prior: Any) -> float:
    """The largest sum of scores over all labellings whose clusters have the floor or ceiling of their share."""
    rows, columns = scores.shape
    share = rows * prior
    best = -np.inf
    for labels in product(range(columns), repeat=rows):
        sizes = np.bincount(labels, minlength=columns)
        if (sizes >= np.floor(share + 1e-9)).all() and (sizes <= np.ceil(share - 1e-9)).all():
            best = max(best, scores[np.arange(rows), list(labels)].sum())
    return float(best)


class TestBalancedLabels:
    @pytest.mark.theorem("A9")
    @pytest.mark.parametrize(
        ("rows", "prior"), [(6, [1 / 3] * 3), (7, [1 / 3] * 3), (7, [0.5, 0.3, 0.2]), (3, [0.2] * 5)]
    )
    @pytest.mark.parametrize("seed", range(3))
    def test_no_labelling_is_better(self, rows: int, prior: list[float], seed: int) -> None:
        scores = scores_of(rows, len(prior), seed=seed)
        found = ia.sinkhorn(scores, epsilon=0.5, prior=prior).balanced_labels()
        assert found.optimality_loss == 0
        reached = scores[np.arange(rows), found.labels].sum()
        assert reached == pytest.approx(best_by_enumeration(scores, np.array(prior)), abs=1e-12)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("prior", [None, [0.5] + [0.05] * 10])
    def test_the_auction_is_near_optimal_and_says_how_near(self, seed: int, prior: Any, monkeypatch: Any) -> None:
        scores = scores_of(500, 11, seed=seed)
        assignment = ia.sinkhorn(scores, epsilon=0.1, prior=prior)
        exact = assignment.balanced_labels().labels
        monkeypatch.setattr(auction, "EXACT_UP_TO", 0)
        found = assignment.balanced_labels()
        share = 500 * (np.full(11, 1 / 11) if prior is None else np.array(prior))
        sizes = np.bincount(found.labels, minlength=11)
        assert (sizes >= np.floor(share + 1e-9)).all()
        assert (sizes <= np.ceil(share - 1e-9)).all()
        rows = np.arange(500)
        loss = scores[rows, exact].mean() - scores[rows, found.labels].mean()
        assert -1e-12 <= loss <= found.optimality_loss + 1e-12
        assert found.optimality_loss <= 1e-3  # epsilon / 100

    def test_of_twenty_thousand_rows(self, make: Make) -> None:
        scores = scores_of(20_000, 30)
        assignment = ia.sinkhorn(make(scores), epsilon=0.1)
        found = assignment.balanced_labels()
        labels = np.asarray(found.labels)
        sizes = np.bincount(labels, minlength=30)
        assert set(sizes) <= {666, 667}
        assert 0 <= found.optimality_loss <= 1e-3
        assert (labels == np.asarray(assignment.labels)).mean() > 0.9

    def test_agrees_with_the_hungarian_method_on_a_square(self) -> None:
        scores = scores_of(40, 40)
        found = ia.sinkhorn(scores).balanced_labels()
        rows, columns = linear_sum_assignment(scores, maximize=True)
        np.testing.assert_array_equal(found.labels, columns[np.argsort(rows)])

    @pytest.mark.parametrize("exact_up_to", [0, 2000])
    def test_heed_forbidden_pairs(self, exact_up_to: int, monkeypatch: Any) -> None:
        monkeypatch.setattr(auction, "EXACT_UP_TO", exact_up_to)
        scores = with_forbidden_pairs()
        found = ia.sinkhorn(scores, epsilon=0.3).balanced_labels()
        assert np.isfinite(scores[np.arange(60), found.labels]).all()
        assert set(np.bincount(found.labels)) == {10}

    @pytest.mark.parametrize("exact_up_to", [0, 2000])
    def test_say_when_there_are_none(self, exact_up_to: int, monkeypatch: Any) -> None:
        monkeypatch.setattr(auction, "EXACT_UP_TO", exact_up_to)
        scores = scores_of(12, 3)
        scores[:8, 1:] = -np.inf
        with pytest.raises(ValueError, match="no labels without a forbidden pair have balanced clusters"):
            ia.assign(scores, epsilon=0.5, strength=1.0).balanced_labels()

    def test_more_labels_than_rows(self, monkeypatch: Any) -> None:
        assignment = ia.sinkhorn(scores_of(50, 60), epsilon=0.1)
        exact = assignment.balanced_labels()
        assert np.bincount(exact.labels).max() == 1
        monkeypatch.setattr(auction, "EXACT_UP_TO", 0)
        found = assignment.balanced_labels()
        assert np.bincount(found.labels).max() == 1
        reached = [scores_of(50, 60)[np.arange(50), labels].mean() for labels in (exact.labels, found.labels)]
        assert 0 <= reached[0] - reached[1] <= found.optimality_loss + 1e-12

    def test_shares_below_one_row(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(auction, "EXACT_UP_TO", 0)
        prior = [6e-4, 4e-4, 0.5, 0.499]
        sizes = np.bincount(ia.sinkhorn(scores_of(1000, 4), prior=prior).balanced_labels().labels, minlength=4)
        assert sizes[2:].tolist() in ([500, 499], [500, 500])
        assert sizes[:2].max() <= 1

    def test_many_rows_alike(self, monkeypatch: Any) -> None:
        """Ties are not fought over in steps of the tolerance from the start."""
        monkeypatch.setattr(auction, "EXACT_UP_TO", 0)
        steps = []
        bid = auction._bid

        def recorded(*arguments: Any) -> Any:
            steps.append(arguments[-1])
            return bid(*arguments)

        monkeypatch.setattr(auction, "_bid", recorded)
        scores = np.tile(scores_of(5, 20), (200, 1))
        found = ia.sinkhorn(scores, epsilon=0.1).balanced_labels()
        assert set(np.bincount(found.labels)) == {50}
        assert found.optimality_loss <= 1e-3
        assert steps == sorted(steps, reverse=True)
        assert steps[0] == pytest.approx(np.ptp(scores) / 10)
        assert steps[-1] == pytest.approx(1e-4)

    @pytest.mark.parametrize("scale", [0.0, 1e-3])
    def test_scores_that_are_flat_beside_the_entropy(self, scale: float) -> None:
        """The potential is then that of the prior, which the prices of hard labels have no use for."""
        prior = [0.7, 0.2, 0.09, 0.01]
        found = ia.sinkhorn(scores_of(5000, 4, scale), epsilon=1.0, prior=prior).balanced_labels()
        assert np.bincount(found.labels).tolist() == [3500, 1000, 450, 50]
        assert found.optimality_loss <= 1e-3

    def test_one_label_and_equal_scores(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(auction, "EXACT_UP_TO", 0)
        assert (ia.sinkhorn(scores_of(5, 1)).balanced_labels().labels == 0).all()
        labels = ia.sinkhorn(np.zeros((30, 7))).balanced_labels().labels
        assert set(np.bincount(labels)) == {4, 5}

    def test_refuse_a_tolerance_of_zero(self) -> None:
        with pytest.raises(ValueError, match="tol must be positive"):
            ia.sinkhorn(scores_of()).balanced_labels(tol=0)


class TestFeasibility:
    @pytest.mark.parametrize("seed", range(30))
    def test_is_that_of_halls_condition(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        allowed = random.random((8, 4)) < 0.35
        allowed[np.arange(8), random.integers(4, size=8)] = True
        prior = random.dirichlet(np.ones(4)) if seed % 2 else np.full(4, 0.25)
        subsets = [np.array(subset) for subset in product([False, True], repeat=4)]
        hall = all(prior[subset].sum() <= allowed[:, subset].any(axis=1).mean() + 1e-12 for subset in subsets)
        assert auction.feasible(allowed, prior) == hall

    def test_both_answers_occur(self) -> None:
        answers = set()
        for seed in range(30):
            random = np.random.default_rng(seed)
            allowed = random.random((8, 4)) < 0.35
            allowed[np.arange(8), random.integers(4, size=8)] = True
            answers.add(auction.feasible(allowed, np.full(4, 0.25)))
        assert answers == {True, False}


class Stream(auction.DenseMarket):
    """Scores that are only passed over: passes are counted, there is no mask, and lists come in no order."""

    def __init__(self, scores: Any) -> None:
        super().__init__(scores)
        self.allowed = None
        self.passes = 0
        self.longest = 0

    def best(self, rows: Any, price: Any, number: int) -> auction.Candidates:
        self.passes += 1
        found = super().best(rows, price, number)
        self.longest = max(self.longest, found.columns.shape[1])
        order = np.random.default_rng(self.passes).permutation(found.columns.shape[1])
        return found._replace(columns=found.columns[:, order], scores=found.scores[:, order])


def problem(kind: str, rows: int, columns: int, seed: int) -> Any:
    random = np.random.default_rng(seed)
    normal = random.normal(size=(rows, columns))
    if kind == "tied":
        return random.integers(3, size=(rows, columns)).astype(float)
    if kind == "flat":
        return np.full((rows, columns), 0.3)
    if kind == "alike":
        return np.tile(normal[:3], (rows // 3 + 1, 1))[:rows]
    if kind == "clustered":
        return 3 * random.normal(size=(4, columns))[random.integers(4, size=rows)] + 0.1 * normal
    return normal


def best_sum(scores: Any, sizes: Any) -> float:
    slots = np.repeat(np.arange(len(sizes)), sizes)
    rows, chosen = linear_sum_assignment(scores[:, slots], maximize=True)
    return float(scores[rows, slots[chosen]].sum())


class TestLazyAuction:
    @pytest.mark.parametrize("kind", ["random", "tied", "flat", "alike", "clustered"])
    @pytest.mark.parametrize("candidates", [1, 2, 3, 4])
    @pytest.mark.parametrize("seed", range(4))
    def test_is_optimal_within_the_certified_loss(
        self, kind: str, candidates: int, seed: int, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(auction, "EXACT_UP_TO", 0)
        monkeypatch.setattr(auction, "CANDIDATES", candidates)
        monkeypatch.setattr(auction, "LISTED", 0)  # lists stay that short
        random = np.random.default_rng(seed)
        scores = problem(kind, 90, 12, seed)
        sizes = random.multinomial(90, random.dirichlet(np.ones(12)))  # some of them 0
        market = Stream(scores)
        tolerance = [1e-2, 1e-4, 0.5][seed % 3]
        price = random.normal(size=12) * (seed > 1)
        labels, loss = auction.balanced_labels(market, sizes.astype(float), price, tolerance)
        np.testing.assert_array_equal(np.bincount(labels, minlength=12), sizes)
        missed = (best_sum(scores, sizes) - scores[np.arange(90), labels].sum()) / 90
        assert -1e-12 <= missed <= loss + 1e-12
        assert loss <= tolerance + 1e-12
        assert market.longest <= max(candidates, np.count_nonzero(sizes == 0))

    @pytest.mark.parametrize("candidates", [2, 16])
    @pytest.mark.parametrize("seed", range(4))
    def test_bounds_the_loss_over_all_sizes(self, candidates: int, seed: int, monkeypatch: Any) -> None:
        share = 90 * np.random.default_rng(seed).dirichlet(np.ones(12))
        scores = problem("clustered" if seed % 2 else "random", 90, 12, seed)
        exact, none = auction.balanced_labels(Stream(scores), share, np.zeros(12), 1e-3)
        assert none == 0
        monkeypatch.setattr(auction, "EXACT_UP_TO", 0)
        monkeypatch.setattr(auction, "CANDIDATES", candidates)
        labels, loss = auction.balanced_labels(Stream(scores), share, np.zeros(12), 1e-3)
        sizes = np.bincount(labels, minlength=12)
        assert (sizes >= np.floor(share)).all()
        assert (sizes <= np.ceil(share)).all()
        rows = np.arange(90)
        assert -1e-12 <= scores[rows, exact].mean() - scores[rows, labels].mean() <= loss + 1e-12

    @pytest.mark.parametrize("candidates", [1, 2, 4, 16])
    @pytest.mark.parametrize("seed", range(4))
    def test_heeds_forbidden_pairs_without_a_mask(self, candidates: int, seed: int, monkeypatch: Any) -> None:
        monkeypatch.setattr(auction, "EXACT_UP_TO", 0)
        monkeypatch.setattr(auction, "CANDIDATES", candidates)
        monkeypatch.setattr(auction, "LISTED", 0)
        scores = with_forbidden_pairs(60, 6, seed)
        labels, loss = auction.balanced_labels(Stream(scores), np.full(6, 10.0), np.zeros(6), 1e-3)
        assert set(np.bincount(labels)) == {10}
        missed = (best_sum(scores, np.full(6, 10)) - scores[np.arange(60), labels].sum()) / 60
        assert -1e-12 <= missed <= loss + 1e-12
        assert loss <= 1e-3 + 1e-12

    @pytest.mark.parametrize("candidates", [1, 2, 16])
    def test_says_without_a_mask_when_there_are_none(self, candidates: int, monkeypatch: Any) -> None:
        monkeypatch.setattr(auction, "EXACT_UP_TO", 0)
        monkeypatch.setattr(auction, "CANDIDATES", candidates)
        scores = scores_of(12, 3)
        scores[:8, 1:] = -np.inf
        with pytest.raises(ValueError, match="no labels without a forbidden pair"):
            auction.balanced_labels(Stream(scores), np.full(3, 4.0), np.zeros(3), 1e-3)

    @pytest.mark.parametrize("forbidden", [False, True])
    @pytest.mark.parametrize("seed", range(5))
    def test_never_takes_another_column_for_worth_less_than_it_is(
        self, forbidden: bool, seed: int, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(auction, "CANDIDATES", 3)
        random = np.random.default_rng(seed)
        scores = with_forbidden_pairs(40, 10, seed) if forbidden else scores_of(40, 10, seed=seed)
        lists = auction._Lists(Stream(scores), np.zeros(10))
        price = np.zeros(10)
        for step in range(40):
            price = np.where(np.isinf(price), 0, price) + random.normal(size=10) * random.integers(3, size=10)
            price[random.integers(10)] = random.choice([np.inf, 0.0])
            lists.move(price)
            if step % 5 == 4:
                lists.renew(random.choice(40, size=10, replace=False).tolist(), price, 0.1)
            others = scores - price
            np.put_along_axis(others, lists.columns, -np.inf, axis=1)
            assert (others.max(axis=1) <= lists.rest + 1e-12).all()
            np.testing.assert_array_equal(lists.scores, np.take_along_axis(scores, lists.columns, axis=1))
            np.testing.assert_array_equal(lists.content(price), (scores - price).max(axis=1))

    @pytest.mark.parametrize("kind", ["random", "tied", "flat", "alike", "clustered"])
    def test_needs_few_passes(self, kind: str) -> None:
        scores = problem(kind, 6000, 120, 0)
        market = Stream(scores)
        labels, loss = auction.balanced_labels(market, np.full(120, 50.0), np.zeros(120), 1e-3)
        assert set(np.bincount(labels)) == {50}
        assert loss <= 1e-3
        assert market.passes <= 12

    def test_needs_one_pass_if_every_column_is_on_the_list(self) -> None:
        market = Stream(scores_of(5000, 16))
        auction.balanced_labels(market, np.full(16, 312.5), np.zeros(16), 1e-3)
        assert market.passes == 1


class TestDenseMarket:
    @pytest.mark.parametrize("number", [1, 3, 7, 20])
    @pytest.mark.parametrize("tile", [1, 30, 2**18])
    def test_lists_the_best_columns(self, number: int, tile: int, monkeypatch: Any) -> None:
        monkeypatch.setattr(auction, "TILE", tile)
        scores, price = with_forbidden_pairs(30, 7), np.array([0.3, -1, 0, np.inf, 2, 0.1, 0])
        rows = np.random.default_rng(0).permutation(30)[:13]
        found = auction.DenseMarket(scores).best(rows, price, number)
        worth = (scores - price)[rows]
        m = min(number, 7)
        assert found.columns.shape == (13, m)
        np.testing.assert_array_equal(found.scores, np.take_along_axis(scores[rows], found.columns, axis=1))
        ranked = -np.sort(-worth, axis=1)
        listed = found.scores - price[found.columns]
        np.testing.assert_array_equal(-np.sort(-listed, axis=1), ranked[:, :m])
        np.testing.assert_array_equal(found.rest, ranked[:, m] if m < 7 else np.full(13, -np.inf))
        for row in found.columns:
            assert len(set(row)) == m
