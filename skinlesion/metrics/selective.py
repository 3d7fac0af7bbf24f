"""The reject option: how seldom a model errs on the images that it is surest of, and how many those are.

Geifman & El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017, arXiv:1705.08500; the area under
the risk-coverage curve (AURC) is that of Geifman, Uziel & El-Yaniv, ICLR 2019, arXiv:1805.08206.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.predictions import predicted_targets, probabilities, targets
from skinlesion.metrics.bootstrap import (
    Method,
    Replicates,
    SumStatistic,
    bootstrap,
    lesion_index,
    sums_of,
    without_each,
)
from skinlesion.metrics.classification import Floats, Integers, ratio

_ROUNDING = 1e-9  # four fifths of five images are four


def confidence_score(table: pd.DataFrame, members: Sequence[pd.DataFrame] = ()) -> dict[str, Floats]:
    """How sure a model is of each image, in several ways; higher is surer.

    Args:
        table: A predictions table.
        members: Those of the members that voted, if known.

    Returns:
        (N,) in the order of the table: `confidence` (probability of the likeliest diagnosis), `entropy` (negative, in
        nats) and, of two members or more, `disagreement` (negative mutual information between member and diagnosis:
        the entropy of their mean less the mean of their entropies; Smith & Gal, UAI 2018, arXiv:1803.08533).
    """
    values = probabilities(table).astype(np.float64)
    found = {"confidence": values.max(axis=1), "entropy": -_entropy(values)}
    if len(members) > 1:
        ordered = [each.set_index("image_id").loc[table["image_id"]].reset_index() for each in members]
        each = np.stack([probabilities(member).astype(np.float64) for member in ordered])  # (M, N, K)
        found["disagreement"] = _entropy(each).mean(axis=0) - _entropy(each.mean(axis=0))
    return found


def risk_coverage(table: pd.DataFrame, sure: npt.ArrayLike) -> pd.DataFrame:
    """The share of wrong predictions among the surest images, for each share of images that is kept.

    Args:
        table: A predictions table with known actual diagnoses.
        sure: (N,) higher is surer. Equally sure images are kept or rejected together.

    Returns:
        A row a threshold, surest first: `threshold`, `coverage` (share of images kept), `risk` (share of these wrong).
    """
    order, ends = _ordered(np.asarray(sure, dtype=np.float64))
    wrong = _wrong(table)[order]
    last = np.unique(ends)
    kept = last + 1
    return pd.DataFrame(
        {
            "threshold": np.asarray(sure, dtype=np.float64)[order][last],
            "coverage": kept / len(wrong),
            "risk": np.cumsum(wrong)[last] / kept,
        }
    )


def areas(
    table: pd.DataFrame, sure: Mapping[str, Floats], *, resamples: int, seed: int, level: float, method: Method
) -> dict[str, dict[str, Any]]:
    """The area under the risk-coverage curve of each confidence score, with its interval over lesions; low is good.

    The area is the mean over images of the risk among all that are at least as sure. `best`, for comparison, is what an
    order with all wrong images last would reach, and `chance` a random one: the error rate.
    """
    index = lesion_index(table)
    wrong = _wrong(table)
    statistic = _Areas({**sure, "best": -wrong, "random": np.zeros(len(table))}, wrong, index)
    return bootstrap(
        statistic, lesions=int(index.max()) + 1, resamples=resamples, seed=seed, level=level, method=method
    )


def at_share(
    table: pd.DataFrame,
    sure: Floats,
    share: float,
    *,
    resamples: int,
    seed: int,
    level: float,
    method: Method,
) -> dict[str, Any]:
    """What is wrong where at least a share of the images, the surest, is kept.

    Args:
        table: A predictions table with known actual diagnoses.
        sure: (N,) higher is surer.
        share: Of the images, above 0, at most 1.
        resamples: Of the bootstrap over lesions.
        seed: Of its draws.
        level: Of the interval.
        method: "percentile" or "bca".

    Returns:
        `wanted` (the share), `threshold` and `coverage` of the first point of `risk_coverage` that keeps as many, and
        `risk`, the share of the kept images that is wrong, with its interval at this threshold.
    """
    curve = risk_coverage(table, sure)
    first = curve[curve["coverage"] >= share - _ROUNDING].iloc[0]
    kept = sure >= first["threshold"]
    index = lesion_index(table)
    counts = SumStatistic(
        sums_of(np.stack([_wrong(table) * kept, kept], axis=1), index), lambda sums: {"risk": ratio(*sums.T)}
    )
    lesions = int(index.max()) + 1
    found = bootstrap(counts, lesions=lesions, resamples=resamples, seed=seed, level=level, method=method)
    return {"wanted": share, "threshold": float(first["threshold"]), "coverage": float(first["coverage"]), **found}


@dataclass(frozen=True)
class _Areas:
    sure: Mapping[str, Floats]  # (N,) by name
    wrong: Floats  # (N,) 0 or 1
    index: Integers  # (N,) lesions

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        return {name: self._area(values, weights) for name, values in self.sure.items()}

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        return without_each(self, int(self.index.max()) + 1)

    def _area(self, values: Floats, weights: Floats) -> Floats:
        order, ends = _ordered(values)
        counts = weights[:, self.index[order]]  # (R, N) how often each image counts, surest first
        kept = np.cumsum(counts, axis=1)
        risks = ratio(np.cumsum(counts * self.wrong[order], axis=1), kept)[:, ends]
        return ratio((np.nan_to_num(risks) * counts).sum(axis=1), kept[:, -1])


def _ordered(values: Floats) -> tuple[Integers, Integers]:
    """The images, surest first, and for each place the last one that is as sure."""
    order = np.argsort(-values, kind="stable").astype(np.int64)
    ends = np.searchsorted(-values[order], -values[order], side="right") - 1
    return order, ends.astype(np.int64)


def _wrong(table: pd.DataFrame) -> Floats:
    return np.asarray(targets(table) != predicted_targets(table), dtype=np.float64)


def _entropy(values: Floats) -> Floats:
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    return np.asarray(-(values * logs).sum(axis=-1))
