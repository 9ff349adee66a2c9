"""The command line: ``infoassign pretrain | evaluate | label | export | figures | report | recipes | ...``.

Parsing, printing and exit codes; the work is in :mod:`infoassign_training.pipeline`. torch is imported only
by the commands that need it, so that help is there at once.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import groupby, pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

import infoassign
from infoassign.files import write_text
from infoassign_training.commands import evaluate as evaluating
from infoassign_training.commands.export import export
from infoassign_training.commands.figures import figures
from infoassign_training.commands.label import label
from infoassign_training.commands.pack import pack
from infoassign_training.config import Pretraining
from infoassign_training.data.settings import Digits, named
from infoassign_training.engine.launch import translate
from infoassign_training.errors import UserError
from infoassign_training.recipes import RECIPES, Recipe
from infoassign_training.threads import set_threads

PROGRAM = "infoassign"
FLAGS = (tyro.conf.FlagCreatePairsOff,)


@dataclass(frozen=True)
class Pretrain:
    """The options of ``infoassign pretrain RECIPE``."""

    out: Path
    """Folder of the run: settings, log, checkpoint, metrics, report and pictures."""
    settings: Annotated[Pretraining, tyro.conf.arg(name="")]
    data: str | None = None
    """Where the images are: a folder, or KIND:WHERE to read others than the recipe names, as in folder:pictures,
    packed:imagenet-256, cifar10:/data or hub:uoft-cs/cifar10; synthetic for noise."""
    resume: bool = False
    """Continue the run in the folder after the last step that was saved, with the settings it was started with."""
    overwrite: bool = False
    """Delete the run in the folder first."""
    tensorboard: bool = False
    """Write what goes to log.jsonl for TensorBoard, too, to a folder of that name in the run's."""


@dataclass(frozen=True)
class Throughput:
    """The options of ``infoassign throughput RECIPE``."""

    settings: Annotated[Pretraining, tyro.conf.arg(name="")]
    data: str | None = None
    """Where the images are, as for pretrain; as many take part as are needed. Without it, noise."""
    steps: int = 20
    """Steps that are measured."""
    warmup: int = 5
    """Steps before them."""
    json: Path | None = None
    """File to write the results to, too."""


@dataclass(frozen=True)
class Estimate:
    """The options of ``infoassign estimate RECIPE``."""

    gpus: str
    """How many of which, as in 8xH100."""
    settings: Annotated[Pretraining, tyro.conf.arg(name="")]
    images: int = 0
    """Images of an epoch; 0 for those of the recipe's data set."""
    measured: Path | None = None
    """What `throughput --json` wrote on such a GPU, with the same settings: its speed in place of the table's."""


Command = TypeVar("Command", Pretrain, Throughput, Estimate)


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name and return the exit code."""
    translate(os.environ)
    try:
        match arguments:
            case ["pretrain" | "throughput" | "estimate" as command, *options] if (
                place := _recipe_among(options)
            ) is not None:
                recipe = options.pop(place)
                {"pretrain": _pretrain, "throughput": _throughput, "estimate": _estimate}[command](recipe, options)
            case ["evaluate", *options] if (place := evaluating.among(options)) is not None:
                evaluating.run(options.pop(place), options)
            case ["--version"]:
                sys.stdout.write(f"{PROGRAM} {infoassign.__version__}\n")
            case _:
                _other(arguments)
    except KeyboardInterrupt:
        resumable = {*arguments[:1]} & {"pretrain", "evaluate"}
        advice = "; a run that had begun continues with --resume" if resumable else ""
        sys.stderr.write(f"{PROGRAM}: interrupted{advice}\n")
        return 130
    except (UserError, OSError) as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return 1
    return 0


def _recipe_among(options: Sequence[str]) -> int | None:
    """Return where among the words after the command the recipe is; without one, a first word that is none."""
    # What follows --out is a folder, even if it is named like a recipe.
    places = [
        place for place, word in enumerate(options) if word in RECIPES and options[place - 1 : place] != ["--out"]
    ]
    if places:
        return places[0]
    return 0 if options and not options[0].startswith("-") else None


def _pretrain(recipe: str, options: Sequence[str]) -> None:
    """Parse the options over the settings of the recipe, or of the run to resume; train, evaluate, report."""
    command = _parse(recipe, _known(recipe).settings, options)
    if command.resume:
        from infoassign_training.engine.run import Run

        # What the run was started with need not be said again; what is said must agree with it.
        command = _parse(recipe, Run(command.out).read().settings, options)
    first = os.environ.get("RANK", "0") == "0"
    if first:
        sys.stderr.write(f"{recipe}: {command.settings.epochs} epochs, to {command.out}\n")
    from infoassign_training import pipeline

    set_threads(small=isinstance(command.settings.data, Digits))
    scores = pipeline.pretrain(
        recipe,
        command.settings,
        command.out,
        resume=command.resume,
        overwrite=command.overwrite,
        tensorboard=command.tensorboard,
    )
    if first:
        _say_results(scores, command.out)
        _say_bottleneck(command.out)


def _throughput(recipe: str, options: Sequence[str]) -> None:
    """Measure some steps of a recipe."""
    given = any(option.partition("=")[0] == "--data" for option in options)
    settings = _known(recipe).settings
    command = _options(Throughput(_with_data(recipe, settings, options)), recipe, options)
    from infoassign_training.engine import throughput

    settings = command.settings
    throughput.require_steps(command.steps, command.warmup)
    if not given:
        settings = throughput.on_noise(settings, settings.batch_size * (command.steps + command.warmup))
    set_threads(small=isinstance(settings.data, Digits))
    found = throughput.measure(settings, steps=command.steps, warmup=command.warmup)
    if os.environ.get("RANK", "0") != "0":
        return
    sys.stdout.write(f"{recipe}\n{found.table()}\n")
    if command.json is not None:
        written = {"recipe": recipe, **found.to_dict(), "settings": settings.flat()}
        write_text(command.json.expanduser(), json.dumps(written, indent=2) + "\n")


def _estimate(recipe: str, options: Sequence[str]) -> None:
    """Estimate memory and time of a recipe on GPUs that need not be there."""
    command = _options(Estimate(tyro.MISSING, _known(recipe).settings), recipe, options)
    from infoassign_training.engine import estimate

    gpus, device = estimate.parse_gpus(command.gpus)
    speed = _measured(recipe, command.measured) if command.measured else 0.0
    found = estimate.estimate(
        recipe,
        command.settings,
        gpus,
        device,
        images=command.images,
        pieces=command.settings.accumulate,
        precision=command.settings.precision,
        measured=speed,
    )
    sys.stdout.write(f"{found.table()}\n")


def _measured(recipe: str, file: Path) -> float:
    """Read the images a second and device that ``throughput`` found for a recipe."""
    try:
        found = json.loads(file.expanduser().read_text())
        of, speed = found["recipe"], float(found["images_per_second_per_device"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not what `{PROGRAM} throughput --json` writes") from error
    if of != recipe:
        raise UserError(f"{file} was measured of {of}, not of {recipe}")
    return speed


def _known(recipe: str) -> Recipe:
    if recipe not in RECIPES:
        near = get_close_matches(recipe.lower(), RECIPES, n=1, cutoff=0)[0]
        raise UserError(f"no recipe is called {recipe!r}; did you mean {near!r}? `{PROGRAM} recipes` lists them all")
    return RECIPES[recipe]


def _say_results(scores: dict[str, dict[str, float]], run: Path) -> None:
    if scores:
        sys.stdout.write(f"\n{_table(scores)}\n")
    sys.stdout.write(f"\nReport: {run / 'report.html'}\n")


def _say_bottleneck(run: Path) -> None:
    """Say where the time of a run went, if its log knows."""
    from infoassign_training import timing
    from infoassign_training.engine.run import Run

    shares = timing.over_epochs(Run(run).records())
    if shares:
        sys.stdout.write(f"Time: {timing.split(shares)}\n{timing.bottleneck(shares)}\n")


def _parse(recipe: str, settings: Pretraining, options: Sequence[str]) -> Pretrain:
    """Parse the options of ``pretrain``."""
    start = Pretrain(out=tyro.MISSING, settings=_with_data(recipe, settings, options))
    command = _options(start, recipe, options)
    return replace(command, out=command.out.expanduser())


def _with_data(recipe: str, settings: Pretraining, options: Sequence[str]) -> Pretraining:
    """Take the images that ``--data`` names, which decides which other settings of the data there are."""
    words = [option.partition("=")[2] for option in options if option.startswith("--data=")]
    words += [word for option, word in pairwise(options) if option == "--data"]
    if not words:
        return settings
    if isinstance(settings.data, Digits):
        raise UserError(
            f"{recipe} trains on the digits that come with scikit-learn, not on {words[-1]};"
            f" `{PROGRAM} recipes` lists those for images of yours"
        )
    try:
        return replace(settings, data=named(words[-1], settings.data))
    except ValueError as error:
        raise UserError(str(error)) from error


PURPOSES = {
    Pretrain: "train an encoder, and write a report.",
    Throughput: "measure how fast it trains on this machine, and where the time goes.",
    Estimate: "estimate memory and time on GPUs, from the table of devices.",
}


def _options(start: Command, recipe: str, options: Sequence[str]) -> Command:
    """Parse options over those that a command starts with."""
    kind = type(start)
    try:
        return tyro.cli(
            kind,
            default=start,
            description=f"{RECIPES[recipe].summary}: {PURPOSES[kind]}",
            prog=f"{PROGRAM} {kind.__name__.lower()} {recipe}",
            args=options,
            config=FLAGS,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def _other(arguments: Sequence[str]) -> None:
    """Run the commands whose options do not depend on a recipe, and the help of all."""

    def pretrain(recipe: tyro.conf.Positional[str]) -> None:
        """Train an encoder, evaluate it and write a report.

        Args:
            recipe: What to run; `infoassign recipes` lists them, and `infoassign pretrain RECIPE --help` shows all
                that can be set.
        """
        _pretrain(recipe, ())

    def evaluate(protocol: tyro.conf.Positional[str]) -> None:
        """Evaluate an encoder by a protocol of the papers.

        For example, `infoassign evaluate knn --checkpoint runs/first --data digits`.

        Args:
            protocol: What to do; `infoassign protocols` lists them, and `infoassign evaluate PROTOCOL --help` shows all
                that can be set.
        """
        evaluating.run(protocol, ())

    def throughput(recipe: tyro.conf.Positional[str]) -> None:
        """Measure how fast a recipe trains on this machine, and where the time goes.

        Args:
            recipe: What to measure; `infoassign throughput RECIPE --help` shows all that can be set.
        """
        _throughput(recipe, ())

    def estimate(recipe: tyro.conf.Positional[str]) -> None:
        """Estimate memory and time of a recipe on GPUs that need not be there.

        Args:
            recipe: What to estimate; `infoassign estimate RECIPE --help` shows all that can be set.
        """
        _estimate(recipe, ())

    def report(run: tyro.conf.Positional[Path]) -> None:
        """Evaluate a finished run again and write its report anew, with what `infoassign figures` has drawn of it.

        Args:
            run: The folder of the run.
        """
        from infoassign_training import pipeline

        run = run.expanduser()
        _say_results(pipeline.report(run), run)

    def recipes(name: tyro.conf.Positional[str] = "") -> None:
        """List what can be run, or show one recipe with all its settings.

        Args:
            name: A recipe to show; a part of a name lists those that have it.
        """
        sys.stdout.write(_shown(RECIPES[name]) if name in RECIPES else _listed(name))

    commands: dict[str, Any] = {
        "pretrain": pretrain,
        "evaluate": evaluate,
        "throughput": throughput,
        "estimate": estimate,
        "report": report,
        "recipes": recipes,
        "protocols": evaluating.protocols,
        "pack": pack,
        "export": export,
        "label": label,
        "figures": figures,
    }
    tyro.extras.subcommand_cli_from_dict(
        commands,
        prog=PROGRAM,
        description="Pretrain vision encoders with information-theoretic assignments.",
        args=arguments,
        config=FLAGS,
    )


def _listed(part: str) -> str:
    """List recipes, a line each, by where they come from."""
    found = [recipe for recipe in RECIPES.values() if part in recipe.name]
    if not found:
        near = get_close_matches(part.lower(), RECIPES, n=1, cutoff=0)[0]
        raise UserError(f"no recipe has {part!r} in its name; did you mean {near!r}?")
    lines = []
    width = max(len(recipe.name) for recipe in found)
    for source, group in groupby(found, key=lambda recipe: recipe.source):
        lines.append(f"{source}")
        for recipe in group:
            reached = recipe.measured or recipe.published
            lines.append(f"  {recipe.name:<{width}}  {recipe.summary}; {recipe.hardware}, {recipe.hours}; {reached}")
    lines.append(f"\n`{PROGRAM} recipes NAME` shows one; `{PROGRAM} pretrain NAME --out FOLDER` runs it.")
    return "\n".join(lines) + "\n"


def _shown(recipe: Recipe) -> str:
    """Show all there is to say of a recipe."""
    place = "" if isinstance(recipe.settings.data, Digits) else " --data WHERE"
    facts = {
        "from": recipe.source,
        "hardware": recipe.hardware,
        "hours": recipe.hours,
        "published": recipe.published or "nothing",
        "measured": recipe.measured or "not run",
        "run it": f"{PROGRAM} pretrain {recipe.name}{place} --out FOLDER",
    }
    lines = [recipe.name, f"  {recipe.summary}"]
    lines += [f"  {name:<10} {fact}" for name, fact in facts.items()]
    lines += ["settings"]
    lines += [f"  {name:<36} {value}" for name, value in recipe.settings.flat().items()]
    return "\n".join(lines) + "\n"


def _table(scores: dict[str, dict[str, float]]) -> str:
    """Lay out scores by representation and protocol as text."""
    protocols = next(iter(scores.values()))
    rows = [("held-out", list(scores))]
    rows += [(name, [f"{values[name]:.4f}" for values in scores.values()]) for name in protocols]
    return "\n".join(f"{name:<12}" + "".join(f"{cell:>10}" for cell in cells) for name, cells in rows)
