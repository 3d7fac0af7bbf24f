"""The LightningModule: rates, parameter groups, and one network behind images and feature maps."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skinlesion.config.train import PhaseConfig, SpeedConfig
from skinlesion.model.backbone import Backbone
from skinlesion.model.network import Head, Network
from skinlesion.training.losses import FocalLoss
from skinlesion.training.module import LesionClassifier, lr_factor

SPEED = SpeedConfig(channels_last=True, fused_optimizer=True, compile="none")


def phase(unfreeze: int | str | None = None) -> PhaseConfig:
    return PhaseConfig(unfreeze, 1, 1, 1e-3, 1e-4, 0, 0.1, ema_decay=0, mixup=0, cached_views=0)


def classifier() -> LesionClassifier:
    torch.manual_seed(0)
    backbone = Backbone("test_resnet", kwargs={}, feature_level=None, batch_norm_eps=None)
    head = Head(
        backbone.channels,
        missing=torch.zeros(5),
        fact_of_column=torch.tensor([0, 0, 1, 1, 2]),
        fact_dropout=0.1,
        fusion="gate",
        gate_hidden=8,
        gate_noise=0.05,
        gate_alpha=1.0,
        attention="cbam",
        reduction=16,
        spatial_kernel=5,
        funnel=[8],
        dropout=0.5,
        classes=7,
    )
    return LesionClassifier(
        Network(backbone, head), FocalLoss(torch.ones(7), gamma=2.0, smoothing=0.1), classes=7, record={}
    )


def test_the_rate_warms_up_then_decays_to_a_tenth() -> None:
    factors = [lr_factor(step, steps=110, warmup=10, final=0.1) for step in range(111)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    assert factors[10] == 1
    np.testing.assert_allclose(factors[60], (1 + 0.1) / 2)  # the cosine's middle
    np.testing.assert_allclose(factors[110], 0.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[10:]))


def test_without_decay_the_rate_stays() -> None:
    assert {lr_factor(step, steps=9, warmup=0, final=1.0) for step in range(9)} == {1.0}


def test_norms_biases_and_alpha_do_not_decay() -> None:
    module = classifier()
    module.begin(phase("layer4"), weight_decay=1e-4, speed=SPEED)
    groups = module._groups(phase("layer4"))
    plain = {id(parameter) for group in groups if group["weight_decay"] == 0 for parameter in group["params"]}
    decayed = {id(parameter) for group in groups if group["weight_decay"] == 1e-4 for parameter in group["params"]}
    named = dict(module.network.named_parameters())
    assert module.network.head.gate is not None
    assert id(named["head.gate.alpha"]) in plain
    for name, parameter in named.items():
        if name.endswith("bias") or ".bn" in name:
            assert id(parameter) not in decayed, name
        elif name.startswith("head.") and parameter.ndim > 1:
            assert id(parameter) in decayed, name
    assert {group["lr"] for group in groups} == {1e-3, 1e-4}


def test_a_frozen_backbone_is_not_among_the_parameters() -> None:
    module = classifier()
    module.begin(phase(None), weight_decay=0.0, speed=SPEED)
    trained = {id(parameter) for group in module._groups(phase(None)) for parameter in group["params"]}
    assert not trained & {id(parameter) for parameter in module.network.backbone.parameters()}
    assert trained == {id(parameter) for parameter in module.network.head.parameters()}


def test_frozen_stages_get_no_gradient_and_keep_their_statistics() -> None:
    module = classifier()
    module.begin(phase("layer4"), weight_decay=0.0, speed=SPEED)
    module.train()
    before = {name: value.clone() for name, value in module.network.backbone.state_dict().items()}
    module(
        {"image": torch.randn(4, 3, 32, 32), "metadata": torch.zeros(4, 5), "target": torch.zeros(4), "image_id": []}
    ).sum().backward()
    for name, parameter in module.network.backbone.named_parameters():
        assert (parameter.grad is not None) == ("layer4" in name), name
    for name, value in module.network.backbone.state_dict().items():
        if "running" in name:
            assert torch.equal(value, before[name]) == ("layer4" not in name), name


@pytest.mark.parametrize("mode", [True, False])
def test_feature_maps_stand_for_images(mode: bool) -> None:
    module = classifier()
    module.begin(phase(None), weight_decay=0.0, speed=SPEED)
    module.train(mode)
    image, metadata = torch.randn(4, 3, 32, 32), torch.randn(4, 5)
    rest = {"metadata": metadata, "target": torch.zeros(4, dtype=torch.int64), "image_id": ["a"] * 4}
    torch.manual_seed(1)
    from_image = module({"image": image, **rest})
    torch.manual_seed(1)
    from_map = module({"feature_map": module.network.backbone(image), **rest})
    torch.testing.assert_close(from_image, from_map)


def test_a_first_loss_is_near_chance() -> None:
    """Seven equal probabilities: -(1 - 1/7)^2 log(1/7)."""
    module = classifier()
    loss = module.criterion(torch.zeros(3, 7), torch.tensor([0, 3, 6]))
    assert float(loss) == pytest.approx((6 / 7) ** 2 * math.log(7), rel=1e-6)


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_maps_and_weights_are_laid_out_alike(channels_last: bool) -> None:
    module = classifier()
    module.begin(phase("layer4"), weight_decay=0.0, speed=replace(SPEED, channels_last=channels_last))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    other = torch.contiguous_format if channels_last else torch.channels_last
    given = torch.randn(2, 3, 8, 8).contiguous(memory_format=other)
    batch = module.on_after_batch_transfer({"image": given, "metadata": torch.zeros(2, 5)}, 0)
    assert batch["image"].is_contiguous(memory_format=layout)
    assert torch.equal(batch["image"], given)
    weights = [parameter for parameter in module.network.parameters() if parameter.ndim == 4]
    assert all(weight.is_contiguous(memory_format=layout) for weight in weights)


def test_layout_changes_results_by_rounding_alone() -> None:
    answers = []
    for channels_last in (True, False):
        module = classifier().eval()
        module.begin(phase(None), weight_decay=0.0, speed=replace(SPEED, channels_last=channels_last))
        image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        batch = module.on_after_batch_transfer({"image": image, "metadata": torch.zeros(2, 5)}, 0)
        answers.append(module(batch))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-5)


def test_the_network_is_compiled_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *, mode: asked.append(f"{type(self).__name__} {mode}"))
    module = classifier()
    module.begin(phase(None), weight_decay=0.0, speed=SPEED)
    assert asked == []
    module.begin(phase(None), weight_decay=0.0, speed=replace(SPEED, compile="reduce-overhead"))
    assert asked == ["Network reduce-overhead", "Head reduce-overhead"]
