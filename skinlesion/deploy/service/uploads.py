"""From the bytes of an upload to pixels, or to a problem that says what to do. Nothing is written to disk.

The type is found by content, whatever name or content type came with it. Only formats with small, well-tried readers
are taken: TIFF, GIF, HEIC and DICOM are not. A photograph's EXIF turns it upright, as in training, and goes no further.
"""

import struct
import zlib
from io import BytesIO

from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from skinlesion.config.deploy import LimitsConfig
from skinlesion.data.image_io import Image, upright
from skinlesion.deploy.service.problems import RequestError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
NAMES = "JPEG, PNG, WebP or BMP"

_COLOUR = ("RGB", "RGBA", "RGBX", "YCbCr", "P", "PA")
_SCANS = 64  # a progressive JPEG has about ten; thousands make a small file slow to read
_SIGNS = (
    (0, b"GIF8", "a GIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (4, b"ftyp", "a HEIC, AVIF or video"),
    (128, b"DICM", "a DICOM file"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\3\4", "a ZIP archive"),
)
_UNREADABLE = (  # what Pillow's readers raise for damaged files
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_BOMBS = (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning)


def pixels(data: bytes, limits: LimitsConfig) -> Image:
    """Read an upload.

    Args:
        data: The file's bytes.
        limits: What is too large or too small.

    Returns:
        Upright, RGB, (h, w, 3).

    Raises:
        RequestError: It is no image, not whole, too large or small, moving, or not in 8-bit colour.
    """
    if not data:
        raise RequestError(422, "empty-image", "the image is empty: 0 bytes; send the file's content")
    if len(data) > limits.image_mib * 2**20:
        raise too_many_bytes(limits)
    try:
        with PillowImage.open(BytesIO(data), formats=FORMATS) as image:
            _refuse_what_the_header_shows(image, data, limits)
            _refuse_transparency(image)
            return upright(image)
    except UnidentifiedImageError:
        found = next((name for at, sign, name in _SIGNS if data[at:].startswith(sign)), "none of these")
        raise RequestError(
            415, "not-an-image", f"by its content the file is {found}; expected {NAMES}, whatever its name says"
        ) from None
    except _BOMBS:
        raise _too_many_pixels("far more pixels than this", limits) from None
    except _UNREADABLE:
        raise RequestError(
            422, "damaged-image", "the image is damaged or cut off; save it anew from the original and send it again"
        ) from None


def too_many_bytes(limits: LimitsConfig) -> RequestError:
    """The refusal of a file of too many bytes."""
    return RequestError(
        413,
        "too-many-bytes",
        f"an image has more than {limits.image_mib:g} MiB; send it smaller, as JPEG of fewer pixels",
    )


def _too_many_pixels(found: str, limits: LimitsConfig) -> RequestError:
    return RequestError(
        413, "too-many-pixels", f"the image has {found}; at most {limits.megapixels:g} million are read: scale it down"
    )


def _refuse_what_the_header_shows(image: PillowImage.Image, data: bytes, limits: LimitsConfig) -> None:
    """Before any pixel is decoded, so that a small file cannot ask for much memory or time."""
    width, height = image.size
    if width * height > limits.megapixels * 1e6:
        raise _too_many_pixels(f"{width} x {height} pixels", limits)
    if min(width, height) < limits.shortest_side:
        raise RequestError(
            422,
            "too-few-pixels",
            f"the image has {width} x {height} pixels; expected {limits.shortest_side} or more on each side",
        )
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a camera's JPEG with a preview
        raise RequestError(422, "animated-image", "the image moves; send one still picture")
    if image.mode not in _COLOUR:
        raise RequestError(
            422,
            "not-rgb",
            f"the image's colours are {_named(image.mode)}; the model reads 8-bit RGB: convert and send it again",
        )
    if image.format == "PNG" and data[24] == 16:  # the header's bit depth; Pillow would cut it to 8
        raise RequestError(422, "not-rgb", "the image has 16 bits a channel; convert it to 8-bit RGB and send it again")
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > _SCANS:
        raise RequestError(422, "damaged-image", f"the JPEG has more than {_SCANS} scans; save it as an ordinary JPEG")


def _named(mode: str) -> str:
    names = {"1": "black and white", "L": "greyscale", "LA": "greyscale with alpha", "F": "greyscale, 32 bits"}
    return "greyscale, 16 bits" if mode.startswith("I") else names.get(mode, mode)


def _refuse_transparency(image: PillowImage.Image) -> None:
    """A screenshot has an alpha channel, too; only where something shines through are the colours not known."""
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise RequestError(422, "transparent-image", "parts of the image are transparent; send it without alpha")
