"""Decoded images on disk: uint8 arrays at the working size, each decoded once, shared by all runs and tables."""

import hashlib
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.data.image_io import Image, decode
from skinlesion.data.manifest import content_digests
from skinlesion.data.shards import Keys, Rows, ShardStore
from skinlesion.data.stream import Stream, StreamStore
from skinlesion.data.treatment import UNTREATED, Treatment
from skinlesion.errors import DataError, counted
from skinlesion.terminal import track

log = logging.getLogger(__name__)

_FORMAT = 2  # raise it when `decode` or `fit` change what they give
_AT_ONCE = 64  # images decoded, then written, at a time: the most that a killed process loses


@dataclass(frozen=True)
class ImageCache:
    """Decoded images of a data set, by image id."""

    path: Path  # in `data.cache_dir`
    key: str  # digest of the files it was made from
    image_ids: tuple[str, ...]  # of its rows
    images: Rows  # N times (H, W, 3) uint8, mapped read-only into memory

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
        return {name: value for name, value in vars(self).items() if name != "_rows"}


@dataclass(frozen=True)
class ImageSource:
    """The image files of a checked frame, and where their decoded images are kept.

    Each image is kept by its content, so that one that is changed or added is decoded alone; where it lies and when
    it was copied plays no part.

    Args:
        frame: Columns `image_id` and `path`.
        size: (height, width) in pixels.
        cache_dir: The folder of caches.
        treatment: What is done to each image, see `fit`; each treatment has a folder of its own.
        stream: Where they are kept instead, if no disk holds them.
    """

    frame: pd.DataFrame
    size: tuple[int, int]
    cache_dir: Path
    treatment: Treatment = UNTREATED
    stream: Stream | None = None

    @cached_property
    def contents(self) -> npt.NDArray[np.bytes_]:
        """SHA-256 of each file, in hexadecimal."""
        return content_digests(self.frame["path"].tolist(), self.cache_dir)

    @cached_property
    def key(self) -> str:
        """A digest of ids, size, the files' contents and the treatment, whether or not they are decoded."""
        digest = hashlib.sha256(f"{_FORMAT} {self.size}{self.treatment.suffix}".encode())
        for image_id, content in zip(self.frame["image_id"].tolist(), self.contents.tolist(), strict=True):
            digest.update(b"%b %b\n" % (image_id.encode(), content))
        return digest.hexdigest()

    def check(self) -> None:
        """Refuse now, before weights are looked for, a cache that is not there and cannot be made.

        Raises:
            ConfigError: The folder cannot be written.
            DataError: The disk is too small.
        """
        if len(missing := self._store.missing(self._keys)):
            self._store.check_room(len(missing))

    def open(self) -> ImageCache:
        """Open the decoded images; decode those that are not there.

        Raises:
            ConfigError: Images are not there yet, and the folder cannot be written.
            DataError: Images cannot be decoded, of which all are named, or the disk is full; the others are kept.
        """
        while (rows := self._store.rows(self._keys)) is None:
            self._decode()
        return ImageCache(self._store.folder, self.key, tuple(self.frame["image_id"].tolist()), rows)

    @property
    def _keys(self) -> Keys:
        return self.contents.astype("S32")

    @property
    def _store(self) -> ShardStore:
        name = f"images-{self.size[0]}x{self.size[1]}{self.treatment.suffix}-v{_FORMAT}"
        kind: dict[str, Any] = {"shape": (*self.size, 3), "dtype": np.dtype(np.uint8), "what": "decoded images"}
        if self.stream is None:
            return ShardStore(self.cache_dir / name, **kind)
        folder = self.cache_dir / "stream" / f"{name}-{zlib.crc32(self.stream.url.encode()):08x}"
        return StreamStore(folder, **kind, stream=self.stream.under(name))

    def _decode(self) -> None:
        broken: list[str] = []
        self.check()
        with self._store.locked():
            missing = self._store.missing(self._keys)  # by now, another process may have decoded some
            if len(missing):
                log.info("Decoding %d images at %dx%d, once: %s", len(missing), *self.size[::-1], self._store.folder)
                self._store.add(self._decoded(missing, broken))
        if broken:
            listed = "\n  ".join(sorted(broken))
            raise DataError(
                f"{counted(len(broken), 'image')} cannot be read; restore what is broken, or delete it and use "
                f"missing_images=drop (data. or external.):\n  {listed}"
            )

    def _decoded(self, missing: npt.NDArray[np.int64], broken: list[str]) -> Iterator[tuple[Keys, npt.NDArray[Any]]]:
        paths, keys = self.frame["path"].tolist(), self._keys

        def image(row: int) -> Image | None:
            try:
                return decode(Path(paths[row]), self.size, self.treatment)
            except DataError as error:
                broken.append(str(error))
                return None

        blocks = np.split(missing, range(_AT_ONCE, len(missing), _AT_ONCE))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for block in track(blocks, "decoding images", len(blocks)):
                decoded = zip(block, pool.map(image, block), strict=True)
                found = {row: pixels for row, pixels in decoded if pixels is not None}
                if found:
                    yield keys[[*found]], np.stack([*found.values()])


def open_cache(
    frame: pd.DataFrame,
    *,
    size: tuple[int, int],
    cache_dir: Path,
    treatment: Treatment = UNTREATED,
    stream: Stream | None = None,
) -> ImageCache:
    """Open the decoded images of a checked frame, see `ImageSource`."""
    return ImageSource(frame, size, cache_dir, treatment, stream).open()
