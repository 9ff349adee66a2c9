"""Views per second of one worker process: drawn whole, or only cropped, with the colours changed by batches.

    uv run python tests/benchmarks/views.py

One thread. Images are 500 x 375 pixels in memory (32 x 32 for CIFAR), made of waves of all lengths, so nothing here
reads or decodes; how long that takes for such a JPEG file is measured beside it. The ways take turns: every round draws
the views of the same images by each. How far the same views are apart is compared, too. Writes docs/measured/views.md.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median
from time import perf_counter

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import PIL
import PIL.Image
import torch
import torchvision
from PIL.ImageFilter import GaussianBlur
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from infoassign.files import write_text
from infoassign_training.data.augmentations import Dino, MultiCrop, Sela, Swav, Vicreg
from infoassign_training.data.batched_colours import blurred, coloured
from infoassign_training.data.decoding import decoded
from infoassign_training.data.images import ArrayImages
from infoassign_training.data.views import Views, normalised

MEASURED = Path(__file__).parents[2] / "docs" / "measured"
AUGMENTATIONS: dict[str, MultiCrop] = {
    "Dino, 2 x 224": Dino(),
    "Dino, 2 x 224 and 6 x 96": Dino(local_views=6),
    "Swav, 2 x 224": Swav(),
    "Vicreg, 2 x 224": Vicreg(),
    "Sela, 1 x 224": Sela(),
    "Vicreg.cifar, 2 x 32": Vicreg.cifar(),
}


def waves(count: int, height: int, width: int) -> np.ndarray:
    """Return images with a photograph's spectrum, (count, 3, height, width), uint8."""
    draw = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1
    noise = draw.standard_normal((count, 3, height, width))
    fields = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    fields /= fields.std(axis=(2, 3), keepdims=True)
    # Channels of a photograph go together.
    mixed = 0.5 * fields + 1.4 * fields.mean(axis=1, keepdims=True)
    return (118 + 55 * mixed).clip(0, 255).astype(np.uint8)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Time one call, with what it left the device to do."""
    began = perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - began


def on_device(batch: list[Tensor], augmentation: MultiCrop, device: torch.device) -> list[Tensor]:
    """Do what is left after the workers."""
    *crops, drawn = batch
    there = [crop.to(device) for crop in crops]
    return [
        normalised(coloured(crop, drawn[:, number], augmentation), augmentation) for number, crop in enumerate(there)
    ]


def measured(augmentation: MultiCrop, batch: int, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds per image of every part, one of each round, and how far the views are apart in each."""
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    size = (32, 32) if augmentation.global_size == 32 else (375, 500)
    source = ArrayImages("waves", waves(batch, *size))
    whole, crops = Views(source, augmentation, 0), Views(source, augmentation, 0, "device")
    found: dict[str, list[float]] = {}

    def record(name: str, seconds: float, number: int) -> None:
        if number:  # the first round warms up
            found.setdefault(name, []).append(1000 * seconds / batch)

    for number in range(rounds + 1):
        keys = [(number, index) for index in range(batch)]
        record("whole", seconds_of(lambda keys=keys: [whole[key] for key in keys], cpu), number)
        record("cropped", seconds_of(lambda keys=keys: [crops[key] for key in keys], cpu), number)
        drawn = default_collate([crops[key][0] for key in keys])
        record("cpu", seconds_of(lambda drawn=drawn: on_device(drawn, augmentation, cpu), cpu), number)
        ready = default_collate([whole[key][0] for key in keys])
        record(
            "normalised",
            seconds_of(lambda ready=ready: [normalised(view, augmentation) for view in ready], cpu),
            number,
        )
        colours = [coloured(crop, drawn[-1][:, place], augmentation) for place, crop in enumerate(drawn[:-1])]
        apart = [(255 * colour - view).abs() for colour, view in zip(colours, ready, strict=True)]
        found.setdefault("apart", []).append(float(torch.cat([view.flatten() for view in apart]).mean()))
        found.setdefault("furthest", []).append(max(float(view.max()) for view in apart))
        if torch.cuda.is_available():
            record("cuda", seconds_of(lambda drawn=drawn: on_device(drawn, augmentation, cuda), cuda), number)
    return found


def blurs(sigmas: tuple[float, ...]) -> str:
    """Say how far blurred images are from PIL's, in grey levels of 255."""
    images = torch.from_numpy(waves(16, 224, 224))
    cells = []
    for sigma in sigmas:
        theirs = torch.stack([pil_to_tensor(to_pil_image(image).filter(GaussianBlur(sigma))) for image in images])
        ours = 255 * blurred(images / 255, torch.full((len(images),), sigma), 8)
        apart = (ours - theirs).abs()
        inside = apart[..., 8:-8, 8:-8]
        cells.append(f"| {sigma} | {apart.mean():.2f} | {inside.max():.1f} | {apart.max():.1f} |")
    titles = "| standard deviation | mean | largest, 8 pixels and more from the border | largest |\n|---|---|---|---|"
    return "\n".join(["The blur alone, beside PIL's, in grey levels of 255:", "", titles, *cells])


def decoding(rounds: int) -> float:
    """Return the milliseconds in which a JPEG file of 500 x 375 pixels, in memory, is decoded."""
    file = BytesIO()
    PIL.Image.fromarray(waves(1, 375, 500)[0].transpose(1, 2, 0)).save(file, "JPEG", quality=90)
    data = file.getvalue()
    return 1000 * median(seconds_of(lambda: decoded(data, "waves"), torch.device("cpu")) for _ in range(20 * rounds))


def table(results: dict[str, dict[str, list[float]]], decode: float) -> str:
    """Return the medians as Markdown, quotients as medians of those of the rounds."""
    cuda = any("cuda" in result for result in results.values())
    versions = (
        f"python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__},"
        f" Pillow {PIL.__version__}"
    )
    device = f"; device {torch.cuda.get_device_name()}" if cuda else ""
    titles = [
        "worker: whole views, ms",
        "views/s",
        "worker: crops alone, ms",
        "views/s",
        "less work for the worker",
        "colours by batches, same thread, ms",
        "crops and colours / whole views",
        "views apart, grey levels, mean (largest)",
    ]
    if cuda:
        titles.append("colours by batches, CUDA, ms")
    lines = [
        f"One thread; {versions}{device}. Milliseconds are per image with all its views. Decoding a JPEG file of 500 x"
        f" 375 pixels takes {decode:.1f} ms more either way.",
        "",
        f"| | {' | '.join(titles)} |",
        "|---|" + "---|" * len(titles),
    ]
    for name, times in results.items():
        views = len(AUGMENTATIONS[name].views)
        whole, cropped = median(times["whole"]), median(times["cropped"])
        pairs = list(zip(times["whole"], times["cropped"], times["cpu"], times["normalised"], strict=True))
        less = [a / b for a, b, _, _ in pairs]
        both = median((b + c) / (a + n) for a, b, c, n in pairs)
        cells = [
            f"{whole:.2f}",
            f"{1000 * views / whole:.0f}",
            f"{cropped:.2f}",
            f"{1000 * views / cropped:.0f}",
            f"{median(less):.1f} x ({min(less):.1f} to {max(less):.1f})",
            f"{median(times['cpu']):.2f}",
            f"{both:.2f}",
            f"{sum(times['apart']) / len(times['apart']):.1f} ({max(times['furthest']):.0f})",
        ]
        if cuda:
            cells.append(f"{median(times['cuda']):.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds")
    parser.add_argument("--out", type=Path, default=MEASURED, help="folder of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name, augmentation in AUGMENTATIONS.items():
        results[name] = measured(augmentation, options.batch, options.rounds)
        sys.stderr.write(f"{name}: { ({part: round(median(times), 3) for part, times in results[name].items()}) }\n")
    written = table(results, decoding(options.rounds)) + "\n" + blurs((0.3, 0.5, 1.0, 2.0)) + "\n"
    write_text(options.out / "views.md", written)
    sys.stdout.write(written)


if __name__ == "__main__":
    main()
