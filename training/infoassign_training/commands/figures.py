"""``infoassign figures``: the papers' figures of a run, as pictures and as numbers."""

import sys
from difflib import get_close_matches
from typing import Annotated

import tyro

from infoassign_training.errors import UserError
from infoassign_training.figures.options import FIGURES, Options


def figures(names: tyro.conf.Positional[tuple[str, ...]], options: Annotated[Options, tyro.conf.arg(name="")]) -> None:
    """Draw the papers' figures of a run: each as PNG and as SVG, and its numbers as JSON.

    For example, `infoassign figures convergence --run runs/first`.

    Args:
        names: Which; without any they are listed.
    """
    if not names:
        sys.stdout.write(listed())
        return
    for name in names:
        if name not in FIGURES:
            near = get_close_matches(name.lower(), FIGURES, n=1, cutoff=0)[0]
            raise UserError(f"no figure is called {name!r}; did you mean {near!r}? There are {', '.join(FIGURES)}")
    if (options.run is None) == (options.scores is None):
        raise UserError("say what the figures are of: --run RUN, or for convergence --scores FILE.npy")
    if options.images < 1:
        raise UserError(f"--images must be positive; got {options.images}")
    from infoassign_training.figures.gallery import draw

    for path in draw(names, options):
        sys.stdout.write(f"  {path}\n")


def listed() -> str:
    """List the figures, a line each."""
    width = max(map(len, FIGURES))
    return "figures\n" + "".join(f"  {name:<{width}}  {shown}\n" for name, shown in FIGURES.items())
