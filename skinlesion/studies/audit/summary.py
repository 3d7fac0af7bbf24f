"""What is in a data set, as one summary ready for JSON."""

from typing import Any

import pandas as pd

from skinlesion.taxonomy import CODES

FACTS = ("age", "sex", "localization", "dx_type", "dataset")
"""Columns whose values may be missing."""


def summary(
    frame: pd.DataFrame,
    split: pd.DataFrame,
    *,
    pairs: pd.DataFrame,
    shortcuts: dict[str, dict[str, float] | None],
) -> dict[str, Any]:
    """Summarise a data set, its split and what is suspicious about them.

    Args:
        frame: A checked frame: one row an image.
        split: image_id, lesion_id, split.
        pairs: The exact and near duplicates, as from `duplicate_pairs`.
        shortcuts: How far the diagnosis is told without the image, as from `shortcuts`.

    Returns:
        `images`, `lesions`, `diagnoses` (images and lesions of each), `images_per_lesion` (lesions by number of
        images), `missing` (images that lack a fact), `age_zero` (images whose patient's age is a real 0),
        `splits` (images, lesions and images of each diagnosis; `left_out` are in none), `torn_lesions` (ids of
        lesions in more than one split: none may be), `duplicates` and `shortcuts`.
    """
    split_of = dict(zip(split["image_id"], split["split"], strict=True))
    part = frame["image_id"].map(split_of).fillna("left_out")
    sizes = frame["lesion_id"].value_counts().value_counts().sort_index()
    by_diagnosis = frame.groupby("diagnosis")
    return {
        **_counts(frame),
        "diagnoses": {code: _counts(by_diagnosis.get_group(code)) for code in CODES if code in by_diagnosis.groups},
        "images_per_lesion": {str(images): int(lesions) for images, lesions in sizes.items()},
        "missing": {fact: int(_missing(frame[fact]).sum()) for fact in FACTS},
        "age_zero": int((frame["age"] == 0).sum()),
        "splits": {str(name): _split_counts(rows) for name, rows in frame.groupby(part, sort=True)},
        "torn_lesions": torn_lesions(split),
        "duplicates": _duplicates(pairs),
        "shortcuts": shortcuts,
    }


def torn_lesions(split: pd.DataFrame) -> list[str]:
    """The ids of lesions whose images stand in more than one split, sorted; none may be."""
    splits = split.groupby("lesion_id")["split"].nunique()
    return sorted(str(lesion) for lesion in splits.index[splits > 1])


def suspicious(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs of alike images that are not one lesion, or that stand in two splits."""
    return pairs[~pairs["same_lesion"] | _across(pairs)].reset_index(drop=True)


def _counts(rows: pd.DataFrame) -> dict[str, Any]:
    return {"images": len(rows), "lesions": int(rows["lesion_id"].nunique())}


def _split_counts(rows: pd.DataFrame) -> dict[str, Any]:
    images = rows["diagnosis"].value_counts()
    return {**_counts(rows), "diagnoses": {code: int(images.get(code, 0)) for code in CODES}}


def _missing(values: "pd.Series[Any]") -> "pd.Series[bool]":
    return values.isna() | values.isin(("", "unknown"))


def _duplicates(pairs: pd.DataFrame) -> dict[str, Any]:
    """Counts of exact and of other near duplicates, and the suspicious pairs themselves."""
    records = suspicious(pairs).to_dict(orient="records")
    return {
        "exact": _pair_counts(pairs[pairs["exact"]]),
        "near": _pair_counts(pairs[~pairs["exact"]]),
        "suspicious": [{str(key): value for key, value in record.items()} for record in records],
    }


def _pair_counts(pairs: pd.DataFrame) -> dict[str, int]:
    across, siblings = _across(pairs), pairs["same_lesion"]
    return {
        "pairs": len(pairs),
        "same_lesion": int(siblings.sum()),
        "other_lesion": int((~siblings).sum()),
        "other_lesion_within_split": int((~siblings & _within(pairs)).sum()),
        "across_splits": int(across.sum()),
    }


def _across(pairs: pd.DataFrame) -> "pd.Series[bool]":
    """Whether both images are in a split, and not in the same one."""
    return (pairs["split_a"] != pairs["split_b"]) & (pairs["split_a"] != "") & (pairs["split_b"] != "")


def _within(pairs: pd.DataFrame) -> "pd.Series[bool]":
    return (pairs["split_a"] == pairs["split_b"]) & (pairs["split_a"] != "")
