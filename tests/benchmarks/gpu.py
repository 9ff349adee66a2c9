"""How fast the CUDA kernels are, beside what the card can do and what one would write in torch: one command, 8 minutes.

    PYTHONPATH=.:backends:training python tests/benchmarks/gpu.py

does all of it from a bare checkout, with torch and Triton alone, and writes gpu.json and gpu.md into docs/measured. The
ceilings (device copies, products of matrices) are always measured first; shares of them are in all the other tables. It
writes after every part, so that a run that is cut off keeps what it has. A part that fails, crashes or hangs is
recorded and does not stop the others; the exit status is then 1.

    gpu.py --only mira swav      some parts only
    gpu.py --quick --out /tmp/x  small sizes: whether all kernels compile and are right, in a minute or two
    gpu.py --tune --out /tmp/x   other shapes of the kernels' programs instead, the fastest for each dtype
    gpu.py --device cpu --quick  a dry run without a device, in half a minute: whether this program works

Medians of runs timed by CUDA events, without the first two calls; the first, which compiles, is reported apart.
"""

import argparse
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gpu_report

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "measured"
PARTS = ("ceilings", "mira", "joint", "sela", "swav", "sweep", "cupy", "resnet")
"""In the order in which they run."""
PATIENCE = 180.0
"""Seconds that a part may take, compilation included, before it is taken to hang."""
PART_SECONDS = {"tune": 3600.0}
"""Those of parts that take longer."""
PATHS = "PYTHONPATH=.:backends:training"
NEEDS = {
    "torch": "install torch with CUDA (https://pytorch.org)",
    "infoassign": f"run this from the checkout's folder with {PATHS}",
    "infoassign_backends": f"run this from the checkout's folder with {PATHS}",
    "array_api_compat": (
        "the one dependency of infoassign that images often lack, pure Python in one file. pip install"
        " array-api-compat; without internet, `pip download --no-deps array-api-compat` elsewhere, bring the wheel"
        f" along, and put that file itself on the path: {PATHS}:array_api_compat-1.16.0-py3-none-any.whl"
    ),
    "numpy": "pip install numpy",
    "scipy": "pip install scipy",
}
"""What nothing here runs without, and what to do about it."""


def missing() -> list[str]:
    """Return what to do before this can run."""
    return [f"{name} cannot be imported: {advice}" for name, advice in NEEDS.items() if find_spec(name) is None]


def asked(*command: str) -> str | None:
    """Return what a program says; None where there is no such program, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, cwd=ROOT)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None


def machine(device: str) -> dict[str, Any]:
    """Return what is measured on."""
    import torch

    found: dict[str, Any] = {"date": date.today().isoformat(), "commit": asked("git", "rev-parse", "--short", "HEAD")}
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "card": properties.name,
            "memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "multiprocessors": properties.multi_processor_count,
            "driver": asked("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "CUDA": torch.version.cuda,
        }
    found["python"] = platform.python_version()
    for package in ("torch", "triton", "numpy", "cupy-cuda13x", "cupy-cuda12x", "cupy", "torchvision"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {key: value for key, value in found.items() if value is not None}


def no_device(device: str) -> str | None:
    """Return why a device cannot be used."""
    if device == "cpu":
        return None
    import torch

    if torch.version.cuda is None:
        return "this torch has been built without CUDA"
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


def work(names: list[str], device: str, quick: bool, ceilings: dict[str, Any], tell: Connection) -> None:
    """Measure parts, one after the other, in a process of their own, and tell of each when it begins and ends."""
    if device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is loaded
    import gpu_parts

    for name in names:
        tell.send((name, None))
        found = gpu_parts.measured(name, device, quick, ceilings)
        ceilings = found.pop("ceilings") or ceilings
        broken = found.pop("broken")
        tell.send((name, {**found, "for others": ceilings}))
        if broken:  # the device answers no more in this process; another one can do the rest
            return


def nothing(name: str, why: str) -> dict[str, Any]:
    """Return the record of a part that came to nothing."""
    return {"title": name, "about": "", "lines": [], "targets": [], "said": [], "errors": [why], "took": 0.0}


class Runs:
    """Parts in processes of their own: a crash, or a device that answers no more, costs one part.

    Parameters
    ----------
    device, quick
        As on the command line.
    deadline
        When to stop, by ``time.monotonic``.
    """

    def __init__(self, device: str, quick: bool, deadline: float) -> None:
        self._settings, self._deadline = (device, quick), deadline
        self._ceilings: dict[str, Any] = {}

    def one_after_the_other(self, names: list[str]) -> Any:
        """Yield the name and the record of every part."""
        waiting = list(names)
        while waiting:
            if time.monotonic() >= self._deadline:
                yield waiting.pop(0), nothing("Not begun", "no time was left for it (--minutes)")
                continue
            for name, found in self._in_a_process(waiting):
                waiting.remove(name)
                yield name, found

    def _in_a_process(self, names: list[str]) -> Any:
        """Yield what a process finds, until it ends, hangs or there is no time left."""
        spawn = multiprocessing.get_context("spawn")
        hear, tell = spawn.Pipe(duplex=False)
        process = spawn.Process(target=work, args=(list(names), *self._settings, self._ceilings, tell))
        process.start()
        tell.close()  # or its end would not be heard
        expected, begun, answered = list(names), False, False
        try:
            while expected:
                patience = min(PART_SECONDS.get(expected[0], PATIENCE), self._deadline - time.monotonic())
                if not hear.poll(max(1.0, patience)):
                    yield expected[0], nothing(expected[0], f"stopped: no answer after {patience:.0f} s")
                    return
                name, found = hear.recv()
                begun, answered = found is None, True
                if found is not None:
                    self._ceilings = found.pop("for others")
                    expected.remove(name)
                    yield name, found
                    if time.monotonic() >= self._deadline:
                        return
        except EOFError:
            process.join()
            if begun or not answered:  # otherwise it stopped between two parts, to be begun anew
                yield expected[0], nothing(expected[0], f"its process ended with status {process.exitcode}")
        finally:
            process.join(0 if expected else 20)
            process.kill()
            process.join()


def options_from(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes; written only where --out says")
    parser.add_argument("--tune", action="store_true", help="time other shapes of the kernels' programs instead")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu with --quick for a dry run")
    parser.add_argument("--minutes", type=float, default=8.0, help="parts that have not begun by then are left out (8)")
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.md (docs/measured)")
    options = parser.parse_args(arguments)
    options.dry = "on a CPU" if options.device == "cpu" else "small sizes" if options.quick else ""
    if options.device == "cpu" and not options.quick:
        parser.error("--device cpu is for a dry run: add --quick")
    if options.out is None and not (options.dry or options.tune or options.only):
        options.out = FOLDER  # what is not all of it does not overwrite what is
    docs = ROOT / "docs"
    if options.dry and options.out is not None and options.out.resolve().is_relative_to(docs.resolve()):
        parser.error("what a dry run finds does not belong into the documentation: give another --out")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; return the exit status."""
    options = options_from(arguments)
    obstacles = missing()
    if not obstacles:
        why = no_device(options.device)
        obstacles = [] if why is None else [f"{why}; nothing is measured, and nothing is written"]
    if obstacles:
        print("\n".join(f"gpu.py: {said}" for said in obstacles), file=sys.stderr)
        return 2
    names = ["tune"] if options.tune else [name for name in PARTS if name in {"ceilings", *(options.only or PARTS)}]
    found = {"dry run": options.dry, "machine": machine(options.device), "parts": {}}
    runs = Runs(options.device, options.quick, time.monotonic() + 60 * options.minutes)
    for name, part in runs.one_after_the_other(names):
        found["parts"][name] = part
        print(f"{name}: {part['took']:.0f} s, {len(part['errors'])} errors", file=sys.stderr, flush=True)
        if options.out is not None:
            gpu_report.write(options.out, found)
    print(gpu_report.markdown(found))
    if options.out is None:
        print("gpu.py: nothing is written; give --out", file=sys.stderr)
    return 1 if any(part["errors"] for part in found["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
