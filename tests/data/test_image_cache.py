"""Images are decoded once, shared, rebuilt when the files change, and never half written."""

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.data.image_cache import open_cache
from skinlesion.data.image_io import decode
from skinlesion.errors import DataError

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
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    after = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    assert after.key != before.key
    assert after.image("ISIC_2").max() == 0


def test_sizes_do_not_mix(frame: pd.DataFrame, tmp_path: Path) -> None:
    small = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    large = open_cache(frame, size=(24, 32), cache_dir=tmp_path / "cache")
    assert small.path != large.path
    assert large.images.shape == (5, 24, 32, 3)


def test_names_all_broken_images_and_leaves_nothing(frame: pd.DataFrame, tmp_path: Path) -> None:
    for number in (1, 4):
        path = Path(frame["path"][number])
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    assert "2 images" in str(caught.value)
    assert "ISIC_1.png" in str(caught.value)
    assert "ISIC_4.png" in str(caught.value)
    assert "missing_images=drop" in str(caught.value)
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_travels_without_its_pixels(frame: pd.DataFrame, tmp_path: Path) -> None:
    cache = open_cache(frame, size=SIZE, cache_dir=tmp_path / "cache")
    cache.images  # noqa: B018  mapped now
    sent = pickle.dumps(cache)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).images, cache.images)


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
