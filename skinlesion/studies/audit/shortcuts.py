"""How far a diagnosis can be told without looking at the image, from the patient or from how the data came about."""

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
    "dataset": ("dataset",),  # which clinic and camera: says nothing about the patient
}
"""What a diagnosis is told from, by name: columns of the checked frame."""

MAJORITY = "majority"  # the baseline: the most frequent diagnosis of train, always

_WORDS = ("sex", "localization", "dx_type", "dataset")


def shortcuts(frame: pd.DataFrame, split: pd.DataFrame) -> dict[str, dict[str, float] | None]:
    """Judge how well the diagnosis is told from each of `SOURCES` alone, by class-balanced logistic regression.

    Args:
        frame: A checked frame: image_id, diagnosis, age, sex, localization, dx_type, dataset.
        split: image_id and split; fitted on train, judged on val. Test is left alone.

    Returns:
        For "majority" and each of `SOURCES` the headline metrics, each in 0..1; None where a table lacks the
        column.
    """
    split_of = dict(zip(split["image_id"], split["split"], strict=True))
    part = frame["image_id"].map(split_of)
    train, val = frame[part == "train"], frame[part == "val"]
    majority = train["diagnosis"].mode().iloc[0]
    judged: dict[str, dict[str, float] | None] = {MAJORITY: _headline(val, np.full(len(val), majority))}
    for name, columns in SOURCES.items():
        absent = all((train[column] == "").all() for column in columns)
        judged[name] = None if absent else _headline(val, _predicted(train, val, columns))
    return judged


def _predicted(train: pd.DataFrame, val: pd.DataFrame, columns: tuple[str, ...]) -> np.ndarray:
    """The diagnosis codes (N,) of `val` as told from `columns`."""
    words = [column for column in columns if column in _WORDS]
    numbers = [column for column in columns if column not in _WORDS]
    scaled = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    facts = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), words), (scaled, numbers))
    regression = LogisticRegression(class_weight="balanced", max_iter=2000)
    model = make_pipeline(facts, regression).fit(train, train["diagnosis"])
    return np.asarray(model.predict(val))


def _headline(val: pd.DataFrame, predicted: np.ndarray) -> dict[str, float]:
    actual, told = (np.asarray([CODES.index(code) for code in codes]) for codes in (val["diagnosis"], predicted))
    confusion = confusions(actual, told, classes=len(CODES))
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}
