"""Numbers with intervals, and the settings of the intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

Method = Literal["percentile", "bca"]
Test = Literal["permutation", "mcnemar", "seeds"]
EXACT: Literal["clopper_pearson"] = "clopper_pearson"
MARK = "†"  # stands behind an exact interval where numbers are printed
FEW_MARK = "‡"  # stands behind a bootstrap interval of fewer than `FEW_LESIONS` of a diagnosis
FEW_LESIONS = 30
NOT_COMPUTABLE = "not computable"
NONE = "[–]"  # stands in place of a missing interval
MARK_NOTE = (
    f"{MARK}: Clopper-Pearson interval over lesions, where they are fewer than {FEW_LESIONS}, all resamples agree or "
    f"too few are computable; {FEW_MARK}: fewer than {FEW_LESIONS} lesions of the diagnosis, the interval may cover "
    f"less than its level; {NONE}: no interval."
)


@dataclass(frozen=True)
class Estimate:
    """A number measured on a sample, with the interval that the bootstrap gives it.

    Attributes:
        value: The number; None where it cannot be computed.
        low: Lower end of the interval; None where there is none.
        high: Upper end, likewise.
        n: Lesions (or patients) that were resampled; None where nothing was.
        method: "bca" or "percentile"; "clopper_pearson" of a proportion to which the bootstrap gives no interval;
            "permutation" or "mcnemar" of a difference, the test of its p value; "seeds" over seeds and lesions.
        note: Reason for a missing number or interval, or a caveat; "" without one.
        few: Lesions of the diagnosis, where a bootstrap interval of so few may cover less than its level; else None.
        p: Two-sided p value of a difference; None of any other number, or where there is none.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    method: Method | Test | Literal["clopper_pearson"] = "bca"
    note: str = ""
    p: float | None = None
    few: int | None = None

    def within(self, limits: tuple[float, float]) -> Self:
        """The estimate, with the ends of its interval moved into the range of what it can be."""
        if self.low is None or self.high is None:
            return self
        return replace(self, low=max(self.low, limits[0]), high=min(self.high, limits[1]))

    def ends(self, form: str = ".3f", *, scale: float = 1.0) -> str:
        """The interval in brackets as numbers of a format, with `MARK` or `FEW_MARK` behind it; `NONE` without one."""
        if self.low is None or self.high is None:
            return NONE
        low, high = (f"{scale * end:{form}}" for end in (self.low, self.high))
        return f"[{low}, {high}]{MARK if self.method == EXACT else FEW_MARK if self.few is not None else ''}"

    def text(self, form: str = ".3f", *, scale: float = 1.0, unit: str = "") -> str:
        """The number and its interval, each as a number of a format; `NOT_COMPUTABLE` without a number."""
        if self.value is None:
            return NOT_COMPUTABLE
        return f"{scale * self.value:{form}}{unit} {self.ends(form, scale=scale)}"

    def p_text(self) -> str:
        """The p value with three digits, which are never all zero."""
        return "" if self.p is None else f"p = {self.p:.3f}" if self.p >= 0.0005 else "p < 0.001"

    def to_dict(self, *, difference: bool = False) -> dict[str, Any]:
        """Plain data for JSON; `note` only where there is one, `p` only of a difference."""
        plain: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "method": self.method}
        plain |= {"n": self.n} if self.n is not None else {}
        plain |= {"note": self.note} if self.note else {}
        plain |= {"few": self.few} if self.few is not None else {}
        return plain | ({"p": self.p} if difference else {})

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild an estimate from `to_dict`."""
        return cls(**state)


def possible(metric: str, *, difference: bool) -> tuple[float, float]:
    """Least and largest value of a metric of `metrics_with_ci`, mostly a share or area, or of a difference of two."""
    first = metric.partition("_")[0]
    largest = {"brier": 2.0, **dict.fromkeys(("nll", "intercept", "slope", "oe"), math.inf)}.get(first, 1.0)
    return (-largest if difference or math.isinf(largest) else 0.0), largest


def is_marked(cell: str) -> bool:
    """Whether a printed cell needs the `MARK_NOTE`."""
    return any(mark in cell for mark in (MARK, FEW_MARK, NONE))


Estimates = dict[str, Estimate]
"""Estimates by the name of the number."""


def estimates_to_dict(estimates: Mapping[str, Estimate], *, difference: bool = False) -> dict[str, dict[str, Any]]:
    """Plain data for JSON, by the name of the number."""
    return {name: each.to_dict(difference=difference) for name, each in estimates.items()}


@dataclass(frozen=True)
class BootstrapConfig:
    """Settings of the bootstrap intervals.

    Attributes:
        resamples: Number of resamples of the bootstrap over lesions, at least 1.
        seed: Seed of its draws.
        level: Share of resamples in an interval, between 0 and 1.
        method: "bca" (corrected for bias and skewness) or "percentile".

    Raises:
        ValueError: A setting is out of range.
    """

    resamples: int = 2000
    seed: int = 1
    level: float = 0.95
    method: Method = "bca"

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.level < 1 or self.method not in ("percentile", "bca"):
            raise ValueError(
                f"resamples is {self.resamples}, level {self.level} and method {self.method}; expected at least 1, "
                "between 0 and 1, and percentile or bca"
            )

    @classmethod
    def of(cls, settings: Any) -> Self:
        """The settings of a command: its `resamples`, `seed`, `level` and `interval`."""
        return cls(settings.resamples, settings.seed, settings.level, settings.interval)
