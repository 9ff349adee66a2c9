"""From settings to a source of images."""

from pathlib import Path

from filelock import FileLock

from infoassign_training.data import settings
from infoassign_training.data.images import Images, ImagesError


def images_of(chosen: settings.Source) -> Images:
    """Open a source of images.

    Raises
    ------
    ImagesError
        If no place is named, or what is there cannot be read; the message says what was expected.
    """
    if isinstance(chosen, settings.Chosen):
        return _taking_part(_opened(chosen), chosen)
    if isinstance(chosen, settings.Evaluated):
        return _labelled(chosen)
    if isinstance(chosen, settings.Synthetic):
        from infoassign_training.data.synthetic import SyntheticImages

        return SyntheticImages(chosen.count, chosen.size)
    from infoassign_training.data.digits import digit_images, digits

    return digit_images(digits()[0])


def _opened(chosen: settings.Chosen) -> Images:
    # Only what is asked for is imported.
    match chosen:
        case settings.Torchvision(name=name, root=root, split=split, download=download):
            from infoassign_training.data.torchvision_sets import open_torchvision

            if not download:
                return open_torchvision(name, _place(root, name), split)
            Path(_place(root, name)).mkdir(parents=True, exist_ok=True)
            # One process gets it, and the others find it there.
            with FileLock(Path(root) / f".{name}.lock"):
                return open_torchvision(name, root, split, download=True)
        case settings.Folder(root=root, labelled=labelled):
            from infoassign_training.data.folder import open_folder

            return open_folder(_place(root, "a folder of images"), labelled=labelled)
        case settings.Packed(root=root):
            from infoassign_training.data.packed import open_packed

            return open_packed(_place(root, "a folder of packed images"))
        case settings.Hub(root=root, split=split, revision=revision):
            from infoassign_training.data.packed import open_hub

            return open_hub(_place(root, "a data set of the hub"), split, revision=revision or None)
    raise TypeError(f"no source of images is described by {chosen!r}")


def _labelled(chosen: settings.Evaluated) -> Images:
    from infoassign_training.data.benchmarks import open_benchmark
    from infoassign_training.data.subsets import labelled

    words = f"{chosen.name}:{chosen.root}" if chosen.root else chosen.name
    benchmark = open_benchmark(words, seed=chosen.seed, class_list=chosen.class_list)
    whole = benchmark.with_validation() if chosen.validation else benchmark.train
    return labelled(whole, chosen.labelled, chosen.labelled_list, chosen.seed)


def _place(root: str, what: str) -> str:
    if not root:
        raise ImagesError(f"where is {what}? say so by --data WHERE")
    return root


def _taking_part(images: Images, chosen: settings.Chosen) -> Images:
    if chosen.class_list:
        from infoassign_training.data.class_lists import only_classes, read_class_list

        images = only_classes(images, read_class_list(chosen.class_list))
    if chosen.imbalance != "full":
        from infoassign_training.data.subsets import imbalanced

        images = imbalanced(images, chosen.imbalance, seed=chosen.imbalance_seed)
    return images
