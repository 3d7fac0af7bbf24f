"""Images, metadata and targets in batches, and the order in which an epoch draws them."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypedDict, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from skinlesion.data.image_cache import ImageCache
from skinlesion.data.image_io import ImageInput
from skinlesion.data.stream import WINDOW
from skinlesion.data.transforms import Augment, normalise
from skinlesion.errors import ConfigError

Draw = tuple[int, int]
"""An item's index, and the number of the draw (the epoch, counted over all phases)."""


BatchType = TypeVar("BatchType")


class Batch(TypedDict):
    """A batch of images with their metadata and targets."""

    image: Tensor  # (B, 3, H, W) float, normalised
    metadata: Tensor  # (B, M) float
    target: Tensor  # (B,) int64, class indices
    image_id: list[str]


@dataclass(frozen=True)
class Items:
    """What a part of a split holds beside its images, in order."""

    image_ids: list[str]
    rows: list[int]  # of the image cache
    metadata: Tensor  # (N, M) float
    targets: Tensor  # (N,) int64, class indices


class PartDataset(Dataset[BatchType], Generic[BatchType]):
    """One part of a split; items are fetched a batch at a time, by draws. Subclasses give what becomes of the images.

    Args:
        items: The rest of each batch.
    """

    def __init__(self, items: Items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items.image_ids)

    def __getitem__(self, draw: Draw) -> BatchType:
        """Make a batch of one."""
        return self.__getitems__([draw])

    def __getitems__(self, draws: list[Draw]) -> BatchType:
        """Make a batch from several draws."""
        items, indices = self.items, [index for index, _ in draws]
        batch = {
            **self.inputs([(items.image_ids[index], items.rows[index], draw) for index, draw in draws]),
            "metadata": items.metadata[indices],
            "target": items.targets[indices],
            "image_id": [items.image_ids[index] for index in indices],
        }
        return cast(BatchType, batch)

    def inputs(self, drawn: list[tuple[str, int, int]]) -> dict[str, Tensor]:
        """Return the images, or what stands for them, by key.

        Args:
            drawn: Id, row of the image cache and draw of each item.
        """
        raise NotImplementedError


class LesionDataset(PartDataset[Batch]):
    """One part of a split as normalised images.

    Args:
        cache: Decoded images.
        image_ids: Ids of this part's images, in order.
        metadata: Encoded, (N, M) float32.
        targets: (N,) int64, class indices.
        spec: The size, mean and std at which the network takes images.
        augment: Changes an image by a draw; None: images are not changed.
    """

    def __init__(
        self,
        cache: ImageCache,
        image_ids: Sequence[str],
        *,
        metadata: npt.NDArray[np.float32],
        targets: npt.NDArray[np.int64],
        spec: ImageInput,
        augment: Augment | None,
    ) -> None:
        rows = cache.rows(image_ids)
        super().__init__(Items(list(image_ids), rows, torch.from_numpy(metadata), torch.from_numpy(targets)))
        self.cache, self.spec, self.augment = cache, spec, augment

    def inputs(self, drawn: list[tuple[str, int, int]]) -> dict[str, Tensor]:
        """Change and normalise images."""
        images = [self.cache.images[row] for _, row, _ in drawn]
        if self.augment is not None:
            changes = zip(images, drawn, strict=True)
            images = [self.augment(np.array(image), draw_of(image_id, draw)) for image, (image_id, _, draw) in changes]
        return {"image": normalise(np.stack(images), self.spec)}


def draw_of(image_id: str, draw: int) -> int:
    """Number the draw of one image by its id, so that it is the same in every part, split and order."""
    return int.from_bytes(hashlib.blake2b(f"{draw} {image_id}".encode(), digest_size=8).digest())


@dataclass(frozen=True)
class Share:
    """The part of each epoch that one of several processes takes: every `of`-th item, from the `rank`-th on."""

    rank: int
    of: int

    @classmethod
    def current(cls) -> Self:
        """Return the share of this process: all items, unless torch.distributed runs several."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls(rank=0, of=1)


WHOLE = Share(rank=0, of=1)


class InOrder(Sampler[Draw]):
    """Every item once, in order: for validation and test; the length is their number."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Draw]:
        return iter((index, 0) for index in range(self.length))


class EvenBatches(Sampler[list[Draw]]):
    """Batches of every item once, dealt out to several processes: each has as many batches, of nearly equal size.

    Processes that train together wait for each other at every batch, so that all need as many batches. No item comes
    twice, so that metrics are those of a single process.

    Args:
        length: Number of items, at least one a process.
        batch_size: Largest batch of a process, in images.
        share: Share of this process.

    Raises:
        ConfigError: There are more processes than items.
    """

    def __init__(self, length: int, *, batch_size: int, share: Share) -> None:
        if length < share.of:
            raise ConfigError(f"{share.of} processes for {length} validation images; give fewer trainer.devices")
        self.length, self.batch_size, self.share = length, batch_size, share

    def __len__(self) -> int:
        return math.ceil(math.ceil(self.length / self.share.of) / self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        own = np.arange(self.share.rank, self.length, self.share.of)
        return iter([(int(index), 0) for index in part] for part in np.array_split(own, len(self)))


class GivenBatches(Sampler[list[Draw]]):
    """Batches of given items, all of one draw: for feature maps that are missing.

    Args:
        batches: Indices of the items of each.
        draw: Draw number of every item.
    """

    def __init__(self, batches: Sequence[npt.NDArray[np.int64]], *, draw: int) -> None:
        self.batches, self.draw = batches, draw

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter([(index, self.draw) for index in batch.tolist()] for batch in self.batches)


class Shuffled(Sampler[Draw]):
    """Every item once, in an order that seed and draw determine. Lightning calls `set_epoch`.

    Args:
        length: Number of items.
        seed: Seed of the orders, 0 or more.
        first_draw: Draw of epoch 0: the number of epochs in earlier phases.
        share: Share of this process. All have equally many items, so up to `share.of - 1` are left out, others each
            epoch.
        chunks: Chunk of each item, (N,), where images come in chunks: if there are more than `WINDOW`, they are
            shuffled, and a window slides over their order, so that an image comes at random within that many chunks.
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        first_draw: int,
        share: Share = WHOLE,
        chunks: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.length, self.seed, self.first_draw, self.share, self.chunks = length, seed, first_draw, share, chunks
        self.epoch = 0

    def __len__(self) -> int:
        return self.length // self.share.of

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the phase that comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        draw = self.first_draw + self.epoch
        rng = np.random.default_rng((self.seed, draw))
        if self.chunks is None or self.chunks.max(initial=0) < WINDOW:
            order = rng.permutation(self.length)
        else:
            turn = rng.permutation(self.chunks.max() + 1)  # of each chunk
            order = np.argsort(turn[self.chunks] + WINDOW * rng.random(self.length), kind="stable")
        order = order[: len(self) * self.share.of][self.share.rank :: self.share.of]
        return iter((int(index), draw) for index in order)


def loader(
    dataset: Dataset[Any],
    sampler: InOrder | Shuffled | EvenBatches | GivenBatches,
    *,
    batch_size: int,
    workers: int = 0,
) -> DataLoader[Any]:
    """Make a loader for a dataset that fetches whole batches.

    A last training batch of one image is left out, since batch norm cannot be trained on it.

    Args:
        dataset: Returns a batch for a list of draws.
        sampler: The order of the draws.
        batch_size: Batch size in images.
        workers: Processes that prepare batches; 0: this process itself.
    """
    one_left = isinstance(sampler, Shuffled) and len(sampler) % batch_size == 1
    batching: dict[str, Any] = (
        {"batch_sampler": sampler}
        if isinstance(sampler, EvenBatches | GivenBatches)
        else {"sampler": sampler, "batch_size": batch_size, "drop_last": one_left}
    )
    return DataLoader(
        dataset,
        **batching,
        num_workers=workers,
        collate_fn=_keep,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )


def _keep(batch: Any) -> Any:
    return batch
