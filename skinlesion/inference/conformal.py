"""Conformal prediction: sets of diagnoses that hold the actual one with a wanted probability.

Split conformal prediction with a threshold for each diagnosis (Vovk, Mach. Learn. 92:349-376 (2013), arXiv:1209.2673),
and the scores of Romano, Sesia & Candès, NeurIPS 2020, arXiv:2006.02544 (APS), or Angelopoulos, Bates, Malik & Jordan,
ICLR 2021, arXiv:2009.14193 (RAPS). Needs numpy alone.

The score of a diagnosis is the probability of all that is likelier than it: APS with its random share held at one end,
so that the same image always gets the same set. The likeliest diagnosis has score 0, so no set is empty. RAPS adds a
penalty for a low rank.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

from skinlesion.config.schema import Range, Share
from skinlesion.errors import DataError
from skinlesion.taxonomy import HAM10000, Taxonomy

Floats = npt.NDArray[np.float64]
Score = Literal["aps", "raps"]

_ROUNDING = 1e-9  # (n + 1)(1 - alpha) of 19 images at alpha 0.1 is 18, not 18 and a rounding error
_TOLERANCE = 1e-9  # a score that is summed in another order is the same score


class ConformalSets(TypedDict):
    """Settings and thresholds of prediction sets; plain data."""

    method: Score
    alpha: Share  # of images whose set may lack the actual diagnosis
    by_class: bool  # a threshold for each diagnosis, not one for all
    penalty: Annotated[float, Range(0)]  # 0 for APS
    free_ranks: Annotated[int, Range(0)]  # 0 for APS
    thresholds: dict[str, Annotated[float, Range(0)] | None]  # by code, in class order; None: infinite
    images: dict[str, Annotated[int, Range(0)]]  # of validation, by code
    always: list[str]  # codes of infinite threshold: they are in every set


def scores(probabilities: npt.ArrayLike, *, penalty: float = 0.0, free_ranks: int = 0) -> Floats:
    """Nonconformity of each diagnosis: (N, K) to (N, K), 0 for the likeliest.

    Args:
        probabilities: (N, K).
        penalty: Added for each rank beyond `free_ranks` by RAPS; 0: APS.
        free_ranks: Number of likeliest diagnoses without a penalty.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    before = np.cumsum(ordered, axis=1) - ordered
    before[:, 0] = 0.0
    before += penalty * np.maximum(np.arange(1, values.shape[1] + 1) - free_ranks, 0)
    found = np.empty_like(values)
    np.put_along_axis(found, order, before, axis=1)
    return found


def fit(
    probabilities: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    alpha: float,
    method: Score = "aps",
    by_class: bool = True,
    penalty: float = 0.01,
    free_ranks: int = 2,
    taxonomy: Taxonomy = HAM10000,
) -> ConformalSets:
    """Find the thresholds at which the sets hold the actual diagnosis with probability 1 - alpha or more.

    That holds on average over validation sets, for images that come about as those did (exchangeable: one image a
    lesion), and with `by_class` for each diagnosis. A diagnosis of fewer than 1 / alpha - 1 images cannot rule
    anything out: its threshold is infinite, and it stands in every set.

    Args:
        probabilities: (N, K) of validation images.
        targets: (N,) class indices.
        alpha: The share of images whose set may lack the actual diagnosis.
        method: "aps" or "raps".
        by_class: A threshold for each diagnosis, not one for all.
        penalty: Of RAPS, for each rank beyond `free_ranks`.
        free_ranks: Of RAPS.
        taxonomy: The K diagnoses.

    Raises:
        DataError: There is no image, or a probability is not finite.
        ValueError: A setting is out of range.
    """
    values, actual = np.asarray(probabilities, dtype=np.float64), np.asarray(targets, dtype=np.int64)
    if not 0 < alpha < 1 or method not in ("aps", "raps") or penalty < 0:
        raise ValueError(f"alpha is {alpha}, method {method}, penalty {penalty}; expected 0..1, aps or raps, 0 or more")
    if not len(values) or not np.isfinite(values).all():
        raise DataError(
            f"{len(values)} validation images, all probabilities finite: {bool(np.isfinite(values).all())}; "
            "prediction sets need at least one image and finite probabilities: evaluate the model again"
        )
    penalty, free_ranks = (penalty, free_ranks) if method == "raps" else (0.0, 0)
    own = scores(values, penalty=penalty, free_ranks=free_ranks)[np.arange(len(actual)), actual]
    chosen = [actual == k for k in range(len(taxonomy))]
    limits: list[float | None] = []
    for each in chosen:
        own_scores = own[each] if by_class else own
        rank = int(np.ceil((len(own_scores) + 1) * (1 - alpha) - _ROUNDING))  # ceil((n + 1)(1 - alpha))-th least
        limits.append(None if rank > len(own_scores) else float(np.sort(own_scores)[rank - 1]))
    return {
        "method": method,
        "alpha": alpha,
        "by_class": by_class,
        "penalty": penalty,
        "free_ranks": free_ranks,
        "thresholds": dict(zip(taxonomy.codes, limits, strict=True)),
        "images": {code: int(each.sum()) for code, each in zip(taxonomy.codes, chosen, strict=True)},
        "always": [code for code, limit in zip(taxonomy.codes, limits, strict=True) if limit is None],
    }


def prediction_sets(probabilities: npt.ArrayLike, fitted: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Prediction sets: whether each diagnosis is in the set of each image, (N, K).

    Args:
        probabilities: (N, K), calibrated as those that `fit` saw.
        fitted: As from `fit`.
    """
    highest = np.array([np.inf if limit is None else limit for limit in fitted["thresholds"].values()])
    given = scores(probabilities, penalty=fitted["penalty"], free_ranks=fitted["free_ranks"])
    return np.asarray(given <= highest + _TOLERANCE)
