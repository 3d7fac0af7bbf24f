"""The seven diagnoses of HAM10000: code, name, category and class order.

Tschandl, Rosendahl & Kittler, Scientific Data 5:180161 (2018), doi:10.1038/sdata.2018.161.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Diagnosis:
    """One of the classes that a model tells apart."""

    code: str  # as in the `dx` column of HAM10000_metadata
    name: str  # for people
    category: Literal["malignant", "benign"]  # akiec holds precancers and carcinomas in situ: counted as malignant


DIAGNOSES: tuple[Diagnosis, ...] = (
    Diagnosis("akiec", "actinic keratosis / Bowen's disease", "malignant"),
    Diagnosis("bcc", "basal cell carcinoma", "malignant"),
    Diagnosis("bkl", "benign keratosis", "benign"),
    Diagnosis("df", "dermatofibroma", "benign"),
    Diagnosis("mel", "melanoma", "malignant"),
    Diagnosis("nv", "melanocytic nevus", "benign"),
    Diagnosis("vasc", "vascular lesion", "benign"),
)

CODES: tuple[str, ...] = tuple(diagnosis.code for diagnosis in DIAGNOSES)
"""The class order: position k of every logit and probability vector is CODES[k]."""

CHALLENGE: tuple[str, ...] = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
"""The order of the columns in the CSV files of the ISIC challenges, where codes stand in capitals."""

NEVUS = "nv"
MELANOMA = "mel"
MALIGNANT = "malignant"
TARGETS: tuple[str, ...] = (MELANOMA, MALIGNANT)
"""What is looked for: one diagnosis, or all of the category."""


def members_of(target: str) -> npt.NDArray[np.bool_]:
    """Which diagnoses a target holds: (7,).

    Raises:
        ValueError: The target is neither a code nor "malignant".
    """
    if target != MALIGNANT and target not in CODES:
        raise ValueError(f"target is {target}; expected {MALIGNANT} or one of {', '.join(CODES)}")
    return np.array([target in (each.code, each.category) for each in DIAGNOSES])


def target_score(probabilities: npt.ArrayLike, target: str) -> npt.NDArray[np.float64]:
    """The probability of a target: (N, 7) to (N,)."""
    return np.asarray(np.asarray(probabilities, dtype=np.float64)[:, members_of(target)].sum(axis=1))


def is_target(targets: npt.ArrayLike, target: str) -> npt.NDArray[np.bool_]:
    """Whether class indices are those of a target: (N,) to (N,)."""
    return np.asarray(members_of(target)[np.asarray(targets, dtype=np.int64)])
