"""How many threads compute on the CPU."""

import os


def set_threads(*, small: bool) -> None:
    """Take one thread for images of 8 x 8, unless told otherwise.

    Several are no faster then, and on a busy machine wait for each other most of the time.
    """
    if "OMP_NUM_THREADS" not in os.environ and small:
        import torch

        torch.set_num_threads(1)
