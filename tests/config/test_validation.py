"""Every configuration is checked, and each error names its key in one to three lines."""

from pathlib import Path

import pytest
from conftest import composed
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf

from skinlesion.cli import COMMANDS
from skinlesion.config.inference import EvaluateConfig, PredictConfig
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import configuration, explain, focal_name, require_out, typed
from skinlesion.errors import ConfigError
from skinlesion.files import config_dir

REQUIRED: dict[str, tuple[str, ...]] = {
    "train": (),
    "evaluate": ("checkpoint=a.ckpt", "split=val"),
    "ensemble": ("members=runs/six",),
    "compare": ("tables=[a/predictions_val.csv]",),
    "predict": ("checkpoint=a.ckpt", "image=a.jpg"),
    "explain": ("checkpoint=a.ckpt", "image=a.jpg", "class=mel"),
    "robustness": ("checkpoint=a.ckpt", "split=val"),
    "export": ("checkpoint=a.ckpt", "out=bundle"),
    "push": ("checkpoint=a.ckpt", "repo=me/model"),
    "tune": (),
    "folds": (),
    "download": (),
    "probe": (),
    "audit": (),
    "verify": (),
    "synthetic": ("data.root=demo",),
    "serve": ("bundle=demo/bundle",),
    "report": ("ensemble=runs/six/ensemble",),
}
NOT_OF_TRAINING = (
    "hydra",
    "taxonomy",
    "words",
    "source",
    "localizations",
    "near_duplicates",
    "dataset",
    "fact_specs",
    "label_file",
)
GROUPS = sorted(
    path.relative_to(config_dir())
    for path in config_dir().rglob("*.yaml")
    if path.parent != config_dir() and path.relative_to(config_dir()).parts[0] not in NOT_OF_TRAINING
)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_composes(command: str) -> None:
    schema = COMMANDS[command].load_schema()
    assert isinstance(composed(command, schema, *REQUIRED[command]), schema)


@pytest.mark.parametrize("path", GROUPS, ids=str)
def test_each_choice_composes(path: Path) -> None:
    group, choice = str(path.parent), path.stem
    assert isinstance(composed("train", TrainConfig, f"{group}={choice}"), TrainConfig)


def test_each_command_has_a_file_and_each_file_a_command() -> None:
    assert len(GROUPS) > 40
    top = {path.name for path in config_dir().glob("*.yaml")}
    assert top == {f"{command}.yaml" for command in COMMANDS} | {"launch.yaml"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+loss.gama=1", "loss.gama: unknown key; did you mean loss.gamma"),
        ("+nonsense=1", "nonsense: unknown key"),
        ("+model.backbone_kwarg=1", "did you mean model.backbone_kwargs"),
        ("+schedule.phases.head.rates=1", "schedule.phases.head.rates: unknown key"),
        ("loss.gamma=abc", "loss.gamma"),
        ("loss.gamma=-1", "loss.gamma=-1.0: expected 0 or more"),
        ("loss.smoothing=1", "loss.smoothing=1.0"),
        ("seed=-1", "seed=-1"),
        ("seed=null", "seed"),
        ("seed=1.5", "seed"),
        ("resume=maybe", "resume=maybe: expected one of auto, restart"),
        ("model.image_size=224", "model.image_size: expected a list"),
        ("model.image_size=[8,8]", "model.image_size"),
        ("model.spatial_kernel=4", "model.spatial_kernel=4: expected an odd number"),
        ("model.fusion=gates", "model.fusion=gates"),
        ("model.std=[0,1,1]", "model.std"),
        ("split.policy=random", "split.policy=random"),
        ("split.policy=file", "split.file"),
        ("split.fold=5", "split.fold=5: expected 0 to 4"),
        ("split.fold=-1", "split.fold=-1"),
        ("schedule.phases.head.lr=0", "schedule.phases.head.lr=0.0"),
        ("schedule.phases.high.cached_views=-1", "schedule.phases.high.cached_views=-1"),
        ("schedule.phases.high.mixup=-1", "schedule.phases.high.mixup=-1"),
        ("augment.square=2", "augment.square=2"),
        ("augment.hue=0.6", "augment.hue=0.6"),
        ("schedule.phases.head.epochs=0", "schedule.phases.head.epochs=0"),
        ("augment.rotation=200", "augment.rotation=200"),
        ("trainer.limit_train_batches=1.5", "trainer.limit_train_batches=1.5"),
        ("loader.batch_size=1", "loader.batch_size=1"),
        ("trainer.devices=0", "trainer.devices=0: expected a number from 1"),
        ("trainer.devices=[]", "trainer.devices=[]"),
        ("trainer.devices=1.5", "trainer.devices=1.5"),
        ("trainer.num_nodes=0", "trainer.num_nodes=0"),
        ("trainer.strategy=fsdp", "trainer.strategy=fsdp: expected one of auto, ddp"),
        ("trainer.precision=8", "trainer.precision=8: expected one of 32-true"),
        ("data.missing_images=skip", "data.missing_images=skip: expected one of error, drop"),
    ],
)
def test_errors_name_the_key(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed("train", TrainConfig, override)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_one_model_is_needed() -> None:
    with pytest.raises(ConfigError, match="0 models given"):
        composed("evaluate", EvaluateConfig, "split=val")
    with pytest.raises(ConfigError, match="split: expected val or test, or images of another source as external"):
        composed("evaluate", EvaluateConfig, "checkpoint=a.ckpt")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["external.images=x"], "external.labels: expected the CSV of the images' diagnoses"),
        (["external.labels=x", "split=val"], "external.images: expected the folder of the images"),
        (["external.images=x", "external.labels=y", "split=val"], "split=val: expected null"),
        (["split=val", "external.leakage=maybe"], "external.leakage=maybe: expected one of drop, keep"),
        (["submission=e.csv", "external.labels=y"], "submission=e.csv: expected no model and no images beside it"),
    ],
)
def test_images_and_models_exclude_each_other(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed("evaluate", EvaluateConfig, "checkpoint=a.ckpt", *overrides)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("command", "override", "said"),
    [
        ("evaluate", "+external.image=x", "did you mean external.images=VALUE or external.columns.image=VALUE?"),
        ("evaluate", "+external.label=x", "did you mean external.labels"),
        ("predict", "+diameter=7", "a further fact of the model is fact.diameter=VALUE"),
        ("predict", "fact=facts.csv", "fact: expected fact.NAME=VALUE or facts=VALUE"),
    ],
)
def test_a_key_beside_the_one_that_is_meant_is_named(command: str, override: str, said: str) -> None:
    schema = {"evaluate": EvaluateConfig, "predict": PredictConfig}[command]
    with pytest.raises(ConfigError) as caught:
        composed(command, schema, "checkpoint=a.ckpt", override)
    assert said in str(caught.value)


def test_the_sweep_has_six_members() -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["sweep=six"], return_hydra_config=True)
    params = config.hydra.sweeper.params
    pairs = []
    for loss in params.loss.split(","):
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            pairs.append(compose("train", [f"loss={loss}"]).loss)
    assert params.model.split(",") == ["efficientnet_b1", "resnet50"]
    assert [(pair.alpha, pair.gamma) for pair in pairs] == [(0.6, 1.9), (0.5, 2.0), (0.4, 2.1)]
    assert config.expected_members == 6


def test_a_number_stands_in_one_yaml() -> None:
    """A model preset does not repeat a value that it does not change."""
    shared = OmegaConf.load(config_dir() / "network" / "published.yaml")
    for path in (config_dir() / "model").glob("*.yaml"):
        preset = OmegaConf.load(path)
        same = [key for key in preset if key in shared and preset[key] == shared[key]]
        assert not same, f"{path.name} repeats {same}"


def test_type_errors_of_a_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("loss: 3\n")
    with pytest.raises(ConfigError, match="loss"):
        typed(OmegaConf.load(tmp_path / "mine.yaml"), TrainConfig)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["schedule.phases.hed.epochs=3"], "schedule.phases.hed: expected one of head, high, middle there"),
        (["~schedule.phases.middel"], "~schedule.phases.middel: there is nothing of that name to leave out"),
        (["seed=1.5"], "seed=1.5: expected a whole number, 0 to"),
        (["loader.batch_size=abc"], "loader.batch_size=abc: expected a whole number, 2 or more"),
        (["trainer.benchmark=maybe"], "trainer.benchmark=maybe: expected true or false"),
        (["loss.gamma=abc"], "loss.gamma=abc: expected a number, 0 or more"),
    ],
)
def test_natural_mistakes_are_answered_in_words_of_our_own(words: list[str], said: str) -> None:
    with pytest.raises((ConfigError, HydraException)) as caught:
        configuration("train", TrainConfig, *words)
    error = caught.value
    assert said in (str(error) if isinstance(error, ConfigError) else explain(error, TrainConfig))


@pytest.mark.parametrize(("launcher", "extra"), [("joblib", "joblib"), ("submitit_slurm", "submitit"), ("ray", "ray")])
def test_a_launcher_that_is_not_installed_names_its_extra(launcher: str, extra: str) -> None:
    error = MissingConfigException("", f"hydra/launcher/{launcher}", ["basic"])
    named = f"hydra/launcher={launcher}: is not installed; pip install 'skinlesion[{extra}]'"
    assert explain(error, TrainConfig) == named
    with pytest.raises(ConfigError, match="hydra/launcher=nomad: unknown choice; expected one of basic, "):
        configuration("train", TrainConfig, "hydra/launcher=nomad")


def test_each_focal_loss_has_a_name_of_its_own() -> None:
    assert focal_name(0.5, 2.0) == "a05_g20"
    pairs = [(alpha, gamma) for alpha in (0, 0.5, 0.05, 5, 10.0) for gamma in (0, 1, 1.5, 1.55, 10, 15.0, 1e-5)]
    assert len({focal_name(*pair) for pair in pairs}) == len(pairs)


def test_an_age_is_a_number() -> None:
    assert configuration("predict", PredictConfig, "image=a", "bundle=b", "age=55").age == 55.0
    with pytest.raises(ConfigError, match="age=200: expected 0 to 120"):
        configuration("predict", PredictConfig, "image=a", "bundle=b", "age=200")


def test_facts_are_numbers_or_categories_of_other_names_than_columns() -> None:
    added = "+data.facts.itch={kind: category}"
    config = configuration("train", TrainConfig, added, "~data.facts.localization", "data.facts.age.column=years")
    assert list(config.data.facts) == ["age", "sex", "itch"]
    assert config.data.facts["age"].column == "years"
    for word, said in (
        ("+data.facts.image_id={kind: category}", "data.facts.image_id=category: expected another name"),
        ("+data.facts.width={kind: number, low: 3, high: 2}", "data.facts.width.low=3.0: expected at most high=2.0"),
        ("+data.facts.width={kind: length}", "expected one of number, category"),
        ("data.facts.age.kind=category", "data.facts.age.kind=category: expected number"),
    ):
        with pytest.raises(ConfigError, match=said):
            configuration("train", TrainConfig, word)


@pytest.mark.parametrize(
    "command", [name for name in REQUIRED if name not in ("download", "predict", "serve", "synthetic", "verify")]
)
def test_results_that_cannot_be_written_are_refused_before_the_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    words = [word for word in REQUIRED[command] if not word.startswith("out=")]
    config = composed(command, COMMANDS[command].load_schema(), *words, "out=file/deeper/results")
    with pytest.raises(ConfigError, match=r"^out=\S*file/deeper.*: cannot be written \(Not a directory\)") as caught:
        require_out(command, config)
    assert "\n" not in str(caught.value)
    require_out(command, composed(command, COMMANDS[command].load_schema(), *words, "out=new/results"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_place_beside_a_model_must_be_writable_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = f"checkpoint={tmp_path / 'file' / 'run' / 'best.ckpt'}"
    with pytest.raises(ConfigError, match="out="):
        require_out("evaluate", composed("evaluate", EvaluateConfig, model, "split=val"))
    require_out("evaluate", composed("evaluate", EvaluateConfig, model, "split=val", f"out={tmp_path / 'a'}"))
