"""Several predictions tables of the same images against the first of them: numbers with intervals, and differences."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.errors import DataError
from skinlesion.inference.predictions import read_predictions
from skinlesion.metrics.bootstrap import Method
from skinlesion.metrics.with_ci import compare, with_intervals


def paths_of(pattern: str) -> list[Path]:
    """The files that a pattern names, in the order of their names; where there are none the pattern itself."""
    return sorted(map(Path, glob.glob(pattern))) or [Path(pattern)]


def read_pooled(pattern: str) -> pd.DataFrame:
    """One table of all files that a pattern names, such as the test parts of all folds: runs/*/predictions_test.csv.

    Raises:
        DataError: There is no such file, one cannot be read, or an image is in two of them.
    """
    paths = paths_of(pattern)
    pooled = pd.concat([read_predictions(path) for path in paths]).sort_values("image_id", ignore_index=True)
    twice = pooled.loc[pooled["image_id"].duplicated(), "image_id"].tolist()
    if twice:
        listed = ", ".join(map(str, paths))
        raise DataError(f"{len(twice)} images are in two of {listed} ({', '.join(twice[:5])}); expected parts apart")
    return pooled


def names_of(patterns: Sequence[str]) -> list[str]:
    """A name for each table: its path, less what all have in common."""
    if len(patterns) == 1:
        return [Path(patterns[0]).parent.name or patterns[0]]
    parts = [Path(pattern).parts for pattern in patterns]
    same = [len(set(column)) == 1 for column in zip(*parts, strict=False)]
    before = same.index(False) if False in same else len(same)
    after = 1 if len({each[-1] for each in parts}) == 1 else 0
    return ["/".join(each[before : len(each) - after]) for each in parts]


def compared(
    tables: Mapping[str, pd.DataFrame], *, resamples: int, seed: int, level: float, method: Method, bins: int
) -> dict[str, Any]:
    """Judge each table, and each but the first by its differences from the first, on the same resamples of lesions.

    Args:
        tables: By name, at least one.
        resamples: Of the bootstrap.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".
        bins: Of the calibration errors.

    Returns:
        `reference`, the first name; `tables` and `differences`, by name, as `with_intervals` and `compare` give them.

    Raises:
        DataError: A table is of other images than the first.
    """
    (reference, first), *others = tables.items()
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level, "method": method, "bins": bins}
    return {
        "reference": reference,
        "tables": {name: with_intervals(table, **settings) for name, table in tables.items()},
        "differences": {name: compare(table, first, **settings) for name, table in others},
    }
