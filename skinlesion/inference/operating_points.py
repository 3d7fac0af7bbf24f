"""Operating points: from which probability on an image is flagged, chosen on validation for a wanted sensitivity.

Needs numpy alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skinlesion.errors import DataError
from skinlesion.taxonomy import TARGETS, is_target, target_score

Floats = npt.NDArray[np.float64]

_ROUNDING = 1e-9  # 0.8 * 5 images are 4, not 4 and a rounding error


def fit(
    probabilities: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    sensitivities: Sequence[float] = (0.8, 0.85, 0.9, 0.95),
    of: Sequence[str] = TARGETS,
) -> list[dict[str, Any]]:
    """Choose the highest threshold at which each target is found with each sensitivity on validation.

    Args:
        probabilities: (N, 7) of validation images, calibrated as they will be where the threshold is applied.
        targets: (N,) class indices.
        sensitivities: The wanted shares of a target's images that are flagged, each in 0..1 and not 0.
        of: The targets.

    Returns:
        Plain data for each target and sensitivity: `target`, `sensitivity` (wanted), `threshold`, `reached` (the
        sensitivity on these images), `images` (of the target). Without an image of the target `threshold` and
        `reached` are None and `note` says so.

    Raises:
        DataError: A probability is no finite number.
        ValueError: A sensitivity is out of range.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError("a probability is no finite number; no threshold can be chosen: evaluate the model anew")
    if not all(0 < wanted <= 1 for wanted in sensitivities):
        raise ValueError(f"sensitivities are {list(sensitivities)}; expected each above 0, at most 1")
    return [
        _point(np.sort(target_score(values, target)[is_target(targets, target)])[::-1], target=target, wanted=wanted)
        for target in of
        for wanted in sensitivities
    ]


def _point(scores: Floats, *, target: str, wanted: float) -> dict[str, Any]:
    """The operating point of a target's own scores, highest first."""
    about: dict[str, Any] = {"target": target, "sensitivity": wanted, "images": len(scores)}
    if not len(scores):
        return {**about, "threshold": None, "reached": None, "note": f"not computable: no image of {target}"}
    needed = max(1, int(np.ceil(wanted * len(scores) - _ROUNDING)))
    threshold = float(scores[needed - 1])
    return {**about, "threshold": threshold, "reached": float((scores >= threshold).mean())}
