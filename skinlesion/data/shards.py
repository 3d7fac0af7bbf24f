"""Arrays of one shape by key, on disk: in files of at most 10,000 that are appended to, then only mapped and read.

A store is a folder. Each file `WORD.bin` has one writer and holds arrays one after another; `WORD.index` beside it
holds a key and a checksum for each, added once the array is there. So a killed writer loses what it was writing, and a
new array costs that array alone. Arrays are never moved: a process that has mapped a file goes on to read it.
"""

import hashlib
import logging
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skinlesion.data.disk_cache import FULL, file_stamp, full_disk, read_json, require_room
from skinlesion.files import locked, replacing, require_writable, sweep, write_json

PER_FILE = 10_000  # arrays
_RECORD = np.dtype([("key", "S32"), ("crc32", "<u4")])  # in the order of the arrays; of a damaged one the key is b""

Keys = npt.NDArray[np.bytes_]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """N arrays of one shape in mapped files; as an argument of a worker it is sent without them."""

    files: tuple[Path, ...]
    file: npt.NDArray[np.int32]  # (N,) of each array
    place: npt.NDArray[np.int32]  # (N,) of each array in its file
    shape: tuple[int, ...]  # of one array
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        return self._maps[self.file[row]][self.place[row]]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[Any]:
        """Some of the arrays in memory, (n, ...)."""
        taken = np.empty((len(rows), *self.shape), self.dtype)
        for target, row in zip(taken, rows, strict=True):
            target[...] = self[row]
        return taken

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return len(self) * int(np.prod(self.shape)) * self.dtype.itemsize

    @cached_property
    def _maps(self) -> list[npt.NDArray[Any]]:
        return [_mapped(path, self.shape, self.dtype) for path in self.files]

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_maps"}


@dataclass(frozen=True)
class ShardStore:
    """A folder of arrays of one shape and type, by keys of 32 characters.

    Args:
        folder: In `data.cache_dir`.
        shape: Of one array.
        dtype: Likewise.
        what: Names the arrays in messages.
        advice: A further way out of a full disk.
    """

    folder: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    what: str
    advice: str = ""

    @property
    def size(self) -> int:
        """Bytes of one array."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def missing(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Places of the keys that are not there, each once, in order."""
        absent = np.flatnonzero(self._find(keys)[0][:, 0] < 0)
        _, first = np.unique(keys[absent], return_index=True)
        return absent[np.sort(first)]

    def rows(self, keys: Keys) -> Rows | None:
        """The arrays of some keys; None where one is not there."""
        found, files = self._find(keys)
        if (found < 0).any():
            return None
        used, file = np.unique(found[:, 0], return_inverse=True)
        with suppress(OSError):  # of a cache that others own, or that is read-only
            os.utime(self.folder)  # the time of its last use
        return Rows(tuple(files[each] for each in used), file.astype(np.int32), found[:, 1], self.shape, self.dtype)

    def check_room(self, count: int, *, later: int = 0) -> None:
        """Refuse now a place that cannot take some more arrays, and so many bytes of others that come later.

        Raises:
            ConfigError: The folder cannot be written.
            DataError: The disk is too small.
        """
        require_writable(self.folder, "data.cache_dir")
        require_room(self.folder, count * self.size + later, what=self.what, advice=self.advice)

    @contextmanager
    def locked(self, name: str = "") -> Iterator[None]:
        """Hold the lock of those who add to the store, or of those of them with a name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f"{name}.lock"):
            sweep(self.folder)
            yield

    def add(self, batches: Iterable[tuple[Keys, npt.NDArray[Any]]]) -> None:
        """Add arrays, (n, ...) with their n keys, in files of this call's own; what an exception interrupts is kept.

        Raises:
            DataError: The disk is full.
        """
        path, count, size = Path(), PER_FILE, 0
        try:
            for keys, arrays in batches:
                if count + len(keys) > PER_FILE:
                    _note(path)
                    path, count = self.folder / f"{secrets.token_hex(8)}.bin", 0
                count, size = count + len(keys), len(keys) * self.size
                self._append(path, keys, np.ascontiguousarray(arrays, self.dtype))
        except OSError as error:
            if error.errno not in FULL:
                raise
            reason = f" ({error.strerror})"
            raise full_disk(self.folder, size, what=self.what, advice=self.advice, reason=reason) from error
        finally:
            _note(path)

    def _append(self, path: Path, keys: Keys, arrays: npt.NDArray[Any]) -> None:
        records = np.zeros(len(keys), _RECORD)
        records["key"], records["crc32"] = keys, [zlib.crc32(each) for each in arrays]
        for name, content in ((path, arrays), (path.with_suffix(".index"), records)):
            with name.open("ab") as file:
                file.write(content.data)

    def _find(self, keys: Keys) -> tuple[npt.NDArray[np.int32], list[Path]]:
        """File and place of each key, (N, 2), -1 where it is not there; and the files."""
        files = sorted(self.folder.glob("*.bin"))
        return locate(keys, [_checked(path, self.size)["key"] for path in files]), files


def locate(keys: Keys, held: Sequence[Keys]) -> npt.NDArray[np.int32]:
    """File and place of each key, (N, 2), -1 where no file holds it; `held` are the keys of each file."""
    known = np.concatenate([*held, np.zeros(1, "S32")])  # b"" at the end stands for a key that is nowhere
    order = np.argsort(known, kind="stable")
    at = order[np.searchsorted(known[order], keys).clip(max=len(known) - 1)]
    there = (known[at] == keys) & (keys != b"")
    starts = np.cumsum([0, *map(len, held)])
    file = np.searchsorted(starts, at, side="right") - 1
    found = np.stack([file, at - starts[file]], axis=1).astype(np.int32)
    found[~there] = -1
    return found


def keys_of(texts: Iterable[bytes]) -> Keys:
    """Keys of texts that are all different, such as what an array is made from."""
    return np.array([hashlib.sha256(text).hexdigest()[:32] for text in texts], dtype="S32")


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    count = path.stat().st_size // (int(np.prod(shape)) * dtype.itemsize)
    return np.asarray(np.memmap(path, dtype, "r", shape=(count, *shape)))


def _checked(path: Path, size: int) -> npt.NDArray[Any]:
    """Records of a file's arrays that are what their checksums say, which are computed anew only after a change."""
    index, stamp = path.with_suffix(".index"), file_stamp(path)
    content = index.read_bytes() if index.exists() else b""
    count = min(len(content) // _RECORD.itemsize, path.stat().st_size // size)  # those that are there whole
    records = np.frombuffer(content[: count * _RECORD.itemsize], _RECORD).copy()
    if read_json(path.with_suffix(".json")).get("checked") == stamp:
        return records
    with path.open("rb") as file:
        intact = np.array([zlib.crc32(file.read(size)) == crc32 for crc32 in records["crc32"].tolist()], np.bool_)
    if not (intact | (records["key"] == b"")).all():
        log.warning(
            "%s: damaged, or changed since it was made; %d of its arrays are made again.", path, (~intact).sum()
        )
        records["key"][~intact] = b""
        with suppress(OSError), replacing(index) as beside:
            beside.write_bytes(records.tobytes())
    _note(path, stamp)
    return records


def _note(path: Path, stamp: list[int] | None = None) -> None:
    """Note that the arrays of a file are what their checksums say."""
    if path.is_file():
        with suppress(OSError):  # of a cache that others own, or that is read-only
            write_json(path.with_suffix(".json"), {"checked": stamp or file_stamp(path)})
