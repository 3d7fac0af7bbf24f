"""Image files of a data set: found by name, named where they are not read, and matched with rows."""

import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion.data.image_files import (
    class_folders,
    file_problems,
    find_files,
    find_folders,
    list_tree,
    match_files,
    relative_names,
)
from skinlesion.data.manifest import file_faults


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
        "A": [f"{one}/A.JPG"],
        "B": [f"{one}/B.jpg", f"{two}/B.png"],
        "C.v2": [f"{two}/C.v2.png"],
        "D": [f"{two}/D.jpeg"],
    }
    assert list(find_files([one, two])) == ["A", "B", "C.v2", "D"]


def test_a_broken_link_cannot_be_read(tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone.jpg", tmp_path / "A.jpg")
    files = find_files([tmp_path])
    assert file_faults(files["A"]) == {f"{tmp_path}/A.jpg": "cannot be read (No such file or directory)"}


def test_problems_name_all_copies_and_faults_at_once(tmp_path: Path) -> None:
    touch(tmp_path / "one" / "A.jpg", tmp_path / "two" / "A.png")
    (tmp_path / "one" / "B.jpg").write_bytes(encoded("JPEG"))
    problems = list(file_problems(tmp_path, find_files([tmp_path / "one", tmp_path / "two"])))
    assert len(problems) == 2
    assert "more than one file for 1 images: one/A.jpg and two/A.png" in problems[0]
    assert "2 faulty image files: one/A.jpg: empty file, two/A.png: empty file" in problems[1]
    assert list(file_problems(tmp_path, {"B": [f"{tmp_path}/one/B.jpg"]})) == []


def test_relative_names_give_files_outside_the_root_in_full(tmp_path: Path) -> None:
    assert relative_names(tmp_path / "r", [f"{tmp_path}/r/a.jpg", f"{tmp_path}/b.jpg"]) == [
        "a.jpg",
        str(tmp_path / "b.jpg"),
    ]


@pytest.mark.parametrize("name", ["phone.avif", "photo.psd", "slides.jp2", "noname"])
def test_files_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    touch(tmp_path / "A.jpg", tmp_path / name, tmp_path / "LICENSE.txt", tmp_path / ".DS_Store")
    assert list(find_files([tmp_path])) == ["A"]
    assert f"1 files are not read: {name}; expected .jpg" in caplog.text


def test_a_loop_of_links_and_a_pipe_are_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.symlink("A.jpg", tmp_path / "A.jpg")
    os.mkfifo(tmp_path / "B.jpg")
    files = find_files([tmp_path])
    assert file_faults([files["A"][0], files["B"][0]]) == {
        f"{tmp_path}/A.jpg": "cannot be read (Too many levels of symbolic links)",
        f"{tmp_path}/B.jpg": "no regular file",
    }


def matched(folder: Path, *ids: str, missing: str = "error") -> tuple[dict[str, list[str]], list[str]]:
    return match_files(ids, [folder], root=folder, policies=(missing, "ignore"), key="external", only=None)


def test_images_in_a_folder_each_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in "ab":
        (tmp_path / f"lesion_{name}").mkdir()
        (tmp_path / f"lesion_{name}" / f"{name}.png").write_bytes(encoded("PNG"))
    files, problems = matched(tmp_path, "a", "b")
    assert problems == []
    assert files["a"] == [f"{tmp_path}/lesion_a/a.png"]
    assert "2 of 2 images lie in folders inside" in caplog.text


def test_a_mask_does_not_stand_for_a_missing_image(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "masks" / "a.png", tmp_path / "masks" / "b.png"):
        path.write_bytes(encoded("PNG"))
    files, (problem,) = matched(tmp_path, "a", "b")
    assert list(files) == ["a"]
    assert "1 lie in a folder inside" in problem
    assert "masks/b.png" in problem


def test_images_at_the_top_and_deeper_are_found_together(tmp_path: Path) -> None:
    """A folder that another one of the same names lies beside, or that leads back to itself, changes nothing."""
    (tmp_path / "2020" / "may").mkdir(parents=True)
    os.symlink(tmp_path, tmp_path / "2020" / "back")
    for path in (tmp_path / "a.PNG", tmp_path / "2020" / "b.png", tmp_path / "2020" / "may" / "c.png"):
        path.write_bytes(encoded("PNG"))
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "b.png").write_bytes(b"")
    files, problems = matched(tmp_path, "a", "b", "c")
    assert problems == []
    names = ["a.PNG", "2020/b.png", "2020/may/c.png"]
    assert [files[name][0] for name in "abc"] == [f"{tmp_path}/{name}" for name in names]
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(encoded("PNG"))
    listed = [path.relative_to(tmp_path).as_posix() for path in list_tree(tmp_path).images]
    assert listed == names


def test_images_sorted_by_class(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "mel" / "1.jpg", tmp_path / "train" / "nv" / "2.jpg", tmp_path / "test" / "nv" / "3.jpg")
    found = class_folders([tmp_path / "train", tmp_path / "test"])
    assert [row[:2] for row in found] == [("1", "mel"), ("2", "nv"), ("3", "nv")]
    touch(tmp_path / "test" / "mel" / "2.jpg")
    found = class_folders([tmp_path / "train", tmp_path / "test"])
    assert [row[:2] for row in found] == [
        ("train/mel/1", "mel"),
        ("train/nv/2", "nv"),
        ("test/mel/2", "mel"),
        ("test/nv/3", "nv"),
    ]


def test_near_misses_are_named(tmp_path: Path) -> None:
    (tmp_path / "isic_1.JPG").write_bytes(encoded("JPEG"))
    touch(tmp_path / "ISIC_2.avif")
    _, (problem,) = matched(tmp_path, "ISIC_1", "ISIC_2", "ISIC_3")
    assert "1 differ from a file's name in case, marks or zeros (ISIC_1 and isic_1.JPG)" in problem
    assert "1 are files of another type (ISIC_2.avif)" in problem
    for name, other in (("0017.jpg", "17"), ("case-3 left.jpg", "Case_3_left")):
        (tmp_path / name).write_bytes(encoded("JPEG"))
        _, (problem,) = matched(tmp_path, other)
        assert f"in case, marks or zeros ({other} and {name}): write both alike" in problem
    (tmp_path / "x").mkdir()
    _, (problem,) = matched(tmp_path / "x", "ISIC_1")
    assert "expected files named IMAGE_ID.jpg or .png of the same images" in problem
