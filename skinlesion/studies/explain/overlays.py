"""What explains one diagnosis, as plain arrays: maps laid onto the image as it was taken, peaks, agreement."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import Image, unpadded_area
from skinlesion.taxonomy import CODES

Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """What the members of an ensemble made of one image, and why."""

    name: str  # of the image
    image: Image  # as it was taken, (h, w, 3)
    facts: Mapping[str, float | str | None]  # about the patient; None where unknown
    probabilities: npt.NDArray[np.float32]  # (K,), of the vote
    chosen: str  # the diagnosis that was asked about
    maps: Mapping[str, Map]  # by diagnosis: that predicted and that chosen; (h, w), the mean of the members
    members: Mapping[str, Map]  # by member, of the chosen diagnosis; (h, w)
    spatial: Map | None  # CBAM's factors, (h, w), the mean of the members that have them
    response: Mapping[str, npt.NDArray[np.float32]]  # by fact, (K,): see learning.metadata_ablation
    novelty: tuple[float, float] | None = None  # score and threshold, see evaluation.novelty; None: not known

    @property
    def novel(self) -> bool:
        """Whether the image looks like none that the model has learned from."""
        return self.novelty is not None and self.novelty[0] > self.novelty[1]

    @property
    def predicted(self) -> str:
        """The likeliest diagnosis."""
        return CODES[int(self.probabilities.argmax())]


def onto(values: Map, shape: tuple[int, int], size: tuple[int, int]) -> Map:
    """Lay a map of what a network saw onto the image as it was taken: without the padding, at the image's shape.

    Args:
        values: (h, w), over the network's whole input, at any resolution.
        shape: (height, width) of the image, in pixels.
        size: (height, width) of the network's input, into which `pixels.fit` put the image.

    Returns:
        (height, width) of the image.
    """
    whole = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
    seen = np.ascontiguousarray(whole[unpadded_area(shape, size)])
    return np.asarray(cv2.resize(seen, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def peak(values: Map) -> tuple[float, float] | None:
    """Where a map (h, w) is greatest: x and y in 0..1, the middle of that pixel; None where it is all alike."""
    if np.ptp(values) == 0:
        return None
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return float((column + 0.5) / values.shape[1]), float((row + 0.5) / values.shape[0])


def agreement(maps: Mapping[str, Map]) -> float | None:
    """The mean correlation of each two maps, over pixels; None for less than two maps that are not all alike."""
    varied = [values.ravel() for values in maps.values() if np.ptp(values) > 0]
    pairs = [float(np.corrcoef(*pair)[0, 1]) for pair in combinations(varied, 2)]
    return float(np.mean(pairs)) if pairs else None


def as_plain(explanation: Explanation) -> dict[str, Any]:
    """What explains a diagnosis, ready for JSON; probabilities and their changes have six digits."""
    spatial, novelty = explanation.spatial, explanation.novelty
    return {
        "image": explanation.name,
        "facts": dict(explanation.facts),
        "predicted": explanation.predicted,
        "class": explanation.chosen,
        "probabilities": _by_code(explanation.probabilities),
        "metadata_ablation": {fact: _by_code(change) for fact, change in explanation.response.items()},
        "maps": {code: {"peak": peak(values)} for code, values in explanation.maps.items()},
        "members": {name: {"peak": peak(values)} for name, values in explanation.members.items()},
        "agreement": agreement(explanation.members),
        "spatial_attention": None if spatial is None else {"least": float(spatial.min()), "most": float(spatial.max())},
        "novelty": None if novelty is None else {"score": novelty[0], "threshold": novelty[1]},
        "note": "peaks are x and y as fractions of the image; research use only, not a medical device",
    }


def _by_code(values: npt.NDArray[np.float32]) -> dict[str, float]:
    return {code: round(float(value), 6) for code, value in zip(CODES, values, strict=True)}
