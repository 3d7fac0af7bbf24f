"""LesionDataModule: the table, the split, the metadata and the decoded images, as batches."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from skinlesion.config.data import AugmentConfig, SplitConfig, restore_data_config
from skinlesion.config.schema import check_annotations
from skinlesion.config.train import TrainConfig
from skinlesion.data.batch_augment import BatchAugment
from skinlesion.data.columns import fact_specs
from skinlesion.data.dataset import EvenBatches, InOrder, LesionDataset, Share, Shuffled, loader
from skinlesion.data.gpu_augmenter import GpuAugmenter, RawDataset, upload
from skinlesion.data.image_cache import ImageCache, ImageSource
from skinlesion.data.image_io import ImageInput
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.readers import read_data, taxonomy_of
from skinlesion.data.splits import assign, fingerprint
from skinlesion.data.stream import Stream, images_per_chunk
from skinlesion.data.transforms import Augment, Augmentation
from skinlesion.data.treatment import Treatment
from skinlesion.errors import DataError
from skinlesion.taxonomy import Taxonomy

Part = Literal["train", "val", "calibration", "test"]
HELD_OUT: tuple[Part, ...] = ("val", "test")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of red, green and blue, in 0..1, of most pretrained backbones."""


class LesionDataModule(LightningDataModule):
    """HAM10000, or another labelled data set, split by lesion. All arguments are plain data.

    The table is read and split on first use, at the latest in `setup`; images are decoded in `prepare_data`. The
    samplers share items among processes: several devices need `Trainer(use_distributed_sampler=False)`.

    Args:
        root: Folder that holds the tables and the image folders.
        table: File name of the table in root; with `classes`: of the labels.
        metadata: File name of the patients' facts in root, where they are not in the table.
        images: Names of the image folders in root.
        classes: What the words of the labels mean: a code, "drop" or "error"; None: HAM10000's table.
        groups: CSV with image_id and group, of images to keep together, such as near duplicates.
        columns: Names of columns, by `ColumnsConfig`; None: the usual ones.
        facts: What is known of a patient or lesion, by name, as of `FactConfig`; None: age, sex and localization.
        taxonomy: Name of a file of `conf/taxonomy`, or its contents: the diagnoses; "infer": those of the table.
        missing_images: "error" or "drop": what to do with rows without an image.
        extra_images: "error" or "ignore": what to do with images without a row.
        policy: "published", "grouped" or "file": how lesions are split.
        split_seed: Seed of the split.
        folds: Number of folds, "grouped".
        fold: 0 .. folds - 1: the fold that is the test part, "grouped".
        val_fraction: Share of the remaining images that validates, "grouped".
        calibration_fraction: Share of the validation lesions that make a part of their own, see `set_apart`.
        split_file: CSV with image_id, lesion_id and split, "file".
        augment: Options of `AugmentConfig` that differ from the published ones.
        augment_on: "cpu" or "device": where training images are changed.
        hair: "keep", or "remove": hairs are painted over in every image.
        colour_constancy: "none", or "shades_of_gray": the light's colour is taken out of every image.
        image_size: (height, width) in pixels.
        mean: Mean of red, green and blue, 0 to 1.
        std: Standard deviation of red, green and blue, 0 to 1.
        batch_size: Batch size of one process, in images.
        num_workers: Processes that prepare batches; 0: the training process itself.
        cache_dir: Folder of decoded images and feature maps; safe to delete.
        stream: Folder or address of decoded images that no disk holds, instead of `cache_dir`; None: there.
        stream_gb: Most that copies of them take in `cache_dir`, in GB.
        seed: Seed of shuffles and augmentation.

    Raises:
        ConfigError: An argument is out of range.
        DataError: The table or the split cannot be used.
    """

    def __init__(
        self,
        root: str | Path = "data",
        *,
        table: str = "HAM10000_metadata",
        metadata: str | None = None,
        images: Sequence[str] = ("HAM10000_images_part_1", "HAM10000_images_part_2"),
        classes: Mapping[str, str] | None = None,
        groups: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
        taxonomy: str | Mapping[str, Any] = "ham10000",
        missing_images: str = "error",
        extra_images: str = "error",
        policy: str = "published",
        split_seed: int = 666,
        folds: int = 5,
        fold: int = 0,
        val_fraction: float = 0.125,
        calibration_fraction: float | None = None,
        split_file: str | None = None,
        augment: Mapping[str, float] | None = None,
        augment_on: Literal["cpu", "device"] = "cpu",
        hair: Literal["keep", "remove"] = "keep",
        colour_constancy: Literal["none", "shades_of_gray"] = "none",
        image_size: Sequence[int] = (224, 224),
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        batch_size: int = 64,
        num_workers: int = 0,
        cache_dir: str | Path = "cache",
        stream: str | None = None,
        stream_gb: float = 20.0,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self._data = restore_data_config(
            {"root": str(root), "table": table, "metadata": metadata, "images": list(images), "groups": groups}
            | {"classes": classes and dict(classes), "columns": columns, "facts": facts, "cache_dir": str(cache_dir)}
            | {"missing_images": missing_images, "extra_images": extra_images, "stream": stream, "stream_gb": stream_gb}
        )
        self._split = SplitConfig(policy, split_seed, folds, fold, val_fraction, calibration_fraction, split_file)
        self.augment_options = AugmentConfig(**(augment or {}))
        for key, settings in (("data.", self._data), ("split.", self._split), ("augment.", self.augment_options)):
            check_annotations(settings, key)
        self._taxonomy = Taxonomy.load(taxonomy) if isinstance(taxonomy, str) else Taxonomy.configured(taxonomy)
        self.augment_on, self.batch_size, self.num_workers, self.seed = augment_on, batch_size, num_workers, seed
        self.cache_dir, self.stream = Path(cache_dir), Stream.of(stream, stream_gb)
        self.first_epoch, self._next_epoch, size = 0, 0, (int(image_size[0]), int(image_size[1]))
        self.spec = ImageInput(size, tuple(mean), tuple(std), treatment=Treatment(hair, colour_constancy))
        self._augmenters: dict[torch.device, GpuAugmenter] = {}

    @classmethod
    def from_config(cls, config: TrainConfig, spec: ImageInput) -> Self:
        """Make the data module of a training, for a backbone that expects `spec` of an image."""
        split = asdict(config.split)
        return cls(
            **asdict(config.data),
            taxonomy=asdict(config.taxonomy),
            policy=split.pop("policy"),
            split_seed=split.pop("seed"),
            split_file=split.pop("file"),
            **split,
            augment=asdict(config.augment),
            image_size=spec.size,
            mean=spec.mean,
            std=spec.std,
            batch_size=config.loader.batch_size,
            num_workers=config.loader.workers,
            seed=config.seed,
        )

    def continued(self, first_epoch: int) -> Self:
        """The same data for a later phase, whose epochs count on from `first_epoch`, so that no draw is made twice."""
        later = copy(self)
        later.first_epoch, later._next_epoch = first_epoch, 0
        return later

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The checked table, sorted by image id."""
        return read_data(self._data, taxonomy=self._taxonomy)

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The diagnoses in class order; inferred ones are those of the table."""
        return taxonomy_of(self.frame, self._taxonomy)

    @cached_property
    def split(self) -> pd.DataFrame:
        """The part of each image: image_id, lesion_id, split."""
        return assign(self.frame, taxonomy=self.taxonomy, **asdict(self._split))

    @cached_property
    def _parts(self) -> npt.NDArray[np.object_]:
        """The part of each row of the table; NaN where the split leaves it out."""
        part_of = self.split.set_index("image_id")["split"].astype(object)
        return part_of.reindex(self.frame["image_id"]).to_numpy()

    @cached_property
    def encoder(self) -> MetadataEncoder:
        """The encoder of metadata, fitted on the training part."""
        return MetadataEncoder.fit(self.part_frame("train"), fact_specs(self._data.facts))

    @cached_property
    def source(self) -> ImageSource:
        """The image files of the whole table."""
        return ImageSource(self.frame, self.spec.size, self.cache_dir, self.spec.treatment, self.stream)

    @cached_property
    def cache(self) -> ImageCache:
        """The decoded images of the whole table, decoded on first use."""
        return self.source.open()

    def prepare_data(self) -> None:
        """Decode the images that are not decoded yet."""
        self.cache  # noqa: B018

    def setup(self, stage: str | None = None) -> None:
        """Read and split the table, and fit the encoder."""
        self.encoder  # noqa: B018
        self._next_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """The epoch with which a resumed training goes on."""
        progress: Any = None if self.trainer is None else self.trainer.fit_loop.epoch_progress.current
        return {"next_epoch": 0 if progress is None else progress.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the epoch of a checkpoint."""
        self._next_epoch = state_dict["next_epoch"]

    def part_frame(self, part: Part) -> pd.DataFrame:
        """The rows of one part, sorted by image id."""
        rows: pd.DataFrame = self.frame.loc[self._parts == part]
        return rows.reset_index(drop=True)

    def class_counts(self) -> list[int]:
        """Training images of each diagnosis, in class order.

        Raises:
            DataError: A diagnosis has none.
        """
        images = self.part_frame("train")["diagnosis"].value_counts()
        if absent := [each for each in self.taxonomy.diagnoses if each.code not in images]:
            named = ", ".join(f"{each.code} ({each.name})" for each in absent)
            rest = [each.code for each in absent if each.code not in {*self.frame["diagnosis"]}]
            without = " ".join(f"'~taxonomy.diagnoses.{each.code}'" for each in absent)
            other = f"no split can help, the table has no {', '.join(rest)}" if rest else "or take another split.policy"
            raise DataError(
                f"no training image of {named}: leave them out of the taxonomy with {without}, or with taxonomy=infer, "
                f"which takes the diagnoses that the table has; {other}"
            )
        return [int(images[code]) for code in self.taxonomy.codes]

    def record(self) -> dict[str, Any]:
        """Where the data are and how they are split, as plain data for a checkpoint."""
        parts = {str(part): rows["image_id"].tolist() for part, rows in self.split.groupby("split")}
        return {"config": {"data": asdict(self._data)}, "split": parts, "fingerprint": fingerprint(self.split)}

    def augment(self) -> Augment:
        """The random changes of training images."""
        return Augmentation(self.augment_options, self.seed)

    def dataset(self, part: Part, augment: Augment | None) -> LesionDataset:
        """One part, with its images changed by `augment` or as they are."""
        return self._dataset(self.part_frame(part), augment)

    def whole(self, augment: Augment | None) -> LesionDataset:
        """Every image of the table, in the order of the image cache, in any part."""
        return self._dataset(self.frame, augment)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training images, changed and shuffled anew each epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation images as they are."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Test images as they are."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Test images as they are, in the order of `part_frame("test")`."""
        return self._loader("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the images of a batch that has reached its device, where `augment_on` is "device"."""
        return self.gpu_augmenter(batch["row"].device)(batch) if "row" in batch else batch

    def gpu_augmenter(self, device: torch.device) -> GpuAugmenter:
        """Return the augmenter of a device, which holds all images there if they fit."""
        if device not in self._augmenters:
            images = upload(self.cache, device)
            self._augmenters[device] = GpuAugmenter(BatchAugment(self.augment_options), self.spec, images)
        return self._augmenters[device]

    def shuffled(self, length: int) -> Shuffled:
        """The order of training items, or of this process's share of them."""
        chunks = None
        if self.stream is not None:
            rows = np.flatnonzero(self._parts == "train")
            chunks = rows // images_per_chunk((*self.spec.size, 3))
        options: dict[str, Any] = {"share": Share.current(), "chunks": chunks}
        sampler = Shuffled(length, seed=self.seed, first_draw=self.first_epoch, **options)
        sampler.set_epoch(self._next_epoch)  # workers of a resumed run fetch ahead, before Lightning sets the epoch
        return sampler

    def in_order(self, length: int) -> InOrder | EvenBatches:
        """The order of validation items, or of this process's share of them."""
        share = Share.current()
        return InOrder(length) if share.of == 1 else EvenBatches(length, batch_size=self.batch_size, share=share)

    def _loader(self, part: Part) -> DataLoader[Any]:
        training, workers = part == "train", self.num_workers
        dataset: LesionDataset | RawDataset = self.dataset(part, None)
        if self.augment_on == "device":
            device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
            held = self.gpu_augmenter(device).images is not None
            dataset = RawDataset(self.dataset(part, None), seed=self.seed if training else None, with_pixels=not held)
            workers = 0 if held else workers  # batches without pixels are made in no time
        elif training:
            dataset = self.dataset(part, self.augment())
        sampler = self.shuffled(len(dataset)) if training else self.in_order(len(dataset))
        return loader(dataset, sampler, batch_size=self.batch_size, workers=workers)

    def _dataset(self, frame: pd.DataFrame, augment: Augment | None) -> LesionDataset:
        return LesionDataset(
            self.cache,
            frame["image_id"].tolist(),
            metadata=self.encoder.encode(frame),
            targets=self.taxonomy.indices(frame["diagnosis"].tolist()),
            spec=self.spec,
            augment=augment,
        )
