"""Facts about patients that are missing, belong to other patients, or contradict the diagnosis."""

from typing import Any

import numpy as np
import pandas as pd

from skinlesion.data.metadata import FACTS, UNKNOWN
from skinlesion.taxonomy import DIAGNOSES

_CATEGORY = {diagnosis.code: diagnosis.category for diagnosis in DIAGNOSES}
_MISSING: dict[str, Any] = {"age": np.nan, "sex": UNKNOWN, "localization": UNKNOWN}


def altered_facts(frame: pd.DataFrame, train: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """The facts of the same images, altered in several ways.

    Args:
        frame: The checked frame of the images, N rows.
        train: That of training images, from whose patients contradictory facts are taken.
        seed: Of what is drawn.

    Returns:
        By name, N rows with the columns of `FACTS`: `no_age`, `no_sex`, `no_localization`; `nothing_known`;
        `permuted`, each image with another one's facts; `contradictory`, each image with the facts of a training
        image of the other category: malignant for benign, benign for malignant. The last is left out where the
        training images are all of one category.
    """
    rng = np.random.default_rng(seed)
    facts = frame[list(FACTS)].reset_index(drop=True)
    altered = {f"no_{fact}": facts.assign(**{fact: _MISSING[fact]}) for fact in FACTS}
    altered["nothing_known"] = facts.assign(**_MISSING)
    altered["permuted"] = facts.iloc[_moved(len(facts), rng)].reset_index(drop=True)
    category, donors = (each["diagnosis"].map(_CATEGORY).to_numpy() for each in (frame, train))
    pools = {one: np.flatnonzero(donors != one) for one in np.unique(category)}
    if all(len(pool) for pool in pools.values()):
        taken = [int(rng.choice(pools[one])) for one in category]
        altered["contradictory"] = train[list(FACTS)].iloc[taken].reset_index(drop=True)
    return altered


def _moved(count: int, rng: np.random.Generator) -> np.ndarray:
    """An order of `count` places in which none stays where it was: a random cycle (Sattolo, 1986)."""
    cycle = rng.permutation(count)
    moved = np.empty(count, dtype=np.int64)
    moved[cycle] = np.roll(cycle, 1)
    return moved
