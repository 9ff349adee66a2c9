"""What the strategies draw is what they say, and known answers are answers."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from float64_oracles import family_optimum, mean_total_variation
from hypothesis import Phase, find, given, settings

from infoassign.testing import Codes, Problem, Transport, strategies
from infoassign.testing.definitions import entropy_lower_bound, joint_entropy_loss, segments
from infoassign.testing.problems import known_problems, linear_code

few = settings(max_examples=25)


@pytest.mark.parametrize("problem", known_problems(), ids=lambda problem: problem.name)
def test_known_answers(problem: Problem) -> None:
    usable = (problem.scores > -np.inf).any(axis=0)
    optimum, residual = family_optimum(
        problem.scaled[:, usable], problem.epsilon, problem.beta, np.full(usable.sum(), 1 / len(usable))
    )
    assert residual < 1e-13
    assert mean_total_variation(problem.plan[:, usable], optimum) < 1e-12 + problem.rounding


@few
@given(strategies.transports())
def test_planted_members_of_the_family(problem: Transport) -> None:
    rows = problem.plan.sum(axis=1)
    np.testing.assert_allclose(rows, 1, atol=1e-14)
    assert problem.prior.sum() == pytest.approx(1)
    assert (problem.prior > 0).all()
    assert (problem.plan[problem.scores == -np.inf] == 0).all()
    if problem.strength == np.inf:
        np.testing.assert_allclose(problem.plan.mean(axis=0), problem.prior, atol=1e-14)


@given(strategies.scores())
def test_scores_are_valid(scores: Any) -> None:
    assert scores.dtype == np.float64
    assert not np.isnan(scores).any()
    assert (scores < np.inf).all()
    assert (scores > -np.inf).any(axis=1).all()


@given(strategies.problems())
def test_problems_are_valid(problem: Problem) -> None:
    assert problem.plan.shape == problem.scores.shape
    np.testing.assert_allclose(problem.plan.sum(axis=1), 1, atol=1e-13)
    assert 0 <= problem.beta <= 0.9
    assert problem.rounding < 1e-9


@given(strategies.soft_codes())
def test_codes_are_valid(codes: Codes) -> None:
    assert codes.z1.shape == codes.z2.shape == (len(codes.z1), sum(codes.units))
    assert len(segments(codes.units)) == len(codes.units)


@pytest.mark.theorem("B2", "B4")
@few
@given(strategies.optimal_codes())
def test_optimal_codes_are_optimal(codes: Codes) -> None:
    assert joint_entropy_loss(*codes) == pytest.approx(entropy_lower_bound(codes.units), abs=1e-12)


def test_all_kinds_are_drawn() -> None:
    once = settings(database=None, derandomize=True, max_examples=5000, phases=[Phase.generate])
    for name in ("planted", "identical rows", "block-diagonal", "one label", "permuted planted", "two clusters"):
        assert find(strategies.problems(), lambda problem, name=name: problem.name == name, settings=once).name == name
    find(strategies.scores(), lambda scores: (scores == -np.inf).any(), settings=once)
    find(strategies.scores(), lambda scores: (scores == -np.inf).all(axis=0).any(), settings=once)
    find(strategies.scores(), lambda scores: np.abs(scores).max() == 300, settings=once)
    find(strategies.plans(2, 3), lambda plan: (plan == 1).any(), settings=once)
    find(strategies.soft_codes(), lambda codes: len(set(codes.units)) > 1 and 1 in codes.units, settings=once)


@pytest.mark.theorem("B4")
@pytest.mark.parametrize(("levels", "strength"), [(2, 2), (3, 2), (5, 2), (7, 2), (3, 3)])
def test_linear_codes_are_orthogonal_arrays(levels: int, strength: int) -> None:
    words = linear_code(levels, levels + 1 if strength == 2 else levels, strength)
    for columns in combinations(range(words.shape[1]), strength):
        seen = {tuple(word) for word in words[:, columns].tolist()}
        assert len(seen) == len(words) == levels**strength


@pytest.mark.parametrize(
    ("levels", "factors", "message"), [(4, 3, "prime"), (1, 1, "prime"), (3, 5, "levels \\+ 1 = 4")]
)
def test_codes_that_there_are_not(levels: int, factors: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_code(levels, factors)
