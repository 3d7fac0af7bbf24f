"""The words of a command line: bare image paths, literal paths, flags; unknown and renamed keys name the one meant."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from skinlesion.cli import COMMANDS
from skinlesion.config.overrides import (
    RENAMED,
    SYNONYMS,
    CommandLine,
    backbone_overrides,
    check_key,
    is_known,
    read_words,
)
from skinlesion.config.reference import keys
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError


def line(command: str, *words: str) -> CommandLine:
    return read_words(words, command, COMMANDS[command].load_schema())


def values(command: str, *words: str) -> dict[str, object]:
    """What Hydra reads."""
    parsed = OverridesParser.create().parse_overrides(list(line(command, *words).overrides))
    return {override.get_key_element(): override.value() for override in parsed}


AWKWARD = (
    "läsion ü.png",
    "a#1&2.png",
    "epoch=3-val_loss=0.2.png",
    "lr=0.001",
    "null",
    "true",
    "'quoted'.png",
    "${x}",
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
    if name != "null":  # Hydra's own word where a key stands before it
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


def test_a_comma_in_the_name_of_a_file_does_not_divide_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lr=0.1, a", "b", "c"):
        Path(name).touch()
    assert values("compare", "tables=[b,lr=0.1, a,c]")["tables"] == ["b", "lr=0.1, a", "c"]
    assert values("compare", "c", "lr=0.1, a")["tables"] == ["c", "lr=0.1, a"]


def test_the_home_folder_is_found_behind_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert values("train", "data.root=~/data") == {"data.root": f"{tmp_path}/data"}
    assert values("predict", "image=~nobody-of-that-name.png") == {"image": "~nobody-of-that-name.png"}


def test_bare_paths_are_what_a_command_works_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run/best.ckpt", "vote/ensemble.json", "bundle/bundle.json", "photo.jpg", "a.csv", "b.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert values("evaluate", "run") == {"checkpoint": "run"}
    assert values("evaluate", "vote/ensemble.json") == {"ensemble": "vote/ensemble.json"}
    assert values("predict", "photo.jpg", "vote") == {"image": "photo.jpg", "ensemble": "vote"}
    assert values("predict", "bundle", "photo.jpg") == {"image": "photo.jpg", "bundle": "bundle"}
    assert values("report", "vote") == {"ensemble": "vote"}
    assert values("serve", "bundle") == {"bundle": "bundle"}
    assert values("train", "run") == {"data.root": "run"}
    assert values("compare", "a.csv", "b.csv") == {"tables": ["a.csv", "b.csv"]}
    assert values("ensemble", "run", "vote") == {"members": ["run", "vote"]}
    with pytest.raises(ConfigError, match="checkpoint=run: given twice"):
        line("evaluate", "run", "checkpoint=run")


def test_texts_are_taken_literally() -> None:
    assert values("report", "author=Dr. Jörg Müller, (x)") == {"author": "Dr. Jörg Müller, (x)"}
    assert values("predict", "localization=lower extremity, left") == {"localization": "lower extremity, left"}
    assert line("train", "-m", "model.backbone=a,b", "model.name=x").overrides[0] == "model.backbone=a,b"


@pytest.mark.parametrize(
    "word", ["pigmented benign keratosis", "Nävus (blau)", "a: b", "50%", "%%x", "1", "it's", "n/a"]
)
def test_words_of_a_label_file_are_taken_literally(word: str) -> None:
    """With or without the plus sign that Hydra wants, whatever Hydra's grammar says of them."""
    from skinlesion.config.inference import EvaluateConfig
    from skinlesion.config.validation import configuration

    source = ("ensemble=a", "split=null", "external.images=b", "external.labels=c")
    for plus in ("", "+", "++"):
        words = line("evaluate", f"{plus}external.classes.{word}=bkl", "external.classes.zzz=nv").overrides
        found = configuration("evaluate", EvaluateConfig, *source, *words).external.classes
        assert (found[word], found["zzz"]) == ("bkl", "nv")


def test_arguments_of_a_backbone_need_no_plus() -> None:
    from skinlesion.config.validation import configuration

    for words in (
        ["model.backbone_kwargs={img_size: 64, a: 2}"],
        [f"model.backbone_kwargs.{w}" for w in ("img_size=64", "a=2")],
    ):
        config = configuration("train", TrainConfig, *line("train", *words).overrides)
        assert config.model.backbone_kwargs == {"img_size": 64, "a": 2}


def test_a_backbone_of_ones_own_names_the_run() -> None:
    from skinlesion.config.validation import configuration

    words = line("train", "model.backbone=resnet18", "model.high=1", "model.middle=2", "loss.gamma=1.5").overrides
    config = configuration("train", TrainConfig, *words)
    assert (config.model.name, config.loss.name, config.out) == ("resnet18", "a05_g15", "runs/resnet18-a05_g15")


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
        ("train", ["model.image_size=64,64"], "model.image_size=64,64: several values; give model.image_size=[64,64]"),
        ("train", ["model.image_size=(64,64)"], "cannot be read; expected a list, such as model.image_size=[1,2]"),
        ("train", ["seed=1,2"], "seed=1,2: several values; give one; -m makes a sweep of them"),
        ("train", ["model.funnel=[64,"], "model.funnel=[64,: cannot be read; expected a list"),
        ("train", ["trainer.max_epochs=4"], "did you mean schedule.phases.head.epochs=4"),
        ("audit", ["no/such"], "no/such: no such file or folder"),
    ],
)
def test_refusals(command: str, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        line(command, *words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def refusal(command: str, word: str) -> str:
    key, _, value = word.partition("=")
    with pytest.raises(ConfigError) as caught:
        check_key(key, value, command, COMMANDS[command].load_schema())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("command", "word", "meant"),
    [
        ("train", "epochs=3", "schedule.phases.head.epochs=3 (schedule.phases.NAME.epochs, for each phase)"),
        ("train", "batch_size=8", "loader.batch_size=8"),
        ("train", "lr=0.1", "schedule.phases.head.lr=0.1"),
        ("train", "learning_rate=0.1", "schedule.phases.head.lr=0.1"),
        ("train", "device=cuda", "trainer.accelerator=gpu"),
        ("train", "device=cpu", "trainer.accelerator=cpu"),
        ("train", "gpus=2", "trainer.accelerator=gpu trainer.devices=2"),
        ("predict", "device=cuda", "accelerator=gpu"),
        ("train", "num_workers=4", "loader.workers=4"),
        ("train", "pretrained=false", "model.pretrained=false"),
        ("train", "image_size=[64,64]", "model.image_size=[64,64]"),
        ("train", "gamma=2", "loss.gamma=2"),
        ("train", "backbone=resnet18", "model.backbone=resnet18, any of timm's"),
        ("train", "loss.gama=1", "did you mean loss.gamma"),
        ("train", "trainer.fast_devrun=1", "did you mean trainer.fast_dev_run"),
        ("train", "model.backbone_kwarg=1", "did you mean model.backbone_kwargs"),
        ("train", "schedule.phases.head.rates=1", "schedule.phases.head.rates: unknown key"),
        ("train", "data=/photos", "milk10k, pad_ufes20; a folder is given as data.root="),
        ("evaluate", "data=/photos", "data.root=/photos"),
        ("predict", "model=best.ckpt", "checkpoint=best.ckpt"),
        ("predict", "gender=female", "sex=female"),
        ("synthetic", "out=here", "did you mean data.root=here?"),
        ("robustness", "severity=3", "did you mean steps=3?"),
        ("robustness", "bundle=b", "bundle: not taken here; give checkpoint= or ensemble="),
        ("serve", "checkpoint=a.ckpt", "give bundle=; `skinlesion export` makes a bundle"),
        ("report", "checkpoint=a.ckpt", "give ensemble=; `skinlesion ensemble members=FOLDER` makes an ensemble"),
        ("serve", "token=secret", "set the environment variable SKINLESION_TOKEN"),
        ("train", "nonsense=1", "nonsense: unknown key; known here: out, "),
        # keys of the last release
        ("train", "schedule.phases.head.rate=0.1", "is called schedule.phases.head.lr now"),
        ("train", "schedule.phases.mine.average=0.1", "give schedule.phases.mine.ema_decay=0.1"),
        ("ensemble", "passing=0.9", "give id_pass_rate=0.9"),
        ("robustness", "passing=0.9", "give id_pass_rate=0.9"),
        ("audit", "each=3", "give samples_per_class=3"),
        ("evaluate", "entry=a.csv", "give submission=a.csv"),
        ("evaluate", "external.seen=keep", "give external.leakage=keep"),
    ],
)
def test_the_key_that_is_meant_is_named(command: str, word: str, meant: str) -> None:
    assert meant in refusal(command, word)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("train", "schedule.phases.mine.lr=1"),
        ("train", "model.backbone_kwargs.drop_rate=0.1"),
        ("train", "seed=1"),
        ("train", "data=isic2019"),
        ("train", "loss={gamma: 1}"),
        ("train", "hydra.launcher.n_jobs=2"),
        ("train", "hydra/launcher=joblib"),
        ("evaluate", "external.classes.scc=drop"),
        ("explain", "class=mel"),
    ],
)
def test_keys_that_exist_pass(command: str, word: str) -> None:
    key, _, value = word.partition("=")
    check_key(key, value, command, COMMANDS[command].load_schema())


def test_each_renamed_key_leads_to_one_that_exists_and_is_gone_itself() -> None:
    schemas = [command.load_schema() for command in COMMANDS.values()]
    for old, new in RENAMED.items():
        assert any(is_known(new, schema) for schema in schemas), new
        assert not any(is_known(old, schema) for schema in schemas), old


def test_each_synonym_leads_to_a_key() -> None:
    known = {name for command in COMMANDS.values() for name in keys(command.load_schema())}
    assert {target for targets in SYNONYMS.values() for target in targets} <= known


def test_a_backbone_brings_its_stages_and_its_name() -> None:
    name, found = "model.name=${model.backbone}", ["model.high=-1", "model.middle=-2"]
    assert backbone_overrides({"model.backbone": "resnet18"}, "train") == [name, *found]
    given = {"model.backbone": "resnet18", "model.high": "layer4", "model.name": "a"}
    assert backbone_overrides(given, "train") == ["model.middle=-2"]
    assert backbone_overrides({"model.backbone": "resnet50.a1_in1k", "model": "resnet50"}, "train") == [name]
    of_experiment = {"model.backbone": "tf_efficientnet_lite0.in1k", "experiment": "ham10000_public_folds"}
    assert backbone_overrides(of_experiment, "train") == [name]
    assert backbone_overrides({"model": "resnet50"}, "train") == []
