"""The space that a search draws from: an interval or choices for each key of `train`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from skinlesion.config.reference import written
from skinlesion.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Trial

_ENDS = {"low", "high"}


@dataclass(frozen=True)
class Dimension:
    """What may stand for one key of `train`.

    Attributes:
        key: Dotted, or the name of a group such as model.
        low: Least value; None: there are choices.
        high: Largest value.
        log: Whether values are drawn evenly on a logarithmic scale.
        choices: As on the command line; (): there is an interval.
    """

    key: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """Values that show whether `train` takes them all: the ends, or the choices."""
        return self.choices or (written(self.low), written(self.high))

    def suggest(self, trial: "Trial") -> str:
        """Draw a value, or take what the trial has already, as on the command line."""
        if self.choices:
            return str(trial.suggest_categorical(self.key, self.choices))
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return str(trial.suggest_int(self.key, self.low, self.high, log=self.log))
        return repr(trial.suggest_float(self.key, self.low, self.high, log=self.log))


def read_space(node: Mapping[str, Any]) -> list[Dimension]:
    """Read the key `space`.

    Args:
        node: Nested by the parts of a key, or with dots.

    Raises:
        ConfigError: An interval or a list of choices that cannot be drawn from; the key is named.
    """
    return list(_dimensions(node, ""))


def corners(space: list[Dimension]) -> list[list[str]]:
    """Overrides that hold every end and choice of the space at least once."""
    columns = [[f"{each.key}={value}" for value in each.ends] for each in space]
    return [[value or column[0] for value, column in zip(row, columns, strict=True)] for row in zip_longest(*columns)]


def _dimensions(node: Mapping[str, Any], prefix: str) -> Iterator[Dimension]:
    for name, about in node.items():
        key = f"{prefix}{name}"
        if isinstance(about, list):
            choices = tuple(written(value) for value in about)
            if len({*choices}) < len(choices) or len(choices) < 2:
                raise ConfigError(f"space.{key}={written(about)}: expected two choices or more, each once")
            yield Dimension(key, choices=choices)
        elif isinstance(about, dict) and not about.keys() & {*_ENDS, "log"}:
            yield from _dimensions(about, f"{key}.")
        else:
            yield _interval(key, about)


def _interval(key: str, about: Any) -> Dimension:
    known = isinstance(about, dict) and _ENDS <= about.keys() <= {*_ENDS, "log"}
    ends = [about["low"], about["high"]] if known else []
    numbers = known and all(type(end) in (int, float) for end in ends) and type(about.get("log", False)) is bool
    if not numbers:
        given = written(about)
        raise ConfigError(
            f"space.{key}={given}: expected {{low: NUMBER, high: NUMBER, log: true or false}}, or choices"
        )
    low, high, log = *ends, about.get("log", False)
    if not low < high:
        raise ConfigError(f"space.{key}: low={low}, high={high}: expected low below high")
    if log and low <= 0:
        raise ConfigError(f"space.{key}.low={low}: expected more than 0, where log=true")
    return Dimension(key, low, high, log)
