"""The words of a command line before Hydra reads them: keys that are meant, flags, bare image paths, literal paths."""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from skinlesion.config.reference import ANY, Key, choices, groups, keys
from skinlesion.config.values import join, override
from skinlesion.errors import ConfigError
from skinlesion.files import config_dir

_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}
_OPTIONAL = {"--info", "-i"}  # with a value or without
_ALONE = {"--multirun", "-m", "--resolve", "--run", "-r", "--hydra-help"}
_PAIR = re.compile(r"(\+{0,2}[^=~+]+)=(.*)", re.DOTALL)

# Keys of the last release, refused with the new name for one release.
RENAMED = {
    "schedule.phases.NAME.rate": "schedule.phases.NAME.lr",
    "schedule.phases.NAME.backbone_rate": "schedule.phases.NAME.backbone_lr",
    "schedule.phases.NAME.final_rate_fraction": "schedule.phases.NAME.final_lr_fraction",
    "schedule.phases.NAME.average": "schedule.phases.NAME.ema_decay",
    "schedule.phases.NAME.views": "schedule.phases.NAME.cached_views",
    "passing": "id_pass_rate",
    "each": "samples_per_class",
    "entry": "submission",
    "external.seen": "external.leakage",
}

# Words of other programs, and the keys that stand for them here; the first that a command has is named.
SYNONYMS = {
    ("epochs", "max_epochs", "num_epochs"): ("schedule.phases.NAME.epochs",),
    ("lr", "learning_rate", "max_lr"): ("schedule.phases.NAME.lr",),
    ("bs", "batch"): ("loader.batch_size",),
    ("num_workers",): ("loader.workers",),
    ("device", "cuda", "gpu"): ("trainer.accelerator", "accelerator"),
    ("gpus", "num_gpus", "devices"): ("trainer.devices", "accelerator"),
    ("img_size", "size", "input_size", "resolution"): ("model.image_size", "image_size"),
    ("output", "output_dir", "out_dir", "outdir", "save_dir", "out"): ("out", "data.root"),
    ("root", "data", "data_dir", "data_path", "data_root", "dataset"): ("data.root",),
    ("images", "img", "input", "photo", "file"): ("image",),
    ("model", "ckpt", "checkpoint_path", "model_path", "weights"): ("checkpoint", "ensemble", "model.pretrained"),
    ("corruptions", "severities", "severity", "disturbances"): ("steps",),
    ("site", "location", "loc"): ("localization",),
    ("gender",): ("sex",),
}

# Kinds of models, and what a command that takes no other needs.
_MODELS = {
    "checkpoint": "",
    "ensemble": "; `skinlesion ensemble members=FOLDER` makes an ensemble",
    "bundle": "; `skinlesion export` makes a bundle",
}


def check_key(name: str, value: str, command: str, schema: type) -> None:
    """Refuse a key that a command does not have, and name the one that is meant.

    Args:
        name: Dotted key.
        value: Value of the key, for the example.
        command: Name of the command and of its YAML file.
        schema: Dataclass of the command.

    Raises:
        ConfigError: The key is unknown or renamed, or a folder is given where the name of a choice is expected.
    """
    group = next((each for each in groups(command) if name in (each, each.partition("@")[0])), None)
    root = f"{group}.root"
    if group is None:
        is_node = any(_matches(name, known) and known.count(".") > name.count(".") for known in keys(schema))
        if not (name.startswith("hydra") or is_known(name, schema) or (is_node and value.startswith("{"))):
            raise ConfigError(unknown_key(name, schema, value=value))
    elif root in keys(schema) and value not in choices(group) and ("/" in value or Path(value).exists()):
        expected = f"one of {', '.join(choices(group))}; a folder is given as {root}={value}"
        raise ConfigError(f"{group}={value}: expected {expected}")


def backbone_overrides(given: dict[str, str], command: str) -> list[str]:
    """What a backbone that is given by its name changes in the preset: the run's name, and where its stages begin.

    A preset names stages of its own network; those of another one are timm's last and last but one feature levels.

    Args:
        given: Values by key, as the user gave them.
        command: Name of the command and of its YAML file.
    """
    backbone = given.get("model.backbone", "")
    if not backbone:
        return []
    name = backbone.rpartition("/")[2] if "/" in backbone else "${model.backbone}"  # hf_hub:OWNER/NAME
    found = [] if "model.name" in given else [f"model.name={name}"]
    path = config_dir() / "model" / f"{_model_preset(given, command)}.yaml"
    preset = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {"backbone": backbone}
    if backbone.partition(".")[0] != preset["backbone"].partition(".")[0]:
        found += [
            f"model.{key}={level}" for key, level in (("high", -1), ("middle", -2)) if f"model.{key}" not in given
        ]
    return found


def _model_preset(given: dict[str, str], command: str) -> str | None:
    """The preset of `model` that holds: the user's, the experiment's or the command's."""
    path = config_dir() / "experiment" / f"{given.get('experiment')}.yaml"
    chosen = yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", []) if path.is_file() else []
    of_experiment = next((each["override /model"] for each in chosen if "override /model" in each), None)
    return given.get("model") or of_experiment or groups(command).get("model")


def is_known(name: str, schema: type) -> bool:
    """Whether a dotted key is one of a schema's, or in a mapping of it."""
    depth = name.count(".")
    return any(
        _matches(name, known) and (depth == known.count(".") or (key.is_mapping and depth > known.count(".")))
        for known, key in keys(schema).items()
    )


def unknown_key(name: str, schema: type, *, value: str = "VALUE") -> str:
    """Say that a key is unknown and which one is meant.

    Args:
        name: Dotted key.
        schema: Dataclass of the command.
        value: Value of the key, for the example.
    """
    known = list(keys(schema))
    for old, new in RENAMED.items():
        target = _filled(new, name)
        if _matches(name, old) and name.count(".") == old.count(".") and is_known(target, schema):
            return f"{name}: is called {target} now; give {target}={value}"
    if name == "backbone" and "model.backbone" in known:
        presets = ", ".join(choices("model"))
        return f"{name}: unknown key; give model=, one of {presets}, or model.backbone={value}, any of timm's"
    if name in _MODELS and (taken := [each for each in _MODELS if each in known]):
        return f"{name}: not taken here; give {'= or '.join(taken)}={_MODELS[taken[0]]}"
    if name == "token" and "bundle" in known:
        return "token: is no key, since others could read it; set the environment variable SKINLESION_TOKEN"
    leaf = name.rpartition(".")[2]
    usual = [key for words, targets in SYNONYMS.items() if {name, leaf} & {*words} for key in targets if key in known]
    same = [key for key in known if key.rpartition(".")[2] == leaf]
    if usual or len(same) == 1:
        beside = [key for key in known if key.rpartition(".")[0] == name.rpartition(".")[0] != ""]
        meant = usual[:1] or [*difflib.get_close_matches(name, beside, n=1, cutoff=0.9), *same]
        return f"{name}: unknown key; did you mean {' or '.join(_example(key, value) for key in meant)}?"
    if close := difflib.get_close_matches(name, known, n=2, cutoff=0.75):
        return f"{name}: unknown key; did you mean {' or '.join(close)}?"
    beside = [key for key in known if key.rpartition(".")[0] == name.rpartition(".")[0]]
    fact = f"; a further fact of the model is fact.{name}={value}" if "fact" in beside else ""
    return f"{name}: unknown key" + (f"; known here: {', '.join(beside)}" if beside else "") + fact


def _example(key: str, value: str) -> str:
    if key.endswith("accelerator"):
        return f"{key}={'cpu' if value == 'cpu' else 'gpu'}"
    if key == "trainer.devices":
        return f"trainer.accelerator=gpu trainer.devices={value}"
    return f"{key.replace(ANY, 'head')}={value}" + (f" ({key}, for each phase)" if ANY in key else "")


def _matches(name: str, known: str) -> bool:
    """Whether the parts that both have are equal, or any name stands there."""
    return all(theirs in (mine, ANY) for mine, theirs in zip(name.split("."), known.split("."), strict=False))


def _filled(pattern: str, name: str) -> str:
    """The pattern with the user's own names in their places."""
    mine = name.split(".")
    parts = enumerate(pattern.split("."))
    return ".".join(mine[place] if part == ANY and place < len(mine) else part for place, part in parts)


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
        words: Words after the command's name. Where the schema has a key `image`, a word that is no `key=value` is its
            value; of `download` it is the data set, of `train` a YAML file whose `overrides` stand there. `~KEY` takes
            a key away, as Hydra has it.
        command: Name of the command and of its YAML file.
        schema: Dataclass of the command.

    Raises:
        ConfigError: An unknown or renamed key, an unknown flag, or a list where one path is expected.
    """
    flags, rest = _split_flags(words, command, schema)
    if command == "train":
        rest = [each for word in rest for each in _listed(word)]
    is_multirun = not {"-m", "--multirun"}.isdisjoint(flags)
    has_own_folder = bool({"--config-dir", "-cd", "--config-path", "-cp"} & {flag.partition("=")[0] for flag in flags})
    known, overrides, given = keys(schema), [], {}
    bare: dict[str, list[str]] = {}
    for word in rest:
        if "dataset" in groups(command) and re.fullmatch(r"\w+", word):
            word = f"dataset={word}"
        if "external.data" in known and word.removeprefix("data=") in choices("data"):
            word = f"external.{word}"
        if name := _bare_key(word, known):
            bare.setdefault(name, []).append(word)
            continue
        if word.startswith("~"):
            overrides.append(word)
            continue
        key, value = _pair(word, known)
        name = key.lstrip("+")
        given[name] = value
        if "." in name or not has_own_folder:  # a group may be the user's own
            check_key(name, value, command, schema)
        overrides.append(override(key, value, known, is_multirun=is_multirun))
    for name, paths in bare.items():
        if name in given:
            raise ConfigError(f"{name}={given[name]}: given twice, {paths[0]} too")
        overrides.append(f"{name}={join(known[name], paths)}")
    overrides += backbone_overrides(given, command)
    return CommandLine(tuple(overrides), tuple(flags), is_multirun)


def _listed(word: str) -> list[str]:
    """The overrides that a YAML file lists, such as best.yaml of a search; any other word is itself."""
    if not word.endswith(".yaml") or _PAIR.fullmatch(word):
        return [word]
    try:
        found = yaml.safe_load(Path(word).expanduser().read_text(encoding="utf-8"))
        listed = found["overrides"]
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise TypeError("no list of words")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{word}: expected a file of overrides, as `skinlesion tune` writes it ({reason})") from error
    return listed


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


def _bare_key(word: str, known: dict[str, Key]) -> str | None:
    """The key whose value a bare path is: a model, the image, or what the command reads; None: it is no bare path."""
    found = _PAIR.fullmatch(word)
    path = Path(os.path.expanduser(word))
    if found is not None and (found[1].lstrip("+") in known or not path.exists()):
        return None
    models = {
        "checkpoint": path.suffix == ".ckpt" or (path / "best.ckpt").exists(),
        "ensemble": path.suffix == ".json" or (path / "ensemble.json").exists(),
        "bundle": (path / "bundle.json").exists(),
    }
    if path.exists() and (model := [key for key in models if models[key] and key in known]):
        return model[0]
    if word in known:
        return None
    if "image" in known:
        return "image" if path.exists() or not word.startswith("~") else None
    if "checkpoint" in known or not path.exists():
        return None
    return next((key for key in ("tables", "members", "ensemble", "bundle", "data.root") if key in known), None)


def _pair(word: str, known: dict[str, Key]) -> tuple[str, str]:
    """Key and value of a word."""
    found = _PAIR.fullmatch(word)
    if found is None:
        example = f", such as {word}={'FILE' if known[word].is_path else 'VALUE'}" if word in known else ""
        nothing = "no such file or folder; " if "/" in word and not Path(word).exists() else ""
        raise ConfigError(f"{word}: {nothing}expected key=value{example}")
    return found[1], found[2]
