"""The laws are worth what they reject: solvers and losses that are wrong on purpose, and right ones that pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, settings
from plain_solvers import altered, fixed_point
from scipy.special import softmax

import infoassign as ia
from infoassign.testing import assignment_laws, entropy_laws, laws, step_laws
from infoassign.testing.definitions import (
    joint_entropy_gradients,
    joint_entropy_loss,
    joint_entropy_terms,
    log_plan,
    segments,
)
from infoassign.testing.problems import Codes, known_problems, linear_code, one_hot_logits, planted_transport

QUICK = settings(derandomize=True, database=None, max_examples=15, phases=[Phase.generate])


def rejects(law: Callable[..., None], wrong: Callable[..., Any], example: Any) -> bool:
    try:
        law(wrong, example)
    except AssertionError:
        return True
    return False


# Solvers -------------------------------------------------------------------------------------------------------------


def one_sided(scores: Any, **options: Any) -> Any:
    """Normalises over the rows what has to be normalised over the labels."""
    found = fixed_point(scores, **options)
    return altered(found, plan=found.plan / np.maximum(found.plan.sum(axis=0), 1e-300) * len(scores) / scores.shape[1])


def without_exponent(scores: Any, *, tol: float, **options: Any) -> Any:
    """Forgets the exponent of eq. 7: Sinkhorn's step, for which nothing is penalised; believes that it converged."""
    found = fixed_point(scores, tol=tol, exponent=False, **options)
    return altered(found, gap=0.0, error_bound=tol / 2, row_error_bound=tol / 2, converged=True)


def beta_off(scores: Any, *, beta: float, **options: Any) -> Any:
    return ia.mira(scores, beta=1.02 * beta, **options)


def column_off(scores: Any, **options: Any) -> Any:
    return ia.mira(scores * np.where(np.arange(scores.shape[1]) == 0, 1.01, 1.0), **options)


def temperature_off(scores: Any, *, temperature: float, **options: Any) -> Any:
    return ia.mira(scores, temperature=1.01 * temperature, **options)


def stopped_early(scores: Any, *, tol: float, max_sweeps: int, **options: Any) -> Any:
    found = fixed_point(scores, tol=0.0, max_sweeps=min(max_sweeps, 8), **options)
    claimed = tol or found.error_bound
    return altered(found, error_bound=claimed, row_error_bound=claimed, converged=True)


def says_converged(scores: Any, **options: Any) -> Any:
    """Its bounds are right, and it does not look at them."""
    return altered(fixed_point(scores, **options), converged=True)


def bound_halved(scores: Any, **options: Any) -> Any:
    found = ia.mira(scores, **options)
    return altered(found, error_bound=found.error_bound / 2)


def row_bound_halved(scores: Any, **options: Any) -> Any:
    found = ia.mira(scores, **options)
    return altered(found, row_error_bound=found.row_error_bound / 2)


def gap_halved(scores: Any, **options: Any) -> Any:
    found = ia.mira(scores, **options)
    return altered(found, gap=found.gap / 2)


def ties_by_index(scores: Any, **options: Any) -> Any:
    return ia.mira(scores - 1e-6 * np.arange(scores.shape[1]), **options)


def ties_to_the_first(scores: Any, **options: Any) -> Any:
    """Where two labels of a row have the same score, the first gets what is for both."""
    found = ia.mira(scores, **options)
    plan = np.array(found.plan)
    for j in range(1, scores.shape[1]):
        for i in np.nonzero(scores[:, j] == scores[:, 0])[0]:
            plan[i, 0] += plan[i, j]
            plan[i, j] = 0
    return altered(found, plan=plan)


def forgets_the_mask(scores: Any, **options: Any) -> Any:
    return ia.mira(np.where(scores > -np.inf, scores, -10.0), **options)


def plan_of_the_step_before(scores: Any, *, max_sweeps: int, **options: Any) -> Any:
    found = fixed_point(scores, max_sweeps=max_sweeps, **options)
    before = fixed_point(scores, max_sweeps=max(1, found.sweeps - 1), **options)
    return altered(found, plan=before.plan)


def ignores_the_cap(scores: Any, *, max_sweeps: int, **options: Any) -> Any:
    return fixed_point(scores, max_sweeps=max_sweeps + 1, **options)


def slow(scores: Any, *, max_sweeps: int, **options: Any) -> Any:
    """Needs five passes for a step; everything it says is true."""
    found = fixed_point(scores, max_sweeps=max(1, max_sweeps // 5), **options)
    return altered(found, sweeps=min(5 * found.sweeps, max_sweeps))


def rows_not_averaged(scores: Any, *, beta: float, **options: Any) -> Any:
    """Weighs the marginal by the number of rows."""
    rho = beta * len(scores) / 4
    return ia.mira(scores, beta=rho / (rho + 1 - beta) if beta else 0.0, **options)


def reads_raw_scores(scores: Any, *, temperature: float, **options: Any) -> Any:
    del temperature
    return ia.mira(scores, **options)


def depends_on_the_level(scores: Any, **options: Any) -> Any:
    """A row's scores count less the higher they are."""
    level = np.max(scores, axis=1, keepdims=True)
    return ia.mira(scores / (1 + 1e-3 * np.maximum(level, 0)), **options)


def depends_on_the_place(scores: Any, **options: Any) -> Any:
    return ia.mira(scores * np.linspace(1, 1.001, len(scores))[:, None], **options)


def single_precision(scores: Any, **options: Any) -> Any:
    found = ia.mira(scores.astype(np.float32), **options)
    return altered(found, error_bound=0.0, row_error_bound=0.0, converged=True)


def wrong_information(scores: Any, **options: Any) -> Any:
    found = ia.mira(scores, **options)
    return altered(found, mutual_information=found.mutual_information / np.log(2))


def sharpened(scores: Any, **options: Any) -> Any:
    """Makes a good plan harder, for more information, and says that it is not sure."""
    found = fixed_point(scores, **options)
    plan = softmax(2 * np.log(np.maximum(found.plan, 1e-300)), axis=1)
    return altered(found, plan=np.where(scores > -np.inf, plan, 0))


def less_with_beta(scores: Any, *, beta: float, **options: Any) -> Any:
    """Loses information as beta grows."""
    return ia.mira(scores, beta=0.7 - min(beta, 0.7), **options)


def potential_off(scores: Any, **options: Any) -> Any:
    """Answers a potential with the other sign and a plan made with it."""
    found = fixed_point(scores, **options)
    potential = np.where(np.isfinite(found.potential), -found.potential, np.inf)
    plan = np.exp(log_plan(potential, scores / options["temperature"], 1 - options["beta"]))
    return altered(found, plan=plan, potential=potential)


def boastful_later(scores: Any, **options: Any) -> Any:
    found = fixed_point(scores, **options)
    return altered(found, error_bound=found.error_bound / 10) if found.sweeps > 5 and not found.converged else found


def gap_of_anything(scores: Any, **options: Any) -> Any:
    return altered(fixed_point(scores, **options), gap=np.inf)


def without_sweeps(scores: Any, **options: Any) -> Any:
    return altered(fixed_point(scores, **options), sweeps=0)


def writes_to_the_scores(scores: Any, **options: Any) -> Any:
    found = fixed_point(scores, **options)
    scores *= 0.5
    return found


SOLVERS = [
    boastful_later,
    gap_of_anything,
    without_sweeps,
    writes_to_the_scores,
    one_sided, without_exponent, beta_off, column_off, temperature_off, stopped_early, says_converged, bound_halved,
    row_bound_halved, gap_halved, ties_by_index, ties_to_the_first, forgets_the_mask, plan_of_the_step_before,
    ignores_the_cap, slow, rows_not_averaged, reads_raw_scores, depends_on_the_level, depends_on_the_place,
    single_precision, wrong_information, sharpened, less_with_beta, potential_off,
]  # fmt: skip


@pytest.mark.parametrize("solve", [ia.mira, fixed_point])
def test_right_solvers_pass(solve: Callable[..., Any]) -> None:
    laws.assignment_solver(solve, settings=QUICK)


@pytest.mark.parametrize("solve", SOLVERS)
def test_wrong_solvers_are_rejected(solve: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match="is broken"):
        laws.assignment_solver(solve, settings=QUICK)


REJECTED_BY = {
    assignment_laws.rows_are_distributions: one_sided,
    assignment_laws.plan_is_that_of_the_potential: temperature_off,
    assignment_laws.converged_means_within_tol: says_converged,
    assignment_laws.error_bound_holds_when_stopped_early: bound_halved,
    assignment_laws.gap_is_not_understated: gap_halved,
    assignment_laws.marginal_is_what_the_potential_asks_for: beta_off,
    assignment_laws.no_plan_is_better: beta_off,
    assignment_laws.order_of_rows_and_labels_does_not_matter: ties_by_index,
    assignment_laws.shifts_of_rows_do_not_matter: depends_on_the_level,
    assignment_laws.temperature_divides_the_scores: reads_raw_scores,
    assignment_laws.repeating_the_batch_changes_nothing: rows_not_averaged,
    assignment_laws.equal_labels_share_equally: ties_to_the_first,
    assignment_laws.small_beta_is_the_softmax: temperature_off,
    assignment_laws.information_is_within_its_bounds: wrong_information,
    assignment_laws.information_never_decreases_in_beta: less_with_beta,
    assignment_laws.converges_in_twice_the_proved_sweeps: slow,
    assignment_laws.every_start_leads_to_the_same_plan: temperature_off,
}
"""For every law a solver that it rejects on its own."""


def test_the_problem_is_shown_also_if_it_is_a_fixed_one() -> None:
    for solve in (bound_halved, lambda scores, **_: 1 / 0):
        with pytest.raises((AssertionError, ZeroDivisionError)) as broken:
            laws.assignment_solver(solve)
        assert "on the problem Problem(" in "".join(broken.value.__notes__)


@pytest.mark.parametrize("tol", [0, -1, np.nan, 2])
def test_a_tolerance_that_makes_laws_void_is_refused(tol: float) -> None:
    with pytest.raises(ValueError, match="tol must be between 0 and"):
        laws.assignment_solver(ia.mira, tol=tol)
    with pytest.raises(ValueError, match="tol must be between 0 and"):
        laws.entropy_objective(joint_entropy_loss, tol=tol)


def test_every_law_of_a_solver_is_here() -> None:
    assert set(REJECTED_BY) == {*assignment_laws.LAWS, assignment_laws.every_start_leads_to_the_same_plan}


@pytest.mark.parametrize("law", REJECTED_BY, ids=lambda law: law.__name__)
def test_every_law_rejects_a_wrong_solver_by_itself(law: Any) -> None:
    rejected = 0
    for problem in known_problems():
        law(ia.mira, problem)
        rejected += rejects(law, REJECTED_BY[law], problem)
    assert rejected


# Steps ---------------------------------------------------------------------------------------------------------------


def undamped(v: Any, scores: Any, *, epsilon: float, strength: float, prior: Any) -> Any:
    """``u <- wbar``."""
    if strength == np.inf:
        return v + 2 * epsilon * np.log(np.exp(log_plan(v, scores, epsilon)).mean(axis=0) / prior)
    return strength * np.log(np.exp(log_plan(v, scores, epsilon)).mean(axis=0) / prior)


def right_step(v: Any, scores: Any, *, epsilon: float, strength: float, prior: Any) -> Any:
    moved = v + epsilon * np.log(np.exp(log_plan(v, scores, epsilon)).mean(axis=0) / prior)
    return moved if strength == np.inf else strength / (strength + epsilon) * moved


def without_prior(v: Any, scores: Any, *, prior: Any, **options: Any) -> Any:
    return right_step(v, scores, prior=np.full_like(prior, 1 / len(prior)), **options)


def damped(v: Any, scores: Any, **options: Any) -> Any:
    return (v + right_step(v, scores, **options)) / 2


def modulus_off(v: Any, scores: Any, *, strength: float, **options: Any) -> Any:
    return right_step(v, scores, strength=1.02 * strength, **options)


STEPS = {
    step_laws.the_optimum_is_its_fixed_point: modulus_off,
    step_laws.contracts_by_its_modulus: undamped,
    step_laws.converges_linearly: damped,
    step_laws.contracts_in_hilberts_metric: damped,
    step_laws.raises_the_dual: damped,
}
"""For every law a step that it rejects on its own."""


def test_the_right_step_passes() -> None:
    laws.plain_step(right_step, settings=QUICK)


@pytest.mark.parametrize("step", [undamped, without_prior, damped, modulus_off])
def test_wrong_steps_are_rejected(step: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match="is broken"):
        laws.plain_step(step, settings=QUICK)


def test_what_is_wrong_only_once_is_rejected() -> None:
    calls, wrong = iter(range(10**9)), iter([100.0])

    def unsteady(v: Any, scores: Any, **options: Any) -> Any:
        late = next(calls) > 150 and len(v) > 2  # after the fixed problems
        return right_step(v, scores, **options) + (next(wrong, 0.0) if late else 0.0) * np.arange(len(v))

    with pytest.raises(AssertionError, match="answered differently"):
        laws.plain_step(unsteady, settings=QUICK)


@pytest.mark.parametrize("law", step_laws.LAWS, ids=lambda law: law.__name__)
def test_every_law_rejects_a_wrong_step_by_itself(law: Any) -> None:
    random, rejected = np.random.default_rng(0), 0
    for strength in (0.5, 4.0, np.inf):
        problem = planted_transport(random.normal(size=(6, 4)), 0.5, strength, np.array([0.4, 0.3, 0.2, 0.1]))
        law(right_step, problem)
        rejected += rejects(law, STEPS[law], problem)
    assert rejected


# Losses --------------------------------------------------------------------------------------------------------------


def right_loss(z1: Any, z2: Any, units: Any) -> Any:
    return joint_entropy_loss(z1, z2, units), *joint_entropy_gradients(z1, z2, units)


def by_complex_steps(value: Callable[..., Any]) -> Callable[..., Any]:
    """Give a wrong value the gradients that belong to it: what is wrong is the loss, not its derivative."""

    def loss(z1: Any, z2: Any, units: Any) -> Any:
        gradients = [np.zeros_like(z1), np.zeros_like(z2)]
        for view, gradient in enumerate(gradients):
            for place in np.ndindex(gradient.shape):
                logits = [z1.astype(complex), z2.astype(complex)]
                logits[view][place] += 1e-30j
                gradient[place] = value(*logits, units).imag / 1e-30
        return value(z1, z2, units).real, *gradients

    loss.__name__ = value.__name__
    return loss


@by_complex_steps
def grid_weights(z1: Any, z2: Any, units: Any) -> Any:
    """Both entropies divided by M^2, as in MUSIC's eq. 3."""
    diagonal, off_diagonal, invariance = joint_entropy_terms(z1, z2, units)
    return (diagonal + off_diagonal) / len(units) ** 2 + invariance


@by_complex_steps
def without_diagonal(z1: Any, z2: Any, units: Any) -> Any:
    _, off_diagonal, invariance = joint_entropy_terms(z1, z2, units)
    return off_diagonal / max(1, len(units) * (len(units) - 1)) + invariance


@by_complex_steps
def without_invariance(z1: Any, z2: Any, units: Any) -> Any:
    diagonal, off_diagonal, _ = joint_entropy_terms(z1, z2, units)
    return diagonal / len(units) + off_diagonal / max(1, len(units) * (len(units) - 1))


@by_complex_steps
def without_the_lower_blocks(z1: Any, z2: Any, units: Any) -> Any:
    """Counts the pairs m1 < m2 twice in the place of all."""
    q1, q2 = (_probabilities(z, units) for z in (z1, z2))
    joint, places = q1.T @ q2 / len(q1), segments(units)
    diagonal, _, invariance = joint_entropy_terms(z1, z2, units)
    upper = sum(_negentropy(joint[a, b]) for i, a in enumerate(places) for b in places[i + 1 :])
    return diagonal / len(units) + 2 * upper / max(1, len(units) * (len(units) - 1)) + invariance


@by_complex_steps
def without_the_last_block(z1: Any, z2: Any, units: Any) -> Any:
    q1, q2 = (_probabilities(z, units) for z in (z1, z2))
    joint, last = q1.T @ q2 / len(q1), segments(units)[-1]
    return joint_entropy_loss(z1, z2, units) - _negentropy(np.diagonal(joint[last, last])) / len(units)


@by_complex_steps
def whole_diagonal_blocks(z1: Any, z2: Any, units: Any) -> Any:
    """All elements of the blocks m1 = m2, not only d1 = d2."""
    q1, q2 = (_probabilities(z, units) for z in (z1, z2))
    joint = q1.T @ q2 / len(q1)
    _, off_diagonal, invariance = joint_entropy_terms(z1, z2, units)
    blocks = sum(_negentropy(joint[place, place]) for place in segments(units))
    return blocks / len(units) + off_diagonal / max(1, len(units) * (len(units) - 1)) + invariance


@by_complex_steps
def summed_over_segments(z1: Any, z2: Any, units: Any) -> Any:
    """The diagonal entropy not divided by M."""
    diagonal = joint_entropy_terms(z1, z2, units)[0]
    return joint_entropy_loss(z1, z2, units) + diagonal * (1 - 1 / len(units))


@by_complex_steps
def logarithm_inside(z1: Any, z2: Any, units: Any) -> Any:
    """The invariance of MUSIC's eq. 4 as printed."""
    diagonal, off_diagonal, _ = joint_entropy_terms(z1, z2, units)
    q1, q2 = (_probabilities(z, units) for z in (z1, z2))
    agreement = q1 * np.log(np.where(q2 == 0, 1, q2))
    invariance = -agreement.sum() / len(q1) / len(units)
    return diagonal / len(units) + off_diagonal / max(1, len(units) * (len(units) - 1)) + invariance


@by_complex_steps
def depends_on_the_level_of_logits(z1: Any, z2: Any, units: Any) -> Any:
    return joint_entropy_loss(z1, z2, units) + 1e-6 * z1.mean()


@by_complex_steps
def summed_over_rows(z1: Any, z2: Any, units: Any) -> Any:
    """The invariance not averaged over the rows."""
    invariance = joint_entropy_terms(z1, z2, units)[2]
    return joint_entropy_loss(z1, z2, units) + (len(z1) - 1) * invariance


@by_complex_steps
def asymmetric(z1: Any, z2: Any, units: Any) -> Any:
    """Sharpens the second view."""
    return joint_entropy_loss(z1, 1.01 * z2, units)


@by_complex_steps
def depends_on_the_order(z1: Any, z2: Any, units: Any) -> Any:
    """Weighs the segments by their places."""
    places = [np.full(size, 1 + 0.01 * m) for m, size in enumerate(units)]
    return joint_entropy_loss(z1 * np.concatenate(places), z2, units)


def clamped(z1: Any, z2: Any, units: Any) -> Any:
    """P is kept above 1e-8, as in the papers' listings."""
    q1, q2 = (_probabilities(z, units) for z in (z1, z2))
    joint = np.maximum(q1.T @ q2 / len(q1), 1e-8)
    places, value = segments(units), joint_entropy_terms(z1, z2, units)[2]
    for a in places:
        for b in places:
            weight = 1 / len(units) if a == b else 1 / (len(units) * (len(units) - 1))
            value += weight * _negentropy(np.diagonal(joint[a, b]) if a == b else joint[a, b])
    return value, *joint_entropy_gradients(z1, z2, units)


def doubled_gradient(z1: Any, z2: Any, units: Any) -> Any:
    value, first, second = right_loss(z1, z2, units)
    return value, first, 2 * second


def gradient_of_one_view(z1: Any, z2: Any, units: Any) -> Any:
    value, first, second = right_loss(z1, z2, units)
    return value, first, 0 * second


def exchanged_gradients(z1: Any, z2: Any, units: Any) -> Any:
    value, first, second = right_loss(z1, z2, units)
    return value, second, first


def gradient_in_probabilities(z1: Any, z2: Any, units: Any) -> Any:
    """Forgets the softmax's mean in the chain rule."""
    value, first, second = right_loss(z1, z2, units)
    return value, first + 1e-3 * _probabilities(z1, units), second


def summed_gradients(z1: Any, z2: Any, units: Any) -> Any:
    """Not divided by the number of rows."""
    value, first, second = right_loss(z1, z2, units)
    return value, len(z1) * first, len(z2) * second


def zero_times_infinity(z1: Any, z2: Any, units: Any) -> Any:
    """The logarithm of an empty cell, unguarded."""
    value, first, second = right_loss(z1, z2, units)
    q1, q2 = (_probabilities(z, units) for z in (z1, z2))
    empty = ((q1.T @ q2) == 0).any()
    return value, first * (np.nan if empty else 1.0), second


def _probabilities(z: Any, units: Any) -> Any:
    powers = [np.exp(z[:, place] - z[:, place].real.max(axis=1, keepdims=True)) for place in segments(units)]
    return np.concatenate([power / power.sum(axis=1, keepdims=True) for power in powers], axis=1)


def _negentropy(x: Any) -> Any:
    return (x * np.log(np.where(x == 0, 1, x))).sum()


LOSSES = [
    grid_weights, without_diagonal, without_invariance, without_the_lower_blocks, without_the_last_block,
    whole_diagonal_blocks, summed_over_segments, logarithm_inside, depends_on_the_level_of_logits,
    summed_over_rows, asymmetric,
    depends_on_the_order, clamped, doubled_gradient, gradient_of_one_view, exchanged_gradients,
    gradient_in_probabilities, summed_gradients, zero_times_infinity,
]  # fmt: skip

LOSS_REJECTED_BY = {
    entropy_laws.value_is_the_definition: grid_weights,
    entropy_laws.gradients_are_those_of_the_definition: doubled_gradient,
    entropy_laws.gradients_are_the_slopes_of_the_value: doubled_gradient,
    entropy_laws.value_is_above_its_lower_bound: summed_over_segments,
    entropy_laws.order_of_rows_segments_and_units_does_not_matter: depends_on_the_order,
    entropy_laws.views_can_be_exchanged: asymmetric,
    entropy_laws.repeating_the_batch_halves_the_gradients: summed_over_rows,
    entropy_laws.shifts_of_segments_do_not_matter: depends_on_the_level_of_logits,
    entropy_laws.zeros_are_exact: clamped,
}
"""For every law a loss that it rejects on its own."""


def test_the_right_loss_passes() -> None:
    laws.entropy_objective(right_loss, settings=QUICK)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_wrong_losses_are_rejected(loss: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match="is broken"):
        laws.entropy_objective(loss, settings=QUICK)


@pytest.mark.parametrize("law", entropy_laws.LAWS, ids=lambda law: law.__name__)
def test_every_law_rejects_a_wrong_loss_by_itself(law: Any) -> None:
    random, rejected = np.random.default_rng(0), 0
    hard = one_hot_logits(linear_code(3, 3)[:5], (3, 3, 3))
    for codes in (Codes(*random.normal(size=(2, 4, 6)), (2, 4)), Codes(hard, hard, (3, 3, 3))):
        law(right_loss, codes)
        rejected += rejects(law, LOSS_REJECTED_BY[law], codes)
    assert rejected


@pytest.mark.parametrize("loss", [grid_weights, summed_over_segments])
def test_the_law_of_orthogonal_arrays_rejects_other_bounds(loss: Callable[..., Any]) -> None:
    entropy_laws.orthogonal_arrays_attain_the_bound(right_loss)
    with pytest.raises(AssertionError, match="orthogonal_arrays_attain_the_bound"):
        entropy_laws.orthogonal_arrays_attain_the_bound(loss)
