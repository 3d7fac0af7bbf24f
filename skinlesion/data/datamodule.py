"""From a configuration to loaders: the table, the split, the metadata, the decoded images, in that order."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from skinlesion.config.data import DataConfig, SplitConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data import splits
from skinlesion.data.batch_augment import BatchAugment
from skinlesion.data.dataset import WHOLE, EvenBatches, InOrder, LesionDataset, Share, Shuffled, keep
from skinlesion.data.gpu_augmenter import GpuAugmenter, RawDataset, upload
from skinlesion.data.image_cache import ImageCache, open_cache
from skinlesion.data.image_io import ImageInput
from skinlesion.data.label_files import read_labelled
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.table import read_table
from skinlesion.data.transforms import Augment, augmentation
from skinlesion.taxonomy import CODES

Part = Literal["train", "val", "test"]
JUDGED: tuple[Part, ...] = ("val", "test")


class LesionDataModule(LightningDataModule):
    """HAM10000, split by lesion.

    The table is read and split when the object is made, so that a bad table is refused before anything is trained.
    Images are decoded in `prepare_data`.

    Args:
        config: Of the training.
        spec: What the backbone expects of an image.
        share: Of training and validation, where several processes train together.

    Raises:
        DataError: The table or the split cannot be used.
    """

    def __init__(self, config: TrainConfig, spec: ImageInput, share: Share = WHOLE) -> None:
        super().__init__()
        self.config, self.spec, self.share = config, spec, share
        self.frame = read_data(config.data)
        self.split = assign(self.frame, config.split)
        self.encoder = MetadataEncoder.fit(self.part_frame("train"))
        self.first_draw = 0  # epochs of earlier phases: no draw is made twice
        self._cache: ImageCache | None = None
        self._gpu_augmenter: GpuAugmenter | None = None

    @property
    def cache(self) -> ImageCache:
        """The decoded images of the whole table, made on first use."""
        if self._cache is None:
            self._cache = open_cache(self.frame, size=self.spec.size, cache_dir=Path(self.config.data.cache_dir))
        return self._cache

    def prepare_data(self) -> None:
        """Decode the images that are not decoded yet."""
        self.cache  # noqa: B018

    def part_frame(self, part: Part) -> pd.DataFrame:
        """The rows of one part, sorted by image id."""
        image_ids = self.split.loc[self.split["split"] == part, "image_id"]
        return self.frame[self.frame["image_id"].isin(image_ids)].reset_index(drop=True)

    def class_counts(self) -> list[int]:
        """Training images of each diagnosis, in class order."""
        counts = np.bincount(targets(self.part_frame("train")), minlength=len(CODES))
        return [int(count) for count in counts]

    def augment(self) -> Augment:
        """The random changes of training images."""
        return augmentation(**asdict(self.config.augment), seed=self.config.seed)

    def dataset(self, part: Part, augment: Augment | None) -> LesionDataset:
        """One part, with its images changed by `augment` or as they are."""
        return self._dataset(self.part_frame(part), augment)

    def whole(self, augment: Augment | None) -> LesionDataset:
        """Every image of the table, in the order of the image cache, whatever its part."""
        return self._dataset(self.frame, augment)

    def gpu_augmenter(self, device: torch.device) -> GpuAugmenter | None:
        """What makes batches of the raw ones that the loaders give from then on; None where they give batches."""
        if self.config.data.augment_on == "device" and self._gpu_augmenter is None:
            augment = BatchAugment(**asdict(self.config.augment))
            self._gpu_augmenter = GpuAugmenter(augment, self.spec, upload(self.cache, device))
        return self._gpu_augmenter

    def train_dataloader(self) -> DataLoader[Any]:
        """Training images, changed and shuffled anew each epoch."""
        dataset = self._seen("train", changed=True)
        sampler = self.shuffled(len(dataset))
        return loader(dataset, sampler, batch_size=self.config.loader.batch_size, workers=self._workers())

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation images as they are."""
        dataset = self._seen("val", changed=False)
        settings = self.config.loader
        return loader(dataset, self.in_order(len(dataset)), batch_size=settings.batch_size, workers=self._workers())

    def shuffled(self, length: int) -> Shuffled:
        """The order of training items, or of this process's share of them."""
        return Shuffled(length, seed=self.config.seed, first_draw=self.first_draw, share=self.share)

    def in_order(self, length: int) -> InOrder | EvenBatches:
        """The order of validation items, or of this process's share of them."""
        if self.share.of == 1:
            return InOrder(length)
        return EvenBatches(length, batch_size=self.config.loader.batch_size, share=self.share)

    def _seen(self, part: Part, *, changed: bool) -> LesionDataset | RawDataset:
        if self._gpu_augmenter is None:
            return self.dataset(part, self.augment() if changed else None)
        seed, brought = self.config.seed if changed else None, self._gpu_augmenter.images is None
        return RawDataset(self.dataset(part, None), seed=seed, with_pixels=brought)

    def _workers(self) -> int:
        held = self._gpu_augmenter is not None and self._gpu_augmenter.images is not None
        return 0 if held else self.config.loader.workers  # batches without pixels are made in no time

    def _dataset(self, frame: pd.DataFrame, augment: Augment | None) -> LesionDataset:
        return LesionDataset(
            self.cache,
            frame["image_id"].tolist(),
            metadata=self.encoder.encode(frame),
            targets=targets(frame),
            spec=self.spec,
            augment=augment,
        )


def read_data(config: DataConfig, *, only: Collection[str] | None = None) -> pd.DataFrame:
    """The checked frame that a configuration names: HAM10000's table, or labels whose words `classes` explains.

    Args:
        config: Where the data are.
        only: Image ids; all other rows and images are passed over. None: all count.

    Raises:
        DataError: The data cannot be used.
    """
    root = Path(config.root).expanduser()
    if config.classes is not None:
        return read_labelled(
            [root / name for name in config.images],
            labels=root / config.table,
            metadata=None if config.metadata is None else root / config.metadata,
            classes=config.classes,
            missing_images=config.missing_images,
            extra_images=config.extra_images,
            key="data",
            only=only,
        ).frame
    return read_table(
        root,
        table=config.table,
        images=config.images,
        missing_images=config.missing_images,
        extra_images=config.extra_images,
        only=only,
    )


def assign(frame: pd.DataFrame, config: SplitConfig) -> pd.DataFrame:
    """The split frame that a configuration asks for."""
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
    """(N,) positions of the diagnoses in CODES."""
    return np.array([CODES.index(code) for code in frame["diagnosis"]], np.int64)


def loader(
    dataset: Dataset[Any], sampler: InOrder | Shuffled | EvenBatches, *, batch_size: int, workers: int
) -> DataLoader[Any]:
    """A loader of whole batches.

    A last training batch of one image is left out, since batch norm cannot be trained on it.
    """
    one_left = isinstance(sampler, Shuffled) and len(sampler) % batch_size == 1
    batching: dict[str, Any] = (
        {"batch_sampler": sampler}
        if isinstance(sampler, EvenBatches)
        else {"sampler": sampler, "batch_size": batch_size, "drop_last": one_left}
    )
    return DataLoader(
        dataset,
        **batching,
        num_workers=workers,
        collate_fn=keep,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )
