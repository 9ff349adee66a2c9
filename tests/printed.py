"""What examples and the notebook print: its numbers, and what is left of it without them."""

import re

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")


def numbers(line: str) -> list[float]:
    """Return the numbers that stand in a line, a per cent as 1, not as .01."""
    return [float(found) for found in NUMBER.findall(line)]


def named(text: str, name: str) -> list[float]:
    """Return the numbers of the only line that starts with a name, after it."""
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return numbers(line.removeprefix(name))


def words(text: str) -> list[str]:
    """Return the lines without their numbers, spaces and the names of pictures."""
    masked = (re.sub(r"\S*\.png", "", NUMBER.sub("#", line)) for line in text.splitlines())
    return [" ".join(line.split()) for line in masked]
