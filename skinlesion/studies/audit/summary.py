"""Contents of a data set and its split, what could leak, and how well a diagnosis is predicted without the image."""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skinlesion.metrics.classification import HEADLINE, confusions
from skinlesion.taxonomy import CODES

SOURCES: dict[str, tuple[str, ...]] = {
    "metadata": ("age", "sex", "localization"),
    "dx_type": ("dx_type",),  # how the diagnosis was made: known only once it is made
    "dataset": ("dataset",),  # clinic and camera: unrelated to the patient
}
"""Columns of the checked frame from which a diagnosis is predicted, by name."""

MAJORITY = "majority"  # the baseline: always the most frequent diagnosis of train


def shortcuts(frame: pd.DataFrame, split: pd.DataFrame) -> dict[str, dict[str, float] | None]:
    """Predict the diagnosis from each of `SOURCES` alone, by class-balanced logistic regression.

    Args:
        frame: A checked frame: image_id, diagnosis, age, sex, localization, dx_type, dataset.
        split: image_id and split; fitted on train, measured on val. Test is not used.

    Returns:
        For "majority" and each of `SOURCES` the headline metrics, each in 0..1; None where a table lacks the column.
    """
    part = frame["image_id"].map(dict(zip(split["image_id"], split["split"], strict=True)))
    train, val = frame[part == "train"], frame[part == "val"]
    majority = train["diagnosis"].mode().iloc[0]
    scores: dict[str, dict[str, float] | None] = {MAJORITY: _headline(val, np.full(len(val), majority))}
    for name, columns in SOURCES.items():
        absent = all((train[column] == "").all() for column in columns)
        scores[name] = (
            None if absent else _headline(val, np.asarray(CODES)[predict_without_image(train, val, columns).argmax(1)])
        )
    return scores


def predict_without_image(
    train: pd.DataFrame, val: pd.DataFrame, columns: tuple[str, ...], *, class_weight: str | None = "balanced"
) -> np.ndarray:
    """Predict the diagnoses of `val` from `columns` by logistic regression.

    Returns:
        (N, K) probabilities in the order of `CODES`, 0 for a diagnosis that `train` lacks.
    """
    numbers = [column for column in columns if column == "age"]
    words = [column for column in columns if column != "age"]
    scaled = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    facts = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), words), (scaled, numbers))
    regression = LogisticRegression(class_weight=class_weight, max_iter=2000)
    model = make_pipeline(facts, regression).fit(train, train["diagnosis"])
    found = np.zeros((len(val), len(CODES)))
    found[:, [CODES.index(code) for code in model.classes_]] = model.predict_proba(val)
    return found


def _headline(val: pd.DataFrame, predicted: np.ndarray) -> dict[str, float]:
    actual, guess = (np.asarray([CODES.index(code) for code in codes]) for codes in (val["diagnosis"], predicted))
    confusion = confusions(actual, guess, classes=len(CODES))
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}


FACTS = ("age", "sex", "localization", "dx_type", "dataset")
"""Columns whose values may be missing."""


class Counts(TypedDict):
    """Size of a data set or of one diagnosis."""

    images: int
    lesions: int


class SplitCounts(Counts):
    """Size of one part of a split."""

    diagnoses: dict[str, int]  # images of each diagnosis


class PairCounts(TypedDict):
    """Numbers of pairs of equal or similar images."""

    pairs: int
    same_lesion: int
    other_lesion: int
    other_lesion_within_split: int
    across_splits: int


class Duplicates(TypedDict):
    """Pairs of equal images, pairs of similar images, and the pairs among both that may leak."""

    exact: PairCounts
    near: PairCounts
    suspicious: list[dict[str, Any]]  # rows of `leaking_pairs`


class DatasetSummary(Counts):
    """Summary of a data set and its split."""

    diagnoses: dict[str, Counts]
    images_per_lesion: dict[str, int]  # lesions by number of images
    missing: dict[str, int]  # images that lack a fact
    age_zero: int  # images whose patient's age is a real 0
    splits: dict[str, SplitCounts]  # by part; left_out: images in none
    torn_lesions: list[str]  # ids of lesions in more than one part: a sound split has none
    duplicates: Duplicates
    shortcuts: Mapping[str, Mapping[str, float] | None]


def summarize(
    frame: pd.DataFrame,
    split: pd.DataFrame,
    *,
    pairs: pd.DataFrame,
    shortcuts: Mapping[str, Mapping[str, float] | None],
) -> DatasetSummary:
    """Summarize a data set, its split and what could leak.

    Args:
        frame: A checked frame: one row per image.
        split: image_id, lesion_id, split.
        pairs: The exact and near duplicates, as from `duplicate_pairs`.
        shortcuts: Scores of predictions without the image, as from `shortcuts`.
    """
    split_of = dict(zip(split["image_id"], split["split"], strict=True))
    part = frame["image_id"].map(split_of).fillna("left_out")
    sizes = frame["lesion_id"].value_counts().value_counts().sort_index()
    by_diagnosis = frame.groupby("diagnosis")
    blank = {fact: frame[fact].isna() | frame[fact].isin(("", "unknown")) for fact in FACTS}
    leaking = leaking_pairs(pairs).to_dict(orient="records")
    return {
        **_count(frame),
        "diagnoses": {code: _count(by_diagnosis.get_group(code)) for code in CODES if code in by_diagnosis.groups},
        "images_per_lesion": {str(images): int(lesions) for images, lesions in sizes.items()},
        "missing": {fact: int(rows.sum()) for fact, rows in blank.items()},
        "age_zero": int((frame["age"] == 0).sum()),
        "splits": {str(name): _count_split(rows) for name, rows in frame.groupby(part, sort=True)},
        "torn_lesions": lesions_in_several_splits(split),
        "duplicates": {
            "exact": _count_pairs(pairs[pairs["exact"]]),
            "near": _count_pairs(pairs[~pairs["exact"]]),
            "suspicious": [{str(key): value for key, value in record.items()} for record in leaking],
        },
        "shortcuts": shortcuts,
    }


def lesions_in_several_splits(split: pd.DataFrame) -> list[str]:
    """Return the sorted ids of lesions whose images are in more than one split; a sound split has none."""
    splits = split.groupby("lesion_id")["split"].nunique()
    return sorted(str(lesion) for lesion in splits.index[splits > 1])


def leaking_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of equal or similar images that are of two lesions, or in two splits."""
    return pairs[~pairs["same_lesion"] | _across(pairs)].reset_index(drop=True)


def _count(rows: pd.DataFrame) -> Counts:
    return {"images": len(rows), "lesions": int(rows["lesion_id"].nunique())}


def _count_split(rows: pd.DataFrame) -> SplitCounts:
    images = rows["diagnosis"].value_counts()
    return {**_count(rows), "diagnoses": {code: int(images.get(code, 0)) for code in CODES}}


def _count_pairs(pairs: pd.DataFrame) -> PairCounts:
    across, siblings = _across(pairs), pairs["same_lesion"]
    within = (pairs["split_a"] == pairs["split_b"]) & (pairs["split_a"] != "")
    return {
        "pairs": len(pairs),
        "same_lesion": int(siblings.sum()),
        "other_lesion": int((~siblings).sum()),
        "other_lesion_within_split": int((~siblings & within).sum()),
        "across_splits": int(across.sum()),
    }


def _across(pairs: pd.DataFrame) -> "pd.Series[bool]":
    """Tell whether both images are in a split, and not in the same one."""
    return (pairs["split_a"] != pairs["split_b"]) & (pairs["split_a"] != "") & (pairs["split_b"] != "")
