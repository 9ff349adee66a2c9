"""A run that is small enough to be made in the tests, made once."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from infoassign_training import pipeline
from infoassign_training.config import Model, Pretraining
from infoassign_training.methods.settings import Mira

SMALL = Pretraining(
    epochs=2,
    model=Model(widths=(4, 8), features=16, projector_hidden=16, projection=8),
    method=Mira(prototypes=12),
)


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
