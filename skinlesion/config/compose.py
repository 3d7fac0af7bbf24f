"""A verb's checked configuration from Python, as the command line composes it: for notebooks and scripts."""

from typing import TypeVar

from hydra import compose, initialize_config_dir

from skinlesion.config.validation import typed
from skinlesion.files import config_dir

Schema = TypeVar("Schema")


def configuration(verb: str, schema: type[Schema], *overrides: str) -> Schema:
    """Compose `conf/VERB.yaml` with overrides and pass it through the gate.

    Args:
        verb: train, evaluate, audit and so on.
        schema: The verb's dataclass in `skinlesion.config.VERB`.
        overrides: As on the command line, `data.root=demo/data`.

    Raises:
        ConfigError: A key or a value that the command line would refuse too.
        hydra.errors.HydraException: A choice that does not exist.
    """
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return typed(compose(verb, list(overrides)), schema)
