"""Formats of image files: told apart by content, opened by Pillow or an extra, refused by name."""

from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from skinlesion.errors import DataError

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".jfif", ".jpe", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".heic", ".heif", ".dcm", ".dicom"),
)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "HEIC", "DICOM")
"""Formats that are read; no other decoder is tried, whatever a file is called. The last two need extras."""

MOST_PIXELS = 89_478_485
"""Pixels of an image, and of all images decoded at a time: Pillow's threshold of a decompression bomb, about 1 GB."""

HEAD = 256  # bytes that tell what a file is
_TWELVE_BITS = 1 << 12  # a 16-bit image that has no greater value would turn black
_PHOTOMETRIC = 262  # tag of a TIFF; 0: its greatest value is black
_SIGNATURES = (
    (0, b"GIF8", "a GIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    *((4, b"ftyp" + brand, "a HEIC") for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    (4, b"ftyp", "an AVIF or a video"),
    (128, b"DICM", "a DICOM file"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"PK\3\4", "a ZIP archive"),
)


class ImageError(DataError):
    """An image that is refused; `kind` names the reason for programs."""

    def __init__(self, message: str, kind: str = "damaged-image") -> None:
        super().__init__(message)
        self.kind = kind


def too_large(found: str) -> ImageError:
    """The refusal of an image of too many pixels."""
    allowed = f"at most {MOST_PIXELS / 1e6:.0f} million are read: scale it down"
    return ImageError(f"it has {found}; {allowed}", "too-many-pixels")


def upper_bits(image: PillowImage.Image, opened: PillowImage.Image) -> PillowImage.Image:
    """Keep the upper eight of 16 bits of grey, as Pillow does in colour.

    Args:
        image: The image, turned upright.
        opened: The image as it was opened, with its tags.

    Raises:
        ImageError: Its values use 12 bits or fewer, so that it would turn black.
    """
    values = np.asarray(image).astype(np.uint16)
    if getattr(opened, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        values = ~values
    if values.max() < _TWELVE_BITS:
        raise ImageError("its 16-bit values end at 12 bits; spread them to 0..65535, or save it as 8 bits", "not-rgb")
    return PillowImage.fromarray((values >> 8).astype(np.uint8))


def kind_of(head: bytes) -> str:
    """Say what the beginning of a file shows, "" where it is none of `_SIGNATURES`."""
    return next((name for at, sign, name in _SIGNATURES if head[at:].startswith(sign)), "")


def imported(module: str, extra: str, kind: str) -> Any:
    """Import what an extra brings.

    Raises:
        ImageError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        way = f"pip install 'skinlesion[{extra}]', or save it as PNG"
        raise ImageError(f"its content is {kind}, which needs an extra: {way}", "not-an-image") from None
