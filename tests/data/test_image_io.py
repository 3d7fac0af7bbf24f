import io
import os
import struct
import sys
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from PIL import ExifTags, Image

from skinlesion.data import image_io
from skinlesion.data.image_formats import ImageError
from skinlesion.data.image_io import dimensions, read, upright
from skinlesion.data.manifest import file_faults
from skinlesion.errors import DataError


def encoded(kind: str, *, side: int = 48, mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(noise)
    (Image.new(mode, image.size, 999) if mode in ("I", "F", "I;16") else image.convert(mode)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        encoded("JPEG"),
        encoded("JPEG", mode="L"),
        encoded("JPEG", mode="CMYK"),
        encoded("JPEG", side=1),
        encoded("JPEG") + b"\0" * 100,  # padded by a disk or a camera
        encoded("PNG"),
        encoded("PNG", mode="P"),
    ],
)
def test_whole_images_have_no_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "A.jpg"
    path.write_bytes(content)
    assert file_faults([path]) == {}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "empty file"),
        (b"<html>quota exceeded</html>", "its content is of an unknown type; expected JPEG, PNG, WEBP, BMP, TIFF"),
        (encoded("PDF"), "its content is a PDF; expected JPEG"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "its content is an AVIF or a video; expected JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "its content is PostScript"),
        (encoded("JPEG")[:20], "its content is of an unknown type"),
        (encoded("TIFF", mode="I"), "its pixels are 32-bit grey; convert it to 8-bit RGB"),
        (encoded("JPEG")[:-1], "truncated JPEG (no end marker)"),
        (encoded("JPEG")[:-1000], "truncated JPEG (no end marker)"),
        (encoded("JPEG", side=256)[:20_000], "truncated JPEG (no end marker)"),
        (encoded("PNG")[:-12], "truncated PNG (no end marker)"),
        (encoded("PNG")[:1000], "truncated PNG (no end marker)"),
    ],
)
def test_broken_images_are_told_apart(tmp_path: Path, content: bytes, fault: str) -> None:
    path, sound = tmp_path / "A.jpg", tmp_path / "B.jpg"
    path.write_bytes(content)
    sound.write_bytes(encoded("JPEG"))
    ((faulty, found),) = file_faults([path, sound]).items()
    assert (faulty, found[: len(fault)]) == (path, fault)


def smooth(side: int = 192, **options: object) -> bytes:
    """A JPEG of a soft picture, whose flat parts need few bits."""
    y, x = np.mgrid[:side, :side]
    pixels = np.stack([120 + 80 * np.sin(x / 17), 90 + y / 3, 60 + 40 * np.cos((x + y) / 9)], axis=2)
    pixels[: side // 4] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


CODINGS = ({}, {"optimize": True}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 4})


@pytest.mark.parametrize("options", CODINGS, ids=str)
def test_damage_inside_a_jpeg_is_found(tmp_path: Path, options: dict[str, object]) -> None:
    """libjpeg itself only warns, and fills up."""
    whole, path = smooth(**options), tmp_path / "A.jpg"
    path.write_bytes(whole)
    np.testing.assert_array_equal(read(path), np.asarray(Image.open(path)))
    zeroed = bytearray(whole)
    zeroed[len(whole) // 2 : -2] = bytes(len(whole) - 2 - len(whole) // 2)
    path.write_bytes(zeroed)
    with pytest.raises(ImageError, match=r"A\.jpg: not a readable image \(.*(truncated|missing|more data)"):
        read(path)


def test_bytes_lost_inside_a_jpeg_are_missed(tmp_path: Path) -> None:
    whole, path = encoded("JPEG", side=128), tmp_path / "A.jpg"
    path.write_bytes(whole[: len(whole) // 2] + whole[len(whole) // 2 + 500 :])
    with pytest.raises(ImageError, match="damaged or cut off"):
        read(path)


def test_what_follows_the_end_of_a_jpeg_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "A.jpg"
    path.write_bytes(smooth() + smooth() + bytes(5000))
    assert read(path).shape == (192, 192, 3)


def odd_png(kind: bytes, content: bytes) -> bytes:
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    whole = encoded("PNG")
    return whole[:33] + chunk + whole[33:]  # after the header


def with_exif(content: bytes) -> bytes:
    whole = encoded("JPEG")
    segment = b"Exif\0\0" + content
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:]


def without_palette() -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (40, 30)).save(buffer, "PNG")
    whole = buffer.getvalue()
    start = whole.index(b"PLTE") - 4
    return whole[:start] + whole[start + 12 + int.from_bytes(whole[start : start + 4], "big") :]


def pages(kind: str) -> bytes:
    buffer = io.BytesIO()
    first, *others = (Image.new("RGB", (20, 20), (shade, 40, 30)) for shade in (250, 120, 10))
    first.save(buffer, kind, save_all=True, append_images=others)
    return buffer.getvalue()


REFUSED = {
    "12 bits in 16": (encoded("PNG", mode="I;16"), "its 16-bit values end at 12 bits"),
    "two pages": (pages("TIFF"), "several frames or pages"),
    "32-bit grey": (encoded("TIFF", mode="I"), "32-bit grey"),
    "floating point": (encoded("TIFF", mode="F"), "floating point"),
    "unknown header chunk": (odd_png(b"gAMA", b""), "damaged"),
    "short pHYs": (odd_png(b"pHYs", b"\0"), "damaged"),
    "text bomb": (odd_png(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26))), "damaged"),
    "PNG without its palette": (without_palette(), "damaged"),
    "EXIF of a PNG": (odd_png(b"eXIf", b"garbage" * 9), "damaged"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_images_are_refused_in_a_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    content, said = REFUSED[name]
    (tmp_path / "A.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=rf"A\.jpg: not a readable image \(.*{said}") as caught:
        read(tmp_path / "A.jpg")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
@pytest.mark.parametrize("exif", [b"II*\0\xff\xff\xff\x7f", b"garbage" * 9])
def test_a_jpeg_whose_exif_cannot_be_read_is_taken_as_it_is(tmp_path: Path, exif: bytes) -> None:
    (tmp_path / "A.jpg").write_bytes(with_exif(exif))
    assert read(tmp_path / "A.jpg").shape == (48, 48, 3)


def test_really_transparent_pixels_are_refused_and_opaque_alpha_is_not(tmp_path: Path) -> None:
    image = Image.new("RGBA", (20, 20), (90, 40, 30, 255))
    image.save(tmp_path / "opaque.png")
    assert (read(tmp_path / "opaque.png") == (90, 40, 30)).all()
    image.putpixel((3, 3), (0, 255, 0, 0))
    image.save(tmp_path / "cut.png")
    with pytest.raises(ImageError, match=r"cut\.png.*transparent"):
        read(tmp_path / "cut.png")
    with pytest.raises(ImageError, match="transparent"):
        upright(image)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_8_bit_images_are_read_as_rgb(tmp_path: Path, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    (tmp_path / "A.jpg").write_bytes(encoded(kind, mode=mode))
    with Image.open(tmp_path / "A.jpg") as image:
        np.testing.assert_array_equal(read(tmp_path / "A.jpg"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_grey_is_read_as_its_upper_eight_bits(tmp_path: Path, kind: str, orientation: int) -> None:
    """The lower eight bits are noise."""
    grey = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) % 256
    lower = np.random.default_rng(0).integers(0, 256, grey.shape, dtype=np.uint16)
    image = Image.fromarray(grey * np.uint16(256) + lower)
    assert image.mode == "I;16"
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(tmp_path / "A.jpg", kind, exif=exif)
    upright = grey if orientation == 1 else np.rot90(grey, -1)
    np.testing.assert_array_equal(read(tmp_path / "A.jpg"), np.repeat(upright[..., None], 3, axis=2))
    assert file_faults([tmp_path / "A.jpg"]) == {}


def test_a_16_bit_tiff_whose_least_value_is_white_is_inverted(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((20, 20), 200 * 257, np.uint16))
    image.save(tmp_path / "A.tif", tiffinfo={262: 0})
    assert (read(tmp_path / "A.tif") == 55).all()


def test_a_gif_is_its_first_frame(tmp_path: Path) -> None:
    (tmp_path / "A.gif").write_bytes(pages("GIF"))
    assert (read(tmp_path / "A.gif") == (250, 40, 30)).all()


def test_a_heic_is_read_with_its_extra_and_names_it_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 100, 50))).save(tmp_path / "A.jpg", quality=100)
    assert np.abs(read(tmp_path / "A.jpg").astype(int) - (200, 100, 50)).max() <= 2
    assert file_faults([tmp_path / "A.jpg"]) == {}
    assert dimensions(tmp_path / "A.jpg") == (48, 64)


@pytest.mark.parametrize(
    ("content", "extra"), [(b"\0\0\0\x18ftypheic" + bytes(40), "heic"), (bytes(128) + b"DICM" + bytes(40), "dicom")]
)
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, extra: str) -> None:
    monkeypatch.setitem(sys.modules, {"heic": "pillow_heif", "dicom": "pydicom"}[extra], None)
    (tmp_path / "A.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=rf"A\.jpg: .*needs an extra: pip install 'skinlesion\[{extra}\]'"):
        read(tmp_path / "A.jpg")
    assert extra in file_faults([tmp_path / "A.jpg"])[tmp_path / "A.jpg"]


def test_a_pipe_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "A.jpg")
    with pytest.raises(ImageError, match="no regular file"):
        read(tmp_path / "A.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (13000, 13000)).save(tmp_path / "bomb.png")
    tracemalloc.start()
    with pytest.raises(ImageError, match="13000 x 13000 pixels; at most 89 million"):
        read(tmp_path / "bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert "13000 x 13000" in file_faults([tmp_path / "bomb.png"])[tmp_path / "bomb.png"]


def test_threads_share_a_budget_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads, images of 10,000 pixels, a budget of 25,000: two at a time."""
    budget, most, lock = image_io._Budget(25_000), [0], Lock()
    monkeypatch.setattr(image_io, "_budget", budget)
    slow = image_io.upright

    def watched(image: Image.Image) -> image_io.Image:
        with lock:
            most[0] = max(most[0], budget.held)
        time.sleep(0.01)
        return slow(image)

    monkeypatch.setattr(image_io, "upright", watched)
    Image.new("RGB", (100, 100)).save(tmp_path / "A.png")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, [tmp_path / "A.png"] * 24))
    assert most[0] == 20_000
    assert budget.held == 0
    Image.new("RGB", (200, 200)).save(tmp_path / "B.png")
    assert read(tmp_path / "B.png").shape == (200, 200, 3), "an image above the budget is decoded alone"


def test_every_cut_of_a_jpeg_is_noticed(tmp_path: Path) -> None:
    content, path = encoded("JPEG", side=16), tmp_path / "A.jpg"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert file_faults([path]), length


def test_an_upright_size_is_read_without_decoding(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "views.jpg", exif=exif)
    image.save(tmp_path / "plain.jpg")
    assert dimensions(tmp_path / "plain.jpg") == (20, 30)
    assert dimensions(tmp_path / "views.jpg") == (30, 20)
    (tmp_path / "no.jpg").write_text("text")
    with pytest.raises(DataError, match=r"no\.jpg: not a readable image"):
        dimensions(tmp_path / "no.jpg")
