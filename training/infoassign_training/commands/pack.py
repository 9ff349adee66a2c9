"""``infoassign pack``: images to few large files."""

import sys
from pathlib import Path

import tyro

from infoassign_training.data.settings import Folder, named
from infoassign_training.errors import UserError


def pack(images: tyro.conf.Positional[str], out: Path, size: int = 256, quality: int = 90, workers: int = 2) -> None:
    """Write images to few large files, scaled down, from which training reads faster.

    Args:
        images: The images: a folder with a folder for every class, or KIND:WHERE as for `pretrain --data`
            (folder:pictures for a folder without classes).
        out: The folder to write, which must not be there yet; `pretrain --data` takes it.
        size: Length of the shorter side, in pixels; images are never enlarged.
        quality: Of the JPEG files, 1 to 95. Those that are small enough keep their bytes.
        workers: Processes that decode and encode.
    """
    from infoassign_training.data import packed
    from infoassign_training.data.build import images_of

    try:
        source = images_of(named(images, Folder(labelled=True)))
        found = packed.pack(source, out.expanduser(), size=size, quality=quality, workers=workers)
    except ValueError as error:
        raise UserError(str(error)) from error
    sys.stdout.write(f"{len(found)} images of {len(found.names)} classes in {out}\n")
