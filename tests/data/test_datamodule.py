"""Batches, their order, and what never gets into them."""

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CODES, composed

from skinlesion.config.train import TrainConfig
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.data.dataset import InOrder, Shuffled
from skinlesion.data.image_io import ImageInput
from skinlesion.errors import ConfigError, DataError

SPEC = ImageInput((32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
Config = Callable[..., TrainConfig]


def made(config: TrainConfig) -> LesionDataModule:
    return LesionDataModule.from_config(config, SPEC)


def test_defaults_are_those_of_the_configuration(synthetic_root: Path) -> None:
    config = composed("train", TrainConfig, f"data.root={synthetic_root}")
    spec = ImageInput((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    configured, plain = LesionDataModule.from_config(config, spec), LesionDataModule(synthetic_root)
    skipped = {"frame", "split", "encoder"}
    settings = [{key: value for key, value in vars(each).items() if key not in skipped} for each in (configured, plain)]
    assert settings[0] == settings[1]


def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    datamodule = LesionDataModule(tmp_path / "nowhere")
    with pytest.raises(DataError, match="nowhere"):
        datamodule.setup("fit")
    with pytest.raises(ConfigError, match=r"split\.policy"):
        LesionDataModule(tmp_path, policy="random")


def test_test_and_predict_give_the_test_part(small_config: Config) -> None:
    datamodule = made(small_config())
    expected = datamodule.part_frame("test")["image_id"].tolist()
    for loader in (datamodule.test_dataloader(), datamodule.predict_dataloader()):
        assert [image_id for batch in loader for image_id in batch["image_id"]] == expected


def test_a_batch_is_what_the_seam_says(small_config: Config) -> None:
    datamodule = made(small_config())
    batch = next(iter(datamodule.train_dataloader()))
    size = len(batch["image_id"])
    assert batch["image"].shape == (size, 3, 32, 32)
    assert batch["image"].dtype == torch.float32
    assert batch["metadata"].shape == (size, datamodule.encoder.width)
    assert batch["target"].dtype == torch.int64
    frame = datamodule.frame.set_index("image_id")
    for image_id, target in zip(batch["image_id"], batch["target"].tolist(), strict=True):
        assert frame.loc[image_id, "diagnosis"] == CODES[target]


def test_an_epoch_shows_every_training_image_once(small_config: Config) -> None:
    datamodule = made(small_config())
    shown = [image_id for batch in datamodule.train_dataloader() for image_id in batch["image_id"]]
    assert sorted(shown) == sorted(datamodule.part_frame("train")["image_id"])
    shown = [image_id for batch in datamodule.val_dataloader() for image_id in batch["image_id"]]
    assert shown == datamodule.part_frame("val")["image_id"].tolist()


def test_workers_change_nothing(small_config: Config) -> None:
    alone, helped = (made(small_config(f"loader.workers={n}")) for n in (0, 2))
    for one, other in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True):
        assert one["image_id"] == other["image_id"]
        torch.testing.assert_close(one["image"], other["image"], rtol=0, atol=0)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_may_be_started_in_any_way(method: str, small_config: Config) -> None:
    """As on macOS and Windows, and in Python 3.14: what a worker gets is pickled."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        helped = next(iter(made(small_config("loader.workers=1", "loader.batch_size=64")).train_dataloader()))
    finally:
        multiprocessing.set_start_method(before, force=True)
    alone = next(iter(made(small_config("loader.batch_size=64")).train_dataloader()))
    assert helped["image_id"] == alone["image_id"]
    assert torch.equal(helped["image"], alone["image"])


@pytest.mark.parametrize("change", ["data.augment_on=cpu", "data.augment_on=device"])
def test_datasets_can_be_sent_to_a_process_without_their_pixels(change: str, small_config: Config) -> None:
    dataset = made(small_config(change)).train_dataloader().dataset
    before = dataset[(0, 5)]
    sent = pickle.dumps(dataset)
    assert len(sent) < 240 * 300  # an image has 32 * 32 * 3 bytes
    after = pickle.loads(sent)[(0, 5)]
    assert all(torch.equal(before[key], after[key]) for key in before if key != "image_id")


def test_no_draw_is_made_twice(small_config: Config) -> None:
    datamodule = made(small_config())
    first = next(iter(datamodule.train_dataloader()))
    later = next(iter(datamodule.continued(first_epoch=1).train_dataloader()))
    assert first["image_id"] != later["image_id"]
    shared = set(first["image_id"]) & set(later["image_id"])
    for image_id in shared:
        one, other = (batch["image"][batch["image_id"].index(image_id)] for batch in (first, later))
        assert not torch.equal(one, other)


def test_shuffled_depends_on_seed_and_draw_alone() -> None:
    sampler = Shuffled(50, seed=3, first_draw=2)
    sampler.set_epoch(1)
    later = Shuffled(50, seed=3, first_draw=3)
    assert list(sampler) == list(later)
    assert sorted(index for index, _ in later) == list(range(50))
    assert list(Shuffled(50, seed=4, first_draw=3)) != list(later)
    assert list(InOrder(3)) == [(0, 0), (1, 0), (2, 0)]


def test_nothing_but_image_and_three_facts_reaches_the_model(small_config: Config, synthetic_root: Path) -> None:
    """Scrambling dx_type, dataset and ids of the table changes no metadata and no target."""
    datamodule = made(small_config())
    frame = datamodule.part_frame("train")
    rng = np.random.default_rng(0)
    scrambled = frame.assign(
        **{name: rng.permutation(frame[name].to_numpy()) for name in ("dx_type", "dataset", "lesion_id", "image_id")}
    )
    np.testing.assert_array_equal(datamodule.encoder.encode(scrambled), datamodule.encoder.encode(frame))
    refitted = type(datamodule.encoder).fit(scrambled)
    assert refitted == datamodule.encoder
    named = " ".join(datamodule.encoder.columns)
    for value in {*frame["dx_type"], *frame["dataset"]} - {""}:
        assert value not in named


def test_the_encoder_is_fitted_on_train_alone(small_config: Config) -> None:
    datamodule = made(small_config())
    ages = datamodule.part_frame("train")["age"].dropna()
    assert datamodule.encoder.facts[0].mean == np.float64(ages.mean())
    assert datamodule.encoder.facts[0].mean != datamodule.frame["age"].mean()


def test_class_counts_are_those_of_train(small_config: Config) -> None:
    datamodule = made(small_config())
    counted = datamodule.part_frame("train")["diagnosis"].value_counts()
    assert datamodule.class_counts() == [int(counted[code]) for code in CODES]


def test_a_split_can_be_given_back(small_config: Config, tmp_path: Path) -> None:
    from skinlesion.data.splits import fingerprint, write_split

    first = made(small_config())
    write_split(first.split, tmp_path / "split.csv")
    again = made(small_config("split.policy=file", f"split.file={tmp_path / 'split.csv'}"))
    assert fingerprint(again.split) == fingerprint(first.split)
    pd.testing.assert_frame_equal(again.split, first.split)


def test_folds_can_be_given_as_a_file(small_config: Config, tmp_path: Path) -> None:
    frame = made(small_config()).frame
    lesions = sorted(frame["lesion_id"].unique())
    fold_of = {lesion: number % 2 for number, lesion in enumerate(lesions)}
    frame[["image_id"]].assign(fold=frame["lesion_id"].map(fold_of)).to_csv(tmp_path / "folds.csv", index=False)
    config = small_config("split.policy=file", f"split.file={tmp_path / 'folds.csv'}", "split.fold=1")
    test = made(config).part_frame("test")
    assert set(test["lesion_id"]) == {lesion for lesion, fold in fold_of.items() if fold == 1}


def test_folds_cover_all_images(small_config: Config) -> None:
    held_out: list[str] = []
    for fold in range(3):
        config = small_config("split.policy=grouped", "split.folds=3", f"split.fold={fold}")
        held_out += made(config).part_frame("test")["image_id"].tolist()
    assert len(held_out) == len(set(held_out)) == 240
