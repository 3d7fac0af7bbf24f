"""The bootstrap over lesions: percentile and BCa intervals of any number, and of the difference of two tables.

Lesions are drawn, each with all its images, because images of one lesion are alike (Field & Welsh, J. R. Stat. Soc.
B 69:369-390 (2007), doi:10.1111/j.1467-9868.2007.00593.x). A resample is how often each lesion counts, so that a
statistic judges hundreds of resamples at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.metrics.classification import Floats, Integers, lesion_names

Method = Literal["percentile", "bca"]
Replicates = dict[str, Floats]  # by name of the number: one value a resample, NaN where it cannot be computed

AT_ONCE = 256  # resamples judged at a time: bounds the memory
_FEW = 0.9  # a number that fewer than this share of the resamples can compute gets no interval


class Statistic(Protocol):
    """Numbers of a table, as functions of how often each of its L lesions counts."""

    def resampled(self, weights: Floats) -> Replicates:
        """The numbers for each row of (R, L) weights."""
        ...

    def jackknife(self) -> Replicates:
        """The numbers without one lesion, for each of the L lesions."""
        ...


@dataclass(frozen=True)
class SumStatistic:
    """Numbers that are functions of sums over images, such as counts and means.

    Attributes:
        sums: (L, C) of each lesion.
        finish: From (R, C) sums over lesions to numbers.
    """

    sums: Floats
    finish: Callable[[Floats], Replicates]

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        return self.finish(weights @ self.sums)

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        return self.finish(self.sums.sum(axis=0) - self.sums)


@dataclass(frozen=True)
class JointStatistic:
    """The numbers of several statistics of the same lesions."""

    parts: tuple[Statistic, ...]

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        return {name: values for part in self.parts for name, values in part.resampled(weights).items()}

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        return {name: values for part in self.parts for name, values in part.jackknife().items()}


@dataclass(frozen=True)
class Difference:
    """The numbers of one statistic less those of another of the same lesions: both see the same resamples."""

    first: Statistic
    second: Statistic

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        return _less(self.first.resampled(weights), self.second.resampled(weights))

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        return _less(self.first.jackknife(), self.second.jackknife())


def lesion_index(table: pd.DataFrame) -> Integers:
    """Number the lesion of each image by its first image in the order of image_id: (N,).

    The numbers depend neither on the order of rows nor on what lesions are called. An image of unknown lesion is
    a lesion of its own.
    """
    order = table["image_id"].argsort(kind="stable").to_numpy()
    index = np.empty(len(table), dtype=np.int64)
    index[order] = pd.factorize(lesion_names(table).iloc[order])[0]
    return index


def sums_of(columns: npt.ArrayLike, index: Integers) -> Floats:
    """Add up the rows of each lesion: (N, C) and (N,) lesion numbers to (L, C)."""
    values = np.asarray(columns, dtype=np.float64)
    total = np.zeros((int(index.max()) + 1, values.shape[1]))
    np.add.at(total, index, values)
    return total


def draws(lesions: int, *, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield (at most `AT_ONCE`, L) counts of how often each of L lesions is drawn, `resamples` rows in all."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, AT_ONCE):
        rows = min(AT_ONCE, resamples - start)
        drawn = generator.integers(0, lesions, (rows, lesions)) + np.arange(rows)[:, None] * lesions
        yield np.bincount(drawn.ravel(), minlength=rows * lesions).reshape(rows, lesions).astype(np.float64)


def without_each(statistic: Statistic, lesions: int) -> Replicates:
    """`Statistic.left_out` of a statistic that knows no shortcut, in blocks of lesions."""
    blocks = []
    for start in range(0, lesions, AT_ONCE):
        weights = np.ones((min(AT_ONCE, lesions - start), lesions))
        weights[np.arange(len(weights)), start + np.arange(len(weights))] = 0
        blocks.append(statistic.resampled(weights))
    return _joined(blocks)


def bootstrap(
    statistic: Statistic, *, lesions: int, resamples: int, seed: int, level: float, method: Method
) -> dict[str, dict[str, Any]]:
    """Give each number of a statistic with its interval.

    Args:
        statistic: Of the lesions.
        lesions: How many there are, L.
        resamples: How many times L lesions are drawn.
        seed: Of the draws.
        level: The share of resamples in the interval, for example 0.95.
        method: "percentile", or "bca": corrected for bias and skewness (Efron, J. Am. Stat. Assoc. 82:171-185
            (1987), doi:10.1080/01621459.1987.10478410), with the jackknife over lesions.

    Returns:
        For each number plain data: `value`, `low`, `high`, `method`; `value` or both ends are None where they
        cannot be computed, and `note` says why, or what to beware of.

    Raises:
        ValueError: A setting is out of range.
    """
    if resamples < 1 or not 0 < level < 1 or lesions < 1:
        raise ValueError(
            f"resamples is {resamples}, lesions {lesions} and level {level}; expected at least 1, at least 1 and "
            "between 0 and 1"
        )
    values = statistic.resampled(np.ones((1, lesions)))
    replicates = _joined([statistic.resampled(drawn) for drawn in draws(lesions, resamples=resamples, seed=seed)])
    left_out = statistic.jackknife() if method == "bca" and lesions > 1 else {}
    return {
        name: _interval(float(value[0]), replicates[name], left_out.get(name), level=level, method=method)
        for name, value in values.items()
    }


def sign_test(replicates: Floats) -> float:
    """The two-sided p value of a difference: how seldom its resamples reach zero, doubled (Davison & Hinkley 1997)."""
    known = replicates[~np.isnan(replicates)]
    rarer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (1 + rarer) / (1 + len(known)))


def bca_tails(value: float, replicates: Floats, left_out: Floats, *, level: float) -> tuple[float, float] | None:
    """The shares of resamples below the ends of a BCa interval; None where the correction is not defined.

    Args:
        value: The number itself.
        replicates: (R,) without NaN.
        left_out: (L,) the jackknife, without NaN.
        level: Of the interval.
    """
    normal = NormalDist()
    below = ((replicates < value).sum() + (replicates <= value).sum()) / (2 * len(replicates))  # ties count a half
    if not 0 < below < 1:
        return None
    influence = left_out.mean() - left_out
    spread = (influence**2).sum() ** 1.5
    acceleration = float((influence**3).sum() / (6 * spread)) if spread > 0 else 0.0
    bias = normal.inv_cdf(float(below))
    tails = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal.inv_cdf(tail)
        denominator = 1 - acceleration * z
        if denominator <= 0:
            return None
        tails.append(normal.cdf(bias + z / denominator))
    return tails[0], tails[1]


def _interval(
    value: float, replicates: Floats, left_out: Floats | None, *, level: float, method: Method
) -> dict[str, Any]:
    known = replicates[~np.isnan(replicates)]
    if np.isnan(value):
        return {"value": None, "low": None, "high": None, "method": method, "note": "not computable"}
    if len(known) < _FEW * len(replicates):
        share = f"computable in only {len(known) / len(replicates):.0%} of the resamples: no interval"
        return {"value": value, "low": None, "high": None, "method": method, "note": share}
    notes, tails = [], ((1 - level) / 2, (1 + level) / 2)
    if len(known) < len(replicates):
        notes.append(f"computable in {len(known) / len(replicates):.1%} of the resamples")
    if np.ptp(known) == 0:
        notes.append("all resamples agree: the interval says nothing about lesions not seen")
    elif method == "bca":
        corrected = None if left_out is None else bca_tails(value, known, left_out[~np.isnan(left_out)], level=level)
        if corrected is None:
            method = "percentile"
            notes.append("no BCa correction is defined")
        tails = corrected or tails
    low, high = (float(end) for end in np.quantile(known, tails))
    return {"value": value, "low": low, "high": high, "method": method, **({"note": "; ".join(notes)} if notes else {})}


def _joined(blocks: list[Replicates]) -> Replicates:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _less(first: Replicates, second: Replicates) -> Replicates:
    return {name: values - second[name] for name, values in first.items()}
