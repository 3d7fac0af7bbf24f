"""The keys of a command with their meanings, read from the comments of its schema, and the choices of its groups.

`--help`, the shell's completion and the site's reference are made from these rows.
"""

import ast
import inspect
import io
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Any, get_args

import yaml

from skinlesion.config.schema import PATH, BootstrapKeys, OneOf, Range, constraints, hints
from skinlesion.files import config_dir

ANY = "NAME"  # stands for a name that the user chooses, such as that of a phase


@dataclass(frozen=True)
class Key:
    """One key of a command.

    Attributes:
        name: Dotted, such as "loss.gamma"; "NAME" stands for a name that the user chooses.
        meaning: Comment of the schema's field.
        allowed: Range or choices, "" where the type says all.
        values: Words that can be completed: choices, or true and false.
        is_path: Whether its value is a file or folder.
        is_text: Whether its value is free text.
        is_list: Whether its value is a list.
        is_mapping: Whether it holds names that the user chooses, with plain values.
    """

    name: str
    meaning: str
    allowed: str = ""
    values: tuple[str, ...] = ()
    is_path: bool = False
    is_text: bool = False
    is_list: bool = False
    is_mapping: bool = False


@dataclass(frozen=True)
class Section:
    """Keys that stand together: those of one schema.

    Attributes:
        name: Dotted, "" for the command's own keys.
        title: First line of the schema's docstring.
        keys: In the order of the fields.
    """

    name: str
    title: str
    keys: tuple[Key, ...]


@cache
def sections(schema: type, prefix: str = "") -> tuple[Section, ...]:
    """The sections of a command, its own keys first.

    Args:
        schema: The command's dataclass.
        prefix: The dotted key of `schema`, where it is part of another.
    """
    comments = _comments(schema)
    own: list[Key] = []
    inner: list[Section] = []
    for name, hint in hints(schema).items():
        nested = [part for part in (hint, *get_args(hint)) if isinstance(part, type) and is_dataclass(part)]
        if not nested:
            own.append(_key(f"{prefix}{name}", hint, comments.get(name, "")))
        for part in nested:
            inner += sections(part, f"{prefix}{name}." if part is hint else f"{prefix}{name}.{ANY}.")
    own.sort(key=lambda key: key.name in hints(BootstrapKeys))  # those of every command come last
    title = (inspect.getdoc(schema) or "").splitlines()[0]
    return (Section(prefix.rstrip("."), title, tuple(own)), *inner)


def keys(schema: type) -> dict[str, Key]:
    """All keys of a command by their names."""
    return {key.name: key for section in sections(schema) for key in section.keys}


def groups(command: str) -> dict[str, str]:
    """The configuration groups of a command and what each of them has by default, as its YAML file lists them."""
    defaults = yaml.safe_load((config_dir() / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    pairs = [pair for entry in defaults if isinstance(entry, dict) for pair in entry.items()]
    return {str(group): str(choice) for group, choice in pairs if not group.startswith("override")}


def choices(group: str) -> list[str]:
    """The names that a configuration group takes, such as resnet50 of model."""
    return sorted(path.stem for path in (config_dir() / group.partition("@")[0]).glob("*.yaml"))


def default(name: str, composed: Mapping[str, Any]) -> str:
    """The value that a key has without the user's doing, as it would be typed.

    Args:
        name: The key's; of "schedule.phases.NAME.lr" the value of each phase is given.
        composed: The command's configuration as plain data, missing values as "???".
    """
    node: Any = composed
    parts = name.split(".")
    for position, part in enumerate(parts):
        if part == ANY:
            rest = ".".join(parts[position + 1 :])
            return ", ".join(f"{name} {default(rest, each)}" for name, each in node.items())
        node = node[part]
    return written(node)


def written(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(each) for each in value) + "]"
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else str(value)


def _key(name: str, hint: Any, comment: str) -> Key:
    rules = list(constraints(hint))
    allowed = [str(rule) for rule in rules if isinstance(rule, Range | OneOf)]
    words = [word for rule in rules if isinstance(rule, OneOf) for word in rule]
    types = [getattr(part, "__origin__", part) for part in (hint, *get_args(hint))]
    booleans = ("true", "false") if bool in types else ()
    return Key(
        name=name,
        meaning=comment,
        allowed=allowed[0] if allowed else "",
        values=tuple(words) or booleans,
        is_path=PATH in rules,
        is_text=not rules and {part for part in types if isinstance(part, type)} <= {str, type(None)},
        is_list=list in types,
        is_mapping=dict in types,
    )


@cache
def _comments(schema: type) -> dict[str, str]:
    """The comment behind each field of a dataclass, those of its ancestors first."""
    found: dict[str, str] = {}
    for parent in reversed(schema.__mro__):
        if is_dataclass(parent):
            source = inspect.cleandoc(inspect.getsource(parent))
            tokens = tokenize.generate_tokens(io.StringIO(source).readline)
            by_line = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
            (body,) = ast.parse(source).body
            for field in body.body if isinstance(body, ast.ClassDef) else ():
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    comment = by_line.get(field.end_lineno or 0, "")
                    found[field.target.id.removesuffix("_")] = comment.removeprefix("#").strip()
    return found
