"""Arrays by key: added at their own cost, kept by killed writers, checked, and read by workers."""

import errno
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skinlesion.data import shards
from skinlesion.data.shards import Keys, Rows, ShardStore, keys_of
from skinlesion.errors import DataError

SHAPE = (2, 3)


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    return ShardStore(tmp_path / "store", SHAPE, np.dtype(np.float16), what="numbers")


def keys(*numbers: int) -> Keys:
    return keys_of(str(number).encode() for number in numbers)


def added(store: ShardStore, *numbers: int, at_once: int = 2) -> None:
    """Add arrays that are filled with their numbers."""

    def batches() -> Iterator[tuple[Keys, np.ndarray]]:
        for start in range(0, len(numbers), at_once):
            block = numbers[start : start + at_once]
            yield keys(*block), np.stack([np.full(SHAPE, number, np.float16) for number in block])

    with store.locked():
        store.add(batches())


def held(rows: Rows | None) -> list[Any]:
    assert rows is not None
    return [int(rows[row].max()) for row in range(len(rows))]


def test_arrays_are_found_by_key_in_any_order(store: ShardStore) -> None:
    assert store.missing(keys(5, 1, 5)).tolist() == [0, 1], "each once"
    added(store, 0, 1, 2, 3, 4)
    rows = store.rows(keys(4, 0, 4, 2))
    assert held(rows) == [4, 0, 4, 2]
    assert rows is not None
    np.testing.assert_array_equal(rows.take([1, 3])[:, 0, 0], [0, 2])
    assert rows.nbytes == 4 * 6 * 2
    assert store.rows(keys(4, 5)) is None
    assert store.missing(keys(4, 5, 0)).tolist() == [1]


def test_files_are_of_limited_length_and_never_changed_later(
    store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PER_FILE", 4)
    added(store, *range(10))
    before = {path: path.read_bytes() for path in store.folder.glob("*.bin")}
    assert sorted(len(content) // store.size for content in before.values()) == [2, 4, 4]
    added(store, 10)
    assert held(store.rows(keys(*range(11)))) == [*range(11)]
    assert {path: path.read_bytes() for path in before} == before


def test_a_killed_writer_keeps_what_is_whole(store: ShardStore) -> None:
    added(store, 0, 1, 2)
    (path,) = store.folder.glob("*.bin")
    with path.open("ab") as file:
        file.write(b"\1" * 20)  # an array, and half of one, of which the index says nothing yet
    with path.with_suffix(".index").open("ab") as file:
        file.write(b"x" * 30)  # part of a record
    added(store, 3)
    assert held(store.rows(keys(0, 1, 2, 3))) == [0, 1, 2, 3]
    with path.open("r+b") as file:
        file.truncate(2 * store.size + 1)
    assert store.missing(keys(0, 1, 2, 3)).tolist() == [2]


def test_what_an_exception_interrupts_is_kept(store: ShardStore) -> None:
    def batches() -> Iterator[tuple[Keys, np.ndarray]]:
        yield keys(1), np.ones((1, *SHAPE))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), store.locked():
        store.add(batches())
    assert held(store.rows(keys(1))) == [1]


def test_damage_is_noticed_once_and_mended(store: ShardStore, caplog: pytest.LogCaptureFixture) -> None:
    added(store, *range(5))
    (path,) = store.folder.glob("*.bin")
    time.sleep(0.02)  # the kernel's clock of files is coarse
    with path.open("r+b") as file:
        file.seek(3 * store.size)
        file.write(b"\x42")
    assert store.missing(keys(*range(5))).tolist() == [3]
    assert f"{path}: damaged" in caplog.text
    caplog.clear()
    added(store, 3)
    assert held(store.rows(keys(*range(5)))) == [*range(5)]
    assert not caplog.text


def test_files_that_have_not_changed_are_not_read(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    added(store, *range(5))
    monkeypatch.setattr(shards.zlib, "crc32", lambda _: pytest.fail("read again"))
    assert held(store.rows(keys(2))) == [2]


def test_two_writers_beside_each_other_do_no_harm(store: ShardStore) -> None:
    """On machines that see each other's files and not their locks."""

    def batches() -> Iterator[tuple[Keys, np.ndarray]]:
        for number in range(3):
            yield keys(number), np.full((1, *SHAPE), number)
            other = ShardStore(store.folder, SHAPE, store.dtype, what="numbers")
            other.add([(keys(number), np.full((1, *SHAPE), number))])
            assert held(other.rows(keys(number))) == [number]

    store.folder.mkdir()
    store.add(batches())
    assert held(store.rows(keys(0, 1, 2))) == [0, 1, 2]


def test_travels_without_its_maps(store: ShardStore) -> None:
    added(store, *range(5))
    rows = store.rows(keys(*range(5)))
    assert held(rows) == [*range(5)]
    sent = pickle.dumps(rows)
    assert len(sent) < 1000
    assert held(pickle.loads(sent)) == [*range(5)]


def test_a_full_disk_is_one_line_and_keeps_what_is_done(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> Iterator[tuple[Keys, np.ndarray]]:
        yield keys(1), np.ones((1, *SHAPE))
        raise OSError(errno.ENOSPC, "No space left on device")

    store.folder.mkdir()
    with pytest.raises(DataError, match=r"data\.cache_dir=.*numbers need .* free \(No space left on device\)"):
        store.add(batches())
    assert held(store.rows(keys(1))) == [1]
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 35})())
    store.check_room(2)
    with pytest.raises(DataError, match="numbers need"):
        store.check_room(3)


def test_a_disk_that_fills_up_keeps_what_fitted(mount: Callable[[str], Path]) -> None:
    disk = mount("size=1m")
    store = ShardStore(disk / "store", (100_000,), np.dtype(np.uint8), what="numbers")

    def batches() -> Iterator[tuple[Keys, np.ndarray]]:
        for number in range(12):
            yield keys(number), np.full((1, 100_000), number, np.uint8)

    with store.locked(), pytest.raises(DataError, match=r"numbers need 0\.1 MB, .* free \(No space left") as caught:
        store.add(batches())
    assert "\n" not in str(caught.value)
    kept = 12 - len(store.missing(keys(*range(12))))
    assert 5 <= kept < 12
    assert held(store.rows(keys(*range(kept)))) == [*range(kept)]
