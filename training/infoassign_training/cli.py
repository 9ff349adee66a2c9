"""The command line: ``infoassign pretrain | report | recipes``.

Parsing, printing and exit codes; the work is in :mod:`infoassign_training.pipeline`. torch is imported only
by the commands that need it, so that help is there at once.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import tyro

import infoassign
from infoassign_training.config import Pretraining
from infoassign_training.errors import UserError
from infoassign_training.recipes import RECIPES

PROGRAM = "infoassign"
FLAGS = (tyro.conf.FlagCreatePairsOff,)


@dataclass(frozen=True)
class Pretrain:
    """The options of ``infoassign pretrain RECIPE``."""

    out: Path
    """Folder of the run: settings, log, checkpoint, metrics, report and pictures."""
    settings: Annotated[Pretraining, tyro.conf.arg(name="")]
    resume: bool = False
    """Continue the run in the folder after its last whole epoch, with the settings it was started with."""
    overwrite: bool = False
    """Delete the run in the folder first."""


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name and return the exit code."""
    try:
        match arguments:
            case ["pretrain", *options] if recipe := _recipe_among(options):
                options.remove(recipe)
                _pretrain(recipe, options)
            case ["--version"]:
                sys.stdout.write(f"{PROGRAM} {infoassign.__version__}\n")
            case _:
                _other(arguments)
    except KeyboardInterrupt:
        sys.stderr.write(f"{PROGRAM}: interrupted; a run that had begun continues with --resume\n")
        return 130
    except (UserError, OSError) as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return 1
    return 0


def _recipe_among(options: Sequence[str]) -> str | None:
    """Return the recipe among the words after ``pretrain``, wherever it stands; else a first word that is none."""
    first = options[0] if options and not options[0].startswith("-") else None
    return next((word for word in options if word in RECIPES), first)


def _pretrain(recipe: str, options: Sequence[str]) -> None:
    """Parse the options over the settings of the recipe, or of the run to resume; train, evaluate, report."""
    if recipe not in RECIPES:
        near = get_close_matches(recipe, RECIPES, n=1, cutoff=0)[0]
        raise UserError(f"no recipe is called {recipe!r}; did you mean {near!r}? `{PROGRAM} recipes` lists them all")
    command = _parse(recipe, RECIPES[recipe].settings, options)
    if command.resume:
        from infoassign_training.engine.run import Run

        # What the run was started with need not be said again; what is said must agree with it.
        command = _parse(recipe, Run(command.out).read().settings, options)
    sys.stderr.write(f"{recipe}: {command.settings.epochs} epochs, to {command.out}\n")
    import torch

    from infoassign_training import pipeline

    if "OMP_NUM_THREADS" not in os.environ:
        # Images of 8 x 8: several threads are no faster, and on a busy machine wait for each other most of the time.
        torch.set_num_threads(1)
    scores = pipeline.pretrain(
        recipe, command.settings, command.out, resume=command.resume, overwrite=command.overwrite
    )
    sys.stdout.write(f"\n{_table(scores)}\n\nReport: {command.out / 'report.html'}\n")


def _parse(recipe: str, settings: Pretraining, options: Sequence[str]) -> Pretrain:
    command = tyro.cli(
        Pretrain,
        default=Pretrain(out=tyro.MISSING, settings=settings),
        description=f"{RECIPES[recipe].summary}: train an encoder, evaluate it beside raw pixels, write a report.",
        prog=f"{PROGRAM} pretrain {recipe}",
        args=options,
        config=FLAGS,
    )
    return replace(command, out=command.out.expanduser())


def _other(arguments: Sequence[str]) -> None:
    """Run the commands whose options do not depend on a recipe, and the help of all."""

    def pretrain(recipe: tyro.conf.Positional[str]) -> None:
        """Train an encoder, evaluate it and write a report.

        Args:
            recipe: What to run; `infoassign recipes` lists them, and `infoassign pretrain RECIPE --help` shows all
                that can be set.
        """
        _pretrain(recipe, ())

    def report(run: tyro.conf.Positional[Path]) -> None:
        """Evaluate a finished run again and write its report anew.

        Args:
            run: The folder of the run.
        """
        from infoassign_training import pipeline

        run = run.expanduser()
        scores = pipeline.report(run)
        sys.stdout.write(f"\n{_table(scores)}\n\nReport: {run / 'report.html'}\n")

    def recipes() -> None:
        """List what can be run."""
        for recipe in RECIPES.values():
            sys.stdout.write(
                f"{recipe.name}\n    {recipe.summary}\n    needs     {recipe.needs}\n    expected  {recipe.expected}\n"
            )
        sys.stdout.write(f"\nRun one with `{PROGRAM} pretrain RECIPE --out FOLDER`.\n")

    commands: dict[str, Any] = {"pretrain": pretrain, "report": report, "recipes": recipes}
    tyro.extras.subcommand_cli_from_dict(
        commands,
        prog=PROGRAM,
        description="Pretrain vision encoders with information-theoretic assignments.",
        args=arguments,
        config=FLAGS,
    )


def _table(scores: dict[str, dict[str, float]]) -> str:
    """Lay out scores by representation and protocol as text."""
    protocols = next(iter(scores.values()))
    rows = [("held-out", list(scores))]
    rows += [(name, [f"{values[name]:.4f}" for values in scores.values()]) for name in protocols]
    return "\n".join(f"{name:<12}" + "".join(f"{cell:>10}" for cell in cells) for name, cells in rows)
