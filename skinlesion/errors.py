"""Errors that a user can mend: each message says what was given, what was expected and what to do."""

from collections.abc import Iterable
from typing import Self


class SkinlesionError(Exception):
    """The ancestor of all errors that are reported as a message, without a traceback."""

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


class CheckpointError(SkinlesionError):
    """A checkpoint, ensemble or weight file that cannot be used."""


class BundleError(SkinlesionError):
    """An exported bundle that cannot be used."""


def first_five(items: Iterable[object]) -> str:
    """Name the first five of `items` for a message, and how many there are if more."""
    names = [str(item) for item in items]
    return ", ".join(names[:5]) + (f" (first 5 of {len(names):,})" if len(names) > 5 else "")
