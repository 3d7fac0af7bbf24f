"""Files in `data.cache_dir`, made once and shared; damage is noticed and mended."""

import errno
import json
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skinlesion.errors import DataError
from skinlesion.files import locked, require_writable, sweep

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def require_room(folder: Path, size: int, *, what: str, advice: str = "", key: str = "data.cache_dir") -> None:
    """Refuse now what a disk cannot hold.

    Raises:
        DataError: Less than `size` bytes are free where `folder` is or will be.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    if size > shutil.disk_usage(there).free:
        raise full_disk(there, size, what=what, advice=advice, key=key)


def load_arrays(path: Path, build: Callable[[], None]) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a small .npz file; one process makes it, if it is missing or damaged, while the others wait.

    A warm cache is only read, so that it may lie on a read-only file system.

    Args:
        path: The file. What killed builders left in its folder is deleted first.
        build: Makes it with `replacing`.

    Raises:
        ConfigError: The file must be made, and its folder cannot be written.
    """
    if (arrays := read_arrays(path)) is not None:
        return arrays
    if path.exists():
        log.warning("%s: damaged, or changed since it was made; it is made again.", path)
    require_writable(path.parent, "data.cache_dir")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if (arrays := read_arrays(path)) is None:  # no other process has made it while this one waited
            sweep(path.parent)
            build()
            arrays = read_arrays(path)
    return arrays or {}


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Read the arrays of an .npz file; None where it is missing or damaged."""
    damaged = suppress(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
    with damaged, path.open("rb") as file, np.load(file) as stored:
        return {name: stored[name] for name in stored.files}
    return None


def full_disk(
    folder: Path, size: int, *, what: str, advice: str, reason: str = "", key: str = "data.cache_dir"
) -> DataError:
    """The error of a disk that cannot take some more bytes; `key` names the folder in the configuration."""
    free = shutil.disk_usage(folder).free
    return DataError(
        f"{key}={folder}: {what} need {size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free{reason}; "
        f"make room, or set {key} elsewhere{advice}"
    )


def file_stamp(path: Path | str) -> list[int]:
    """Size and times of modification and of change of a file, which differ once it is another."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]  # no program can set the last


def read_json(path: Path) -> dict[str, Any]:
    """A file's object; empty where there is none."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
