"""The parts of a labelled data set."""

from typing import NamedTuple

from infoassign_training.data.images import Images


class Splits(NamedTuple):
    """What is fitted on, what is scored on, and between them what settings are chosen on, where the set has it."""

    train: Images
    test: Images
    validation: Images | None = None
    note: str = ""
