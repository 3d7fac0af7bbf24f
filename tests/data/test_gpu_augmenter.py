"""Images augmented on the device: what the CPU would give where nothing is changed, the same whatever the batch."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from skinlesion.commands.train import run
from skinlesion.config.data import AugmentConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data.batch_augment import BatchAugment
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.data.gpu_augmenter import GpuAugmenter, RawDataset, upload
from skinlesion.data.image_io import ImageInput
from skinlesion.training.module import LesionClassifier

SPEC = ImageInput((32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CPU = torch.device("cpu")
ON_DEVICE = "data.augment_on=device"
Config = Callable[..., TrainConfig]


def epoch(config: TrainConfig, *, first_epoch: int = 0) -> dict[str, torch.Tensor]:
    """The training images of an epoch, by image id."""
    datamodule = LesionDataModule.from_config(config, SPEC).continued(first_epoch)
    images = {}
    for raw in datamodule.train_dataloader():
        batch = datamodule.on_after_batch_transfer(raw, 0)
        images |= dict(zip(batch["image_id"], batch["image"], strict=True))
    return images


def test_unchanged_images_are_those_of_the_cpu(small_config: Config) -> None:
    datamodule = LesionDataModule.from_config(small_config(ON_DEVICE), SPEC)
    plain = LesionDataModule.from_config(small_config(), SPEC)
    for raw, batch in zip(datamodule.val_dataloader(), plain.val_dataloader(), strict=True):
        made = datamodule.on_after_batch_transfer(raw, 0)
        assert made.keys() == batch.keys()
        assert made["image_id"] == batch["image_id"]
        for key in ("image", "metadata", "target"):
            torch.testing.assert_close(made[key], batch[key])


def test_an_image_is_the_same_in_any_batch_and_process(small_config: Config) -> None:
    one = epoch(small_config(ON_DEVICE))
    other = epoch(small_config(ON_DEVICE, "loader.batch_size=7", "loader.workers=2"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[image_id], other[image_id]) for image_id in one)


def test_epochs_and_seeds_change_images_differently(small_config: Config) -> None:
    first = epoch(small_config(ON_DEVICE))
    for other in (epoch(small_config(ON_DEVICE), first_epoch=1), epoch(small_config(ON_DEVICE, "seed=2"))):
        assert not any(torch.equal(first[image_id], other[image_id]) for image_id in first)


def test_images_that_do_not_fit_come_along_and_look_the_same(
    small_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    datamodule = LesionDataModule.from_config(small_config(), SPEC)
    size = datamodule.cache.images.nbytes
    with caplog.at_level(logging.INFO):
        assert upload(datamodule.cache, CPU, free=lambda _: 2 * size - 2) is None
    assert "data.augment_on=device" in caplog.text
    images = upload(datamodule.cache, CPU, free=lambda _: 2 * size)
    assert images is not None
    np.testing.assert_array_equal(images.numpy(), datamodule.cache.images.take(range(len(images))))
    augment = BatchAugment(AugmentConfig(0.5, 45, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5, 0.5))
    draws = [(index, 3) for index in range(9)]
    made = []
    for held in (images, None):
        dataset = RawDataset(datamodule.dataset("train", None), seed=1, with_pixels=held is None)
        made.append(GpuAugmenter(augment, SPEC, held)(dataset.__getitems__(draws)))
    assert torch.equal(made[0]["image"], made[1]["image"])
    assert upload(datamodule.cache, CPU) is None  # the file is there to be read


@pytest.mark.slow
@pytest.mark.parametrize("batches", [ON_DEVICE, "loader.workers=2"])
def test_a_run_that_is_broken_off_ends_as_one_that_is_not(
    batches: str, small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("~schedule.phases.middle", "schedule.phases.high.epochs=3", "schedule.phases.head.epochs=1")
    config = small_config(batches, "model.high=layer4", *short)
    whole, broken = (replace(config, out=str(tmp_path / name)) for name in ("whole", "broken"))
    run(whole)
    step = LesionClassifier.training_step

    def breaks(module: LesionClassifier, batch: object, number: int) -> torch.Tensor:
        if module.hparams["unfreeze"] == "layer4" and module.current_epoch == 2 and number == 1:
            raise RuntimeError("power cut")
        return step(module, batch, number)

    monkeypatch.setattr(LesionClassifier, "training_step", breaks)
    with pytest.raises(RuntimeError, match="power cut"):
        run(broken)
    monkeypatch.setattr(LesionClassifier, "training_step", step)
    run(broken)
    for name in ("metrics.csv", "predictions_val.csv", "predictions_test.csv"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
