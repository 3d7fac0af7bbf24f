"""The images of one part of the split that a model was trained with."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion.config.data import DataConfig, SourceConfig, restore_data_config
from skinlesion.data.datamodule import Part
from skinlesion.data.image_cache import ImageCache, open_cache
from skinlesion.data.readers import read_data
from skinlesion.data.splits import assign, fingerprint
from skinlesion.errors import DataError, counted, first_five
from skinlesion.inference.members import Members, Size
from skinlesion.training.checkpoint import TrainedModel


@dataclass(frozen=True)
class PartImages:
    """Some images of a data set; no others are read."""

    frame: pd.DataFrame  # checked rows, sorted by image id
    cache_dir: Path

    def caches(self, members: Members) -> dict[Size, ImageCache]:
        """Decode the images as the members take them, those that are not in the cache."""
        return {
            size: open_cache(self.frame, size=size, cache_dir=self.cache_dir, treatment=members.treatment)
            for size in members.sizes
        }


def read_part(
    model: TrainedModel, part: Part, source: SourceConfig, *, images: int | None = None, seed: int = 0
) -> PartImages:
    """Find the images of a part, or some of them. All members of an ensemble have the same.

    Args:
        model: Names the images, and where they were.
        part: train, val or test.
        source: Where the images are now.
        images: How many are drawn; None, or more than there are: all.
        seed: Of the draw.

    Raises:
        DataError: The data lack some of them.
    """
    data = _data_of(model, source)
    wanted = sorted(with_split(model, source).split[part])
    if images is not None and images < len(wanted):
        drawn = np.random.default_rng(seed).choice(len(wanted), images, replace=False)
        wanted = [wanted[place] for place in sorted(drawn)]
    frame = read_data(replace(data, missing_images="drop"), taxonomy=model.taxonomy, only=set(wanted))
    missing = sorted(set(wanted) - set(frame["image_id"]))
    if missing:
        raise DataError(
            f"{counted(len(missing), 'image')} of the {part} part of {model.path} not found "
            f"({first_five(missing)}); give the data it was trained on as data.root=FOLDER"
        )
    return PartImages(frame, Path(data.cache_dir))


def with_split(model: TrainedModel, source: SourceConfig) -> TrainedModel:
    """A model that names the images of each part: a published one does not, so its split is made again from its data.

    Raises:
        DataError: The data are not there, or are others than those of the training.
    """
    if not model.hides_images:
        return model
    if "split" not in model.config:
        raise DataError(f"{model.path}: a published model without the settings of its split; give the run's checkpoint")
    data, settings = _data_of(model, source), model.config["split"]
    if settings["file"] is not None and not Path(settings["file"]).is_file():
        settings = {**settings, "file": str(Path(data.root) / Path(settings["file"]).name)}
    split = assign(read_data(data, taxonomy=model.taxonomy), taxonomy=model.taxonomy, **settings)
    if (found := fingerprint(split)) != model.fingerprint:
        raise DataError(
            f"{model.path}: a published model names no images, and the split that its settings make of {data.root} is "
            f"another than it was trained with ({found[:12]}, not {model.fingerprint[:12]}); give the folder of those "
            "data as data.root=FOLDER"
        )
    return replace(model, split={str(part): rows["image_id"].tolist() for part, rows in split.groupby("split")})


def _data_of(model: TrainedModel, source: SourceConfig) -> DataConfig:
    """The configuration of a model's data, where they are now."""
    data = restore_data_config(model.config["data"])
    if source.root is None and not Path(data.root).expanduser().is_dir():
        relative = "" if Path(data.root).expanduser().is_absolute() else ", seen from the folder where it was trained"
        raise DataError(
            f"{model.path}: its images were in data.root={data.root}{relative}, which is not there; give their folder "
            "as data.root=FOLDER"
        )
    return replace(data, root=source.root or data.root, cache_dir=source.cache_dir or data.cache_dir)
