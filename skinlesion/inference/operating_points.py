"""Operating points: from which probability on an image is flagged, chosen on validation for a wanted sensitivity.

Needs numpy alone.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

from skinlesion.config.schema import Range
from skinlesion.errors import DataError
from skinlesion.taxonomy import HAM10000, Taxonomy

_ROUNDING = 1e-9  # 0.8 * 5 images are 4, not 4 and a rounding error


class OperatingPoint(TypedDict):
    """A threshold above which images are flagged for a target; plain data."""

    target: str  # a code, or a category such as "malignant"
    sensitivity: Annotated[float, Range(0, 1, above=True)]  # wanted share of the target's images that are flagged
    images: Annotated[int, Range(0)]  # of the target, on validation
    threshold: (
        Annotated[float, Range(0, 1 + _ROUNDING)] | None
    )  # lowest probability that is flagged; None without an image of the target
    reached: Annotated[float, Range(0, 1)] | None  # sensitivity on validation, likewise
    note: NotRequired[str]  # says why there is no threshold


def fit(
    probabilities: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    sensitivities: Sequence[float] = (0.8, 0.85, 0.9, 0.95),
    taxonomy: Taxonomy = HAM10000,
) -> list[OperatingPoint]:
    """Choose the highest threshold at which each target is found with each sensitivity on validation.

    Args:
        probabilities: (N, K) of validation images, calibrated as they will be where the threshold is applied.
        targets: (N,) class indices.
        sensitivities: The wanted shares of a target's images that are flagged, each above 0, up to 1.
        taxonomy: The K diagnoses and the targets.

    Returns:
        One for each target and sensitivity.

    Raises:
        DataError: A probability is not finite.
        ValueError: A sensitivity is out of range.
    """
    values, actual = np.asarray(probabilities, dtype=np.float64), np.asarray(targets, dtype=np.int64)
    if not np.isfinite(values).all():
        raise DataError("a probability is not finite; no threshold can be chosen: evaluate the model again")
    if not all(0 < wanted <= 1 for wanted in sensitivities):
        raise ValueError(f"sensitivities are {list(sensitivities)}; expected each above 0, at most 1")
    found: list[OperatingPoint] = []
    for target in taxonomy.targets:
        mask = taxonomy.mask(target)
        scores = values[:, mask].sum(axis=1)[mask[actual]]  # of the target's own images
        found += [_point(scores, target=target, wanted=wanted) for wanted in sensitivities]
    return found


def flagged(probabilities: npt.ArrayLike, point: Mapping[str, Any], *, taxonomy: Taxonomy = HAM10000) -> Any:
    """Whether an operating point flags each image: (N,); all, where no threshold could be chosen."""
    values = np.asarray(probabilities, dtype=np.float64)[:, taxonomy.mask(point["target"])].sum(axis=1)
    return values >= (-np.inf if point["threshold"] is None else point["threshold"])


def _point(scores: npt.NDArray[np.float64], *, target: str, wanted: float) -> OperatingPoint:
    point: OperatingPoint = {
        "target": target,
        "sensitivity": wanted,
        "images": len(scores),
        "threshold": None,
        "reached": None,
    }
    if not len(scores):
        return {**point, "note": f"not computable: no image of {target}"}
    threshold = highest_threshold(scores, wanted=wanted)
    return {**point, "threshold": threshold, "reached": float((scores >= threshold).mean())}


def highest_threshold(scores: npt.ArrayLike, *, wanted: float) -> float:
    """The highest threshold that at least a share `wanted` of N > 0 scores reaches."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    return float(ordered[max(1, int(np.ceil(wanted * len(ordered) - _ROUNDING))) - 1])
