"""The service's only view of its model. `deploy.runtime.Bundle` fits it, and so does the stand-in of the tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import Image
from skinlesion.deploy.manifest import Manifest
from skinlesion.deploy.runtime import Answer
from skinlesion.inference.members import Facts, Prepared

Floats = npt.NDArray[np.floating[Any]]


class Model(Protocol):
    """A loaded model. The service calls `prepare` and `predict` from one thread each."""

    @property
    def about(self) -> Manifest:
        """The model's version, members, vocabulary and thresholds."""

    def prepare(self, image: Image) -> Prepared:
        """Fit an image (h, w, 3) into each of the members' input sizes."""

    def predict(self, images: Sequence[Prepared], facts: Sequence[Facts]) -> Answer:
        """Predict images that `prepare` gave, each with the facts about its patient."""


@dataclass(frozen=True)
class ImagePrediction:
    """The model's prediction for one image."""

    probabilities: Floats  # (7,), calibrated
    uncalibrated: Floats  # (7,), mean of the members
    members: Floats  # (M, 7)
    novelty: float | None  # out-of-distribution score; None: the model has no statistics of its training images
    novel: bool | None  # whether the score is above the threshold


def predict_each(model: Model, images: Sequence[Prepared], facts: Sequence[Facts]) -> list[ImagePrediction]:
    """Predict B images as one batch, one result an image."""
    answer = model.predict(images, facts)
    return [
        ImagePrediction(
            probabilities=answer.probabilities[b],
            uncalibrated=answer.uncalibrated[b],
            members=answer.members[:, b],
            novelty=None if answer.novelty is None else float(answer.novelty[b]),
            novel=None if answer.novel is None else bool(answer.novel[b]),
        )
        for b in range(len(images))
    ]
