"""From the bytes of an uploaded image to pixels, in memory.

The type is found by content, not by its name or declared content type. Only formats with small, well-tried decoders
are accepted: not TIFF, GIF, HEIC or DICOM. EXIF orientation turns a photograph upright, as in training; no other EXIF
is used.
"""

import struct
import zlib
from io import BytesIO

from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from skinlesion.config.deploy import LimitsConfig
from skinlesion.data.image_io import Image, upright
from skinlesion.deploy.service.errors import RequestError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "YCbCr", "P", "PA")
_MODE_NAMES = {"1": "black and white", "L": "greyscale", "LA": "greyscale with alpha", "F": "greyscale, 32 bits"}
_MAX_SCANS = 64  # a progressive JPEG has about ten; thousands make a small file slow to decode
_SIGNATURES = (
    (0, b"GIF8", "a GIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (4, b"ftyp", "a HEIC, AVIF or video"),
    (128, b"DICM", "a DICOM file"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\3\4", "a ZIP archive"),
)
_BOMBS = (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning)
_DECODER_ERRORS = (  # Pillow's decoders raise all of these for damaged files
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


def decode_upload(data: bytes, limits: LimitsConfig) -> Image:
    """Decode an upload.

    Args:
        data: The file's bytes.
        limits: Limits on bytes and pixels.

    Returns:
        RGB, upright, (h, w, 3).

    Raises:
        RequestError: It is no image, damaged, too large or small, animated, transparent, or not in 8-bit colour.
    """
    if not data:
        raise RequestError(422, "empty-image", "the image is empty (0 bytes); send the file's content")
    if len(data) > limits.image_mib * 2**20:
        raise too_many_bytes(limits)
    try:
        with PillowImage.open(BytesIO(data), formats=FORMATS) as image:
            _check_header(image, data, limits)
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                raise RequestError(422, "transparent-image", "the image has transparent parts; send it without alpha")
            return upright(image)
    except UnidentifiedImageError:
        found = next((name for at, sign, name in _SIGNATURES if data[at:].startswith(sign)), "of an unknown type")
        detail = f"the file's content is {found}; expected JPEG, PNG, WebP or BMP, whatever its name"
        raise RequestError(415, "not-an-image", detail) from None
    except _BOMBS:
        raise _too_many_pixels("far more pixels than allowed", limits) from None
    except _DECODER_ERRORS:
        detail = "the image is damaged or cut off; save it again from the original and send that"
        raise RequestError(422, "damaged-image", detail) from None


def too_many_bytes(limits: LimitsConfig) -> RequestError:
    """The refusal of a file of too many bytes."""
    detail = f"an image has more than {limits.image_mib:g} MiB; send it as a JPEG or with fewer pixels"
    return RequestError(413, "too-many-bytes", detail)


def _too_many_pixels(found: str, limits: LimitsConfig) -> RequestError:
    detail = f"the image has {found}; at most {limits.megapixels:g} million are allowed: scale it down"
    return RequestError(413, "too-many-pixels", detail)


def _check_header(image: PillowImage.Image, data: bytes, limits: LimitsConfig) -> None:
    """Check an image before any pixel is decoded, so that a small file cannot ask for much memory or time."""
    width, height = image.size
    if width * height > limits.megapixels * 1e6:
        raise _too_many_pixels(f"{width} x {height} pixels", limits)
    if min(width, height) < limits.shortest_side:
        detail = f"the image has {width} x {height} pixels; expected {limits.shortest_side} or more on each side"
        raise RequestError(422, "too-few-pixels", detail)
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a camera's JPEG with a preview
        raise RequestError(422, "animated-image", "the image is animated; send a still image")
    is_deep_png = image.format == "PNG" and data[24] == 16  # bits a channel in its header; Pillow would cut them to 8
    if image.mode not in _COLOUR_MODES or is_deep_png:
        grey = "greyscale, 16 bits" if image.mode.startswith("I") else image.mode
        found = "16 bits a channel" if image.mode in _COLOUR_MODES else _MODE_NAMES.get(image.mode, grey)
        raise RequestError(422, "not-rgb", f"the image is {found}; convert it to 8-bit RGB and send it again")
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > _MAX_SCANS:
        raise RequestError(
            422, "damaged-image", f"the JPEG has more than {_MAX_SCANS} scans; save it as a baseline JPEG"
        )
