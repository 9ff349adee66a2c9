"""Schedules at their ends and in between."""

import pytest

from infoassign_training.engine.schedule import cosine, warmup_cosine


def test_warmup_rises_linearly_and_the_rest_falls_to_zero() -> None:
    rates = [warmup_cosine(2.0, step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] > 0
    assert rates[100] == pytest.approx(0, abs=1e-15)


def test_without_warmup_the_first_step_has_the_peak() -> None:
    assert warmup_cosine(2.0, 0, 100, 0.0) == 2.0


def test_cosine_runs_either_way() -> None:
    assert cosine(0.95, 1.0, 0) == 0.95
    assert cosine(0.95, 1.0, 1) == 1.0
    assert cosine(0.95, 1.0, 0.5) == pytest.approx(0.975)
