"""What several tests share: one thread, a synthetic data set, composed configurations, one small trained run."""

import gc
import logging
import os
import signal
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two OpenMP threads beside other load are many times slower

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from hydra import compose, initialize_config_dir

from skinlesion.cli import main
from skinlesion.commands import launch
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import typed
from skinlesion.files import config_dir
from skinlesion.synthetic.dataset import write_synthetic
from skinlesion.taxonomy import HAM10000

torch.set_num_threads(1)

CODES, DIAGNOSES, NEVUS = HAM10000.codes, HAM10000.diagnoses, "nv"
Schema = TypeVar("Schema")


def pytest_collection_finish() -> None:
    """Spare each garbage collection the modules that stay: a tenth of the tests' time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


SMALL = (
    "model=tiny_resnet",
    "model.image_size=[32,32]",
    "model.funnel=[16]",
    "loader.batch_size=32",
    "trainer.enable_progress_bar=false",
    "logger=none",
    "judge=[val,test]",
    "schedule.phases.head.epochs=2",
    "schedule.phases.head.cached_views=2",
)
NEVUS_OR_NOT = (
    "taxonomy=ham10000_melanoma",
    "~taxonomy.diagnoses.mel",
    "+taxonomy.diagnoses.nv={name: nevus, category: benign}",
    "taxonomy.targets=[nv]",
    "taxonomy.majority=nv",
    "taxonomy.words.nv=nv",
    "+taxonomy.words.mel=rest",
)
SHORT = tuple(f"schedule.phases.{phase}.epochs=2" for phase in ("high", "middle"))


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic HAM10000 of 240 images."""
    root = tmp_path_factory.mktemp("synthetic") / "data"
    write_synthetic(root, n=240, image_size=(40, 30), seed=1)
    return root


def composed(verb: str, schema: type[Schema], *overrides: str) -> Schema:
    """The configuration of a verb, through the gate."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return typed(compose(verb, list(overrides)), schema)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Run a command line in this process, which has imported all it needs and is left as it was."""
    monkeypatch.setattr(launch, "_COMMAND", [])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    handler, root = signal.getsignal(signal.SIGTERM), logging.getLogger()
    level, handlers = root.level, root.handlers[:]

    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["skinlesion", *words])
        main()

    yield run
    signal.signal(signal.SIGTERM, handler)
    root.setLevel(level)
    root.handlers[:] = [each for each in root.handlers if each in handlers]


@pytest.fixture
def small_config(synthetic_root: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A training that takes seconds, on the synthetic data."""

    def make(*overrides: str) -> TrainConfig:
        places = (f"data.root={synthetic_root}", f"data.cache_dir={tmp_path / 'cache'}", f"out={tmp_path / 'run'}")
        return composed("train", TrainConfig, *SMALL, *places, *overrides)

    return make


@pytest.fixture(scope="session")
def trained(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A finished head-only run; its configuration says where."""
    from skinlesion.commands.train import run

    folder = tmp_path_factory.mktemp("trained")
    places = (f"data.root={synthetic_root}", f"data.cache_dir={folder / 'cache'}", f"out={folder / 'first'}")
    config = composed("train", TrainConfig, *SMALL, *places, "schedule=head_only")
    run(config)
    return config


@pytest.fixture(scope="session")
def sweep_folder(trained: TrainConfig) -> Path:
    """Three finished members that go together, in one folder."""
    from skinlesion.commands.train import run

    for name, seed in (("second", 2), ("third", 3)):
        run(replace(trained, seed=seed, out=str(Path(trained.out).parent / name)))
    return Path(trained.out).parent


@pytest.fixture(scope="session")
def nevus_specialist(trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that tells nevi from all else, on the split of the sweep's members."""
    from skinlesion.commands.train import run

    out = tmp_path_factory.mktemp("specialist") / "nevus"
    places = (f"data.root={trained.data.root}", f"data.cache_dir={trained.data.cache_dir}", f"out={out}")
    split = ("split.policy=file", f"split.file={Path(trained.out) / 'split.csv'}")
    loss = ("loss.alpha=0", "loss.gamma=0", "loss.smoothing=0", "schedule.phases.head.lr=0.01")
    run(composed("train", TrainConfig, *SMALL, *NEVUS_OR_NOT, "schedule=head_only", *loss, *places, *split))
    return out / "best.ckpt"
