"""scikit-learn's digits on a CPU: the smallest real data there is, in about a minute."""

from infoassign_training.config import Pretraining
from infoassign_training.recipes import Recipe


def digits_mira() -> Recipe:
    """MIRA."""
    return Recipe(
        name="digits-mira",
        summary="MIRA on 8 x 8 handwritten digits",
        needs="2 CPU cores, half a minute",
        expected="",
        settings=Pretraining(),
    )
