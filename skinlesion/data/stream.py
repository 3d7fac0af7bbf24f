"""Decoded images past what one disk holds: chunks in a bucket or a shared folder, written and read by litdata.

A stream is a folder of parts, each a data set of litdata with up to `_PER_PART` chunks, and `parts.json`, which names
those that are whole. Each process reads images by index; chunks are copied to `data.cache_dir` as they are needed, and
those unused for longest are deleted there once they take more than `data.stream_gb`.
"""

import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from skinlesion.data.disk_cache import require_room
from skinlesion.data.shards import Keys, Rows, ShardStore, locate
from skinlesion.errors import ConfigError, DataError, SkinlesionError
from skinlesion.files import locked, replacing, require_writable, write_json

if TYPE_CHECKING:
    from litdata import StreamingDataset

log = logging.getLogger(__name__)

_CHUNK = 16_000_000  # bytes
_PER_PART = 64  # chunks: 1 GB, the most that a killed process loses
_COPIES = "*/*/[!.]*.bin"  # size, part, chunk; not those that are being written
WINDOW = 128  # chunks that a shuffled order draws from at a time, 2 GB, see `dataset.Shuffled`
SCHEMES = ("s3", "gs", "r2")


@dataclass(frozen=True)
class Stream:
    """Where decoded images are kept when no disk holds them.

    Attributes:
        url: A folder, or s3://bucket/folder, gs:// and r2:// alike.
        local_gb: Most that copies of chunks take in `data.cache_dir`, in GB.
    """

    url: str
    local_gb: float

    @classmethod
    def of(cls, url: str | None, local_gb: float) -> Self | None:
        """The stream of two keys; None where there is none.

        Raises:
            ConfigError: The address is of another kind, or litdata is not installed.
        """
        if url is None:
            return None
        scheme, _, rest = url.partition("://")
        if rest and scheme not in SCHEMES:
            expected = ", ".join(f"{each}://" for each in SCHEMES)
            raise ConfigError(f"data.stream={url}: {scheme}:// is not known; expected a folder, or one of {expected}")
        if find_spec("litdata") is None:  # importing it takes seconds
            raise ConfigError("data.stream: litdata is not installed: pip install 'skinlesion[stream]'")
        return cls(url.rstrip("/") if rest else str(Path(url).expanduser().absolute()), local_gb)

    @property
    def is_remote(self) -> bool:
        """Whether it is a bucket."""
        return "://" in self.url

    def under(self, name: str) -> "Stream":
        """A folder of it."""
        return Stream(f"{self.url}/{name}", self.local_gb)

    def send(self, path: Path, name: str) -> None:
        """Copy a file there."""
        with self._told():
            if self.is_remote:
                _provider(self.url.partition("://")[0], os.getpid()).upload_file(str(path), f"{self.url}/{name}")
            else:
                with replacing(Path(self.url, name)) as beside:
                    shutil.copyfile(path, beside)

    def fetch(self, name: str, path: Path) -> bool:
        """Copy a file from there, if it is there."""
        there = f"{self.url}/{name}"
        with self._told():
            provider = _provider(self.url.partition("://")[0], os.getpid()) if self.is_remote else None
            if not (provider.exists(there) if provider else Path(there).is_file()):
                return False
            with replacing(path) as beside:
                provider.download_file(there, str(beside)) if provider else shutil.copyfile(there, beside)
        return True

    def get(self, name: str, path: Path) -> None:
        """Copy a file from there that must be there."""
        if not self.fetch(name, path):
            raise DataError(
                f"data.stream={self.url}: {name} is not there; restore it, or take its folder's name out of "
                "parts.json, whose images are then made again"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except SkinlesionError:
            raise
        except Exception as error:  # each storage's client has errors of its own
            reason = " ".join(str(error).split())[:200]
            advice = "check the address, the right to read and write there, and the network"
            raise DataError(f"data.stream={self.url}: {type(error).__name__}: {reason}; {advice}") from error


@cache
def _provider(scheme: str, process: int) -> Any:
    """Litdata's client of a storage, one for each process."""
    from litdata.streaming.fs_provider import _get_fs_provider

    if scheme != "s3":
        return _get_fs_provider(f"{scheme}://")
    from botocore.config import Config

    patience = Config(retries={"max_attempts": 4}, connect_timeout=10, read_timeout=60)  # litdata's own are 1,000
    return _get_fs_provider("s3://", {"config": patience})


@dataclass(frozen=True)
class StreamedRows(Rows):
    """N images in chunks; `files` are the folders of the parts' copies on this disk."""

    stream: Stream
    _open: dict[tuple[int, int], "_Part"] = field(default_factory=dict, compare=False)

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """Read an image from its chunk's copy, which is made first if it is not there."""
        part = int(self.file[row])
        if (here := (os.getpid(), part)) not in self._open:  # connections do not survive the fork of a worker
            self._open[here] = _Part.open(self.stream, self.files[part])
        place, chunk = int(self.place[row]), int(self.place[row]) // images_per_chunk(self.shape)
        with self.stream._told():
            while True:
                self._open[here].hold(chunk)
                with suppress(FileNotFoundError):  # another process has just deleted the copy
                    return np.asarray(self._open[here].images[place]["image"])

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_open": {}}


@dataclass(frozen=True)
class _Part:
    """An open part in this process."""

    folder: Path  # of the copies of its chunks
    most: float  # bytes that copies may take, those of all sizes and parts together
    names: list[str]  # of its chunks
    images: "StreamingDataset"
    stream: Stream  # the part, far away

    @classmethod
    def open(cls, stream: Stream, folder: Path) -> "_Part":
        from litdata import StreamingDataset
        from litdata.streaming.resolver import Dir

        part = stream.under(folder.name)
        chunks = json.loads((folder / "index.json").read_text())["chunks"]
        images = StreamingDataset(Dir(str(folder), part.url if part.is_remote else f"local:{part.url}"))
        return cls(folder, 1e9 * stream.local_gb, [each["filename"] for each in chunks], images, part)

    def hold(self, chunk: int) -> None:
        """Copy a chunk to this disk, if it is not there; note that it was used."""
        copy = self.folder / self.names[chunk]
        try:
            os.utime(copy)
        except FileNotFoundError:
            with locked(copy.with_suffix(".lock")):
                if not copy.exists():  # no other process has copied it while this one waited
                    self._make_room()
                    self.stream.get(copy.name, copy)

    def _make_room(self) -> None:
        """Delete chunks until another has its place, those unused for longest first."""
        copies = []
        for path in self.folder.parent.parent.glob(_COPIES):
            with suppress(FileNotFoundError):  # another process deletes too
                copies.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        excess = sum(size for _, size, _ in copies) + _CHUNK - self.most
        for _, size, path in sorted(copies):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size


@dataclass(frozen=True)
class StreamStore(ShardStore):
    """Images of one size in a stream, by keys, as a `ShardStore`; `folder` holds the copies on this disk.

    One process at a time may add to it.
    """

    stream: Stream = Stream("", 0)

    def rows(self, keys: Keys) -> Rows | None:
        """The images of some keys; None where one is not there."""
        found, parts = self._find(keys)
        if (found < 0).any():
            return None
        return StreamedRows(tuple(parts), found[:, 0], found[:, 1], self.shape, self.dtype, self.stream)

    def check_room(self, count: int, *, later: int = 0) -> None:
        """Refuse now a folder that cannot hold the copies."""
        require_writable(self.folder, "data.cache_dir")
        held = sum(path.stat().st_size for path in self.folder.parent.glob(_COPIES))
        advice = ", or take a smaller data.stream_gb"
        needed = min(1e9 * self.stream.local_gb - held, count * self.size)
        require_room(self.folder, int(needed), what="copies of chunks", advice=advice)

    def add(self, batches: Iterable[tuple[Keys, npt.NDArray[Any]]]) -> None:
        """Add images, (n, H, W, 3) with their n keys, in parts; what an exception interrupts is lost."""
        left = iter((key, image) for keys, images in batches for key, image in zip(keys.tolist(), images, strict=True))
        while self._add_part(left):
            pass

    def _add_part(self, images: Iterator[tuple[bytes, npt.NDArray[Any]]]) -> bool:
        """Write the next part, chunk by chunk; whether there were images for a whole one."""
        from litdata.streaming.writer import BinaryWriter

        per_chunk = images_per_chunk(self.shape)
        name, whole = secrets.token_hex(8), _PER_PART * per_chunk
        keys: list[bytes] = []
        part = self.stream.under(name)
        with tempfile.TemporaryDirectory() as folder:
            writer = BinaryWriter(folder, chunk_size=per_chunk)
            for key, image in images:
                full = writer.add_item(len(keys), {"image": np.ascontiguousarray(image, self.dtype)})
                keys.append(key)
                _move([full] if full else [], part)
                if len(keys) == whole:
                    break
            if keys:
                _move(writer.done() or [], part)
                writer.merge()
                np.save(Path(folder, "keys.npy"), np.array(keys, "S32"))
                for each in ("index.json", "keys.npy"):
                    part.send(Path(folder, each), each)
                listed = Path(folder, "parts.json")
                write_json(listed, [*self._parts(), name])
                self.stream.send(listed, listed.name)
        return len(keys) == whole

    def _parts(self) -> list[str]:
        listed = self.folder / "parts.json"
        return json.loads(listed.read_text()) if self.stream.fetch(listed.name, listed) else []

    def _find(self, keys: Keys) -> tuple[npt.NDArray[np.int32], list[Path]]:
        """Part and place of each key, (N, 2), -1 where it is not there; and the folders of the parts' copies."""
        folders = [self.folder / name for name in self._parts()]
        for folder in folders:
            for name in ("index.json", "keys.npy"):
                if not (folder / name).exists():
                    self.stream.under(folder.name).get(name, folder / name)
        return locate(keys, [np.load(folder / "keys.npy") for folder in folders]), folders


def images_per_chunk(shape: Sequence[int]) -> int:
    """How many images of a shape (H, W, 3) a chunk holds."""
    return max(1, _CHUNK // int(np.prod(shape)))


def _move(chunks: Iterable[str], part: Stream) -> None:
    for path in map(Path, chunks):
        part.send(path, path.name)
        path.unlink()
