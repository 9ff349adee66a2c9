"""Laws of a joint-entropy loss of two views' soft codes (MUSIC, IMSVD), whatever it is written with.

The contract: ``loss(z1, z2, units)`` returns ``(value, gradient1, gradient2)`` of ``DE / M + OE / (M (M - 1)) + TI``
(theory, B1: the released weights) for logits of shape (N, sum of units), NumPy float64, with the gradients in the
logits; `units` is a tuple of the segments' sizes. What it returns may be of any library.

Each law is a function ``law(loss, codes, tol=1e-9)`` of a :class:`infoassign.testing.problems.Codes`; `tol` is the
error that the loss may have, relative to 1 plus what is right. A loss in single precision is tested with, say, 1e-4.

Examples
--------
>>> import infoassign as ia
>>> def music(z1, z2, units):
...     return ia.music_loss_and_gradient(z1, z2, segment_size=units[0])
>>> z1, z2 = np.random.default_rng(0).normal(size=(2, 6, 4))
>>> value_is_the_definition(music, Codes(z1, z2, (2, 2)))
>>> def on_a_grid(z1, z2, units):
...     return ia.music_loss_and_gradient(z1, z2, segment_size=units[0], normalization="grid")
>>> value_is_the_definition(on_a_grid, Codes(z1, z2, (2, 2)))  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
AssertionError: value_is_the_definition (B1) is broken: the value is off by ...
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from infoassign.testing.contract import host, law, require
from infoassign.testing.definitions import Matrix, entropy_lower_bound, joint_entropy_loss, segments
from infoassign.testing.problems import Codes, linear_code, one_hot_logits

TOL = 1e-9
"""The error that a loss in double precision may have."""
Loss = Callable[..., Any]


def _of(loss: Loss, codes: Codes) -> tuple[float, Matrix, Matrix]:
    """Evaluate a loss, and check the form of what it returns."""
    given = codes.z1.copy(), codes.z2.copy()
    value, first, second = loss(*given, codes.units)
    same = np.array_equal(given[0], codes.z1) and np.array_equal(given[1], codes.z2)
    require(same, "the logits that were given have been written to")
    found = float(value), host(first), host(second)
    require(found[1].shape == codes.z1.shape, f"the first gradient has shape {found[1].shape}")
    require(found[2].shape == codes.z2.shape, f"the second gradient has shape {found[2].shape}")
    require(all(np.isfinite(part).all() for part in found), "the value or a gradient is not finite")
    return found


def _near(found: Any, right: Any, tol: float, what: str) -> None:
    off = float(np.max(np.abs(found - right), initial=0.0))
    scale = 1 + float(np.max(np.abs(right), initial=0.0))
    require(off <= tol * scale, f"{what} is off by {off:.3g}")


@law("B1")
def value_is_the_definition(loss: Loss, codes: Codes, tol: float = TOL) -> None:
    """The value is that of the formula, transcribed literally."""
    _near(_of(loss, codes)[0], joint_entropy_loss(*codes), tol, "the value")


@law("B7")
def gradients_are_those_of_the_definition(loss: Loss, codes: Codes, tol: float = TOL) -> None:
    """Along random directions of either view, and along each logit of small codes, by a complex step of the formula."""
    _, *slopes = _of(loss, codes)
    random = np.random.default_rng(0)
    for view, slope in enumerate(slopes):
        directions = list(random.normal(size=(3, *slope.shape)))
        if slope.size <= 24:
            directions += list(np.eye(slope.size).reshape(-1, *slope.shape))
        for direction in directions:
            logits: list[Any] = [codes.z1, codes.z2]
            logits[view] = logits[view] + 1e-30j * direction
            right = joint_entropy_loss(logits[0], logits[1], codes.units).imag / 1e-30
            _near(np.sum(slope * direction), right, tol, f"a slope of view {view + 1}")


@law("B7")
def gradients_are_the_slopes_of_the_value(loss: Loss, codes: Codes, tol: float = TOL) -> None:
    """The gradients belong to the loss's own value, whatever its weights: by central differences."""
    _, *slopes = _of(loss, codes)
    random = np.random.default_rng(1)
    h = 0.1 * np.cbrt(tol)
    for view, slope in enumerate(slopes):
        direction = random.normal(size=slope.shape)
        direction /= np.sqrt(np.sum(direction**2))
        ends = [[codes.z1, codes.z2] for _ in range(2)]
        ends[0][view], ends[1][view] = codes[view] + h * direction, codes[view] - h * direction
        ahead, behind = (_of(loss, Codes(one, other, codes.units))[0] for one, other in ends)
        _near(
            np.sum(slope * direction), (ahead - behind) / (2 * h), 10 * tol / h + h**2, f"the slope of view {view + 1}"
        )


@law("B2", "B3")
def value_is_above_its_lower_bound(loss: Loss, codes: Codes, tol: float = TOL) -> None:
    """``-log D`` per segment (``-2/e`` for two units), ``-log D' - log D''`` per pair, and 0 for the invariance."""
    value, bound = _of(loss, codes)[0], entropy_lower_bound(codes.units)
    require(value >= bound - tol, f"the value {value:.9g} is below the bound {bound:.9g}")


@law("B1")
def order_of_rows_segments_and_units_does_not_matter(loss: Loss, codes: Codes, tol: float = TOL) -> None:
    """The same order of rows, segments or a segment's units in both views keeps the value and orders the gradients."""
    value, first, second = _of(loss, codes)
    rows = np.arange(len(codes.z1))
    places = [np.arange(place.start, place.stop) for place in segments(codes.units)]
    here = np.concatenate(places)
    backwards = np.concatenate(places[::-1])
    turned = np.concatenate([place[::-1] for place in places])
    for name, row_order, order, units in (
        ("rows", rows[::-1], here, codes.units),
        ("segments", rows, backwards, codes.units[::-1]),
        ("units", rows, turned, codes.units),
    ):
        at = np.ix_(row_order, order)
        found = _of(loss, Codes(codes.z1[at], codes.z2[at], units))
        for part, right, what in zip(
            found, (value, first[at], second[at]), ("value", "gradient", "gradient"), strict=True
        ):
            _near(part, right, tol, f"the {what} after reordering the {name}")


@law("B1")
def views_can_be_exchanged(loss: Loss, codes: Codes, tol: float = TOL) -> None:
    """The joint distribution is transposed, of which all terms are symmetric."""
    value, first, second = _of(loss, codes)
    other, *gradients = _of(loss, Codes(codes.z2, codes.z1, codes.units))
    _near(other, value, tol, "the value for exchanged views")
    _near(gradients[0], second, tol, "the first gradient for exchanged views")
    _near(gradients[1], first, tol, "the second gradient for exchanged views")


@law("B1")
def repeating_the_batch_halves_the_gradients(loss: Loss, codes: Codes, tol: float = TOL) -> None:
    """With every row there twice all means stay, and each copy has half of the gradient."""
    value, first, second = _of(loss, codes)
    twice = Codes(np.concatenate([codes.z1] * 2), np.concatenate([codes.z2] * 2), codes.units)
    other, *gradients = _of(loss, twice)
    _near(other, value, tol, "the value of the repeated batch")
    for gradient, right in zip(gradients, (first, second), strict=True):
        _near(gradient, np.concatenate([right] * 2) / 2, tol, "a gradient of the repeated batch")


@law("B1")
def shifts_of_segments_do_not_matter(loss: Loss, codes: Codes, tol: float = TOL) -> None:
    """A constant added to a row's logits of one segment changes nothing, so there the gradient sums to 0."""
    value, *slopes = _of(loss, codes)
    random = np.random.default_rng(2)
    for place in segments(codes.units):
        for slope in slopes:
            off = np.abs(slope[:, place].sum(axis=1)).max()
            require(off <= tol, f"a gradient sums to {off:.3g} over a segment")
    shifts = [np.repeat(random.normal(size=(len(z), len(codes.units))) * 3, codes.units, axis=1) for z in codes[:2]]
    other, *gradients = _of(loss, Codes(codes.z1 + shifts[0], codes.z2 + shifts[1], codes.units))
    _near(other, value, tol, "the value after shifts")
    for gradient, right in zip(gradients, slopes, strict=True):
        _near(gradient, right, tol, "a gradient after shifts")


@law("B7")
def zeros_are_exact(loss: Loss, codes: Codes, tol: float = TOL) -> None:
    """For one-hot codes ``0 log 0`` is 0, nothing is clamped, and the gradients vanish with the softmax's slope."""
    words = np.stack([codes.z1[:, place].argmax(axis=1) for place in segments(codes.units)], axis=1)
    z = one_hot_logits(words, codes.units)
    value, first, second = _of(loss, Codes(z, z, codes.units))
    _near(value, joint_entropy_loss(z, z, codes.units), tol, "the value of a one-hot code")
    for slope in (first, second):
        require(np.abs(slope).max() <= tol, f"a gradient of a one-hot code is {np.abs(slope).max():.3g}")


@law("B4")
def orthogonal_arrays_attain_the_bound(loss: Loss, tol: float = TOL) -> None:
    """One-hot codes whose words form an orthogonal array reach the lower bound; with one symbol changed they do not."""
    for levels, factors in ((3, 2), (3, 4), (5, 3)):
        words, units = linear_code(levels, factors), (levels,) * factors
        z = one_hot_logits(words, units)
        value, bound = _of(loss, Codes(z, z, units))[0], entropy_lower_bound(units)
        _near(value, bound, tol, f"the value of the orthogonal array of {factors} factors with {levels} levels")
        words[0, 0] = (words[0, 0] + 1) % levels
        z = one_hot_logits(words, units)
        changed = _of(loss, Codes(z, z, units))[0]
        require(changed > bound + 10 * tol, f"with a symbol changed the value is still {changed:.9g}")


LAWS = (
    value_is_the_definition,
    gradients_are_those_of_the_definition,
    gradients_are_the_slopes_of_the_value,
    value_is_above_its_lower_bound,
    order_of_rows_segments_and_units_does_not_matter,
    views_can_be_exchanged,
    repeating_the_batch_halves_the_gradients,
    shifts_of_segments_do_not_matter,
    zeros_are_exact,
)
"""All laws of codes; the one of orthogonal arrays brings its own."""
