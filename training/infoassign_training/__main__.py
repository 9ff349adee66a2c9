"""``python -m infoassign_training``, ``torchrun -m infoassign_training`` and ``infoassign``: one program."""

import sys
from importlib.util import find_spec

REQUIRED = ("torch", "torchvision", "sklearn", "tyro", "tqdm", "filelock", "matplotlib", "jinja2")
"""What the extra ``training`` installs, by import name."""


def main() -> int:
    """Run the command line; without the extra ``training``, say in one line what to install."""
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"infoassign: the command line needs {', '.join(missing)}; install it with:"
            " pip install 'infoassign[training]'\n"
        )
        return 1
    from infoassign_training.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
