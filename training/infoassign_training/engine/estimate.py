"""How much memory and time a recipe takes on GPUs that are not at hand: an estimate, and what it is made of.

Memory is counted: the networks are built on torch's meta device, where tensors have shapes and no numbers, and what
autograd keeps of a forward pass is added up. So are the floating-point operations of a step. Time is these over the
peak of the device times the share of it that others reached:

=========  ===========================================  ===================  =======
precision  images a second and GPU (224 x 224)          operations a second  of peak
=========  ===========================================  ===================  =======
float32    346, V100, supervised                        8.4 T                .54
TF32       906, A100, supervised                        22.0 T               .14
half       2078, A100, supervised                       50.5 T               .16
half       742, A100, self-supervised                   18.0 T               .058
=========  ===========================================  ===================  =======

All are of a ResNet-50, whose operations are 24.3 G an image, forwards and backwards.
The supervised ones are NVIDIA's (DeepLearningExamples, ResNet-50 v1.5 for PyTorch, per GPU of a machine with eight);
the last one is the slower of those that FFCV-SSL reports, 371 pairs of views. Time is given as a range, from the
supervised share down to 742/2078 of it. Devices without a row are assumed to reach the same shares; where memory got
faster by less than arithmetic did, as from A100 to H100, that is too much to hope for. However small the network, no
more images are assumed to arrive than in :mod:`infoassign_training.recipes.hours`.

Examples
--------
>>> from infoassign_training.recipes import RECIPES
>>> found = estimate("digits-mira", RECIPES["digits-mira"].settings, 1, DEVICES["H100"])
>>> found.images, found.counted.images, found.remedy
(1347, 128, '')
>>> print(found.table().splitlines()[0])
estimate, not measured: digits-mira on 1 x H100, float32
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import MultiCrop
from infoassign_training.data.settings import Digits, Synthetic, Torchvision
from infoassign_training.errors import UserError
from infoassign_training.methods.build import build
from infoassign_training.methods.method import Method
from infoassign_training.methods.settings import DeepCluster, Sela
from infoassign_training.recipes import hours

Precision = Literal["float32", "bfloat16", "float16"]


class EstimateError(UserError):
    """There is nothing to estimate from."""


@dataclass(frozen=True)
class Device:
    """A GPU as its maker describes it."""

    name: str
    """As it is named in ``8xH100``."""
    memory: float
    """GB, taken as 10^9 bytes."""
    float32: float
    """Peak TFLOP/s, dense, as all of these."""
    tf32: float | None
    """On tensor cores, in which torch does convolutions of float32 by default; None if it cannot."""
    half: float
    """On tensor cores, with sums in float32."""
    bfloat16: bool
    """Whether `half` is also that of bfloat16."""
    source: str
    """Who says so."""


_V100 = partial(Device, float32=15.7, tf32=None, half=125, bfloat16=False, source="NVIDIA's V100 data sheet, SXM2")
_A100 = partial(Device, float32=19.5, tf32=156, half=312, bfloat16=True, source="NVIDIA's A100 data sheet")
_HOPPER = partial(Device, float32=67, tf32=494.5, half=989.5, bfloat16=True)
DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        _V100("V100-16GB", 16),
        _V100("V100-32GB", 32),
        _A100("A100-40GB", 40),
        _A100("A100-80GB", 80),
        _HOPPER("H100", 80, source="NVIDIA's H100 data sheet, SXM; half of what it says with sparsity"),
        _HOPPER("H200", 141, source="NVIDIA's H200 data sheet, SXM; half of what it says with sparsity"),
        Device("T4", 16, 8.1, None, 65, bfloat16=False, source="NVIDIA's T4 data sheet"),
        Device("RTX4090", 24, 82.6, 82.6, 165.2, bfloat16=True, source="NVIDIA's Ada architecture white paper"),
        Device(
            "TITAN-V", 12, 13.8, None, 110, bfloat16=False, source="NVIDIA's announcement; float32: AnandTech, 2018"
        ),
    )
}
"""Those that are known; a name without its memory is the smaller one."""

REACHED = {"float32": 0.54, "tf32": 0.14, "half": 0.16}
"""Share of the peak that supervised training of a ResNet-50 reaches."""
SELF_SUPERVISED = 742 / 2078
"""How much of that self-supervised training reaches at worst."""
USABLE = 0.72
"""Share of the memory that what is counted may take: the papers' runs took up to 1.38 times as much (see the docs)."""


@dataclass(frozen=True)
class Counted:
    """What one device does in a step, counted on the meta device."""

    images: int
    """Of its part of the batch."""
    piece: int
    """How many of these go through the network at once."""
    parameters: int
    """Bytes of what learns."""
    fixed: int
    """Bytes of what does not: the teacher, buffers."""
    halves: int
    """Bytes of copies of weights in half precision."""
    momentum: int
    """Bytes of the optimiser's state."""
    activations: int
    """Bytes that autograd keeps of a piece."""
    passing: int
    """Bytes that the teacher's pass needs beside them."""
    flops: float
    """Operations of the step."""
    forward: float
    """Operations of the forward pass of one global view of one image."""


@dataclass(frozen=True)
class Estimate:
    """What a run may take, and why."""

    recipe: str
    """Its name."""
    gpus: int
    """How many."""
    device: Device
    """Of which."""
    precision: Precision
    """Of the networks' products."""
    pieces: int
    """Of every GPU's part of a batch, that go through the network one after the other."""
    batch_size: int
    """Of all GPUs."""
    epochs: int
    """Of the run."""
    images: int
    """Of an epoch."""
    counted: Counted
    """What one GPU does in a step."""
    memory: Mapping[str, float]
    """Bytes on every device, by what they are for."""
    hours: tuple[float, float]
    """At the share of the peak that others reached, best and worst; the same where the speed was measured."""
    measured: float
    """Images a second and GPU that this stands on; 0 for the table."""
    remedy: str
    """What to change if it does not fit; empty if it fits."""

    @property
    def total(self) -> float:
        """Bytes on every device."""
        return sum(self.memory.values())

    @property
    def minutes_per_epoch(self) -> tuple[float, float]:
        """Best and worst."""
        best, worst = self.hours
        return (60 * best / self.epochs, 60 * worst / self.epochs) if self.epochs else (0.0, 0.0)

    def table(self) -> str:
        """Lay it out as text.

        Examples
        --------
        >>> from infoassign_training.recipes import RECIPES
        >>> found = estimate("digits-mira", RECIPES["digits-mira"].settings, 1, DEVICES["H100"])
        >>> print(found.table().splitlines()[1])
        batch            128 images, 128 a GPU
        """
        best, worst = self.hours
        quick, slow = self.minutes_per_epoch
        device, counted = self.device, self.counted
        pieces = f", in {self.pieces} pieces" if self.pieces > 1 else ""
        lines = [
            f"estimate, not measured: {self.recipe} on {self.gpus} x {device.name}, {self.precision}",
            f"{'batch':<16} {self.batch_size} images, {counted.images} a GPU{pieces}",
            f"{'memory per GPU':<16} {_gb(self.total)} of {device.memory:g} GB; estimate",
            *(f"  {name:<32} {_gb(size)}" for name, size in self.memory.items() if size),
            "  not counted: labels and loss, CUDA itself, cuDNN's workspaces, fragmentation"
            f" ({100 * (1 - USABLE):.0f} % is left for them)",
            f"{'time':<16} {_span(best, worst)} h, {_span(quick, slow)} min an epoch; estimate",
            f"  {counted.flops / counted.images / 1e9:.3g} GFLOP an image, forward and backward, all views;"
            f" {self.images} images an epoch, {self.epochs} epochs",
            *self._basis(),
        ]
        if self.remedy:
            lines.append(f"It does not fit, with a margin for what is not counted. {self.remedy}")
        return "\n".join(lines)

    def _basis(self) -> list[str]:
        """Say what the time stands on."""
        if self.measured:
            return [
                f"  {self.measured:.4g} images a second and GPU, measured; other GPUs, or more of them, may be slower",
                "  not counted: labelling all images",
            ]
        units, share = _units(self.device, self.precision)
        return [
            f"  {units:g} TFLOP/s at most ({self.device.source}), of which ResNet-50 is known to reach"
            f" {100 * share:.3g} % (supervised) to {100 * share * SELF_SUPERVISED:.2g} % (self-supervised)",
            f"  but no more than {hours.MOST} images a second and GPU, ffcv's most, however small the network",
            "  not counted: waiting for images or for other GPUs, labels and loss; `infoassign throughput` measures",
        ]


def parse_gpus(words: str) -> tuple[int, Device]:
    """Read how a person names GPUs.

    Parameters
    ----------
    words
        A number, x and a name of `DEVICES`, or its beginning; without a number it is one.

    Raises
    ------
    EstimateError
        If there are no such GPUs in the table.

    Examples
    --------
    >>> count, device = parse_gpus("8xH100")
    >>> count, device.name, device.memory
    (8, 'H100', 80)
    >>> parse_gpus("v100")[1].name
    'V100-16GB'
    """
    count, x, name = words.partition("x") if words[:1].isdigit() else ("1", "x", words)
    wanted = name.strip().lower()
    found = [device for key, device in DEVICES.items() if key.lower() == wanted or key.lower().startswith(wanted + "-")]
    if not (x and wanted and found and count.strip().isdigit() and int(count)):
        raise EstimateError(f"expected a number of GPUs such as 8xH100, of {', '.join(DEVICES)}; got {words!r}")
    return int(count), found[0]


def estimate(
    recipe: str,
    settings: Pretraining,
    gpus: int,
    device: Device,
    *,
    images: int = 0,
    pieces: int = 1,
    precision: Precision = "float32",
    measured: float = 0.0,
) -> Estimate:
    """Estimate memory and time of a run.

    Parameters
    ----------
    recipe
        Its name.
    settings
        What is to be done.
    gpus, device
        How many of which; the batch is shared out among them.
    images
        How many there are in an epoch; 0 for those of the data set that the settings name.
    pieces
        Of every GPU's part of a batch, that go through the network one after the other.
    precision
        Of the networks' products.
    measured
        Images a second and GPU that ``infoassign throughput`` found, in place of the table's; 0 for the table's.

    Returns
    -------
    Estimate
        Memory in bytes and time in hours, with what they stand on.

    Raises
    ------
    EstimateError
        If the number of images is not known or too small, the batch does not divide, or the device lacks the precision.

    Examples
    --------
    >>> from infoassign_training.recipes import RECIPES
    >>> found = estimate("digits-mira", RECIPES["digits-mira"].settings, 1, DEVICES["H100"])
    >>> best, worst = found.hours
    >>> best <= worst, found.total < 1e9
    (True, True)
    """
    if settings.batch_size % (gpus * pieces):
        raise EstimateError(
            f"batch_size {settings.batch_size} does not divide over {gpus} GPUs{f' and {pieces} pieces' * (pieces > 1)}"
        )
    _units(device, precision)
    images = images or images_of(settings)
    if images < settings.batch_size:
        raise EstimateError(f"{images} images do not fill a batch of {settings.batch_size}")
    part = settings.batch_size // gpus
    try:
        counted = count(settings, part, pieces, precision, images=images)
    except ValueError as error:
        raise EstimateError(str(error)) from error
    memory = _memory(settings, counted, gpus, images)
    steps = settings.epochs * (images // settings.batch_size)
    passes = _passes(settings) * counted.forward * images / gpus
    rate, share = _units(device, precision)
    best = (steps * counted.flops + passes) / (1e12 * rate * share) / 3600
    if measured:
        known = steps * part / measured / 3600
        span = (known, known)
    else:
        least = steps * part / hours.MOST / 3600
        span = (max(best, least), max(best / SELF_SUPERVISED, least))
    return Estimate(
        recipe=recipe,
        gpus=gpus,
        device=device,
        precision=precision,
        pieces=pieces,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        images=images,
        counted=counted,
        memory=memory,
        hours=span,
        measured=measured,
        remedy=_remedy(memory, counted, gpus, 1e9 * USABLE * device.memory),
    )


def images_of(settings: Pretraining) -> int:
    """Return how many images the data set has that the settings name.

    Raises
    ------
    EstimateError
        If only a look at them would tell.
    """
    match settings.data:
        case Digits():
            return 1347
        case Synthetic(count=number):
            return number
        case Torchvision(name="imagenet", class_list=chosen):
            return hours.IMAGENET_100 if chosen else hours.IMAGENET
        case Torchvision(name="cifar10" | "cifar100"):
            return hours.CIFAR
        case Torchvision(name="svhn"):
            return hours.SVHN
    raise EstimateError("how many images there are is not known; say so by --images")


def count(settings: Pretraining, part: int, pieces: int, precision: Precision, *, images: int) -> Counted:
    """Count what one device holds and does in a step, without a device and without memory.

    Parameters
    ----------
    settings
        What is to be done.
    part
        Images of a batch on this device.
    pieces
        In which they go through the network.
    precision
        Of the networks' products; normalisation and weights are in float32.
    images
        How many there are in the data set.

    Returns
    -------
    Counted
        Bytes and operations.

    Raises
    ------
    ValueError
        If the parts of the settings do not fit each other.

    Examples
    --------
    >>> one, two = (count(Pretraining(), 128, pieces, "float32", images=1347) for pieces in (1, 2))
    >>> one.piece, two.piece, two.activations < one.activations
    (128, 64, True)
    """
    with torch.device("meta"):
        method = build(settings, images=images, classes=1000)
    method.train()
    learns = [parameter for parameter in method.parameters() if parameter.requires_grad]
    parameters = _bytes(learns)
    fixed = _bytes([*method.parameters(), *method.buffers()]) - parameters
    half = precision != "float32"
    dtype: torch.dtype = getattr(torch, precision)
    products = [layer for layer in method.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    halves = sum(_bytes(layer.parameters()) for layer in products) // 2 if half else 0
    for layer in products:
        layer.to(dtype)  # as autocast does it
    piece = part // pieces
    views = [torch.empty(piece, *shape, device="meta", dtype=dtype) for shape in _shapes(settings)]
    kept, forward, backward, constants = _passed(method, views)
    with FlopCounterMode(display=False) as single, torch.no_grad():
        method.encoder(views[0])
    learnt = pieces * (forward + backward + (forward if pieces > 1 else 0))
    return Counted(
        images=part,
        piece=piece,
        parameters=parameters,
        fixed=fixed,
        halves=halves,
        momentum=parameters if settings.optimizer.momentum else 0,
        activations=sum(kept),
        passing=2 * max(kept, default=0) if constants else 0,
        flops=float(learnt + pieces * constants),
        forward=single.get_total_flops() / piece,
    )


def _passed(method: Method, views: list[Tensor]) -> tuple[list[int], int, int, int]:
    """Return the sizes of what autograd keeps, and the operations forward, backward and of networks that are fixed."""
    saved: dict[int, tuple[int, Tensor]] = {}

    def kept(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # The tensor is held, so that no other gets its address.
        saved[storage._cdata] = (storage.nbytes(), tensor)
        return tensor

    def unchanged(tensor: Tensor) -> Tensor:
        return tensor

    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(kept, unchanged):
            outputs = method.outputs(views)
        forward = counter.get_total_flops()
        if any(output.requires_grad for output in outputs):
            torch.stack([output.float().sum() for output in outputs]).sum().backward()
        backward = counter.get_total_flops() - forward
        method.constants(views)
        constants = counter.get_total_flops() - forward - backward
    own = {tensor.untyped_storage()._cdata for tensor in (*method.parameters(), *method.buffers())}
    return [size for address, (size, _) in saved.items() if address not in own], forward, backward, constants


def _shapes(settings: Pretraining) -> list[tuple[int, int, int]]:
    if not isinstance(settings.augmentation, MultiCrop):
        return [(1, settings.image_size, settings.image_size)] * settings.method.views
    return [(3, view.size, view.size) for view in settings.augmentation.views]


def _memory(settings: Pretraining, counted: Counted, gpus: int, images: int) -> dict[str, float]:
    labelled = 0.0
    if isinstance(settings.method, Sela | DeepCluster):
        with torch.device("meta"):
            features = build(settings, images=2, classes=2).encoder(
                torch.empty(2, *_shapes(settings)[0], device="meta")
            )
        # Features of this GPU's share of all images in pieces, and put together; no activations are kept then.
        labelled = 2.0 * 4 * (features.shape[1] + 1) * images / gpus
    return {
        "weights that learn": counted.parameters,
        "teacher and buffers": counted.fixed,
        "weights in half precision": counted.halves,
        "gradients": counted.parameters,
        "gradients on their way": counted.parameters if gpus > 1 else 0,
        "momentum": counted.momentum,
        f"activations, {counted.piece} images": counted.activations,
        "the teacher's pass": counted.passing,
        "labelling all images, beyond that": max(0.0, labelled - counted.activations),
    }


def _remedy(memory: Mapping[str, float], counted: Counted, gpus: int, usable: float) -> str:
    """Say what would fit; activations grow with the images that go through the network at once."""
    total = sum(memory.values())
    if total <= usable:
        return ""
    growing = counted.activations + counted.passing
    largest = int((usable - (total - growing)) * counted.piece / growing)
    if largest < 2:
        return "No batch would; it takes GPUs with more memory, or more of them."
    fitting = [
        pieces for pieces in range(2, counted.images // 2 + 1)
        if counted.images % pieces == 0 and counted.images // pieces <= largest
    ]  # fmt: skip
    accumulate = f", and so would --accumulate {fitting[0]}" if fitting else ""
    batch = 2 ** (largest.bit_length() - 1) * gpus
    return f"--batch-size {batch} would{accumulate} (estimate)."


def _passes(settings: Pretraining) -> float:
    """Return how often all images are labelled."""
    match settings.method:
        case Sela(relabellings=times, label_views=views):
            return times * views
        case DeepCluster(every_epochs=every):
            return settings.epochs / every
    return 0


def _units(device: Device, precision: Precision) -> tuple[float, float]:
    """Return the peak in TFLOP/s, and the share of it that is reached."""
    if precision == "float32":
        kind = "float32" if device.tf32 is None else "tf32"
        return (device.tf32 or device.float32), REACHED[kind]
    if precision == "bfloat16" and not device.bfloat16:
        raise EstimateError(f"{device.name} has no bfloat16; --precision float16")
    return device.half, REACHED["half"]


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _span(least: float, most: float) -> str:
    if least == most:
        return _short(least)
    return f"{_short(least)} to {_short(most)}"


def _short(value: float) -> str:
    if value < 0.01:
        return "<0.01"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
