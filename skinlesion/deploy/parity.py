"""Agreement of a bundle with the PyTorch models it was made from, on the same image files and the same facts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.errors import BundleError
from skinlesion.inference.members import Members, PostHoc
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor

TOLERANCE = 1e-4
"""Largest difference of a probability at full precision."""

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Agreement:
    """How far two votes on N images are from each other."""

    images: int  # N
    largest_difference: float  # of a probability of the vote
    mean_difference: float  # of a probability of the vote
    largest_of_a_member: float  # difference of a probability of one member
    same_diagnosis: float  # share of images with the same likeliest diagnosis
    taken_for_novel: float | None  # share of images flagged as out-of-distribution; None: there are no statistics

    def as_dict(self) -> dict[str, float]:
        """Make the entry of bundle.json."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def predict(members: Members, frame: pd.DataFrame, *, posthoc: PostHoc, label: str) -> Predictions:
    """Predict the images of a checked frame, uncalibrated, with each member's probabilities."""
    return Predictor(members, Path(), posthoc).predict_frame(frame, label=label)


def compare(expected: Predictions, found: Predictions) -> Agreement:
    """Compare the predictions of a bundle with those of the models, for the same images."""
    mine, others = _members(found).astype(np.float64), _members(expected)  # (M, N, K)
    vote, other = mine.mean(axis=0), others.mean(axis=0)  # (N, K)
    return Agreement(
        images=len(vote),
        largest_difference=float(np.abs(vote - other).max()),
        mean_difference=float(np.abs(vote - other).mean()),
        largest_of_a_member=float(np.abs(mine - others).max()),
        same_diagnosis=float((vote.argmax(axis=1) == other.argmax(axis=1)).mean()),
        taken_for_novel=None if found.ood is None else float(found.ood.mean()),
    )


def require_parity(found: Agreement) -> None:
    """Refuse a graph of full precision that differs from PyTorch.

    Raises:
        BundleError: It says by how much.
    """
    largest = found.largest_of_a_member
    if not largest <= TOLERANCE:  # NaN differs too
        raise BundleError(
            f"the graph differs from PyTorch by {largest:.2g} in a probability (allowed: {TOLERANCE:g}), so no bundle "
            "is written; please report it with the backbone and the versions of torch and onnxruntime"
        )


def sentence(precision: str, found: Mapping[str, float]) -> str:
    """Put an agreement, as in bundle.json, into words."""
    flagged = f"; {found['taken_for_novel']:.1%} are flagged as unlike training" if "taken_for_novel" in found else ""
    return (
        f"{precision}: the same likeliest diagnosis for {found['same_diagnosis']:.1%} of {found['images']} "
        f"validation images; probabilities differ by {found['largest_difference']:.2g} at most, by "
        f"{found['mean_difference']:.2g} on average{flagged}."
    )


def _members(predictions: Predictions) -> Floats:
    if predictions.members is None:
        raise ValueError("predictions without each member's probabilities cannot be compared")
    return predictions.members
