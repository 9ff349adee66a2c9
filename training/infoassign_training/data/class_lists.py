"""Some classes of a data set, named in a file: ImageNet-100 and its like."""

from pathlib import Path

import numpy as np

from infoassign_training.data.images import Images, ImagesError
from infoassign_training.data.subsets import Selection
from infoassign_training.data.torchvision_sets import WNID


def read_class_list(path: str | Path) -> tuple[str, ...]:
    """Read WordNet numbers, one a line; empty lines are passed over.

    ImageNet-100 is a random hundred classes of ImageNet whose list was published with the method that drew it (Tian et
    al., 2020, Contrastive multiview coding). The list is not part of this package.

    Raises
    ------
    ImagesError
        If the file cannot be read, is empty, or has a line that is no WordNet number or was there before.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImagesError(f"the class list {path} cannot be read: {error}") from error
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry:
            continue
        if not WNID.fullmatch(entry):
            raise ImagesError(f"{path}, line {number}: expected a WordNet number like n01440764; got {entry!r}")
        if entry in first:
            raise ImagesError(f"{path}, line {number}: {entry} was already in line {first[entry]}")
        first[entry] = number
    if not first:
        raise ImagesError(f"the class list {path} is empty; expected a WordNet number like n01440764 on every line")
    return tuple(first)


def only_classes(images: Images, names: tuple[str, ...]) -> Selection:
    """Return the images of some classes, in the order of the source.

    The classes are numbered anew by their sorted names, as a folder with only these would be, whatever the order of
    `names`.

    Raises
    ------
    ImagesError
        If the source has no classes, or not all of these.
    """
    if images.classes is None:
        raise ImagesError("the images have no classes to choose from")
    unknown = sorted(set(names) - set(images.names))
    if unknown:
        raise ImagesError(f"{len(unknown)} of {len(names)} classes are not among the images': {', '.join(unknown[:5])}")
    kept = tuple(sorted(names))
    numbers = np.full(len(images.names), -1, dtype=np.int64)
    numbers[[images.names.index(name) for name in kept]] = np.arange(len(kept))
    classes = numbers[images.classes]
    rows = np.flatnonzero(classes >= 0)
    return Selection(images, rows, classes[rows], kept)
