"""The words of a command line: bare image paths, paths taken literally, flags."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from skinlesion.cli import COMMANDS
from skinlesion.config.overrides import CommandLine, read_words
from skinlesion.errors import ConfigError


def line(command: str, *words: str) -> CommandLine:
    return read_words(words, command, COMMANDS[command].load_schema())


def values(command: str, *words: str) -> dict[str, object]:
    """What Hydra reads."""
    parsed = OverridesParser.create().parse_overrides(list(line(command, *words).overrides))
    return {override.get_key_element(): override.value() for override in parsed}


AWKWARD = (
    "my photo (1).jpg",
    "Müller, links.jpg",
    "a=b.jpg",
    "~old.jpg",
    "it's.jpg",
    "C:\\scans\\",
    "50%.jpg",
    "[1].jpg",
)


@pytest.mark.parametrize("name", AWKWARD)
def test_paths_are_taken_literally(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert values("predict", f"image={name}", "bundle=b") == {"image": name, "bundle": "b"}
    assert values("predict", name, "bundle=b") == {"image": name, "bundle": "b"}


@pytest.mark.parametrize("path", ["demo/data, of mine", "2024", "007", "1e3", "runs/${model.name}", "a b", "x{1}", "#"])
def test_folders_are_taken_literally(path: str) -> None:
    assert values("train", f"out={path}", f"data.root={path}") == {"out": path, "data.root": path}


def test_hydras_own_words_and_quotes_stay() -> None:
    assert values("train", "split.file=null", "model.pretrained=false", "out='a, b'") == {
        "split.file": None,
        "model.pretrained": False,
        "out": "a, b",
    }
    assert line("train", "+model.pretrained=a b", "~schedule.phases.head", "++seed=2").overrides == (
        "+model.pretrained='a b'",
        "~schedule.phases.head",
        "++seed=2",
    )


def test_lists_of_paths() -> None:
    assert values("compare", "tables=[a (1).csv,b.csv, 'c,d.csv']")["tables"] == ["a (1).csv", "b.csv", "c,d.csv"]
    assert values("compare", "tables=a b.csv")["tables"] == ["a b.csv"]
    assert values("ensemble", "members=[a/best.ckpt,b c/best.ckpt]")["members"] == ["a/best.ckpt", "b c/best.ckpt"]
    assert values("ensemble", "members=my runs")["members"] == "my runs"


def test_a_path_can_be_swept() -> None:
    assert line("train", "-m", "split.file=a.csv,b.csv") == CommandLine(("split.file=a.csv,b.csv",), ("-m",), True)
    assert line("train", "split.file=a.csv,b.csv").overrides == ("split.file='a.csv,b.csv'",)


def test_flags_stand_apart_with_their_values() -> None:
    found = line("train", "--config-dir", "mine", "experiment=x", "--cfg", "job", "-p=model", "mygroup=y")
    assert found.flags == ("--config-dir", "mine", "--cfg", "job", "-p=model")
    assert found.overrides == ("experiment=x", "mygroup=y")


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("train", ["foo"], "foo: expected key=value"),
        ("evaluate", ["checkpoint", "split=val"], "checkpoint: expected key=value, such as checkpoint=FILE"),
        ("predict", ["bundle", "a.jpg"], "bundle: expected key=value, such as bundle=FILE"),
        ("evaluate", ["checkpoint="], "checkpoint=: expected a file or folder"),
        ("predict", ["image=[a.jpg,b.jpg]"], "expected one path, not a list; put the images into one folder"),
        ("predict", ["a.jpg", "b.jpg"], "image=b.jpg: expected one file or folder"),
        ("train", ["--epochs", "3"], "--epochs: keys are given without dashes; epochs: unknown key; did you mean"),
        ("train", ["--lr=0.1"], "did you mean schedule.phases.head.lr=0.1"),
        ("train", ["--seed=3"], "--seed=3: keys are given without dashes; give seed=3"),
        ("train", ["+nonsense=1"], "nonsense: unknown key"),
        ("train", ["model.backbone=resnet18"], "model.backbone=resnet18: model.high=1"),
    ],
)
def test_refusals(command: str, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        line(command, *words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
