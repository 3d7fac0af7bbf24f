"""Decoded images on disk: one memory-mapped uint8 array at the working size, made once, shared by all runs."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from skinlesion.data.image_io import Image, decode
from skinlesion.errors import DataError
from skinlesion.files import build_once, replacing
from skinlesion.terminal import track

log = logging.getLogger(__name__)

_FORMAT = 1  # raise it when `decode` or `fit` change what they give


@dataclass(frozen=True)
class ImageCache:
    """Decoded images of a data set, by image id."""

    path: Path  # the .npy file, (N, H, W, 3) uint8
    key: str  # digest of the files it was made from
    image_ids: tuple[str, ...]  # of its rows

    @cached_property
    def images(self) -> Image:
        """All images, (N, H, W, 3) uint8, mapped read-only into memory."""
        return cast(Image, np.load(self.path, mmap_mode="r"))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def rows(self, image_ids: Sequence[str]) -> list[int]:
        """Return the rows of images, by id."""
        return [self._rows[image_id] for image_id in image_ids]

    def image(self, image_id: str) -> Image:
        """Return one image, (H, W, 3) uint8."""
        return cast(Image, self.images[self._rows[image_id]])

    def __getstate__(self) -> dict[str, object]:
        # A worker process maps the file itself instead of receiving the pixels.
        return {"path": self.path, "key": self.key, "image_ids": self.image_ids}


def open_cache(frame: pd.DataFrame, *, size: tuple[int, int], cache_dir: Path) -> ImageCache:
    """Open the decoded images of a checked frame; decode them if they are not there or the files have changed.

    Args:
        frame: Columns `image_id` and `path`.
        size: (height, width) in pixels.
        cache_dir: The folder of caches. The file's name holds the key, so a changed image file, list of images or
            size leads to a new one.

    Raises:
        DataError: Images cannot be decoded; all are named, and no file is left behind.
    """
    paths = [Path(path) for path in frame["path"]]
    image_ids = tuple(frame["image_id"])
    key = _key(image_ids, paths, size)
    path = cache_dir / f"images-{size[0]}x{size[1]}-{key[:16]}.npy"
    build_once(path, lambda: _build(path, paths, size))
    return ImageCache(path, key, image_ids)


def image_key(frame: pd.DataFrame, *, size: tuple[int, int]) -> str:
    """The key of a frame's images, see `ImageCache.key`, whether or not they are decoded."""
    return _key(frame["image_id"].tolist(), [Path(path) for path in frame["path"]], size)


def _key(image_ids: Sequence[str], paths: Sequence[Path], size: tuple[int, int]) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {size}".encode())
    for image_id, path in zip(image_ids, paths, strict=True):
        stat = path.stat()
        digest.update(f"{image_id} {path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _build(path: Path, paths: Sequence[Path], size: tuple[int, int]) -> None:
    log.info("Decoding %d images at %dx%d, once: %s", len(paths), size[1], size[0], path)
    broken: list[str] = []
    with replacing(path) as beside, ThreadPoolExecutor(os.cpu_count()) as pool:
        images = np.lib.format.open_memmap(beside, mode="w+", dtype=np.uint8, shape=(len(paths), *size, 3))

        def fill(row: int) -> None:
            try:
                images[row] = decode(paths[row], size)
            except DataError as error:
                broken.append(str(error))

        for _ in track(pool.map(fill, range(len(paths))), "decoding images", len(paths)):
            pass
        if broken:
            listed = "\n  ".join(sorted(broken))
            raise DataError(
                f"{len(broken)} images cannot be read; restore them, or delete them and use data.missing_images=drop:"
                f"\n  {listed}"
            )
        images.flush()
