# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "infoassign[torch,fast]",
#     "lightly==1.6.0",
#     "matplotlib==3.11.2",
#     "numba==0.68.1",
#     "numpy==2.4.6",
#     "ott-jax==0.6.0",
#     "jax==0.10.2",
#     "pot==0.9.7.post1",
#     "torch==2.15.0",
# ]
#
# [tool.uv.sources]
# infoassign = { path = "../..", editable = true }
# ///
"""The solvers beside what one would otherwise use, on the CPU: the tables and the picture of docs/benchmarks.md.

    uv run tests/benchmarks/peers.py               all, about ten minutes, in an environment of its own
    uv run tests/benchmarks/peers.py --only POT    infoassign and those whose name has POT in it
    uv run tests/benchmarks/peers.py --help

Scores in, plan out. All are given float32 arrays of their own library, and as many threads as the machine has. Those
that stop by a tolerance get the loosest one (1, 2 or 5 times a power of ten) with which the target is reached, measured
against a float64 solution. They take turns: in every round each runs once untimed, so that threads of the last one are
asleep and its own awake, and then once timed. Memory is the largest resident set while one runs, less that before.
"""

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CDLL
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from problems import similarities
from torch import Tensor

import infoassign as ia
from infoassign_backends import BACKENDS, host

TEMPERATURE, BETA, EPSILON = 0.225, 2 / 3, 0.05
TOLERANCES = [float(f"{digit}e-{n}") for n in range(4, 11) for digit in (5, 2, 1)]
LONG = 1.0
"""Seconds from which on a run is not repeated untimed, and only three times timed."""
FOLDER = Path(__file__).parents[2] / "docs"


class Peer(NamedTuple):
    """One way to a plan."""

    name: str
    solve: Callable[..., Any]
    """Called without arguments, or with a tolerance."""
    by_tolerance: bool = True


class Problem(NamedTuple):
    """What is to be solved, and how well."""

    name: str
    title: str
    peers: list[Peer]
    error: Callable[[Any], float]
    """What the target is about."""
    target: float
    exact: Any
    """The plan, in float64."""
    nbytes: int


def eq7(logits: Tensor, steps: int = 30) -> Tensor:
    """MIRA's eq. 7 to the letter, in torch."""
    p = torch.softmax(logits / TEMPERATURE, dim=1)
    u = p.new_full((p.shape[1],), 1 / p.shape[1])
    for _ in range(steps):
        w = (p / u**BETA) ** (1 / (1 - BETA))
        w = w / w.sum(dim=1, keepdim=True)
        u = w.mean(dim=0) ** (1 - BETA) * u**BETA
    w = (p / u**BETA) ** (1 / (1 - BETA))
    return w / w.sum(dim=1, keepdim=True)


@contextmanager
def without_numba() -> Iterator[None]:
    """Have NumPy do the passes."""
    host.COMPILE_FROM, before = 2**62, host.COMPILE_FROM
    try:
        yield
    finally:
        host.COMPILE_FROM = before


@contextmanager
def by_reference() -> Iterator[None]:
    """Have the reference serve NumPy's arrays, by operations of the array-API standard alone."""
    BACKENDS["numpy"], before = "infoassign_backends.reference", BACKENDS["numpy"]
    try:
        yield
    finally:
        BACKENDS["numpy"] = before


def ours(solve: Callable[..., Any], scores: Any, by_tolerance: bool = True, **options: Any) -> list[Peer]:
    """Solve by every backend for NumPy and torch on the CPU."""
    tensor = torch.from_numpy(scores)

    def found(given: Any, tol: float) -> Any:
        return solve(given, tol=tol, **options).plan

    def pure(tol: float = 0.0) -> Any:
        with without_numba():
            return found(scores, tol)

    def reference(tol: float = 0.0) -> Any:
        with by_reference():
            return found(scores, tol)

    return [
        Peer("infoassign, NumPy with numba", lambda tol=0.0: found(scores, tol), by_tolerance),
        Peer("infoassign, torch with numba", lambda tol=0.0: found(tensor, tol), by_tolerance),
        Peer("infoassign, NumPy alone", pure, by_tolerance),
        Peer("infoassign, the reference", reference, by_tolerance),
    ]


def pot(scores: Any, epsilon: float, strength: float) -> list[Peer]:
    """POT on NumPy arrays and on torch tensors; costs are minus the scores."""
    import ot

    def solve(method: str, given: Any, tol: float) -> Any:
        rows, columns = given.shape
        full = torch.full if isinstance(given, Tensor) else np.full
        kind = {} if isinstance(given, Tensor) else {"dtype": given.dtype}
        a, b = full((rows,), 1 / rows, **kind), full((columns,), 1 / columns, **kind)
        if strength < np.inf:
            plan = ot.unbalanced.sinkhorn_unbalanced(
                a, b, -given, epsilon, (np.inf, strength), reg_type="entropy", stopThr=tol, numItermax=10_000
            )
        else:
            plan = ot.sinkhorn(a, b, -given, epsilon, method=method, stopThr=tol)
        return plan * rows

    arrays = {"NumPy": scores, "torch": torch.from_numpy(scores)}
    if strength < np.inf:
        return [
            Peer(f"POT sinkhorn_unbalanced, {name}", lambda tol, given=given: solve("sinkhorn", given, tol))
            for name, given in arrays.items()
        ]
    # The log domain on NumPy arrays takes several times as long as on torch tensors.
    return [
        Peer(f"POT {method}, {name}", lambda tol, given=arrays[name], method=method: solve(method, given, tol))
        for method, name in (("sinkhorn", "NumPy"), ("sinkhorn", "torch"), ("sinkhorn_log", "torch"))
    ]


def ott(scores: Any, epsilon: float, strength: float) -> list[Peer]:
    """OTT-JAX, compiled before it is timed, in the log domain and with a kernel."""
    import jax
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    given, modulus = jax.numpy.asarray(scores), 1.0 if strength == np.inf else strength / (strength + epsilon)

    def peer(name: str, log_domain: bool) -> Peer:
        @jax.jit
        def compiled(s: Any, tol: Any) -> Any:
            problem = linear_problem.LinearProblem(geometry.Geometry(-s, epsilon=epsilon), tau_b=modulus)
            return sinkhorn.Sinkhorn(lse_mode=log_domain, threshold=tol, max_iterations=10_000)(problem).matrix

        return Peer(name, lambda tol: np.asarray(compiled(given, tol)) * len(scores))

    return [peer("OTT-JAX, log domain", True), peer("OTT-JAX, kernel", False)]


def lightly(scores: Any, steps: int) -> list[Peer]:
    """lightly's transcription of SwAV's listing."""
    from lightly.loss.swav_loss import sinkhorn

    given = torch.from_numpy(scores)
    return [Peer("lightly", lambda: sinkhorn(given, iterations=steps, epsilon=EPSILON), False)]


def total_variation(plan: Any, exact: Any) -> float:
    """The mean over rows."""
    return float(np.abs(np.asarray(plan, dtype=float) - exact).sum(axis=1).mean() / 2)


def marginal_error(plan: Any) -> float:
    """The larger of the L1 distances of both marginals from equal shares."""
    plan = np.asarray(plan, dtype=float)
    of_rows = float(np.abs(plan.sum(axis=1) - 1).mean())
    return max(of_rows, float(np.abs(plan.mean(axis=0) - 1 / plan.shape[1]).sum()))


def swav_steps(scores: Any, steps: int) -> Any:
    """SwAV's listing in float64."""
    q = np.exp(scores.astype(float) / EPSILON)
    for _ in range(steps):
        q /= q.sum(axis=0) * q.shape[1]
        q /= q.sum(axis=1, keepdims=True)
    return q


def problems(sizes: list[tuple[int, int]], others: bool) -> Iterator[Problem]:
    """Make the problems one after the other, with their float64 solutions; peers are imported only if asked for."""
    for rows, columns in sizes:
        cosines = similarities(rows, columns).astype(np.float32)
        exact = ia.mira(cosines.astype(float), beta=BETA, temperature=TEMPERATURE, tol=1e-10).plan
        peers = ours(ia.mira, cosines, beta=BETA, temperature=TEMPERATURE)
        tensor = torch.from_numpy(cosines)
        peers.append(Peer("eq. 7 in torch, 30 steps", lambda tensor=tensor: eq7(tensor), False))
        if others:
            epsilon, strength = (1 - BETA) * TEMPERATURE, BETA * TEMPERATURE
            peers += pot(cosines, epsilon, strength) + ott(cosines, epsilon, strength)
        title = f"MIRA, beta 2/3, temperature .225, {rows} x {columns}, to a mean total variation of 1e-6"
        error = partial(total_variation, exact=exact)
        yield Problem(f"mira-{rows}", title, peers, error, 1e-6, exact, cosines.nbytes)
    rows, columns = sizes[0]
    cosines = similarities(rows, columns).astype(np.float32)
    exact = ia.sinkhorn(cosines.astype(float), epsilon=EPSILON, tol=1e-11).plan
    peers = ours(ia.sinkhorn, cosines, epsilon=EPSILON)
    if others:
        peers += pot(cosines, EPSILON, np.inf) + ott(cosines, EPSILON, np.inf)
    title = f"SwAV's problem, epsilon .05, {rows} x {columns}, to marginals within 1e-6"
    yield Problem("swav", title, peers, marginal_error, 1e-6, exact, cosines.nbytes)
    exact = swav_steps(cosines, 3)
    three: dict[str, Any] = {"epsilon": EPSILON, "start": "columns", "max_sweeps": 3, "acceleration": None}
    peers = ours(ia.sinkhorn, cosines, by_tolerance=False, **three)
    if others:
        peers += lightly(cosines, 3)
    title = f"SwAV's three iterations, epsilon .05, {rows} x {columns}"
    yield Problem("swav-3", title, peers, partial(total_variation, exact=exact), 1e-5, exact, cosines.nbytes)


def resident(line: str) -> int:
    """Bytes of memory in use (VmRSS), or the most since the mark was reset (VmHWM)."""
    found = next(text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(line))
    return int(found.split()[1]) * 1024


def extra_memory(run: Callable[[], Any]) -> int:
    """The most memory that a run takes beyond what was in use before."""
    CDLL(None).malloc_trim(0)  # what is free goes back, or it would count as there before
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def measure(problem: Problem, rounds: int) -> list[dict[str, Any]]:
    """Find the tolerances, check the answers, and let all take turns."""
    runs: dict[str, Callable[[], Any]] = {}
    lines: dict[str, dict[str, Any]] = {}
    for name, solve, by_tolerance in problem.peers:
        errors: list[float] = []
        for tol in TOLERANCES if by_tolerance else [None]:
            run = (lambda solve=solve, tol=tol: solve(tol)) if by_tolerance else solve
            start = perf_counter()
            plan = run()
            took, error = perf_counter() - start, problem.error(plan)
            errors.append(error)
            if error <= problem.target or (took > LONG and error > 0.9 * max(errors[-5:-4], default=np.inf)):
                break  # or a much smaller tolerance changed nothing
        runs[name] = run
        lines[name] = {
            "name": name, "tolerance": tol, "error": error, "reached": error <= problem.target,
            "total variation": total_variation(plan, problem.exact), "seconds": [], "long": took > LONG,
        }  # fmt: skip
        del plan
        print(f"  {name}: tolerance {tol}, error {error:.1e}, {took:.3f} s", file=sys.stderr, flush=True)
    for name, run in runs.items():
        lines[name]["memory"] = extra_memory(run) / problem.nbytes
    for number in range(rounds):
        for name, run in runs.items():
            long = lines[name]["long"]
            if long and number >= 3:
                continue
            if not long:
                run()
            start = perf_counter()
            run()
            lines[name]["seconds"].append(perf_counter() - start)
    return list(lines.values())


def floors(rows: int, columns: int, repeats: int = 21) -> dict[str, float]:
    """Median seconds of reading such a matrix once, with all threads, and of writing one anew."""
    import numba

    @numba.njit(nogil=True, fastmath=True)
    def total(matrix: Any) -> Any:
        found = np.float32(0)
        for i in range(matrix.shape[0]):
            for j in range(matrix.shape[1]):
                found += matrix[i, j]
        return found

    matrix = np.ones((rows, columns), np.float32)
    cut = host.slices(matrix.shape, matrix.size // (4 * host.threads()))

    def read() -> None:
        host.in_threads(lambda piece: total(matrix[piece]), cut)

    def write() -> None:
        fresh = np.empty_like(matrix)
        host.in_threads(lambda piece: fresh[piece].fill(1), cut)

    times: dict[str, list[float]] = {"read": [], "write": []}
    for work in (read, write) * (repeats + 1):
        start = perf_counter()
        work()
        times[work.__name__].append(perf_counter() - start)
    return {name: median(taken[1:]) for name, taken in times.items()}


def table(lines: list[dict[str, Any]], error: str) -> str:
    """Return Markdown."""
    ours = median(lines[0]["seconds"])
    head = ["", "seconds", "of the first", error, "mean total variation", "extra memory / input"]
    text = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for line in lines:
        took = line["seconds"]
        seconds = f"{median(took):.4f} ({min(took):.4f} to {max(took):.4f})"
        missed = "" if line["reached"] else " (target missed)"
        name = line["name"] + (f", tolerance {line['tolerance']:.0e}" if line["tolerance"] else "")
        text.append(
            f"| {name} | {seconds} | {median(took) / ours:.1f} | {line['error']:.1e}{missed}"
            f" | {line['total variation']:.1e} | {line['memory']:.2f} |"
        )
    return "\n".join(text)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the times as bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = list(results.values())
    counts = [len(result["lines"]) for result in shown]
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(9, 0.3 * sum(counts) + 1.1 * len(shown)), height_ratios=counts, layout="constrained"
    )
    for axis, result in zip(axes, shown, strict=True):
        lines = sorted(result["lines"], key=lambda line: -median(line["seconds"]))
        times = [1000 * median(line["seconds"]) for line in lines]
        own = [line["name"].startswith("infoassign") for line in lines]
        axis.barh([line["name"] for line in lines], times, color=["tab:blue" if mine else "tab:gray" for mine in own])
        for place, (line, time) in enumerate(zip(lines, times, strict=True)):
            shown_time = f"{time:.0f}" if time >= 100 else f"{time:.1f}"
            missed = "" if line["reached"] else " (target missed)"
            axis.text(time * 1.04, place, shown_time + missed, va="center", fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(min(times) / 2, max(times) * 3)
        axis.set_title(result["title"], fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[-1].set_xlabel("milliseconds, median")
    figure.savefig(path, dpi=110)


def machine() -> dict[str, Any]:
    """What was measured on, without names."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    wide = next((line for line in lines if line.startswith("flags")), "")
    packages = ("numpy", "numba", "torch", "pot", "ott-jax", "jax", "lightly")
    installed = {}
    for package in packages:
        try:
            installed[package] = version(package)
        except ImportError:
            continue
    return {
        "processor": model,
        "AVX-512": "avx512f" in wide,
        "threads": host.threads(),
        "python": platform.python_version(),
        **installed,
    }


def main() -> None:
    """Measure, print, and write the Markdown, the picture and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="besides infoassign and eq. 7, only peers with this in their name")
    parser.add_argument("--rounds", type=int, default=11, help="timed runs of each; three of the slow ones")
    parser.add_argument("--small", action="store_true", help="256 x 128 and 64 x 128, to see that it runs")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write measured/ and images/ into")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # POT says so whenever it stops before it has converged, which is measured here
    sizes = [(256, 128), (64, 128)] if options.small else [(4096, 3000), (512, 3000)]
    results: dict[str, Any] = {}
    floor = floors(*sizes[0])
    for problem in problems(sizes, options.only != "infoassign"):
        print(problem.title, file=sys.stderr, flush=True)
        mine = ("infoassign", "eq. 7")
        peers = [peer for peer in problem.peers if peer.name.startswith(mine) or options.only in peer.name]
        lines = measure(problem._replace(peers=peers), options.rounds)
        results[problem.name] = {"title": problem.title, "lines": lines}
    write(options.out, {"machine": machine(), "floor": floor, "sizes": sizes, "problems": results})


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write the Markdown, the picture and the numbers, and print the first."""
    rows, columns = found["sizes"][0]
    read, fresh = (1000 * found["floor"][what] for what in ("read", "write"))
    said = [
        f"Machine and versions: {', '.join(f'{key} {value}' for key, value in found['machine'].items())}.",
        f"Reading a float32 matrix of {rows} x {columns} once takes {read:.2f} ms here, writing one into new memory"
        f" {fresh:.2f} ms (medians).",
    ]
    for name, result in found["problems"].items():
        of = "marginal error" if name == "swav" else "error"
        said += [f"**{result['title']}**", table(result["lines"], of)]
    text = "\n\n".join(said) + "\n"
    for inner in ("measured", "images"):
        (folder / inner).mkdir(parents=True, exist_ok=True)
    (folder / "measured" / "peers.md").write_text(text)
    (folder / "measured" / "peers.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found["problems"], folder / "images" / "peers.png")
    print(text)


if __name__ == "__main__":
    main()
