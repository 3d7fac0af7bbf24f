"""The image files of a data set: where they lie, and whether they look whole."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from skinlesion.data.csv_io import some

SUFFIXES = (".jpg", ".jpeg", ".png")
_TAIL = 4096  # bytes searched for the end marker; cameras, editors and disks append a little after it


def find_folders(root: Path, names: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Look for the image folders `names` in `root`.

    A folder that holds one of its own name (some programs unpack `part_1.zip` to `part_1/part_1/`) stands
    for both.

    Returns:
        The folders that exist, each once, and those of `names` that do not.
    """
    named = list(dict.fromkeys(root / name for name in names))
    found = [folder for folder in named if folder.is_dir()]
    nested = [inner for folder in found if (inner := folder / folder.name).is_dir()]
    return list(dict.fromkeys(found + nested)), [folder for folder in named if folder not in found]


def find_files(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """List the image files of `folders` (not of folders inside them), by image id.

    Returns:
        The files of each image id (the file name without its suffix), sorted by id; more than one file is a
        mistake for the caller to report. Hidden files, such as macOS's `._ISIC_0024306.jpg`, are passed over.
    """
    files: dict[str, list[Path]] = {}
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if suffix.lower() in SUFFIXES and not stem.startswith(".") and not entry.is_dir():
                    files.setdefault(stem, []).append(Path(entry.path))
    return {stem: sorted(files[stem]) for stem in sorted(files)}


def faults(paths: Iterable[Path]) -> dict[Path, str]:
    """Probe image files without decoding them.

    Empty files, files that are no JPEG or PNG, and files cut off before their end are found; damage inside
    the pixel data is not (decoding finds that). 10,000 files take well under a second once the disk has them.

    Returns:
        What is wrong with each faulty file, e.g. "truncated JPEG (no end marker)"; sound files are left out.
    """
    found = ((path, _fault(path)) for path in paths)
    return {path: fault for path, fault in found if fault is not None}


def file_problems(root: Path, files: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    """Yield one text for all images with more than one file, and one for all faulty files.

    Args:
        root: The folder that the files are named from.
        files: The files of each image id.
    """
    twice = [copies for copies in files.values() if len(copies) > 1]
    if twice:
        names = some(" and ".join(shortened(root, copies)) for copies in twice)
        yield f"more than one file for {len(twice):,} images: {names}; keep one of each."
    faulty = faults(path for copies in files.values() for path in copies)
    if faulty:
        names = some(map(": ".join, zip(shortened(root, faulty), faulty.values(), strict=True)))
        yield f"{len(faulty):,} faulty image files: {names}; download or copy them again."


def shortened(root: Path, paths: Iterable[Path]) -> list[str]:
    """Name files from `root`, those outside it in full."""
    return [str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths]


def _fault(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0:
                return "empty file"
            file.seek(0)
            with Image.open(file, formats=("JPEG", "PNG")) as image:
                kind = "PNG" if image.format == "PNG" else "JPEG"
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    except UnidentifiedImageError:
        return "not a JPEG or PNG image"
    except (OSError, Image.DecompressionBombError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    # Inside JPEG data 0xFF is always followed by 0x00 or a restart marker, so 0xFFD9 can only be the end.
    end = b"IEND" if kind == "PNG" else b"\xff\xd9"
    return None if end in tail else f"truncated {kind} (no end marker)"
