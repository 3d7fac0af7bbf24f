"""From a trained network and one part of a split to a predictions table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from skinlesion.config.data import LoaderConfig, SourceConfig, reading
from skinlesion.config.schedule import ScheduleConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data.cache import ImageCache, open_cache
from skinlesion.data.datamodule import LesionDataModule, Part, loader, read_data, targets
from skinlesion.data.dataset import InOrder, LesionDataset
from skinlesion.errors import DataError
from skinlesion.evaluation.predictions import build_table
from skinlesion.learning.checkpoint import TrainedModel
from skinlesion.learning.features import FeatureDataset, FeatureStore
from skinlesion.learning.inference import device_of, probabilities
from skinlesion.model.backbone import Backbone
from skinlesion.model.network import Network


def judge_run(network: Network, datamodule: LesionDataModule, part: Part, *, device: torch.device) -> pd.DataFrame:
    """The predictions of a run that has just been trained.

    Where all phases ran on cached maps, the maps of what no phase trained are used.
    """
    config = datamodule.config
    dataset: LesionDataset | FeatureDataset = datamodule.dataset(part, None)
    if _cached_throughout(config):
        network.backbone.unfreeze(lowest(network.backbone, config.schedule))
        dataset = FeatureStore(network.backbone, datamodule, device=device).dataset(part, views=1)
    return _table(network, dataset, datamodule.part_frame(part), device=device, settings=config.loader, label=part)


def judge_model(
    model: TrainedModel,
    part: Part,
    *,
    source: SourceConfig,
    settings: LoaderConfig,
    accelerator: str,
    tta: str = "none",
) -> pd.DataFrame:
    """The predictions of a checkpoint on the part of the split that it was trained with.

    Args:
        model: Names the images of the part.
        part: Which.
        source: Where the images are.
        settings: Of the loader.
        accelerator: As Lightning names them.
        tta: Which flips and turns of each image vote.

    Raises:
        DataError: The data lack some of the part's images.
    """
    frame, cache = _images(model, source)
    missing = sorted(set(model.split[part]) - set(frame["image_id"]))
    if missing:
        raise DataError(
            f"{len(missing)} images of the {part} part of {model.path} are not there "
            f"({', '.join(missing[:5])}); give the data it was trained on as data.root=FOLDER"
        )
    frame = frame[frame["image_id"].isin(model.split[part])].reset_index(drop=True)
    return judge_images(model, frame, cache, settings=settings, accelerator=accelerator, tta=tta)


def judge_images(
    model: TrainedModel,
    frame: pd.DataFrame,
    cache: ImageCache,
    *,
    settings: LoaderConfig,
    accelerator: str,
    tta: str = "none",
) -> pd.DataFrame:
    """The predictions of a checkpoint on some images.

    Args:
        model: Any.
        frame: Checked, with the images' diagnoses.
        cache: Holds them at the model's size.
        settings: Of the loader.
        accelerator: As Lightning names them.
        tta: Which flips and turns of each image vote.
    """
    dataset = LesionDataset(
        cache,
        frame["image_id"].tolist(),
        metadata=model.encoder.encode(frame),
        targets=targets(frame),
        spec=model.spec,
        augment=None,
    )
    device = device_of(accelerator)
    return _table(model.network, dataset, frame, device=device, settings=settings, label=model.name, tta=tta)


def images_of(model: TrainedModel, source: SourceConfig) -> ImageCache:
    """The decoded images of a model's data set, at its size."""
    return _images(model, source)[1]


def _images(model: TrainedModel, source: SourceConfig) -> tuple[pd.DataFrame, ImageCache]:
    data = reading(model.config["data"])
    data = replace(data, root=source.root or data.root, cache_dir=source.cache_dir or data.cache_dir)
    frame = read_data(data)
    return frame, open_cache(frame, size=model.spec.size, cache_dir=Path(data.cache_dir))


def lowest(backbone: Backbone, schedule: ScheduleConfig) -> int | str | None:
    """Where the phase begins that trains most of the backbone; None if it stays frozen."""
    starts = [phase.unfreeze for phase in schedule.phases.values()]
    return max(starts, key=lambda start: backbone.count_trained(start))


def _cached_throughout(config: TrainConfig) -> bool:
    return all(phase.views > 0 for phase in config.schedule.phases.values())


def _table(
    network: Network,
    dataset: Any,
    frame: pd.DataFrame,
    *,
    device: torch.device,
    settings: LoaderConfig,
    label: str,
    tta: str = "none",
) -> pd.DataFrame:
    batches = loader(
        dataset, InOrder(len(dataset)), batch_size=settings.batch_size, workers=_workers(dataset, settings)
    )
    label = f"predicting {label}"
    answers = probabilities(network, batches, device=device, label=label, total=len(batches), tta=tta)
    return build_table(
        frame["image_id"].tolist(),
        frame["lesion_id"].tolist(),
        probabilities=answers,
        actual=frame["diagnosis"].tolist(),
    )


def _workers(dataset: Any, settings: LoaderConfig) -> int:
    return 0 if isinstance(dataset, FeatureDataset) else settings.workers
