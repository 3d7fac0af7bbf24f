"""Files other than plain colour photographs are refused with a reason; photographs keep their pixels."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PillowImage
from service_doubles import coloured, encoded, limits

from skinlesion.deploy.service.errors import RequestError
from skinlesion.deploy.service.uploads import decode_upload

LIMITS = limits(shortest_side=2, megapixels=0.01)
RNG = np.random.default_rng(1)


def noisy(height: int = 20, width: int = 30) -> PillowImage.Image:
    return PillowImage.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that would unpack to width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def png16() -> bytes:
    raw = b"".join(b"\0" + bytes(6 * 4) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    return encoded(noisy(), kind, save_all=True, append_images=[noisy(), noisy()])


def transparent() -> bytes:
    image = noisy().convert("RGBA")
    image.putpixel((3, 3), (1, 2, 3, 254))
    return encoded(image)


def without_palette() -> bytes:
    """A PNG whose pixels are places in a palette that is not there."""
    header = struct.pack(">IIBBBBB", 20, 20, 8, 3, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(21 * 20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


BAD = {
    "empty": (b"", 422, "empty-image"),
    "text": (b"hello, I am a photo", 415, "not-an-image"),
    "html": (b"<html><img src=x></html>", 415, "not-an-image"),
    "gif": (encoded(noisy(), "GIF"), 415, "a GIF"),
    "tiff": (encoded(noisy(), "TIFF"), 415, "a TIFF"),
    "pdf": (encoded(noisy(), "PDF"), 415, "a PDF"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(40), 415, "HEIC"),
    "dicom": (bytes(128) + b"DICM" + bytes(40), 415, "DICOM"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "not-an-image"),
    "bytes": (bytes(1024 * 1024 + 1), 413, "too-many-bytes"),
    "pixels": (encoded(noisy(101, 100)), 413, "too-many-pixels"),
    "bomb": (bomb(9_000, 9_000), 413, "too-many-pixels"),
    "large bomb": (bomb(50_000, 50_000), 413, "too-many-pixels"),
    "one pixel": (encoded(noisy(1, 1)), 422, "too-few-pixels"),
    "strip": (encoded(noisy(1, 50)), 422, "too-few-pixels"),
    "cut JPEG": (encoded(noisy(), "JPEG")[:-200], 422, "damaged-image"),
    "cut PNG": (encoded(noisy())[:-200], 422, "damaged-image"),
    "cut WebP": (encoded(noisy(), "WEBP")[:-200], 422, "damaged-image"),
    "cut BMP": (encoded(noisy(), "BMP")[:-200], 422, "damaged-image"),
    "JPEG header": (encoded(noisy(), "JPEG")[:30], 422, "damaged-image"),
    "PNG without palette": (without_palette(), 422, "damaged-image"),
    "PNG without data": (bomb(20, 20), 422, "damaged-image"),
    "animated PNG": (animated("PNG"), 422, "animated-image"),
    "animated WebP": (animated("WEBP"), 422, "animated-image"),
    "12 bits in 16": (encoded(PillowImage.new("I;16", (20, 20), 4095)), 422, "16-bit values end at 12 bits"),
    "transparent": (transparent(), 422, "transparent-image"),
    "many scans": (encoded(noisy(), "JPEG") + b"\xff\xda" * 65, 422, "scans"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_is_refused_with_a_reason(name: str) -> None:
    data, status, said = BAD[name]
    with pytest.raises(RequestError) as caught:
        decode_upload(data, LIMITS)
    assert caught.value.status == status
    assert said in f"{caught.value.kind} {caught.value.detail}"
    assert len(caught.value.detail) > 20, "it says what to do"


@pytest.mark.parametrize("error", [AssertionError, SystemError, NotImplementedError, BufferError, RecursionError])
def test_whatever_a_decoder_raises_is_a_refusal(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error("secret")

    monkeypatch.setattr(PillowImage.Image, "convert", fail)
    with pytest.raises(RequestError) as caught:
        decode_upload(encoded(noisy().quantize(16)), LIMITS)
    assert (caught.value.status, caught.value.kind) == (422, "damaged-image")


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_pixels_are_those_of_the_file(kind: str) -> None:
    image = noisy()
    np.testing.assert_array_equal(decode_upload(encoded(image, kind), LIMITS), np.asarray(image))


def test_lossless_webp_and_jpeg() -> None:
    image = noisy()
    np.testing.assert_array_equal(decode_upload(encoded(image, "WEBP", lossless=True), LIMITS), np.asarray(image))
    plain = coloured(200, 100, 50, (20, 30))
    assert np.abs(decode_upload(encoded(plain, "JPEG"), LIMITS).astype(int) - plain).max() <= 3
    assert decode_upload(encoded(image, "JPEG", progressive=True), LIMITS).shape == (20, 30, 3)


def test_opaque_alpha_and_palettes_are_colour() -> None:
    image = noisy()
    np.testing.assert_array_equal(decode_upload(encoded(image.convert("RGBA")), LIMITS), np.asarray(image))
    palette = image.quantize(16)
    np.testing.assert_array_equal(decode_upload(encoded(palette), LIMITS), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    ("orientation", "views"),
    [(1, lambda a: a), (2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_a_photograph_is_turned_upright(orientation: int, views) -> None:  # type: ignore[no-untyped-def]
    """Orientation 6, say, means: row 0 is the right-hand side, so a quarter turn clockwise is due."""
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    image = noisy()
    np.testing.assert_array_equal(decode_upload(encoded(image, "PNG", exif=exif), LIMITS), views(np.asarray(image)))


def test_the_same_pixels_as_training_reads(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from skinlesion.data.image_io import decode

    (tmp_path / "a.jpg").write_bytes(data := encoded(noisy(24, 32), "JPEG"))
    np.testing.assert_array_equal(decode_upload(data, LIMITS), decode(tmp_path / "a.jpg", (24, 32)))


FORMS = {
    "CMYK": encoded(noisy().convert("CMYK"), "JPEG"),
    "grey JPEG": encoded(noisy().convert("L"), "JPEG"),
    "grey PNG": encoded(noisy().convert("L")),
    "grey with opaque alpha": encoded(noisy().convert("LA")),
    "one bit": encoded(noisy().convert("1")),
    "16-bit colour": png16(),
    "palette": encoded(noisy().quantize(16)),
    "WebP": encoded(noisy(), "WEBP"),
    "BMP": encoded(noisy(), "BMP"),
    "16-bit grey": encoded(PillowImage.fromarray(RNG.integers(0, 65536, (20, 20), dtype=np.uint16))),
    "12 bits in 16": BAD["12 bits in 16"][0],
    "transparent": BAD["transparent"][0],
    "animated": BAD["animated WebP"][0],
    "cut": BAD["cut JPEG"][0],
    "zeroed": bytes(encoded(noisy(90, 90), "JPEG")[:4000]) + bytes(4000) + b"\xff\xd9",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_the_service_refuses_and_accepts_what_a_file_is(tmp_path, name: str) -> None:  # type: ignore[no-untyped-def]
    from skinlesion.data.image_formats import ImageError
    from skinlesion.data.image_io import read

    def outcome(decoder: object, content: object) -> object:
        try:
            return decoder(content).tolist()  # type: ignore[operator]
        except (ImageError, RequestError) as error:
            return error.kind

    (path := tmp_path / "a.jpg").write_bytes(FORMS[name])
    assert outcome(lambda data: decode_upload(data, LIMITS), FORMS[name]) == outcome(read, path)


def test_a_cameras_jpeg_with_a_preview_is_a_still() -> None:
    buffer = BytesIO()
    noisy().save(buffer, "MPO", save_all=True, append_images=[noisy()])
    assert decode_upload(buffer.getvalue(), LIMITS).shape == (20, 30, 3)
