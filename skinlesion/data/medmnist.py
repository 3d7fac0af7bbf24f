"""Arrays of MedMNIST (arXiv:2110.14795), such as dermamnist.npz or dermamnist_224.npz, unpacked once to image files."""

import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image as PillowImage

from skinlesion.data.manifest import content_digests
from skinlesion.data.skin import Image
from skinlesion.errors import DataError
from skinlesion.files import replacing_folder, write_text
from skinlesion.terminal import track

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
LABELS = "labels.csv"


def unpack(path: Path, cache_dir: Path) -> Path:
    """Write each image as a PNG and the labels as a CSV of `image,label,split`, unless that is done already.

    Args:
        path: An .npz with PART_images (N, h, w) or (N, h, w, 3) uint8 and PART_labels (N,) or (N, 1), of `PARTS`.
        cache_dir: The folder of caches; the content decides the name of the folder in it.

    Returns:
        The folder, with `LABELS` and the folder `images`. Ids are the part and the place in it, such as train_00000.

    Raises:
        DataError: The file is not such a file.
    """
    rows = split_rows(path)
    folder = cache_dir / f"{path.stem}-{content_digests([path], cache_dir)[0].decode()[:16]}"
    if folder.is_dir():
        return folder
    log.info("Unpacking %d images of %s, once: %s", len(rows), path.name, folder)
    with _opened(path) as arrays, replacing_folder(folder) as beside:
        (beside / "images").mkdir()
        pixels = (image for part in PARTS for image in arrays[f"{part}_images"])
        for name, image in track(zip(rows["image_id"], pixels, strict=True), "unpacking", len(rows)):
            PillowImage.fromarray(image).save(beside / "images" / f"{name}.png")
        table = rows.rename(columns={"image_id": "image"})[["image", "label", "split"]]
        write_text(beside / LABELS, table.to_csv(index=False, lineterminator="\n"))
    return folder


@lru_cache(maxsize=1)
def open_images(path: Path) -> dict[Path, Image]:
    """The images of a file in memory, RGB (h, w, 3), by paths such as dermamnist.npz/train_00000.

    Raises:
        DataError: The file is not as `unpack` expects it.
    """
    names = split_rows(path)["image_id"]
    with _opened(path) as arrays:
        pixels = [image for part in PARTS for image in arrays[f"{part}_images"]]
    return {path / name: image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
            for name, image in zip(names, pixels, strict=True)}  # fmt: skip


def split_rows(path: Path) -> pd.DataFrame:
    """The file's own split: columns image_id, split and label, all text, a row for each image.

    Raises:
        DataError: The file is not as `unpack` expects it.
    """
    with _opened(path) as arrays:
        if missing := [
            f"{part}_{kind}" for part in PARTS for kind in ("images", "labels") if f"{part}_{kind}" not in arrays
        ]:
            raise DataError(f"{path}: no array {', '.join(missing)}; expected those of MedMNIST")
        parts = [_part(path, part, arrays) for part in PARTS]
    return pd.concat(parts, ignore_index=True)


def _part(path: Path, part: str, arrays: Any) -> pd.DataFrame:
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    fits = images.dtype == np.uint8 and (images.ndim == 3 or images.shape[3:] == (3,))
    if not fits or labels.size != len(images) or labels.dtype.kind not in "iu":
        found = f"{part}_images {images.shape} of {images.dtype} and {part}_labels {labels.shape} of {labels.dtype}"
        raise DataError(f"{path}: {found}; expected (N, h, w) or (N, h, w, 3) of uint8 and N whole numbers")
    names = [f"{part}_{place:05d}" for place in range(len(images))]
    return pd.DataFrame({"image_id": names, "split": part, "label": labels.ravel().astype(str)})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file, np.load(file) as arrays:  # never unpickles
            yield arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as an .npz of MedMNIST ({error}); download it again") from error
