"""The words of a command line before Hydra reads them: flags, bare image paths, and paths taken literally."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from skinlesion.config.hints import check_backbone, check_key, is_known, unknown_key
from skinlesion.config.reference import Key, groups, keys
from skinlesion.errors import ConfigError

_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}
_OPTIONAL = {"--info", "-i"}  # with a value or without
_ALONE = {"--multirun", "-m", "--resolve", "--run", "-r", "--hydra-help"}
_GRAMMAR = ("null", "none", "true", "false", "???")  # Hydra's own words, and no paths
_QUOTED = re.compile(r"(['\"]).*\1", re.DOTALL)
_PAIR = re.compile(r"(\+{0,2}[^=~+]+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class CommandLine:
    """The words of a command line, as Hydra takes them.

    Attributes:
        overrides: `key=value`, paths in quotes.
        flags: Hydra's own.
        is_multirun: Whether -m is given.
    """

    overrides: tuple[str, ...]
    flags: tuple[str, ...]
    is_multirun: bool


def read_words(words: Sequence[str], command: str, schema: type) -> CommandLine:
    """Read a command line; nothing is composed, and nothing heavy imported.

    Args:
        words: Behind the command's name. Where the schema has a key `image`, a word that is no `key=value` is its
            value. `~KEY` deletes a key, as Hydra has it.
        command: Names its YAML file.
        schema: Its dataclass.

    Raises:
        ConfigError: An unknown or renamed key, an unknown flag, or a list where one path is expected.
    """
    flags, rest = _split_flags(words, command, schema)
    is_multirun = bool({"-m", "--multirun"} & {*flags})
    has_own_folder = bool({"--config-dir", "-cd", "--config-path", "-cp"} & {flag.partition("=")[0] for flag in flags})
    known, overrides, given = keys(schema), [], {}
    for word in rest:
        if word.startswith("~") and not ("image" in known and Path(word).exists()):
            overrides.append(word)
            continue
        key, value = _pair(word, known)
        name = key.lstrip("+")
        if name == "image" and name in given:
            raise ConfigError(f"image={value}: expected one file or folder; put the images into one folder")
        given[name] = value
        if "." in name or not has_own_folder:  # a group may be the user's own
            check_key(name, value, command, schema)
        is_path = name in known and known[name].is_path
        overrides.append(f"{key}={_literal(known[name], value, is_multirun=is_multirun) if is_path else value}")
    check_backbone(given, command)
    return CommandLine(tuple(overrides), tuple(flags), is_multirun)


def _split_flags(words: Sequence[str], command: str, schema: type) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and all other words."""
    flags: list[str] = []
    rest: list[str] = []
    before = ""  # a flag whose value may follow
    for word in words:
        name = word.partition("=")[0]
        if before in _WITH_VALUE or (before in _OPTIONAL and not re.match(r"-|.*=", word)):
            flags.append(word)
            before = ""
        elif name in _WITH_VALUE | _OPTIONAL | _ALONE:
            flags.append(word)
            before = "" if "=" in word else name
        elif re.match(r"--?[A-Za-z]", word) and not Path(word).exists():
            key, value = name.lstrip("-").replace("-", "_"), word.partition("=")[2] or "VALUE"
            is_key = is_known(key, schema) or key in groups(command)
            meant = f"give {key}={value}" if is_key else unknown_key(key, schema, value=value)
            raise ConfigError(f"{word}: keys are given without dashes; {meant}")
        else:
            rest.append(word)
            before = ""
    return flags, rest


def _pair(word: str, known: dict[str, Key]) -> tuple[str, str]:
    """Key and value of a word; a bare path is the image."""
    found = _PAIR.fullmatch(word)
    if "image" in known and (found is None or (found[1].lstrip("+") not in known and Path(word).exists())):
        if found is None and word in known:
            raise ConfigError(f"{word}: expected key=value, such as {word}={_wanted(known[word])}")
        return "image", word
    if found is None:
        example = f", such as {word}={_wanted(known[word])}" if word in known else ""
        raise ConfigError(f"{word}: expected key=value{example}")
    return found[1], found[2]


def _wanted(key: Key) -> str:
    return "FILE" if key.is_path else "VALUE"


def _literal(key: Key, value: str, *, is_multirun: bool) -> str:
    """A path, or a list of paths, in quotes, so that Hydra takes every character as it is."""
    if value.lower() in _GRAMMAR or _QUOTED.fullmatch(value):
        return value
    if not value:
        raise ConfigError(f"{key.name}=: expected a file or folder")
    is_list = value.startswith("[") and value.endswith("]") and not Path(value).exists()
    if is_multirun and not is_list and not Path(value).exists() and _is_sweep(f"{key.name}={value}"):
        return value
    if not is_list:
        return f"[{_quote(value)}]" if key.is_list else _quote(value)
    if not (key.is_list or key.name == "members"):
        folder = "; put the images into one folder and give that" if key.name == "image" else ""
        raise ConfigError(f"{key.name}={value}: expected one path, not a list{folder}")
    parts = re.findall(r"""(?:[^,'"]|'[^']*'|"[^"]*")+""", value[1:-1])  # between commas that are not in quotes
    return f"[{','.join(_quote(part.strip()) for part in parts if part.strip())}]"


def _quote(path: str) -> str:
    return path if _QUOTED.fullmatch(path) else str(QuotedString(text=path, quote=Quote.single).with_quotes())


def _is_sweep(word: str) -> bool:
    try:
        return OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        return False
