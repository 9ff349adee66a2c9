"""What is evaluated on what, and where."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from infoassign_training.data.augmentations import Plain
from infoassign_training.data.benchmarks import Benchmark
from infoassign_training.data.digits import grey
from infoassign_training.data.evaluation_views import Look, centred, shorter_side
from infoassign_training.data.images import Images, TaggedImages
from infoassign_training.data.subsets import labelled
from infoassign_training.data.views import normalised
from infoassign_training.engine import ranks
from infoassign_training.engine.ranks import Place
from infoassign_training.evaluation.features import Looking, features_of
from infoassign_training.evaluation.settings import Chosen, Subset
from infoassign_training.models.pretrained import Pretrained
from infoassign_training.models.settings import SmallResNet


@dataclass(frozen=True, eq=False)
class Found:
    """What a protocol found."""

    results: dict[str, float]
    """What counts first."""
    chosen: dict[str, float | str] = field(default_factory=dict)
    """What was chosen without the test images."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Task:
    """An encoder and a data set, on one rank."""

    pretrained: Pretrained
    checkpoint: Path
    """Where it was read from."""
    weights: str
    """Which of several there it is."""
    benchmark: Benchmark
    words: str
    """How the data set was named."""
    place: Place
    device: torch.device
    batch_size: int
    """Images at a time that are only looked at, on each rank."""
    workers: int
    folder: Path
    """For what is trained."""

    @cached_property
    def forward(self) -> Callable[[Tensor], list[Tensor]]:
        """The encoder, on the device."""
        encoder = self.pretrained.encoder.to(self.device).eval()
        return lambda images: [encoder(images).flatten(1)]

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.benchmark.train.names)

    def look(self, chosen: Chosen, look: Callable[..., Look] = centred) -> Looking:
        """Say how images are shown without chance: their centre, or another `look`."""
        size, resize = sizes(chosen, self.pretrained.image_size)
        scaled: Callable[[Tensor], Tensor] = grey
        if not isinstance(self.pretrained.settings, SmallResNet):
            mean, std = scale_of(chosen, self.pretrained)
            scaled = partial(normalised, augmentation=Plain(mean=mean, std=std))
        return Looking(
            transform=look(size, resize, InterpolationMode(chosen.interpolation)),
            scaled=scaled,
            place=self.place,
            device=self.device,
            batch_size=self.batch_size,
            workers=self.workers,
        )

    def features(self, source: Images, chosen: Chosen, title: str) -> Tensor:
        """Return the features of this rank's part of a source, (n_r, F), on the device."""
        return features_of(self.forward, source, self.look(chosen), title)[0]

    def truth(self, source: Images) -> Tensor:
        """Return the classes (n_r,), int64, or the presence (n_r, C), int8, of this rank's part, on the device."""
        whole = source.presence if isinstance(source, TaggedImages) else source.classes
        assert whole is not None
        return torch.from_numpy(whole)[self.place.part(len(source))].to(self.device)


def sizes(chosen: Chosen, trained_at: int) -> tuple[int, int]:
    """Return what is cut out of an image, and its shorter side before that.

    Examples
    --------
    >>> sizes(Chosen(), 224), sizes(Chosen(), 32), sizes(Chosen(resize=1.0), 224)
    ((224, 256), (32, 32), (224, 224))
    """
    size = chosen.crop or trained_at
    return size, shorter_side(size, chosen.resize)


Channels: TypeAlias = tuple[float, float, float]


def scale_of(chosen: Chosen, pretrained: Pretrained) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of the channels, those that are asked for or the encoder's."""
    mean, std = chosen.mean or pretrained.mean, chosen.std or pretrained.std
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def subset(images: Images, chosen: Subset, seed: int) -> tuple[Images, tuple[str, ...]]:
    """Return the images whose classes may be looked at, and what there is to say of them."""
    some = labelled(images, chosen.labelled, chosen.labelled_list, seed)
    if chosen.labelled_list:
        return some, (f"labels of the {len(some)} images in {Path(chosen.labelled_list).name}",)
    if chosen.labelled == 1:
        return some, ()
    share = f"{chosen.labelled:.3g} of every class, drawn with seed {seed}"
    return some, (f"labels of {len(some)} images, {share}; not one of the lists that others have published",)


def whole(rows: Tensor) -> Tensor:
    """Return the rows of all ranks in the order of the source, on the CPU; shape (n_r,) or (n_r, ...) in."""
    together = ranks.together(rows.flatten(1) if rows.ndim > 1 else rows[:, None]).cpu()
    return together.reshape(-1, *rows.shape[1:])
