"""Images are decoded once, shared, rebuilt when the files change, and never half written."""

import hashlib
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.data.image_cache import ImageSource, open_cache
from skinlesion.data.image_io import decode
from skinlesion.data.treatment import Treatment
from skinlesion.errors import ConfigError, DataError

SIZE = (12, 16)


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(5):
        path = tmp_path / "images" / f"ISIC_{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
        paths.append(str(path))
    return pd.DataFrame({"image_id": [f"ISIC_{number}" for number in range(5)], "path": paths})


def test_holds_the_pixels(frame: pd.DataFrame, tmp_path: Path) -> None:
    cache = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    assert cache.images.dtype == np.uint8
    for image_id, path in zip(frame["image_id"], frame["path"], strict=True):
        np.testing.assert_array_equal(cache.image(image_id), np.asarray(Image.open(path)))
    assert cache.rows(["ISIC_3", "ISIC_1"]) == [3, 1]


def test_is_built_once(frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    monkeypatch.setattr("skinlesion.data.image_cache.decode", lambda *_: pytest.fail("decoded again"))
    again = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    assert again.path == first.path


def test_is_rebuilt_when_a_file_changes(frame: pd.DataFrame, tmp_path: Path) -> None:
    before = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    path = Path(frame["path"][2])
    size, stat = path.stat().st_size, path.stat()
    time.sleep(0.02)  # the kernel's clock of files is coarse
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # at equal size and time
    assert path.stat().st_size == size
    after = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    assert after.key != before.key
    assert after.image("ISIC_2").max() == 0


def test_images_that_were_moved_or_copied_are_the_same(frame: pd.DataFrame, tmp_path: Path) -> None:
    before = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    (tmp_path / "images").rename(tmp_path / "moved")
    frame = frame.assign(path=[path.replace("/images/", "/moved/") for path in frame["path"]])
    os.utime(frame["path"][0], ns=(1, 1))
    assert ImageSource(frame, SIZE, tmp_path / "cache").key == before.key


def test_a_place_that_cannot_take_the_images_is_refused_early(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"data\.cache_dir=.*file"):
        ImageSource(frame, SIZE, tmp_path / "file").check()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2879})())
    with pytest.raises(DataError, match=r"decoded images need 0\.0 MB"):
        ImageSource(frame, SIZE, tmp_path / "cache").check()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2880})())
    ImageSource(frame, SIZE, tmp_path / "cache").check()


def test_sizes_do_not_mix(frame: pd.DataFrame, tmp_path: Path) -> None:
    small = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    large = open_cache(frame, size=(24, 32), cache_dir=tmp_path / "cache")
    assert small.path != large.path
    assert large.images.shape == (24, 32, 3)


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are decoded from now on."""
    names: list[str] = []

    def noting(path: Path, size: tuple[int, int], treatment: Treatment) -> np.ndarray:
        names.append(path.stem)
        return decode(path, size, treatment)

    monkeypatch.setattr("skinlesion.data.image_cache.decode", noting)
    return names


def test_one_more_image_costs_one(frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_cache(frame.iloc[1:], size=SIZE, cache_dir=tmp_path / "cache")
    names = decoded(monkeypatch)
    cache = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    assert names == ["ISIC_0"]
    for image_id, path in zip(frame["image_id"], frame["path"], strict=True):
        np.testing.assert_array_equal(cache.image(image_id), np.asarray(Image.open(path)))


def test_a_build_that_was_stopped_goes_on(frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopping(path: Path, size: tuple[int, int], treatment: Treatment) -> np.ndarray:
        if path.stem == "ISIC_3":
            raise KeyboardInterrupt
        return decode(path, size, treatment)

    monkeypatch.setattr("skinlesion.data.image_cache._AT_ONCE", 2)
    monkeypatch.setattr("skinlesion.data.image_cache.decode", stopping)
    with pytest.raises(KeyboardInterrupt):
        open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    names = decoded(monkeypatch)
    open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    assert sorted(names) == ["ISIC_2", "ISIC_3", "ISIC_4"]


def test_the_formula_of_the_key_stays(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Checkpoints note it, and a run goes on only with the same images."""
    contents = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in frame["path"]]
    lines = [f"{image_id} {content}\n" for image_id, content in zip(frame["image_id"], contents, strict=True)]
    key = hashlib.sha256(("2 (12, 16)" + "".join(lines)).encode()).hexdigest()
    assert open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache").key == key


def test_names_all_broken_images_and_keeps_the_others(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {number: Path(frame["path"][number]).read_bytes() for number in (1, 4)}
    for number, content in whole.items():
        Path(frame["path"][number]).write_bytes(content[:60])
    with pytest.raises(DataError) as caught:
        open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    assert "2 images" in str(caught.value)
    assert "ISIC_1.png" in str(caught.value)
    assert "ISIC_4.png" in str(caught.value)
    assert "missing_images=drop" in str(caught.value)
    for number, content in whole.items():
        Path(frame["path"][number]).write_bytes(content)
    names = decoded(monkeypatch)
    open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    assert sorted(names) == ["ISIC_1", "ISIC_4"]


def test_travels_without_its_pixels(frame: pd.DataFrame, tmp_path: Path) -> None:
    cache = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    pixels = cache.images.take(range(5))  # mapped now
    sent = pickle.dumps(cache)
    assert len(sent) < 1500
    np.testing.assert_array_equal(pickle.loads(sent).images.take(range(5)), pixels)


def test_decode_turns_upright_and_takes_any_mode(tmp_path: Path) -> None:
    sideways = Image.fromarray(np.arange(6 * 4, dtype=np.uint8).reshape(6, 4))
    exif = sideways.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    sideways.save(tmp_path / "sideways.png", exif=exif)
    assert decode(tmp_path / "sideways.png", (4, 6)).shape == (4, 6, 3)
    upright = np.rot90(np.asarray(sideways), -1)
    np.testing.assert_array_equal(decode(tmp_path / "sideways.png", (4, 6))[..., 0], upright)
    Image.new("RGBA", (6, 4), (10, 20, 30, 255)).save(tmp_path / "alpha.png")
    assert decode(tmp_path / "alpha.png", (4, 6))[0, 0].tolist() == [10, 20, 30]
