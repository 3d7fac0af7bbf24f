"""Words for the schemas: what a field's type cannot say, and checks that raise a ConfigError naming the key.

`Annotated[float, Range(0, 1)]` is checked by `validation.typed` and printed by `--help`, so a range stands once.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, get_args, get_type_hints

from skinlesion.errors import ConfigError


class _Constraint(Protocol):
    def holds(self, value: Any) -> bool:
        """Whether a value is allowed."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Check what pydantic reads from a file."""
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: Any) -> Any:
            if not self.holds(value):
                raise PydanticCustomError(
                    "constraint", "{value}: expected {it}", {"value": repr(value)[:60], "it": str(self)}
                )
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


@dataclass(frozen=True)
class Range(_Constraint):
    """Finite numbers between two bounds; of a list, each number.

    Attributes:
        low: Lower bound.
        high: Upper bound.
        above: `low` itself is refused.
        below: `high` itself is refused.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a number lies within the bounds."""
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        return bool(low and high and math.isfinite(value))

    def __str__(self) -> str:
        high = f"{self.high:.10g}"
        if self.high == math.inf:
            return f"more than {self.low:g}" if self.above else f"{self.low:g} or more"
        if not self.above and not self.below:
            return f"{self.low:g} to {high}"
        low = f"more than {self.low:g}" if self.above else f"{self.low:g} or more"
        return f"{low}, {'less than' if self.below else 'at most'} {high}"


class OneOf(tuple[str, ...], _Constraint):
    """Words of which a field takes one."""

    def holds(self, value: Any) -> bool:
        """Whether a word is one of these."""
        return value in self

    def __str__(self) -> str:
        return f"one of {', '.join(self)}"


@dataclass(frozen=True)
class Matching(_Constraint):
    """Words of one form."""

    pattern: str  # regular expression of a whole word
    form: str  # for people

    def holds(self, value: Any) -> bool:
        """Whether a word has this form."""
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.form


PATH = "path"
PathText = Annotated[str, PATH]  # a file or folder: taken literally on the command line
Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0, 1, above=True, below=True)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Count = Annotated[int, Range(1)]
FileName = Annotated[str, Matching(r"(?!\.{1,2}$)[^/\\:\0-\x1f]+", "the name of a file in the same folder")]
Sha256 = Annotated[str, Matching("[0-9a-f]{64}", "64 hexadecimal digits")]
Tta = Annotated[str, OneOf(("none", "flips", "dihedral", "scales"))]


@dataclass
class BootstrapKeys:
    """The keys of every command that gives intervals."""

    interval: Annotated[str, OneOf(("bca", "percentile"))]  # kind of the bootstrap intervals
    resamples: Annotated[int, Range(100)]  # number of bootstrap resamples of the lesions
    level: Annotated[float, Range(0.5, 1, below=True)]  # confidence level of the intervals
    seed: Seed  # seed of the bootstrap and of other random draws


def constraints(hint: Any) -> Iterator[Any]:
    """Go through the annotations of a type: `Range`, `OneOf` or `PATH`."""
    yield from getattr(hint, "__metadata__", ())
    for part in get_args(hint):
        yield from constraints(part)


def hints(schema: type) -> dict[str, Any]:
    """The fields' types with their annotations, by key as it stands in YAML (`class`, whose field is `class_`)."""
    return {name.removesuffix("_"): hint for name, hint in get_type_hints(schema, include_extras=True).items()}


def check_annotations(node: Any, prefix: str = "") -> None:
    """Check each annotated field of a configuration and of what it holds.

    Args:
        node: A schema's instance.
        prefix: Dotted key of the node, with a dot at the end.

    Raises:
        ConfigError: A value is out of range, or none of the choices.
    """
    for name, hint in hints(type(node)).items():
        value = getattr(node, name if hasattr(node, name) else f"{name}_")
        for constraint in constraints(hint):
            _check(f"{prefix}{name}", value, constraint)
        if hasattr(value, "__dataclass_fields__"):
            check_annotations(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, each in value.items():
                if hasattr(each, "__dataclass_fields__"):
                    check_annotations(each, f"{prefix}{name}.{key}.")


def _check(key: str, value: Any, constraint: Any) -> None:
    if not isinstance(constraint, Range | OneOf) or value is None:
        return
    numbers = isinstance(constraint, Range)
    for each in value if isinstance(value, list) else [value]:
        if not numbers or isinstance(each, int | float):
            require(constraint.holds(each), key, value, str(constraint))


def require(holds: bool, key: str, value: object, expected: str) -> None:
    """Refuse `key=value` unless it `holds`, or where it is no finite number.

    Raises:
        ConfigError: The message says what was `expected`.
    """
    if not holds or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{key if value is None else f'{key}={value}'}: expected {expected}")


def require_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is none of the choices."""
    require(value in choices, key, value, str(OneOf(choices)))


def require_classes(key: str, classes: Mapping[str, str], codes: Iterable[str]) -> None:
    """Refuse a word of a table that stands neither for a diagnosis nor for drop or error."""
    for word, meaning in classes.items():
        require_choice(f"{key}.{word}", meaning, (*codes, "drop", "error"))


def require_size(key: str, size: Sequence[int] | None, *, least: int) -> None:
    """Refuse anything but a height and a width in pixels, or null."""
    fits = size is None or (len(size) == 2 and min(size) >= least)
    require(fits, key, size, f"[height, width] of {least} pixels or more")


def require_one_model(checkpoint: str | None, ensemble: str | None, *, otherwise: str = "") -> None:
    """Refuse no model, or two; `otherwise` is a further way that the command has."""
    given = [value for value in (checkpoint, ensemble) if value is not None]
    if len(given) != 1:
        ways = f"checkpoint=best.ckpt or ensemble=ensemble.json{otherwise}"
        raise ConfigError(f"{len(given)} models given: expected one, as {ways}")


def require_shares(key: str, values: Sequence[float], example: str) -> None:
    """Refuse an empty list, a share that is not between 0 and 1, or one that is given twice."""
    named = f"{key}=[{','.join(str(value) for value in values)}]"
    if not values or not all(0 < value < 1 for value in values) or len(set(values)) < len(values):
        raise ConfigError(f"{named}: expected different numbers above 0, below 1, such as {key}=[{example}]")
