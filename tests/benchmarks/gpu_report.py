"""What gpu.py measured, as records, verdicts and Markdown; the standard library alone."""

import json
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

Line = dict[str, Any]
"""What was measured of one thing: "what", "seconds" (all timed runs) and whatever else there is to say of it."""


class Target(NamedTuple):
    """What was to be reached."""

    what: str
    found: float | None
    """None where it could not be measured."""
    bound: float
    at_least: bool
    """Whether the bound is one from below."""

    @property
    def verdict(self) -> str:
        if self.found is None or isnan(self.found):
            return "not measured"
        reached = self.found >= self.bound if self.at_least else self.found <= self.bound
        return "met" if reached else "missed"


def at_least(what: str, found: float | None, bound: float) -> Target:
    return Target(what, found, bound, at_least=True)


def at_most(what: str, found: float | None, bound: float) -> Target:
    return Target(what, found, bound, at_least=False)


def quotient(one: float | None, other: float | None) -> float | None:
    """Return one over the other, None where there is either not."""
    return None if one is None or not other else one / other


def shown(value: Any) -> str:
    """Return a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value).replace("|", "/").replace("\n", " ")


def milliseconds(times: list[float]) -> str:
    """Return the median of some seconds, and between what they were."""
    if not times:
        return ""
    low, middle, high = (f"{1000 * found:.4g}" for found in (min(times), median(times), max(times)))
    return middle if len(times) == 1 else f"{middle} ({low} to {high})"


def table(lines: list[Line]) -> str:
    """Return Markdown, with a column for whatever some line has."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    heads = ["ms, median (least to most)" if name == "seconds" else "" if name == "what" else name for name in names]
    text = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for line in lines:
        cells = [milliseconds(line.get(name, [])) if name == "seconds" else shown(line.get(name)) for name in names]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def verdicts(targets: list[Target], *, dry: bool) -> str:
    """Return Markdown; a dry run has no verdicts."""
    text = ["| target | wanted | found | |", "|---|---|---|---|"]
    for target in targets:
        wanted = f"{'at least' if target.at_least else 'at most'} {shown(target.bound)}"
        verdict = "dry run" if dry else f"**{target.verdict}**"
        text.append(f"| {shown(target.what)} | {wanted} | {shown(target.found)} | {verdict} |")
    return "\n".join(text)


def markdown(found: dict[str, Any]) -> str:
    """Return all of it, for a page to include."""
    said = []
    if found["dry run"]:
        said.append(f"**Dry run ({found['dry run']}): these numbers show that the program runs, and nothing else.**")
    said.append(f"Machine and versions: {', '.join(f'{key} {value}' for key, value in found['machine'].items())}.")
    for name, part in found["parts"].items():
        said.append(f"**{part['title']}** (`--only {name}`)")
        if part["about"]:
            said.append(part["about"])
        if part["lines"]:
            said.append(table(part["lines"]))
        if part["targets"]:
            said.append(verdicts([Target(*target) for target in part["targets"]], dry=bool(found["dry run"])))
        said += part["said"]
        said += [f"**Error**: {shown(error)}" for error in part["errors"]]
    return "\n\n".join(said) + "\n"


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write the numbers and the Markdown, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("gpu.json", json.dumps(found, indent=1) + "\n"), ("gpu.md", markdown(found))):
        unfinished = folder / f"{name}.part"
        unfinished.write_text(text)
        unfinished.replace(folder / name)
