"""Image files: where they lie, whether they are whole, and their pixels at the working size.

Training, evaluation and a deployed bundle read images by these functions alone. The file needs OpenCV, Pillow and numpy
but neither torch nor pandas, so that a service starts fast.
"""

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, ImageOps, UnidentifiedImageError
from PIL import Image as PillowImage

from skinlesion.errors import ConfigError, DataError, first_five

# OpenCV's threads do not survive the fork of a loader's worker (it would wait for ever), and images are small.
cv2.setNumThreads(0)

Image = npt.NDArray[np.uint8]

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png")
_TAIL = 4096  # bytes searched for the end marker; cameras, editors and disks append a little after it
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_UNREADABLE = (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError)  # raised by Pillow


@dataclass(frozen=True)
class ImageInput:
    """The images that a backbone expects."""

    size: tuple[int, int]  # (height, width) in pixels
    mean: tuple[float, ...]  # of each channel in 0..1
    std: tuple[float, ...]  # of each channel in 0..1


def decode(path: Path, size: tuple[int, int]) -> Image:
    """Read an image file, upright and RGB, and fit it into `size`.

    Raises:
        DataError: The file cannot be read as an image.
    """
    return fit(read(path), size)


def read(path: Path) -> Image:
    """Read an image file, upright and RGB, (h, w, 3).

    Raises:
        DataError: The file cannot be read as an image.
    """
    try:
        with PillowImage.open(path) as image:
            return upright(image)
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def upright(image: PillowImage.Image) -> Image:
    """Return the pixels of an opened image, (h, w, 3), RGB, turned as its EXIF orientation says."""
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def dimensions(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image file in pixels, upright, without decoding it.

    Raises:
        DataError: The file cannot be read as an image.
    """
    try:
        with PillowImage.open(path) as image:
            sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
            width, height = image.size
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable image ({error})") from error
    return (width, height) if sideways else (height, width)


def fit(image: Image, size: tuple[int, int]) -> Image:
    """Resize an image to fit into `size`, keeping its aspect, and pad it with black in equal parts.

    Args:
        image: RGB, (h, w, 3).
        size: (height, width) of the result, in pixels.
    """
    if image.shape[:2] == size:
        return image
    rows, columns = unpadded_area(image.shape[:2], size)
    inner = (columns.stop - columns.start, rows.stop - rows.start)
    shrinks = inner[0] < image.shape[1] or inner[1] < image.shape[0]
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[rows, columns] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return canvas


def unpadded_area(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns that an image fills after `fit`; all others are padding.

    Args:
        shape: (h, w) of the image, in pixels.
        size: (height, width) of the result, in pixels.
    """
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (min(most, max(1, round(side * scale))) for side, most in zip(shape[:2], size, strict=True))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return slice(top, top + height), slice(left, left + width)


def find_folders(root: Path, names: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Look for the image folders `names` in `root`.

    A folder that holds one of its own name (some programs unpack `part_1.zip` to `part_1/part_1/`) stands for both.

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
        The files of each image id (the file name without its suffix), sorted by id; more than one file is a mistake
        for the caller to report. Hidden files, such as macOS's `._ISIC_0024306.jpg`, are skipped.
    """
    files: dict[str, list[Path]] = {}
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if suffix.lower() in SUFFIXES and not stem.startswith(".") and not entry.is_dir():
                    files.setdefault(stem, []).append(Path(entry.path))
    return {stem: sorted(files[stem]) for stem in sorted(files)}


def match_files(
    ids: Sequence[str],
    found: dict[str, list[Path]],
    *,
    root: Path,
    policies: tuple[str, str],
    key: str,
    only: Collection[str] | None,
    absent: Sequence[Path] = (),
    dropped: Collection[str] = (),
) -> tuple[dict[str, list[Path]], list[str]]:
    """Pick the image files of some ids, and list the problems that the policies do not allow.

    Args:
        ids: Image ids of the rows.
        found: All files by image id, as from `find_files`.
        root: Folder that the messages name files from.
        policies: For rows without a file ("error" or "drop") and files without a row ("error" or "ignore").
        key: Configuration group of the policies, for messages.
        only: Image ids; all other rows and files are skipped. None: all count.
        absent: Folders that are not there, for messages.
        dropped: Ids whose rows are left out, so that their files have a row all the same.

    Raises:
        ConfigError: A policy is not one of its choices.
    """
    for name, value, other in zip(("missing_images", "extra_images"), policies, ("drop", "ignore"), strict=True):
        if value not in ("error", other):
            raise ConfigError(f"{key}.{name}={value}: expected error or {other}.")
    if only is not None:
        chosen = {*only}
        ids = [image_id for image_id in ids if image_id in chosen]
        found = {image_id: found[image_id] for image_id in ids if image_id in found}
    files = {image_id: found[image_id] for image_id in ids if image_id in found}
    missing = [image_id for image_id in ids if image_id not in files]
    labelled = {*ids, *dropped}
    extra = relative_names(root, (copies[0] for image_id, copies in found.items() if image_id not in labelled))
    problems = [*_missing_problems(missing, len(ids), absent, policy=policies[0], key=key)]
    if extra:
        problem = f"no row for {len(extra):,} image files ({first_five(extra)})"
        if policies[1] == "error":
            problems.append(f"{problem}; remove them, add their rows, or skip them with {key}.extra_images=ignore.")
        else:
            log.info("%s: they are not used.", problem)
    return files, [*problems, *file_problems(root, files)]


def _missing_problems(
    missing: Sequence[str], total: int, absent: Sequence[Path], *, policy: str, key: str
) -> Iterator[str]:
    folders = f"; there is no folder {first_five(path.name for path in absent)}" if absent else ""
    problem = f"no image file for {len(missing):,} of {total:,} rows ({first_five(missing)}{folders})"
    if not missing:
        if absent:
            log.info("All rows have their image%s.", folders)
    elif len(missing) == total:
        yield f"{problem}: no row would be left; expected files named IMAGE_ID.jpg or .png of the same images."
    elif policy == "error":
        yield f"{problem}; add the files, or leave these rows out with {key}.missing_images=drop."
    else:
        log.warning("%s: these rows are dropped.", problem)


def file_faults(paths: Iterable[Path]) -> dict[Path, str]:
    """Probe image files without decoding them.

    Empty files, files that are no JPEG or PNG, and files cut off before their end are found; damage inside the pixel
    data is not (decoding finds that). 10,000 files take well under a second once the disk has them.

    Returns:
        The fault of each faulty file, e.g. "truncated JPEG (no end marker)"; whole files are left out.
    """
    faults = ((path, _fault(path)) for path in paths)
    return {path: fault for path, fault in faults if fault is not None}


def file_problems(root: Path, files: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    """Yield one text for all images with more than one file, and one for all faulty files.

    Args:
        root: Folder that the messages name files from.
        files: The files of each image id.
    """
    if repeated := [copies for copies in files.values() if len(copies) > 1]:
        names = first_five(" and ".join(relative_names(root, copies)) for copies in repeated)
        yield f"more than one file for {len(repeated):,} images: {names}; keep one of each."
    if faults := file_faults(path for copies in files.values() for path in copies):
        names = first_five(map(": ".join, zip(relative_names(root, faults), faults.values(), strict=True)))
        yield f"{len(faults):,} faulty image files: {names}; download or copy them again."


def relative_names(root: Path, paths: Iterable[Path]) -> list[str]:
    """Name files from `root`, those outside it in full."""
    return [str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths]


def _fault(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0:
                return "empty file"
            file.seek(0)
            with PillowImage.open(file, formats=("JPEG", "PNG")) as image:
                kind = "PNG" if image.format == "PNG" else "JPEG"
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    except UnidentifiedImageError:
        return "not a JPEG or PNG image"
    except (OSError, PillowImage.DecompressionBombError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    # Inside JPEG data 0xFF is always followed by 0x00 or a restart marker, so 0xFFD9 can only be the end.
    end = b"IEND" if kind == "PNG" else b"\xff\xd9"
    return None if end in tail else f"truncated {kind} (no end marker)"
