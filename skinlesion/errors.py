"""Errors that a user can mend: each message says what was given, what was expected and what to do."""


class SkinlesionError(Exception):
    """The ancestor of all errors that are reported as a message, without a traceback."""


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
