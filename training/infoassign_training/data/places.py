"""The Places data sets: scenes, listed with the numbers of their classes."""

from pathlib import Path

from infoassign_training.data.folder import FolderImages
from infoassign_training.data.images import ImagesError
from infoassign_training.data.listed_files import first_file, listed_images, pairs_of, place_of
from infoassign_training.data.splits import Splits

SCORED_ON_VALIDATION = "scored on the validation images, as those of the test have no public classes"


def places205(where: Path) -> Splits:
    """Places-205, as its archives of small images and of lists unpack.

    Raises
    ------
    ImagesError
        If it is not whole, or a class has more than one name.
    """
    folder = place_of(where, "data/vision/torralba/deeplearning/images256", "images256")

    def listed(split: str) -> list[tuple[str, int]]:
        file = f"{split}_places205.csv"
        return pairs_of(first_file(where / "trainvalsplit_places205" / file, where / file))

    train, val = listed("train"), listed("val")
    # The lists alone name the classes: those of a/abbey/gsun_0.jpg are a/abbey, and the letter is no part of the name.
    known = sorted({(number, image.rpartition("/")[0]) for image, number in train})
    if [number for number, _ in known] != list(range(len(known))):
        raise ImagesError(f"the training list does not number its {len(known)} folders from 0 on, each with one number")
    names = [name.partition("/")[2] for _, name in known]
    return Splits(_part(folder, train, names), _part(folder, val, names), note=SCORED_ON_VALIDATION)


def places365(where: Path) -> Splits:
    """Places-365 (standard), small images, as torchvision unpacks it.

    Raises
    ------
    ImagesError
        If it is not whole.
    """
    folder = place_of(where)
    categories = sorted((number, name) for name, number in pairs_of(folder / "categories_places365.txt"))
    names = [name[3:] for _, name in categories]
    train = _part(folder / "data_256_standard", pairs_of(folder / "places365_train_standard.txt"), names)
    val = _part(folder / "val_256", pairs_of(folder / "places365_val.txt"), names)
    return Splits(train, val, note=SCORED_ON_VALIDATION)


def _part(folder: Path, listed: list[tuple[str, int]], names: list[str]) -> FolderImages:
    return listed_images(folder, [image.lstrip("/") for image, _ in listed], [number for _, number in listed], names)
