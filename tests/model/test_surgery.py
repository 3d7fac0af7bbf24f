"""Cutting a network after a module and splitting it before one, against the whole network."""

import pytest
import torch
from torch import Tensor, nn

from skinlesion.errors import ConfigError
from skinlesion.model.backbone import Backbone
from skinlesion.model.surgery import cut_after, feature_levels

SAM = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 64, "global_attn_indexes": (1,)}
IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def chain() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(3, 4, 3, padding=1))
    net.add_module("act", nn.ReLU(inplace=True))
    net.add_module("blocks", nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(0.5), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)))
    return net


class Skip(nn.Module):
    """A block whose input bypasses its second half."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.second(x)


class Backwards(nn.Module):
    """Runs its modules in another order than it lists them, and the last of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.first = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.last(self.middle(self.act(self.first(x)))))


def test_map_is_that_of_the_module_even_if_changed_in_place_later():
    net = chain()
    expected = net.stem(IMAGE)
    net = cut_after(net, "stem", name="chain", image=IMAGE)
    assert torch.equal(net(IMAGE), expected)
    assert (expected < 0).any()  # a ReLU follows and works in place
    assert set(net.state_dict()) == {"stem.weight", "stem.bias"}


def test_cut_within_a_container():
    net = chain()
    net = cut_after(net, "blocks.1", name="chain", image=IMAGE)
    assert set(net.state_dict()) == {"stem.weight", "stem.bias", "blocks.0.weight", "blocks.0.bias"}


def test_cut_goes_by_the_order_of_running():
    net = Backwards()
    with pytest.raises(ConfigError, match=r"more than a chain.*try one of: first$"):
        net = cut_after(net, "middle", name="backwards", image=IMAGE)  # the activation still runs after it
    net.act = nn.Identity()
    expected = net.middle(net.first(IMAGE))
    net = cut_after(net, "middle", name="backwards", image=IMAGE)
    assert torch.equal(net(IMAGE), expected)
    assert {key.split(".")[0] for key in net.state_dict()} == {"middle", "first"}


def test_branch_is_refused_and_the_network_left_whole():
    net = nn.Sequential(Skip(), nn.Conv2d(3, 2, 1)).train()
    before, expected = list(net.state_dict()), net(IMAGE)
    with pytest.raises(ConfigError, match=r"'net' cannot be cut after '0.first'.*try one of: 0, 1"):
        net = cut_after(net, "0.first", name="net", image=IMAGE)
    assert list(net.state_dict()) == before
    assert torch.equal(net(IMAGE), expected)
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_module_without_a_map_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 256, 4))
    with pytest.raises(ConfigError, match=r"after '1'.*returns no feature map; try one of: 0$"):
        net = cut_after(net, "1", name="net", image=IMAGE)


def test_dropout_is_at_rest_during_the_comparison_and_as_before_after_it():
    net = chain().train()
    net.blocks[3].eval()
    net = cut_after(net, "blocks", name="chain", image=IMAGE)
    assert net.blocks[1].training
    assert not net.blocks[3].training
    assert net.blocks[3].num_batches_tracked == 0


def test_network_that_timm_does_not_know_has_no_levels():
    assert feature_levels(chain()) == []
    with pytest.raises(ConfigError, match="'chain' has no feature level 0"):
        cut_after(chain(), 0, name="chain", image=IMAGE)


# Splitting


def backbone(name: str = "test_resnet", level: str | int | None = None) -> Backbone:
    torch.manual_seed(0)
    made = Backbone(name, feature_level=level)
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
        torch.testing.assert_close(made.forward_suffix(made.frozen_prefix()(images())), made(images()))
    assert made.state_dict().keys() == before.keys()  # the halves are no further parameters
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_a_frozen_backbone_is_all_prefix() -> None:
    made = backbone()
    made.freeze()
    assert made.frozen_prefix() is made
    given = torch.randn(2, made.channels, 3, 4)
    assert made.forward_suffix(given) is given


def test_training_the_upper_half_is_training_the_network() -> None:
    whole, halved = backbone(), backbone()
    gradients = []
    for made in (whole, halved):
        made.unfreeze("layer3")
        made.train()
        if made is halved:
            with torch.no_grad():
                prefix_map = made.frozen_prefix()(images())
            feature_map = made.forward_suffix(prefix_map)
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
            below = made.frozen_prefix()(images())
            torch.testing.assert_close(made.forward_suffix(below), made(images()))
        shapes.append(tuple(below.shape))
    assert shapes[0] != shapes[1]


def test_loaded_weights_reach_the_halves() -> None:
    made, other = backbone().eval(), Backbone("test_resnet")
    made.unfreeze("layer3")
    made.frozen_prefix()
    made.load_state_dict(other.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(made.forward_suffix(made.frozen_prefix()(images())), other.eval()(images()))


def test_no_cut_within_a_residual_block() -> None:
    made = backbone()
    made.unfreeze("layer3.0.conv2")
    assert not made.has_frozen_prefix
    with pytest.raises(ConfigError, match=r"no single feature map.*cached_views=0"):
        made.frozen_prefix()


@pytest.mark.parametrize("name", ["hrnet_w18_small", "samvit_base_patch16"])
def test_networks_that_go_in_branches_run_whole(name: str) -> None:
    """Some of their stages take several maps, or a map that a frozen layer before it has changed."""
    made = Backbone(name, kwargs=SAM if name.startswith("samvit") else {}).eval()
    image = images(1, 64, 64)
    for start in range(1, len(made.stages()) + 1):
        made.unfreeze(start)
        if made.has_frozen_prefix:
            with torch.no_grad():
                torch.testing.assert_close(made.forward_suffix(made.frozen_prefix()(image)), made(image))
    assert not made.has_frozen_prefix
