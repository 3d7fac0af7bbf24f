"""Images in a stream are those of the cache, to the byte, from few chunks on this disk, in any process."""

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from skinlesion.commands.train import run
from skinlesion.config.data import SourceConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data import stream as streams
from skinlesion.data.dataset import Shuffled
from skinlesion.data.image_cache import ImageSource
from skinlesion.data.shards import Rows
from skinlesion.data.stream import Stream, images_per_chunk
from skinlesion.errors import ConfigError, DataError, TimeLimitError
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.split_part import read_part
from skinlesion.training.checkpoint import load_model

pytest.importorskip("litdata", reason="litdata is not installed (extra `stream`)")

SIZE, COUNT, PER_CHUNK = (12, 16), 23, 3
BYTES = 12 * 16 * 3


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_CHUNK", PER_CHUNK * BYTES)
    monkeypatch.setattr(streams, "_PER_PART", 4)


@pytest.fixture
def pixels() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, *SIZE, 3), np.uint8)


@pytest.fixture
def frame(tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> pd.DataFrame:
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"ISIC_{number:02d}.png" for number in range(COUNT)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return pd.DataFrame({"image_id": [path.stem for path in paths], "path": [*map(str, paths)]})


def source(frame: pd.DataFrame, tmp_path: Path, *, cache: str = "cache", gb: float = 1) -> ImageSource:
    return ImageSource(frame, SIZE, tmp_path / cache, stream=Stream.of(str(tmp_path / "far"), gb))


def copies(tmp_path: Path, cache: str = "cache") -> int:
    return len([*(tmp_path / cache).rglob("*.bin")])


def test_holds_the_pixels_and_decodes_once(
    frame: pd.DataFrame, pixels: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = source(frame, tmp_path).open().images
    order = np.random.default_rng(1).permutation(COUNT)
    np.testing.assert_array_equal(images.take(order), pixels[order])
    assert len([*(tmp_path / "far").rglob("*.bin")]) == 8  # 23 images, 3 a chunk: parts of 12 and 11
    monkeypatch.setattr("skinlesion.data.image_cache.decode", lambda *_, **__: pytest.fail("decoded again"))
    again = source(frame, tmp_path, cache="other_machine").open()
    assert again.key == ImageSource(frame, SIZE, tmp_path / "plain").key
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(again.images)).take(order), pixels[order])


def test_one_more_image_costs_one_more_image(
    frame: pd.DataFrame, pixels: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(frame[1:], tmp_path).open()
    decoded = []
    from skinlesion.data.image_cache import decode

    def noting(path: Path, *given: object, **options: object) -> object:
        decoded.append(path.stem)
        return decode(path, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("skinlesion.data.image_cache.decode", noting)
    np.testing.assert_array_equal(source(frame, tmp_path).open().images.take(range(COUNT)), pixels)
    assert decoded == ["ISIC_00"]


def test_few_chunks_lie_on_this_disk(frame: pd.DataFrame, pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    some = source(frame, tmp_path, gb=2.5 * PER_CHUNK * BYTES / 1e9).open().images
    for row in np.random.default_rng(2).permutation(np.repeat(np.arange(COUNT), 3)):
        np.testing.assert_array_equal(some[row], pixels[row])
        assert copies(tmp_path) <= 3  # a chunk has a header too, so that two fit into 2.5 and a third is being added


def test_forked_workers_share_few_chunks(frame: pd.DataFrame, pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    images = source(frame, tmp_path, gb=2.5 * PER_CHUNK * BYTES / 1e9).open().images
    np.testing.assert_array_equal(images[0], pixels[0])  # this process has connections now
    children = []
    for seed in range(3):
        if not (child := os.fork()):
            order = np.random.default_rng(seed).permutation(np.repeat(np.arange(COUNT), 20))
            os._exit(0 if np.array_equal(images.take(order), pixels[order]) else 1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]


def test_a_killed_build_goes_on(
    frame: pd.DataFrame, pixels: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skinlesion.data.image_cache._AT_ONCE", 1)
    send, sent = Stream.send, []

    def killed(self: Stream, path: Path, name: str) -> None:
        sent.append(name)
        if len(sent) == 9:  # the first chunk of the second part, after four chunks and three lists
            raise KeyboardInterrupt
        send(self, path, name)

    monkeypatch.setattr(Stream, "send", killed)
    with pytest.raises(KeyboardInterrupt):
        source(frame, tmp_path).open()
    monkeypatch.setattr(Stream, "send", send)
    assert len(source(frame, tmp_path)._store.missing(source(frame, tmp_path)._keys)) == 11
    np.testing.assert_array_equal(source(frame, tmp_path).open().images.take(range(COUNT)), pixels)


def test_what_cannot_be_used_is_a_line(frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"data\.stream=ftp://host/x: ftp:// is not known; expected a folder, or"):
        Stream.of("ftp://host/x", 1)
    with monkeypatch.context() as absent:
        absent.setattr(streams, "find_spec", lambda _: None)
        with pytest.raises(ConfigError, match=r"litdata is not installed: pip install 'skinlesion\[stream\]'"):
            Stream.of("s3://bucket/x", 1)
    source(frame, tmp_path).open()
    part = next((tmp_path / "far").glob("*/*/keys.npy"))
    part.unlink()
    with pytest.raises(DataError, match=rf"{part.parent.name}: keys.npy is not there; restore it, or take"):
        source(frame, tmp_path, cache="other").open()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data\.stream=.*file.*: check the address|data\.stream=.*check the address"):
        ImageSource(frame, SIZE, tmp_path / "third", stream=Stream.of(str(tmp_path / "file"), 0.001)).open()


def test_a_window_slides_over_shuffled_chunks() -> None:
    chunks = np.repeat(np.arange(500), 10)
    sampler = Shuffled(5000, seed=7, first_draw=3, chunks=chunks)
    order = [index for index, draw in sampler]
    assert sorted(order) == [*range(5000)]
    assert order == [index for index, _ in Shuffled(5000, seed=7, first_draw=3, chunks=chunks)]
    places = np.argsort(order).reshape(500, 10)  # of each chunk's images
    span = places.max(axis=1) - places.min(axis=1)
    assert span.max() < 10 * (streams.WINDOW + 8) < 5000 / 3  # an image more or less at random within a window
    assert np.abs(np.corrcoef(places.min(axis=1), np.arange(500))[0, 1]) < 0.15  # chunks are shuffled
    sampler.set_epoch(1)
    assert [index for index, _ in sampler] != order


def test_up_to_a_window_the_order_is_that_without_a_stream() -> None:
    plain = [*Shuffled(40, seed=0, first_draw=0)]
    assert [*Shuffled(40, seed=0, first_draw=0, chunks=np.arange(40) % streams.WINDOW)] == plain
    assert images_per_chunk((10**4, 10**4, 3)) == 1


def files(run_folder: str) -> list[bytes]:
    return [Path(run_folder, name).read_bytes() for name in ("metrics.csv", "predictions_val.csv", "split.csv")]


IMAGES = ("schedule=head_only", "schedule.phases.head.cached_views=0")


def test_training_and_evaluation_are_those_of_the_cache(
    small_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_CHUNK", 10 * 32 * 32 * 3)  # 24 chunks, less than a window
    plain = small_config(*IMAGES)
    streamed = small_config(*IMAGES, f"data.stream={tmp_path / 'far'}", f"out={tmp_path / 'streamed'}")
    run(plain)
    run(streamed)
    assert files(streamed.out) == files(plain.out)
    model = load_model(Path(streamed.out, "best.ckpt"))
    found = [
        read_part(model, "val", SourceConfig(None, str(tmp_path / "other"), stream)).caches(
            Predictor.load(streamed.out).members
        )
        for stream in (None, str(tmp_path / "far"))
    ]
    (here, there) = (next(iter(each.values())).images for each in found)
    assert [type(here), type(there)] == [Rows, streams.StreamedRows]
    np.testing.assert_array_equal(here.take(range(len(here))), there.take(range(len(there))))


def test_a_stopped_training_on_a_window_goes_on_as_if_it_had_not_stopped(
    small_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skinlesion.data.dataset.WINDOW", 3)
    words = (*IMAGES, f"data.stream={tmp_path / 'far'}")
    whole, parted = (small_config(*words, f"out={tmp_path / name}") for name in ("whole", "parted"))
    run(whole)
    stopped = replace(parted, trainer=replace(parted.trainer, max_time="00:00:00:00"))
    with pytest.raises(TimeLimitError):
        run(stopped)
    run(replace(parted, loader=replace(parted.loader, workers=2)))
    assert files(parted.out) == files(whole.out)
    plain = small_config(*IMAGES, f"out={tmp_path / 'plain'}")
    run(plain)
    assert files(plain.out)[0] != files(whole.out)[0], "another order"
