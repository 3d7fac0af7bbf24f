"""The folders of the GPU machine: what was packed, unpacked for use; work in progress; results."""

import csv
import os
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_TOY_LESIONS = 5  # of each diagnosis and fold


@dataclass(frozen=True)
class Place:
    """Where a step finds what was packed, and where it writes.

    Args:
        packed: Folder of trip1 and, for some uses, trip2.
        work: Folder of what is unpacked and of unfinished work.
        out: Folder of the archives of results.
        toy: Whether this is a rehearsal.
    """

    packed: Path
    work: Path
    out: Path
    toy: bool = False

    def absolute(self) -> "Place":
        """The same with absolute paths."""
        return Place(self.packed.absolute(), self.work.absolute(), self.out.absolute(), self.toy)

    @property
    def data(self) -> Path:
        """Folder of HAM10000, or of the part of it that a rehearsal takes."""
        return self.work / ("toy" if self.toy else "ham10000")

    @property
    def folds(self) -> Path:
        """The public folds of the data."""
        return self.data / "folds.csv"

    def weights(self, backbone: str) -> Path:
        """The packed weights of a timm network."""
        trips = (self.packed / trip / "weights" / f"{backbone}.safetensors" for trip in ("trip1", "trip2"))
        found = [path for path in trips if path.exists()]
        if not found:
            raise SystemExit(f"{backbone}.safetensors: in neither trip of {self.packed}; copy both trips")
        return found[0]


def prepare(place: Place) -> dict[str, str]:
    """Unpack once what is not unpacked yet; returns the environment in which the package runs.

    Raises:
        SystemExit: Nothing was packed, or the wheels do not fit this Python.
    """
    if not (place.packed / "trip1").is_dir():
        raise SystemExit(
            f"{place.packed / 'trip1'}: not there; run `make gpu-pack`, copy the folder, give it as --folder"
        )
    site = place.work / "site"
    _once(site, lambda beside: _install(sorted(place.packed.glob("trip*/wheels/*.whl")), beside))
    _once(place.work / "ham10000", lambda beside: _unpack(place.packed / "trip1", beside))
    if place.toy:
        _once(place.data, lambda beside: toy_data(place.work / "ham10000", beside))
    return {
        "PYTHONPATH": os.pathsep.join((str(site), str(ROOT))),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
    }


def toy_data(source: Path, target: Path) -> None:
    """A few lesions of each diagnosis and fold, with all their images, laid out as the whole."""
    rows, folds = _rows(source / "HAM10000_metadata"), _rows(source / "folds.csv")
    fold_of = {row["image_id"]: row["fold"] for row in folds}
    lesions: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        found = lesions[row["dx"], fold_of[row["image_id"]]]
        if row["lesion_id"] not in found and len(found) < _TOY_LESIONS:
            found.append(row["lesion_id"])
    chosen = {lesion for found in lesions.values() for lesion in found}
    _write_rows([row for row in rows if row["lesion_id"] in chosen], target / "HAM10000_metadata")
    _write_rows([row for row in folds if row["lesion_id"] in chosen], target / "folds.csv")
    images = {row["image_id"] for row in rows if row["lesion_id"] in chosen}
    for path in source.glob("HAM10000_images_part_*/*.jpg"):
        (target / path.parent.name).mkdir(exist_ok=True)
        if path.stem in images:
            os.link(path, target / path.parent.name / path.name)


def _once(folder: Path, make: Callable[[Path], None]) -> None:
    if folder.exists():
        return
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    make(beside)
    beside.rename(folder)


def _install(wheels: list[Path], folder: Path) -> None:
    options = ("--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(folder))
    command = [sys.executable, "-m", "pip", "install", *options, *map(str, wheels)]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(
            f"the packed wheels do not fit this Python ({sys.version.split()[0]}):\n{answer.stderr[-2000:]}"
        )


def _unpack(trip: Path, folder: Path) -> None:
    with tarfile.open(trip / "ham10000.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    shutil.copyfile(trip / "folds.csv", folder / "folds.csv")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_rows(rows: list[dict[str, str]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
