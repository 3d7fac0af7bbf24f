"""Every number by sex, age band, localization, image source and kind of confirmation."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.errors import DataError
from skinlesion.metrics.bootstrap import Method, lesion_index
from skinlesion.metrics.with_ci import with_intervals

FACTS = ("sex", "age", "localization", "dataset", "dx_type")
"""Columns of the facts, in the order in which they are reported; `age` as bands."""

BANDS = (0, 30, 45, 60, 75)  # years from which each age band starts
FEW_LESIONS = 30
UNKNOWN = "unknown"


def groups_of(table: pd.DataFrame, facts: pd.DataFrame, *, bands: Sequence[float] = BANDS) -> dict[str, list[str]]:
    """Say for each fact which group each image of a table is in.

    Args:
        table: A predictions table.
        facts: image_id and any of `FACTS`, such as the checked frame of the data set: age in years. Rows of other
            images are passed over; so are facts that no image of the table has.
        bands: Years from which each age band starts, ascending.

    Returns:
        By fact, in the order of `FACTS`: N labels in the order of the table, "unknown" where empty or missing.

    Raises:
        DataError: The facts lack images of the table, or name one twice.
    """
    if "image_id" not in facts:
        raise DataError(f"the facts have columns {list(facts)}; expected image_id among them")
    known = facts.drop_duplicates("image_id")
    missing = sorted(set(table["image_id"]) - set(known["image_id"]))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(table)} images are not among the facts ({', '.join(missing[:5])}); give the "
            "metadata of the same images"
        )
    if len(known) != len(facts.drop_duplicates()):
        raise DataError("the facts have several rows for one image; keep one row an image")
    rows = known.set_index("image_id").loc[table["image_id"]]
    labels = {fact: _labels(rows[fact], fact, bands) for fact in FACTS if fact in rows}
    return {fact: each for fact, each in labels.items() if set(each) != {UNKNOWN}}


def subgroups(
    table: pd.DataFrame,
    groups: Mapping[str, Sequence[str]],
    *,
    resamples: int,
    seed: int,
    level: float,
    method: Method,
    bins: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Give every reported number of each group with its interval.

    Args:
        table: A predictions table with known actual diagnoses.
        groups: As from `groups_of`.
        resamples: Of the bootstrap over lesions.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".
        bins: Of the calibration errors.

    Returns:
        By fact, then group: `images`, `lesions`, `numbers` (as from `reported.with_intervals`), and `note` under
        30 lesions.
    """
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level, "method": method, "bins": bins}
    return {
        fact: {
            name: _judged(table[np.asarray(labels, dtype=object) == name].reset_index(drop=True), settings)
            for name in in_order(labels)
        }
        for fact, labels in groups.items()
    }


def rows(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What `subgroups` gives as a table: a row for each number of each group."""
    return pd.DataFrame(
        [
            {
                "fact": fact,
                "group": name,
                "images": each["images"],
                "lesions": each["lesions"],
                "number": number,
                **{end: measured[end] for end in ("value", "low", "high")},
                "note": "; ".join(note for note in (each.get("note"), measured.get("note")) if note),
            }
            for fact, groups in found.items()
            for name, each in groups.items()
            for number, measured in each["numbers"].items()
        ],
        columns=["fact", "group", "images", "lesions", "number", "value", "low", "high", "note"],
    )


def in_order(labels: Sequence[str]) -> list[str]:
    """The groups, sorted, those of unknown fact last."""
    return sorted(set(labels), key=lambda name: (name == UNKNOWN, name))


def few(lesions: int) -> dict[str, str]:
    """A note, where there are too few lesions to say much; else nothing."""
    return {"note": f"only {lesions} lesions: says little"} if lesions < FEW_LESIONS else {}


def _judged(rows: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    lesions = int(lesion_index(rows).max()) + 1
    return {"images": len(rows), "lesions": lesions, "numbers": with_intervals(rows, **settings), **few(lesions)}


def _labels(values: "pd.Series[Any]", fact: str, bands: Sequence[float]) -> list[str]:
    if fact != "age":
        return [str(value) if isinstance(value, str) and value.strip() else UNKNOWN for value in values]
    starts = np.asarray(bands, dtype=np.float64)
    ends = [f"{low:02.0f}-{high - 1:02.0f}" for low, high in pairwise(starts)]
    names = np.array([*ends, f"{starts[-1]:.0f}+", UNKNOWN], dtype=object)
    years = values.to_numpy(dtype=np.float64)
    place = np.where(np.isnan(years), len(names) - 1, np.searchsorted(starts, np.nan_to_num(years), side="right") - 1)
    return [str(name) for name in names[np.maximum(place, 0)]]
