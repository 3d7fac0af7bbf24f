"""The trunk: two halves that together are the network, and share its layers."""

import pytest
import torch
from torch import Tensor, nn

from skinlesion.errors import ConfigError
from skinlesion.model.backbone import Backbone


def backbone(name: str = "test_resnet", level: str | int | None = None) -> Backbone:
    torch.manual_seed(0)
    made = Backbone(name, kwargs={}, feature_level=level, batch_norm_eps=None)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as training leaves them, not 0 and 1
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return made


def images(count: int = 4, height: int = 48, width: int = 64) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "start", "level"),
    [
        ("test_resnet", 1, None),
        ("test_resnet", "layer3", None),
        ("test_resnet", "layer2", "layer3"),
        ("test_resnet", "stem", None),
        ("test_efficientnet", 2, None),
        ("test_efficientnet", "blocks.3", "blocks.4"),
        ("test_efficientnet", "conv_head", None),
        ("mobilenetv1_100", "blocks.4", None),
        ("mobilenetv2_100", "blocks.5", None),
    ],
)
def test_the_halves_are_the_network(name: str, start: str | int, level: str | None) -> None:
    made = backbone(name, level)
    made.unfreeze(1 if start == "stem" else start)
    if start == "stem":
        made.unfreeze(len(made.stages()))
    before = {key: value.clone() for key, value in made.state_dict().items()}
    made.eval()
    with torch.no_grad():
        torch.testing.assert_close(made.upper(made.lower()(images())), made(images()))
    assert made.state_dict().keys() == before.keys()  # the halves are no further parameters
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_a_frozen_backbone_is_all_trunk() -> None:
    made = backbone()
    made.freeze()
    assert made.lower() is made
    given = torch.randn(2, made.channels, 3, 4)
    assert made.upper(given) is given


def test_training_the_upper_half_is_training_the_network() -> None:
    whole, halved = backbone(), backbone()
    gradients = []
    for made in (whole, halved):
        made.unfreeze("layer3")
        made.train()
        if made is halved:
            with torch.no_grad():
                trunk_map = made.lower()(images())
            feature_map = made.upper(trunk_map)
        else:
            feature_map = made(images())
        feature_map.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in made.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        if gradient is None:
            assert gradients[1][name] is None, name
        else:
            torch.testing.assert_close(gradients[1][name], gradient)
    for name, buffer in whole.state_dict().items():  # also running statistics: of the trained part alone
        torch.testing.assert_close(halved.state_dict()[name], buffer)


def test_the_halves_follow_another_unfreezing() -> None:
    made = backbone().eval()
    shapes = []
    for start in ("layer4", "layer2"):
        made.unfreeze(start)
        with torch.no_grad():
            below = made.lower()(images())
            torch.testing.assert_close(made.upper(below), made(images()))
        shapes.append(tuple(below.shape))
    assert shapes[0] != shapes[1]


def test_loaded_weights_reach_the_halves() -> None:
    made, other = backbone().eval(), Backbone("test_resnet", kwargs={}, feature_level=None, batch_norm_eps=None)
    made.unfreeze("layer3")
    made.lower()
    made.load_state_dict(other.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(made.upper(made.lower()(images())), other.eval()(images()))


def test_no_cut_within_a_residual_block() -> None:
    made = backbone()
    made.unfreeze("layer3.0.conv2")
    with pytest.raises(ConfigError, match=r"no single map.*cached_views=0"):
        made.lower()
