"""From the bytes of an uploaded image to pixels, in memory.

The type is found by content, not by its name or declared content type. Only formats with small, well-tried decoders
are accepted: not TIFF, GIF, HEIC or DICOM. EXIF orientation turns a photograph upright, as in training; no other EXIF
is used.
"""

from PIL import Image as PillowImage

from skinlesion.config.deploy import LimitsConfig
from skinlesion.data.image_io import Image, ImageError, decode_bytes
from skinlesion.deploy.service.errors import RequestError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_MAX_SCANS = 64  # a progressive JPEG has about ten; thousands make a small file slow to decode
_STATUS = {"not-an-image": 415, "too-many-pixels": 413}  # all else: 422


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
        return decode_bytes(data, formats=FORMATS, check=lambda image: _check_header(image, data, limits))
    except ImageError as error:
        raise RequestError(_STATUS.get(error.kind, 422), error.kind, f"the image cannot be read: {error}") from None


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
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > _MAX_SCANS:
        raise RequestError(
            422, "damaged-image", f"the JPEG has more than {_MAX_SCANS} scans; save it as a baseline JPEG"
        )
