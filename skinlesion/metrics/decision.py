"""What operating points do on a table: sensitivity, specificity, PPV and NPV, and net benefit at all thresholds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.predictions import probabilities, targets
from skinlesion.metrics.bootstrap import Method, Replicates, SumStatistic, bootstrap, lesion_index, sums_of
from skinlesion.metrics.classification import Floats, ratio
from skinlesion.taxonomy import is_target, target_score


def at_prevalence(
    sensitivity: npt.ArrayLike, specificity: npt.ArrayLike, *, prevalence: float
) -> tuple[Floats, Floats]:
    """PPV and NPV where a share `prevalence` of the images are of the target, by Bayes' theorem.

    Raises:
        ValueError: The prevalence is no share between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"prevalence is {prevalence}; expected more than 0, less than 1")
    found, spared = np.asarray(sensitivity, dtype=np.float64), np.asarray(specificity, dtype=np.float64)
    hits, alarms = found * prevalence, (1 - spared) * (1 - prevalence)
    misses, rests = (1 - found) * prevalence, spared * (1 - prevalence)
    return ratio(hits, hits + alarms), ratio(rests, rests + misses)


def flagged(probabilities: npt.ArrayLike, point: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Which images an operating point flags: (N,); all, where no threshold could be chosen."""
    values = target_score(probabilities, point["target"])
    threshold = point["threshold"]
    return np.ones(len(values), dtype=bool) if threshold is None else np.asarray(values >= threshold)


def judge_points(
    table: pd.DataFrame,
    points: Sequence[dict[str, Any]],
    *,
    resamples: int,
    seed: int,
    level: float,
    method: Method,
    prevalence: float | None = None,
) -> list[dict[str, Any]]:
    """Apply operating points to a table that did not choose them.

    Args:
        table: A predictions table with known actual diagnoses, calibrated as the one that chose the points.
        points: As from `operating_points.fit`.
        resamples: Of the bootstrap over lesions.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".
        prevalence: Where given, PPV and NPV at this share of the target as well.

    Returns:
        For each point its keys, `counts` (tp, fp, fn, tn) and `numbers`: `sensitivity`, `specificity`, `ppv`, `npv`,
        `flagged` (share of all images), and `ppv_at_prevalence`, `npv_at_prevalence`, each with its interval.
    """
    values = probabilities(table)
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level, "method": method}
    judged = []
    for point in points:
        if point["threshold"] is None:
            judged.append({**point, "counts": None, "numbers": {}})
            continue
        found = judge_flags(table, flagged(values, point), point["target"], **settings, prevalence=prevalence)
        judged.append({**point, "prevalence": prevalence, **found})
    return judged


def judge_flags(
    table: pd.DataFrame,
    raised: npt.NDArray[np.bool_],
    target: str,
    *,
    resamples: int,
    seed: int,
    level: float,
    method: Method,
    prevalence: float | None = None,
) -> dict[str, Any]:
    """Judge which images were flagged.

    Args:
        table: A predictions table with known actual diagnoses.
        raised: (N,) whether each of its images was flagged.
        target: What they were flagged for: a code, or "malignant".
        resamples: As of `judge_points`, like the others.
        seed: Of the draws.
        level: Of the intervals.
        method: "percentile" or "bca".
        prevalence: Or None.

    Returns:
        `counts` and `numbers`, as of `judge_points`.
    """
    index, own = lesion_index(table), is_target(targets(table), target)
    cells = np.stack([own & raised, ~own & raised, own & ~raised, ~own & ~raised], axis=1)
    found = bootstrap(
        SumStatistic(sums_of(cells, index), lambda sums: _rates(sums, prevalence)),
        lesions=int(index.max()) + 1,
        resamples=resamples,
        seed=seed,
        level=level,
        method=method,
    )
    counts = dict(zip(("tp", "fp", "fn", "tn"), cells.sum(axis=0).tolist(), strict=True))
    return {"counts": counts, "numbers": found}


def net_benefit(
    table: pd.DataFrame,
    target: str,
    *,
    thresholds: Sequence[float],
    resamples: int,
    seed: int,
    level: float,
    method: Method,
) -> pd.DataFrame:
    """The net benefit of flagging images at each threshold probability of a target.

    Vickers & Elkin, Med. Decis. Making 26:565-574 (2006), doi:10.1177/0272989X06295361: true positives less false
    ones, which weigh as the odds of the threshold, as a share of all images.

    Args:
        table: A predictions table with known actual diagnoses, calibrated.
        target: A code, or "malignant".
        thresholds: Between 0 and 1.
        resamples: Of the bootstrap over lesions.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".

    Returns:
        A row a threshold: `threshold`, `model`, `low`, `high`, `all` (flag every image); flagging none has 0.

    Raises:
        ValueError: A threshold is not between 0 and 1.
    """
    at = np.asarray(thresholds, dtype=np.float64)
    if not ((at > 0) & (at < 1)).all():
        raise ValueError(f"thresholds are {list(thresholds)}; expected each above 0, below 1")
    odds = at / (1 - at)
    own = is_target(targets(table), target)[:, None]
    raised = target_score(probabilities(table), target)[:, None] >= at
    gains = (own & raised) - odds * (~own & raised)  # (N, T)
    index = lesion_index(table)
    columns = np.column_stack([np.ones(len(table)), gains])
    found = bootstrap(
        SumStatistic(sums_of(columns, index), _means),
        lesions=int(index.max()) + 1,
        resamples=resamples,
        seed=seed,
        level=level,
        method=method,
    )
    share = own.mean()
    return pd.DataFrame(
        {
            "threshold": at,
            "model": [each["value"] for each in found.values()],
            "low": [each["low"] for each in found.values()],
            "high": [each["high"] for each in found.values()],
            "all": share - odds * (1 - share),
        }
    )


def _means(sums: Floats) -> Replicates:
    return {str(column): sums[:, column] / sums[:, 0] for column in range(1, sums.shape[1])}


def _rates(sums: Floats, prevalence: float | None) -> Replicates:
    hits, alarms, misses, rests = sums.T
    found, spared = ratio(hits, hits + misses), ratio(rests, rests + alarms)
    rates = {
        "sensitivity": found,
        "specificity": spared,
        "ppv": ratio(hits, hits + alarms),
        "npv": ratio(rests, rests + misses),
        "flagged": ratio(hits + alarms, sums.sum(axis=1)),
    }
    if prevalence is not None:
        rates["ppv_at_prevalence"], rates["npv_at_prevalence"] = at_prevalence(found, spared, prevalence=prevalence)
    return rates
