"""`python -m benchmarks.stream DATA`: images that no disk holds, by litdata and by webdataset, against the image cache.

The images of HAM10000 are read in a shuffled order, in batches of 64, from a folder that stands in for a bucket, with
copies of at most a third of them on the disk, as each engine does it by itself and as `data.stream` does it by litdata.
Processor time counts workers too. The first round of each is not timed: it finds out in which order images come with
0 and 2 workers, and how many bytes lie on the disk at most.
"""

import argparse
import os
import resource
import shutil
import statistics
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported
os.environ.setdefault("MAX_WAIT_TIME", "30")  # seconds, after which litdata gives a chunk up

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.measuring import machine
from skinlesion.config.data import restore_data_config
from skinlesion.data.dataset import Shuffled
from skinlesion.data.image_cache import ImageSource
from skinlesion.data.readers import read_data
from skinlesion.data.shards import Rows
from skinlesion.data.stream import Stream, images_per_chunk
from skinlesion.files import write_json

RESULT = Path(__file__).parent / "results" / "stream.json"
SIZE, BATCH, SEED, WORKERS = (150, 200), 64, 1, (0, 2)
WINDOW = 8  # chunks: as 128 of a data set of a million images would be

Batches = Iterable[Any]
Reader = Callable[[int], Batches]  # of a number of workers


@dataclass(frozen=True)
class _ByIndex(Dataset[torch.Tensor]):
    """Batches of rows by index, as `LesionDataset` takes them."""

    images: Any

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, draws: list[tuple[int, int]]) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.images[index] for index, _ in draws]))


def by_index(images: Any, chunks: Any = None) -> Reader:
    """Shuffled by the package's own sampler; `chunks` as of `Shuffled`."""

    def read(workers: int) -> Batches:
        order = Shuffled(len(images), seed=SEED, first_draw=0, chunks=chunks)
        whole = {"batch_size": BATCH, "sampler": order, "collate_fn": _same}
        return DataLoader(_ByIndex(images), **whole, num_workers=workers)  # type: ignore[arg-type]

    return read


def _same(batch: Any) -> Any:
    return batch


def _stacked(samples: list[Any]) -> torch.Tensor:
    return torch.from_numpy(np.stack([each["image"] if "image" in each else each["npy"] for each in samples]))


def litdata_alone(far: str, folder: Path, limit: int) -> Reader:
    """Its own shuffle, cache and loader."""

    def read(workers: int) -> Batches:
        from litdata import StreamingDataLoader, StreamingDataset
        from litdata.streaming.resolver import Dir

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        images = StreamingDataset(Dir(str(folder), far), shuffle=True, seed=SEED, max_cache_size=limit)
        return StreamingDataLoader(images, batch_size=BATCH, num_workers=workers, collate_fn=_stacked)  # type: ignore[no-any-return]

    return read


def webdataset_alone(images: Rows, folder: Path) -> Reader:
    """Tar files of as many images as a chunk has; its own shuffles, of files and in a buffer."""
    from webdataset import ShardWriter, WebDataset

    folder.mkdir()
    with ShardWriter(f"{folder}/%05d.tar", maxcount=images_per_chunk((*SIZE, 3)), verbose=0) as writer:
        for row, image in enumerate(images):
            writer.write({"__key__": f"{row:06d}", "npy": np.asarray(image)})
    urls = sorted(map(str, folder.glob("*.tar")))

    def read(workers: int) -> Batches:
        data = WebDataset(urls, shardshuffle=100, detshuffle=True, seed=SEED)
        buffered = data.shuffle(WINDOW * images_per_chunk((*SIZE, 3)), seed=SEED).decode()
        return DataLoader(buffered, batch_size=BATCH, num_workers=workers, collate_fn=_stacked)

    return read


@contextmanager
def most_on_disk(folder: Path) -> Iterator[list[int]]:
    """The most bytes of chunks in a folder while the block runs, looked at fifty times a second."""
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            sizes = []
            for path in folder.rglob("*.bin"):
                try:
                    sizes.append(path.stat().st_size)
                except FileNotFoundError:
                    continue
            most[0] = max(most[0], sum(sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()


def order_of(batches: Batches) -> list[int]:
    """A number of each image, in the order in which they come."""
    return [zlib.crc32(image.numpy().tobytes()) for batch in batches for image in batch]


def processor_time(read: Reader, workers: int) -> float:
    """Seconds of this process and of its workers."""

    def used() -> float:
        each = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(one.ru_utime + one.ru_stime for one in each)

    start, batches = used(), read(workers)
    for _ in batches:
        pass
    del batches
    return used() - start


def measured(readers: dict[str, Reader], folders: dict[str, Path], images: Rows, rounds: int) -> dict[str, Any]:
    """What each does, and its time an image in each round, all in turn."""
    every = sorted(zlib.crc32(image.tobytes()) for image in images)
    found: dict[str, Any] = {}
    for name, read in readers.items():
        try:
            with most_on_disk(folders[name]) as most:
                orders = [order_of(read(workers)) for workers in WORKERS]
        except Exception as error:  # noqa: BLE001  # each engine has errors of its own
            found[name] = {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
            print(name, found[name], flush=True)
            continue
        found[name] = {
            "every_image_once": [sorted(order) == every for order in orders],
            "order_of_0_and_2_workers_equal": orders[0] == orders[1],
            "most_on_disk_mb": round(most[0] / 1e6),
            "ms_an_image": {workers: [] for workers in WORKERS},
        }
        print(name, found[name], flush=True)
    for _ in range(rounds):
        for workers in WORKERS:
            for name, read in ((each, readers[each]) for each in found if "failed" not in found[each]):
                spent = 1e3 * processor_time(read, workers) / len(images)
                found[name]["ms_an_image"][workers].append(float(f"{spent:.3g}"))
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        patch("skinlesion.data.dataset.WINDOW", WINDOW),
    ):
        result = compare(Path(name), arguments.data, count=arguments.images, rounds=arguments.rounds)
    write_json(RESULT, result)


def compare(folder: Path, root: str, *, count: int, rounds: int) -> dict[str, Any]:
    """All readers on the first images of a data set."""
    given = {"root": root, "table": "HAM10000_metadata", "cache_dir": str(folder / "cache")}
    parts = [f"HAM10000_images_part_{part}" for part in (1, 2)]
    given |= {"images": parts, "missing_images": "error", "extra_images": "error"}  # type: ignore[dict-item]
    frame = read_data(restore_data_config(given)).head(count)
    limit = count * 3 * SIZE[0] * SIZE[1] // 3
    images = ImageSource(frame, SIZE, folder / "cache").open().images
    stream = ImageSource(frame, SIZE, folder / "copies", stream=Stream.of(str(folder / "far"), limit / 1e9))
    streamed = stream.open().images
    far = f"local:{next((folder / 'far').glob('*/*/index.json')).parent}"
    chunks = np.arange(count) // images_per_chunk((*SIZE, 3))
    readers = {
        "image cache": by_index(images),
        "data.stream, by litdata": by_index(streamed, chunks),
        "litdata alone": litdata_alone(far, folder / "litdata", limit),
        "webdataset alone": webdataset_alone(images, folder / "tars"),
    }
    places = dict(zip(readers, (folder / "none", folder / "copies", folder / "litdata", folder / "none"), strict=True))
    found = measured(readers, places, images, rounds)
    random_access = by_index(_InPlace(far.removeprefix("local:")))
    found["litdata, an image at a time by index, whole on the disk"] = {
        "ms_an_image": {0: [float(f"{1e3 * processor_time(random_access, 0) / len(images):.3g}")]}
    }
    ours = [found["image cache"]["ms_an_image"][workers] for workers in WORKERS]
    for name in (each for each in readers if "failed" not in found[each]):
        theirs = [found[name]["ms_an_image"][workers] for workers in WORKERS]
        pairs = [[other / one for one, other in zip(*pair, strict=True)] for pair in zip(ours, theirs, strict=True)]
        found[name]["times_the_cache"] = [float(f"{statistics.median(each):.3g}") for each in pairs]
        print(name, found[name]["times_the_cache"])
    packages = {each: version(each) for each in ("litdata", "webdataset", "torch")}
    setting = {"images": count, "size": SIZE, "batch": BATCH, "most_on_disk_mb": limit // 10**6, "window": WINDOW}
    return {**setting, "readers": found, "machine": machine(), "versions": packages}


class _InPlace:
    """Images of litdata by index, as it reads them by itself."""

    def __init__(self, folder: str) -> None:
        from litdata import StreamingDataset

        self.images = StreamingDataset(folder)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Any:
        return self.images[row]["image"]


if __name__ == "__main__":
    main()
