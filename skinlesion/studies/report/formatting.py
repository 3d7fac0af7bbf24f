"""Formatting of numbers in a report."""

import re
from collections.abc import Callable

from skinlesion.metrics.estimate import Estimate

NOT_COMPUTABLE = "not computable"
_INTERVAL = re.compile(r"\[[^\[\]]*\]|\(no interval\)")


def decimal(value: float | None) -> str:
    """A number with three decimals."""
    return NOT_COMPUTABLE if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share as a percentage, with one decimal unless it is whole."""
    return NOT_COMPUTABLE if value is None else f"{100 * value:.1f}".removesuffix(".0") + "\u00a0%"


def ranged(number: Estimate | None) -> str:
    """A number with its interval, with three decimals."""
    return _with_interval(number, lambda value: f"{value:.3f}", unit="")


def ranged_percent(number: Estimate | None) -> str:
    """A share with its interval, as percentages with one decimal."""
    return _with_interval(number, lambda value: f"{100 * value:.1f}", unit="\u00a0%")


def change(number: Estimate) -> str:
    """A difference with sign, interval and p value."""
    p = "" if number.p is None else f", p = {number.p:.3f}"
    return _with_interval(number, lambda value: f"{value:+.3f}", unit="") + ("" if number.low is None else p)


def unbroken(text: str) -> str:
    """The same text without line breaks inside intervals."""
    return _INTERVAL.sub(lambda found: found[0].replace(" ", "\u00a0"), text)


def _with_interval(number: Estimate | None, form: Callable[[float], str], *, unit: str) -> str:
    if number is None or number.value is None:
        return NOT_COMPUTABLE
    if number.low is None or number.high is None:
        return f"{form(number.value)}{unit} (no interval)"
    return f"{form(number.value)}{unit} [{form(number.low)}, {form(number.high)}]"
