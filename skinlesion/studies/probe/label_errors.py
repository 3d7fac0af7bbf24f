"""Likely label errors by confident learning."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.predictions import Predictions


def likely_errors(probabilities: npt.ArrayLike, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find images whose label is likely wrong, and the label that they likely have.

    Confident learning (Northcutt, Jiang & Chuang, Journal of Artificial Intelligence Research 70 (2021),
    doi:10.1613/jair.1.12125), by its confident joint: an image counts as of class j if its probability of j is at least
    the mean probability of j over the images labelled j; of several such classes, as of the likeliest. It is an error
    if that is another class than its label, and its likeliest class too.

    Args:
        probabilities: (N, K), of models that have not seen the image.
        labels: (N,) class indices.

    Returns:
        (N,) the class that an image likely has; its own label where that is no likely error.
    """
    values = np.asarray(probabilities, np.float64)
    classes, own = range(values.shape[1]), np.arange(len(values))
    thresholds = np.array([values[labels == k, k].mean() if (labels == k).any() else np.inf for k in classes])
    confident = np.where(values >= thresholds, values, -np.inf)
    suggested = confident.argmax(axis=1)
    is_error = np.isfinite(confident[own, suggested]) & (values.argmax(axis=1) != labels) & (suggested != labels)
    return np.where(is_error, suggested, labels)


def label_errors(table: Predictions, frame: pd.DataFrame) -> pd.DataFrame:
    """List the likely label errors, the likeliest first: by probability of the label minus that of the suggestion.

    Args:
        table: Out-of-fold predictions.
        frame: The checked frame of its images, for how a diagnosis was confirmed.

    Returns:
        image_id, lesion_id, diagnosis, dx_type, suggested, and the probability of either.
    """
    suggested = likely_errors(table.probabilities, table.targets)
    rows, codes = np.flatnonzero(suggested != table.targets), np.array(table.taxonomy.codes)
    confirmed = dict(zip(frame["image_id"], frame["dx_type"], strict=True))
    found = pd.DataFrame(
        {
            "image_id": table.image_id[rows],
            "lesion_id": table.lesion_id[rows],
            "diagnosis": table.actual[rows],
            "dx_type": [confirmed[image] for image in table.image_id[rows]],
            "suggested": codes[suggested[rows]],
            "probability": table.probabilities[rows, table.targets[rows]],
            "probability_suggested": table.probabilities[rows, suggested[rows]],
        }
    )
    margin = found["probability"] - found["probability_suggested"]
    return found.iloc[np.argsort(margin.to_numpy(), kind="stable")].reset_index(drop=True)
