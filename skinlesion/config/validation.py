"""Composed YAML in, checked dataclasses out; errors in one to three lines."""

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
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

from skinlesion.config.overrides import read_words, unknown_key
from skinlesion.config.reference import ANY, keys
from skinlesion.config.schema import check_annotations, hints
from skinlesion.config.values import ENCODED
from skinlesion.errors import ConfigError
from skinlesion.files import config_dir, require_writable

Schema = TypeVar("Schema")

LAUNCHERS = {name: name.partition("_")[0] for name in ("joblib", "submitit_local", "submitit_slurm", "ray", "ray_aws")}
"""Extra that brings each launcher of Hydra's plugins."""


def focal_name(alpha: Any, gamma: Any) -> str:
    """The name of a focal loss in folder names: a05_g20 for alpha 0.5 and gamma 2.0, one name for each pair."""

    def digits(value: Any) -> str:
        is_short = isinstance(value, int | float) and 0 <= value < 10 and value == round(value, 1)
        return f"{value:.1f}".replace(".", "") if is_short else str(value if isinstance(value, str) else float(value))

    return f"a{digits(alpha)}_g{digits(gamma)}"


OmegaConf.register_new_resolver("focal_name", focal_name, replace=True)


def configuration(command: str, schema: type[Schema], *overrides: str) -> Schema:
    """Compose the checked configuration of a command, as the command line does: for notebooks and scripts.

    Args:
        command: Name of the command, such as train.
        schema: The command's dataclass.
        overrides: As on the command line, such as `data.root=demo/data`.

    Raises:
        ConfigError: A key or a value that the command line would refuse too.
    """
    line = read_words(overrides, command, schema)
    is_inside = GlobalHydra.instance().is_initialized()  # a command composes the configuration of another one
    try:
        with nullcontext() if is_inside else initialize_config_dir(str(config_dir()), version_base="1.3"):
            return typed(compose(command, list(line.overrides)), schema)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, schema)) from error


def typed(config: DictConfig, schema: type[Schema]) -> Schema:
    """Merge a composed configuration into its dataclasses.

    Args:
        config: Configuration from Hydra.
        schema: The command's dataclass.

    Raises:
        ConfigError: An unknown key, a wrong type, a missing value or a value out of range; the message names the key.
    """
    try:
        # `class`, a word of Python's, is the field `class_`
        reserved = {key: f"{key}_" for key in hints(schema) if key not in schema.__dataclass_fields__}  # type: ignore[attr-defined]
        fields = _decoded(OmegaConf.to_container(config))
        fields = {reserved.get(key, key): value for key, value in fields.items()}
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(fields))
        checked = cast(Schema, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error, schema)) from error
    check_annotations(checked)
    return checked


def _decoded(node: Any) -> Any:
    """A configuration with the names in its mappings as the user wrote them."""
    if not isinstance(node, dict):
        return node
    names = {key: unquote(key.removeprefix(ENCODED)) if str(key).startswith(ENCODED) else key for key in node}
    return {names[key]: _decoded(value) for key, value in node.items()}


def require_out(command: str, config: Any) -> None:
    """Refuse now a place of results that cannot be written: `out`, or beside the model where no `out` is given.

    Raises:
        ConfigError: It cannot be written.
    """
    beside = [getattr(config, key, None) for key in ("ensemble", "checkpoint", "submission", "members")]
    models = [Path(value) for value in beside if isinstance(value, str)]
    if command in ("compare", "export", "predict"):  # a file, and a folder that is made beside its place
        places = [Path(config.out).absolute().parent] if config.out else []
    elif getattr(config, "out", None):
        places = [Path(config.out)]
    else:
        places = [model if model.is_dir() else model.parent for model in models if hasattr(config, "out")]
    for place in places:
        require_writable(place, "out")


def explain(error: Exception, schema: type) -> str:
    """Say in one to three lines what is wrong with a configuration, by the key, and what to do.

    Args:
        error: Raised by Hydra or OmegaConf.
        schema: The command's dataclass, where the key that is meant is looked for.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", None) or "")
    first = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    if isinstance(error, MissingConfigException):
        return _unknown_choice(error)
    if isinstance(cause, ConfigKeyError) or "is not in struct" in str(cause):
        parent = getattr(cause, "parent_node", None)
        names = f"{key.rpartition('.')[0]}.{ANY}."  # that the user chooses: of phases
        is_name = any(known.startswith(names) for known in keys(schema))
        if isinstance(parent, DictConfig) and is_name:
            return f"{key}: expected one of {', '.join(map(str, parent))} there"
        return unknown_key(key, schema)
    if missing := re.fullmatch(r"Could not delete from config. '(.*)' does not exist.", first):
        return f"~{missing[1]}: there is nothing of that name to leave out"
    if wrong := re.fullmatch(r"Value '(.*)' (?:of type '.*' could not be converted to|is not a valid) (\w+).*", first):
        known = keys(schema).get(key)
        allowed = f", {known.allowed}" if known and known.allowed else ""
        expected = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
        return f"{key}={wrong[1]}: expected {expected.get(wrong[2], wrong[2])}{allowed}"
    if isinstance(cause, MissingMandatoryValue):
        return f"{key}: a value is needed; give {key}=VALUE"
    if "is not a ListConfig" in first:
        return f"{key}: expected a list, such as {key}=[1,2]"
    if "Incompatible value 'None'" in first:
        return f"{key}=null: a value is needed"
    if re.fullmatch(r"Cannot assign \w+ to Dict.*", first):
        alike = [name for name in keys(schema) if name.startswith(key) and name != key and "." not in name]
        return " or ".join((f"{key}: expected {key}.NAME=VALUE", *(f"{name}=VALUE" for name in alike)))
    if isinstance(cause, InterpolationKeyError | InterpolationResolutionError | ValidationError):
        return f"{key}: {first}"
    if "Config group override must be" in first:
        return _no_choice(sys.argv[1:])
    if isinstance(error, HydraException):
        return " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
    return f"{key}: {first}" if key else first


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
    if group == "hydra/launcher":
        if choice in LAUNCHERS:
            return f"{group}={choice}: is not installed; pip install 'skinlesion[{LAUNCHERS[choice]}]'"
        options = [*options, *(f"{name} (extra {extra})" for name, extra in LAUNCHERS.items() if name not in options)]
    if group and options:
        return f"{group}={choice}: unknown choice; expected one of {', '.join(sorted(options))}"
    return re.sub(r"\s+", " ", str(error)).strip()
