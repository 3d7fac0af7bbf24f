"""What the service needs of a model: the face of `bundle.runtime.Bundle`, so that tests can stand in for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import Image
from skinlesion.deploy.manifest import Manifest
from skinlesion.deploy.runtime import Answer, Facts, Prepared

Floats = npt.NDArray[np.floating[Any]]


class Model(Protocol):
    """A model that is ready to judge images."""

    @property
    def about(self) -> Manifest:
        """What it says of itself."""

    def prepare(self, image: Image) -> Prepared:
        """Fit an image (h, w, 3) into each size that is read."""

    def predict(self, images: Sequence[Image | Prepared], facts: Sequence[Facts]) -> Answer:
        """Judge images, each with the facts about its patient."""


@dataclass(frozen=True)
class Opinion:
    """What a model says of one image."""

    probabilities: Floats  # (7,), calibrated
    uncalibrated: Floats  # (7,)
    members: Floats  # (M, 7)
    prediction_set: npt.NDArray[np.bool_] | None  # (7,)
    novelty: float | None
    novel: bool | None


def opinions(answer: Answer) -> list[Opinion]:
    """Take an answer about B images apart."""
    return [
        Opinion(
            probabilities=answer.probabilities[b],
            uncalibrated=answer.uncalibrated[b],
            members=answer.members[:, b],
            prediction_set=None if answer.prediction_set is None else answer.prediction_set[b],
            novelty=None if answer.novelty is None else float(answer.novelty[b]),
            novel=None if answer.novel is None else bool(answer.novel[b]),
        )
        for b in range(len(answer.probabilities))
    ]
