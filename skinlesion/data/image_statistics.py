"""Descriptors of images: size, brightness, colour and hashes, to compare populations and to find an image again.

Everything is computed from the decoded images at the working size, without their padding, a block at a time.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import pandas as pd

from skinlesion.data.disk_cache import load_arrays
from skinlesion.data.image_cache import ImageCache
from skinlesion.data.image_io import Image, unpadded_area
from skinlesion.data.manifest import image_shapes
from skinlesion.data.near_duplicates import Hashes, ImageDescriptors, hash_images
from skinlesion.data.skin import skin_tone
from skinlesion.files import replacing
from skinlesion.terminal import track

STATISTICS = ("width", "height", "brightness", "contrast", "red", "green", "blue", "saturation")
"""Columns: width and height of the file in pixels; the others in 0..1: mean and standard deviation of the grey values,
mean of each channel, mean saturation (of HSV)."""

_BLOCK = 256  # images described at a time


def describe_images(frame: pd.DataFrame, cache: ImageCache, *, label: str) -> Iterator[ImageDescriptors]:
    """Describe images a block at a time, so that memory does not grow with their number.

    Args:
        frame: Columns `image_id` and `path`.
        cache: Their decoded images.
        label: Label of the progress bar.

    Raises:
        DataError: A file cannot be read as an image.
    """
    starts = range(0, len(frame), _BLOCK)
    shapes = image_shapes(frame["path"].tolist(), cache.path.parent).tolist()
    for start in track(starts, label, len(starts)):
        rows = frame.iloc[start : start + _BLOCK]
        images, statistics = [], []
        for image_id, (height, width) in zip(rows["image_id"], shapes[start : start + _BLOCK], strict=True):
            padded = cache.image(image_id)
            image = np.ascontiguousarray(padded[unpadded_area((height, width), (padded.shape[0], padded.shape[1]))])
            images.append(image)
            statistics.append((width, height, *_colour_statistics(image)))
        yield ImageDescriptors(tuple(rows["image_id"]), np.array(statistics, np.float32), hash_images(images))


def stored_descriptors(frame: pd.DataFrame, cache: ImageCache, *, label: str) -> ImageDescriptors:
    """Describe all images of a frame: once, then from a file beside the cache.

    Args:
        frame: Columns `image_id` and `path`, of all images of the cache.
        cache: Their decoded images.
        label: Label of the progress bar.

    Raises:
        DataError: A file cannot be read as an image.
    """
    path = cache.path.with_name(f"appearance-{cache.key[:16]}.npz")

    def build() -> None:
        blocks = list(describe_images(frame, cache, label=label))
        with replacing(path) as beside:
            np.savez(
                beside,
                looks=np.concatenate([block.statistics for block in blocks]),
                perceptual=np.concatenate([block.hashes.perceptual for block in blocks]),
                detail=np.concatenate([block.hashes.detail for block in blocks]),
                exact=np.array([digest for block in blocks for digest in block.hashes.exact]),
            )

    stored = load_arrays(path, build)
    hashes = Hashes(stored["perceptual"], stored["detail"], tuple(stored["exact"].tolist()))
    return ImageDescriptors(tuple(frame["image_id"]), stored["looks"], hashes)


def skin_tones(image_ids: Sequence[str], image_of: Callable[[str], Image]) -> pd.DataFrame:
    """Estimate how light the skin of each picture is, see `skin.skin_tone`.

    Args:
        image_ids: N ids.
        image_of: The image (h, w, 3) of an id.

    Returns:
        N rows: image_id, `skin_tone` (the class), ita and error in degrees, NaN where there is none.
    """
    found = [(name, skin_tone(image_of(name))) for name in track(image_ids, "estimating skin tones", len(image_ids))]
    rows = [(name, tone.name, tone.ita, tone.error) for name, tone in found]
    return pd.DataFrame(rows, columns=["image_id", "skin_tone", "ita", "error"])


def _colour_statistics(image: Image) -> tuple[float, ...]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255
    channels = image.reshape(-1, 3).mean(axis=0) / 255  # (3,)
    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255
    return float(grey.mean()), float(grey.std()), *(float(value) for value in channels), float(saturation)
