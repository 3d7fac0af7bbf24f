"""Help of every command: all keys with meaning and default, groups, examples that compose, within 100 columns."""

import shlex

import pytest
from hydra import compose, initialize_config_dir

from skinlesion.cli import COMMANDS, usage
from skinlesion.commands.help import WIDTH, page
from skinlesion.config.overrides import read_words
from skinlesion.config.reference import choices, groups, keys
from skinlesion.config.validation import typed
from skinlesion.errors import ConfigError
from skinlesion.files import config_dir


def help_of(name: str, *words: str) -> str:
    command = COMMANDS[name]
    return page(name, command.load_schema(), about=command.help, examples=command.examples, words=words)


@pytest.mark.parametrize("command", COMMANDS)
def test_it_names_every_key_and_choice_and_fits(command: str) -> None:
    text = help_of(command)
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    for name in keys(COMMANDS[command].load_schema()):
        assert f"\n  {name}" in text
    flat = " ".join(text.split())
    for group in groups(command):
        if len(choices(group)) > 1:
            assert all(choice in flat for choice in choices(group))
    for example in COMMANDS[command].examples:
        assert f"skinlesion {example}" in text


@pytest.mark.parametrize("example", [each for command in COMMANDS.values() for each in command.examples])
def test_examples_compose(example: str) -> None:
    command, *words = shlex.split(example)
    line = read_words(words, command, COMMANDS[command].load_schema())
    if not line.is_multirun:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            assert typed(compose(command, list(line.overrides)), COMMANDS[command].load_schema())


def test_defaults_are_those_of_the_command_line() -> None:
    assert "model.backbone=efficientnet_b1 " in help_of("train")
    text = help_of("train", "model=resnet50", "--help", "loss.gamma=3")
    assert "model.backbone=resnet50 " in text
    assert "loss.gamma=3 " in text
    assert "ensemble=PATH" in help_of("report")
    assert "[required]" in help_of("report")
    assert "seed=1 " in help_of("train", "-m", "seed=2,3", "--help")


@pytest.mark.parametrize(("word", "said"), [("lr=1", "did you mean"), ("model=resnet5", "unknown choice")])
def test_what_the_command_refuses_its_help_refuses(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        help_of("train", word)


def test_the_usage_lists_every_command_within_the_width() -> None:
    assert all(command.help in usage() for command in COMMANDS.values())
    assert max(len(line) for line in usage().splitlines()) <= WIDTH
