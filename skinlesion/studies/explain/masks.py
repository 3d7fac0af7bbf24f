"""Lesion masks: black and white images, each named by the image that it belongs to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import fit, read
from skinlesion.errors import DataError

SUFFIXES = ("", "_segmentation", "_mask")  # HAM10000's own are called ISIC_0024306_segmentation.png
_ASPECT = 0.03  # by which the aspect of a mask may differ from that of its image: rounding of small sides


def find_masks(folder: Path, image_ids: Sequence[str]) -> dict[str, Path]:
    """The masks of some images, by image id; those of other images are passed over, and some may be missing.

    Raises:
        DataError: The folder is not there, or holds none of them.
    """
    if not folder.is_dir():
        raise DataError(f"masks={folder}: no such folder; expected PNG files named by image id")
    found = {
        image_id: path
        for image_id in image_ids
        for suffix in reversed(SUFFIXES)
        if (path := folder / f"{image_id}{suffix}.png").is_file()
    }
    if not found:
        raise DataError(
            f"masks={folder}: no mask of any of {len(image_ids)} images; expected {image_ids[0]}.png or "
            f"{image_ids[0]}{SUFFIXES[1]}.png and so on"
        )
    return found


def read_mask(path: Path, image: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Where the lesion is, as a network sees the image: fitted into `size` (height, width) as the image is.

    Args:
        path: The mask.
        image: The image that it belongs to.
        size: Of the network's input.

    Raises:
        DataError: It cannot be read, has another aspect than the image, or shows no lesion or nothing else.
    """
    mask, shape = read(path), read(image).shape
    if abs(mask.shape[1] / mask.shape[0] * shape[0] / shape[1] - 1) > _ASPECT:
        sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, the image {shape[1]} x {shape[0]}"
        raise DataError(f"{path}: the mask has {sizes}; expected the same aspect")
    lesion = fit(mask, size)[..., 0] > 127
    if lesion.all() or not lesion.any():
        raise DataError(f"{path}: all {'white' if lesion.all() else 'black'}; expected a white lesion on black skin")
    return np.asarray(lesion)
