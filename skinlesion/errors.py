"""Errors that a user can mend: each message says what was given, what was expected and what to do."""

import re
from collections.abc import Iterable
from typing import Self

# all that moves a cursor or turns a line around; new lines and tabs stay
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class SkinlesionError(Exception):
    """The ancestor of all errors that are reported as a message, without a traceback."""

    def __str__(self) -> str:
        return printable(super().__str__())

    @classmethod
    def listing(cls, title: str, problems: Iterable[str]) -> Self:
        """Make an error of a title and one line for each problem."""
        return cls("\n- ".join([title, *problems]))


class ConfigError(SkinlesionError):
    """A configuration key or value that cannot be used."""


class DataError(SkinlesionError):
    """A table, image or folder that cannot be used."""


class ProcessError(SkinlesionError):
    """One of several processes that train together has ended, and the others with it."""


class TimeLimitError(SkinlesionError):
    """A training has been stopped by its time limit; it can go on."""


class CheckpointError(SkinlesionError):
    """A checkpoint, ensemble or weight file that cannot be used."""


class BundleError(SkinlesionError):
    """An exported bundle that cannot be used."""


def printable(text: str) -> str:
    """Spell control characters, which a file's name may hold, so that a terminal does not obey them."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def counted(number: int, noun: str) -> str:
    """Spell a number of things for a message: "1 image", "1,200 images"."""
    ending = "" if number == 1 else "es" if noun.endswith("tch") else "s"
    return f"{number:,} {noun}{ending}"


def first_five(items: Iterable[object]) -> str:
    """Name the first five of `items` for a message, and how many there are if more."""
    names = [str(item).replace("\n", "\\n") for item in items]
    return ", ".join(names[:5]) + (f" (first 5 of {len(names):,})" if len(names) > 5 else "")
