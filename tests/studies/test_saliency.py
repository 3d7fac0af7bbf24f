"""Saliency maps: Grad-CAM of a linear head by hand, CBAM's own map, and the projection onto the image."""

import cv2
import numpy as np
import pytest
import torch

from skinlesion.data.image_io import fit
from skinlesion.model.backbone import Backbone
from skinlesion.model.network import Head, Network
from skinlesion.studies.explain.explanation import agreement, peak
from skinlesion.studies.explain.saliency import class_maps, project, spatial_maps
from skinlesion.training.feature_cache import backbone_maps

MISSING = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0])
GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.randn(3, 3, 64, 96, generator=GENERATOR)
METADATA = torch.randn(3, 5, generator=GENERATOR)


def network(**changes: object) -> Network:
    torch.manual_seed(1)
    settings = {
        "missing": MISSING,
        "fact_of_column": torch.tensor([0, 0, 1, 1, 1]),
        "fact_dropout": 0.1,
        "fusion": "gate",
        "gate_hidden": 8,
        "gate_noise": 0.05,
        "gate_alpha": 1.0,
        "attention": "cbam",
        "reduction": 4,
        "spatial_kernel": 3,
        "funnel": [10],
        "dropout": 0.5,
        "classes": 7,
    }
    backbone = Backbone("test_resnet", kwargs={}, feature_level="layer3", batch_norm_eps=None)
    made = Network(backbone, Head(backbone.channels, **{**settings, **changes}))
    for module in made.modules():  # running statistics that are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    with torch.no_grad():  # far above the 1e-7 that the library adds before it divides
        made.head.funnel.layers[-1].weight.mul_(1000)
    return made.eval()


def normalised(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(np.ptp(values), 1e-9)


@pytest.mark.parametrize("fusion", ["gate", "none"])
def test_grad_cam_of_a_linear_head_by_hand(fusion: str) -> None:
    """d logit / d channel is the linear layer's weight times the batch norm's scale, equal at all positions."""
    model = network(fusion=fusion, attention="none", funnel=[])
    with torch.no_grad():
        x = backbone_maps(model.backbone, IMAGE)
        if fusion == "gate":
            m = torch.tanh(model.head.gate.output(torch.nn.functional.silu(model.head.gate.hidden(METADATA))))
            x = x * (1 + m)[:, :, None, None]
        norm, linear = model.head.funnel.layers
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    classes = [4, 0, 6]
    found = class_maps(model, IMAGE, METADATA, classes=classes)
    assert found.shape == (3, 64, 96)
    for row, place in enumerate(classes):
        speaks = torch.einsum("c,chw->hw", linear.weight[place].detach() * scale, x[row]).clamp(min=0).numpy()
        expected = cv2.resize(normalised(speaks), (96, 64))  # the library's own interpolation: linear
        np.testing.assert_allclose(found[row], expected, atol=2e-4)
    assert found.max() > 0.9


def test_maps_are_independent_and_leave_no_gradients() -> None:
    model = network()
    together = class_maps(model, IMAGE, METADATA, classes=[1, 2, 3])
    alone = class_maps(model, IMAGE[1:2], METADATA[1:2], classes=[2])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.head.fused._forward_hooks


def test_maps_under_inference_mode_and_of_a_frozen_backbone() -> None:
    model = network()
    expected = class_maps(model, IMAGE, METADATA, classes=[1, 2, 3])
    model.backbone.freeze()
    model.eval()
    np.testing.assert_array_equal(class_maps(model, IMAGE, METADATA, classes=[1, 2, 3]), expected)


def test_the_spatial_map_is_what_the_attention_multiplies_by() -> None:
    model = network()
    seen: list[torch.Tensor] = []
    hook = model.head.attention.spatial.register_forward_hook(lambda _, given, out: seen.append(out / given[0]))
    with torch.no_grad():
        model(IMAGE, METADATA)
    hook.remove()
    found = spatial_maps(model, IMAGE, METADATA)
    factors = seen[0].nanmean(dim=1).numpy()  # 0 / 0 where a channel is 0
    np.testing.assert_allclose(found, factors, rtol=1e-3)
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize("attention", ["channel", "none"])
def test_without_spatial_attention_there_is_no_map(attention: str) -> None:
    assert spatial_maps(network(attention=attention), IMAGE, METADATA) is None


@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (40, 40), (30, 90)])
def test_a_map_lies_where_the_image_was(shape: tuple[int, int]) -> None:
    """A bright square returns to its place with any padding."""
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 2 : shape[0] // 2 + 10, 5:15] = 255
    seen = fit(image, (64, 64))[..., 0].astype(np.float32) / 255
    back = project(seen, shape, (64, 64))
    assert back.shape == shape
    assert np.abs(back - image[..., 0] / 255).mean() < 0.02
    x, y = peak(cv2.GaussianBlur(back, (0, 0), 3))
    assert abs(x * shape[1] - 10) < 2
    assert abs(y * shape[0] - (shape[0] // 2 + 5)) < 2


def test_peaks_and_agreement() -> None:
    values = np.zeros((4, 8), np.float32)
    values[3, 2] = 1
    assert peak(values) == (2.5 / 8, 3.5 / 4)
    assert peak(np.ones((3, 3), np.float32)) is None
    assert agreement({"a": values, "b": 2 * values + 1}) == pytest.approx(1)
    assert agreement({"a": values, "b": 1 - values}) == pytest.approx(-1)
    assert agreement({"a": values}) is None
    assert agreement({"a": values, "flat": np.zeros((4, 8), np.float32)}) is None
