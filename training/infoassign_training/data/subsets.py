"""Views on a source that leave images out: by number, by a list, by class, or by chance within every class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from torch import Tensor

from infoassign_training.data.images import Images, ImagesError, TaggedImages
from infoassign_training.data.listed_files import lines_of


@dataclass(frozen=True, eq=False)
class Selection:
    """Some images of a source: image i is the source's image ``rows[i]``.

    Examples
    --------
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> some = rows_of(SyntheticImages(10, size=8), np.array([7, 2]))
    >>> some.origin(1), some.image(1).shape
    ('synthetic[2]', torch.Size([3, 8, 8]))
    """

    source: Images
    """What they are of."""
    rows: NDArray[np.int64]
    """Shape (n,)."""
    classes: NDArray[np.int64] | None
    """Shape (n,); None if they are not known."""
    names: tuple[str, ...]
    """Of the classes."""

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> PIL.Image.Image | Tensor:
        """Return an image of the source."""
        return self.source.image(int(self.rows[index]))

    def origin(self, index: int) -> str:
        """Return where the source has it from."""
        return self.source.origin(int(self.rows[index]))


@dataclass(frozen=True, eq=False, kw_only=True)
class TaggedSelection(Selection):
    """Some images of a source whose images have any number of classes, `presence` (rows, classes)."""

    presence: NDArray[np.int8]


def rows_of(images: Images, rows: NDArray[np.int64]) -> Selection:
    """Select images by number: image i is the source's image ``rows[i]``.

    Parameters
    ----------
    images
        With classes, tagged, or with neither.
    rows
        Shape (n,), int64.

    Returns
    -------
    Selection
        A :class:`TaggedSelection` of tagged images.

    Examples
    --------
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> some = rows_of(SyntheticImages(10, size=8), np.array([7, 2]))
    >>> len(some), some.origin(0), some.classes
    (2, 'synthetic[7]', array([7, 2]))
    """
    if isinstance(images, TaggedImages):
        return TaggedSelection(images, rows, None, images.names, presence=images.presence[rows])
    return Selection(images, rows, None if images.classes is None else images.classes[rows], images.names)


def without_shares(images: Images, removed: Mapping[str, float], *, seed: int) -> Selection:
    """Remove a share of the images of some classes, chosen by chance; the others stay, in their order.

    Parameters
    ----------
    images
        With classes.
    removed
        By name of the class, the share to remove, 0 to 1. Of n images ``round(share n)`` go.
    seed
        Of the choice. Each class is drawn from alone, so that its choice depends on no other's share; and of two
        shares the larger removes all that the smaller does.

    Raises
    ------
    ImagesError
        If the source has no classes or not these.
    ValueError
        If a share is outside [0, 1].
    """
    classes = _known(images)
    unknown = sorted(removed.keys() - set(images.names))
    if unknown:
        raise ImagesError(f"there is no class {', '.join(unknown)}; there are {', '.join(images.names)}")
    keep = np.ones(len(images), dtype=bool)
    for name, share in removed.items():
        if not 0 <= share <= 1:
            raise ValueError(f"the share of {name} to remove must be in [0, 1]; got {share}")
        rows = _shuffled(classes, images.names.index(name), seed)
        keep[rows[: round(share * len(rows))]] = False
    return _selected(images, keep)


def imbalanced(images: Images, kind: Literal["light", "heavy"], *, seed: int, halved: str = "truck") -> Selection:
    """Make CIFAR-10 imbalanced as in SeLa's table 8 (section 4.5); its *full* is the source itself.

    Parameters
    ----------
    images
        Ten classes.
    kind
        *light*: half of one class is removed. *heavy*: 10 % of the first class, 20 % of the second and so on, which
        leaves nothing of the tenth (the paper says no more, so this is its sentence to the letter).
    seed
        Of the choice within the classes.
    halved
        The class that *light* halves; the paper's is truck.

    Raises
    ------
    ImagesError
        If the source has no classes, not the one to halve, or for *heavy* another number than ten.
    """
    if kind == "light":
        return without_shares(images, {halved: 0.5}, seed=seed)
    if len(images.names) != 10:
        raise ImagesError(f"the heavy imbalance is defined for 10 classes; got {len(images.names)}")
    return without_shares(images, {name: (k + 1) / 10 for k, name in enumerate(images.names)}, seed=seed)


def stratified(images: Images, share: float, *, seed: int) -> Selection:
    """Keep a share of every class, chosen by chance: 0.01 and 0.1 are the usual label subsets.

    Of n images of a class ``max(1, round(share n))`` stay. With the same seed a smaller share is a subset of a larger.

    Parameters
    ----------
    images
        With classes.
    share
        Of every class, in (0, 1].
    seed
        Of the choice.

    Raises
    ------
    ImagesError
        If the source has no classes.
    ValueError
        If the share is outside (0, 1].

    Examples
    --------
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> images = SyntheticImages(1000, size=8)  # ten classes in turn
    >>> np.bincount(stratified(images, 0.05, seed=0).classes)
    array([5, 5, 5, 5, 5, 5, 5, 5, 5, 5])
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1]; got {share}")
    classes = _known(images)
    keep = np.zeros(len(images), dtype=bool)
    for number in range(len(images.names)):
        rows = _shuffled(classes, number, seed)
        keep[rows[: max(1, round(share * len(rows)))]] = True
    return _selected(images, keep)


def per_class(images: Images, count: int, *, seed: int) -> NDArray[np.int64]:
    """Draw as many images of every class, and return their numbers in rising order, (count classes,), int64.

    With the same seed a smaller count is a subset of a larger. What is left is ``np.setdiff1d(range(N), rows)``.

    Parameters
    ----------
    images
        With classes.
    count
        How many of each, at least 1.
    seed
        Of the choice.

    Raises
    ------
    ImagesError
        If the source has no classes, or one with fewer images.
    ValueError
        If the count is not positive.

    Examples
    --------
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> images = SyntheticImages(1000, size=8)  # ten classes in turn
    >>> rows = per_class(images, 2, seed=0)
    >>> rows.shape, np.bincount(images.classes[rows])
    ((20,), array([2, 2, 2, 2, 2, 2, 2, 2, 2, 2]))
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    classes = _known(images)
    few = [name for k, name in enumerate(images.names) if np.count_nonzero(classes == k) < count]
    if few:
        raise ImagesError(f"{', '.join(few[:5])} ({len(few)} classes in all) have fewer than {count} images")
    drawn = [_shuffled(classes, number, seed)[:count] for number in range(len(images.names))]
    return np.sort(np.concatenate(drawn))


def listed(images: Images, path: str | Path) -> Selection:
    """Keep the images that a file lists, in the order of the source.

    Such as the 1 % and 10 % of ImageNet's labels that were published with SimCLR (Chen et al., 2020), with lines like
    ``n02071294_46873.JPEG``.

    Parameters
    ----------
    images
        The source.
    path
        A text file with an image on every line: its path as
        :meth:`~infoassign_training.data.images.Images.origin` has it, or the last part of that.

    Raises
    ------
    ImagesError
        If the file cannot be read or lists nothing, an image twice, one that the source has not, or one that may be
        several of the source.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from infoassign_training.data.synthetic import SyntheticImages
    >>> path = Path(mkdtemp()) / "chosen.txt"
    >>> _ = path.write_text("synthetic[7]")
    >>> listed(SyntheticImages(10, size=8), path).rows
    array([7])
    """
    lines = lines_of(Path(path))
    places: dict[str, list[int]] = {line: [] for line in lines}
    for row in range(len(images)):
        origin = images.origin(row)
        for name in places.keys() & {origin, origin.rpartition("/")[2]}:
            places[name].append(row)
    missing = [line for line in lines if not places[line]]
    if missing:
        raise ImagesError(
            f"{path}: {len(missing)} of {len(lines)} images are not among the {len(images)}: {', '.join(missing[:3])}"
        )
    vague = next((line for line in lines if len(places[line]) > 1), None)
    if vague is not None:
        raise ImagesError(f"{path}: {vague} may be several images; expected their paths with folders")
    found, counts = np.unique([places[line][0] for line in lines], return_counts=True)
    if counts.max() > 1:
        raise ImagesError(f"{path} lists {images.origin(int(found[counts.argmax()]))} more than once")
    return rows_of(images, found)


def labelled(images: Images, share: float, names: str, seed: int) -> Images:
    """Return the images whose classes may be looked at: those a file names, a share of every class, or all."""
    if names:
        return listed(images, names)
    return images if share == 1 else stratified(images, share, seed=seed)


def _known(images: Images) -> NDArray[np.int64]:
    if images.classes is None:
        raise ImagesError("the images have no classes to choose by")
    return images.classes


def _shuffled(classes: NDArray[np.int64], number: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of one class in random order."""
    return np.random.default_rng((seed, number)).permutation(np.flatnonzero(classes == number))


def _selected(images: Images, keep: NDArray[np.bool_]) -> Selection:
    return rows_of(images, np.flatnonzero(keep))
