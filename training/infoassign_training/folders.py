"""Folders that are there whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """Give a folder to write to that takes the place of `out` when everything is in it.

    If anything goes wrong before, also while the one takes the other's place, `out` is as it was.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> out = Path(mkdtemp()) / "out"
    >>> with appearing(out) as folder:
    ...     _ = (folder / "answer.txt").write_text("42")
    >>> [path.name for path in out.iterdir()]
    ['answer.txt']
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    new, old = (out.with_name(f".{out.name}.{which}-{uuid4().hex[:8]}") for which in ("new", "old"))
    new.mkdir()
    try:
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
