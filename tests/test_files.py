"""Files are written whole or not at all; what killed processes leave goes, and no folder is found unwritable late."""

import csv
import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from filelock import Timeout

from skinlesion.errors import ConfigError, DataError
from skinlesion.files import (
    disk_faults,
    escape_formulas,
    escape_markdown,
    locked,
    replacing,
    replacing_folder,
    require_writable,
    restore_formulas,
    sweep,
)

WRITER = """
import sys, time
from pathlib import Path
from skinlesion.files import replacing, replacing_folder
path = Path(sys.argv[1])
with replacing(path) if path.suffix else replacing_folder(path) as beside:
    (beside if path.suffix else beside / "part").write_text("half")
    print(beside, flush=True)
    time.sleep(60)
"""


def writer(path: Path) -> "tuple[subprocess.Popen[str], Path]":
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_only_what_dead_processes_left_is_swept(tmp_path: Path) -> None:
    killed, orphan = writer(tmp_path / "last.ckpt")
    living, kept = writer(tmp_path / "best.ckpt")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    foreign = tmp_path / orphan.name.replace(f"-{killed.pid}", f"x-{killed.pid}")  # of a machine of another name
    others = [foreign, tmp_path / ".lock", tmp_path / f".note-{killed.pid}.txt", tmp_path / "last.ckpt"]
    for path in others:
        path.touch()
    assert str(killed.pid) in orphan.name
    try:
        sweep(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([kept, *others])
    finally:
        living.kill()
        living.communicate()


def test_of_other_machines_only_what_is_a_day_old_is_swept(tmp_path: Path) -> None:
    """A note of the user's that is named alike stays, however old."""
    fresh, old = (tmp_path / f".maps.node{number}_4026531836-77-0a1b2c3d.npy" for number in (1, 2))
    folder, note = tmp_path / ".bundle.node3_4026531836-77-0a1b2c3d", tmp_path / ".maps.notes-2020.txt"
    (folder / "weights").mkdir(parents=True)
    day_ago = time.time() - 86_500
    for path in (fresh, old, note):
        path.touch()
    for path in (old, note, folder, folder / "weights"):
        os.utime(path, (day_ago, day_ago))
    sweep(tmp_path)
    assert {*tmp_path.iterdir()} == {fresh, note}


def test_two_writers_of_one_process_number_share_no_name(tmp_path: Path) -> None:
    """Containers of two machines can have the same name and number."""
    with replacing(tmp_path / "a.txt") as first, replacing(tmp_path / "a.txt") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"


@pytest.mark.parametrize("reason", [None, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_lock_holds_where_the_file_system_has_none(
    reason: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(reason, "no locks")

    if reason is not None:
        monkeypatch.setattr("fcntl.flock", refuse)
    for _ in range(2):  # it is free again
        with locked(tmp_path / "a.lock"), pytest.raises(Timeout), locked(tmp_path / "a.lock", timeout=0):
            pass


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "bundle[1]"
    place.mkdir()
    (place / "old").touch()
    killed, orphan = writer(place)
    killed.kill()
    killed.communicate()
    assert (orphan / "part").is_file()
    with pytest.raises(KeyboardInterrupt), replacing_folder(place):
        raise KeyboardInterrupt
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("bundle[1]"), Path("bundle[1]/old")]
    with replacing_folder(place) as beside:
        (beside / "new").touch()
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("bundle[1]"), Path("bundle[1]/new")]


def test_a_full_disk_is_named_by_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("before")

    def write() -> None:
        with disk_faults(), replacing(path) as beside:
            beside.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DataError, match=r"table\.csv: No space left on device; ") as caught:
        write()
    assert "\n" not in str(caught.value)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"]


def test_faults_of_other_kinds_pass_through() -> None:
    for error in (OSError(errno.ECONNRESET, "reset", "peer"), OSError(errno.ENOSPC, "full"), ValueError("other")):
        with pytest.raises(type(error)) as caught, disk_faults():
            raise error
        assert caught.value is error


def test_impossible_folders_are_refused_and_nothing_is_made(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b", "out")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run"), tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match="out=") as caught:
            require_writable(folder, "out")
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


CELLS = ["=1+1", "+1+1", "-x", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "'plain", "-0.5", "+3", "-1e-5", "plain", ""]


def test_formulas_are_escaped_numbers_stay_and_all_comes_back() -> None:
    frame = pd.DataFrame({"id": CELLS, "value": [-float(n) for n in range(len(CELLS))]})
    escaped = escape_formulas(frame)
    assert frame["id"].tolist() == CELLS
    assert escaped["id"].tolist()[:6] == [f"'{cell}" for cell in CELLS[:6]]
    assert escaped["id"].tolist()[9:] == CELLS[9:]
    assert escaped["value"].tolist() == frame["value"].tolist()
    text = escaped.to_csv(index=False, quoting=csv.QUOTE_ALL)
    again = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    assert restore_formulas(again)["id"].tolist() == CELLS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x onerror=alert(1)>", "&#60;img src=x onerror=alert(1)&#62;"),
        ("a | b", "a &#124; b"),
        ("[x](javascript:1)", "[x]&#40;javascript:1)"),
        ("**bold** `code`", "&#42;&#42;bold&#42;&#42; &#96;code&#96;"),
        ("two\nlines", "two lines"),
        ("0.71 [0.65, 0.80] (n = 3)", "0.71 [0.65, 0.80] (n = 3)"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, shown: str) -> None:
    assert escape_markdown(text) == shown
