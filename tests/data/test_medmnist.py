"""Arrays of MedMNIST: images, labels and the split come back as they were stored."""

from pathlib import Path

import numpy as np
import pytest
from conftest import composed

from skinlesion.config.train import TrainConfig
from skinlesion.data.image_io import read
from skinlesion.data.medmnist import split_rows, unpack
from skinlesion.data.readers import read_data
from skinlesion.data.splits import from_file
from skinlesion.errors import DataError

SIZES = {"train": 21, "val": 7, "test": 14}


def arrays(side: int = 28) -> dict[str, np.ndarray]:
    """The layout of dermamnist.npz: labels (N, 1) from 0 to 6."""
    rng, made = np.random.default_rng(0), {}
    for part, count in SIZES.items():
        made[f"{part}_images"] = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(count, dtype=np.uint8) % 7)[:, None]
    return made


def test_images_labels_and_split(tmp_path: Path) -> None:
    stored = arrays()
    (root := tmp_path / "data").mkdir()
    np.savez(root / "dermamnist.npz", **stored)
    overrides = ("data=dermamnist", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}")
    frame = read_data(composed("train", TrainConfig, *overrides).data)
    assert len(frame) == 42
    row = frame.set_index("image_id").loc["val_00004"]
    assert row["diagnosis"] == "mel"  # MedMNIST's 4
    np.testing.assert_array_equal(read(Path(row["path"])), stored["val_images"][4])
    assert (frame["diagnosis"].value_counts() == 6).all()
    split = from_file(frame, root / "dermamnist.npz")
    assert split["split"].value_counts().to_dict() == SIZES
    assert set(split.loc[split["split"] == "test", "image_id"]) == {f"test_{place:05d}" for place in range(14)}


def test_it_is_unpacked_once_and_anew_when_it_changes(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays())
    first = unpack(tmp_path / "d.npz", tmp_path / "cache")
    (first / "mark").write_text("")
    assert unpack(tmp_path / "d.npz", tmp_path / "cache") == first
    assert (first / "mark").exists()
    np.savez(tmp_path / "d.npz", **arrays(side=32))
    second = unpack(tmp_path / "d.npz", tmp_path / "cache")
    assert read(second / "images" / "train_00000.png").shape == (32, 32, 3)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, train_images=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"d\.npz: no array train_labels, val_images"):
        split_rows(path)
    np.savez(path, **arrays() | {"val_labels": np.zeros(3, np.uint8)})
    with pytest.raises(
        DataError, match=r"val_images \(7, 28, 28, 3\) of uint8 and val_labels \(3,\) of uint8; expected"
    ):
        split_rows(path)
    path.write_bytes(b"PK\3\4 no")
    with pytest.raises(DataError, match=r"d\.npz: cannot be read as an \.npz of MedMNIST"):
        split_rows(path)
