"""Baselines that see no image: diagnoses predicted from the camera, from facts about the patient, or from a guess."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skinlesion.metrics.classification import Floats
from skinlesion.taxonomy import HAM10000, Taxonomy

BASELINES: dict[str, tuple[str, ...]] = {"camera": ("dataset",), "metadata": ("age", "sex", "localization")}
"""Columns that each baseline knows, by name: `dataset` is clinic and camera, unrelated to the patient."""


def predict_without_image(
    train: pd.DataFrame,
    test: pd.DataFrame,
    columns: Sequence[str],
    *,
    class_weight: str | None = None,
    taxonomy: Taxonomy = HAM10000,
) -> Floats:
    """Predict the diagnoses of `test` from `columns` by logistic regression fitted to `train`.

    Args:
        train: diagnosis and `columns`; numbers such as age in years, NaN where unknown, and words.
        test: `columns`.
        columns: One or more.
        class_weight: None: the probabilities hold for the frequencies of `train`; "balanced": as if each diagnosis were
            equally frequent.
        taxonomy: The K diagnoses.

    Returns:
        (N, K) probabilities in class order, 0 for a diagnosis that `train` lacks.
    """
    numbers = [column for column in columns if pd.api.types.is_numeric_dtype(train[column])]
    words = [column for column in columns if column not in numbers]
    scaled = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    facts = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), words), (scaled, numbers))
    regression = LogisticRegression(class_weight=class_weight, max_iter=2000)
    model = make_pipeline(facts, regression).fit(train, train["diagnosis"])
    found = np.zeros((len(test), len(taxonomy)))
    found[:, taxonomy.indices(model.classes_)] = model.predict_proba(test)
    return found


def cross_fitted(
    frame: pd.DataFrame, folds: npt.NDArray[np.int64], columns: Sequence[str], *, taxonomy: Taxonomy = HAM10000
) -> Floats:
    """Predict the diagnoses of each fold from `columns`, by a regression fitted to all rows outside the fold.

    Args:
        frame: N rows as of `predict_without_image`.
        folds: (N,) fold of each row; rows below 0 are fitted to and not predicted. Lesions must not be in two folds.
        columns: One or more.
        taxonomy: The K diagnoses.

    Returns:
        (N, K) probabilities, NaN in rows that are not predicted.
    """
    found = np.full((len(frame), len(taxonomy)), np.nan)
    for fold in np.unique(folds[folds >= 0]):
        own = folds == fold
        found[own] = predict_without_image(frame[~own], frame[own], columns, taxonomy=taxonomy)
    return found
