"""Contents of a data set and its split, what could leak, and how well a diagnosis is predicted without the image."""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from skinlesion.data.columns import further_facts
from skinlesion.data.groups import describe_groups
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.table_columns import groups_of_frame
from skinlesion.metrics.baselines import BASELINES, cross_fitted, predict_without_image
from skinlesion.metrics.bootstrap import JointStatistic, bootstrap
from skinlesion.metrics.classification import HEADLINE, confusions
from skinlesion.metrics.estimate import BootstrapConfig, Estimates
from skinlesion.metrics.summary import HISTOLOGY, category_auroc
from skinlesion.taxonomy import HAM10000, Taxonomy

SOURCES: dict[str, tuple[str, ...]] = {
    "metadata": BASELINES["metadata"],
    "dx_type": ("dx_type",),  # how the diagnosis was made: known only once it is made
    "dataset": BASELINES["camera"],
}
"""Columns of the checked frame from which a diagnosis is predicted, by name."""

MAJORITY = "majority"  # the baseline: always the most frequent diagnosis of train
FOLDS = 5  # of whole lesions, to rank the targets
ADULT = 18  # years
FEW_CHILDREN = 0.01  # share of images of children below which a diagnosis counts as one of adults


def shortcuts(
    frame: pd.DataFrame, split: pd.DataFrame, *, taxonomy: Taxonomy = HAM10000
) -> dict[str, dict[str, float] | None]:
    """Predict the diagnosis from each of `SOURCES` alone, by class-balanced logistic regression.

    Args:
        frame: A checked frame: image_id, diagnosis, age, sex, localization, dx_type, dataset.
        split: image_id and split; fitted on train, measured on val. Test is not used.
        taxonomy: The diagnoses.

    Returns:
        For "majority" and each of `SOURCES` the headline metrics, each in 0..1; None where a table lacks the column.
    """
    part = frame["image_id"].map(dict(zip(split["image_id"], split["split"], strict=True)))
    train, val = frame[part == "train"], frame[part == "val"]
    majority = train["diagnosis"].mode().iloc[0]
    scores: dict[str, dict[str, float] | None] = {MAJORITY: _headline(val, np.full(len(val), majority), taxonomy)}
    for name, columns in _sources(frame).items():
        scores[name] = None
        if not all((train[column] == "").all() for column in columns):
            values = predict_without_image(train, val, columns, class_weight="balanced", taxonomy=taxonomy)
            scores[name] = _headline(val, np.asarray(taxonomy.codes)[values.argmax(1)], taxonomy)
    return scores


def binary_shortcuts(
    frame: pd.DataFrame, split: pd.DataFrame, config: BootstrapConfig, *, taxonomy: Taxonomy = HAM10000
) -> dict[str, dict[str, Estimates] | None]:
    """Rank each target of the taxonomy, such as malignant, against the rest by each of `SOURCES` alone.

    Logistic regression, cross-validated over `FOLDS` folds of whole lesions or patients with equally many of each
    diagnosis: where folds differ in these, pooled predictions rank below chance (Parker, Günter & Bedo, BMC
    Bioinformatics 8:326, 2007, doi:10.1186/1471-2105-8-326). Lesions of the test part are left out.

    Args:
        frame: As of `shortcuts`, with lesion_id.
        split: image_id, lesion_id and split.
        config: Settings of the intervals, over lesions.
        taxonomy: The diagnoses and the targets.

    Returns:
        For each source the AUROC by target among `all` images, and among those with `histology` where there are any;
        None where a table lacks the columns.
    """
    rows = frame[~frame["lesion_id"].isin(split.loc[split["split"] == "test", "lesion_id"])]
    rows = rows if "group_id" in rows else rows.assign(group_id=rows["lesion_id"])
    shuffled = rows.drop_duplicates("group_id").sample(frac=1, random_state=config.seed)
    groups = shuffled.sort_values("diagnosis", kind="stable")["group_id"].tolist()
    fold_of = dict(zip(groups, np.arange(len(groups)) % FOLDS, strict=True))
    folds = rows["group_id"].map(fold_of).to_numpy(dtype=np.int64)
    confirmed = (rows["dx_type"] == HISTOLOGY).to_numpy()
    strata = {"all": np.ones_like(confirmed), **({"histology": confirmed} if confirmed.any() else {})}

    def measured(columns: tuple[str, ...]) -> dict[str, Estimates] | None:
        if all((rows[column] == "").all() for column in columns):
            return None
        found = Predictions.build(
            rows["image_id"].tolist(),
            rows["lesion_id"].tolist(),
            probabilities=cross_fitted(rows, folds, columns, taxonomy=taxonomy),
            actual=rows["diagnosis"].tolist(),
            group_id=groups_of_frame(rows),
            taxonomy=taxonomy,
        )
        return {name: _areas(found.select(kept), config) for name, kept in strata.items()}

    return {name: measured(columns) for name, columns in _sources(frame).items()}


def _sources(frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """`SOURCES` with all facts of a frame among the metadata."""
    return {**SOURCES, "metadata": (*SOURCES["metadata"], *further_facts(frame))}


def _areas(predictions: Predictions, config: BootstrapConfig) -> Estimates:
    targets = predictions.taxonomy.targets
    if not targets:
        return {}
    areas = JointStatistic(tuple(category_auroc(predictions, target) for target in targets))
    found = bootstrap(areas, config, lesions=predictions.groups)
    return {target: found[f"auroc_{target}"] for target in targets}


def _headline(val: pd.DataFrame, predicted: np.ndarray, taxonomy: Taxonomy) -> dict[str, float]:
    actual, guess = (taxonomy.indices(list(codes)) for codes in (val["diagnosis"], predicted))
    confusion = confusions(actual, guess, classes=len(taxonomy))
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}


FACTS = ("age", "sex", "localization", "dx_type", "dataset")
"""Columns whose values may be missing, beside further facts."""


class Counts(TypedDict):
    """Size of a data set or of one diagnosis."""

    images: int
    lesions: int


class SplitCounts(Counts):
    """Size of one part of a split."""

    diagnoses: dict[str, int]  # images of each diagnosis


class DatasetSummary(Counts):
    """Summary of a data set and its split."""

    diagnoses: dict[str, Counts]
    images_per_lesion: dict[str, int]  # lesions by number of images
    missing: dict[str, int]  # images that lack a fact
    age_zero: int  # images whose patient's age is a real 0
    implausible_ages: list[dict[str, Any]]  # rows of `implausible_ages`
    splits: dict[str, SplitCounts]  # by part; left_out: images in none
    kept_together: str  # by what splits and intervals keep images together, with counts
    torn_lesions: list[str]  # ids of lesions in more than one part: a sound split has none
    duplicates: dict[str, Any]  # counts of pairs of equal (`exact`) and similar (`near`) images; `leaking_pairs`
    shortcuts: Mapping[str, Mapping[str, float] | None]


def summarize(
    frame: pd.DataFrame,
    split: pd.DataFrame,
    *,
    pairs: pd.DataFrame,
    shortcuts: Mapping[str, Mapping[str, float] | None],
    taxonomy: Taxonomy = HAM10000,
) -> DatasetSummary:
    """Summarize a data set, its split and what could leak.

    Args:
        frame: A checked frame: one row per image.
        split: image_id, lesion_id, split.
        pairs: The exact and near duplicates, as from `duplicate_pairs`.
        shortcuts: Scores of predictions without the image, as from `shortcuts`.
        taxonomy: The diagnoses.
    """
    split_of = dict(zip(split["image_id"], split["split"], strict=True))
    part = frame["image_id"].map(split_of).fillna("left_out")
    sizes = frame["lesion_id"].value_counts().value_counts().sort_index()
    by_diagnosis = frame.groupby("diagnosis")
    facts = (*FACTS, *further_facts(frame))
    blank = {fact: frame[fact].isna() | frame[fact].isin(("", "unknown")) for fact in facts}
    return {
        **_count(frame),
        "diagnoses": {
            code: _count(by_diagnosis.get_group(code)) for code in taxonomy.codes if code in by_diagnosis.groups
        },
        "images_per_lesion": {str(images): int(lesions) for images, lesions in sizes.items()},
        "missing": {fact: int(rows.sum()) for fact, rows in blank.items()},
        "age_zero": int((frame["age"] == 0).sum()),
        "implausible_ages": _records(implausible_ages(frame)),
        "splits": {str(name): _count_split(rows, taxonomy) for name, rows in frame.groupby(part, sort=True)},
        "kept_together": describe_groups(frame),
        "torn_lesions": lesions_in_several_splits(split),
        "duplicates": {
            "exact": _count_pairs(pairs[pairs["exact"]]),
            "near": _count_pairs(pairs[~pairs["exact"]]),
            "suspicious": _records(leaking_pairs(pairs)),
        },
        "shortcuts": shortcuts,
    }


def implausible_ages(frame: pd.DataFrame) -> pd.DataFrame:
    """Images of patients under `ADULT` years with a diagnosis of adults, such as age 0 with benign keratosis.

    A diagnosis counts as one of adults where less than `FEW_CHILDREN` of its images with a known age are of children.

    Returns:
        image_id, lesion_id, diagnosis and age, by diagnosis and age.
    """
    known = frame.dropna(subset="age")
    is_child = known["age"] < ADULT
    of_adults = is_child.groupby(known["diagnosis"]).transform("mean") < FEW_CHILDREN
    columns = ["image_id", "lesion_id", "diagnosis", "age"]
    return known.loc[is_child & of_adults, columns].sort_values(["diagnosis", "age", "image_id"], ignore_index=True)


def lesions_in_several_splits(split: pd.DataFrame) -> list[str]:
    """Return the sorted ids of lesions whose images are in more than one split; a sound split has none."""
    splits = split.groupby("lesion_id")["split"].nunique()
    return sorted(str(lesion) for lesion in splits.index[splits > 1])


def leaking_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of equal or similar images that are of two lesions, or in two splits."""
    return pairs[~pairs["same_lesion"] | _across(pairs)].reset_index(drop=True)


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in record.items()} for record in rows.to_dict(orient="records")]


def _count(rows: pd.DataFrame) -> Counts:
    return {"images": len(rows), "lesions": int(rows["lesion_id"].nunique())}


def _count_split(rows: pd.DataFrame, taxonomy: Taxonomy) -> SplitCounts:
    images = rows["diagnosis"].value_counts()
    return {**_count(rows), "diagnoses": {code: int(images.get(code, 0)) for code in taxonomy.codes}}


def _count_pairs(pairs: pd.DataFrame) -> dict[str, int]:
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
