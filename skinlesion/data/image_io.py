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
    if image.shape[:2] == size:
        return image
    rows, columns = place(image.shape[:2], size)
    inner = (columns.stop - columns.start, rows.stop - rows.start)
    shrinks = inner[0] < image.shape[1] or inner[1] < image.shape[0]
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[rows, columns] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return canvas


def place(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[slice, slice]:
    """Where `fit` puts an image: the rows and columns of the result that are no padding.

    Args:
        shape: (h, w) of the image, in pixels.
        size: (height, width) of the result, in pixels.
    """
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (min(most, max(1, round(side * scale))) for side, most in zip(shape[:2], size, strict=True))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return slice(top, top + height), slice(left, left + width)
