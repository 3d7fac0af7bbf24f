"""Members with random weights, saved as checkpoints: what export and its like need, without a training."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from conftest import SMALL, composed
from torch import nn

from skinlesion.config.train import TrainConfig
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.training.build import architecture, image_input
from skinlesion.training.module import LesionClassifier


def write_member(
    folder: Path, *overrides: str, root: Path, seed: int, backbone: nn.Module | None = None
) -> tuple[Path, nn.Module]:
    """Save a run's best.ckpt whose weights and batch statistics are random, and give its backbone too.

    Args:
        folder: Of the run.
        overrides: Of the training's configuration.
        root: Of the data.
        seed: Of the weights.
        backbone: Of another member, whose weights are taken.
    """
    config = composed("train", TrainConfig, *SMALL, f"data.root={root}", f"out={folder}", *overrides)
    options = architecture(config.model)
    datamodule = LesionDataModule.from_config(config, image_input(options))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = LesionClassifier(
            **options,
            encoder=datamodule.encoder.state(),
            class_counts=datamodule.class_counts(),
            **asdict(datamodule.spec.treatment),
        )
        _disturb(module.network)
    if backbone is not None:
        module.network.backbone.load_state_dict(backbone.state_dict())
    checkpoint = {"skinlesion": {**datamodule.record(), "config": asdict(config)}, "state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    folder.mkdir(parents=True)
    torch.save({**checkpoint, "hyper_parameters": dict(module.hparams)}, folder / "best.ckpt")
    return folder / "best.ckpt", module.network.backbone


def write_members(folder: Path, kinds: Sequence[Sequence[str]], *, root: Path) -> list[Path]:
    """Save several members; a second one of a kind has the first one's backbone, as frozen ones do."""
    seen: dict[str, nn.Module] = {}
    paths = []
    for number, overrides in enumerate(kinds):
        key = " ".join(overrides)
        path, backbone = write_member(
            folder / f"member{number}", *overrides, root=root, seed=number, backbone=seen.get(key)
        )
        seen.setdefault(key, backbone)
        paths.append(path)
    return paths


def _disturb(network: nn.Module) -> None:
    """Move what initialisation leaves at 0 and 1, so that no part of a network is an identity by chance."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.uniform_(module.weight, 0.7, 1.3)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight, 0, 1)  # so that probabilities are far from even
