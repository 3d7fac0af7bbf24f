"""Augmentation and normalisation on the device, which holds all images as uint8.

A raw batch holds rows of the image cache and random numbers instead of images. Where the images of the whole table do
not fit into the device's memory, it includes its pixels; the result is the same.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NotRequired, TypedDict, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skinlesion.data.batch_augment import RANDOM_NUMBERS, BatchAugment, per_channel
from skinlesion.data.dataset import Batch, LesionDataset, PartDataset, draw_of
from skinlesion.data.image_cache import ImageCache
from skinlesion.data.image_io import ImageInput

log = logging.getLogger(__name__)

_SHARE = 0.5  # largest share of the free memory for images: the network and its activations need the rest
_AT_ONCE = 256  # images copied to the device at a time

_BITS = 24  # that float32 holds of a number below 1
PARTS = 2**_BITS

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, odd
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))

Words = npt.NDArray[np.uint64]


def random_integers(draws: Sequence[int], *, seed: int, count: int) -> npt.NDArray[np.int32]:
    """Uniform random numbers for some draws, as integers, which half precision does not round.

    Each depends on seed and draw alone, not on its neighbours. splitmix64: Steele, Lea & Flood, OOPSLA 2014,
    doi:10.1145/2660193.2660195; one of numpy's generators for each draw takes longer to set up than an image on a GPU.

    Args:
        draws: Draw numbers of the batch's items, each 0 to 2**64 - 1.
        seed: 0 or more, less than 2**64.
        count: Random numbers for each draw.

    Returns:
        (B, count), 0 to PARTS - 1: a fraction once divided by PARTS.
    """
    starts = _mixed(np.array(draws, np.uint64) ^ splitmix64(np.array([seed], np.uint64), 1)[:, 0])  # (B,)
    return (splitmix64(starts, count) >> np.uint64(64 - _BITS)).astype(np.int32)


def splitmix64(states: Words, count: int) -> Words:
    """The first numbers of the generator from some states: (B,) -> (B, count)."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):  # modulo 2**64, as the paper has it
        return _mixed(states[:, None] + steps * _GAMMA)


def _mixed(words: Words) -> Words:
    with np.errstate(over="ignore"):
        words = (words ^ (words >> _SHIFTS[0])) * _FACTORS[0]
        words = (words ^ (words >> _SHIFTS[1])) * _FACTORS[1]
    return cast(Words, words ^ (words >> _SHIFTS[2]))


class RawBatch(TypedDict):
    """A Batch whose images the device has still to make."""

    row: Tensor  # (B,) int64, of the image cache
    pixels: NotRequired[Tensor]  # (B, H, W, 3) uint8, where the device does not hold them
    random: NotRequired[Tensor]  # (B, RANDOM_NUMBERS) int32, in 1 / PARTS; without it images are not changed
    metadata: Tensor  # (B, M) float
    target: Tensor  # (B,) int64
    image_id: list[str]


class RawDataset(PartDataset[RawBatch]):
    """One part of a split as raw batches.

    Args:
        source: Source of rows, metadata, targets and ids.
        seed: Seed of the random changes; None: images are not changed.
        with_pixels: Whether batches include their pixels.
    """

    def __init__(self, source: LesionDataset, *, seed: int | None, with_pixels: bool) -> None:
        super().__init__(source.items)
        self.cache, self.seed, self.with_pixels = source.cache, seed, with_pixels

    def inputs(self, drawn: list[tuple[str, int, int]]) -> dict[str, Tensor]:
        """Return rows of the cache, and pixels and random numbers where they are wanted."""
        found = {"row": torch.tensor([row for _, row, _ in drawn])}
        if self.with_pixels:
            found["pixels"] = torch.from_numpy(self.cache.images.take([row for _, row, _ in drawn]))
        if self.seed is not None:
            numbers = [draw_of(image_id, draw) for image_id, _, draw in drawn]
            found["random"] = torch.from_numpy(random_integers(numbers, seed=self.seed, count=RANDOM_NUMBERS))
        return found


class GpuAugmenter:
    """Turns raw batches into batches, on their device.

    Args:
        augment: Changes training images.
        spec: The size, mean and std at which the network takes images.
        images: All images of the cache, (N, H, W, 3) uint8, on the device; None: raw batches include theirs.
    """

    def __init__(self, augment: BatchAugment, spec: ImageInput, images: Tensor | None) -> None:
        self.augment, self.spec, self.images = augment, spec, images

    def __call__(self, raw: RawBatch) -> Batch:
        """Augment and normalise a raw batch."""
        pixels = raw["pixels"] if self.images is None else self.images[raw["row"]]  # (B, H, W, 3)
        image = self.augment(pixels, raw["random"] / PARTS) if "random" in raw else pixels.permute(0, 3, 1, 2).float()
        mean, std = (per_channel(values, image.device) for values in (self.spec.mean, self.spec.std))
        return {
            "image": (image / 255 - mean) / std,  # (B, 3, H, W)
            "metadata": raw["metadata"],
            "target": raw["target"],
            "image_id": raw["image_id"],
        }


def upload(
    cache: ImageCache, device: torch.device, *, free: Callable[[torch.device], int] | None = None
) -> Tensor | None:
    """Copy all images of a cache to a device, (N, H, W, 3) uint8; None, and a message, where they do not fit.

    Args:
        cache: The decoded images.
        device: A GPU. Any other device reads the cache's file, which the system keeps in memory as it can.
        free: Returns the free bytes of a device; None: as CUDA reports them.
    """
    if device.type != "cuda" and free is None:
        return None
    room = int((free(device) if free else torch.cuda.mem_get_info(device)[0]) * _SHARE)
    if cache.images.nbytes > room:
        log.info(
            "The images take %.1f GB, and %.1f GB of the GPU's memory are available for them: they stay on disk and "
            "are copied batch by batch (data.augment_on=device still applies)",
            cache.images.nbytes / 1e9,
            room / 1e9,
        )
        return None
    images = torch.empty((len(cache.images), *cache.images.shape), dtype=torch.uint8, device=device)
    for start in range(0, len(images), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(images)))
        images[start : start + _AT_ONCE] = torch.from_numpy(cache.images.take(rows))
    return images
