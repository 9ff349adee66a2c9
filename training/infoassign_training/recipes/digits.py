"""scikit-learn's digits on a CPU: the smallest real data there is, in under a minute."""

from infoassign_training.config import Mira, Pretraining
from infoassign_training.recipes import Recipe


def digits_mira() -> Recipe:
    """MIRA with beta 0.9 throughout."""
    return Recipe(
        name="digits-mira",
        summary="MIRA on 8 x 8 handwritten digits",
        needs="2 CPU cores",
        expected="",
        settings=Pretraining(mira=Mira(beta_start=0.9, beta_end=0.75)),
    )
