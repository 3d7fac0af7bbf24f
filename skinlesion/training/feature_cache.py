"""Feature maps of the frozen part of a backbone, computed once, kept on disk, shared by members and splits."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from skinlesion.config.train import ScheduleConfig
from skinlesion.data.datamodule import LesionDataModule, Part
from skinlesion.data.dataset import InOrder, LesionDataset, PartDataset, loader
from skinlesion.data.disk_cache import new_array, open_array
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.table_columns import groups_of_frame
from skinlesion.model.backbone import Backbone
from skinlesion.model.network import Network
from skinlesion.terminal import track

log = logging.getLogger(__name__)

_CPU_CHUNK = 8  # images
_FORMAT = 2  # of the files; raise it when the maps or their layout change


class FeatureBatch(TypedDict):
    """A Batch whose images have been through the frozen part of the backbone."""

    feature_map: Tensor  # (B, C, h, w) float, output of `Backbone.frozen_prefix`
    metadata: Tensor  # (B, M) float
    target: Tensor  # (B,) int64
    image_id: list[str]


class FeatureDataset(PartDataset[FeatureBatch]):
    """One part of a split as feature maps.

    Args:
        views: Feature maps of the whole table, each (images, h, w, C), channels last, in the order of the source's
            image cache; a draw takes view `draw % len(views)`.
        source: Gives metadata, targets, ids, and where each image stands in the cache.
    """

    def __init__(self, views: Sequence[npt.NDArray[np.floating]], source: LesionDataset) -> None:
        super().__init__(source.items)
        self.views = views

    def inputs(self, drawn: list[tuple[str, int, int]]) -> dict[str, Tensor]:
        """Read the maps of some draws, all of one epoch."""
        view = self.views[drawn[0][2] % len(self.views)]
        maps = torch.from_numpy(view[[row for _, row, _ in drawn]]).float()  # (B, h, w, C)
        return {"feature_map": maps.permute(0, 3, 1, 2)}  # (B, C, h, w)


class FeatureStore:
    """Feature maps of a data module's images under the frozen part of one backbone: all of it, or what stands below.

    A file holds one view of every image of the table, so that all splits, folds and members share it. View 0 is the
    image as it is, in float32, so that evaluation is exact. The others are augmented, only trained on, and float16, so
    that several of them fit on a disk. A file's time is that of its last use.

    Args:
        backbone: Its frozen part, as it is now, is used and put into evaluation mode.
        datamodule: Gives images, augmentation, batch size and cache folder.
        device: Where the backbone runs.
    """

    def __init__(self, backbone: Backbone, datamodule: LesionDataModule, *, device: torch.device) -> None:
        self.name, self.backbone = backbone.name, backbone.frozen_prefix()
        self.datamodule, self.device = datamodule, device
        self._fingerprint = weights_digest(self.backbone)

    def dataset(self, part: Part, views: int) -> FeatureDataset:
        """One part as feature maps, computed now if they are not on disk."""
        return FeatureDataset([self._maps(view, views) for view in range(views)], self.datamodule.dataset(part, None))

    def train_dataloader(self, views: int) -> DataLoader[FeatureBatch]:
        """Training maps in the order in which the images would come."""
        dataset = self.dataset("train", views)
        return loader(dataset, self.datamodule.shuffled(len(dataset)), batch_size=self.datamodule.batch_size)

    def val_dataloader(self) -> DataLoader[FeatureBatch]:
        """Validation maps."""
        dataset = self.dataset("val", 1)
        return loader(dataset, self.datamodule.in_order(len(dataset)), batch_size=self.datamodule.batch_size)

    def _path(self, view: int) -> Path:
        data = self.datamodule
        made_from = (
            _FORMAT,
            self._fingerprint,
            data.cache.key,
            {name: value for name, value in asdict(data.spec).items() if name != "hair"},  # is in the cache's key
            view,
            (asdict(data.augment_options), data.seed) if view else None,
            self.device.type,  # a GPU rounds otherwise
        )
        key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
        return data.cache_dir / f"features-{self.name}-view{view}-{key}.npy"

    def _maps(self, view: int, views: int) -> npt.NDArray[np.floating]:
        """The maps of a view, one of several that will be asked for."""
        path = self._path(view)
        return open_array(path, lambda: self._compute(path, view, views))

    def _compute(self, path: Path, view: int, views: int) -> None:
        data = self.datamodule
        source = data.whole(data.augment() if view else None)
        log.info("Computing feature maps of %d images, once: %s", len(source), path)
        batches = self._batches(source, view)
        first = next(batches)
        shape = (len(source), *first.shape[1:])
        later = sum(not self._path(other).exists() for other in range(view + 1, views))
        with new_array(
            path,
            shape,
            np.float16 if view else np.float32,
            what="feature maps",
            advice=", or take fewer views (schedule.phases.NAME.cached_views)",
            later=later * int(np.prod(shape)) * 2,
        ) as maps:
            row = 0
            for features in chain([first], batches):
                maps[row : row + len(features)] = features
                row += len(features)

    def _batches(self, source: LesionDataset, view: int) -> Iterator[npt.NDArray[np.floating]]:
        """Maps of all images in order, a batch at a time, (B, h, w, C)."""
        data, sampler = self.datamodule, InOrder(len(source), draw=view)
        batches = loader(source, sampler, batch_size=data.batch_size, workers=data.num_workers)
        net = self.backbone.to(self.device).eval()
        for batch in track(batches, f"feature maps, view {view}", len(batches)):
            with torch.inference_mode():
                feature_map = backbone_maps(net, batch["image"].to(self.device))  # (B, C, h, w)
            yield feature_map.permute(0, 2, 3, 1).cpu().numpy()


def logits(network: Network, batch: Mapping[str, Any]) -> Tensor:
    """Logits (B, K), from images or from cached maps of the frozen part; in training and in use."""
    if "feature_map" in batch:
        feature_map = network.backbone.forward_suffix(batch["feature_map"])  # (B, C, h, w)
    elif torch.is_inference_mode_enabled():
        feature_map = backbone_maps(network.backbone, batch["image"])
    else:
        feature_map = trained_maps(network.backbone, batch["image"])
    return cast(Tensor, network.head(feature_map, batch["metadata"]))


def backbone_maps(backbone: nn.Module, image: Tensor) -> Tensor:
    """Map images (B, 3, H, W) to feature maps (B, C, h, w) by a backbone or its lower part, without gradients.

    On a CPU a few images at a time, channels last: their activations stay in the processor's cache. Measured with
    MobileNetV2 at 200x150 on two cores: 143 images/s, against 50 with 64 at a time.
    """
    if image.device.type != "cpu":
        return cast(Tensor, backbone(image))
    chunks = torch.split(image.to(memory_format=torch.channels_last), _CPU_CHUNK)
    return torch.cat([backbone(chunk) for chunk in chunks])


def trained_maps(backbone: Backbone, image: Tensor) -> Tensor:
    """Map images (B, 3, H, W) to feature maps (B, C, h, w), with gradients of the unfrozen weights.

    On a CPU the frozen part runs on a few images at a time, as in `backbone_maps`.
    """
    if image.device.type != "cpu" or not backbone.has_frozen_prefix:
        return cast(Tensor, backbone(image))
    with torch.no_grad():
        prefix_map = backbone_maps(backbone.frozen_prefix(), image)
    return backbone.forward_suffix(prefix_map)


def weights_digest(backbone: nn.Module) -> str:
    """SHA-256 of a network's structure and weights."""
    digest = hashlib.sha256(repr(backbone).encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def predict_from_maps(
    network: Network, datamodule: LesionDataModule, part: Part, *, schedule: ScheduleConfig, device: torch.device
) -> Predictions:
    """Predict a part of the split from cached maps, for a run whose phases all trained on them.

    Args:
        network: With its trained weights.
        datamodule: Gives the images, if their maps are not on disk.
        part: train, val or test.
        schedule: Its phases say which part of the backbone none has trained.
        device: Where the network runs.
    """
    backbone, frame = network.backbone, datamodule.part_frame(part)
    starts = [phase.unfreeze for phase in schedule.phases.values()]
    backbone.unfreeze(max(starts, key=lambda start: backbone.count_trained(start)))
    dataset = FeatureStore(backbone, datamodule, device=device).dataset(part, views=1)
    batches = loader(dataset, InOrder(len(dataset)), batch_size=datamodule.batch_size, workers=0)
    network.to(device).eval()
    values = []
    for batch in track(batches, f"predicting {part}", len(batches)):
        moved = {**batch, "feature_map": batch["feature_map"].to(device), "metadata": batch["metadata"].to(device)}
        values.append(logits(network, cast(FeatureBatch, moved)).float().softmax(dim=1).cpu().numpy())
    ids, lesions, actual = (frame[name].tolist() for name in ("image_id", "lesion_id", "diagnosis"))
    known: dict[str, Any] = {"actual": actual, "group_id": groups_of_frame(frame), "taxonomy": datamodule.taxonomy}
    return Predictions.build(ids, lesions, probabilities=np.concatenate(values), **known)
