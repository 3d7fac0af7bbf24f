"""Networks that give tokens go the whole way: phases from a block on, saliency maps, a bundle in 8-bit integers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import composed

from skinlesion.commands.explain import run as explain
from skinlesion.commands.export import run as export
from skinlesion.commands.train import run as train
from skinlesion.config.deploy import ExportConfig
from skinlesion.config.studies import ExplainConfig
from skinlesion.config.train import TrainConfig
from skinlesion.inference.predictor import Predictor
from skinlesion.training.checkpoint import load_model

SHORT = ("schedule=two_phase", *(f"schedule.phases.{name}.epochs=1" for name in ("head", "high")))


@pytest.mark.parametrize("depth", [2, pytest.param(12, marks=pytest.mark.exhaustive)])  # 12: as published
@pytest.mark.parametrize(("preset", "size", "channels"), [("vit_tiny", (32, 48), 192), ("dinov2_small", (28, 42), 384)])
def test_train_explain_export(
    preset: str,
    size: tuple[int, int],
    channels: int,
    depth: int,
    small_config: Callable[..., TrainConfig],
    tmp_path: Path,
) -> None:
    last = f"blocks.{depth - 1}"
    network = (f"model={preset}", "model.pretrained=false", f"model.image_size=[{size[0]},{size[1]}]")
    short = (f"+model.backbone_kwargs.depth={depth}", f"model.high={last}", "schedule.phases.high.cached_views=1")
    config = small_config(*network, *short, *SHORT, "loader.batch_size=32")
    train(config)
    run = Path(config.out)
    backbone = load_model(run).network.backbone
    assert (backbone.channels, backbone.stages()[-1][0]) == (channels, f"{last}.norm1")

    image = sorted((Path(config.data.root) / "HAM10000_images_part_1").iterdir())[0]
    explain(composed("explain", ExplainConfig, f"checkpoint={run}", f"image={image}", f"out={tmp_path / 'page'}"))
    (numbers,) = (tmp_path / "page").glob("*.json")
    assert json.loads(numbers.read_text())["spatial_attention"]["most"] > 0

    bundle = tmp_path / "bundle"
    export(composed("export", ExportConfig, f"checkpoint={run}", f"out={bundle}", "precision=int8"))
    expected = Predictor.load(run, accelerator="cpu").predict(image, age=50).probabilities
    np.testing.assert_allclose(Predictor.load(bundle).predict(image, age=50).probabilities, expected, atol=0.03)
    whole = sum(value.numel() for value in load_model(run).network.state_dict().values())
    assert (bundle / "model.onnx").stat().st_size < 2.5 * whole  # bytes: float32 weights take four each


def test_a_backbone_by_name_trains_its_own_stages(
    small_config: Callable[..., TrainConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """What `model.backbone=swin_tiny_patch4_window7_224` alone stands for, at a size other than the pretrained one."""
    small = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
    config = small_config("model.pretrained=false", "model.image_size=[64,64]", "schedule=two_phase")
    name = "swin_tiny_patch4_window7_224"
    model = replace(config.model, name=name, backbone=name, backbone_kwargs=small, high=-1, middle=-2)
    phases = {"high": replace(config.schedule.phases["high"], unfreeze=-1, epochs=1, cached_views=1)}
    with caplog.at_level("INFO"):
        train(replace(config, model=model, schedule=replace(config.schedule, phases=phases)))
    assert "phase high: the backbone is trained from layers.3.downsample" in caplog.text
