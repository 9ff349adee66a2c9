"""What gpu.py measures: each part a function of a device, of sizes and of what the device can do."""

import gc
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any, NamedTuple

import torch
from gpu_report import Line, Target, at_least, at_most, quotient
from joint_entropy import UNITS, products
from peers import BETA, EPSILON, TEMPERATURE, eq7
from problems import similarities
from torch import Tensor

import infoassign as ia
from infoassign_backends import backend_for
from infoassign_backends.protocol import Views

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}
LAMBDA = 25.0
SELA_TOL, MIRA_ERROR = 1e-3, 1e-5
UPDATES = 31
"""Those of MIRA's released code."""
FIXED: dict[str, Any] = {"tol": 0, "max_sweeps": UPDATES + 1, "acceleration": None, "check_finite": False}
SWAV: dict[str, Any] = {
    "epsilon": EPSILON, "start": "columns", "tol": 0, "max_sweeps": 3, "acceleration": None, "check_finite": False
}  # fmt: skip
CHUNK = 2**26
"""Entries in double precision that are made at a time, for comparison."""


class Sizes(NamedTuple):
    """How large everything is."""

    rows: int = 4096
    columns: int = 3000
    many: int = 262_144
    all_rows: int = 1_281_167
    depth: int = 128
    batches: tuple[int, ...] = (512, 1024, 2048, 4096)
    views: int = 2048
    segments: int = 102
    images: int = 256
    pixels: int = 224
    network: str = "resnet50"
    matmul: int = 8192
    copies: tuple[int, ...] = (2**24, 2**25, 2**26, 2**30, 2**32)
    """Bytes."""
    repeats: int = 30
    budget: float = 0.6
    """Seconds after which nothing is timed again."""


QUICK = Sizes(
    rows=128, columns=48, many=512, all_rows=8192, depth=16, batches=(32, 64), views=24, segments=2, images=1,
    pixels=32, network="resnet18", matmul=64, copies=(2**12, 2**16), repeats=3, budget=0.1,
)  # fmt: skip


class Found:
    """What a part finds, line by line, so that what was found before an error is kept."""

    def __init__(self, device: torch.device, sizes: Sizes, ceilings: dict[str, Any]) -> None:
        self.device, self.sizes, self.ceilings = device, sizes, ceilings
        self.lines: list[Line] = []
        self.targets: list[Target] = []
        self.said: list[str] = []
        self.errors: list[str] = []
        self.about = ""

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def times(self, run: Callable[[], Any]) -> list[float]:
        """Return the seconds of some runs, after one that is not timed."""
        begun = time.perf_counter()
        run()
        self.synchronize()
        once = time.perf_counter() - begun
        number = max(3, min(self.sizes.repeats, int(self.sizes.budget / max(once, 1e-6))))
        if self.device.type != "cuda":
            found = []
            for _ in range(number):
                begun = time.perf_counter()
                run()
                found.append(time.perf_counter() - begun)
            return found
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(number)]
        for start, stop in events:
            start.record()
            run()
            stop.record()
        self.synchronize()
        return [start.elapsed_time(stop) / 1000 for start, stop in events]

    def extra_memory(self, run: Callable[[], Any]) -> int | None:
        """Return the most bytes that a run takes beyond what was there before; None where nobody counts."""
        if self.device.type != "cuda":
            return None
        gc.collect()
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        run()
        self.synchronize()
        return torch.cuda.max_memory_allocated(self.device) - before

    def measure(
        self,
        what: str,
        run: Callable[[], Any],
        *,
        size: str,
        dtype: str,
        graph: bool = False,
        per: int = 1,
        error: Callable[[Any], float] | None = None,
        notes: Callable[[Any, float], Line] | None = None,
        memory: bool = False,
    ) -> float | None:
        """Time a run, or a CUDA graph of it, that does something `per` times; None if it fails.

        `error` and `notes` are asked afterwards, about what it returned; notes also get the median in seconds.
        """
        line: Line = {"what": what + (", in a CUDA graph" if graph else ""), "size": size, "dtype": dtype}
        print(f"  {line['what']}, {size}, {dtype}", end="", flush=True)
        try:
            begun = time.perf_counter()
            given = run()
            self.synchronize()
            first = time.perf_counter() - begun
            work = captured(run, self.device) if graph else run
            line["seconds"] = [found / per for found in self.times(work)]
            line["first call, s"] = first
            took = median(line["seconds"])
            if memory:
                del given
                line["extra memory, MB"] = None if (extra := self.extra_memory(run)) is None else extra / 1e6
            given = work()
            self.synchronize()
            if error is not None:
                line["error"] = float(error(given))
            if notes is not None:
                line |= notes(given, took)
        except Exception as wrong:  # noqa: BLE001  (recorded; the other lines are still to be measured)
            self.wrong(f"{line['what']}, {size}, {dtype}", wrong)
            line["failed"] = type(wrong).__name__
            took = None
        self.lines.append(line)
        print(": failed" if took is None else f": {1000 * took:.4g} ms", flush=True)
        return took

    def wrong(self, where: str, error: BaseException) -> None:
        """Record an error, with the end of where it came from."""
        trace = "".join(traceback.format_exception(error)[-3:])
        print(f"\n{where}: {trace}", flush=True)
        self.errors.append(f"{where}: {type(error).__name__}: {str(error)[:400]}")

    def last(self, key: str) -> Any:
        """Return what the last line says of something."""
        return self.lines[-1].get(key)

    def of_copies(self, nbytes: float, seconds: float) -> Line:
        """Return how the bytes that are read or written compare with what a copy would move in that time."""
        rate = self.ceilings.get("copy")
        return {} if rate is None else {"share of copy bandwidth": nbytes / seconds / rate}


def captured(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """Capture a run in a CUDA graph, and return what replays it and returns its output; elsewhere the run itself."""
    if device.type != "cuda":
        return run
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()

    def replay() -> Any:
        graph.replay()
        return output

    return replay


# Problems, and what is right


def scores_of(found: Found, rows: int, dtype: torch.dtype) -> Tensor:
    """Cosines of the problem that all tables are about, made on the device."""
    features, prototypes = factors(found, rows, torch.float32)
    scores = torch.empty((rows, len(prototypes)), dtype=dtype, device=found.device)
    for start in range(0, rows, 16384):
        scores[start : start + 16384] = features[start : start + 16384] @ prototypes.T
    return scores


def factors(found: Found, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Unit features around 1000 centres of unequal popularity, and prototypes around centres drawn alike."""
    device, depth = found.device, found.sizes.depth
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def unit(x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)

    centres = unit(normal(1000, depth))
    popularity = 1 / torch.arange(1, 1001, device=device).sqrt()
    drawn = torch.multinomial(popularity, rows, replacement=True, generator=generator)
    chosen = torch.randint(1000, (found.sizes.columns,), generator=generator, device=device)
    features = unit(centres[drawn] + normal(rows, depth) / depth**0.5)
    prototypes = unit(centres[chosen] + 0.7 * normal(found.sizes.columns, depth) / depth**0.5)
    return features.to(dtype), prototypes.to(dtype)


def chunks_of(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, CHUNK // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def log_masses(scores: Callable[[slice], Tensor], rows: int, potential: Tensor, epsilon: float) -> Tensor:
    """The logarithms of the columns' masses by definition, in double precision."""
    total = torch.zeros_like(potential)
    for some in chunks_of(rows, len(potential)):
        total += torch.softmax((scores(some).double() - potential) / epsilon, dim=1).sum(dim=0)
    return total.log()


def total_variation(plan: Tensor, exact: Tensor) -> float:
    """The mean over rows, of any two plans on one device."""
    return float((plan.double() - exact).abs().sum(dim=1).mean() / 2)


def swav_listing(scores: Tensor, iterations: int = 3) -> Tensor:
    """SwAV's released code, on one device: three normalisations of a K x B matrix."""
    q = torch.exp(scores / EPSILON).t()
    labels, rows = q.shape
    q /= torch.sum(q)
    for _ in range(iterations):
        q /= torch.sum(q, dim=1, keepdim=True)
        q /= labels
        q /= torch.sum(q, dim=0, keepdim=True)
        q /= rows
    q *= rows
    return q.t()


def segments_of(width: int, device: torch.device) -> Tensor:
    return torch.arange(width // UNITS, device=device).repeat_interleave(UNITS)


def off_diagonal_listing(q1: Tensor, q2: Tensor, apart: Tensor) -> Tensor:
    """OE as one would write it: P whole, and a mask of 0 and 1."""
    joint = torch.einsum("np,nq->pq", q1, q2) / len(q1)
    return (joint * joint.log() * apart).sum()


def off_diagonal_exactly(q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
    """OE and its first gradient by definition, in double precision."""
    one, other, owner = q1.double(), q2.double(), segments_of(q1.shape[1], q1.device)
    joint = one.T @ other / len(one)
    joint[owner[:, None] == owner] = 0
    logs = joint.where(joint > 0, 1.0).log()
    return (joint * logs).sum(), other @ ((1 + logs) * (joint > 0) / len(one)).T


# Parts


def ceilings(found: Found) -> None:
    """Measure what the device can do."""
    sizes, device = found.sizes, found.device
    copies = {}
    for nbytes in sizes.copies:
        source = torch.randint(255, (nbytes,), dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        run = partial(target.copy_, source)
        took = found.measure(
            "copy on the device", run, size=f"{nbytes / 1e6:.4g} MB", dtype="bytes",
            notes=lambda _, took, nbytes=nbytes: {"TB/s, read and written": 2 * nbytes / took / 1e12},
        )  # fmt: skip
        if took is not None:
            copies[nbytes] = 2 * nbytes / took
        del source, target, run
    if copies:
        found.ceilings["copy"] = copies[max(copies)]
    width = UNITS * sizes.segments
    shapes = [(sizes.matmul,) * 3, (width, sizes.views, width), (sizes.views, width, width)]
    found.ceilings["matmul"] = {}
    for name, dtype, tf32 in PRECISIONS:
        for m, k, n in shapes:
            a, b = torch.randn(m, k, device=device).to(dtype), torch.randn(k, n, device=device).to(dtype)
            with tf32_allowed(tf32):
                took = found.measure(
                    "product of matrices", partial(torch.matmul, a, b), size=f"{m} x {k} x {n}", dtype=name,
                    notes=lambda _, took, work=2 * m * k * n: {"TFLOP/s": work / took / 1e12},
                )  # fmt: skip
            if took is not None and (m, k, n) == shapes[0]:
                found.ceilings["matmul"][name] = 2 * m * k * n / took
            del a, b


PRECISIONS = [
    ("bf16", torch.bfloat16, False), ("fp16", torch.float16, False), ("tf32", torch.float32, True),
    ("fp32", torch.float32, False),
]  # fmt: skip


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Have products of single precision be made in TF32, or not."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def sweep(found: Found) -> None:
    """Time single passes."""
    found.about = (
        "One pass at a random potential. The error is the largest of the logarithms of the columns' masses, beside"
        " float64. Small matrices may be in the cache, which is faster than the copies."
    )
    sizes, epsilon = found.sizes, (1 - BETA) * TEMPERATURE
    for rows, names in ((sizes.rows, ("bf16", "fp16", "fp32", "fp64")), (sizes.many, ("bf16", "fp16", "fp32"))):
        for name in names:
            scores = scores_of(found, rows, DTYPES[name])
            passes(found, "infoassign", scores, epsilon, name)
            del scores


def passes(found: Found, who: str, scores: Any, epsilon: float, name: str, *, graphs: bool = True) -> float | None:
    """Time a pass over an array that torch can read, and some in a CUDA graph; return the seconds of one."""
    given = torch.from_dlpack(scores)
    generator = torch.Generator(found.device).manual_seed(1)
    potential = epsilon * torch.randn(given.shape[1], generator=generator, dtype=torch.float64, device=found.device)
    expected = log_masses(lambda some: given[some], len(given), potential, epsilon)
    prepared = backend_for(scores).prepare(scores, epsilon)
    price = potential if isinstance(scores, Tensor) else type_of(scores)(potential)

    def error(masses: Any) -> float:
        return float((torch.from_dlpack(masses.log_columns) - expected).abs().max())

    def notes(_: Any, took: float) -> Line:
        return found.of_copies(given.nbytes, took)

    size = f"{given.shape[0]} x {given.shape[1]}"
    took = found.measure(
        f"{who}, a pass", partial(prepared, price), size=size, dtype=name, error=error, notes=notes, memory=True
    )
    if graphs:
        found.measure(
            f"{who}, ten passes, each", lambda: [prepared(price) for _ in range(10)][-1], size=size, dtype=name,
            graph=True, per=10, error=error, notes=notes,
        )  # fmt: skip
    return took


def type_of(array: Any) -> Callable[[Tensor], Any]:
    """Return what makes tensors arrays of another's library, in the same memory."""
    made: Callable[[Tensor], Any] = import_module(type(array).__module__.partition(".")[0]).from_dlpack
    return made


def mira(found: Found) -> None:
    """Solve MIRA's problem: scores in, plan out."""
    found.about = (
        "Scores in, plan out. The error is the mean total variation to a solution in float64, of the plan before it is"
        " rounded to half precision. The share is of the bytes of all sweeps and of the plan."
    )
    sizes, device = found.sizes, found.device
    cosines = similarities(sizes.rows, sizes.columns)
    logits = torch.from_numpy(cosines).float()
    size = f"{sizes.rows} x {sizes.columns}"
    exact = {name: exactly(logits.to(DTYPES[name]), device) for name in ("fp32", "bf16")}
    single = logits.to(device)

    def off(plan: Tensor) -> float:
        return total_variation(plan, exact["fp32"])

    enough = next((n for n in (*range(8, UPDATES), UPDATES, 40, 60, 100) if off(eq7(single, n)) <= MIRA_ERROR), 100)
    plain = {
        (steps, graph): found.measure(
            f"eq. 7 in torch, {steps} updates", partial(eq7, single, steps), size=size, dtype="fp32", graph=graph,
            error=off, memory=not graph,
        )
        for steps in (enough, UPDATES) for graph in (False, True)
    }  # fmt: skip
    ours = {name: solves(found, single.to(DTYPES[name]), exact[name], name, size) for name in ("fp32", "bf16")}
    for name, (default, _, graph, share) in ours.items():
        ratio = quotient(plain[enough, False], default)
        found.targets.append(at_least(f"times faster than eq. 7 to the same accuracy ({name})", ratio, 10))
        ratio = quotient(plain[UPDATES, False], graph)
        found.targets.append(at_least(f"times faster than {UPDATES} updates, in a graph ({name})", ratio, 10))
        over = None if not share else 1 / share
        found.targets.append(at_most(f"times the bytes over copy bandwidth, in a graph ({name})", over, 2))


def exactly(logits: Tensor, device: torch.device) -> Tensor:
    """Solve on the host in float64, by NumPy."""
    wide = logits.double().numpy()
    return torch.from_numpy(ia.mira(wide, beta=BETA, temperature=TEMPERATURE, tol=1e-10).plan).to(device)


def solved(scores: Any, **options: Any) -> ia.Assignment:
    """Solve MIRA's problem, plan included."""
    assignment = ia.mira(scores, beta=BETA, temperature=TEMPERATURE, **options)
    assignment.plan  # noqa: B018  (made when it is asked for)
    return assignment


def solves(
    found: Found, scores: Any, exact: Tensor, name: str, size: str, *, who: str = "ia.mira", graphs: bool = True
) -> tuple[float | None, float | None, float | None, float | None]:
    """Time solves to the default tolerance, of fixed length, and of fixed length in a graph, whose share is last."""

    def error(assignment: ia.Assignment) -> float:
        return total_variation(torch.from_dlpack(assignment._computed_plan), exact)

    def notes(assignment: ia.Assignment, took: float) -> Line:
        count = assignment.sweeps
        return {"sweeps": count, **found.of_copies(count * scores.nbytes + assignment.plan.nbytes, took)}

    line = partial(found.measure, size=size, dtype=name, error=error, notes=notes)
    default = line(f"{who}, default", partial(solved, scores), memory=True)
    fixed = line(f"{who}, {UPDATES} updates", partial(solved, scores, **FIXED), memory=True)
    if not graphs:
        return default, fixed, None, None
    graph = line(f"{who}, {UPDATES} updates", partial(solved, scores, **FIXED), graph=True)
    return default, fixed, graph, found.last("share of copy bandwidth")


def swav(found: Found) -> None:
    """Make SwAV's three iterations."""
    found.about = (
        "Scores in, plan out, beside SwAV's released code. The error is the mean total variation to that code in"
        " float64, of the plan before it is rounded to half precision."
    )
    for rows in found.sizes.batches:
        single = scores_of(found, rows, torch.float32)
        size = f"{rows} x {single.shape[1]}"
        theirs = {}
        for graph in (False, True):
            theirs[graph] = found.measure(
                "SwAV's code in torch", partial(swav_listing, single), size=size, dtype="fp32", graph=graph,
                error=partial(total_variation, exact=swav_listing(single.double())), memory=not graph,
            )  # fmt: skip
        for name in ("fp32", "bf16"):
            ours = three(found, "infoassign", single.to(DTYPES[name]), name)
            found.lines[-2]["times SwAV's code"] = quotient(ours[0], theirs[False])
            found.lines[-1]["times SwAV's code"] = quotient(ours[1], theirs[True])


def three(found: Found, who: str, scores: Any, name: str, *, graphs: bool = True) -> tuple[float | None, float | None]:
    """Time three iterations, and in a CUDA graph."""
    given = torch.from_dlpack(scores)
    exact = swav_listing(given.double())

    def run() -> ia.Assignment:
        assignment = ia.sinkhorn(scores, **SWAV)
        assignment.plan  # noqa: B018  (made when it is asked for)
        return assignment

    def error(assignment: ia.Assignment) -> float:
        return total_variation(torch.from_dlpack(assignment._computed_plan), exact)

    line = partial(found.measure, size=f"{given.shape[0]} x {given.shape[1]}", dtype=name, error=error)
    eager = line(f"{who}, three iterations", run, memory=True)
    return eager, line(f"{who}, three iterations", run, graph=True) if graphs else None


def sela(found: Found) -> None:
    """Label as many rows as ImageNet has."""
    found.about = (
        "Equal shares to a marginal error of 1e-3, lambda 25. The error is that of the marginal, measured in float64"
        " at the potential that came out; the certified one includes what rounding may do."
    )
    sizes, epsilon = found.sizes, 1 / LAMBDA
    size = f"{sizes.all_rows} x {sizes.columns}"
    if not room(found, 4 * 2 * sizes.all_rows * sizes.columns):
        found.said.append(f"Not measured: dense bf16 scores {size}, since there is not four times their memory")
    else:
        dense = scores_of(found, sizes.all_rows, torch.bfloat16)
        dense *= 10
        label(found, "ia.sinkhorn, dense", lambda: dense, lambda some: dense[some], "bf16", size, epsilon)
        del dense
    for name, tf32 in (("bf16", False), ("fp32", False), ("tf32", True)):
        dtype = DTYPES.get(name, torch.float32)
        features, prototypes = factors(found, sizes.all_rows, dtype)
        # Made anew in every run, since it keeps what it finds.
        scores = partial(ia.FactoredScores, features, prototypes, temperature=0.1)
        wide = prototypes.double().T / 0.1

        def product(some: slice, features: Tensor = features, wide: Tensor = wide) -> Tensor:
            return features[some].double() @ wide

        with tf32_allowed(tf32):
            label(found, "ia.sinkhorn, FactoredScores", scores, product, name, size, epsilon)
        del features, prototypes, scores, product


def label(
    found: Found,
    what: str,
    scores: Callable[[], Any],
    rows: Callable[[slice], Tensor],
    name: str,
    size: str,
    epsilon: float,
) -> None:
    """Time a solve to SeLa's tolerance."""

    def error(assignment: ia.Assignment) -> float:
        number, columns = found.sizes.all_rows, found.sizes.columns
        masses = log_masses(rows, number, assignment.potential, epsilon).exp() / number
        return float((masses - 1 / columns).abs().sum())

    def notes(assignment: ia.Assignment, _: float) -> Line:
        return {
            "sweeps": assignment.sweeps, "certified error": assignment.marginal_error, "status": assignment.status.name
        }  # fmt: skip

    took = found.measure(
        what, lambda: ia.sinkhorn(scores(), epsilon=epsilon, tol=SELA_TOL), size=size, dtype=name, error=error,
        notes=notes, memory=True,
    )  # fmt: skip
    reached = found.last("status") == "CONVERGED"
    found.targets.append(at_most(f"seconds, {what}, {name}", took if reached else None, 1))


def room(found: Found, nbytes: float) -> bool:
    """Return whether a device has so much memory left."""
    return found.device.type != "cuda" or torch.cuda.mem_get_info(found.device)[0] >= nbytes


def joint(found: Found) -> None:
    """Make joint entropies and their gradients."""
    found.about = (
        "Forward and backward. The off-diagonal entropy is that of given codes; its listing makes P whole, by autograd"
        " (for bf16 under autocast). The error is that of the first gradient, relative to its"
        " largest entry in float64. FLOP are those of three products of matrices."
    )
    sizes, device = found.sizes, found.device
    width = UNITS * sizes.segments
    generator = torch.Generator(device).manual_seed(0)
    z1 = torch.randn(sizes.views, width, generator=generator, device=device)
    z2 = z1 + torch.randn(z1.shape, generator=generator, device=device) / 2
    size, work = f"{sizes.views} x {width}", 6 * sizes.views * width**2
    q1, q2 = (z.view(len(z), -1, UNITS).softmax(dim=2).flatten(1) for z in (z1, z2))
    owner = segments_of(width, device)
    apart = (owner[:, None] != owner).float()
    for name, tf32 in (("bf16", False), ("tf32", True), ("fp32", False)):
        codes = [q.to(DTYPES.get(name, torch.float32)) for q in (q1, q2)]
        value, slope = off_diagonal_exactly(*codes)
        peak = found.ceilings.get("matmul", {}).get(name)

        def error(given: tuple[Tensor, Tensor], slope: Tensor = slope) -> float:
            return float((given[1].double() - slope).abs().max() / slope.abs().max())

        def notes(given: Any, took: float, peak: float | None = peak, value: Tensor = value) -> Line:
            off = abs(float(given[0]) / float(value) - 1)
            return {
                "error of the value": off,
                "TFLOP/s": work / took / 1e12,
                "share of peak": quotient(work / took, peak),
            }

        line = partial(found.measure, size=size, dtype=name, error=error, notes=notes, memory=True)
        with tf32_allowed(tf32):
            mixed = torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16")
            listing = partial(off_diagonal_listing, apart=apart)
            theirs = line(
                "off-diagonal entropy by its listing",
                partial(with_gradients, listing, *(q.float() for q in codes), mixed),
            )
            most = found.last("extra memory, MB")
            ours = line("infoassign, off-diagonal entropy", partial(with_gradients, off_diagonal, *codes))
            extra, share = found.last("extra memory, MB"), found.last("share of peak")
        found.targets += [
            at_least(f"times faster than the listing ({name})", quotient(theirs, ours), 4),
            at_least(f"share of the peak of products ({name})", share, 0.5),
            at_most(f"of the listing's extra memory ({name})", quotient(extra, most), 1 / 8),
        ]
    for name, tf32 in (("tf32", True), ("fp32", False)):
        line = partial(found.measure, size=size, dtype=name, memory=True)
        with tf32_allowed(tf32):
            theirs = line("IMSVD's loss by its listing", partial(with_gradients, products, z1, z2))
            ours = line("ia.imsvd_loss", partial(with_gradients, partial(ia.imsvd_loss, units=UNITS), z1, z2))
        found.targets.append(at_least(f"times faster than the listing, whole loss ({name})", quotient(theirs, ours), 4))


def off_diagonal(q1: Tensor, q2: Tensor) -> Tensor:
    """OE by the backend."""
    value: Tensor = backend_for(q1).off_diagonal(Views(q1, q2, q1, q2), (UNITS,) * (q1.shape[1] // UNITS))
    return value


def with_gradients(
    loss: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor, context: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a loss and both gradients."""
    views = [view.detach().requires_grad_() for view in (one, other)]
    if context is None:
        value = loss(*views)
    else:
        with context:
            value = loss(*views)
    return (value.detach(), *torch.autograd.grad(value, views))


def cupy(found: Found) -> None:
    """Do the same with CuPy's arrays; in a dry run NumPy's stand in for them."""
    found.about = "The same memory, as a tensor and as a CuPy array. No CUDA graphs here."
    if found.device.type == "cuda" and find_spec("cupy") is None:
        found.said.append("Not measured: CuPy is not installed.")
        return
    xp = import_module("cupy" if found.device.type == "cuda" else "numpy")
    sizes, ratios = found.sizes, dict[str, float | None]()
    for name in ("fp32", "fp16"):
        for rows in (sizes.rows, sizes.many):
            tensor = scores_of(found, rows, DTYPES[name])
            array = xp.from_dlpack(tensor)
            if address(array) != tensor.data_ptr() or torch.from_dlpack(array).data_ptr() != tensor.data_ptr():
                raise AssertionError("an exchange by DLPack has copied the scores")
            pair = [
                passes(found, who, given, (1 - BETA) * TEMPERATURE, name, graphs=False)
                for who, given in (("torch", tensor), ("CuPy", array))
            ]
            ratios[f"a pass over {rows} rows, {name}"] = quotient(pair[1], pair[0])
            if rows == sizes.rows:
                exact, size = exactly(tensor.cpu(), found.device), f"{rows} x {sizes.columns}"
                both = [
                    solves(found, given, exact, name, size, who=f"ia.mira, {who}", graphs=False)
                    for who, given in (("torch", tensor), ("CuPy", array))
                ]
                ratios[f"MIRA by default, {name}"] = quotient(both[1][0], both[0][0])
                ratios[f"MIRA, {UPDATES} updates, {name}"] = quotient(both[1][1], both[0][1])
                steps = [
                    three(found, who, given, name, graphs=False)[0]
                    for who, given in (("torch", tensor), ("CuPy", array))
                ]
                ratios[f"three iterations, {name}"] = quotient(steps[1], steps[0])
            del tensor, array
    found.targets += [at_most(f"times torch: {what}", ratio, 1.5) for what, ratio in ratios.items()]


def address(array: Any) -> int:
    """Return where the numbers of a CuPy or NumPy array are."""
    return int(array.ctypes.data if hasattr(array, "ctypes") else array.data.ptr)


def resnet(found: Found) -> None:
    """Find the share of a training step that labels and loss take."""
    if find_spec("torchvision") is None:
        found.said.append("Not measured: torchvision, which has the network, is not installed.")
        return
    from torchvision import models

    sizes, device = found.sizes, found.device
    found.about = (
        f"A step: student ({sizes.network}, forward, backward, SGD) and teacher (forward) on two views of"
        f" {sizes.images} images, bf16 autocast, channels last; labels for two views of {sizes.rows} rows, as they are"
        f" gathered from all ranks; and the loss of this rank's {sizes.images} rows a view."
    )
    half = {"device_type": device.type, "dtype": torch.bfloat16, "enabled": device.type == "cuda"}
    student, teacher = (
        getattr(models, sizes.network)(num_classes=sizes.columns).to(device, memory_format=torch.channels_last)
        for _ in range(2)
    )
    optimizer = torch.optim.SGD(student.parameters(), 0.1, 0.9)
    images = torch.randn(2 * sizes.images, 3, sizes.pixels, sizes.pixels, device=device)
    images = images.to(memory_format=torch.channels_last)

    def network() -> Tensor:
        with torch.autocast(**half), torch.no_grad():
            teacher(images)
        with torch.autocast(**half):
            logits: Tensor = student(images)
        logits.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return logits

    gathered = [scores_of(found, sizes.rows, torch.bfloat16).roll(shift, dims=0) for shift in (0, 1)]

    def labels(**options: Any) -> list[ia.Assignment]:
        return [solved(view, **options) for view in gathered]

    plans = [assignment.plan[: sizes.images] for assignment in labels()]
    own = [view[: sizes.images].float() for view in gathered]

    def loss() -> tuple[Tensor, ...]:
        views = [view.clone().requires_grad_() for view in own]
        total = sum(
            torch.nn.functional.cross_entropy(view / 0.1, plan.float())
            for view, plan in zip(views, reversed(plans), strict=True)
        )
        return torch.autograd.grad(total, views)

    size = f"2 x {sizes.rows} x {sizes.columns}"
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    step = found.measure("student and teacher", network, size=f"2 x {sizes.images} images", dtype="bf16", memory=True)
    torch.backends.cudnn.benchmark = before
    costs = found.measure("loss", loss, size=f"2 x {sizes.images} x {sizes.columns}", dtype="fp32")
    ways: list[tuple[str, bool, dict[str, Any]]] = [
        ("ia.mira, default", False, {}), (f"ia.mira, {UPDATES} updates", False, FIXED),
        (f"ia.mira, {UPDATES} updates", True, FIXED),
    ]  # fmt: skip
    for what, graph, options in ways:
        took = found.measure(what, partial(labels, **options), size=size, dtype="bf16", graph=graph)
        share = None
        if None not in (took, step, costs):
            share = 100 * (took + costs) / (took + costs + step)  # type: ignore[operator]
        found.lines[-1]["labels and loss, % of a step"] = share
        name = what + (", in a CUDA graph" if graph else "")
        found.targets.append(at_most(f"% of a step: {name}, and loss", share, 3))


def tune(found: Found) -> None:
    """Time passes of other shapes of programs; each is compiled for it."""
    torch_triton: Any = import_module("infoassign_backends.torch_triton")
    small = found.sizes == QUICK
    number = 1 if small else 10
    found.about = "Passes in a CUDA graph, each; the first line of each group is the shape that is used."

    def timed(name: str, size: str, dtype: str, current: Any, candidates: list[Any], prepared: Any) -> None:
        potential = torch.zeros(prepared._columns, dtype=torch.float64, device=found.device)
        results: dict[Any, float] = {}
        for shape in dict.fromkeys([current, *candidates]):
            original = getattr(torch_triton, name)
            setattr(torch_triton, name, lambda *_, shape=shape, original=original, **options: (
                original(*_, **options) if options["wide"] else shape
            ))  # fmt: skip
            try:
                took = found.measure(
                    f"{name}, {shape.rows} x {shape.columns}, {shape.warps} warps, {shape.stages} stages",
                    lambda: [prepared(potential) for _ in range(number)][-1],
                    size=size, dtype=dtype, graph=True, per=number,
                )  # fmt: skip
            finally:
                setattr(torch_triton, name, original)
            if took is None:
                found.errors.pop()  # a shape that does not fit is no error of the kernels
            else:
                results[shape] = took
        best = min(results, key=lambda shape: results[shape], default=None)
        if best is not None and current in results:
            gain = results[current] / results[best]
            found.said.append(f"Best {name}, {size}, {dtype}: {tuple(best)}, {gain:.2f} times the one that is used.")
            print(found.said[-1], flush=True)

    Shape = torch_triton.Shape  # noqa: N806  (a class)
    some = slice(0, 2) if small else slice(None)
    for dtype in ("bf16",) if small else ("bf16", "fp32"):
        for columns in (40,) if small else (256, 1000, 3000, 8192, 20_000):
            rows = 16 if small else min(2**18, 2**30 // columns)
            scores = torch.randn(rows, columns, device=found.device).to(DTYPES[dtype])
            prepared, size = torch_triton.prepare(scores, 0.1), f"{rows} x {columns}"
            if columns <= torch_triton.WHOLE[False]:
                current = torch_triton.whole_rows(columns, wide=False)
                candidates = [
                    Shape(number, current.columns, warps, stages)
                    for number in (current.rows // 2, current.rows, 2 * current.rows)
                    for warps in (4, 8, 16) for stages in (1, 2, 3, 4)
                    if number and 4096 <= number * current.columns <= 32768
                ]  # fmt: skip
                timed("whole_rows", size, dtype, current, candidates[some], prepared)
            else:
                current = torch_triton.tiles(columns, wide=False)
                cuts = ((4, 512), (8, 256), (8, 512), (16, 256), (4, 1024), (8, 1024), (2, 2048))
                candidates = [Shape(*cut, warps) for cut in cuts for warps in (4, 8, 16)]
                timed("tiles", size, dtype, current, candidates[some], prepared)
            del scores, prepared
        features, prototypes = factors(found, 16 if small else 2**17, DTYPES[dtype])
        prepared = ia.FactoredScores(features, prototypes, 0.1)
        product = prepared.extent
        given = torch_triton.Product(features, prototypes, 0.1, None, product.shift, product.span)
        candidates = [
            Shape(rows, columns, warps) for rows in (64, 128, 256) for columns in (32, 64, 128, 256)
            for warps in (4, 8) if rows * columns <= 2**15
        ]  # fmt: skip
        current = torch_triton.products(wide=False)
        size = f"{len(features)} x {len(prototypes)}, depth {features.shape[1]}"
        timed("products", size, dtype, current, candidates[some], torch_triton.factored(given, 0.1))


MEASURES: dict[str, tuple[str, Callable[[Found], None]]] = {
    "ceilings": ("What the device can do", ceilings),
    "sweep": ("One pass over dense scores", sweep),
    "mira": ("MIRA, beta 2/3, temperature .225", mira),
    "swav": ("SwAV's three iterations, epsilon .05", swav),
    "sela": ("SeLa's labelling", sela),
    "joint": ("Joint entropies, segments of 80", joint),
    "cupy": ("CuPy's arrays beside torch's", cupy),
    "resnet": ("Share of a training step", resnet),
    "tune": ("Shapes of programs", tune),
}


def measured(name: str, device: str, quick: bool, known: dict[str, Any]) -> dict[str, Any]:
    """Measure a part, and return its record; whatever goes wrong is in it."""
    title, measure = MEASURES[name]
    there = torch.device(device)
    if there.type == "cuda":
        there = torch.device("cuda", there.index or 0)
        torch.cuda.set_device(there)
    else:
        torch.set_num_threads(1)  # what is this small would only wait for the others
    found = Found(there, QUICK if quick else Sizes(), dict(known))
    print(f"{title} ({name})", flush=True)
    begun = time.perf_counter()
    try:
        measure(found)
    except Exception as wrong:  # noqa: BLE001  (recorded; the other parts are still to be measured)
        found.wrong(name, wrong)
    broken = False
    try:
        gc.collect()
        found.synchronize()
        if there.type == "cuda":
            torch.cuda.empty_cache()
    except Exception as wrong:  # noqa: BLE001  (recorded; another process measures the others)
        found.wrong("afterwards", wrong)
        broken = True
    return {
        "title": title, "about": found.about, "lines": found.lines, "targets": [list(t) for t in found.targets],
        "said": found.said, "errors": found.errors, "took": time.perf_counter() - begun,
        "ceilings": found.ceilings if name == "ceilings" else None, "broken": broken,
    }  # fmt: skip
