"""The one gate every configuration passes: composed YAML in, checked dataclasses out, errors in one to three lines."""

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import TypeVar, cast, get_type_hints

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from skinlesion.errors import ConfigError
from skinlesion.files import config_dir

Schema = TypeVar("Schema")


def typed(config: DictConfig, schema: type[Schema]) -> Schema:
    """Merge a composed configuration into its dataclasses.

    Args:
        config: As Hydra composed it.
        schema: The dataclass of the verb.

    Raises:
        ConfigError: An unknown key, a wrong type, a missing value or a value out of range; the message names the key.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), _fields(config, schema))
        return cast(Schema, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error, schema)) from error


def _fields(config: DictConfig, schema: type) -> DictConfig:
    """Name a key that is a word of Python's, such as `class`, as its field is: `class_`."""
    reserved = {name[:-1]: name for name in get_type_hints(schema) if name.endswith("_")}
    return OmegaConf.create({reserved.get(str(key), key): value for key, value in config.items_ex(resolve=False)})


def explain(error: Exception, schema: type | None = None) -> str:
    """Say in one to three lines what is wrong with a configuration, by the key, and what to do.

    Args:
        error: What Hydra or OmegaConf raised.
        schema: Where close names are looked for.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", None) or "")
    first = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    if isinstance(error, MissingConfigException):
        return _unknown_choice(error)
    if isinstance(cause, ConfigKeyError) or "is not in struct" in str(cause):
        return f"{key}: unknown key{_suggestion(key, schema)}"
    if isinstance(cause, MissingMandatoryValue):
        return f"{key}: a value is needed; give {key}=VALUE"
    if "is not a ListConfig" in first:
        return f"{key}: expected a list, such as {key}=[1,2]"
    if isinstance(cause, InterpolationKeyError | InterpolationResolutionError | ValidationError):
        return f"{key}: {first}"
    if "Config group override must be" in first:
        return _no_choice(sys.argv[1:])
    if isinstance(error, HydraException):
        return _override_error(str(error))
    return f"{key}: {first}" if key else first


def known_keys(schema: type, prefix: str = "") -> list[str]:
    """All keys of a schema, dotted; the keys of a mapping's values stand behind a `*`."""
    keys: list[str] = []
    for name, hint in get_type_hints(schema).items():
        key = f"{prefix}{name.removesuffix('_')}"
        keys.append(key)
        inner = [part for part in (hint, *getattr(hint, "__args__", ())) if is_dataclass(part)]
        wild = "" if hint in inner else "*."
        for part in inner:
            keys.extend(known_keys(cast(type, part), f"{key}.{wild}"))
    return keys


def _suggestion(key: str, schema: type | None) -> str:
    if schema is None:
        return ""
    keys = known_keys(schema)
    close = difflib.get_close_matches(key, keys, n=2, cutoff=0.75)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    parent = key.rpartition(".")[0]
    siblings = [known for known in keys if known.rpartition(".")[0] == parent]
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def _no_choice(words: Sequence[str]) -> str:
    """Name the word that gives a group no name: Hydra's own message tells only the type of its value."""
    pairs = [word.partition("=")[::2] for word in words]
    groups = [(key, value) for key, value in pairs if key and (config_dir() / key).is_dir()]
    named = [f"{key}={value}: " for key, value in groups if not (config_dir() / key / f"{value}.yaml").is_file()]
    return f"{''.join(named[:1])}expected the name of a choice, such as model=resnet50"


def _unknown_choice(error: MissingConfigException) -> str:
    missing = str(error.missing_cfg_file or "").removesuffix(".yaml")
    group, _, choice = missing.rpartition("/")
    options: Sequence[str] = error.options or ()
    if group and options:
        return f"{group}={choice}: unknown choice; expected one of {', '.join(sorted(options))}"
    return re.sub(r"\s+", " ", str(error)).strip()


def _override_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    unknown_group = re.search(r"Could not override '([^']+)'\.\s*No match in the defaults list", text)
    if unknown_group:
        return f"{unknown_group[1]}: unknown key"
    return " ".join(lines[:2])
