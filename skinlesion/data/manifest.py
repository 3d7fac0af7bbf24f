"""Sizes and digests of image files, remembered in the cache folder, so that a start opens no file that has not changed.

A file is the one that is remembered while its size and its times of modification and of change stay the same.
"""

import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from skinlesion.data.disk_cache import file_stamp, read_arrays
from skinlesion.data.image_formats import ImageError
from skinlesion.data.image_io import dimensions, probe
from skinlesion.files import file_digest, replacing

log = logging.getLogger(__name__)

_AT_ONCE = 4096  # files handed to the threads: a future each
_ABSENT = [-1, -1, -1]
_File = TypeVar("_File", Path, str)


@dataclass(frozen=True)
class _Files:
    """What is known of N files."""

    names: npt.NDArray[np.bytes_]  # (N,) whole paths
    stamps: npt.NDArray[np.int64]  # (N, 3) bytes, times of modification and of change
    whole: npt.NDArray[np.bool_]  # (N,) whether it was probed and whole
    shapes: npt.NDArray[np.int32]  # (N, 2) height and width in pixels, upright; 0: not looked for
    digests: npt.NDArray[np.bytes_]  # (N,) SHA-256 in hexadecimal; b"": not read

    @classmethod
    def of(cls, paths: Sequence[Path | str]) -> "_Files":
        """Files of which nothing is known but how they lie on the disk."""
        split, count = [str(path).rpartition(os.sep) for path in paths], len(paths)  # a tenth of os.path.split's time
        folders = {(folder, end) for folder, end, _ in split}
        whole = {each: os.path.join(os.path.abspath("".join(each)), "") for each in folders}
        names = np.array([os.fsencode(whole[folder, end] + name) for folder, end, name in split], dtype=np.bytes_)
        stamps = np.fromiter(chain.from_iterable(map(_stamp, paths)), np.int64, 3 * count).reshape(-1, 3)
        return cls(names, stamps, np.zeros(count, np.bool_), np.zeros((count, 2), np.int32), np.zeros(count, "S64"))

    def recall(self, earlier: "_Files") -> None:
        """Take over what is known of the same files, whose names are sorted."""
        place = np.searchsorted(earlier.names, self.names).clip(max=max(0, len(earlier.names) - 1))
        same = np.zeros(len(self.names), np.bool_)
        if len(earlier.names):
            same = (earlier.names[place] == self.names) & (earlier.stamps[place] == self.stamps).all(axis=1)
        for own, other in zip(self.found, earlier.found, strict=True):
            own[same] = other[place[same]]

    def joined(self, earlier: "_Files") -> "_Files":
        """These and further files, sorted by name."""
        names, first = np.unique(np.concatenate([self.names, earlier.names]), return_index=True)
        pairs = zip((self.stamps, *self.found), (earlier.stamps, *earlier.found), strict=True)
        return _Files(names, *(np.concatenate(pair)[first] for pair in pairs))

    @property
    def found(self) -> tuple[npt.NDArray[Any], ...]:
        """What was found by opening them."""
        return self.whole, self.shapes, self.digests


def file_faults(paths: Sequence[_File], folder: Path | None = None) -> dict[_File, str]:
    """Probe image files without decoding them, see `image_io.probe`; those that were whole and are the same are not.

    Args:
        paths: The files.
        folder: Where what is found is remembered, if it can be written; None: nowhere.

    Returns:
        The fault of each faulty file, e.g. "truncated JPEG (no end marker)"; whole files are left out.
    """
    faults = {}
    with _known(paths, folder) as known:
        for place in np.flatnonzero(~known.whole).tolist():
            try:
                probe(Path(paths[place]))
                known.whole[place] = True
            except ImageError as error:
                faults[paths[place]] = str(error)
    return faults


def image_shapes(paths: Sequence[Path | str], folder: Path | None) -> npt.NDArray[np.int32]:
    """Heights and widths of image files in pixels, upright, (N, 2); `folder` as of `file_faults`.

    Raises:
        ImageError: A file is refused.
    """
    with _known(paths, folder) as known:
        for place in np.flatnonzero(known.shapes[:, 0] == 0).tolist():
            known.shapes[place] = dimensions(Path(paths[place]))
    return known.shapes


def content_digests(paths: Sequence[Path | str], folder: Path | None) -> npt.NDArray[np.bytes_]:
    """SHA-256 of files in hexadecimal, (N,); those that were read and are the same are not read (0.6 s/GB).

    `folder` as of `file_faults`.
    """
    with _known(paths, folder) as known, ThreadPoolExecutor(os.cpu_count()) as pool:
        new = np.flatnonzero(known.digests == b"")
        for block in np.split(new, range(_AT_ONCE, len(new), _AT_ONCE)):
            digests = pool.map(lambda each: file_digest(Path(paths[each])), block.tolist())
            known.digests[block] = [digest.encode() for digest in digests]
    return known.digests


@contextmanager
def _known(paths: Sequence[Path | str], folder: Path | None) -> Iterator[_Files]:
    """What is known of files, to be added to; what was added is remembered, also after an interruption."""
    files = _Files.of(paths)
    if folder is None:
        yield files
        return
    parents = sorted({name.rpartition(os.fsencode(os.sep))[0] for name in files.names.tolist()})
    memo = folder / f"files-{zlib.crc32(repr(parents).encode()):08x}.npz"
    earlier = _read(memo)
    files.recall(earlier)
    before = [each.copy() for each in files.found]
    try:
        yield files
    finally:
        if not all(map(np.array_equal, before, files.found)):
            with suppress(OSError), replacing(memo) as beside:  # a cache that cannot be written works without
                np.savez(beside, **vars(files.joined(earlier)))


def _read(memo: Path) -> _Files:
    with suppress(TypeError, ValueError):
        stored: dict[str, Any] = read_arrays(memo) or {}
        return _Files(**stored)
    return _Files.of([])


def _stamp(path: Path | str) -> list[int]:
    try:
        return file_stamp(path)
    except OSError:
        return _ABSENT
