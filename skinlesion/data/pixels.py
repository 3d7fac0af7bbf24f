"""From an image file to pixels at the working size: the same in training, evaluation and a deployed bundle.

It needs OpenCV, Pillow and numpy alone, so that a service starts without torch.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageOps

from skinlesion.errors import DataError

# OpenCV's threads do not survive the fork of a loader's worker (it would wait for ever), and images are small.
cv2.setNumThreads(0)

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageInput:
    """What a backbone expects of an image."""

    size: tuple[int, int]  # (height, width) in pixels
    mean: tuple[float, ...]  # of each channel in 0..1
    std: tuple[float, ...]  # likewise


def decode(path: Path, size: tuple[int, int]) -> Image:
    """Read an image file, upright and RGB, and fit it into `size`.

    Raises:
        DataError: The file cannot be read as an image.
    """
    return fit(read(path), size)


def read(path: Path) -> Image:
    """Read an image file, upright and RGB, (h, w, 3).

    Raises:
        DataError: The file cannot be read as an image.
    """
    try:
        with PillowImage.open(path) as image:
            return upright(image)
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def upright(image: PillowImage.Image) -> Image:
    """The pixels of an opened image, (h, w, 3), RGB, turned as its EXIF orientation says."""
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def fit(image: Image, size: tuple[int, int]) -> Image:
    """Resize an image to fit into `size`, keeping its aspect, and pad it with black in equal parts.

    Args:
        image: RGB, (h, w, 3).
        size: (height, width) of the result, in pixels.
    """
    height, width = size
    if image.shape[:2] == size:
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = (
        min(width, max(1, round(image.shape[1] * scale))),
        min(height, max(1, round(image.shape[0] * scale))),
    )
    smaller = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = smaller
    return canvas
