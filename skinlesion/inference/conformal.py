"""Conformal prediction: sets of diagnoses that hold the actual one with a wanted probability.

Split conformal prediction with a threshold for each diagnosis (Vovk, Mach. Learn. 92:349-376 (2013), arXiv:1209.2673),
and the scores of Romano, Sesia & Candès, NeurIPS 2020, arXiv:2006.02544 (APS), or Angelopoulos, Bates, Malik & Jordan,
ICLR 2021, arXiv:2009.14193 (RAPS). Diagnoses of too few images for a threshold of their own share one (Ding,
Angelopoulos, Bates, Jordan & Tibshirani, NeurIPS 2023, arXiv:2306.09335). Needs numpy alone.

The score of a diagnosis is the probability of all that is likelier than it: APS with its random share held at one end,
so that the same image always gets the same set. The likeliest diagnosis has score 0, so no set is empty. RAPS adds a
penalty for a low rank.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

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
    part: NotRequired[str]  # of the split, to which they were fitted: calibration, or val: see `fit`
    pooled: NotRequired[list[str]]  # codes that share a threshold, as they have too few images for one each


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

    That holds on average over the sets of images that it may be fitted to, and with `by_class` for each diagnosis. It
    assumes images that come about as those did (exchangeable: one image a lesion), and that those chose nothing of the
    model: a calibration part of the split, `data.splits.set_apart`. Validation images chose epoch and members too;
    fitted on them it holds approximately. A diagnosis of fewer than 1 / alpha - 1 images cannot have a threshold of
    its own. With `by_class`, such diagnoses share one, with the next rarest until they are enough together, and it
    holds for them together; one without any image stands in every set.

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
    counts = np.bincount(actual, minlength=len(taxonomy))
    pooled = _pool(counts, least=1 / alpha - 1) if by_class else []
    limits: list[float | None] = []
    for k, images in enumerate(counts):
        alike = own[np.isin(actual, pooled if k in pooled else [k])] if by_class else own
        rank = int(np.ceil((len(alike) + 1) * (1 - alpha) - _ROUNDING))  # ceil((n + 1)(1 - alpha))-th least
        enough = rank <= len(alike) and (images > 0 or not by_class)
        limits.append(float(np.sort(alike)[rank - 1]) if enough else None)
    return {
        "method": method,
        "alpha": alpha,
        "by_class": by_class,
        "penalty": penalty,
        "free_ranks": free_ranks,
        "thresholds": dict(zip(taxonomy.codes, limits, strict=True)),
        "images": dict(zip(taxonomy.codes, counts.tolist(), strict=True)),
        "always": [code for code, limit in zip(taxonomy.codes, limits, strict=True) if limit is None],
        "pooled": [taxonomy.codes[k] for k in pooled],
    }


def _pool(counts: npt.NDArray[np.int64], *, least: float) -> list[int]:
    """Classes that have images but fewer than `least`, and the next rarest until they have as many together."""
    pool: list[int] = []
    for k in np.argsort(counts, kind="stable"):
        if counts[k] and (counts[k] < least - _ROUNDING or (pool and counts[pool].sum() < least - _ROUNDING)):
            pool.append(int(k))
    return sorted(pool)


def prediction_sets(probabilities: npt.ArrayLike, fitted: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Prediction sets: whether each diagnosis is in the set of each image, (N, K).

    Args:
        probabilities: (N, K), calibrated as those that `fit` saw.
        fitted: As from `fit`.
    """
    highest = np.array([np.inf if limit is None else limit for limit in fitted["thresholds"].values()])
    given = scores(probabilities, penalty=fitted["penalty"], free_ranks=fitted["free_ranks"])
    return np.asarray(given <= highest + _TOLERANCE)
