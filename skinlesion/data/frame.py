"""From a configuration to the checked table of images, its split and its targets."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.config.data import DataConfig, SplitConfig
from skinlesion.data import splits
from skinlesion.data.readers import read_ham10000, read_labelled
from skinlesion.taxonomy import CODES


def read_data(config: DataConfig, *, only: Collection[str] | None = None) -> pd.DataFrame:
    """Read the checked frame of a configuration: HAM10000's table, or labels whose words `classes` explains.

    Args:
        config: Where the data are.
        only: Image ids to read; all other rows and images are ignored. None: all.

    Raises:
        DataError: The data cannot be used.
    """
    root = Path(config.root).expanduser()
    if config.classes is not None:
        return read_labelled(
            root / config.table,
            images=[root / name for name in config.images],
            metadata=None if config.metadata is None else root / config.metadata,
            classes=config.classes,
            missing_images=config.missing_images,
            extra_images=config.extra_images,
            key="data",
            only=only,
        ).frame
    return read_ham10000(
        root,
        table=config.table,
        images=config.images,
        missing_images=config.missing_images,
        extra_images=config.extra_images,
        only=only,
    )


def assign(frame: pd.DataFrame, config: SplitConfig) -> pd.DataFrame:
    """Split a checked frame as a configuration asks for: image_id, lesion_id, split."""
    if config.policy == "file":
        path = Path(str(config.file)).expanduser()
        if not splits.has_folds(path):
            return splits.from_file(frame, path)
        return splits.from_folds(frame, path, fold=config.fold, seed=config.seed, val_fraction=config.val_fraction)
    if config.policy == "grouped":
        return splits.grouped(
            frame, seed=config.seed, folds=config.folds, fold=config.fold, val_fraction=config.val_fraction
        )
    return splits.published(frame, seed=config.seed)


def targets(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Class indices (N,) of the diagnoses of a checked frame."""
    return np.array([CODES.index(code) for code in frame["diagnosis"]], np.int64)
