"""Files in `data.cache_dir`, made once and shared: their space is reserved, and damage is noticed and mended."""

import errno
import json
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skinlesion.errors import DataError
from skinlesion.files import locked, replacing, require_writable, sweep, write_json

log = logging.getLogger(__name__)

_BLOCK = 1 << 24  # bytes read or written at a time
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_RESERVABLE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # the file system has no posix_fallocate


class _LostRaceError(Exception):
    """Another process has made the file meanwhile."""


def build_once(path: Path, build: Callable[[], None], *, is_intact: Callable[[Path], bool]) -> None:
    """Call `build`, which makes `path`, if it is not there or damaged; one process does so while the others wait.

    A warm cache is only read, so that it may lie on a read-only file system.

    Args:
        path: The file. What killed builders left in its folder is deleted first.
        build: Makes it with `replacing`.
        is_intact: Whether the file is there and as it was made.

    Raises:
        ConfigError: The file must be made, and its folder cannot be written.
    """
    if is_intact(path):
        return
    if path.exists():
        log.warning("%s: damaged, or changed since it was made; it is made again.", path)
    require_writable(path.parent, "data.cache_dir")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if not is_intact(path):  # no other process has made it while this one waited
            sweep(path.parent)
            build()


def open_array(path: Path, build: Callable[[], None]) -> npt.NDArray[Any]:
    """Map an array read-only, made by `build` with `new_array` if it is missing or not what its checksum says.

    The checksum (CRC-32, 0.35 s/GB) is computed anew only where size or times of the file differ from those of the
    last check, so that opening does not read the file. A file's time is that of its last use.
    """
    build_once(path, build, is_intact=is_intact)
    array: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    return array


@contextmanager
def new_array(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, *, what: str, advice: str = "", later: int = 0
) -> Iterator[npt.NDArray[Any]]:
    """Yield an array to fill, whose space on the disk is reserved; it becomes the file `path`, with a checksum.

    Args:
        path: The .npy file.
        shape: Of the array.
        dtype: Of the array.
        what: Names its contents in messages.
        advice: A further way out of a full disk.
        later: Bytes of further arrays, which must be free too.

    Raises:
        DataError: There is not enough space.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    require_room(path.parent, size + later, what=what, advice=advice)
    with suppress(_LostRaceError), replacing(path) as beside:
        try:
            array = np.lib.format.open_memmap(beside, mode="w+", dtype=np.dtype(dtype), shape=shape)
            _reserve(beside, beside.stat().st_size - size, size)
        except OSError as error:
            if error.errno not in FULL:
                raise
            os.truncate(beside, 0)  # so that what is free is what was
            raise full_disk(path.parent, size, what=what, advice=advice, reason=f" ({error.strerror})") from error
        yield array
        array.flush()
        if is_intact(path):
            raise _LostRaceError  # to a machine that the lock did not reach: theirs is mapped already, and stays
        write_json(_sums(path), {"crc32": _crc32(beside)})
    _note(path, read_json(_sums(path))["crc32"])


def require_room(folder: Path, size: int, *, what: str, advice: str = "", key: str = "data.cache_dir") -> None:
    """Refuse now what a disk cannot hold: a mapped file that outgrows it kills the process without a word.

    Raises:
        DataError: Less than `size` bytes are free where `folder` is or will be.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    if size > shutil.disk_usage(there).free:
        raise full_disk(there, size, what=what, advice=advice, key=key)


def load_arrays(path: Path, build: Callable[[], None]) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a small .npz file, made by `build` if it is missing or damaged (each has a CRC-32)."""
    build_once(path, build, is_intact=lambda path: read_arrays(path) is not None)
    return read_arrays(path) or {}


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Read the arrays of an .npz file; None where it is missing or damaged."""
    damaged = suppress(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
    with damaged, path.open("rb") as file, np.load(file) as stored:
        return {name: stored[name] for name in stored.files}
    return None


def _reserve(path: Path, start: int, size: int) -> None:
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), start, size)
        except AttributeError:  # macOS and Windows
            _write_zeros(file.fileno(), start, size)
        except OSError as error:
            if error.errno not in _NOT_RESERVABLE:
                raise
            _write_zeros(file.fileno(), start, size)


def _write_zeros(descriptor: int, start: int, size: int) -> None:
    os.lseek(descriptor, start, os.SEEK_SET)
    zeros = memoryview(bytes(min(_BLOCK, size)))
    while size > 0:
        size -= os.write(descriptor, zeros[:size])
    os.fsync(descriptor)  # some file systems tell only now that they are full


def full_disk(
    folder: Path, size: int, *, what: str, advice: str, reason: str = "", key: str = "data.cache_dir"
) -> DataError:
    """The error of a disk that cannot take some more bytes; `key` names the folder in the configuration."""
    free = shutil.disk_usage(folder).free
    return DataError(
        f"{key}={folder}: {what} need {size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free{reason}; "
        f"make room, or set {key} elsewhere{advice}"
    )


def _sums(path: Path) -> Path:
    return path.with_suffix(".json")


def file_stamp(path: Path | str) -> list[int]:
    """Size and times of modification and of change of a file, which differ once it is another."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]  # no program can set the last


def is_intact(path: Path) -> bool:
    """Whether an array of `new_array` is there and what its checksum says; notes that it has been used."""
    sums = read_json(_sums(path))
    if not path.exists() or "crc32" not in sums:
        return False
    if sums.get("checked") != file_stamp(path) and sums["crc32"] != _crc32(path):
        return False
    _note(path, sums["crc32"])
    return True


def _note(path: Path, checksum: int) -> None:
    """Note that a file has been used, and that it is what its checksum says."""
    with suppress(OSError):  # of a cache that others own, or that is read-only
        path.touch()
        write_json(_sums(path), {"crc32": checksum, "checked": file_stamp(path)})


def read_json(path: Path) -> dict[str, Any]:
    """A file's object; empty where there is none."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum
