"""The labelled data sets that encoders are evaluated on: their splits, and what counts."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from infoassign_training.data.benchmark_layouts import SETS
from infoassign_training.data.images import Images, ImagesError
from infoassign_training.data.joined import joined
from infoassign_training.data.splits import Splits

Metric = Literal["top-1", "mean-per-class", "11-point-map"]
"""The share of images that are right, its mean over the classes, or VOC2007's mean average precision."""
METRICS: dict[str, Metric] = {
    "aircraft": "mean-per-class",
    "caltech101": "mean-per-class",
    "flowers": "mean-per-class",
    "pets": "mean-per-class",
    "voc2007": "11-point-map",
}
"""What counts (Kornblith et al., 2019, table 1); of the others it is top-1."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A labelled data set in its parts, which share no image and number their classes alike.

    Examples
    --------
    >>> open_benchmark("digits").test.names[:3]
    ('0', '1', '2')

    Without images to choose settings on, training images are all that there is:

    >>> digits = open_benchmark("digits")
    >>> digits.with_validation() is digits.train
    True
    """

    name: str
    """One of :data:`~infoassign_training.data.benchmark_layouts.SETS`."""
    train: Images
    """Fitted on."""
    validation: Images | None
    """The official part to choose settings on, if there is one; a final fit is on both."""
    test: Images
    """Scored on, once."""
    metric: Metric = "top-1"
    """What is reported."""
    note: str = ""
    """What was drawn or chosen, such as "30 images of each class, drawn with seed 0"."""

    def with_validation(self) -> Images:
        """Return the training images and, after them, the validation images, if there are any."""
        return self.train if self.validation is None else joined(self.train, self.validation)


def open_benchmark(words: str, *, seed: int = 0, class_list: str = "") -> Benchmark:
    """Open a benchmark by how a person names it.

    Parameters
    ----------
    words
        ``NAME:WHERE`` with a name of :data:`~infoassign_training.data.benchmark_layouts.SETS`, which also says how it
        must lie there; ``digits``; or a folder alone, with train/ and val/ or test/ in it, of image files or of what
        ``infoassign pack`` wrote.
    seed
        Of what is drawn, where the set itself does not say what is fitted on.
    class_list
        File with WordNet numbers, one a line: only these classes take part, as in ImageNet-100. Empty for all.

    Returns
    -------
    Benchmark
        Its images, not yet read.

    Raises
    ------
    ImagesError
        If there is no such set, or it does not lie there whole; the message says what was expected.

    Examples
    --------
    >>> benchmark = open_benchmark("digits")
    >>> len(benchmark.train), benchmark.validation, len(benchmark.test), benchmark.metric
    (1347, None, 450, 'top-1')
    """
    name, where = _named(words)
    try:
        splits = _opened(name, where, seed)
        _require_same_classes(splits)
    except ImagesError as error:
        raise ImagesError(f"{error}; {name}:WHERE expects {SETS[name]}") from error
    if class_list:
        splits = _of_classes(splits, class_list)
    return Benchmark(name, splits.train, splits.validation, splits.test, METRICS.get(name, "top-1"), splits.note)


def _of_classes(splits: Splits, path: str) -> Splits:
    """Return the images of the classes that a file names, in every part."""
    from infoassign_training.data.class_lists import only_classes, read_class_list

    names = read_class_list(path)
    validation = None if splits.validation is None else only_classes(splits.validation, names)
    note = "; ".join(filter(None, (splits.note, f"the {len(names)} classes in {Path(path).name}")))
    return Splits(only_classes(splits.train, names), only_classes(splits.test, names), validation, note)


def _require_same_classes(splits: Splits) -> None:
    for part in (splits.validation, splits.test):
        if part is not None and part.names != splits.train.names:
            differing = sorted(set(splits.train.names) ^ set(part.names))
            listed = f"{', '.join(differing[:5])} ({len(differing)} in all)"
            raise ImagesError(f"not every part has all classes: not {listed}")


def _named(words: str) -> tuple[str, Path]:
    """Return the name and the place."""
    name, _, place = words.partition(":")
    if name == "digits":
        if place:
            raise ImagesError(f"digits is in no place; got {words!r}")
        return name, Path()
    if name in SETS:
        if not place:
            raise ImagesError(f"where is {name}? {name}:WHERE expects {SETS[name]}")
        return name, Path(place).absolute()
    folder = Path(words)
    if folder.is_dir():
        return ("packed" if (folder / "train" / "dataset_info.json").is_file() else "folder"), folder.absolute()
    near = get_close_matches(name.lower(), SETS, n=1)
    raise ImagesError(
        f"there is no benchmark and no folder {words!r}{f'; did you mean {near[0]}?' if near else '.'} There are"
        f" {', '.join(f'{known}:WHERE' for known in SETS if known != 'digits')}, digits, and a folder with train/ and"
        " val/ or test/"
    )


def _opened(name: str, where: Path, seed: int) -> Splits:
    # Only what is asked for is imported.
    match name:
        case "digits":
            from infoassign_training.data.digits import digit_images, digits

            train, held_out = digits()
            return Splits(digit_images(train), digit_images(held_out))
        case "folder" | "packed":
            from infoassign_training.data.split_folders import split_folders, split_packed

            return (split_folders if name == "folder" else split_packed)(where)
        case "imagenet" | "cifar10" | "cifar100" | "svhn" | "stl10":
            from infoassign_training.data.torchvision_sets import open_splits

            return open_splits(name, where)
        case "places205" | "places365":
            from infoassign_training.data import places

            return places.places205(where) if name == "places205" else places.places365(where)
        case "voc2007":
            from infoassign_training.data.voc import voc2007

            return voc2007(where)
        case "caltech101":
            from infoassign_training.data.transfer_sets import caltech101

            return caltech101(where, seed=seed)
    from infoassign_training.data import transfer_sets

    readers: dict[str, Callable[[Path], Splits]] = {
        "aircraft": transfer_sets.aircraft,
        "cars": transfer_sets.cars,
        "dtd": transfer_sets.dtd,
        "flowers": transfer_sets.flowers,
        "food101": transfer_sets.food101,
        "pets": transfer_sets.pets,
        "sun397": transfer_sets.sun397,
    }
    return readers[name](where)
