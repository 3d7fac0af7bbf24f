"""The bootstrap over lesions: percentile and BCa intervals of any number, and of the difference of two tables.

Lesions are drawn, each with all its images, because images of one lesion are alike (Field & Welsh, J. R. Stat. Soc.
B 69:369-390 (2007), doi:10.1111/j.1467-9868.2007.00593.x). A resample is how often each lesion counts, so that a
statistic computes hundreds of resamples at once, which `scipy.stats.bootstrap` cannot: it resamples rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Protocol

import numpy as np
import numpy.typing as npt

from skinlesion.metrics.classification import Floats, Integers
from skinlesion.metrics.estimate import BootstrapConfig, Estimate, Estimates

Replicates = dict[str, Floats]  # by name of the number: one value a resample, NaN where it cannot be computed

AT_ONCE = 256  # resamples computed at a time: bounds the memory
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
    """The numbers of one statistic less those of another of the same lesions, on the same resamples."""

    first: Statistic
    second: Statistic

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        second = self.second.resampled(weights)
        return {name: values - second[name] for name, values in self.first.resampled(weights).items()}

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        second = self.second.jackknife()
        return {name: values - second[name] for name, values in self.first.jackknife().items()}


def sums_of(columns: npt.ArrayLike, group: Integers) -> Floats:
    """Add up the rows of each lesion: (N, C) and (N,) lesion numbers to (L, C)."""
    values = np.asarray(columns, dtype=np.float64)
    total = np.zeros((int(group.max()) + 1, values.shape[1]))
    np.add.at(total, group, values)
    return total


def without_each(statistic: Statistic, lesions: int) -> Replicates:
    """The jackknife of a statistic that knows no shortcut, in blocks of lesions."""
    blocks = []
    for start in range(0, lesions, AT_ONCE):
        weights = np.ones((min(AT_ONCE, lesions - start), lesions))
        weights[np.arange(len(weights)), start + np.arange(len(weights))] = 0
        blocks.append(statistic.resampled(weights))
    return _joined(blocks)


def bootstrap(statistic: Statistic, config: BootstrapConfig, *, lesions: int, p_values: bool = False) -> Estimates:
    """Estimate each number of a statistic with its interval.

    Args:
        statistic: Numbers of L lesions.
        config: Settings of the intervals. BCa intervals are those of Efron, J. Am. Stat. Assoc. 82:171-185 (1987),
            doi:10.1080/01621459.1987.10478410, with the jackknife over lesions.
        lesions: Number of lesions, L.
        p_values: Give each number that has an interval the p value of its difference from zero.

    Returns:
        By name; a note says why a value or an interval is missing, or of what to beware.

    Raises:
        ValueError: There is no lesion.
    """
    if lesions < 1:
        raise ValueError(f"lesions is {lesions}; expected at least 1")
    values = statistic.resampled(np.ones((1, lesions)))
    replicates = _joined([statistic.resampled(weights) for weights in _draws(lesions, config)])
    jackknife = statistic.jackknife() if config.method == "bca" and lesions > 1 else {}
    found = {
        name: replace(_interval(float(value[0]), replicates[name], jackknife.get(name), config), n=lesions)
        for name, value in values.items()
    }
    if not p_values:
        return found
    return {
        name: each if each.low is None else replace(each, p=sign_test(replicates[name])) for name, each in found.items()
    }


def sign_test(replicates: Floats) -> float:
    """Two-sided p value of a difference: twice the share of its resamples beyond zero (Davison & Hinkley 1997)."""
    known = replicates[~np.isnan(replicates)]
    rarer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (1 + rarer) / (1 + len(known)))


def bca_tails(value: float, replicates: Floats, jackknife: Floats, *, level: float) -> tuple[float, float] | None:
    """Shares of resamples below the ends of a BCa interval; None where the correction is not defined.

    Args:
        value: The number itself.
        replicates: (R,) without NaN.
        jackknife: (L,) without NaN.
        level: Level of the interval, between 0 and 1.
    """
    normal = NormalDist()
    below = ((replicates < value).sum() + (replicates <= value).sum()) / (2 * len(replicates))  # ties count a half
    if not 0 < below < 1:
        return None
    influence = jackknife.mean() - jackknife
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


def _draws(lesions: int, config: BootstrapConfig) -> Iterator[Floats]:
    """Yield (at most `AT_ONCE`, L) counts of how often each of L lesions is drawn."""
    generator = np.random.default_rng(config.seed)
    for start in range(0, config.resamples, AT_ONCE):
        rows = min(AT_ONCE, config.resamples - start)
        drawn = generator.integers(0, lesions, (rows, lesions)) + np.arange(rows)[:, None] * lesions
        yield np.bincount(drawn.ravel(), minlength=rows * lesions).reshape(rows, lesions).astype(np.float64)


def _interval(value: float, replicates: Floats, jackknife: Floats | None, config: BootstrapConfig) -> Estimate:
    method, known = config.method, replicates[~np.isnan(replicates)]
    if np.isnan(value):
        return Estimate(None, method=method, note="not computable")
    if len(known) < _FEW * len(replicates):
        note = f"computable in only {len(known) / len(replicates):.0%} of the resamples: no interval"
        return Estimate(value, method=method, note=note)
    notes, tails = [], ((1 - config.level) / 2, (1 + config.level) / 2)
    if len(known) < len(replicates):
        notes.append(f"computable in {len(known) / len(replicates):.1%} of the resamples")
    if np.ptp(known) == 0:
        notes.append("all resamples agree: the interval says nothing about lesions not seen")
    elif method == "bca":
        usable = None if jackknife is None else jackknife[~np.isnan(jackknife)]
        corrected = None if usable is None else bca_tails(value, known, usable, level=config.level)
        if corrected is None:
            method = "percentile"
            notes.append("no BCa correction is defined")
        tails = corrected or tails
    low, high = (float(end) for end in np.quantile(known, tails))
    return Estimate(value, low, high, method=method, note="; ".join(notes))


def _joined(blocks: list[Replicates]) -> Replicates:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
