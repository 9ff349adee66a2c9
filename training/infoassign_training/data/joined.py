"""One source of images after another, as if they were one."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from torch import Tensor

from infoassign_training.data.images import Images, ImagesError, TaggedImages


@dataclass(frozen=True, eq=False)
class Joined:
    """Sources one after another; see :class:`~infoassign_training.data.images.Images`.

    Examples
    --------
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> joined(SyntheticImages(10, size=8), SyntheticImages(5, size=8)).ends
    array([10, 15])
    """

    sources: tuple[Images, ...]
    """What is joined."""
    ends: NDArray[np.int64]
    """The numbers at which each ends, shape (sources,)."""
    classes: NDArray[np.int64] | None
    """Shape (N,); None if they are not known of all."""
    names: tuple[str, ...]
    """Of the classes."""

    def __len__(self) -> int:
        return int(self.ends[-1])

    def image(self, index: int) -> PIL.Image.Image | Tensor:
        """Return an image of one of the sources."""
        source, row = self._place(index)
        return source.image(row)

    def origin(self, index: int) -> str:
        """Return where that source has it from."""
        source, row = self._place(index)
        return source.origin(row)

    def _place(self, index: int) -> tuple[Images, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images; got {index}")
        number = int(np.searchsorted(self.ends, index, side="right"))
        source = self.sources[number]
        return source, index - int(self.ends[number]) + len(source)


@dataclass(frozen=True, eq=False, kw_only=True)
class TaggedJoined(Joined):
    """Joined sources whose images have any number of classes, `presence` (N, classes)."""

    presence: NDArray[np.int8]


def joined(*sources: Images) -> Joined:
    """Join sources with the same classes, such as what is fitted on and what settings were chosen on.

    Parameters
    ----------
    sources
        One or more.

    Returns
    -------
    Joined
        A :class:`TaggedJoined` of tagged sources. It has classes if all sources have.

    Raises
    ------
    ImagesError
        If their classes have different names, or some are tagged and others not.
    ValueError
        If there are none.

    Examples
    --------
    >>> from infoassign_training.data.digits import digit_images, digits
    >>> both = joined(*(digit_images(part) for part in digits()))
    >>> len(both), both.classes.shape, both.origin(1347)
    (1797, (1797,), 'digits[0]')
    """
    if not sources:
        raise ValueError("there are no sources to join")
    names = sources[0].names
    other = next((source for source in sources if source.names != names), None)
    if other is not None:
        raise ImagesError(f"sources of different classes cannot be joined: {_named(names)}, and {_named(other.names)}")
    ends = np.cumsum([len(source) for source in sources], dtype=np.int64)
    tagged = [source for source in sources if isinstance(source, TaggedImages)]
    if tagged:
        if len(tagged) < len(sources):
            raise ImagesError("sources with one class and with any number of them cannot be joined")
        presence = np.concatenate([source.presence for source in tagged])
        return TaggedJoined(sources, ends, None, names, presence=presence)
    known = [source.classes for source in sources if source.classes is not None]
    classes = np.concatenate(known) if len(known) == len(sources) else None
    return Joined(sources, ends, classes, names)


def _named(names: tuple[str, ...]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "none"
