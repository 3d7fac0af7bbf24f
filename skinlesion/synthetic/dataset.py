"""A synthetic HAM10000, with the folders, table and images of the real one, for demonstrations and tests.

Lesions, patients and sources are drawn in the real table's proportions.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from skinlesion.errors import ConfigError, DataError
from skinlesion.files import replacing_folder
from skinlesion.synthetic.images import PAINTED, SOURCES, paint, photograph
from skinlesion.taxonomy import HAM10000
from skinlesion.terminal import track

MARKER = "synthetic.json"  # marks a folder as synthetic and holds its settings
TABLE = "HAM10000_metadata"
PARTS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASKS = "masks"  # of the lesions, black and white, PNG by image id: HAM10000's own are published apart
VERSION = 2  # raise when the same settings would give other files
SMALLEST = 16  # pixels
FIRST_IMAGE = 24306  # ISIC_0024306 is the first image of HAM10000

# Two images make a lesion with siblings. Of the 11 lesions with one image that remain, 28 % are at least 3, and 40 % of
# those at least 1, so that every part of the published split has the diagnosis.
FEWEST = 13

SITES = (
    "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand", "lower extremity", "neck",
    "scalp", "trunk", "upper extremity",
)  # fmt: skip


class Counts(NamedTuple):
    """Counts of one diagnosis in HAM10000, in images unless said otherwise."""

    images: int
    singles: int  # lesions with one image
    age: tuple[float, float]  # mean and standard deviation, years
    women: float  # share of the images whose patient's sex is known
    sources: tuple[int, int, int, int]  # of each of SOURCES
    unproven: tuple[int, int, int, int]  # of each of SOURCES, diagnosed without histopathology
    sites: tuple[int, ...]  # of each of SITES


REAL = {code: Counts(**about["counts"]) for code, about in PAINTED.items()}
TOTAL = sum(counts.images for counts in REAL.values())


@dataclass(frozen=True)
class SyntheticData:
    """Size of a synthetic data set."""

    root: Path
    images: dict[str, int]  # by diagnosis, in class order
    lesions: dict[str, int]  # by diagnosis, in class order
    already_there: bool  # nothing had to be written


def write_synthetic(
    root: Path, *, n: int, image_size: tuple[int, int], seed: int, min_per_class: int = FEWEST
) -> SyntheticData:
    """Write a synthetic HAM10000 into `root`, whole or not at all; do nothing if it is already there.

    The same settings give the same files. Images of one lesion show it in another framing and light.

    Args:
        root: The folder to create; it may exist if it is empty.
        n: Number of images, at least 7 times `min_per_class`.
        image_size: Width and height of the images in pixels, at least 16 each; HAM10000's own are (600, 450).
        seed: Seed of all randomness, 0 or more.
        min_per_class: Least number of images of a diagnosis, at least 13; nearly all are of lesions with one image.

    Raises:
        ConfigError: A setting is out of range.
        DataError: `root` holds anything but a synthetic data set of the same settings.
    """
    root = root.expanduser()
    if min(image_size) < SMALLEST:
        raise ConfigError(f"image_size={list(image_size)}: width and height must be {SMALLEST} or more pixels")
    if seed < 0:
        raise ConfigError(f"seed={seed}: must be 0 or more")
    table = synthetic_table(n, np.random.default_rng([seed, 0]), min_per_class=min_per_class)
    settings = {"n": n, "image_size": list(image_size), "seed": seed, "version": VERSION}
    settings |= {"min_per_class": min_per_class} if min_per_class != FEWEST else {}
    already_there = _is_there(root, settings)
    if not already_there:
        with replacing_folder(root) as folder:
            _write_images(folder, table, image_size=image_size, seed=seed)
            table.to_csv(folder / TABLE, index=False, lineterminator="\n")
            (folder / MARKER).write_text(json.dumps(settings) + "\n", encoding="utf-8")
    images, lesions = (rows["dx"].value_counts() for rows in (table, table.drop_duplicates("lesion_id")))
    return SyntheticData(
        root, {code: int(images[code]) for code in REAL}, {code: int(lesions[code]) for code in REAL}, already_there
    )


def synthetic_table(n: int, rng: np.random.Generator, *, min_per_class: int = FEWEST) -> pd.DataFrame:
    """Draw `n` rows with the columns of HAM10000_metadata, the images of a lesion one below the other.

    Raises:
        ConfigError: `n` or `min_per_class` is too small for every diagnosis to be in every part of a split.
    """
    if min_per_class < FEWEST or n < min_per_class * len(REAL):
        raise ConfigError(
            f"n={n}, min_per_class={min_per_class}: expected {min_per_class * len(REAL)} images or more, and {FEWEST} "
            f"or more of a diagnosis. With fewer than {FEWEST}, a split could not have it in every part."
        )
    counts = {code: max(min_per_class, round(n * REAL[code].images / TOTAL)) for code in REAL}
    counts[str(HAM10000.majority)] += n - sum(counts.values())  # the most frequent diagnosis takes the rest
    lesions = pd.concat(
        [_draw_lesions(code, images, rng, singles=min_per_class - 2) for code, images in counts.items()]
    )
    lesions = _remove_facts(lesions.sample(frac=1, random_state=rng, ignore_index=True), rng)
    lesions.insert(0, "lesion_id", [f"HAM_{number:07d}" for number in rng.permutation(len(lesions))])
    table = lesions.loc[lesions.index.repeat(lesions["size"])].drop(columns="size").reset_index(drop=True)
    table.insert(1, "image_id", [f"ISIC_{FIRST_IMAGE + number:07d}" for number in rng.permutation(n)])
    return table


def _draw_lesions(code: str, images: int, rng: np.random.Generator, *, singles: int) -> pd.DataFrame:
    """Draw lesions of one diagnosis that have `images` images together, at least `singles` with one, one row each."""
    real = REAL[code]
    sizes = [1] * min(max(singles, round(images * real.singles / real.images)), images - 2)
    while rest := images - sum(sizes):  # the real share of lesions with one image, then twos and some threes
        sizes.append(3 if rest == 3 or (rest >= 5 and rng.uniform() < 0.25) else 2)
    source = rng.choice(len(SOURCES), len(sizes), p=np.divide(real.sources, sum(real.sources)))
    unproven = rng.uniform(size=len(sizes)) < np.divide(real.unproven, np.maximum(real.sources, 1))[source]
    followed = (source == [*SOURCES].index("vidir_molemax")) & (code == HAM10000.majority)
    return pd.DataFrame(
        {
            "dx": code,
            "dx_type": np.where(unproven, np.where(followed, "follow_up", "consensus"), "histo"),
            "age": np.clip(np.round(rng.normal(*real.age, len(sizes)) / 5) * 5, 5, 85),
            "sex": np.where(rng.uniform(size=len(sizes)) < real.women, "female", "male"),
            "localization": rng.choice(SITES, len(sizes), p=np.divide(real.sites, sum(real.sites))),
            "dataset": np.asarray([*SOURCES])[source],
            "size": sizes,
        }
    )


def _remove_facts(lesions: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Remove facts from the same share of lesions as in HAM10000, at least one; make some patients infants."""
    lesions = lesions.copy()
    order = pd.Series(rng.permutation(lesions.index))
    infants = order[order.map(lesions["dx"]) == HAM10000.majority]  # no infant has a carcinoma
    changed: set[int] = set()  # no lesion loses more than one fact
    for column, value, images, candidates in (  # images of HAM10000
        ("age", 0.0, 39, infants),
        ("age", np.nan, 57, order),
        ("sex", "unknown", 57, order),
        ("localization", "unknown", 234, order),
    ):
        count = max(1, round(images / TOTAL * len(lesions)))
        chosen = candidates[~candidates.isin(changed)][:count]
        lesions.loc[chosen, column] = value
        changed |= set(chosen)
    return lesions


def _is_there(root: Path, settings: dict[str, object]) -> bool:
    """Tell whether `root` already holds the data set; DataError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = root / MARKER
    if not marker.is_file():
        real = any((root / name).exists() for name in (*PARTS, TABLE, f"{TABLE}.csv"))
        contents = "a HAM10000 that is not synthetic" if real else "files that are not a synthetic HAM10000"
        raise DataError(f"{root} holds {contents}: it is left as it is\nName a folder that does not exist yet.")
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        found = None  # damaged
    if found != settings:
        raise DataError(
            f"{root} holds a synthetic HAM10000 of other settings: {found}, wanted {settings}\n"
            "Name another folder, or delete this one first."
        )
    return True


def _write_images(folder: Path, table: pd.DataFrame, *, image_size: tuple[int, int], seed: int) -> None:
    """Paint every lesion of `table` once and photograph it for each of its images."""
    first_part = set(table["image_id"].sort_values().iloc[: len(table) // 2])
    for part in (*PARTS, MASKS):
        (folder / part).mkdir()
    lesions = table.groupby("lesion_id", sort=True)
    for number, (_, rows) in enumerate(track(lesions, "Painting synthetic lesions", len(lesions))):
        rng = np.random.default_rng([seed, 1, number])  # of its own, so that a lesion does not change the others
        source = rows["dataset"].iloc[0]
        patch = paint(rows["dx"].iloc[0], source, width=max(image_size), rng=rng)
        for image_id in rows["image_id"]:
            taken = photograph(patch, source, image_size=image_size, rng=rng)
            part = PARTS[0] if image_id in first_part else PARTS[1]
            Image.fromarray(taken.image).save(folder / part / f"{image_id}.jpg", quality=92)
            Image.fromarray(taken.lesion).save(folder / MASKS / f"{image_id}.png")
