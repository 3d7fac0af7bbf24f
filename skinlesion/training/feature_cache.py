"""Feature maps of the frozen part of a backbone, computed once, kept on disk, shared by members and splits."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from skinlesion.config.train import ScheduleConfig
from skinlesion.data.datamodule import LesionDataModule, Part
from skinlesion.data.dataset import WHOLE, GivenBatches, InOrder, LesionDataset, PartDataset, Share, loader
from skinlesion.data.disk_cache import read_json
from skinlesion.data.shards import Keys, Rows, ShardStore, keys_of
from skinlesion.files import write_json
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.table_columns import groups_of_frame
from skinlesion.model.backbone import Backbone
from skinlesion.model.network import Network
from skinlesion.terminal import track

log = logging.getLogger(__name__)

_CPU_CHUNK = 8  # images
_PATIENCE = 60.0  # seconds without a new map of other processes
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
        views: Feature maps of the whole table, each images times (h, w, C), channels last, in the order of the
            source's image cache; a draw takes view `draw % len(views)`.
        source: Gives metadata, targets, ids, and where each image stands in the cache.
    """

    def __init__(self, views: Sequence[Rows], source: LesionDataset) -> None:
        super().__init__(source.items)
        self.views = views

    def inputs(self, drawn: list[tuple[str, int, int]]) -> dict[str, Tensor]:
        """Read the maps of some draws, all of one epoch."""
        view = self.views[drawn[0][2] % len(self.views)]
        maps = torch.from_numpy(view.take([row for _, row, _ in drawn])).float()  # (B, h, w, C)
        return {"feature_map": maps.permute(0, 3, 1, 2)}  # (B, C, h, w)


class FeatureStore:
    """Feature maps of a data module's images under the frozen part of one backbone: all of it, or what stands below.

    A folder holds one view of every image, so that all splits, folds and members share it. View 0 is the image as it
    is, in float32, so that evaluation is exact. The others are augmented, only trained on, and float16, so that several
    of them fit on a disk. Of several processes each computes a share of the batches that one would compute.

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
        images = self.datamodule.dataset(part, None)  # first, so that a disk too small for them is said first
        return FeatureDataset([self._maps(view, views) for view in range(views)], images)

    def train_dataloader(self, views: int) -> DataLoader[FeatureBatch]:
        """Training maps in the order in which the images would come."""
        dataset = self.dataset("train", views)
        return loader(dataset, self.datamodule.shuffled(len(dataset)), batch_size=self.datamodule.batch_size)

    def val_dataloader(self) -> DataLoader[FeatureBatch]:
        """Validation maps."""
        dataset = self.dataset("val", 1)
        return loader(dataset, self.datamodule.in_order(len(dataset)), batch_size=self.datamodule.batch_size)

    def _path(self, view: int) -> Path:
        """Folder of a view."""
        data = self.datamodule
        changes = (asdict(data.augment_options), data.seed) if view else None
        device = self.device.type  # a GPU rounds otherwise
        made_from = (_FORMAT, self._fingerprint, asdict(data.spec), view, changes, device)
        key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
        return data.cache_dir / f"features-{self.name}-view{view}-{key}"

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """Shape of a map, (h, w, C), noted beside those of view 0."""
        memo, (height, width) = self._path(0) / "shape.json", self.datamodule.spec.size
        if shape := read_json(memo).get("shape"):
            return tuple(shape)
        with torch.inference_mode():
            found = self.backbone.to(self.device).eval()(torch.zeros(1, 3, height, width, device=self.device))
        channels, *size = found.shape[1:]
        with suppress(OSError):
            write_json(memo, {"shape": [*size, channels]})
        return (*size, channels)

    @cached_property
    def _keys(self) -> Keys:
        source = self.datamodule.source
        pairs = zip(source.frame["image_id"].tolist(), source.contents.tolist(), strict=True)
        return keys_of(image_id.encode() + content for image_id, content in pairs)

    def _maps(self, view: int, views: int) -> Rows:
        """The maps of a view, one of several that will be asked for."""
        dtype = np.dtype(np.float16 if view else np.float32)
        advice = ", or take fewer views (schedule.phases.NAME.cached_views)"
        store = ShardStore(self._path(view), self._shape, dtype, what="feature maps", advice=advice)
        later = [self._path(other) for other in range(view + 1, views)]
        share, left, since, pause = Share.current(), 0, time.monotonic(), 0.1
        while (rows := store.rows(self._keys)) is None:
            self._compute(store, view, share, later=sum(not path.exists() for path in later))
            count = len(store.missing(self._keys))
            if count != left:
                left, since = count, time.monotonic()
            if left and time.monotonic() - since > _PATIENCE:
                share = WHOLE  # the others' maps do not come: they lie on another machine's disk
            elif left:
                time.sleep(pause)
                pause = min(2 * pause, 10)
        return rows

    def _compute(self, store: ShardStore, view: int, share: Share, *, later: int) -> None:
        """Compute a share of the maps that are missing, before so many views of float16."""
        size = self.datamodule.batch_size

        def missing() -> npt.NDArray[np.int64]:
            rows = store.missing(self._keys)
            return np.compress(rows // size % share.of == share.rank, rows)

        if not len(rows := missing()):
            return
        store.check_room(len(rows), later=later * len(self._keys) * int(np.prod(store.shape)) * 2)
        with store.locked(f"{share.rank}-of-{share.of}"):
            rows = missing()  # by now, another process may have computed some
            log.info("Computing feature maps of %d images, once: %s", len(rows), store.folder)
            batches = np.split(rows, np.flatnonzero(np.diff(rows // size)) + 1) if len(rows) else []
            store.add(zip((self._keys[each] for each in batches), self._batches(batches, view), strict=True))

    def _batches(self, batches: Sequence[npt.NDArray[np.int64]], view: int) -> Iterator[npt.NDArray[np.floating]]:
        """Maps of some rows, a batch at a time, (B, h, w, C)."""
        data = self.datamodule
        source, sampler = data.whole(data.augment() if view else None), GivenBatches(batches, draw=view)
        net = self.backbone.to(self.device).eval()
        made = loader(source, sampler, batch_size=data.batch_size, workers=data.num_workers)
        for batch in track(made, f"feature maps, view {view}", len(batches)):
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
    MobileNetV2 at 200x150 on two cores: 143 images/s, against 50 with 64 at a time. Never compiled there: the last few
    images, fewer than the others, would cost minutes of compiling for each part.
    """
    if image.device.type != "cpu":
        return cast(Tensor, backbone(image))
    chunks = torch.split(image.to(memory_format=torch.channels_last), _CPU_CHUNK)
    return torch.cat([backbone.forward(chunk) for chunk in chunks])


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
