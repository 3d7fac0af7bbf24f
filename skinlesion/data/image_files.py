"""Image files of a data set: where they lie, which belong to which row, and what a folder holds that is not read."""

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skinlesion.data.image_formats import SUFFIXES
from skinlesion.data.manifest import file_faults
from skinlesion.errors import ConfigError, first_five

log = logging.getLogger(__name__)

_BESIDE = frozenset([
    *(".csv", ".tsv", ".tab", ".txt", ".json", ".md", ".html", ".xml"),
    *(".yaml", ".yml", ".xlsx", ".pdf", ".db", ".ini", ".lock", ".log"),
])  # fmt: skip
"""Suffixes of files that are no images and may lie beside them."""


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


@dataclass(frozen=True)
class Listing:
    """Files of some folders, sorted by folder and name.

    Attributes:
        images: Files whose suffix is one of an image.
        passed_over: Other files that may be images all the same, such as .avif or .psd.
    """

    images: list[Path]
    passed_over: list[Path]


def archives(folders: Iterable[Path | str]) -> str:
    """Say which archives to unpack in place of folders that are not there; "" where there are none."""
    suffixes = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
    beside = (Path(f"{folder}{suffix}") for folder in folders for suffix in ("", *suffixes))
    packed = [path.name for path in beside if path.name.lower().endswith(suffixes) and path.is_file()]
    return f"; unpack {first_five(packed)}" if packed else ""


def list_files(folders: Iterable[Path]) -> Listing:
    """List the image files of folders (not of folders inside them); others are named in a warning.

    Tables, texts, and hidden files such as macOS's `._ISIC_0024306.jpg` are skipped.
    """
    return Listing(*([*map(Path, paths)] for paths in _listed(folders)))


def _listed(folders: Iterable[Path]) -> tuple[list[str], list[str]]:
    """The paths of `list_files` as text, which takes a third of the time."""
    images: list[str] = []
    others: list[str] = []
    for folder in folders:
        with os.scandir(folder) as entries:  # a tenth of the time of `iterdir` and `is_dir`
            names = sorted(each.name for each in entries if not (each.name.startswith(".") or _is_folder(each)))
        start = os.path.join(folder, "")
        for name in names:
            suffix = f".{name.rpartition('.')[2].lower()}" if "." in name else ""
            if suffix in SUFFIXES:
                images.append(start + name)
            elif suffix not in _BESIDE:
                others.append(start + name)
    if others:
        said, expected = first_five(map(os.path.basename, others)), f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        log.warning("%s: %d files are not read: %s; expected %s.", Path(others[0]).parent, len(others), said, expected)
    return images, others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()  # links may lead in a circle


def list_tree(folder: Path) -> Listing:
    """As `list_files`, with the folders inside, except those that hold files of the same names, such as masks."""
    top = {path.stem for path in list_files([folder]).images} if (inside := folders_inside(folder)) else set()
    return list_files([folder, *(each for each in inside if not stems(each) & top)])


def folders_inside(folder: Path) -> list[Path]:
    """List the folders inside a folder, at any depth, sorted; hidden ones are skipped, and each counts once."""
    found, seen = [], set()
    for path, names, _ in os.walk(folder, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith((".", "__MACOSX")))
        seen.add(os.path.realpath(path))  # links may lead back
        names[:] = [name for name in names if os.path.realpath(os.path.join(path, name)) not in seen]
        found += [Path(path, name) for name in names]
    return sorted(found)


def stems(folder: Path) -> set[str]:
    """The names of a folder's files and folders, without suffix."""
    return {os.path.splitext(name)[0] for name in os.listdir(folder)}


def class_folders(folders: Iterable[Path]) -> list[tuple[str, str, Path]]:
    """List the images of folders whose inner folders are named after diagnoses: `train/melanoma/1.jpg`.

    Returns:
        Id, name of its folder, and file of each image. The id is the file's name without its suffix, with the names of
        its folders before it where files of two folders have the same name.
    """
    found = [(top, path) for top in folders for path in list_files(folders_inside(top)).images]
    repeated = len({path.stem for _, path in found}) < len(found)
    return [
        (str(path.relative_to(top.parent).with_suffix("")) if repeated else path.stem, path.parent.name, path)
        for top, path in found
    ]


def find_files(folders: Iterable[Path]) -> dict[str, list[str]]:
    """List the image files of `folders` (not of folders inside them), by image id.

    Returns:
        The files of each image id (the file name without its suffix), sorted by id; more than one file is a mistake
        for the caller to report.
    """
    files: dict[str, list[str]] = {}
    for path in sorted(_listed(folders)[0]):
        files.setdefault(path.rpartition(os.sep)[2].rpartition(".")[0], []).append(path)
    return {image_id: files[image_id] for image_id in sorted(files)}


def match_files(
    ids: Sequence[str],
    folders: Sequence[Path],
    *,
    root: Path,
    policies: tuple[str, str],
    key: str,
    only: Collection[str] | None,
    absent: Sequence[Path] = (),
    dropped: Collection[str] = (),
    located: Mapping[str, list[str]] | None = None,
    cache_dir: Path | None = None,
) -> tuple[dict[str, list[str]], list[str]]:
    """Pick the image files of some ids, and list the problems that the policies do not allow.

    Args:
        ids: Image ids of the rows.
        folders: Folders of the images. For ids without a file there, folders inside them count too, unless they hold
            files of ids that have one: these are masks, or other sizes.
        root: Folder that the messages name files from.
        policies: For rows without a file ("error" or "drop") and files without a row ("error" or "ignore").
        key: Configuration group of the policies, for messages.
        only: Image ids; all other rows and files are skipped. None: all count.
        absent: Folders that are not there, for messages.
        dropped: Ids whose rows are left out, so that their files have a row all the same.
        located: The files by id, where they are known.
        cache_dir: Where whole files are remembered, see `manifest.file_faults`.

    Raises:
        ConfigError: A policy is not one of its choices.
    """
    for name, value, other in zip(("missing_images", "extra_images"), policies, ("drop", "ignore"), strict=True):
        if value not in ("error", other):
            raise ConfigError(f"{key}.{name}={value}: expected error or {other}.")
    found = _files_of(ids, folders) if located is None else dict(located)
    if only is not None:
        ids = list(filter({*only}.__contains__, ids))
        found = {image_id: found[image_id] for image_id in ids if image_id in found}
    if inner := _files_inside(folders, [image_id for image_id in ids if image_id not in found], beside=found):
        log.info("%d of %d images lie in folders inside %s.", len(inner), len(ids), first_five(folders))
        found |= inner
    files = {image_id: found[image_id] for image_id in ids if image_id in found}
    missing = [image_id for image_id in ids if image_id not in files]
    labelled = {*ids, *dropped}
    extra = relative_names(root, (copies[0] for image_id, copies in found.items() if image_id not in labelled))
    problems = []
    gone = f"; there is no folder {first_five(path.name for path in absent)}" if absent else ""
    if absent and not missing:
        log.info("All rows have their image%s.", gone)
    if missing:
        problem = f"no image file for {len(missing):,} of {len(ids):,} rows ({first_five(missing)}{gone})"
        advice = _near_misses(missing, folders)
        if len(missing) == len(ids):
            named = f"expected files named IMAGE_ID{SUFFIXES[0]} or {SUFFIXES[2]} of the same images."
            problems.append(f"{problem}: no row would be left; {advice or named}")
        elif policies[0] == "error":
            advice = advice or f"add the files, or leave these rows out with {key}.missing_images=drop."
            problems.append(f"{problem}; {advice}")
        else:
            log.warning("%s: these rows are dropped. %s", problem, advice)
    if extra:
        problem = f"no row for {len(extra):,} image files ({first_five(extra)})"
        if policies[1] == "error":
            problems.append(f"{problem}; remove them, add their rows, or skip them with {key}.extra_images=ignore.")
        else:
            log.info("%s: they are not used.", problem)
    return files, [*problems, *file_problems(root, files, cache_dir)]


def _files_inside(folders: Iterable[Path], ids: Collection[str], beside: Collection[str]) -> dict[str, list[str]]:
    """Find the files of some ids in the folders inside some folders, unless they hold files of ids in `beside`."""
    inner = sorted({each for folder in folders for each in folders_inside(folder)}) if ids else []
    found = find_files(each for each in inner if each not in folders and stems(each).isdisjoint(beside))
    return {image_id: found[image_id] for image_id in ids if image_id in found}


def _files_of(ids: Collection[str], folders: Sequence[Path]) -> dict[str, list[str]]:
    """List the files of folders by id, and those of ids that have a folder, such as patient_1/left."""
    named = {image_id for image_id in ids if "/" in image_id}
    every = [(top, inner) for top in folders for inner in (top, *folders_inside(top))] if named else []
    found = find_files(folders)
    for top, path in ((top, path) for top, inner in every for path in list_files([inner]).images):
        for image_id in {str(path.relative_to(start).with_suffix("")) for start in (top, top.parent)} & named:
            found[image_id] = [*dict.fromkeys([*found.get(image_id, []), str(path)])]
    return found


def _near_misses(missing: Sequence[str], folders: Sequence[Path]) -> str:
    """Say which files come close to the missing images' names: spelt otherwise, another type, a folder deeper."""

    def plain(name: str) -> str:
        return "".join(filter(str.isalnum, name.lower())).lstrip("0")

    names = sorted(name for folder in folders for name in os.listdir(folder))
    by_spelling = {plain(os.path.splitext(name)[0]): name for name in names if not name.startswith(".")}
    close = {image_id: by_spelling[plain(image_id)] for image_id in missing if plain(image_id) in by_spelling}
    cased = [f"{image_id} and {name}" for image_id, name in close.items() if os.path.splitext(name)[0] != image_id]
    typed = [name for image_id, name in close.items() if os.path.splitext(name)[0] == image_id]
    deeper = [copies[0] for copies in _files_inside(folders, missing, beside=()).values()]
    told = []
    if cased:
        told.append(
            f"{len(cased):,} differ from a file's name in case, marks or zeros ({first_five(cased)}): write both alike."
        )
    if typed:
        told.append(f"{len(typed):,} are files of another type ({first_five(typed)}): save them as JPEG or PNG.")
    if deeper:
        told.append(f"{len(deeper):,} lie in a folder inside ({first_five(deeper)}), as masks might: move them.")
    return " ".join(told)


def file_problems(root: Path, files: Mapping[str, Sequence[str]], cache_dir: Path | None = None) -> Iterator[str]:
    """Yield one text for all images with more than one file, and one for all faulty files.

    Args:
        root: Folder that the messages name files from.
        files: The files of each image id.
        cache_dir: As of `match_files`.
    """
    if repeated := [copies for copies in files.values() if len(copies) > 1]:
        names = first_five(" and ".join(relative_names(root, copies)) for copies in repeated)
        yield f"more than one file for {len(repeated):,} images: {names}; keep one of each."
    if faults := file_faults([path for copies in files.values() for path in copies], cache_dir):
        names = first_five(map(": ".join, zip(relative_names(root, faults), faults.values(), strict=True)))
        yield f"{len(faults):,} faulty image files: {names}; download or copy them again."


def relative_names(root: Path, paths: Iterable[str]) -> list[str]:
    """Name files from `root`, those outside it in full."""
    return [str(path.relative_to(root) if path.is_relative_to(root) else path) for path in map(Path, paths)]
