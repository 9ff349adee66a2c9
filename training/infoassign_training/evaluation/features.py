"""What an encoder sees of a data set: every image once, in order, each rank a part of them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import PIL.Image
import torch
from torch import Tensor
from tqdm import tqdm

from infoassign_training.data.evaluation_views import in_order
from infoassign_training.data.images import Images
from infoassign_training.engine import ranks
from infoassign_training.engine.ranks import Place
from infoassign_training.errors import UserError

Transform: TypeAlias = Callable[[PIL.Image.Image | Tensor], Tensor]
"""An image to what is shown of it, (3, S, S) or several (V, 3, S, S), uint8."""
Forward: TypeAlias = Callable[[Tensor], Sequence[Tensor]]
"""Images (B, C, S, S) to one or more kinds of features, each (B, ...)."""


def pause() -> float:
    """Return the seconds between two looks at the progress: where it is a file's, or a scheduler's, only a few."""
    return 0.2 if sys.stderr.isatty() else 10.0


class FeaturesError(UserError):
    """Features that nothing can be said about."""


@dataclass(frozen=True)
class Looking:
    """How images are shown to an encoder."""

    transform: Transform
    scaled: Callable[[Tensor], Tensor]
    """What is shown, (..., 3, S, S), uint8, to what the encoder takes, (..., C, S, S)."""
    place: Place
    device: torch.device
    batch_size: int
    """Images at a time, on each rank."""
    workers: int
    """Further processes that read images; 0 for none."""


@torch.no_grad()
def chunks(source: Images, looking: Looking, title: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Go once over this rank's part of a source, in order, with a progress bar on the first rank.

    Yields
    ------
    Tensor
        Which images, shape (B,), int64, on the CPU.
    Tensor
        They, as the encoder takes them, on the device: (B, C, S, S), or (B, V, C, S, S).
    """
    cuda = looking.device.type == "cuda"
    mine = looking.place.part(len(source))
    with tqdm(
        total=mine.stop - mine.start, desc=title, unit="image", mininterval=pause(), disable=looking.place.rank > 0
    ) as bar:
        for views, rows in in_order(
            source,
            looking.transform,
            range(mine.start, mine.stop),
            batch_size=looking.batch_size,
            workers=looking.workers,
            pin_memory=cuda,
            context="spawn" if cuda else None,
        ):
            yield rows, looking.scaled(views.to(looking.device, non_blocking=True))
            bar.update(len(rows))


@torch.no_grad()
def features_of(forward: Forward, source: Images, looking: Looking, title: str) -> list[Tensor]:
    """Return the features of this rank's part of a source.

    Parameters
    ----------
    forward
        The encoder, in evaluation mode.
    source
        The images; rank r of w has those of :meth:`~infoassign_training.engine.ranks.Place.part`, so that each is
        looked at once and nothing is padded.
    looking
        How they are shown.
    title
        Of the progress bar.

    Returns
    -------
    list of Tensor
        Each kind of features, (n_r, ...), float32, on the device.

    Raises
    ------
    FeaturesError
        If a feature is not finite; the message names the image.
    """
    mine = looking.place.part(len(source))
    found: list[Tensor] = []
    strange, done = "", 0
    for rows, images in chunks(source, looking, title):
        outputs = [output.float() for output in forward(images)]
        # Made once, as large as they will be: parts and their sum would be twice as much.
        found = found or [output.new_empty(mine.stop - mine.start, *output.shape[1:]) for output in outputs]
        for kind, output in zip(found, outputs, strict=True):
            kind[done : done + len(rows)] = output
            finite = output.flatten(1).isfinite().all(dim=1).cpu()
            if not strange and not bool(finite.all()):
                strange = source.origin(int(rows[~finite][0]))
        done += len(rows)
    # Together, so that no rank waits for one that is gone.
    if ranks.any_of(bool(strange)):
        named = f", of {strange} first" if strange else " on another process"
        raise FeaturesError(f"the encoder's features are not finite{named}: were its weights trained to the end?")
    if not found:  # fewer images than ranks
        shown = looking.scaled(looking.transform(source.image(0)).to(looking.device)[None])
        return [output.float()[:0] for output in forward(shown)]
    return found
