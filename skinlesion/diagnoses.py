"""The seven diagnoses of HAM10000: code, name, category and class order.

Tschandl, Rosendahl & Kittler, Scientific Data 5:180161 (2018), doi:10.1038/sdata.2018.161.
"""

from dataclasses import dataclass
from typing import Literal


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
