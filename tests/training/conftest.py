"""A run that is small enough to be made in the tests, made once."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from digit_runs import SMALL

from infoassign_training import pipeline
from infoassign_training.config import Pretraining


@dataclass(frozen=True)
class FinishedRun:
    """A run folder and the scores that its pipeline returned."""

    folder: Path
    scores: dict[str, dict[str, float]]


@pytest.fixture
def small() -> Pretraining:
    """Settings of a run of seconds."""
    return SMALL


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run made with the small settings; tests must not change its folder."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    return FinishedRun(folder, pipeline.pretrain("small", SMALL, folder))
