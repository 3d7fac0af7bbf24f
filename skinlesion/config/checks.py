"""Checks of values, each raising a ConfigError that names the key, the value and what was expected."""

import math
from collections.abc import Mapping, Sequence

from skinlesion.errors import ConfigError
from skinlesion.taxonomy import CODES


def require(holds: bool, key: str, value: object, expected: str) -> None:
    """Refuse `key=value` unless it `holds`, or where it is no finite number.

    Raises:
        ConfigError: It says what was `expected`.
    """
    if not holds or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{key}={value}: expected {expected}")


def require_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is none of the choices."""
    require(value in choices, key, value, f"one of {', '.join(choices)}")


def require_classes(key: str, classes: Mapping[str, str]) -> None:
    """Refuse words that stand neither for a diagnosis, nor for leaving images out or refusing them."""
    for word, meaning in classes.items():
        require_choice(f"{key}.{word}", meaning, (*CODES, "drop", "error"))


def require_seed(seed: int) -> None:
    """Refuse a seed that not all generators take."""
    require(0 <= seed < 2**32, "seed", seed, "a whole number, 0 to 2**32 - 1")


def require_tta(tta: str | None) -> None:
    """Refuse an unknown kind of test-time augmentation; None leaves it to the model."""
    if tta is not None:
        require_choice("tta", tta, ("none", "flips", "dihedral"))


def require_one_model(checkpoint: str | None, ensemble: str | None, *, otherwise: str = "") -> None:
    """Refuse no model, or two; `otherwise` is a further way that the verb has."""
    given = [value for value in (checkpoint, ensemble) if value is not None]
    if len(given) != 1:
        ways = f"checkpoint=best.ckpt or ensemble=ensemble.json{otherwise}"
        raise ConfigError(f"{len(given)} models given: expected one, as {ways}")


def require_bootstrap(resamples: int, level: float, interval: str) -> None:
    """Refuse too few resamples to read an interval from, a level that is none, or an unknown kind of interval."""
    require(resamples >= 100, "resamples", resamples, "at least 100")
    require(0.5 <= level < 1, "level", level, "0.5 or more, less than 1")
    require_choice("interval", interval, ("bca", "percentile"))


def require_shares(key: str, values: Sequence[float], example: str) -> None:
    """Refuse an empty list, or one with a number that is no share between 0 and 1."""
    named = f"{key}=[{','.join(str(value) for value in values)}]"
    if not values or not all(0 < value < 1 for value in values) or len(set(values)) < len(values):
        raise ConfigError(f"{named}: expected different numbers above 0, below 1, such as {key}=[{example}]")
