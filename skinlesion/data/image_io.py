"""Pixels of image files at the working size: one reader for training, evaluation, prediction and the service.

All of them refuse and accept the same images; the service alone takes fewer formats, and has limits of its own. Of 16
bits the upper eight are kept, in grey as in colour; of a GIF and of a DICOM file the first frame. The file needs
OpenCV, Pillow and numpy but neither torch nor pandas, so that a service starts fast.
"""

import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from threading import Condition
from typing import BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, ImageOps, UnidentifiedImageError
from PIL import Image as PillowImage

from skinlesion.data.dicom import open_dicom
from skinlesion.data.image_formats import (
    FORMATS,
    HEAD,
    MOST_PIXELS,
    ImageError,
    imported,
    kind_of,
    too_large,
    upper_bits,
)
from skinlesion.data.jpeg import EndedJpeg
from skinlesion.data.skin import Image as Image
from skinlesion.data.treatment import UNTREATED, Treatment

# OpenCV's threads do not survive the fork of a loader's worker (it would wait for ever), and images are small.
cv2.setNumThreads(0)

_MOST_BYTES = 1 << 28  # of a file
_TAIL = 4096  # bytes searched for the end marker; cameras, editors and disks append a little after it
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16L", "I;16B")
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_BOMBS = (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning)
_DECODER_ERRORS = (  # Pillow's decoders raise all of these for damaged files
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class ImageInput:
    """The images that a backbone expects; padded: predictions pad images of another aspect, as training does.

    treatment: What is done to an image at this size, before it is padded.
    """

    size: tuple[int, int]  # (height, width) in pixels
    mean: tuple[float, ...]  # of each channel in 0..1
    std: tuple[float, ...]  # of each channel in 0..1
    padded: bool = field(default=True, compare=False)
    treatment: Treatment = UNTREATED


class _Budget:
    """Lets threads decode as many pixels at a time as are allowed, or one image."""

    def __init__(self, most: int) -> None:
        self.most, self.held, self._changed = most, 0, Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self.held or self.held + pixels <= self.most)
            self.held += pixels
        try:
            yield
        finally:
            with self._changed:
                self.held -= pixels
                self._changed.notify_all()


_budget = _Budget(MOST_PIXELS)


def decode(path: Path, size: tuple[int, int], treatment: Treatment = UNTREATED) -> Image:
    """Read an image file, upright and RGB, and fit it into `size`.

    Raises:
        ImageError: The file is refused.
    """
    return fit(read(path), size, treatment)


def read(path: Path) -> Image:
    """Read an image file, upright and RGB, (h, w, 3).

    Raises:
        ImageError: The file is refused; it is named with the reason.
    """
    with _named(path), _regular_file(path) as file:
        return decode_bytes(file.read())


def decode_bytes(
    data: bytes,
    *,
    formats: tuple[str, ...] = FORMATS,
    check: Callable[[PillowImage.Image], None] = lambda image: None,
) -> Image:
    """Decode the content of an image file, upright and RGB, (h, w, 3).

    Args:
        data: The content.
        formats: Those of `FORMATS` that are accepted.
        check: Refuses an image by its header, before a pixel is decoded.

    Raises:
        ImageError: It is none of the formats, damaged, cut off, too large, animated, transparent, or not 8-bit.
    """
    with _translated(formats, data):
        jpeg = EndedJpeg(data) if data.startswith(b"\xff\xd8\xff") and "JPEG" in formats else None
        with _open(jpeg or BytesIO(data), formats, data[:HEAD]) as image:
            _check_header(image)
            check(image)
            with _budget.hold(image.width * image.height):
                image.load()
                if jpeg is not None and jpeg.has_surplus():
                    raise ImageError("damaged JPEG (more data than its pixels need)")
                return upright(image)


def upright(image: PillowImage.Image) -> Image:
    """Return the pixels of an opened image, (h, w, 3), RGB, turned as its EXIF orientation says.

    Raises:
        ImageError: It is damaged, too large, animated, transparent, or deeper than 8 bits.
    """
    with _translated(FORMATS):
        _check_header(image)
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
            raise ImageError("it has transparent parts; save it without alpha", "transparent-image")
        is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        shown = ImageOps.exif_transpose(image) if is_turned else image
        if image.mode.startswith("I;16"):
            shown = upper_bits(shown, image)
        return np.asarray(shown if shown.mode == "RGB" else shown.convert("RGB"))


def dimensions(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image file in pixels, upright, without decoding it.

    Raises:
        ImageError: The file is refused.
    """
    with _named(path), _regular_file(path) as file, _translated(FORMATS), _peeked(file) as image:
        sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
        width, height = image.size
    return (width, height) if sideways else (height, width)


def fit(image: Image, size: tuple[int, int], treatment: Treatment = UNTREATED) -> Image:
    """Resize an image to fit into `size`, keeping its aspect, and pad it with black in equal parts.

    Args:
        image: RGB, (h, w, 3).
        size: (height, width) of the result, in pixels.
        treatment: What is done to it at the new size, before it is padded.
    """
    if image.shape[:2] == size:
        return treatment(image)
    rows, columns = unpadded_area(image.shape[:2], size)
    inner = (columns.stop - columns.start, rows.stop - rows.start)
    shrinks = inner[0] < image.shape[1] or inner[1] < image.shape[0]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[rows, columns] = treatment(np.asarray(cv2.resize(image, inner, interpolation=interpolation), np.uint8))
    return canvas


def fit_area(image: Image, size: tuple[int, int], treatment: Treatment = UNTREATED) -> Image:
    """Resize an image to `area_shape` of it, without padding; `treatment` as in `fit`."""
    shape = area_shape(image.shape, size)
    if shape == size:
        return fit(image, size, treatment)
    shrinks = shape[0] * shape[1] < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return treatment(np.asarray(cv2.resize(image, shape[::-1], interpolation=interpolation), np.uint8))


def area_shape(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) with the aspect of an image and as many pixels as `size`.

    An image whose shorter side would have fewer than half the pixels of the shorter side of `size` keeps `size`, and
    is padded.

    Args:
        shape: (h, w) of the image, in pixels.
        size: (height, width) in pixels.
    """
    scale = ((size[0] * size[1]) / (shape[0] * shape[1])) ** 0.5
    height, width = round(shape[0] * scale), round(shape[1] * scale)
    return (height, width) if 2 * min(height, width) >= min(size) else size


def unpadded_area(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns that an image fills after `fit`; all others are padding.

    Args:
        shape: (h, w) of the image, in pixels.
        size: (height, width) of the result, in pixels.
    """
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (min(most, max(1, round(side * scale))) for side, most in zip(shape[:2], size, strict=True))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return slice(top, top + height), slice(left, left + width)


def probe(path: Path) -> None:
    """Refuse an image file that is not whole, as far as that shows without decoding it.

    Empty files, files of other formats or depths, and files cut off before their end are found; transparent parts and
    damage inside the pixel data are not (decoding finds them). 10,000 files take a second or two once the disk
    has them.

    Raises:
        ImageError: The file is refused.
    """
    with _regular_file(path) as file:
        with _translated(FORMATS, file.read(HEAD)), _peeked(file) as image:
            _check_header(image)
            kind = str(image.format)
        # Inside JPEG data 0xFF is always followed by 0x00 or a restart marker, so 0xFFD9 can only be the end.
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        if _END_MARKERS.get(kind, b"") not in file.read():
            raise ImageError(f"truncated {kind} (no end marker)")


def _open(file: BinaryIO, formats: tuple[str, ...], head: bytes) -> PillowImage.Image:
    """Open an image of one of `formats`; `head` is the beginning of the file."""
    kind, names = kind_of(head), tuple(name for name in formats if name not in ("HEIC", "DICOM"))
    if kind == "a DICOM file" and "DICOM" in formats:
        return open_dicom(file)
    if kind == "a HEIC" and "HEIC" in formats:
        imported("pillow_heif", "heic", kind).register_heif_opener()
        names += ("HEIF",)
    return PillowImage.open(file, formats=names)


def _peeked(file: BinaryIO) -> PillowImage.Image:
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return _open(file, FORMATS, head)


@contextmanager
def _regular_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read; anything else is refused, such as a named pipe, which would wait for a writer for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("no regular file", "not-an-image")
        if not status.st_size:
            raise ImageError("empty file")
        if status.st_size > _MOST_BYTES:
            raise ImageError(f"{status.st_size >> 20} MiB; at most {_MOST_BYTES >> 20} are read: save it as a JPEG")
        yield file


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: not a readable image ({error})", error.kind) from error


@contextmanager
def _translated(formats: tuple[str, ...], data: bytes = b"") -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError; `data` says what an unknown file may be."""
    try:
        yield
    except UnidentifiedImageError:
        found = kind_of(data) or "of an unknown type"
        if found.split()[-1] in formats:
            raise ImageError(f"{found}, but damaged or cut off; copy it again, or save it as PNG") from None
        expected = f"expected {', '.join(formats[:-1])} or {formats[-1]}"
        raise ImageError(f"its content is {found}; {expected}, whatever its name", "not-an-image") from None
    except _BOMBS as error:
        raise too_large("far more pixels than allowed") from error
    except _DECODER_ERRORS as error:
        raise ImageError(f"damaged or cut off ({error}); copy it again, or save it again from the original") from error


def _check_header(image: PillowImage.Image) -> None:
    """Refuse an image by its header, before any pixel is decoded."""
    if image.width * image.height > MOST_PIXELS:
        raise too_large(f"{image.width} x {image.height} pixels")
    if getattr(image, "is_animated", False) and image.format not in ("MPO", "GIF"):  # MPO: JPEG and preview
        raise ImageError("it has several frames or pages; save one of them as a still image", "animated-image")
    if image.mode not in _MODES:
        found = {"F": "32-bit floating point", "I": "32-bit grey"}.get(image.mode, image.mode)
        raise ImageError(f"its pixels are {found}; convert it to 8-bit RGB", "not-rgb")
