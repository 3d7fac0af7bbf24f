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

from skinlesion.data.disk_cache import content_digests, new_array, open_array, require_room
from skinlesion.data.image_io import Image, decode
from skinlesion.errors import DataError
from skinlesion.files import require_writable
from skinlesion.terminal import track

log = logging.getLogger(__name__)

_FORMAT = 2  # raise it when `decode` or `fit` change what they give
_WHAT = "decoded images"


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


def open_cache(frame: pd.DataFrame, *, size: tuple[int, int], cache_dir: Path, hair: str = "keep") -> ImageCache:
    """Open the decoded images of a checked frame; decode them if they are not there or the files have changed.

    Args:
        frame: Columns `image_id` and `path`.
        size: (height, width) in pixels.
        cache_dir: The folder of caches. The file's name holds the key, so a changed image, list of images or size
            leads to a new one; where the images lie and when they were copied plays no part.
        hair: "keep" or "remove", see `fit`; each has a file of its own.

    Raises:
        ConfigError: The images are not there yet, and the folder cannot be written.
        DataError: Images cannot be decoded, of which all are named, or the disk is full; no file is left behind.
    """
    key = image_key(frame, size=size, cache_dir=cache_dir, hair=hair)
    path = _path(key, size, cache_dir)
    files = [Path(file) for file in frame["path"]]
    open_array(path, lambda: _build(path, files, size, hair))
    return ImageCache(path, key, tuple(frame["image_id"]))


def check_cache(frame: pd.DataFrame, *, size: tuple[int, int], cache_dir: Path, hair: str = "keep") -> None:
    """Refuse now, before weights are looked for, a cache that is not there and cannot be made.

    Raises:
        ConfigError: The folder cannot be written.
        DataError: The disk is too small.
    """
    if not _path(image_key(frame, size=size, cache_dir=cache_dir, hair=hair), size, cache_dir).exists():
        require_writable(cache_dir, "data.cache_dir")
        require_room(cache_dir, 3 * len(frame) * size[0] * size[1], what=_WHAT)


def image_key(frame: pd.DataFrame, *, size: tuple[int, int], cache_dir: Path, hair: str = "keep") -> str:
    """The key of a frame's images, decoded or not: a digest of ids, size, the files' contents and removed hair."""
    digest = hashlib.sha256(f"{_FORMAT} {size}{'' if hair == 'keep' else f' {hair}'}".encode())
    contents = content_digests([Path(path) for path in frame["path"]], cache_dir)
    for image_id, content in zip(frame["image_id"], contents, strict=True):
        digest.update(f"{image_id} {content}\n".encode())
    return digest.hexdigest()


def _path(key: str, size: tuple[int, int], cache_dir: Path, hair: str = "keep") -> Path:
    return cache_dir / f"images-{size[0]}x{size[1]}-{key[:16]}.npy"


def _build(path: Path, paths: Sequence[Path], size: tuple[int, int], hair: str) -> None:
    log.info("Decoding %d images at %dx%d, once: %s", len(paths), size[1], size[0], path)
    broken: list[str] = []
    shape = (len(paths), *size, 3)
    with new_array(path, shape, np.uint8, what=_WHAT) as images, ThreadPoolExecutor(os.cpu_count()) as pool:

        def fill(row: int) -> None:
            try:
                images[row] = decode(paths[row], size, hair=hair)
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
