"""Checkpoints on disk: any damage is named before anything is made of it, and files of earlier versions load."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.errors import CheckpointError
from skinlesion.training.checkpoint import is_foreign, load_model, read_checkpoint
from skinlesion.training.module import LesionClassifier

FLIPS = 60


@pytest.fixture
def folder(trained: TrainConfig, tmp_path: Path) -> Path:
    """A copy of a finished run that a test may break."""
    return Path(shutil.copytree(trained.out, tmp_path / "run"))


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def load_in_a_notebook(path: Path) -> object:
    return LesionClassifier.load_from_checkpoint(path)


@pytest.mark.parametrize("load", [load_model, read_checkpoint, load_in_a_notebook])
@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt", "phases/0-head.ckpt"])
def test_any_flipped_bit_is_refused(folder: Path, name: str, load: Callable[[Path], object]) -> None:
    path, draw = folder / name, random.Random(1)
    load(path)
    size = 8 * path.stat().st_size
    for bit in (0, size - 1, size - 8 * 65, size - 8 * 72, *(draw.randrange(size) for _ in range(FLIPS))):
        flip(path, bit)
        with pytest.raises(CheckpointError, match=r"damaged|not a readable checkpoint") as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        flip(path, bit)
    load(path)


def test_damaged_weights_of_an_earlier_version_are_refused(folder: Path) -> None:
    path = folder / "old.ckpt"
    torch.save(torch.load(folder / "best.ckpt", weights_only=True), path)
    load_model(path)
    tensor = next(each for each in read_checkpoint(path)["state_dict"].values() if each.ndim == 2)
    place = path.read_bytes().index(tensor.numpy().tobytes())
    flip(path, 8 * place + 30)  # of an exponent: the weight becomes huge
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(path)


def test_a_checkpoint_of_another_run_is_refused(folder: Path) -> None:
    shutil.copy(folder / "last.ckpt", folder / "best.ckpt")
    with pytest.raises(CheckpointError, match=r"best\.ckpt: damaged or replaced.*metrics\.json"):
        load_model(folder)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"metrics\.json: not readable"):
        load_model(folder)
    (folder / "metrics.json").write_text(json.dumps({}))
    load_model(folder)


def test_a_damaged_checkpoint_is_not_resumed(folder: Path, trained: TrainConfig) -> None:
    config = replace(trained, out=str(folder))
    flip(folder / "best.ckpt", 80_000)
    with pytest.raises(CheckpointError, match=r"best\.ckpt: damaged"):
        run(config)  # finished, but with what?
    (folder / "metrics.json").unlink()
    flip(folder / "last.ckpt", 80_000)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: damaged.*resume=restart"):
        run(config)


def test_a_checkpoint_of_another_program_is_a_file_of_weights(
    trained: TrainConfig, small_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """As Lightning writes it of any module; its run has no split that could leak."""
    own = Path(trained.out) / "best.ckpt"
    assert not is_foreign(own)
    prefix = "network.backbone.net."
    weights = {key: value for key, value in read_checkpoint(own)["state_dict"].items() if key.startswith(prefix)}
    other = {"state_dict": {f"model.{key.removeprefix(prefix)}": value for key, value in weights.items()}, "epoch": 3}
    path = tmp_path / "other.ckpt"
    torch.save(other, path)
    assert is_foreign(path)
    config = small_config(f"model.pretrained={path}", "schedule=head_only", "schedule.phases.head.epochs=1")
    run(config)
    found = read_checkpoint(Path(config.out) / "best.ckpt")["state_dict"]
    assert all(torch.equal(found[key], value) for key, value in weights.items() if "running" not in key)
