# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "infoassign[training]",
#     "lightly==1.6.0",
#     "numpy==2.4.6",
#     "torch==2.15.0",
#     "torchvision==0.29.2",
# ]
#
# [tool.uv.sources]
# infoassign = { path = "../..", editable = true }
# ///
"""Training steps of ResNet-50 on one device, beside lightly's with the same network, views and optimiser.

    uv run tests/benchmarks/training_steps.py               with lightly, in an environment of its own
    python tests/benchmarks/training_steps.py --only ours   where lightly is not installed
    python tests/benchmarks/training_steps.py --small       a few seconds on the CPU: does it run?

Two views of 224 pixels of noise, on the device already; bfloat16, channels last; forward, labels, loss, backward and
SGD. All take turns, a step each, so that they meet the same machine; medians. Images a second are samples, each of two
views.
Writes training_steps.json and training_steps.md to --out.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from infoassign_training import timing
from infoassign_training.engine.optim import optimizer_of
from infoassign_training.engine.step import Stepper, backward
from infoassign_training.methods.build import build
from infoassign_training.methods.method import Batch, Moment
from infoassign_training.models.resnet import resnet
from infoassign_training.recipes import RECIPES

OURS = ("mira-imagenet-100", "swav-imagenet-100", "imsvd-imagenet-100", "vicreg-imagenet-100")
IMAGES, CLASSES = 1_281_167, 1000
WARMUP = 3


def batch_of(size: int, pixels: int, device: torch.device) -> Batch:
    """Make views of noise."""
    views = [torch.randn(size, 3, pixels, pixels, device=device).contiguous(memory_format=torch.channels_last)]
    views.append(views[0].flip(3))
    rows = torch.arange(size, device=device)
    return Batch(views, rows, rows % CLASSES)


def ours(name: str, batch: Batch, device: torch.device, *, network: str, compiled: bool) -> Callable[[], None]:
    """Return a step of a recipe, as the engine does it."""
    recipe = RECIPES[name].settings
    chosen = replace(
        recipe, encoder=replace(recipe.encoder, name=network), optimizer=replace(recipe.optimizer, kind="sgd")
    )  # type: ignore[call-arg]
    method = build(chosen, images=IMAGES, classes=CLASSES).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        method.encoder.compile()
    module = Stepper(method, "bfloat16")
    optimizer = optimizer_of(method, chosen.optimizer)
    one, now = torch.ones((), device=device), Moment(0, 1000, 100)

    def step() -> None:
        with timing.part(timing.OPTIMISER):
            method.before(now, lambda _: iter(()))
        optimizer.zero_grad()
        backward(module, batch, now, pieces=1, scale=one, seed=0)
        with timing.part(timing.OPTIMISER):
            method.after_backward(now)
            optimizer.step()

    return step


def lightly(kind: str, batch: Batch, device: torch.device, *, network: str, compiled: bool) -> Callable[[], None]:
    """Return lightly's step of a method, from its loss and heads, with the recipe's sizes."""
    from lightly.loss import SwaVLoss, VICRegLoss
    from lightly.models.modules.heads import SwaVProjectionHead, SwaVPrototypes, VICRegProjectionHead

    encoder, features = resnet(network, cifar_stem=False, zero_init_residual=True)
    if kind == "swav":
        head: nn.Module = SwaVProjectionHead(features, 2048, 128)
        prototypes, criterion = SwaVPrototypes(128, 3000), SwaVLoss()
        model = nn.Sequential(encoder, head, Normalised(), prototypes)
    else:
        criterion = VICRegLoss()
        model = nn.Sequential(encoder, VICRegProjectionHead(features, 8192, 8192, num_layers=3))
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        encoder.compile()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            first, second = model(torch.cat(batch.views)).chunk(2)
        first, second = first.float(), second.float()
        loss = criterion([first, second], []) if kind == "swav" else criterion(first, second)
        loss.backward()
        optimizer.step()

    return step


class Normalised(nn.Module):
    """Unit vectors, as lightly's example of SwAV has them before the prototypes."""

    def forward(self, projections: Tensor) -> Tensor:
        """Return projections of length 1."""
        return nn.functional.normalize(projections)


def timed(steps: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, dict[str, Any]]:
    """Let all take turns; return seconds of every step, and how they were divided where that is known."""
    found: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in steps}
    for number in range(WARMUP + rounds):
        for name, step in steps.items():
            with timing.running(device) as watch:
                wait(device)
                began = perf_counter()
                step()
                wait(device)
                if number >= WARMUP:
                    found[name]["seconds"].append(perf_counter() - began)
                    found[name].setdefault("labels_and_loss", []).append(watch.shares().get(timing.ASSIGNMENT))
    return found


def wait(device: torch.device) -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(found: dict[str, dict[str, Any]], size: int) -> str:
    """Return medians as Markdown."""
    lines = ["| step | images / s | ms | labels and loss |", "|---|---|---|---|"]
    for name, result in found.items():
        seconds = median(result["seconds"])
        shares = [share for share in result["labels_and_loss"] if share is not None]
        share = f"{100 * median(shares):.1f} %" if shares else ""
        lines.append(f"| {name} | {size / seconds:.0f} | {1000 * seconds:.1f} | {share} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=256, help="images a step")
    parser.add_argument("--rounds", type=int, default=20, help="steps of each that are timed")
    parser.add_argument("--only", choices=("ours", "all"), default="all", help="leave lightly out")
    parser.add_argument("--compile", action="store_true", help="with torch.compile, too")
    parser.add_argument("--small", action="store_true", help="ResNet-18, 4 images of 32 pixels: a dry run")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the results")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = "resnet18" if options.small else "resnet50"
    size, pixels, rounds = (4, 32, 1) if options.small else (options.batch_size, 224, options.rounds)
    batch = batch_of(size, pixels, device)
    steps: dict[str, Callable[[], None]] = {}
    for compiled in (False, True)[: 1 + options.compile]:
        suffix = ", compiled" if compiled else ""
        for name in OURS:
            steps[name.partition("-")[0] + suffix] = ours(name, batch, device, network=network, compiled=compiled)
        for kind in ("swav", "vicreg") if options.only == "all" else ():
            steps[f"{kind} (lightly){suffix}"] = lightly(kind, batch, device, network=network, compiled=compiled)
    found = timed(steps, rounds, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    written = {"device": name, "torch": torch.__version__, "network": network, "batch": size, "pixels": pixels}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "training_steps.json").write_text(json.dumps(written | {"steps": found}, indent=1) + "\n")
    (options.out / "training_steps.md").write_text(table(found, size))
    print(f"{name}, {network}, {size} images of {pixels} pixels, bfloat16\n\n{table(found, size)}")


if __name__ == "__main__":
    main()
