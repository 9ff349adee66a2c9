"""Schedules at their ends and in between."""

import math
from itertools import pairwise

import numpy as np
import pytest

from infoassign_training.engine.schedule import cosine, divided, relabelling_times, warmup_cosine


def test_warmup_rises_linearly_and_the_rest_falls_to_zero() -> None:
    rates = [warmup_cosine(2.0, step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] > 0
    assert rates[100] == pytest.approx(0, abs=1e-15)


def test_without_warmup_the_first_step_has_the_peak() -> None:
    assert warmup_cosine(2.0, 0, 100, 0.0) == 2.0


def test_warmup_starts_and_the_cosine_ends_where_they_are_told() -> None:
    """MUSIC's rates, written out: 100 epochs of 7 steps, 10 of warm-up from 0, cosine to 0.002."""
    peak, steps, rising = 0.6 * 2048 / 256, 700, 70
    for step in range(steps + 1):
        rate = warmup_cosine(peak, step, steps, 10 / 100, final=0.002)
        along = (step - rising) / (steps - rising)
        expected = (
            peak * (step + 1) / rising
            if step < rising
            else 0.002 + (peak - 0.002) * (1 + math.cos(math.pi * along)) / 2
        )
        assert rate == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("epochs", [100, 200, 400, 800, 1000])
def test_warmup_given_in_epochs_ends_at_the_first_step_of_one(epochs: int) -> None:
    """MIRA's rates: from 0.3 absolute to 4.8 in ten epochs."""
    steps_per_epoch = 313
    rates = [warmup_cosine(4.8, step, epochs * steps_per_epoch, 10 / epochs, start=0.3) for step in range(3131)]
    rises = [after - before for before, after in pairwise(rates[:3130])]
    assert rises == pytest.approx([4.5 / 3130] * 3129, rel=1e-9)
    assert rates[0] == pytest.approx(0.3 + 4.5 / 3130)
    assert rates[3129] == pytest.approx(4.8)
    assert rates[3130] == 4.8


def test_rates_of_sela() -> None:
    """As the released code writes them down, for 400 epochs."""
    for epoch in range(400):
        code = (epoch < 350) * (0.05 * 0.1 ** (epoch // 150)) + (epoch >= 350) * 0.05 * 0.1**3
        assert divided(0.05, epoch, at=(150, 300, 350)) == pytest.approx(code, rel=1e-12)


def test_rates_of_layer_probes_and_of_nothing() -> None:
    rates = [divided(0.01, epoch, at=(5, 15, 25), by=5) for epoch in (4, 5, 14, 15, 24, 25, 35)]
    assert rates == pytest.approx([0.01, 0.002, 0.002, 0.0004, 0.0004, 0.00008, 0.00008])
    assert {divided(0.3, epoch, at=()) for epoch in range(10)} == {0.3}


@pytest.mark.parametrize(("count", "total"), [(2, 7), (3, 400), (80, 400), (160, 400), (80, 2_001_600), (50, 3)])
def test_relabelling_times_are_squares_from_start_to_end(count: int, total: int) -> None:
    times = relabelling_times(count, total)
    exact = np.linspace(0, 1, count) ** 2 * total
    assert times[0] == 0
    assert times[-1] == total
    assert all(before < after for before, after in pairwise(times))
    # Each exact time is served at the first unit that is not before it, and none besides.
    assert set(times) == {math.ceil(time - 1e-6) for time in exact}
    assert len(times) <= count


def test_relabelling_in_steps_drops_none_where_training_is_long() -> None:
    assert len(relabelling_times(80, 400 * 5004)) == 80
    assert len(relabelling_times(80, 400)) < 80


def test_relabelling_at_most_once_is_before_the_training() -> None:
    assert relabelling_times(1, 400) == (0,)
    assert relabelling_times(0, 400) == ()


def test_cosine_runs_either_way() -> None:
    assert cosine(0.95, 1.0, 0) == 0.95
    assert cosine(0.95, 1.0, 1) == 1.0
    assert cosine(0.95, 1.0, 0.5) == pytest.approx(0.975)
