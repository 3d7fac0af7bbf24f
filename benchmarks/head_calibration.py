"""An epoch of the head on a frozen backbone: from cached feature maps, against from images."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.data_of import config, parts_of, synthetic
from benchmarks.measuring import Outcome, Setting, in_turn, ratios
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.training.feature_cache import FeatureStore, logits

STILL = tuple(f"augment.{key}=0" for key in ("flip", "rotation", "shift", "zoom", "brightness", "contrast"))


def measure(setting: Setting) -> Outcome:
    """Processor time of an epoch, one thread; first without augmentation, to see that the losses are the same."""
    torch.set_num_threads(1)
    n = 91 if setting.toy else 240
    size = (80, 60) if setting.toy else (200, 150)
    root = synthetic(setting.folder, n=n, size=size)
    model = ("model=tiny_resnet",) if setting.toy else ("model=mobilenetv2_100", "model.image_size=[224,224]")
    settings = config(setting.folder, root, *model, "model.fact_dropout=0", *STILL)
    cached, plain = (epoch(settings, views) for views in (1, 0))
    losses = cached(), plain()
    mine, others = in_turn(cached, plain, rounds=1 if setting.toy else 4)
    datamodule = parts_of(settings)[1]
    count = len(datamodule.part_frame("train"))
    return Outcome(
        what=f"head calibration with cached features, an epoch, {settings.model.name}, {_size(datamodule)} pixels",
        against="the same without the cache",
        goal=15,
        ratios=ratios(mine, others),
        ours=[1e3 * seconds / count for seconds in mine],
        theirs=[1e3 * seconds / count for seconds in others],
        unit="ms an image",
        notes={
            "training_images": count,
            "loss_with_and_without": [float(f"{loss:.7g}") for loss in losses],
            "threads": 1,
            "clock": "processor time",
        },
    )


def epoch(settings: Any, views: int) -> Callable[[], float]:
    """A function that trains a new head for one epoch and tells the sum of its losses."""
    torch.manual_seed(0)
    module, datamodule = parts_of(settings)
    module.start_phase(next(iter(settings.schedule.phases.values())))
    start = {name: value.clone() for name, value in module.network.head.state_dict().items()}
    loader: Iterable[Any] = (
        FeatureStore(module.network.backbone, datamodule, device=torch.device("cpu")).train_dataloader(views)
        if views
        else datamodule.train_dataloader()
    )

    def run() -> float:
        module.network.head.load_state_dict(start)
        module.train()
        torch.manual_seed(1)
        optimizer = torch.optim.AdamW(module.network.head.parameters(), 1e-3, fused=settings.speed.fused_optimizer)
        total = 0.0
        for batch in loader:
            optimizer.zero_grad()
            loss = module.criterion(logits(module.network, batch), batch["target"])
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        return total

    return run


def _size(datamodule: LesionDataModule) -> str:
    return "x".join(str(side) for side in datamodule.spec.size)
