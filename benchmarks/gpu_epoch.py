"""An epoch of training on a GPU, against the same step without any input, and against a plain Lightning template."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.data_of import FULL, config, parts_of, photographs
from benchmarks.measuring import Outcome, Setting, ratios
from benchmarks.template import Template, TemplateData
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.training.module import LesionClassifier

MODELS = ("mobilenetv2_100", "resnet50", "efficientnet_b1")


class Repeated(IterableDataset[Any]):
    """One batch that waits on the device, over and over.

    Args:
        batch: Of random images.
        count: How often.
    """

    def __init__(self, batch: dict[str, Any], count: int) -> None:
        self.batch, self.count = batch, count

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batch for _ in range(self.count))


class Clock(lightning.Callback):
    """Seconds of each training epoch; the first, in which workers start and kernels are chosen, is not counted."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start."""
        _wait()
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop."""
        _wait()
        self.seconds.append(time.perf_counter() - self.started)


def measure_input(setting: Setting, name: str) -> Outcome:
    """How much of the bare step's speed is left when real batches come: a share of 1 is all of it."""
    module, datamodule = _ours(setting, name)
    epochs = 3 if setting.toy else 6
    mine = epoch_seconds(module, datamodule, setting, epochs)
    loader = datamodule.train_dataloader()
    raw = {key: _to(value, _device()) for key, value in next(iter(loader)).items()}
    batch: dict[str, Any] = {**datamodule.on_after_batch_transfer(raw, 0)}
    batch["image"] = torch.randn_like(batch["image"])
    bare = DataLoader(Repeated(batch, len(loader)), batch_size=None)
    others = epoch_seconds(_ours(setting, name)[0], bare, setting, epochs)
    return _outcome(
        f"training epoch, {name}, {_size(datamodule)}", "the same step on one resident random batch", 0.95, mine, others
    )


def measure_template(setting: Setting, name: str) -> Outcome:
    """Against PIL and albumentations in 16 workers."""
    module, datamodule = _ours(setting, name)
    epochs = 2 if setting.toy else 3
    mine = epoch_seconds(module, datamodule, setting, epochs)
    data = TemplateData(
        datamodule.part_frame("train"),
        size=datamodule.spec.size,
        batch_size=datamodule.batch_size,
        workers=2 if setting.toy else 16,
    )
    others = epoch_seconds(Template(_timm_name(name)), data.train_dataloader(), setting, epochs)
    return _outcome(
        f"training epoch, {name}, {_size(datamodule)}", "a plain Lightning template, 16 workers", 3, mine, others
    )


def epoch_seconds(
    module: lightning.LightningModule,
    data: Iterable[Any] | lightning.LightningDataModule,
    setting: Setting,
    epochs: int,
) -> list[float]:
    """Seconds of each training epoch but the first."""
    clock = Clock()
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision="32-true" if setting.toy else "bf16-mixed",
        max_epochs=epochs,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(module, data)
    return clock.seconds[1:]


def _ours(setting: Setting, name: str) -> tuple[LesionClassifier, LesionDataModule]:
    n = 10015 if setting.images or not setting.toy else 91
    root = photographs(setting, n=n, size=(80, 60) if setting.toy else FULL)
    model = ("model.image_size=[32,32]", "loader.batch_size=16") if setting.toy else ("model.image_size=[224,224]",)
    settings = config(setting.folder, root, f"model={name}", *model, "data.augment_on=device")
    module, datamodule = parts_of(settings)
    stages = len(module.network.backbone.stages())  # all of them: the heaviest step there is
    module.start_phase(replace(settings.schedule.phases["middle"], unfreeze=stages))
    return module, datamodule


def _outcome(what: str, against: str, goal: float, mine: list[float], others: list[float]) -> Outcome:
    gpu = torch.cuda.is_available()
    return Outcome(
        what=f"{what}, {'bf16, ' if gpu else ''}channels-last",
        against=against,
        goal=goal,
        ratios=ratios(mine, others),
        ours=mine,
        theirs=others,
        unit="s",
        notes={"device": str(_device()), "clock": "wall, after synchronising"},
    )


def _size(datamodule: LesionDataModule) -> str:
    return "x".join(str(side) for side in datamodule.spec.size)


def _timm_name(name: str) -> str:
    return {"tiny_resnet": "test_resnet"}.get(name, name)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
