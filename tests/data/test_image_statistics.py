"""Statistics of images by hand, without padding; and images of the training data found again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.data.image_cache import ImageCache, open_cache
from skinlesion.data.image_statistics import STATISTICS, describe_images, stored_descriptors
from skinlesion.data.near_duplicates import find_by_hash, find_by_id, parts_of_training
from skinlesion.synthetic.dataset import write_synthetic


def frame_of(folder: Path) -> pd.DataFrame:
    files = sorted(folder.iterdir())
    return pd.DataFrame({"image_id": [path.stem for path in files], "path": [str(path) for path in files]})


def cached(folder: Path, tmp_path: Path, size: tuple[int, int] = (32, 40)) -> tuple[pd.DataFrame, ImageCache]:
    frame = frame_of(folder)
    return frame, open_cache(frame, size=size, cache_dir=tmp_path / "cache")


def test_a_plain_image_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (60, 20), (255, 0, 0)).save(folder / "red.png")  # padded above and below
    halves = np.zeros((32, 40, 3), np.uint8)
    halves[:, 20:] = 255
    Image.fromarray(halves).save(folder / "white.png")
    frame, cache = cached(folder, tmp_path)
    (block,) = describe_images(frame, cache, label="looking")
    red, white = (dict(zip(STATISTICS, row, strict=True)) for row in block.statistics)
    assert (red["width"], red["height"]) == (60, 20)
    found = [red[name] for name in ("red", "green", "blue", "saturation", "contrast")]
    assert found == pytest.approx([1, 0, 0, 1, 0], abs=1e-6)
    assert red["brightness"] == pytest.approx(0.299, abs=0.003)  # ITU-R BT.601
    assert (white["brightness"], white["contrast"], white["saturation"]) == (0.5, 0.5, 0)


def test_known_images_are_found_by_id_and_by_look(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "data", n=100, image_size=(60, 80), seed=4)
    frame, cache = cached(tmp_path / "data" / "HAM10000_images_part_1", tmp_path, (60, 80))
    training = stored_descriptors(frame, cache, label="looking")
    again = stored_descriptors(frame, cache, label="looking")
    np.testing.assert_array_equal(training.statistics, again.statistics)
    assert again.hashes.exact == training.hashes.exact

    names = frame["image_id"].tolist()
    known = parts_of_training({"train": names[:20], "val": names[20:25], "test": names[25:]})
    others = tmp_path / "others"
    others.mkdir()
    for place, new in ((0, "scaled"), (21, "darker"), (30, "of_test")):
        image = Image.open(frame["path"].iloc[place]).resize((200, 150))
        image.point(lambda value: int(value * 0.8)).save(others / f"{new}.jpg", quality=90)
    write_synthetic(tmp_path / "more", n=100, image_size=(60, 80), seed=5)
    for path in sorted((tmp_path / "more" / "HAM10000_images_part_1").iterdir())[:30]:
        (others / f"new_{path.name}").write_bytes(path.read_bytes())
    (images,) = describe_images(*cached(others, tmp_path, (60, 80)), label="looking")
    found = find_by_hash(images, training, known, distance=10, similarity=0.93).set_index("image_id")
    assert found["known_as"].to_dict() == {"scaled": names[0], "darker": names[21]}
    assert found["part"].to_dict() == {"scaled": "train", "darker": "val"}

    by_id = find_by_id([names[0], names[30], f"{names[21]}_downsampled", "other"], known)
    assert by_id["image_id"].tolist() == [names[0], f"{names[21]}_downsampled"]
    assert by_id["part"].tolist() == ["train", "val"]
