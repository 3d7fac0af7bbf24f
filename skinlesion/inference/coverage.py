"""How often prediction sets hold the actual diagnosis, and how large they are: overall, by diagnosis, by subgroup."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.inference.conformal import prediction_sets
from skinlesion.inference.predictions import probabilities, targets
from skinlesion.metrics.bootstrap import Method, Replicates, SumStatistic, bootstrap, lesion_index, sums_of
from skinlesion.metrics.classification import Floats, ratio
from skinlesion.metrics.subgroups import few
from skinlesion.taxonomy import CODES


def coverage(
    table: pd.DataFrame,
    fitted: dict[str, Any],
    *,
    resamples: int,
    seed: int,
    level: float,
    method: Method,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Judge prediction sets on a table that did not choose their thresholds.

    Args:
        table: A predictions table with known actual diagnoses, calibrated as the one that chose the thresholds.
        fitted: As from `conformal.fit`.
        resamples: Of the bootstrap over lesions.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".
        groups: For each fact the group of each image, as from `subgroups.groups_of`.

    Returns:
        `wanted` (1 - alpha), `always` (codes in every set), `all`, `by_diagnosis` and `by_group` (fact, then group).
        Of each: `images`, `lesions`, `coverage`, `size` (mean), `single` (share of sets of one diagnosis), with
        intervals, and a `note` under 30 lesions. And `sizes`: images by size of their set.
    """
    sets = prediction_sets(probabilities(table), fitted)
    actual = targets(table)
    size = sets.sum(axis=1)
    held = sets[np.arange(len(table)), actual]
    columns = np.stack([np.ones(len(table)), held, size, size == 1], axis=1).astype(np.float64)
    settings = {"resamples": resamples, "seed": seed, "level": level, "method": method}
    parts = {
        fact: {
            name: _judged(table, columns, np.asarray(labels) == name, settings)
            for name in dict.fromkeys(sorted(labels))
        }
        for fact, labels in (groups or {}).items()
    }
    return {
        "wanted": 1 - fitted["alpha"],
        "always": fitted["always"],
        "all": _judged(table, columns, np.ones(len(table), dtype=bool), settings),
        "by_diagnosis": {code: _judged(table, columns, actual == k, settings) for k, code in enumerate(CODES)},
        "by_group": parts,
        "sizes": {str(number): int((size == number).sum()) for number in range(1, len(CODES) + 1)},
    }


def _judged(table: pd.DataFrame, columns: Floats, chosen: Any, settings: dict[str, Any]) -> dict[str, Any]:
    if not chosen.any():
        return {"images": 0, "lesions": 0, "note": "not computable: no image"}
    index = lesion_index(table[chosen])
    lesions = int(index.max()) + 1
    found = bootstrap(SumStatistic(sums_of(columns[chosen], index), _shares), lesions=lesions, **settings)
    return {"images": int(chosen.sum()), "lesions": lesions, **found, **few(lesions)}


def _shares(sums: Floats) -> Replicates:
    images = sums[:, 0]
    names = ("coverage", "size", "single")
    return {name: ratio(sums[:, place], images) for place, name in enumerate(names, start=1)}
