"""``infoassign figures``: the papers' figures of a run, as pictures and as numbers."""

import sys
from difflib import get_close_matches
from typing import Annotated

import tyro

from infoassign_training.errors import UserError
from infoassign_training.figures.options import FIGURES, Options


def figures(names: tyro.conf.Positional[tuple[str, ...]], options: Annotated[Options, tyro.conf.arg(name="")]) -> None:
    """Draw the papers' figures of a run: each as PNG and as SVG, and its numbers as JSON.

    For example, `infoassign figures convergence --run runs/first`, or `infoassign figures all --run runs/first` for
    every figure that can be made of a run.

    Args:
        names: Which, or all; without any they are listed.
    """
    if not names:
        sys.stdout.write(listed())
        return
    every = names == ("all",)
    names = tuple(FIGURES) if every else names
    for name in names:
        if name not in FIGURES:
            near = get_close_matches(name.lower(), FIGURES, n=1, cutoff=0)[0]
            raise UserError(f"no figure is called {name!r}; did you mean {near!r}? There are {', '.join(FIGURES)}")
    if (options.run is None) == (options.scores is None):
        raise UserError("say what the figures are of: --run RUN, or for convergence --scores FILE.npy")
    if options.images < 1:
        raise UserError(f"--images must be positive; got {options.images}")
    from infoassign_training.figures.gallery import draw

    for found in draw(names, options):
        if isinstance(found, UserError):
            if not every:
                raise found
            sys.stdout.write(f"  left out: {found}\n")
        else:
            sys.stdout.write(f"  {found}\n")


def listed() -> str:
    """List the figures, a line each."""
    width = max(map(len, FIGURES))
    shown = FIGURES | {"all": "all of them that can be made of the run"}
    return "figures\n" + "".join(f"  {name:<{width}}  {words}\n" for name, words in shown.items())
