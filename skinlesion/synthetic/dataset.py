"""A synthetic HAM10000, with the folders, table and images of the real one, for demonstrations and tests."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from skinlesion.errors import ConfigError, DataError
from skinlesion.progress import track
from skinlesion.synthetic.images import paint, photograph
from skinlesion.synthetic.table import synthetic_table
from skinlesion.taxonomy import CODES

MARKER = "synthetic.json"  # its presence says that a folder is synthetic, its content how it was made
TABLE = "HAM10000_metadata"
PARTS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASKS = "masks"  # of the lesions, black and white, PNG by image id: HAM10000's own are published apart
VERSION = 2  # raise when the same settings would give other files
SMALLEST = 16  # pixels


@dataclass(frozen=True)
class SyntheticData:
    """What a synthetic data set holds."""

    root: Path
    images: dict[str, int]  # by diagnosis, in class order
    lesions: dict[str, int]  # likewise
    already_there: bool  # True if nothing had to be written


def write_synthetic(root: Path, *, n: int, image_size: tuple[int, int], seed: int) -> SyntheticData:
    """Write a synthetic HAM10000 into `root`, whole or not at all; do nothing if it is already there.

    The same settings give the same files. Images of one lesion show it in another framing and light.

    Args:
        root: The folder to create; it may exist if it is empty.
        n: Number of images, at least 91.
        image_size: Width and height of the images in pixels, at least 16 each; HAM10000's own are (600, 450).
        seed: Seed of all randomness, 0 or more.

    Raises:
        ConfigError: If a setting is out of range.
        DataError: If `root` holds anything but a synthetic data set of the same settings.
    """
    root = root.expanduser()
    _check(image_size, seed)
    table = synthetic_table(n, np.random.default_rng([seed, 0]))
    settings = {"n": n, "image_size": list(image_size), "seed": seed, "version": VERSION}
    already_there = _is_there(root, settings)
    if not already_there:
        with _new_folder(root) as folder:
            _write_images(folder, table, image_size=image_size, seed=seed)
            table.to_csv(folder / TABLE, index=False, lineterminator="\n")
            (folder / MARKER).write_text(json.dumps(settings) + "\n", encoding="utf-8")
    lesions = table.drop_duplicates("lesion_id")
    return SyntheticData(root, _by_diagnosis(table), _by_diagnosis(lesions), already_there)


def _check(image_size: tuple[int, int], seed: int) -> None:
    """Raise ConfigError for settings that no image could be painted with."""
    if min(image_size) < SMALLEST:
        raise ConfigError(f"image_size={list(image_size)}: width and height must be {SMALLEST} or more pixels")
    if seed < 0:
        raise ConfigError(f"seed={seed}: must be 0 or more")


def _is_there(root: Path, settings: dict[str, object]) -> bool:
    """Whether `root` already holds the wanted data set; DataError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = root / MARKER
    if marker.is_file():
        found = _settings_in(marker)
        if found == settings:
            return True
        raise DataError(
            f"{root} holds a synthetic HAM10000 of other settings: {found}, wanted {settings}\n"
            "Name another folder, or delete this one first."
        )
    real = any((root / name).exists() for name in (*PARTS, TABLE, f"{TABLE}.csv"))
    held = "a HAM10000 that is not synthetic" if real else "files that are not a synthetic HAM10000"
    raise DataError(f"{root} holds {held}: it is left as it is\nName a folder that does not exist yet.")


def _settings_in(marker: Path) -> object:
    """What a marker file says, None if it is damaged."""
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        return None


@contextmanager
def _new_folder(root: Path) -> Iterator[Path]:
    """Yield a folder beside `root` to fill; rename it to `root` if the block succeeds, else delete it."""
    root.parent.mkdir(parents=True, exist_ok=True)
    beside = root.absolute().with_name(f".{root.absolute().name}.{os.getpid()}")
    beside.mkdir()
    try:
        yield beside
        if root.exists():
            root.rmdir()  # empty: _is_there has seen to it; Windows cannot rename onto a folder
        beside.rename(root)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_images(folder: Path, table: pd.DataFrame, *, image_size: tuple[int, int], seed: int) -> None:
    """Paint every lesion of `table` once and photograph it for each of its images."""
    first_part = set(table["image_id"].sort_values().iloc[: len(table) // 2])
    for part in (*PARTS, MASKS):
        (folder / part).mkdir()
    lesions = table.groupby("lesion_id", sort=True)
    for number, (_, rows) in enumerate(track(lesions, "Painting synthetic lesions", len(lesions))):
        rng = np.random.default_rng([seed, 1, number])  # of its own: a lesion's look leaves the others' alone
        patch = paint(rows["dx"].iloc[0], rows["dataset"].iloc[0], width=max(image_size), rng=rng)
        for image_id in rows["image_id"]:
            taken = photograph(patch, rows["dataset"].iloc[0], image_size=image_size, rng=rng)
            part = PARTS[0] if image_id in first_part else PARTS[1]
            Image.fromarray(taken.image).save(folder / part / f"{image_id}.jpg", quality=92)
            Image.fromarray(taken.lesion).save(folder / MASKS / f"{image_id}.png")


def _by_diagnosis(rows: pd.DataFrame) -> dict[str, int]:
    """Number of rows of each diagnosis, in class order."""
    counts = rows["dx"].value_counts()
    return {code: int(counts.get(code, 0)) for code in CODES}
