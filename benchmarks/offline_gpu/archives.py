"""Results as a few archives of limited size, each readable without the others."""

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MIB = 2**20
_HEADER = 1536  # bytes that a file takes in an archive beside its content, at most


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes of what may come back from a machine."""

    files: int = 8
    each: int = 16 * MIB
    together: int = 62 * MIB


def fill(sizes: Sequence[int], *, limit: int, bins: int) -> list[list[int]]:
    """Positions of the sizes in each of at most `bins` bins, first fit in the given order.

    What fits nowhere is left out.
    """
    filled: list[list[int]] = []
    for position, size in enumerate(sizes):
        room = (one for one in filled if sum(sizes[other] for other in one) + size <= limit)
        chosen = next(room, None)
        if chosen is not None:
            chosen.append(position)
        elif size <= limit and len(filled) < bins:
            filled.append([position])
    return filled


def write_archives(
    paths: Sequence[Path], root: Path, out: Path, *, stem: str, compress: bool, limits: Limits = Limits()
) -> list[Path]:
    """Write files into OUT/STEM-1.tar, STEM-2.tar and so on, and return those that are left out.

    Archives of an earlier call are replaced.

    Args:
        paths: The files below `root`, in the order of their worth; none is divided.
        root: From which they are named in the archives.
        out: Folder of the archives. What else lies there counts towards the limits.
        stem: Of their names.
        compress: By gzip. The sizes before it decide what fits.
        limits: Of the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    for earlier in out.glob(f"{stem}-*.tar*"):
        earlier.unlink()
    used = [path.stat().st_size for path in out.iterdir() if path.is_file()]
    sizes = [path.stat().st_size + _HEADER for path in paths]
    placed = fill(sizes, limit=limits.each - 16384, bins=limits.files - len(used))  # tar pads to 10 KiB
    room = limits.together - sum(used)
    left_out = set(paths)
    for number, positions in enumerate(placed, start=1):
        path = out / f"{stem}-{number}.tar{'.gz' if compress else ''}"
        chosen = [paths[position] for position in positions]
        _write(chosen, root, path, compress=compress)
        if path.stat().st_size > room:
            path.unlink()
            continue
        room -= path.stat().st_size
        left_out -= set(chosen)
    return [path for path in paths if path in left_out]


def _write(paths: Sequence[Path], root: Path, target: Path, *, compress: bool) -> None:
    beside = target.with_name(f".{target.name}")
    file: IO[bytes]
    with beside.open("wb") as file, tarfile.open(fileobj=file, mode="w:gz" if compress else "w") as archive:
        for path in paths:
            archive.add(path, path.relative_to(root).as_posix(), recursive=False)
    os.replace(beside, target)
