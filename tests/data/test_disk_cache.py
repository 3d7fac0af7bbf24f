"""Shared files: space is reserved, damage is noticed and mended, a warm cache is only read."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from skinlesion.data import disk_cache
from skinlesion.data.disk_cache import load_arrays, new_array, open_array, require_room
from skinlesion.errors import ConfigError, DataError

MEGABYTE = 1_000_000
Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a small file system of its own."""
    places = []

    def make(options: str) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "-l", place], check=True)


def filled(path: Path, value: int = 7, size: int = 1000) -> np.ndarray:
    def build() -> None:
        with new_array(path, (size,), np.uint8, what="numbers") as array:
            array[:] = value

    return open_array(path, build)


def settle() -> None:
    time.sleep(0.02)  # the kernel's clock of files is coarse


def test_what_is_built_is_mapped_and_built_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npy"
    assert filled(path).tolist() == [7] * 1000
    assert filled(path, value=8)[0] == 7
    assert {each.name for each in path.parent.iterdir()} == {"a.npy", "a.json", "a.lock"}


@pytest.mark.parametrize("reserved", ["posix_fallocate", "unsupported", "missing"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    reserved: str, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of free space passes, as it does where two members check at once: reserving decides."""

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(disk_cache, "require_room", lambda *_, **__: None)
    if reserved == "unsupported":
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    elif reserved == "missing":
        monkeypatch.delattr(os, "posix_fallocate")
    path = mount("size=1m") / "a.npy"
    with pytest.raises(DataError, match=r"numbers need 3\.0 MB, 1\.0 MB are free .No space.*data\.cache_dir") as caught:
        filled(path, size=3 * MEGABYTE)
    assert "\n" not in str(caught.value)
    assert not list(path.parent.glob("*.npy"))
    assert not list(path.parent.glob(".*"))
    assert filled(path, size=MEGABYTE // 2)[0] == 7


def test_a_process_on_a_full_disk_ends_with_a_message(mount: Mount) -> None:
    """Two at once on a disk that holds one of their files; a mapped file without space ends by SIGBUS."""
    disk = mount("size=1m")
    code = (
        "import sys, time; sys.path.insert(0, 'tests/data'); from test_disk_cache import *\n"
        "def build():\n"
        "    with new_array(Path(sys.argv[1]), (700_000,), np.uint8, what='numbers') as array:\n"
        "        time.sleep(0.5); array[:] = 7\n"
        "try: open_array(Path(sys.argv[1]), build)\n"
        "except DataError as error: sys.exit(str(error))\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, disk / f"{name}.npy"], stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    said = [process.communicate()[1] for process in both]
    ended = sorted(zip([process.returncode for process in both], said, strict=True))
    assert [status for status, _ in ended] == [0, 1]
    assert "data.cache_dir" in ended[1][1]


def test_room_is_asked_for_where_the_folder_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2 * MEGABYTE})())
    require_room(tmp_path / "not" / "yet", 2 * MEGABYTE, what="numbers")
    with pytest.raises(DataError, match=r"numbers need 2\.5 MB, 2\.0 MB are free; .* or fewer"):
        require_room(tmp_path / "not" / "yet", 2_500_000, what="numbers", advice=", or fewer")
    with (
        pytest.raises(DataError, match=r"3\.0 MB"),
        new_array(tmp_path / "a.npy", (MEGABYTE,), np.uint8, what="numbers", later=2 * MEGABYTE),
    ):
        pass


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change(path: Path) -> None:
    """One value, at equal size and time."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"\x09")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose_checksum(path: Path) -> None:
    path.with_suffix(".json").write_text("[")


@pytest.mark.parametrize("damage", [cut, change, empty, lose_checksum])
def test_damage_is_said_and_mended(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.npy"
    filled(path)
    settle()
    damage(path)
    assert filled(path, value=8).tolist() == [8] * 1000  # made again, not used
    assert f"{path}: damaged" in caplog.text


def test_only_a_file_that_was_touched_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npy"
    filled(path)
    read: list[Path] = []
    checksum = disk_cache._crc32
    monkeypatch.setattr(disk_cache, "_crc32", lambda path: read.append(path) or checksum(path))
    for _ in range(3):
        filled(path)
    assert not read
    settle()
    os.utime(path)  # as a copy of the cache would have it
    for _ in range(3):
        assert filled(path, value=8)[0] == 7
    assert read == [path]


def test_a_warm_cache_may_be_read_only(mount: Mount) -> None:
    disk = mount("size=1m")
    filled(disk / "a.npy")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert filled(disk / "a.npy", value=8)[0] == 7
    with pytest.raises(ConfigError, match=r"^data\.cache_dir=.*Read-only file system") as caught:
        filled(disk / "b.npy")
    assert "\n" not in str(caught.value)


def test_small_archives_are_mended_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.npz"

    def build() -> None:
        np.savez(path, numbers=np.arange(2000))

    load_arrays(path, build)
    cut(path)
    np.testing.assert_array_equal(load_arrays(path, build)["numbers"], np.arange(2000))
    assert f"{path}: damaged" in caplog.text
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    np.testing.assert_array_equal(load_arrays(path, build)["numbers"], np.arange(2000))


def test_a_builder_that_waits_takes_what_the_other_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.npy"
    leftover = subprocess.run(
        [
            sys.executable,
            "-c",
            "from skinlesion.files import replacing; from pathlib import Path; import os, sys\n"
            f"with replacing(Path({str(tmp_path / 'b.npy')!r})) as beside: beside.touch(); print(beside); "
            "sys.stdout.flush(); os._exit(9)",
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    assert Path(leftover).exists()
    filled(path)
    assert not Path(leftover).exists()
    assert leftover in caplog.text


def test_a_lost_race_takes_the_winners_file(tmp_path: Path) -> None:
    """Of a machine whose lock is not seen here; its file may differ in the last bits, and is mapped there."""
    path = tmp_path / "a.npy"

    def build() -> None:
        with new_array(path, (1000,), np.uint8, what="numbers") as array:
            array[:] = 8
            with new_array(path, (1000,), np.uint8, what="numbers") as theirs:
                theirs[:] = 7

    assert open_array(path, build).tolist() == [7] * 1000
    assert not [*tmp_path.glob(".*.npy")]
    assert filled(path, value=9).tolist() == [7] * 1000, "it is intact"
