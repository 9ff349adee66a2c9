"""Bytes of an image file to pixels."""

import struct
from io import BytesIO

import PIL.Image

from infoassign_training.data.images import ImagesError


def decoded(data: bytes, origin: str) -> PIL.Image.Image:
    """Decode an image file to RGB; as in the papers' code, its orientation tag is ignored.

    Raises
    ------
    ImagesError
        If it is no image that PIL can read, or is cut off; the message names `origin`.
    """
    try:
        with PIL.Image.open(BytesIO(data)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, struct.error, PIL.Image.DecompressionBombError) as error:
        # PIL describes a file that it cannot identify by the address of a buffer.
        reason = "no image format that is known" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
        raise ImagesError(f"{origin} cannot be decoded ({len(data)} bytes): {reason}") from error
