"""The bootstrap over lesions: percentile and BCa intervals of any number, and of the difference of two tables.

Lesions are drawn, each with all its images, because images of one lesion are alike (Field & Welsh, J. R. Stat. Soc.
B 69:369-390 (2007), doi:10.1111/j.1467-9868.2007.00593.x). A resample is how often each lesion counts, so that a
statistic computes hundreds of resamples at once, which `scipy.stats.bootstrap` cannot: it resamples rows.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from skinlesion.metrics.classification import Floats, Integers
from skinlesion.metrics.estimate import EXACT, FEW_LESIONS, BootstrapConfig, Estimate, Estimates

Replicates = dict[str, Floats]  # by name of the number: one value a resample, NaN where it cannot be computed

AT_ONCE = 256  # resamples computed at a time, fewer of very many lesions: bounds the memory
_MOST_COUNTS = 1 << 25  # how often a lesion counts in a resample: such numbers at a time
ONE_BY_ONE = 20_000  # lesions that are left out of a jackknife one by one at most
GROUPS = 2_000  # of more
FEW = 0.9  # a number that fewer than this share of the resamples can compute gets no bootstrap interval
NO_WIDTH = 1e-12  # a narrower interval has only the width of rounding


class Statistic(Protocol):
    """Numbers of a table, as functions of how often each of its L lesions counts."""

    def resampled(self, weights: Floats) -> Replicates:
        """The numbers for each row of (R, L) weights."""
        ...

    def jackknife(self) -> Replicates:
        """The numbers without one lesion, for each of the L lesions, or without each of many groups of them."""
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

    def denominators(self, *names: str) -> dict[str, int]:
        """Lesions in the denominator of each named proportion: those that have the proportion alone."""
        alone = self.finish(self.sums)
        return {name: int((~np.isnan(alone[name])).sum()) for name in names}


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
    """The jackknife of a statistic that knows no shortcut: the numbers without each lesion, in blocks.

    More than `ONE_BY_ONE` lesions are left out in `GROUPS` random groups of equal size: acceleration and variance that
    follow from these are estimates of the same (Kott, J. Off. Stat. 17:521-526, 2001), in linear time.
    """
    groups = lesions if lesions <= ONE_BY_ONE else GROUPS
    group = np.arange(lesions) if groups == lesions else np.random.default_rng(0).permutation(lesions) % groups
    numbers = np.arange(groups)[:, None]
    starts, rows = range(0, groups, at_once(lesions)), at_once(lesions)
    blocks = [statistic.resampled((group != numbers[start : start + rows]).astype(np.float64)) for start in starts]
    return joined(blocks)


def at_once(lesions: int) -> int:
    """Number of resamples that are computed at a time."""
    return min(AT_ONCE, max(1, _MOST_COUNTS // lesions))


def bootstrap(
    statistic: Statistic,
    config: BootstrapConfig,
    *,
    lesions: int,
    proportions: Mapping[str, int] | None = None,
) -> Estimates:
    """Estimate each number of a statistic with its interval.

    Resamples that all agree, as where 4 of 4 are right, show nothing of lesions not seen. A proportion then gets the
    exact interval of its lesions, as it does where too few resamples have it, and where fewer than `FEW_LESIONS` are in
    its denominator, since bootstrap intervals of so few cover less than their level; any other number gets none.

    Args:
        statistic: Numbers of L lesions.
        config: Settings of the intervals. BCa intervals are those of Efron, J. Am. Stat. Assoc. 82:171-185 (1987),
            doi:10.1080/01621459.1987.10478410, with the jackknife over lesions.
        lesions: Number of lesions, L.
        proportions: Numbers that are proportions, with the number of lesions in their denominator.

    Returns:
        By name; a note says why a value or an interval is missing, or of what to beware.

    Raises:
        ValueError: There is no lesion.
    """
    if lesions < 1:
        raise ValueError(f"lesions is {lesions}; expected at least 1")
    values = statistic.resampled(np.ones((1, lesions)))
    replicates = joined([statistic.resampled(weights) for weights in lesion_draws(lesions, config)])
    jackknife = statistic.jackknife() if config.method == "bca" and lesions > 1 else {}
    found = {}
    for name, (value,) in values.items():
        each = _interval(float(value), replicates[name], jackknife.get(name), config)
        count = (proportions or {}).get(name, 0)
        if each.value is not None and count and (each.low is None or count < FEW_LESIONS):
            low, high = clopper_pearson(each.value, count, level=config.level)
            reason = (
                each.note.partition(": no interval")[0] if each.low is None else f"fewer than {FEW_LESIONS} lesions"
            )
            note = f"{reason}: Clopper-Pearson interval (n = {count})"
            each = replace(each, low=low, high=high, method=EXACT, note=note)
        found[name] = replace(each, n=lesions)
    return found


def clopper_pearson(share: float, count: int, *, level: float) -> tuple[float, float]:
    """Exact interval of a proportion of `count` independent lesions (Clopper & Pearson, Biometrika 26:404-413, 1934).

    Lesions of several images count as one each (Korn & Graubard, Surv. Methodol. 24:193-201, 1998).
    """
    tail, hits = (1 - level) / 2, share * count
    low = float(betaincinv(hits, count - hits + 1, tail)) if share > 0 else 0.0
    return low, float(betaincinv(hits + 1, count - hits, 1 - tail)) if share < 1 else 1.0


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


def lesion_draws(lesions: int, config: BootstrapConfig) -> Iterator[Floats]:
    """Yield (at most `at_once`, L) counts of how often each of L lesions is drawn."""
    generator = np.random.default_rng(config.seed)
    for start in range(0, config.resamples, at_once(lesions)):
        rows = min(at_once(lesions), config.resamples - start)
        drawn = generator.integers(0, lesions, (rows, lesions)) + np.arange(rows)[:, None] * lesions
        yield np.bincount(drawn.ravel(), minlength=rows * lesions).reshape(rows, lesions).astype(np.float64)


def _interval(value: float, replicates: Floats, jackknife: Floats | None, config: BootstrapConfig) -> Estimate:
    method, known = config.method, replicates[~np.isnan(replicates)]
    if np.isnan(value):
        return Estimate(None, method=method, note="not computable")
    if len(known) < FEW * len(replicates):
        note = f"computable in only {len(known) / len(replicates):.0%} of the resamples: no interval"
        return Estimate(value, method=method, note=note)
    notes, tails = [], ((1 - config.level) / 2, (1 + config.level) / 2)
    if len(known) < len(replicates):
        notes.append(f"computable in {len(known) / len(replicates):.1%} of the resamples")
    if method == "bca" and np.ptp(known) > NO_WIDTH:
        usable = None if jackknife is None else jackknife[~np.isnan(jackknife)]
        corrected = None if usable is None else bca_tails(value, known, usable, level=config.level)
        if corrected is None:
            method = "percentile"
            notes.append("no BCa correction is defined")
        tails = corrected or tails
    low, high = (float(end) for end in np.quantile(known, tails))
    if high - low <= NO_WIDTH:
        return Estimate(value, method=method, note="; ".join([*notes, "all resamples agree: no interval"]))
    return Estimate(value, low, high, method=method, note="; ".join(notes))


def joined(blocks: list[Replicates]) -> Replicates:
    """The numbers of several blocks of resamples, one after the other."""
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
