"""Values of a command line in Hydra's grammar: paths and texts are taken literally, whatever characters they hold."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from skinlesion.config.reference import Key
from skinlesion.errors import ConfigError

ENCODED = "%%"  # before a name in a mapping that Hydra could not read, percent-encoded
_PLAIN = re.compile(r"[A-Za-z0-9_./-]*")  # text that Hydra takes as it is
_QUOTED = re.compile(r"(['\"]).*\1", re.DOTALL)
_ONE_FOLDER = {"image": "; put the images into one folder and give that"}


def _entry(mapping: str, name: str, value: str) -> str:
    """An entry of a mapping whose names are the user's own, such as words of a label file; or several, in braces."""
    if not name or re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", name, re.ASCII):
        return f"++{mapping}{'.' if name else ''}{name}={value}"
    return f"++{mapping}={{{ENCODED}{quote(name, safe='')}: {value}}}"  # Hydra knows no quotes around a name


def override(key: str, value: str, known: Mapping[str, Key], *, is_multirun: bool) -> str:
    """The word that Hydra reads as this key with this very value.

    Args:
        key: Dotted, with the user's plus signs.
        value: As typed.
        known: Keys of the command.
        is_multirun: Whether several values, divided by commas, are a sweep.

    Raises:
        ConfigError: The value cannot be read, or is a list where one is expected.
    """
    name = key.lstrip("+")
    mapping = next((each for each in known if known[each].is_mapping and f"{name}.".startswith(f"{each}.")), None)
    if mapping is not None:
        word = _entry(mapping, name[len(mapping) + 1 :], value)
    else:
        word = f"{key}={_literal(known[name], value, is_multirun) if name in known else value}"
    if not name.startswith("hydra"):
        is_list = name in known and known[name].is_list
        _check_value(name, value, word, is_list=is_list, is_multirun=is_multirun)
    return word


def join(key: Key, paths: Sequence[str]) -> str:
    """Bare paths as the value of a key.

    Raises:
        ConfigError: There are several, and the key takes one.
    """
    if len(paths) > 1 and not _takes_list(key):
        raise ConfigError(f"{key.name}={paths[1]}: expected one file or folder{_ONE_FOLDER.get(key.name, '')}")
    quoted = ",".join(map(_quote, paths))
    return f"[{quoted}]" if _takes_list(key, len(paths)) else quoted


def _literal(key: Key, value: str, is_multirun: bool) -> str:
    """A path, a list of paths or a text in quotes, so that Hydra takes every character as it is."""
    is_text = key.is_text and not _PLAIN.fullmatch(value)
    is_word = value.lower() in ("null", "???", *key.values) or (_QUOTED.fullmatch(value) and not os.path.exists(value))
    if is_word or not (key.is_path or is_text):
        return value
    if not value:
        raise ConfigError(f"{key.name}=: expected a file or folder")
    is_list = key.is_path and value.startswith("[") and value.endswith("]") and not os.path.exists(value)
    may_sweep = is_multirun and key.name != "out" and not is_list and not os.path.exists(value)
    if may_sweep and is_sweep(f"{key.name}={value}"):
        return value
    if not is_list:
        return f"[{_quote(value)}]" if key.is_list else _quote(value)
    if not _takes_list(key):
        raise ConfigError(f"{key.name}={value}: expected one path, not a list{_ONE_FOLDER.get(key.name, '')}")
    return f"[{','.join(map(_quote, _paths(value[1:-1])))}]"


def _check_value(name: str, value: str, word: str, *, is_list: bool, is_multirun: bool) -> None:
    """Refuse what Hydra cannot read, and several values without -m, in words of our own."""
    try:
        several = OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException as error:
        form = f"a list, such as {name}=[1,2]" if is_list else "a plain value; put others in quotes within quotes"
        raise ConfigError(f"{name}={value}: cannot be read; expected {form}") from error
    if several and not is_multirun:
        wanted = f"give {name}=[{value}]" if is_list else "give one; -m makes a sweep of them"
        raise ConfigError(f"{name}={value}: several values; {wanted}")


def _takes_list(key: Key, given: int = 2) -> bool:
    return key.is_list or (key.name == "members" and given > 1)


def _paths(listed: str) -> Iterator[str]:
    """The paths of a list, divided at its commas; those within quotes, or in the name of a file that exists, stay."""
    parts = re.findall(r"""(?:[^,'"]|'[^']*'|"[^"]*")+""", listed)
    while parts:
        joined = [",".join(parts[:count]).strip() for count in range(1, len(parts) + 1)]
        count = next((count for count in range(len(parts), 1, -1) if os.path.exists(joined[count - 1])), 1)
        if joined[count - 1]:
            yield joined[count - 1]
        del parts[:count]


def _quote(text: str) -> str:
    """Text in quotes; `~/` is the home folder, which a shell replaces at the start of a word only."""
    if _QUOTED.fullmatch(text) and not os.path.exists(text):
        return text
    here = text if os.path.exists(text) else os.path.expanduser(text)
    return str(QuotedString(text=here, quote=Quote.single).with_quotes())


def is_sweep(word: str) -> bool:
    """Whether Hydra reads a word as several values of a key; a word that it cannot read is none."""
    try:
        return OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        return False
