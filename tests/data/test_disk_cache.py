"""Shared files: damage is noticed and mended, a warm cache is only read."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skinlesion.data.disk_cache import load_arrays, require_room
from skinlesion.errors import ConfigError, DataError

MEGABYTE = 1_000_000


def filled(path: Path, value: int = 7) -> np.ndarray:
    return load_arrays(path, lambda: np.savez(path, numbers=np.full(1000, value)))["numbers"]


def test_what_is_built_is_built_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npz"
    assert filled(path).tolist() == [7] * 1000
    assert filled(path, value=8)[0] == 7
    assert {each.name for each in path.parent.iterdir()} == {"a.npz", "a.lock"}


def test_room_is_asked_for_where_the_folder_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2 * MEGABYTE})())
    require_room(tmp_path / "not" / "yet", 2 * MEGABYTE, what="numbers")
    with pytest.raises(DataError, match=r"numbers need 2\.5 MB, 2\.0 MB are free; .* or fewer"):
        require_room(tmp_path / "not" / "yet", 2_500_000, what="numbers", advice=", or fewer")


def test_a_warm_cache_may_be_read_only(mount: Callable[[str], Path]) -> None:
    disk = mount("size=1m")
    filled(disk / "a.npz")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert filled(disk / "a.npz", value=8)[0] == 7
    with pytest.raises(ConfigError, match=r"^data\.cache_dir=.*Read-only file system") as caught:
        filled(disk / "b.npz")
    assert "\n" not in str(caught.value)


def test_small_archives_are_mended_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.npz"

    def build() -> None:
        np.savez(path, numbers=np.arange(2000))

    load_arrays(path, build)
    os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(load_arrays(path, build)["numbers"], np.arange(2000))
    assert f"{path}: damaged" in caplog.text
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    np.testing.assert_array_equal(load_arrays(path, build)["numbers"], np.arange(2000))


def test_a_builder_that_waits_takes_what_the_other_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.npz"
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
