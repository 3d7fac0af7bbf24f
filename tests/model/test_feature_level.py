"""Cutting networks after a module, on networks made for the purpose."""

import pytest
import torch
from torch import Tensor, nn

from skinlesion.errors import ConfigError
from skinlesion.model.feature_level import accepted_image, cut_after, find_layout, levels

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
    cut_after(net, "stem", name="chain", image=IMAGE)
    assert torch.equal(net(IMAGE), expected)
    assert (expected < 0).any()  # a ReLU follows and works in place
    assert set(net.state_dict()) == {"stem.weight", "stem.bias"}


def test_cut_within_a_container():
    net = chain()
    cut_after(net, "blocks.1", name="chain", image=IMAGE)
    assert set(net.state_dict()) == {"stem.weight", "stem.bias", "blocks.0.weight", "blocks.0.bias"}


def test_cut_goes_by_the_order_of_running():
    net = Backwards()
    with pytest.raises(ConfigError, match=r"more than a chain.*try one of: first$"):
        cut_after(net, "middle", name="backwards", image=IMAGE)  # the activation still runs after it
    net.act = nn.Identity()
    expected = net.middle(net.first(IMAGE))
    cut_after(net, "middle", name="backwards", image=IMAGE)
    assert torch.equal(net(IMAGE), expected)
    assert {key.split(".")[0] for key in net.state_dict()} == {"middle", "first"}


def test_branch_is_refused_and_the_network_left_whole():
    net = nn.Sequential(Skip(), nn.Conv2d(3, 2, 1)).train()
    before, expected = list(net.state_dict()), net(IMAGE)
    with pytest.raises(ConfigError, match=r"'net' cannot be cut after '0.first'.*try one of: 0, 1"):
        cut_after(net, "0.first", name="net", image=IMAGE)
    assert list(net.state_dict()) == before
    assert torch.equal(net(IMAGE), expected)
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_module_without_a_map_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 256, 4))
    with pytest.raises(ConfigError, match=r"after '1'.*returns no feature map; try one of: 0$"):
        cut_after(net, "1", name="net", image=IMAGE)


def test_dropout_is_at_rest_during_the_comparison_and_as_before_after_it():
    net = chain().train()
    net.blocks[3].eval()
    cut_after(net, "blocks", name="chain", image=IMAGE)
    assert net.blocks[1].training
    assert not net.blocks[3].training
    assert net.blocks[3].num_batches_tracked == 0


class Turn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize("channels", [1, 5, 16, 32])  # 16 channels are as many as rows of the first image tried
def test_layout(channels):
    net = nn.Conv2d(3, channels, 1)
    assert find_layout(net, name="net", sides=(16, 24)) == (channels, False)
    assert find_layout(nn.Sequential(net, Turn()), name="net", sides=(16, 24)) == (channels, True)


@pytest.mark.parametrize(
    ("net", "what"),
    [
        (nn.Flatten(), r"a tensor \(1, 768\)"),
        (Pair(), "a tuple"),
        (nn.Conv2d(1, 2, 3), "RuntimeError"),
        (nn.Conv2d(3, 16, 1), r"a tensor \(1, 16, 16, 16\)"),  # channels or rows?
    ],
)
def test_what_is_no_map_is_described(net, what):
    with pytest.raises(ConfigError, match=f"'net' gives .*{what}"):
        find_layout(net, name="net", sides=(16,))


def test_first_accepted_size():
    net = nn.Conv2d(3, 2, 40)
    assert accepted_image(net, name="net", sides=(16, 32, 48)).shape == (1, 3, 48, 48)
    with pytest.raises(ConfigError, match=r"'net' gives the error RuntimeError.* 32 pixels"):
        accepted_image(net, name="net", sides=(16, 32))


def test_network_that_timm_does_not_know_has_no_levels():
    assert levels(chain()) == []
