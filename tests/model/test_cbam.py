"""CBAM against timm's implementation and its invariants."""

import pytest
import torch
from timm.layers.cbam import ChannelAttn, SpatialAttn
from torch import nn

from skinlesion.errors import ConfigError
from skinlesion.model.cbam import CBAM, ChannelAttention, SpatialAttention

X = torch.randn(2, 32, 7, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_channel_attention_equals_timms():
    ours = ChannelAttention(32, reduction=16)
    theirs = ChannelAttn(32, rd_channels=2, act_layer=nn.SiLU, mlp_bias=True)
    for convolution, linear in ((theirs.fc1, ours.mlp[0]), (theirs.fc2, ours.mlp[2])):
        convolution.weight.data = linear.weight.data[:, :, None, None]
        convolution.bias.data = linear.bias.data
    torch.testing.assert_close(ours(X), theirs(X))


def test_spatial_attention_equals_timms():
    ours = SpatialAttention(kernel=5)
    theirs = SpatialAttn(kernel_size=5).eval()  # its batch norm is the identity while it is new
    theirs.conv.conv.weight.data = ours.convolution.weight.data
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-4, atol=1e-5)


def test_spatial_map_by_hand():
    attention = SpatialAttention(kernel=1)
    attention.convolution.weight.data = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    x = torch.tensor([1.0, 5.0]).view(1, 2, 1, 1)  # mean 3, maximum 5
    assert attention.map(x).item() == pytest.approx(torch.tensor(2 * 3.0 - 5.0).sigmoid().item())


def test_channel_weights_by_hand():
    attention = ChannelAttention(1, reduction=16)
    attention.mlp = nn.Linear(1, 1)
    attention.mlp.weight.data.fill_(0.5)
    attention.mlp.bias.data.fill_(-1.0)
    x = torch.tensor([1.0, 2.0, 6.0, 3.0]).view(1, 1, 2, 2)  # mean 3, maximum 6
    assert attention.weights(x).item() == pytest.approx(torch.tensor(0.5 * 9.0 - 2.0).sigmoid().item())


def test_shapes_and_ranges():
    weights, positions = ChannelAttention(32, reduction=16).weights(X), SpatialAttention(kernel=5).map(X)
    assert weights.shape == (2, 32)
    assert positions.shape == (2, 1, 7, 9)
    for attention in (weights, positions):
        assert attention.min() > 0
        assert attention.max() < 1


def test_channel_weights_do_not_depend_on_where_things_are():
    attention = ChannelAttention(32, reduction=16)
    order = torch.randperm(63)
    moved = X.flatten(2)[:, :, order].view_as(X)
    torch.testing.assert_close(attention.weights(moved), attention.weights(X))


def test_spatial_map_does_not_depend_on_the_order_of_channels():
    attention = SpatialAttention(kernel=3)
    torch.testing.assert_close(attention.map(X[:, torch.randperm(32)]), attention.map(X))


def test_channels_come_before_positions():
    cbam = CBAM(32, reduction=16, kernel=5)
    attended = X * cbam.channel.weights(X)[:, :, None, None]
    torch.testing.assert_close(cbam(X), attended * cbam.spatial.map(attended))


def test_without_kernel_there_is_no_spatial_part():
    cbam = CBAM(32, reduction=16, kernel=None)
    assert cbam.spatial is None
    assert torch.equal(cbam(X), cbam.channel(X))
    assert {name.split(".")[0] for name, _ in cbam.named_parameters()} == {"channel"}


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(32, 16, 2), (40, 16, 2), (8, 16, 1), (1, 16, 1)])
def test_hidden_units(channels, reduction, hidden):
    attention = ChannelAttention(channels, reduction=reduction)
    assert attention.mlp[0].out_features == hidden
    assert attention(torch.ones(2, channels, 3, 3)).shape == (2, channels, 3, 3)


@pytest.mark.parametrize("kernel", [0, -1, 4])
def test_kernel_that_moves_the_map_is_refused(kernel):
    with pytest.raises(ConfigError, match=rf"odd .* not {kernel}"):
        SpatialAttention(kernel=kernel)


def test_every_weight_learns():
    cbam = CBAM(32, reduction=16, kernel=5)
    cbam(X).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in cbam.parameters())
