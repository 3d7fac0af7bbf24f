"""Each key of each command has a meaning, a default, and its choices."""

import re
from dataclasses import dataclass
from typing import Annotated

import pytest
from conftest import composed
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from skinlesion.cli import COMMANDS
from skinlesion.config import reference
from skinlesion.config.schema import Count, OneOf, PathText, Range, check_annotations
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.files import config_dir


@dataclass
class Inner:
    """Of the inside."""

    folder: PathText | None  # folder of the inside


@dataclass
class Outer:
    """Of the outside."""

    class_: Annotated[str, OneOf(("a", "b"))]  # a word; a hash (#) in it
    widths: list[Count]  # widths in pixels
    inner: Inner
    named: dict[str, Inner]
    free: dict[str, str]  # anything


def test_rows_come_from_comments_and_annotations() -> None:
    own, inner, named = reference.sections(Outer)
    assert own.keys == (
        reference.Key("class", "a word; a hash (#) in it", "one of a, b", ("a", "b")),
        reference.Key("widths", "widths in pixels", "1 or more", is_list=True),
        reference.Key("free", "anything", is_mapping=True),
    )
    assert (inner.name, inner.title) == ("inner", "Of the inside.")
    assert inner.keys == (reference.Key("inner.folder", "folder of the inside", is_path=True),)
    assert [key.name for key in named.keys] == ["named.NAME.folder"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_has_a_meaning(command: str) -> None:
    for name, key in reference.keys(COMMANDS[command].load_schema()).items():
        assert len(key.meaning) > 8, f"{command}: {name} has no comment"
        assert not re.search(r"\bwhat is\b|…", key.meaning), f"{command}: {name}: {key.meaning}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_yaml_of_a_command_has_the_keys_of_its_schema(command: str) -> None:
    """So each key has a default, or says that it needs a value."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose(command), resolve=True, throw_on_missing=False)
    assert isinstance(config, dict)
    for name in reference.keys(COMMANDS[command].load_schema()):
        assert reference.default(name, config) is not None


def test_defaults_are_written_as_they_are_typed() -> None:
    config = {"a": {"x": {"lr": 0.5}, "y": {"lr": None}}, "sizes": [1, 2], "on": True}
    assert reference.default("a.NAME.lr", config) == "x 0.5, y null"
    assert reference.default("sizes", config) == "[1,2]"
    assert reference.default("on", config) == "true"


def test_groups_are_those_of_the_defaults_list() -> None:
    assert reference.groups("train")["model"] == "efficientnet_b1"
    assert "resnet50" in reference.choices("model")
    assert reference.choices("localizations@external.localizations") == ["isic"]


@pytest.mark.parametrize(
    ("limits", "text", "inside", "outside"),
    [
        (Range(0), "0 or more", [0, 1e9], [-1, float("inf"), float("nan")]),
        (Range(0, above=True), "more than 0", [1e-9], [0]),
        (Range(0, 0.5), "0 to 0.5", [0, 0.5], [0.6, -0.1]),
        (Range(0, 1, below=True), "0 or more, less than 1", [0, 0.99], [1]),
        (Range(0, 1, above=True), "more than 0, at most 1", [1], [0, 1.1]),
        (Range(0, 1, above=True, below=True), "more than 0, less than 1", [0.5], [0, 1]),
        (Range(0, 2**32 - 1), "0 to 4294967295", [0], [2**32]),
    ],
)
def test_a_range_holds_what_it_says(limits: Range, text: str, inside: list[float], outside: list[float]) -> None:
    assert str(limits) == text
    assert all(limits.holds(value) for value in inside)
    assert not any(limits.holds(value) for value in outside)


def test_annotations_are_checked_at_every_depth() -> None:
    config = composed("train", TrainConfig)
    check_annotations(config)
    config.schedule.phases["high"].lr = 0
    with pytest.raises(ConfigError, match=r"schedule\.phases\.high\.lr=0: expected more than 0"):
        check_annotations(config)
    with pytest.raises(ConfigError, match=r"class=c: expected one of a, b"):
        check_annotations(Outer("c", [1], Inner(None), {}, {}))
    with pytest.raises(ConfigError, match=r"widths=\[1, 0\]: expected 1 or more"):
        check_annotations(Outer("a", [1, 0], Inner(None), {}, {}))
