"""Numbers as a report writes them."""

import re
from typing import Any

NOT_COMPUTABLE = "not computable"
_INTERVAL = re.compile(r"\[[^\[\]]*\]")


def decimal(value: float | None) -> str:
    """Three decimals, or that there is no number."""
    return NOT_COMPUTABLE if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal where it is not whole, or that there is no number."""
    if value is None:
        return NOT_COMPUTABLE
    return f"{100 * value:.1f}".removesuffix(".0") + "\u00a0%"


def ranged(number: dict[str, Any] | None) -> str:
    """A number with its interval: three decimals."""
    return _with_interval(number, decimal)


def ranged_percent(number: dict[str, Any] | None) -> str:
    """A share with its interval, as percentages with one decimal."""
    return _with_interval(number, lambda value: NOT_COMPUTABLE if value is None else f"{100 * value:.1f}\u00a0%")


def unbroken(text: str) -> str:
    """The same words, with intervals that no line end tears apart."""
    return _INTERVAL.sub(lambda found: found[0].replace(" ", "\u00a0"), text)


def change(number: dict[str, Any]) -> str:
    """A difference with its sign, interval and p value."""
    if number["value"] is None:
        return NOT_COMPUTABLE
    if number["low"] is None:
        return f"{number['value']:+.3f} (no interval)"
    p = "" if number.get("p") is None else f", p = {number['p']:.3f}"
    return f"{number['value']:+.3f} [{number['low']:+.3f}, {number['high']:+.3f}]{p}"


def _with_interval(number: dict[str, Any] | None, form: Any) -> str:
    if number is None or number["value"] is None:
        return NOT_COMPUTABLE
    if number["low"] is None:
        return f"{form(number['value'])} (no interval)"
    low, high = (form(number[end]).removesuffix("\u00a0%") for end in ("low", "high"))
    return f"{form(number['value'])} [{low}, {high}]"
