"""From a trained network and one part of a split to a predictions table."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from skinlesion.config.data import LoaderConfig, SourceConfig, restore_data_config
from skinlesion.config.train import ScheduleConfig
from skinlesion.data.datamodule import LesionDataModule, Part
from skinlesion.data.dataset import InOrder, LesionDataset, loader
from skinlesion.data.frame import read_data, targets
from skinlesion.data.image_cache import ImageCache, open_cache
from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.model.backbone import Backbone
from skinlesion.model.network import Network
from skinlesion.training.checkpoint import TrainedModel
from skinlesion.training.feature_cache import FeatureDataset, FeatureStore
from skinlesion.training.forward import device_of, probabilities


def predict_run(
    network: Network, datamodule: LesionDataModule, part: Part, *, schedule: ScheduleConfig, device: torch.device
) -> Predictions:
    """The predictions of a run that has just been trained.

    Where all phases ran on cached maps, the maps of what no phase trained are used.
    """
    settings = LoaderConfig(batch_size=datamodule.batch_size, workers=datamodule.num_workers)
    dataset: LesionDataset | FeatureDataset = datamodule.dataset(part, None)
    if all(phase.cached_views > 0 for phase in schedule.phases.values()):
        network.backbone.unfreeze(lowest(network.backbone, schedule))
        dataset = FeatureStore(network.backbone, datamodule, device=device).dataset(part, views=1)
    return _table(network, dataset, datamodule.part_frame(part), device=device, settings=settings, label=part)


@dataclass(frozen=True)
class PartImages:
    """The images of one part of the split that a model was trained with. Nothing else of the data set is read."""

    frame: pd.DataFrame  # checked rows, sorted by image id
    cache_dir: Path

    def cache(self, size: tuple[int, int]) -> ImageCache:
        """The images, decoded at a size (height, width); now, if they are not in the cache."""
        return open_cache(self.frame, size=size, cache_dir=self.cache_dir)


def read_part(model: TrainedModel, part: Part, source: SourceConfig) -> PartImages:
    """Find the images of a part. All members of an ensemble have the same.

    Args:
        model: Names the images.
        part: Which.
        source: Where they are.

    Raises:
        DataError: The data lack some of them.
    """
    data = restore_data_config(model.config["data"])
    data = replace(data, root=source.root or data.root, cache_dir=source.cache_dir or data.cache_dir)
    wanted = model.split[part]
    frame = read_data(replace(data, missing_images="drop"), only=set(wanted))
    missing = sorted(set(wanted) - set(frame["image_id"]))
    if missing:
        raise DataError(
            f"{len(missing)} images of the {part} part of {model.path} are not there "
            f"({', '.join(missing[:5])}); give the data it was trained on as data.root=FOLDER"
        )
    return PartImages(frame, Path(data.cache_dir))


def predict_images(
    model: TrainedModel,
    frame: pd.DataFrame,
    cache: ImageCache,
    *,
    settings: LoaderConfig,
    accelerator: str,
    tta: str = "none",
) -> Predictions:
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


def lowest(backbone: Backbone, schedule: ScheduleConfig) -> int | str | None:
    """Where the phase begins that trains most of the backbone; None if it stays frozen."""
    starts = [phase.unfreeze for phase in schedule.phases.values()]
    return max(starts, key=lambda start: backbone.count_trained(start))


def _table(
    network: Network,
    dataset: Any,
    frame: pd.DataFrame,
    *,
    device: torch.device,
    settings: LoaderConfig,
    label: str,
    tta: str = "none",
) -> Predictions:
    batches = loader(
        dataset, InOrder(len(dataset)), batch_size=settings.batch_size, workers=_workers(dataset, settings)
    )
    label = f"predicting {label}"
    answers = probabilities(network, batches, device=device, label=label, total=len(batches), tta=tta)
    return Predictions.build(
        frame["image_id"].tolist(),
        frame["lesion_id"].tolist(),
        probabilities=answers,
        actual=frame["diagnosis"].tolist(),
    )


def _workers(dataset: Any, settings: LoaderConfig) -> int:
    return 0 if isinstance(dataset, FeatureDataset) else settings.workers
