"""What a results file says of a predictions table: every number with its interval, per image and per lesion."""

from typing import Any

import pandas as pd

from skinlesion.metrics.bootstrap import Method, lesion_index
from skinlesion.metrics.classification import HEADLINE
from skinlesion.metrics.with_ci import by_lesion, with_intervals


def judged(
    table: pd.DataFrame, *, resamples: int, seed: int, level: float, method: Method, bins: int
) -> dict[str, Any]:
    """Judge a table, ready for JSON.

    Args:
        table: A predictions table with known actual diagnoses.
        resamples: Of the bootstrap over lesions.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".
        bins: Of the calibration errors.

    Returns:
        `images`, `lesions`, the headline metrics and their `intervals` (name, then [low, high]), `numbers` (all of
        `reported.with_intervals`), and `per_lesion`: the same numbers where a lesion's images have voted with the mean
        of their probabilities, or None where every lesion has one image, so that they are those of `numbers`.
    """
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level, "method": method, "bins": bins}
    numbers = with_intervals(table, **settings)
    lesions = int(lesion_index(table).max()) + 1
    return {
        "images": len(table),
        "lesions": lesions,
        **{name: numbers[name]["value"] for name in HEADLINE},
        "intervals": {name: [numbers[name]["low"], numbers[name]["high"]] for name in HEADLINE},
        "numbers": numbers,
        "per_lesion": None if lesions == len(table) else with_intervals(by_lesion(table), **settings),
    }
