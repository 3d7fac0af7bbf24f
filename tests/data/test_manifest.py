"""What is known of image files is remembered, and found out again once a file has changed."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion.data import manifest
from skinlesion.data.manifest import content_digests, file_faults, image_shapes


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "images" / f"{name}.png" for name in "cab"]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        Image.new("RGB", (8 + number, 6), (number, 0, 0)).save(path)
    return paths


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened."""
    names: list[str] = []
    for name in ("probe", "dimensions", "file_digest"):
        real = getattr(manifest, name)
        monkeypatch.setattr(manifest, name, lambda path, real=real: names.append(path.stem) or real(path))
    return names


def rewrite(path: Path, content: bytes) -> None:
    """Another content of equal size and time of modification."""
    time.sleep(0.02)  # the kernel's clock of files is coarse
    stat = path.stat()
    path.write_bytes(content.ljust(stat.st_size, b"\0"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size


def test_files_that_are_the_same_are_not_opened(files: list[Path], tmp_path: Path, opened: list[str]) -> None:
    assert file_faults(files, tmp_path / "cache") == {}
    digests = content_digests(files, tmp_path / "cache")
    assert digests.tolist() == [hashlib.sha256(path.read_bytes()).hexdigest().encode() for path in files]
    np.testing.assert_array_equal(image_shapes(files, tmp_path / "cache"), [(6, 8), (6, 9), (6, 10)])
    assert sorted(opened) == ["a", "a", "a", "b", "b", "b", "c", "c", "c"]
    opened.clear()
    assert file_faults(files[::-1], tmp_path / "cache") == {}
    np.testing.assert_array_equal(image_shapes(files[1:], tmp_path / "cache"), [(6, 9), (6, 10)])
    np.testing.assert_array_equal(content_digests(files[1:], tmp_path / "cache"), digests[1:])
    assert opened == []


def test_a_changed_file_is_found(files: list[Path], tmp_path: Path, opened: list[str]) -> None:
    before = content_digests(files, tmp_path / "cache")
    assert file_faults(files, tmp_path / "cache") == {}
    opened.clear()
    rewrite(files[1], b"no image")
    assert list(file_faults(files, tmp_path / "cache")) == [files[1]]
    after = content_digests(files, tmp_path / "cache")
    assert (before == after).tolist() == [True, False, True]
    assert opened == ["a", "a"]
    assert list(file_faults(files, tmp_path / "cache")) == [files[1]], "a fault is not remembered as sound"


def test_a_new_file_is_opened_alone(files: list[Path], tmp_path: Path, opened: list[str]) -> None:
    content_digests(files[:2], tmp_path / "cache")
    opened.clear()
    content_digests(files, tmp_path / "cache")
    assert opened == ["b"]
    (memo,) = (tmp_path / "cache").iterdir()
    memo.write_text("{]")
    content_digests(files, tmp_path / "cache")
    assert sorted(opened) == ["a", "b", "b", "c"], "a damaged file of it is made again"


def test_what_was_found_before_an_interruption_is_kept(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "probe", lambda path: {"c": None}[path.stem])
        with pytest.raises(KeyError):
            file_faults(files, tmp_path / "cache")
    opened.clear()
    file_faults(files, tmp_path / "cache")
    assert opened == ["a", "b"]


def test_works_without_a_cache_that_can_be_written(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert len(content_digests(files, tmp_path / "file" / "cache")) == 3
    assert file_faults([*files, tmp_path / "no.png"], None).keys() == {tmp_path / "no.png"}
