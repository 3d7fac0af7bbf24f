"""The service's only view of its model: `Predictor` fits it, and so does the stand-in of the tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import Image
from skinlesion.deploy.manifest import Manifest
from skinlesion.inference.members import Facts, Prepared
from skinlesion.inference.predictions import Predictions

Floats = npt.NDArray[np.floating[Any]]


class Model(Protocol):
    """A loaded bundle. The service calls `prepare` and `predict_prepared` in threads of their own."""

    @property
    def about(self) -> Manifest:
        """The bundle's version, members, vocabulary and thresholds."""

    def prepare(self, image: Image) -> Prepared:
        """Fit an image (h, w, 3) into each of the members' input sizes."""

    def predict_prepared(self, images: Sequence[Prepared], facts: Sequence[Facts]) -> Predictions:
        """Predict images that `prepare` gave, each with the facts about its patient."""


@dataclass(frozen=True)
class ImagePrediction:
    """The model's prediction for one image."""

    probabilities: Floats  # (7,), calibrated if the ensemble was
    uncalibrated: Floats  # (7,), mean of the members
    members: Floats  # (M, 7)
    ood_score: float | None  # None: the model has no statistics of its training images
    ood: bool | None  # whether the score is above the threshold


def predict_each(model: Model, images: Sequence[Prepared], facts: Sequence[Facts]) -> list[ImagePrediction]:
    """Predict B images as one batch, one result an image."""
    found = model.predict_prepared(images, facts)
    uncalibrated = found.probabilities if found.uncalibrated is None else found.uncalibrated
    assert found.members is not None
    return [
        ImagePrediction(
            probabilities=found.probabilities[b],
            uncalibrated=uncalibrated[b],
            members=found.members[:, b],
            ood_score=None if found.ood_score is None else float(found.ood_score[b]),
            ood=None if found.ood is None else bool(found.ood[b]),
        )
        for b in range(len(images))
    ]
