"""The table of a synthetic HAM10000: lesions, patients and sources in the real table's proportions."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from skinlesion.errors import ConfigError
from skinlesion.taxonomy import CODES, NEVUS

FIRST_IMAGE = 24306  # ISIC_0024306 is the first image of HAM10000

# Of 11 lesions with one image, 28 % are at least 3, and 40 % of those at least 1, so that every part of the
# published split has the diagnosis. Two images more make a lesion with siblings.
SINGLES = 11
FEWEST = SINGLES + 2

SOURCES = ("rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias")
SITES = (
    "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand", "lower extremity", "neck",
    "scalp", "trunk", "upper extremity",
)  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """What HAM10000 holds of one diagnosis, in images unless said otherwise."""

    images: int
    singles: int  # lesions with one image
    age: tuple[float, float]  # mean and standard deviation, years
    women: float  # share of the images whose patient's sex is known
    sources: tuple[int, int, int, int]  # as SOURCES
    unproven: tuple[int, int, int, int]  # of those, diagnosed without histopathology; as SOURCES
    sites: tuple[int, ...]  # as SITES


REAL: dict[str, Counts] = {
    "akiec": Counts(327, 151, (66.5, 11.5), 0.32, (295, 32, 0, 0), (0, 0, 0, 0),
                    (5, 0, 29, 12, 3, 113, 0, 0, 13, 65, 10, 14, 1, 62)),
    "bcc": Counts(514, 175, (66.8, 13.7), 0.38, (296, 211, 2, 5), (0, 0, 0, 0),
                  (18, 0, 186, 47, 0, 101, 4, 0, 2, 58, 14, 19, 11, 49)),
    "bkl": Counts(1099, 440, (64.3, 14.1), 0.42, (490, 475, 124, 10), (0, 215, 118, 0),
                  (42, 0, 202, 74, 6, 319, 1, 2, 14, 174, 31, 34, 73, 104)),
    "df": Counts(115, 39, (53.0, 13.6), 0.45, (30, 51, 30, 4), (0, 30, 30, 0),
                 (4, 0, 2, 0, 0, 0, 2, 1, 0, 82, 0, 0, 0, 24)),
    "mel": Counts(1113, 230, (60.7, 15.2), 0.38, (342, 680, 24, 67), (0, 0, 0, 0),
                  (66, 0, 324, 68, 17, 104, 28, 0, 1, 192, 29, 14, 47, 213)),
    "nv": Counts(6705, 4415, (46.5, 15.2), 0.49, (803, 1832, 3720, 350), (0, 503, 3704, 0),
                 (860, 7, 1427, 200, 30, 100, 284, 45, 55, 1479, 81, 45, 1241, 655)),
    "vasc": Counts(142, 64, (51.4, 21.6), 0.51, (3, 82, 54, 3), (0, 21, 54, 0),
                   (27, 0, 22, 6, 0, 8, 0, 0, 5, 27, 2, 2, 31, 11)),
}  # fmt: skip
TOTAL = sum(counts.images for counts in REAL.values())

# Of HAM10000's 10,015 images, how many lack a fact about the patient, or belong to an infant.
NO_AGE, AGE_ZERO, NO_SEX, NO_SITE = 57, 39, 57, 234


def synthetic_table(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw `n` rows with the columns of HAM10000_metadata, the images of a lesion one below the other.

    Raises:
        ConfigError: If `n` is too small for every diagnosis to be in every part of a split.
    """
    if n < FEWEST * len(CODES):
        raise ConfigError(
            f"n={n}: expected {FEWEST * len(CODES)} images or more. With fewer than {FEWEST} of a diagnosis, "
            "a split could not have it in every part."
        )
    lesions = pd.concat([_lesions(code, count, rng) for code, count in _images_per_diagnosis(n).items()])
    lesions = lesions.sample(frac=1, random_state=rng, ignore_index=True)
    lesions = _with_gaps(lesions, rng)
    lesions.insert(0, "lesion_id", [f"HAM_{number:07d}" for number in rng.permutation(len(lesions))])
    table = lesions.loc[lesions.index.repeat(lesions["size"])].drop(columns="size").reset_index(drop=True)
    table.insert(1, "image_id", [f"ISIC_{FIRST_IMAGE + number:07d}" for number in rng.permutation(n)])
    return table


def _images_per_diagnosis(n: int) -> dict[str, int]:
    """HAM10000's proportions, but FEWEST of each diagnosis at least; the most frequent one takes the rest."""
    counts = {code: max(FEWEST, round(n * REAL[code].images / TOTAL)) for code in CODES}
    largest = max(CODES, key=lambda code: REAL[code].images)
    counts[largest] += n - sum(counts.values())
    return counts


def _lesions(code: str, images: int, rng: np.random.Generator) -> pd.DataFrame:
    """Lesions of one diagnosis that have `images` images together, one row each."""
    real = REAL[code]
    sizes = _sizes(images, real, rng)
    source = rng.choice(len(SOURCES), len(sizes), p=np.divide(real.sources, sum(real.sources)))
    unproven = rng.uniform(size=len(sizes)) < np.divide(real.unproven, np.maximum(real.sources, 1))[source]
    followed = (source == SOURCES.index("vidir_molemax")) & (code == NEVUS)
    return pd.DataFrame(
        {
            "dx": code,
            "dx_type": np.where(unproven, np.where(followed, "follow_up", "consensus"), "histo"),
            "age": np.clip(np.round(rng.normal(*real.age, len(sizes)) / 5) * 5, 5, 85),
            "sex": np.where(rng.uniform(size=len(sizes)) < real.women, "female", "male"),
            "localization": rng.choice(SITES, len(sizes), p=np.divide(real.sites, sum(real.sites))),
            "dataset": np.asarray(SOURCES)[source],
            "size": sizes,
        }
    )


def _sizes(images: int, real: Counts, rng: np.random.Generator) -> list[int]:
    """How many images each lesion has: the real share of lesions with one, then twos and some threes."""
    singles = min(max(SINGLES, round(images * real.singles / real.images)), images - 2)
    sizes = [1] * singles
    while rest := images - sum(sizes):
        sizes.append(3 if rest == 3 or (rest >= 5 and rng.uniform() < 0.25) else 2)
    return sizes


def _with_gaps(lesions: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Take facts away from as large a share of the lesions as in HAM10000, one at least; let some be infants'."""
    lesions = lesions.copy()
    order = pd.Series(rng.permutation(lesions.index))
    infants = order[order.map(lesions["dx"]) == NEVUS]  # no infant has a carcinoma
    gone: set[int] = set()
    for column, value, real, candidates in (
        ("age", 0.0, AGE_ZERO, infants),
        ("age", np.nan, NO_AGE, order),
        ("sex", "unknown", NO_SEX, order),
        ("localization", "unknown", NO_SITE, order),
    ):
        count = max(1, round(real / TOTAL * len(lesions)))
        chosen = candidates[~candidates.isin(gone)][:count]
        lesions.loc[chosen, column] = value
        gone |= set(chosen)  # no lesion loses more than one fact
    return lesions
