"""`skinlesion COMMAND --help`: each key with its meaning, range and default, made from the command's schema."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from skinlesion.config.overrides import read_words
from skinlesion.config.reference import ANY, Key, choices, default, groups, sections
from skinlesion.config.validation import explain
from skinlesion.errors import ConfigError
from skinlesion.files import config_dir

WIDTH = 100
_INDENT = 36  # where the meanings begin


def page(command: str, schema: type, *, about: str, examples: Sequence[str], words: Sequence[str] = ()) -> str:
    """The help of a command, at most 100 columns wide.

    Args:
        command: Name of the command.
        schema: Dataclass of the command.
        about: One-line help.
        examples: Command lines without the program's name.
        words: The user's command line; the defaults are those that it leads to, such as with `model=resnet50`.

    Raises:
        ConfigError: The words name an unknown key or choice.
    """
    line = read_words([word for word in words if word not in ("-h", "--help")], command, schema)
    composed = _compose(command, schema, [] if line.is_multirun else list(line.overrides))
    keys = [
        "\n".join(
            (
                f"{section.name}: {section.title}" if section.name else "Keys:",
                *(_row(key, composed) for key in section.keys),
            )
        )
        for section in sections(schema)
        if section.keys
    ]
    lines = (
        f"usage: skinlesion {command} [key=value ...]",
        about,
        *keys,
        *_groups(command),
        "\n".join(("Examples:", *(f"  skinlesion {example}" for example in examples))),
        f"Documentation: {_documentation(command)}",
    )
    return "\n\n".join(lines)


def _documentation(command: str) -> str:
    """Address of the command's page, once the site is built."""
    built = config_dir().parent / "build" / "site" / "reference" / f"{command}.html"
    return (
        built.as_uri() if built.exists() else f"`make site` in the repository, then build/site/reference/{command}.html"
    )


def markdown(command: str, schema: type, *, about: str, examples: Sequence[str]) -> str:
    """The same as a page of the documentation, Markdown."""
    composed, parts = _compose(command, schema, []), [f"# {command}", about]
    parts.append("\n".join(("```bash", *(f"skinlesion {example}" for example in examples), "```")))
    for section in sections(schema):
        rows = [f"| `{key.name}` | {_cell(key, composed)} | {_meaning(key)} |" for key in section.keys]
        title = f"## `{section.name}`\n\n{section.title}" if section.name else "## Keys"
        parts += ["\n".join((title, "", "| key | default | meaning |", "|---|---|---|", *rows))] if rows else []
    chosen = groups(command).items()
    rows = [
        f"| `{group}` | {default} | {', '.join(choices(group))} |" for group, default in chosen if choices(group)[1:]
    ]
    if rows:
        parts.append("\n".join(("## Groups", "", "| group | default | choices |", "|---|---|---|", *rows)))
    return "\n\n".join(parts) + "\n"


def _cell(key: Key, composed: Mapping[str, Any]) -> str:
    value = default(key.name, composed)
    return "required" if value == "???" else f"`{value}`" if value else ""


def _meaning(key: Key) -> str:
    return (key.meaning + (f" ({key.allowed})" if key.allowed else "")).replace("|", "\\|")


def _compose(command: str, schema: type, overrides: list[str]) -> dict[str, Any]:
    """The command's configuration as plain data, missing values as "???".

    Raises:
        ConfigError: The overrides name an unknown key or choice.
    """
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose(command, overrides)
    except HydraException as error:
        raise ConfigError(explain(error, schema)) from error
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, throw_on_missing=False))


def _row(key: Key, composed: dict[str, Any]) -> str:
    value = default(key.name, composed)
    required = value == "???"
    wanted = "PATH" if key.is_path else "|".join(key.values) or "VALUE"
    meaning = key.meaning + (f" ({key.allowed})" if key.allowed else "") + (" [required]" if required else "")
    left = f"  {key.name}={wanted if required else value}"
    if ANY in key.name or key.is_mapping:
        short = textwrap.shorten(value.strip("{}"), 2 * (WIDTH - _INDENT), placeholder=" ...") or "none"
        left, meaning = f"  {key.name}{'.NAME' if key.is_mapping else ''}", f"{meaning} [{short}]"
    if len(left) > WIDTH:
        left = f"{left[: WIDTH - 3]}..."
    wrapped = textwrap.wrap(meaning, WIDTH - _INDENT)
    if len(left) <= _INDENT - 2:
        wrapped[0] = f"{left:<{_INDENT}}{wrapped[0]}"
        return "\n".join((wrapped[0], *(" " * _INDENT + line for line in wrapped[1:])))
    return "\n".join((left, *(" " * _INDENT + line for line in wrapped)))


def _groups(command: str) -> list[str]:
    """The choices of each group that has more than one, the default marked with a star."""
    rows = []
    for group, chosen in groups(command).items():
        names = [f"{name}*" if name == chosen else name for name in choices(group)]
        if len(names) > 1:
            head = f"  {group}=NAME"
            rows += textwrap.wrap(
                ", ".join(names), WIDTH, initial_indent=f"{head:<{_INDENT}}", subsequent_indent=" " * _INDENT
            )
    return ["\n".join(("Groups of keys, each a file in conf/GROUP (* is the default):", *rows))] if rows else []
