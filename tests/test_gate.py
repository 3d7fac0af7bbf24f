"""Every configuration passes one gate, and what is wrong with it is said in one to three lines."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import composed
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from skinlesion.config.audit import AuditConfig
from skinlesion.config.compare import CompareConfig
from skinlesion.config.ensemble import EnsembleConfig
from skinlesion.config.evaluate import EvaluateConfig
from skinlesion.config.explain import ExplainConfig
from skinlesion.config.export import ExportConfig
from skinlesion.config.phantom import PhantomConfig
from skinlesion.config.predict import PredictConfig
from skinlesion.config.report import ReportConfig
from skinlesion.config.robustness import RobustnessConfig
from skinlesion.config.serve import ServeConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.gate import config_dir, known_keys, typed

SCHEMAS: dict[str, tuple[type, tuple[str, ...]]] = {
    "train": (TrainConfig, ()),
    "evaluate": (EvaluateConfig, ("checkpoint=a.ckpt", "split=val")),
    "ensemble": (EnsembleConfig, ("members=runs/six",)),
    "compare": (CompareConfig, ("tables=[a/predictions_val.csv]",)),
    "predict": (PredictConfig, ("checkpoint=a.ckpt", "image=a.jpg")),
    "explain": (ExplainConfig, ("checkpoint=a.ckpt", "image=a.jpg", "class=mel")),
    "robustness": (RobustnessConfig, ("checkpoint=a.ckpt", "split=val")),
    "export": (ExportConfig, ("checkpoint=a.ckpt", "out=bundle")),
    "audit": (AuditConfig, ()),
    "phantom": (PhantomConfig, ("data.root=demo",)),
    "serve": (ServeConfig, ("bundle=demo/bundle",)),
    "report": (ReportConfig, ("ensemble=runs/six/ensemble",)),
}
PRIMARY = {f"{verb}.yaml" for verb in SCHEMAS}
NOT_OF_TRAINING = ("hydra", "source", "classes", "localizations", "alike")
GROUPS = sorted(
    path.relative_to(config_dir())
    for path in config_dir().rglob("*.yaml")
    if path.parent != config_dir() and path.relative_to(config_dir()).parts[0] not in NOT_OF_TRAINING
)


@pytest.mark.parametrize("verb", SCHEMAS)
def test_each_verb_composes(verb: str) -> None:
    schema, needed = SCHEMAS[verb]
    assert isinstance(composed(verb, schema, *needed), schema)


@pytest.mark.parametrize("path", GROUPS, ids=str)
def test_each_choice_composes(path: Path) -> None:
    group, choice = str(path.parent), path.stem
    assert isinstance(composed("train", TrainConfig, f"{group}={choice}"), TrainConfig)


def test_no_file_is_forgotten() -> None:
    assert len(GROUPS) == 53
    top = {path.name for path in config_dir().glob("*.yaml")}
    assert top == PRIMARY | {"launch.yaml"}


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
        ("split.fold=-1", "split.fold=-1: expected 0 to 4"),
        ("schedule.phases.head.rate=0", "schedule.phases.head.rate=0.0"),
        ("schedule.phases.high.views=-1", "schedule.phases.high.views=-1"),
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
def test_what_is_wrong_is_named(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed("train", TrainConfig, override)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_one_model_is_needed() -> None:
    with pytest.raises(ConfigError, match="0 models given"):
        composed("evaluate", EvaluateConfig, "split=val")
    with pytest.raises(ConfigError, match="split=None: expected val or test, or images of another source as external"):
        composed("evaluate", EvaluateConfig, "checkpoint=a.ckpt")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["external.images=x"], "external.labels=None: expected the CSV of the images' diagnoses"),
        (["external.labels=x", "split=val"], "external.images=None: expected the folder of the images"),
        (["external.images=x", "external.labels=y", "split=val"], "split=val: expected null"),
        (["split=val", "external.seen=maybe"], "external.seen=maybe: expected one of drop, keep"),
        (["split=val", "external.classes.scc=cancer"], "external.classes.scc=cancer: expected one of akiec"),
        (["entry=e.csv", "external.labels=y"], "entry=e.csv: expected no model and no images beside it"),
    ],
)
def test_what_is_judged_is_said_once(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed("evaluate", EvaluateConfig, "checkpoint=a.ckpt", *overrides)
    assert said in str(caught.value)


def test_keys_of_mappings_are_known() -> None:
    assert "schedule.phases.*.rate" in known_keys(TrainConfig)


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
    """What a model preset does not change, it does not repeat."""
    shared = OmegaConf.load(config_dir() / "network" / "published.yaml")
    for path in (config_dir() / "model").glob("*.yaml"):
        preset = OmegaConf.load(path)
        same = [key for key in preset if key in shared and preset[key] == shared[key]]
        assert not same, f"{path.name} repeats {same}"


def run_cli(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skinlesion", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "loss.gama=1"], "loss.gama: unknown key; did you mean loss.gamma"),
        (["train", "model=resnet5"], "model=resnet5: unknown choice; expected one of"),
        (["train", "foo"], "foo"),
        (["train", "model=null"], "model=null: expected the name of a choice"),
        (["train", "-m", "seed=1,2", "--cfg", "job"], "Only one of"),
        (["trian"], "did you mean train?"),
    ],
)
def test_the_command_line_refuses_typos(arguments: list[str], said: str, tmp_path: Path) -> None:
    answer = run_cli(*arguments, folder=tmp_path)
    assert answer.returncode == 1
    assert said in answer.stderr
    assert 1 <= len(answer.stderr.strip().splitlines()) <= 3
    assert answer.stdout == ""
    assert not any(tmp_path.iterdir()), "nothing is written"


def test_a_sweep_names_its_failed_members(tmp_path: Path) -> None:
    answer = run_cli("train", "sweep=six", "model=tiny_resnet", "data.root=nowhere", folder=tmp_path)
    assert answer.returncode == 1
    assert "3 failed" in answer.stderr
    assert "loss=a06_g19 model=tiny_resnet" in answer.stderr
    assert "nowhere" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_gate_is_light() -> None:
    """Listing verbs imports nothing; refusing a key imports neither torch nor pandas."""
    code = (
        "import sys; sys.argv = ['skinlesion', 'train', '+x=1']\n"
        "from skinlesion import cli\n"
        "assert not {'hydra', 'torch', 'numpy'} & set(sys.modules), 'cli is heavy'\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert stop.code == 1\n"
        "heavy = {'torch', 'pandas', 'lightning', 'timm', 'albumentations', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert HydraConfig  # the gate itself stands on Hydra


def test_type_errors_of_a_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("loss: 3\n")
    with pytest.raises(ConfigError, match="loss"):
        typed(OmegaConf.load(tmp_path / "mine.yaml"), TrainConfig)  # type: ignore[arg-type]
