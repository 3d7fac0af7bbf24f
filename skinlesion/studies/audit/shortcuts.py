"""Shortcuts: how well a diagnosis is predicted without the image, from the patient or from the source of the data."""

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
        scores[name] = None if absent else _headline(val, _predict(train, val, columns))
    return scores


def _predict(train: pd.DataFrame, val: pd.DataFrame, columns: tuple[str, ...]) -> np.ndarray:
    """Predict the diagnosis codes (N,) of `val` from `columns`."""
    numbers = [column for column in columns if column == "age"]
    words = [column for column in columns if column != "age"]
    scaled = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    facts = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), words), (scaled, numbers))
    regression = LogisticRegression(class_weight="balanced", max_iter=2000)
    model = make_pipeline(facts, regression).fit(train, train["diagnosis"])
    return np.asarray(model.predict(val))


def _headline(val: pd.DataFrame, predicted: np.ndarray) -> dict[str, float]:
    actual, guess = (np.asarray([CODES.index(code) for code in codes]) for codes in (val["diagnosis"], predicted))
    confusion = confusions(actual, guess, classes=len(CODES))
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}
