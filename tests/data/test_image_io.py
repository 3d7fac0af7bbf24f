import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from skinlesion.data.image_io import dimensions, file_faults, file_problems, find_files, find_folders, relative_names
from skinlesion.errors import DataError


def encoded(kind: str, *, side: int = 48, mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_folders_are_found_once_and_the_missing_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    touch(tmp_path / "b")  # a file, not a folder
    found, missing = find_folders(tmp_path, ["a", "a", "b", "c"])
    assert found == [tmp_path / "a"]
    assert missing == [tmp_path / "b", tmp_path / "c"]


def test_a_folder_inside_one_of_its_own_name_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "a" / "a").mkdir(parents=True)
    (tmp_path / "a" / "masks").mkdir()
    assert find_folders(tmp_path, ["a", "a/a"])[0] == [tmp_path / "a", tmp_path / "a" / "a"]


def test_folders_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert find_folders(tmp_path / "root", [str(tmp_path / "elsewhere")])[0] == [tmp_path / "elsewhere"]


def test_files_are_listed_by_stem(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    touch(one / "B.jpg", one / "A.JPG", two / "C.v2.png", two / "D.jpeg", two / "B.png")
    touch(one / "._A.jpg", one / "Thumbs.db", one / "notes.txt", one / "A")  # none of them is an image of ours
    (one / "E.jpg").mkdir()
    touch(one / "inside" / "F.jpg")
    assert find_files([one, two]) == {
        "A": [one / "A.JPG"],
        "B": [one / "B.jpg", two / "B.png"],
        "C.v2": [two / "C.v2.png"],
        "D": [two / "D.jpeg"],
    }
    assert list(find_files([one, two])) == ["A", "B", "C.v2", "D"]


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
        (b"<html>quota exceeded</html>", "not a JPEG or PNG image"),
        (encoded("GIF", mode="P"), "not a JPEG or PNG image"),
        (encoded("JPEG")[:20], "not a JPEG or PNG image"),
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
    assert file_faults([path, sound]) == {path: fault}


def test_every_cut_of_a_jpeg_is_noticed(tmp_path: Path) -> None:
    content, path = encoded("JPEG", side=16), tmp_path / "A.jpg"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert file_faults([path]), length


def test_a_broken_link_cannot_be_read(tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone.jpg", tmp_path / "A.jpg")
    files = find_files([tmp_path])
    assert file_faults(files["A"]) == {tmp_path / "A.jpg": "cannot be read (No such file or directory)"}


def test_problems_name_all_copies_and_faults_at_once(tmp_path: Path) -> None:
    touch(tmp_path / "one" / "A.jpg", tmp_path / "two" / "A.png")
    (tmp_path / "one" / "B.jpg").write_bytes(encoded("JPEG"))
    problems = list(file_problems(tmp_path, find_files([tmp_path / "one", tmp_path / "two"])))
    assert len(problems) == 2
    assert "more than one file for 1 images: one/A.jpg and two/A.png" in problems[0]
    assert "2 faulty image files: one/A.jpg: empty file, two/A.png: empty file" in problems[1]
    assert list(file_problems(tmp_path, {"B": [tmp_path / "one" / "B.jpg"]})) == []


def test_relative_names_give_files_outside_the_root_in_full(tmp_path: Path) -> None:
    assert relative_names(tmp_path / "r", [tmp_path / "r" / "a.jpg", tmp_path / "b.jpg"]) == [
        "a.jpg",
        str(tmp_path / "b.jpg"),
    ]


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
