"""How images look, in numbers and hashes: to find one image among others, and to compare two populations.

Everything is read off the decoded images at the working size, without their padding, a block at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PillowImage

from skinlesion.data.image_cache import ImageCache
from skinlesion.data.image_io import Image, place
from skinlesion.data.near_duplicates import Hashes, hash_images
from skinlesion.errors import DataError
from skinlesion.files import build_once, replacing
from skinlesion.progress import track

LOOKS = ("width", "height", "brightness", "contrast", "red", "green", "blue", "saturation")
"""Columns: width and height of the file in pixels; the others in 0..1: mean and standard deviation of the grey values,
mean of each channel, mean saturation (of HSV)."""

_BLOCK = 256  # images described at a time
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True)
class Appearance:
    """Some images of a data set as they look."""

    image_ids: tuple[str, ...]
    looks: npt.NDArray[np.float32]  # (N, 8) columns LOOKS
    hashes: Hashes


def blocks(frame: pd.DataFrame, cache: ImageCache, *, label: str) -> Iterator[Appearance]:
    """Describe images a block at a time, so that memory does not grow with their number.

    Args:
        frame: `image_id` and `path`.
        cache: Holds their decoded images.
        label: Of the progress bar.
    """
    starts = range(0, len(frame), _BLOCK)
    for start in track(starts, label, len(starts)):
        rows = frame.iloc[start : start + _BLOCK]
        shapes = [dimensions(Path(path)) for path in rows["path"]]
        pixels = [_unpadded(cache.image(name), shape) for name, shape in zip(rows["image_id"], shapes, strict=True)]
        looks = [(width, height, *_look(image)) for image, (height, width) in zip(pixels, shapes, strict=True)]
        yield Appearance(tuple(rows["image_id"]), np.array(looks, np.float32), hash_images(pixels))


def remembered(frame: pd.DataFrame, cache: ImageCache, *, label: str) -> Appearance:
    """Describe all images of a frame: once, then from a file beside the cache.

    Args:
        frame: `image_id` and `path`, of all images of the cache.
        cache: Holds their decoded images.
        label: Of the progress bar.
    """
    path = cache.path.with_name(f"appearance-{cache.key[:16]}.npz")

    def build() -> None:
        each = list(blocks(frame, cache, label=label))
        with replacing(path) as beside:
            np.savez(
                beside,
                looks=np.concatenate([block.looks for block in each]),
                perceptual=np.concatenate([block.hashes.perceptual for block in each]),
                detail=np.concatenate([block.hashes.detail for block in each]),
                exact=np.array([digest for block in each for digest in block.hashes.exact]),
            )

    build_once(path, build)
    with np.load(path) as stored:
        hashes = Hashes(stored["perceptual"], stored["detail"], tuple(stored["exact"].tolist()))
        return Appearance(tuple(frame["image_id"]), stored["looks"], hashes)


def dimensions(path: Path) -> tuple[int, int]:
    """(height, width) of an image file in pixels, upright, without decoding it.

    Raises:
        DataError: The file cannot be read as an image.
    """
    try:
        with PillowImage.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            width, height = image.size
    except (OSError, UnidentifiedImageError, PillowImage.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error})") from error
    return (width, height) if turned else (height, width)


def _unpadded(image: Image, shape: tuple[int, int]) -> Image:
    rows, columns = place(shape, (image.shape[0], image.shape[1]))
    return np.ascontiguousarray(image[rows, columns])


def _look(image: Image) -> tuple[float, ...]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255
    channels = image.reshape(-1, 3).mean(axis=0) / 255  # (3,)
    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255
    return float(grey.mean()), float(grey.std()), *(float(value) for value in channels), float(saturation)
