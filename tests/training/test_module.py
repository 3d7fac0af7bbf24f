"""LesionClassifier: it learns, rebuilds itself from a checkpoint, and treats images and feature maps alike."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import CODES
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from skinlesion.config.train import ModelConfig, PhaseConfig, TrainConfig
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.errors import ConfigError, DataError
from skinlesion.training.build import architecture, build_backbone, image_input
from skinlesion.training.checkpoint import load_model
from skinlesion.training.feature_cache import logits
from skinlesion.training.module import LesionClassifier

ENCODER = MetadataEncoder.from_state(
    {
        "age_mean": 50.0,
        "age_std": 15.0,
        "sexes": ["female", "male", "unknown"],
        "localizations": ["back", "face", "unknown"],
    }
).state()
TINY: dict[str, Any] = {"pretrained": False, "funnel": [16], "gate_hidden": 8, "image_size": [32, 32]}


def module_data(synthetic_root: Path, tmp_path: Path) -> LesionDataModule:
    """The synthetic data, small, images as they are."""
    still = dict.fromkeys(("flip", "rotation", "shift", "zoom", "brightness", "contrast"), 0.0)
    return LesionDataModule(
        synthetic_root, image_size=(32, 32), batch_size=32, cache_dir=tmp_path / "cache", augment=still
    )


datamodule = pytest.fixture(module_data)


def classifier(datamodule: LesionDataModule | None = None, **options: Any) -> LesionClassifier:
    torch.manual_seed(0)
    if datamodule is not None:
        return LesionClassifier.for_data(datamodule, "test_resnet", **{**TINY, **options})
    return LesionClassifier("test_resnet", encoder=ENCODER, **{**TINY, **options})


def fit_trainer(epochs: int, *callbacks: Callback, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    settings = {**quiet, "accelerator": "cpu", "enable_checkpointing": checkpoints, **options}
    return Trainer(max_epochs=epochs, callbacks=list(callbacks), **settings)


def metadata(rows: int) -> torch.Tensor:
    return torch.randn(rows, MetadataEncoder.from_state(ENCODER).width, generator=torch.Generator().manual_seed(2))


def test_one_batch_can_be_overfitted(datamodule: LesionDataModule) -> None:
    """The whole network at once; without dropout and noise its loss falls to a hundredth."""
    batch = next(iter(datamodule.train_dataloader()))
    still = {"dropout": 0.0, "fact_dropout": 0.0, "gate_noise": 0.0}
    module = classifier(datamodule, unfreeze="conv1", smoothing=0.0, **still).train()
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = module.criterion(module(batch["image"], batch["metadata"]), batch["target"])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]
    assert torch.equal(module(batch["image"], batch["metadata"]).argmax(dim=1), batch["target"])


@pytest.mark.slow
def test_a_notebook_training_beats_the_majority_and_comes_back(datamodule: LesionDataModule, tmp_path: Path) -> None:
    """Plain Lightning from end to end, and a fresh process that knows nothing but the checkpoint's path."""
    seed_everything(1, verbose=False)
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val/macro_f1", mode="max")
    module = classifier(datamodule, unfreeze="conv1", lr=3e-3, backbone_lr=3e-3, dropout=0.1)
    fit_trainer(25, best).fit(module, datamodule=datamodule)
    module = LesionClassifier.load_from_checkpoint(best.best_model_path)
    trainer = fit_trainer(1)
    (measured,) = trainer.test(module, datamodule=datamodule, verbose=False)
    assert set(measured) == {"test/loss", "test/accuracy", "test/macro_f1"}
    probabilities = torch.cat(trainer.predict(module, datamodule=datamodule)).numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    actual = datamodule.part_frame("test")["diagnosis"].to_numpy()
    correct = np.array(CODES)[probabilities.argmax(axis=1)] == actual
    assert measured["test/accuracy"] == pytest.approx(correct.mean())
    (validated,) = trainer.validate(module, datamodule=datamodule, verbose=False)
    assert validated["val/macro_f1"] == pytest.approx(float(best.best_model_score or 0))
    majority = (datamodule.part_frame("val")["diagnosis"] == "nv").mean()
    of_majority = 2 * majority / (1 + majority) / len(CODES)  # macro-F1 of the answer "nevus" to all
    assert validated["val/macro_f1"] > 2 * of_majority  # accuracy hardly tells: the best epoch is that of macro-F1
    elsewhere = _predict_elsewhere(best.best_model_path, tmp_path)
    image, facts = torch.zeros(1, 3, 32, 32), torch.zeros(1, datamodule.encoder.width)
    with torch.inference_mode():
        here = module.eval()(image, facts)[0].tolist()
    assert elsewhere == pytest.approx(here, rel=1e-4, abs=1e-5)
    model = load_model(Path(best.best_model_path))
    assert model.encoder == datamodule.encoder
    assert model.split["test"] == datamodule.part_frame("test")["image_id"].tolist()


def _predict_elsewhere(path: str, folder: Path) -> list[float]:
    program = (
        "import json, sys, torch; from skinlesion.training.module import LesionClassifier\n"
        "module = LesionClassifier.load_from_checkpoint(sys.argv[1], weights_only=True).eval()\n"
        "width = len(module.network.head.fact_dropout.missing)\n"
        "with torch.inference_mode(): logits = module(torch.zeros(1, 3, 32, 32), torch.zeros(1, width))\n"
        "print(json.dumps(logits[0].tolist()))"
    )
    command = [sys.executable, "-c", program, path]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout
    found: list[float] = json.loads(answer.splitlines()[-1])
    return found


def test_data_that_do_not_fit_are_refused(datamodule: LesionDataModule) -> None:
    with pytest.raises(ConfigError, match="for_data"):
        fit_trainer(1).fit(classifier(image_size=[48, 48]), datamodule=datamodule)
    with pytest.raises(ConfigError, match="for_data"):
        fit_trainer(1).fit(classifier(), datamodule=datamodule)  # another encoder


def test_training_goes_on_from_an_earlier_run(
    datamodule: LesionDataModule, synthetic_root: Path, tmp_path: Path
) -> None:
    """Backbone and head are taken; a new head where the facts are others; no lesion may come to be held out."""
    before = classifier(datamodule, unfreeze="conv1")
    trainer = fit_trainer(1, limit_train_batches=2, limit_val_batches=0)
    trainer.fit(before, datamodule=datamodule)
    trainer.save_checkpoint(path := tmp_path / "run.ckpt", weights_only=True)
    after = classifier(datamodule, pretrained=str(path))
    for (name, old), new in zip(before.network.state_dict().items(), after.network.state_dict().values(), strict=True):
        assert torch.equal(old, new), name
    other = classifier(pretrained=str(path)).network.head.state_dict()  # of another encoder
    assert not torch.equal(before.network.head.state_dict()["funnel.layers.1.weight"], other["funnel.layers.1.weight"])
    moved = LesionDataModule(synthetic_root, image_size=(32, 32), split_seed=667)
    held_out = {*moved.part_frame("val")["lesion_id"]} & {*datamodule.part_frame("train")["lesion_id"]}
    with pytest.raises(DataError, match=rf"model\.pretrained=.*run\.ckpt: {len(held_out)} lesions of the val part"):
        classifier(moved, pretrained=str(path))


def test_an_endless_training_is_refused(datamodule: LesionDataModule) -> None:
    with pytest.raises(ConfigError, match="max_epochs"):
        fit_trainer(-1).fit(classifier(datamodule), datamodule=datamodule)


@pytest.mark.parametrize(
    "preset",
    ["tiny_resnet", "efficientnet_b1", "efficientnet_b4", "efficientnetv2_s", "convnextv2_nano", "legacy_xception"],
)
def test_the_image_input_is_the_backbones_own(preset: str, small_config: Callable[..., TrainConfig]) -> None:
    config: ModelConfig = small_config(f"model={preset}", "model.image_size=null", "model.mean=null").model
    options = architecture(config)
    backbone = build_backbone(options)
    expected = (backbone.input_size, backbone.input_size), backbone.mean, tuple(config.std or backbone.std)
    found = image_input(options)
    assert (found.size, found.mean, found.std) == expected


def test_a_frozen_backbone_gets_no_gradient() -> None:
    module = classifier()
    module.train()
    module(torch.randn(4, 3, 32, 32), metadata(4)).sum().backward()
    assert all(parameter.grad is None for parameter in module.network.backbone.parameters())
    assert all(parameter.grad is not None for parameter in module.network.head.parameters())


def test_frozen_stages_get_no_gradient_and_keep_their_statistics() -> None:
    module = classifier()
    module.start_phase(PhaseConfig("layer4", 1, 1, 1e-3, 1e-4, 1, 0, 0.1, ema_decay=0, mixup=0, cached_views=0))
    module.train()
    before = {name: value.clone() for name, value in module.network.backbone.state_dict().items()}
    module(torch.randn(4, 3, 32, 32), metadata(4)).sum().backward()
    for name, parameter in module.network.backbone.named_parameters():
        assert (parameter.grad is not None) == ("layer4" in name), name
    for name, value in module.network.backbone.state_dict().items():
        if "running" in name:
            assert torch.equal(value, before[name]) == ("layer4" not in name), name
    assert module.hparams["unfreeze"] == "layer4"


@pytest.mark.parametrize("training", [True, False])
def test_feature_maps_stand_for_images(training: bool) -> None:
    module = classifier().train(training)
    image, rest = torch.randn(4, 3, 32, 32), {"metadata": metadata(4), "target": torch.zeros(4, dtype=torch.int64)}
    losses = []
    for batch in ({"image": image}, {"feature_map": module.network.backbone(image)}):
        torch.manual_seed(1)  # dropout
        logged: dict[str, Any] = {}
        module.log = lambda name, value, logged=logged, **_: logged.update({name: value})  # type: ignore[method-assign]
        losses.append(module.training_step({**batch, **rest, "image_id": ["a"] * 4}, 0))  # type: ignore[typeddict-item]
        assert logged["train/loss"] == losses[-1]
    torch.testing.assert_close(losses[0], losses[1])


def test_a_first_loss_is_near_chance() -> None:
    """Seven equal probabilities: -(1 - 1/7)^2 log(1/7)."""
    loss = classifier().criterion(torch.zeros(3, 7), torch.tensor([0, 3, 6]))
    assert float(loss) == pytest.approx((6 / 7) ** 2 * math.log(7), rel=1e-6)


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_and_weights_are_laid_out_alike(channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = classifier(channels_last=channels_last, unfreeze="conv1")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    given: list[torch.Tensor] = []
    module.network.backbone.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    for other in (torch.contiguous_format, torch.channels_last):
        module(torch.randn(2, 3, 32, 32).contiguous(memory_format=other), metadata(2))
    assert all(image.is_contiguous(memory_format=layout) for image in given)
    assert len(given) == 2
    weights = [parameter for parameter in module.network.parameters() if parameter.ndim == 4]
    assert all(weight.is_contiguous(memory_format=layout) for weight in weights)


def test_layout_changes_results_by_rounding_alone() -> None:
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    answers = [classifier(channels_last=layout).eval()(image, metadata(2)) for layout in (True, False)]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("unfreeze", "cached"), [("conv1", False), ("layer3", True), (None, True)])
def test_all_that_learns_is_compiled_where_asked(
    monkeypatch: pytest.MonkeyPatch, unfreeze: str | None, cached: bool
) -> None:
    """A training step meets no layer with weights to learn outside what torch.compile was asked for."""
    open_now: list[str] = []

    def compile_as_asked(module: torch.nn.Module, *, mode: str) -> None:
        def compiled(*args: torch.Tensor) -> torch.Tensor:
            open_now.append(mode)
            try:
                return cast(torch.Tensor, module.forward(*args))
            finally:
                open_now.pop()

        module._compiled_call_impl = compiled

    monkeypatch.setattr(torch.nn.Module, "compile", compile_as_asked)
    for mode, expected in (("none", {()}), ("reduce-overhead", {("reduce-overhead",)})):
        module = classifier(compile=mode, unfreeze=unfreeze).train()
        met: set[tuple[str, ...]] = set()
        for layer in module.network.modules():
            if any(weight.requires_grad for weight in layer.parameters(recurse=False)):
                layer.register_forward_pre_hook(lambda *_, met=met: met.add(tuple(open_now)))
        batch = {"metadata": metadata(2), "image": torch.randn(2, 3, 32, 32)}
        if cached:
            with torch.no_grad():
                batch["feature_map"] = module.network.backbone.frozen_prefix()(batch.pop("image"))
        logits(module.network, batch)
        assert met == expected
